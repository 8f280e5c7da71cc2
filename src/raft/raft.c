/* Making a raft from what recovery found, and looking into it. */
#include "raft/raft.h"

#include <errno.h>
#include <stdlib.h>

#include "raft/raft_internal.h"

void raft_options_default(struct raft_options *o, uint64_t id, uint64_t seed) {
    ASSERT(o);
    ASSERT(id > 0);
    *o = (struct raft_options){
        .id = id,
        .seed = seed,
        .election_timeout_min_ns = 150 * NS_PER_MS,
        .election_timeout_max_ns = 300 * NS_PER_MS,
        .heartbeat_interval_ns = 50 * NS_PER_MS,
        .append_bytes_max = 1U << 20,
        .inflight_messages_max = 256,
        .inflight_bytes_max = 8U << 20,
        .uncommitted_entries_max = 16384,
        .uncommitted_bytes_max = 32U << 20,
        .applied_entries_kept = 1000,
        .applied_bytes_kept = 32U << 20,
        .disk_stall_ns = RAFT_DISK_STALL_AUTO,
        .lease_drift_ppm = 10000,
    };
}

static void options_check(const struct raft_options *o) {
    ASSERT(o->id > 0);
    ASSERT(o->election_timeout_min_ns < o->election_timeout_max_ns);
    ASSERT(o->heartbeat_interval_ns > 0);
    ASSERT(o->heartbeat_interval_ns < o->election_timeout_min_ns);
    ASSERT(o->append_bytes_max > 0);
    ASSERT(o->inflight_messages_max > 0);
    ASSERT(o->inflight_messages_max <= RAFT_INFLIGHT_MESSAGES_LIMIT);
    ASSERT(o->inflight_bytes_max > 0);
    ASSERT(o->uncommitted_entries_max > 0);
    ASSERT(o->uncommitted_bytes_max > 0);
    ASSERT(o->lease_drift_ppm < 1000000);
}

/* Contradictions that would make this node dangerous to the others: refuse to start. */
static int start_check(const struct raft_start *s, struct errtext *reterr) {
    uint64_t last = s->prev_index + s->tail_count;
    uint64_t last_term = s->prev_term;

    ASSERT(s->tail || s->tail_count == 0);
    ASSERT(last >= s->prev_index);
    if (s->tail_count > 0)
        last_term = s->tail[s->tail_count - 1].term;

    if ((s->prev_index == 0) != (s->prev_term == 0)) {
        errtext_set(reterr, "log starts after index %llu with term %llu: both or none must be 0",
                    (unsigned long long) s->prev_index, (unsigned long long) s->prev_term);
        return ERR_CORRUPT;
    }
    if (s->applied_index < s->prev_index || s->applied_index > last) {
        errtext_set(reterr, "applied index %llu is outside the log (%llu, %llu]",
                    (unsigned long long) s->applied_index, (unsigned long long) s->prev_index,
                    (unsigned long long) last);
        return ERR_CORRUPT;
    }
    if (last_term > s->hard_state.term || s->hard_state.term > RAFT_TERM_MAX ||
        (s->hard_state.term == 0 && s->hard_state.vote != 0)) {
        errtext_set(reterr,
                    "stored term %llu (vote %llu) does not fit a log that ends in term %llu",
                    (unsigned long long) s->hard_state.term,
                    (unsigned long long) s->hard_state.vote, (unsigned long long) last_term);
        return ERR_CORRUPT;
    }
    if ((s->compacted_index == 0) != (s->compacted_term == 0) ||
        s->compacted_index > s->prev_index || s->compacted_term > s->prev_term ||
        (s->compacted_index == s->prev_index && s->compacted_term != s->prev_term)) {
        errtext_set(reterr,
                    "log gone up to %llu (term %llu) does not fit one read from %llu (%llu)",
                    (unsigned long long) s->compacted_index, (unsigned long long) s->compacted_term,
                    (unsigned long long) s->prev_index, (unsigned long long) s->prev_term);
        return ERR_CORRUPT;
    }
    if (s->config && s->config_index > s->prev_index) {
        errtext_set(reterr, "configuration of index %llu is said to precede index %llu",
                    (unsigned long long) s->config_index, (unsigned long long) s->prev_index + 1);
        return ERR_CORRUPT;
    }
    return 0;
}

