/* The second state that conformance keeps: logs, configurations, what is on its way to the disk and
 * what was said. What may change it is in conformance_steps.c. Thread: one. */
#include "sim/conformance.h"

#include "sim/sim_internal.h"

#include <stdlib.h>
#include <string.h>

#define ULL(x) ((unsigned long long) (x))
#define LOG_MAX (1UL << 22)

bool model_reserve(struct taking *t, uint64_t last) {
    struct model_node *m = t->m;
    struct model_entry *log;
    uint64_t *d_log;
    size_t cap = MAX((size_t) last + 64, m->log_cap * 2);

    if (last < m->log_cap)
        return true;
    if (cap > LOG_MAX) {
        t->w->no_memory = true;
        return false;
    }
    log = realloc(m->log, cap * sizeof(*log));
    if (log)
        m->log = log;
    d_log = realloc(m->d_log, cap * sizeof(*d_log));
    if (d_log)
        m->d_log = d_log;
    if (!log || !d_log) {
        t->w->no_memory = true;
        return false;
    }
    memset(log + m->log_cap, 0, (cap - m->log_cap) * sizeof(*log));
    memset(d_log + m->log_cap, 0, (cap - m->log_cap) * sizeof(*d_log));
    m->log_cap = cap;
    return true;
}

bool model_reserve_done(struct taking *t, uint64_t last) {
    struct conformance *c = t->c;
    size_t cap = MAX((size_t) last + 64, c->done_cap * 2);
    uint64_t *done;

    if (last < c->done_cap)
        return true;
    done = cap > LOG_MAX ? NULL : realloc(c->done, cap * sizeof(*done));
    if (!done) {
        t->w->no_memory = true;
        return false;
    }
    memset(done + c->done_cap, 0, (cap - c->done_cap) * sizeof(*done));
    c->done = done;
    c->done_cap = cap;
    return true;
}

bool model_op_push(struct taking *t, struct model_op op) {
    struct model_node *m = t->m;

    if (m->ops_head > 0 && m->ops_head == m->ops_count)
        m->ops_head = m->ops_count = 0;
    if (m->ops_count == m->ops_cap) {
        size_t cap = m->ops_cap ? m->ops_cap * 2 : 64;
        struct model_op *ops = realloc(m->ops, cap * sizeof(*ops));

        if (!ops) {
            t->w->no_memory = true;
            return false;
        }
        m->ops = ops;
        m->ops_cap = cap;
    }
    m->ops[m->ops_count++] = op;
    return true;
}

/* Values are kept plus 1: 0 is not in the map. */
uint64_t model_said(const struct u64map *m, uint64_t key) {
    uint64_t boxed = (uint64_t) (uintptr_t) u64map_get(m, key);

    return boxed == 0 ? 0 : boxed - 1;
}

bool model_say(struct taking *t, struct u64map *m, uint64_t key, uint64_t value) {
    if (u64map_put(m, key, (void *) (uintptr_t) (value + 1)) == 0)
        return true;
    t->w->no_memory = true;
    return false;
}

struct model_config model_config_of(const struct raft_config *c, uint64_t index) {
    struct model_config m = {.index = index};

    for (size_t i = 0; i < c->count; i++) {
        if (c->members[i].flags & RAFT_MEMBER_VOTER)
            m.voters |= 1ULL << c->members[i].id;
        if (c->members[i].flags & RAFT_MEMBER_VOTER_OLD)
            m.old |= 1ULL << c->members[i].id;
    }
    return m;
}

bool model_push_config(struct taking *t, struct model_config c) {
    struct model_node *m = t->m;

    if (m->configs_count == m->configs_cap) {
        size_t cap = m->configs_cap ? m->configs_cap * 2 : 8;
        struct model_config *configs = realloc(m->configs, cap * sizeof(*configs));

        if (!configs) {
            t->w->no_memory = true;
            return false;
        }
        m->configs = configs;
        m->configs_cap = cap;
    }
    m->configs[m->configs_count++] = c;
    return true;
}

const struct model_config *model_in_force(const struct model_node *m) {
    return &m->configs[m->configs_count - 1];
}

void model_settle_configs(struct model_node *m) {
    size_t drop = 0;

    while (drop + 1 < m->configs_count && m->configs[drop + 1].index <= m->commit)
        drop++;
    if (drop == 0)
        return;
    m->configs_count -= drop;
    memmove(m->configs, m->configs + drop, m->configs_count * sizeof(*m->configs));
}

static bool config_of_entry(struct taking *t, const struct raft_entry *e,
                            struct model_config *ret) {
    struct raft_config c;

    if (raft_config_decode(bytes_slice(e->data), &c, NULL) < 0) {
        sim_fail(t->w, "conformance: node %llu: the configuration at %llu does not decode",
                 ULL(t->id), ULL(e->index));
        return false;
    }
    *ret = model_config_of(&c, e->index);
    return true;
}

bool model_append(struct taking *t, const struct raft_entry *e, uint64_t seq) {
    struct model_node *m = t->m;
    struct model_config c;

    if (!model_reserve(t, m->last + 1))
        return false;
    m->last++;
    m->log[m->last] = (struct model_entry){.term = e->term, .seq = seq};
    if (e->type == RAFT_ENTRY_CONFIG && (!config_of_entry(t, e, &c) || !model_push_config(t, c)))
        return false;
    return model_op_push(
        t, (struct model_op){.kind = OP_APPEND, .seq = seq, .index = m->last, .term = e->term});
}

uint64_t model_term_at(const struct model_node *m, uint64_t index) {
    return index == 0 || index > m->last ? 0 : m->log[index].term;
}
