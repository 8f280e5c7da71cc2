/* The replica's life: recovery, the turn, the end. See replica.h.
 * Thread: the loop; replica_open runs before it. */
#include "node/replica_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BOOTSTRAP_TERM 1
#define TURN_ROUNDS_MAX 4

void replica_options_default(struct replica_options *o, uint64_t id, uint64_t seed) {
    *o = (struct replica_options){
        .id = id,
        .pending_proposals_max = 256,
        .pending_reads_max = 65536,
        .commit_timeout_ns = 5 * NS_PER_S,
        .peer_liveness_ns = 3 * NS_PER_S,
        .worker_heartbeat_ns = 5 * NS_PER_S,
        .worker_lease_ns = 15 * NS_PER_S,
        .watch_events_max = 65536,
        .fsm = {.overlay_bytes_max = 1024UL * 1024, .idempotency_max = 1000000},
        .wal = {.segment_bytes = 16U * 1024 * 1024, .spare_segments = 2},
        .version = CHRONOS_VERSION,
        .client_address = "",
    };
    raft_options_default(&o->raft, id, seed);
    o->raft.lazy_commit = true;
}

/* ---- recovery -------------------------------------------------------------------------------- */

/* What replaying the log collects: the tail that stays in memory, the configuration in front of it.
 */
struct replay {
    struct replica *r;
    uint64_t keep_from; /* first index wanted in memory */
    uint64_t prev_index, prev_term;
    struct raft_entry *tail;
    size_t count, cap;
    struct raft_config config;
    uint64_t config_index;
    uint64_t last_index, last_term;
    struct errtext *reterr;
};

static int replay_keep(struct replay *p, const struct wal_record *rec) {
    struct raft_entry *e;

    if (p->count == p->cap) {
        size_t cap = p->cap ? p->cap * 2 : 1024;
        struct raft_entry *grown = realloc(p->tail, cap * sizeof(*grown));

        if (!grown)
            return -ENOMEM;
        p->tail = grown;
        p->cap = cap;
    }
    e = &p->tail[p->count];
    *e = (struct raft_entry){.term = rec->term, .index = rec->index};
    e->type = (enum raft_entry_type) rec->type;
    if (rec->type != RAFT_ENTRY_NOOP) {
        e->data = bytes_copy(rec->data.data, rec->data.len);
        if (!e->data)
            return -ENOMEM;
    }
    p->count++;
    return 0;
}

static int replay_each(void *arg, const struct wal_record *rec) {
    struct replay *p = arg;

    p->last_index = rec->index;
    p->last_term = rec->term;
    if (rec->index >= p->keep_from)
        return replay_keep(p, rec);
    p->prev_index = rec->index;
    p->prev_term = rec->term;
    if (rec->type != RAFT_ENTRY_CONFIG)
        return 0;
    p->config_index = rec->index;
    return raft_config_decode(rec->data, &p->config, p->reterr);
}

static void replay_done(struct replay *p) {
    for (size_t i = 0; i < p->count; i++)
        bytes_unref(p->tail[i].data);
    free(p->tail);
}

/* Entry 1 of every log: the first configuration, in term 1, the same on each bootstrapped node, so
 * that their logs match from the start. Durable before anything else happens. */
static int bootstrap_log(struct replica *r, struct replay *p) {
    struct bytes *data;
    struct wal_record rec = {.index = 1, .term = BOOTSTRAP_TERM, .type = RAFT_ENTRY_CONFIG};
    int rc;

    data = raft_config_encode(r->o.bootstrap);
    if (!data)
        return -ENOMEM;
    rec.data = bytes_slice(data);
    rc = wal_append(r->wal, &rec, 1, p->reterr);
    if (rc == 0)
        rc = wal_sync(r->wal, p->reterr);
    if (rc == 0)
        rc = replay_each(p, &rec);
    bytes_unref(data);
    return rc;
}