static int start_entry(struct raft *r, const struct raft_entry *e, struct errtext *reterr) {
    struct raft_config c;
    int rc;

    ASSERT(e);
    if (e->index != raft_log_last_index(&r->log) + 1 || e->term == 0 ||
        e->term < raft_log_last_term(&r->log)) {
        errtext_set(reterr, "log entry %llu (term %llu) does not follow entry %llu (term %llu)",
                    (unsigned long long) e->index, (unsigned long long) e->term,
                    (unsigned long long) raft_log_last_index(&r->log),
                    (unsigned long long) raft_log_last_term(&r->log));
        return ERR_CORRUPT;
    }
    rc = raft_log_append(&r->log, e);
    if (rc < 0 || e->type != RAFT_ENTRY_CONFIG)
        return rc;
    rc = raft_config_decode(bytes_slice(e->data), &c, reterr);
    if (rc < 0)
        return rc == -ENOMEM ? rc : ERR_CORRUPT;
    raft_config_push(r, e->index, &c);
    return r->failed;
}

static int start_load(struct raft *r, const struct raft_start *s, struct errtext *reterr) {
    static const struct raft_config none;
    int rc;

    ASSERT(s);
    ASSERT(r->configs_count == 0);

    raft_log_init(&r->log, s->prev_index, s->prev_term);
    r->term = s->hard_state.term;
    r->vote = s->hard_state.vote;
    r->commit = s->applied_index;
    r->applied = s->applied_index;
    r->apply_index = s->applied_index;
    r->compacted_index = s->compacted_index;
    r->compacted_term = s->compacted_term;
    raft_config_push(r, s->config ? s->config_index : 0, s->config ? s->config : &none);
    if (r->failed < 0)
        return r->failed;
    for (size_t i = 0; i < s->tail_count; i++) {
        rc = start_entry(r, &s->tail[i], reterr);
        if (rc < 0)
            return rc;
    }
    r->durable_index = raft_log_last_index(&r->log);
    raft_config_settle(r);
    return 0;
}

int raft_new(const struct raft_options *o, const struct raft_start *start, struct mono now,
             struct raft **ret, struct errtext *reterr) {
    _cleanup_(raft_freep) struct raft *r = NULL;
    struct rng ids;
    int rc;

    ASSERT(o);
    ASSERT(start);
    ASSERT(ret);
    options_check(o);

    rc = start_check(start, reterr);
    if (rc < 0)
        return rc;
    r = calloc(1, sizeof(*r));
    if (!r)
        return -ENOMEM;
    r->options = *o;
    if (o->disk_stall_ns == RAFT_DISK_STALL_AUTO)
        r->options.disk_stall_ns = 2 * o->election_timeout_max_ns;
    r->rng = rng_seed(o->seed);
    r->now = now;
    r->role = RAFT_FOLLOWER;
    r->no_vote_before = mono_add_ns(now, o->election_timeout_min_ns);
    /* Differs from the ids of an earlier life even when the seed does not. */
    ids = rng_seed(o->seed ^ (now.ns * 0x9e3779b97f4a7c15ULL));
    r->read_request_last = rng_next(&ids) >> 1;
    for (size_t i = 0; i < RAFT_NODES_MAX; i++) {
        r->peers[i].inflight = calloc(o->inflight_messages_max, sizeof(struct raft_inflight));
        if (!r->peers[i].inflight)
            return -ENOMEM;
    }
    rc = start_load(r, start, reterr);
    if (rc < 0)
        return rc;
    if (raft_config_may_campaign(r))
        raft_election_reset_timer(r);
    else
        r->election_deadline = MONO_NEVER;
    raft_check_invariants(r);
    *ret = TAKE_PTR(r);
    return 0;
}

struct raft *raft_free(struct raft *r) {
    if (!r)
        return NULL;
    raft_log_done(&r->log);
    for (size_t i = 0; i < r->loaded_count; i++)
        (void) bytes_unref(r->loaded[i].data);
    for (size_t i = 0; i < RAFT_NODES_MAX; i++)
        free(r->peers[i].inflight);
    free(r->loaded);
    free(r->configs);
    free(r->batches);
    free(r->reads);
    free(r->messages);
    free(r->answers);
    free(r);
    return NULL;
}

