/* The trace of a world: one line for each thing that happens, for golden scripts. */
#include "raft_world_internal.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

void world_trace(struct world *w, const char *fmt, ...) {
    va_list ap;

    if (!w->trace)
        return;
    va_start(ap, fmt);
    (void) vfprintf(w->trace, fmt, ap);
    va_end(ap);
}

/* Random numbers become c1, c2, ... in order of appearance. */
unsigned world_trace_context(struct world *w, uint64_t context) {
    for (size_t i = 0; i < w->trace_contexts_count; i++) {
        if (w->trace_contexts[i] == context)
            return (unsigned) i + 1;
    }
    if (w->trace_contexts_count < ARRAY_LEN(w->trace_contexts))
        w->trace_contexts[w->trace_contexts_count++] = context;
    return (unsigned) w->trace_contexts_count;
}

void world_trace_config(struct world *w, const struct raft_config *c) {
    for (size_t i = 0; i < c->count; i++)
        world_trace(w, "%s%" PRIu64 "%s%s%s%s", i > 0 ? " " : "", c->members[i].id,
                    c->members[i].flags & RAFT_MEMBER_VOTER ? "v" : "",
                    c->members[i].flags & RAFT_MEMBER_VOTER_OLD ? "o" : "",
                    c->members[i].flags & RAFT_MEMBER_LEARNER ? "l" : "",
                    c->members[i].flags & RAFT_MEMBER_PROMOTE ? "p" : "");
}

static void trace_config_entry(struct world *w, const struct raft_entry *e) {
    struct raft_config c;

    CHECK(w, raft_config_decode(bytes_slice(e->data), &c, NULL) == 0);
    world_trace(w, "(");
    world_trace_config(w, &c);
    world_trace(w, ")");
}

void world_trace_entries(struct world *w, const struct raft_entry *e, size_t n) {
    for (size_t i = 0; w->trace && i < n; i++) {
        world_trace(w, " %" PRIu64 ":%" PRIu64, e[i].index, e[i].term);
        if (e[i].type == RAFT_ENTRY_NOOP)
            world_trace(w, "(noop)");
        else if (e[i].type == RAFT_ENTRY_CONFIG)
            trace_config_entry(w, &e[i]);
        else if (e[i].data)
            world_trace(w, "(%.*s)", (int) e[i].data->len, (const char *) e[i].data->data);
    }
}

void world_trace_message(struct world *w, const struct raft_message *m) {
    if (!w->trace)
        return;
    world_trace(w, "%" PRIu64 "->%" PRIu64 " %s term=%" PRIu64, m->from, m->to,
                raft_message_type_to_string(m->type), m->term);
    switch (m->type) {
    case RAFT_MSG_PRE_VOTE_REQ:
    case RAFT_MSG_VOTE_REQ:
        world_trace(w, " last=%" PRIu64 ":%" PRIu64 "%s", m->log_index, m->log_term,
                    m->context ? " transfer" : "");
        break;
    case RAFT_MSG_PRE_VOTE_RESP:
    case RAFT_MSG_VOTE_RESP:
        world_trace(w, m->reject ? " rejected" : " granted");
        break;
    case RAFT_MSG_APPEND_REQ:
        world_trace(w, " prev=%" PRIu64 ":%" PRIu64 " commit=%" PRIu64 " entries=[", m->log_index,
                    m->log_term, m->commit);
        world_trace_entries(w, m->entries, m->entries_count);
        world_trace(w, " ]");
        break;
    case RAFT_MSG_APPEND_RESP:
        if (m->reject)
            world_trace(w, " rejected prev=%" PRIu64 " hint=%" PRIu64 ":%" PRIu64, m->log_index,
                        m->hint_index, m->hint_term);
        else
            world_trace(w, " match=%" PRIu64, m->match);
        break;
    case RAFT_MSG_HEARTBEAT_REQ:
        world_trace(w, " commit=%" PRIu64 " round=%" PRIu64, m->commit, m->context);
        break;
    case RAFT_MSG_HEARTBEAT_RESP:
        world_trace(w, " round=%" PRIu64 "%s", m->context, m->reject ? " rejected" : "");
        break;
    case RAFT_MSG_TIMEOUT_NOW:
        break;
    case RAFT_MSG_READ_INDEX_REQ:
        world_trace(w, " c%u", world_trace_context(w, m->context));
        break;
    case RAFT_MSG_READ_INDEX_RESP:
        world_trace(w, " c%u %s index=%" PRIu64, world_trace_context(w, m->context),
                    m->reject ? "refused" : "ok", m->log_index);
        break;
    case RAFT_MSG_SNAPSHOT_RESP:
        if (m->reject)
            world_trace(w, " rejected");
        else
            world_trace(w, " match=%" PRIu64, m->match);
        break;
    case RAFT_MSG_TYPE_MAX:
        break;
    }
}