static int open_meta(struct replica *r, struct meta_state *st, struct errtext *reterr) {
    int rc = meta_open(&r->env.disk, &r->meta, st, reterr);

    if (rc < 0)
        return rc;
    if (rc == META_MISSING) {
        if (!r->o.bootstrap || r->o.bootstrap->count == 0) {
            errtext_set(reterr, "the data directory is empty and no members are configured");
            return ERR_CONFIG;
        }
        if (!raft_config_find(r->o.bootstrap, r->o.id)) {
            errtext_set(reterr, "node %llu is not among the configured members",
                        (unsigned long long) r->o.id);
            return ERR_CONFIG;
        }
        *st = (struct meta_state){.node_id = r->o.id, .term = BOOTSTRAP_TERM};
        memcpy(st->cluster_id, r->o.cluster_id, sizeof(st->cluster_id));
        return meta_create(&r->env.disk, st, &r->meta, reterr);
    }
    if (st->node_id != r->o.id) {
        errtext_set(reterr, "the data directory belongs to node %llu, not to node %llu",
                    (unsigned long long) st->node_id, (unsigned long long) r->o.id);
        return ERR_FOREIGN;
    }
    if (memcmp(st->cluster_id, r->o.cluster_id, sizeof(st->cluster_id)) != 0) {
        errtext_set(reterr,
                    "the data directory belongs to another cluster (other cluster name or "
                    "other members at its bootstrap)");
        return ERR_FOREIGN;
    }
    return 0;
}

static int check_log(struct replica *r, const struct meta_state *st, const struct replay *p) {
    uint64_t applied = fsm_applied_index(r->fsm);

    if (p->last_index < applied) {
        errtext_set(p->reterr,
                    "the log ends at %llu but the state has applied %llu: log files are missing",
                    (unsigned long long) p->last_index, (unsigned long long) applied);
        return ERR_CORRUPT;
    }
    if (p->last_term > st->term) {
        errtext_set(p->reterr, "the log holds term %llu but the meta file knows only %llu",
                    (unsigned long long) p->last_term, (unsigned long long) st->term);
        return ERR_CORRUPT;
    }
    return 0;
}

static int recover_log(struct replica *r, const struct meta_state *st, struct replay *p) {
    struct wal_options wo = r->o.wal;
    int rc;

    memcpy(wo.identity.cluster_id, r->o.cluster_id, sizeof(wo.identity.cluster_id));
    wo.identity.node_id = r->o.id;
    wo.synced_hint = st->synced_index;
    rc = wal_open(&r->env.disk, &wo, replay_each, p, &r->wal, p->reterr);
    if (rc < 0)
        return rc;
    if (p->last_index == 0) {
        if (st->term != BOOTSTRAP_TERM || st->vote != 0 || !r->o.bootstrap) {
            errtext_set(p->reterr,
                        "the meta file is at term %llu but the log is empty: log files "
                        "are missing",
                        (unsigned long long) st->term);
            return ERR_CORRUPT;
        }
        rc = bootstrap_log(r, p);
        if (rc < 0)
            return rc;
    }
    return check_log(r, st, p);
}

static int start_raft(struct replica *r, const struct meta_state *st, const struct replay *p) {
    struct raft_start start = {
        .hard_state = {.term = st->term, .vote = st->vote},
        .applied_index = fsm_applied_index(r->fsm),
        .config = p->config_index > 0 ? &p->config : NULL,
        .config_index = p->config_index,
        .prev_index = p->prev_index,
        .prev_term = p->prev_term,
        .tail = p->tail,
        .tail_count = p->count,
    };
    int rc;

    rc = raft_new(&r->o.raft, &start, r->now, &r->raft, p->reterr);
    if (rc < 0)
        return rc;
    r->apply_target = start.applied_index;
    r->applied_term = fsm_applied_term(r->fsm);
    return peers_init(r, raft_config_latest(r->raft));
}

static int recover(struct replica *r, struct errtext *reterr) {
    struct replay p = {.r = r, .reterr = reterr};
    struct meta_state st = {0};
    uint64_t applied;
    int rc;

    rc = fsm_open(r->kv, &r->o.fsm, &r->fsm, reterr);
    if (rc < 0)
        return rc;
    applied = fsm_applied_index(r->fsm);
    p.keep_from =
        applied > r->o.raft.applied_entries_kept ? applied + 1 - r->o.raft.applied_entries_kept : 1;
    rc = open_meta(r, &st, reterr);
    if (rc >= 0)
        rc = recover_log(r, &st, &p);
    if (rc >= 0)
        rc = start_raft(r, &st, &p);
    replay_done(&p);
    return rc;
}