enum raft_role raft_role(const struct raft *r) {
    return r->role;
}

const char *raft_role_to_string(enum raft_role role) {
    switch (role) {
    case RAFT_FOLLOWER:
        return "follower";
    case RAFT_PRE_CANDIDATE:
        return "pre-candidate";
    case RAFT_CANDIDATE:
        return "candidate";
    case RAFT_LEADER:
        return "leader";
    }
    return "unknown";
}

const char *raft_message_type_to_string(enum raft_message_type type) {
    switch (type) {
    case RAFT_MSG_PRE_VOTE_REQ:
        return "pre_vote_req";
    case RAFT_MSG_PRE_VOTE_RESP:
        return "pre_vote_resp";
    case RAFT_MSG_VOTE_REQ:
        return "vote_req";
    case RAFT_MSG_VOTE_RESP:
        return "vote_resp";
    case RAFT_MSG_APPEND_REQ:
        return "append_req";
    case RAFT_MSG_APPEND_RESP:
        return "append_resp";
    case RAFT_MSG_HEARTBEAT_REQ:
        return "heartbeat_req";
    case RAFT_MSG_HEARTBEAT_RESP:
        return "heartbeat_resp";
    case RAFT_MSG_TIMEOUT_NOW:
        return "timeout_now";
    case RAFT_MSG_READ_INDEX_REQ:
        return "read_index_req";
    case RAFT_MSG_READ_INDEX_RESP:
        return "read_index_resp";
    case RAFT_MSG_SNAPSHOT_RESP:
        return "snapshot_resp";
    case RAFT_MSG_TYPE_MAX:
        break;
    }
    return "unknown";
}

uint64_t raft_term(const struct raft *r) {
    return r->term;
}

uint64_t raft_vote(const struct raft *r) {
    return r->vote;
}

uint64_t raft_leader(const struct raft *r) {
    return r->leader;
}

uint64_t raft_commit(const struct raft *r) {
    return r->commit;
}

uint64_t raft_applied(const struct raft *r) {
    return r->applied;
}

uint64_t raft_last_index(const struct raft *r) {
    return raft_log_last_index(&r->log);
}

uint64_t raft_durable_index(const struct raft *r) {
    return r->durable_index;
}

uint64_t raft_first_in_memory(const struct raft *r) {
    return r->log.prev_index + 1;
}

const struct raft_config *raft_config_latest(const struct raft *r) {
    return raft_config_current(r);
}

uint64_t raft_config_latest_index(const struct raft *r) {
    return r->configs[r->configs_count - 1].index;
}

const struct raft_config *raft_config_committed(const struct raft *r) {
    ASSERT(r->configs_count > 0);
    return &r->configs[0].config;
}

uint64_t raft_config_committed_index(const struct raft *r) {
    ASSERT(r->configs_count > 0);
    return r->configs[0].index;
}

uint64_t raft_compacted_index(const struct raft *r) {
    return r->compacted_index;
}

bool raft_leader_ready(const struct raft *r) {
    return r->role == RAFT_LEADER && r->commit >= r->term_first_index;
}

const struct raft_entry *raft_entry_at(const struct raft *r, uint64_t index) {
    return raft_log_at(&r->log, index);
}

int raft_peer_status(const struct raft *r, uint64_t id, struct raft_peer_status *ret) {
    ASSERT(ret);
    ASSERT(r->peers_count <= RAFT_NODES_MAX);
    for (size_t i = 0; i < r->peers_count; i++) {
        const struct raft_peer *p = &r->peers[i];

        if (p->id != id || id == r->options.id)
            continue;
        *ret = (struct raft_peer_status){.id = id,
                                         .state = p->state,
                                         .session = p->session,
                                         .match = p->match,
                                         .next = p->next,
                                         .last_contact = p->last_contact,
                                         .contacted = p->contacted,
                                         .inflight_messages = p->inflight_count,
                                         .inflight_bytes = p->inflight_bytes};
        return 0;
    }
    return 1;
}