int replica_open(const struct replica_options *o, const struct env *env, struct kv *kv,
                 struct replica **ret, struct errtext *reterr) {
    struct replica *r = calloc(1, sizeof(*r));
    int rc;

    if (!r)
        return -ENOMEM;
    r->o = *o;
    r->env = *env;
    r->kv = kv;
    r->o.raft.id = o->id;
    r->now = env->clock.mono(env->clock.ctx);
    r->incarnation = env->random.next(env->random.ctx);
    r->version = strdup(o->version);
    r->client_address = strdup(o->client_address);
    r->leases.check_at = MONO_NEVER;
    arena_init(&r->arena, ARENA_BYTES_MAX);
    arena_init(&r->rx_arena, 2 * ARENA_BYTES_MAX);
    rc = r->version && r->client_address ? 0 : -ENOMEM;
    if (rc == 0)
        rc = sched_new(&r->scheduler.sched);
    if (rc == 0)
        rc = proposals_init(r);
    if (rc == 0)
        rc = recover(r, reterr);
    if (rc == 0)
        rc = events_init(r, o->watch_events_max);
    if (rc < 0) {
        (void) replica_free(r);
        return rc;
    }
    r->wants_turn = true;
    *ret = r;
    return 0;
}

struct replica *replica_free(struct replica *r) {
    if (!r)
        return NULL;
    ASSERT(replica_idle(r));
    logs_free(r);
    peer_calls_free(r);
    reads_free(r);
    proposals_free(r);
    ASSERT(!r->sessions); /* api closes its streams first */
    leases_free(r);
    events_free(r);
    persist_free(r);
    peers_free(r);
    (void) raft_free(r->raft);
    (void) fsm_free(r->fsm);
    (void) wal_close(r->wal);
    (void) meta_close(r->meta);
    (void) sched_free(r->scheduler.sched);
    arena_done(&r->arena);
    arena_done(&r->rx_arena);
    free(r->version);
    free(r->client_address);
    free(r);
    return NULL;
}

bool replica_idle(const struct replica *r) {
    return !r->persist.busy && r->disk_jobs == 0;
}

/* ---- the turn -------------------------------------------------------------------------------- */

static void fire_timeouts(struct replica *r) {
    struct raft_event ev = {.type = RAFT_EV_TIMEOUT};

    if (mono_reached(r->now, raft_deadline(r->raft)))
        (void) replica_step(r, &ev, NULL);
    proposals_expire(r);
    reads_expire(r);
    peer_calls_expire(r);
    leases_check(r);
    peers_send_facts(r);
}

void replica_turn(struct replica *r) {
    r->now = r->env.clock.mono(r->env.clock.ctx);
    r->wants_turn = false;
    if (r->failed)
        return;
    fire_timeouts(r);
    /* Each round may give the next one work: an apply frees a slot, the scheduler proposes, raft
     * appends. A few rounds settle it; what is left waits for the next turn. */
    for (int round = 0; round < TURN_ROUNDS_MAX; round++) {
        proposals_drain(r);
        reads_drain(r);
        apply_committed(r);
        reads_answer(r);
        scheduler_run(r);
        sessions_flush(r);
        logs_serve_ready(r);
        if (r->failed)
            return;
        if (!r->proposals.internal.head && r->proposals.inbox_count == 0)
            break;
    }
    events_notify(r);
    peers_flush(r);
    persist_start(r);
}

bool replica_wants_turn(const struct replica *r) {
    return r->wants_turn;
}

struct mono replica_deadline(const struct replica *r) {
    struct mono d = raft_deadline(r->raft);

    if (r->wants_turn)
        return r->now;
    d = mono_min(d, timer_heap_deadline(&r->proposals.deadlines));
    d = mono_min(d, timer_heap_deadline(&r->reads.deadlines));
    d = mono_min(d, timer_heap_deadline(&r->peer_call_deadlines));
    d = mono_min(d, r->facts_at);
    if (r->reads.unasked > 0 && raft_leader(r->raft) != 0)
        d = mono_min(d, r->reads.retry_at);
    if (replica_leads(r))
        d = mono_min(d, r->leases.check_at);
    return d;
}

int replica_failed(const struct replica *r, struct errtext *reterr) {
    if (r->failed && reterr)
        *reterr = r->failure;
    return r->failed;
}

struct fsm *replica_fsm(struct replica *r) {
    return r->fsm;
}

uint64_t replica_applied(const struct replica *r) {
    return fsm_applied_index(r->fsm);
}

uint64_t replica_leader(const struct replica *r) {
    return raft_leader(r->raft);
}

struct mono replica_now(const struct replica *r) {
    return r->env.clock.mono(r->env.clock.ctx);
}

const struct raft *replica_raft(const struct replica *r) {
    return r->raft;
}

void replica_transfer_leadership(struct replica *r, uint64_t to) {
    struct raft_event ev = {.type = RAFT_EV_TRANSFER, .transfer_to = to};

    if (raft_role(r->raft) != RAFT_LEADER)
        return;
    r->now = r->env.clock.mono(r->env.clock.ctx);
    r->wants_turn = true;
    (void) replica_step(r, &ev, NULL);
}
