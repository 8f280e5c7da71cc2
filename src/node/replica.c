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
        .peer_address = "",
        .drain_timeout_ns = 30 * NS_PER_S,
        .snapshot_interval_ns = 30 * NS_PER_S,
        .snapshot_entries = 1000,
        .log_bytes_max = 256UL * 1024 * 1024,
        .log_bytes_kept = 64UL * 1024 * 1024,
        .snapshot_chunk_bytes = SNAPSHOT_CHUNK_BYTES,
        .disk_reserve_bytes = 256UL * 1024 * 1024,
        .scrub_interval_ns = 24 * 3600 * NS_PER_S,
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
    size_t dropped; /* of the first in @tail: forgotten again, for their bytes */
    size_t count, cap;
    uint64_t applied_bytes; /* of those in @tail that are applied */
    struct raft_config config;
    uint64_t config_index;
    uint64_t last_index, last_term;
    struct errtext *reterr;
};

/* The first entry that is kept becomes one in front of those that are. */
static int replay_drop_first(struct replay *p) {
    struct raft_entry *e = &p->tail[p->dropped++];
    int rc = 0;

    p->applied_bytes -= e->data ? e->data->len : 0;
    p->prev_index = e->index;
    p->prev_term = e->term;
    if (e->type == RAFT_ENTRY_CONFIG && e->index > p->config_index) {
        p->config_index = e->index;
        rc = raft_config_decode(bytes_slice(e->data), &p->config, p->reterr);
    }
    bytes_unref(e->data);
    e->data = NULL;
    return rc;
}

/* As many bytes as raft would keep (trim_applied in raft/step.c), also while reading. */
static int replay_fit(struct replay *p, const struct raft_entry *newest) {
    int rc = 0;

    if (newest->index > fsm_applied_index(p->r->fsm))
        return 0;
    p->applied_bytes += newest->data ? newest->data->len : 0;
    while (rc == 0 && p->applied_bytes > p->r->o.raft.applied_bytes_kept)
        rc = replay_drop_first(p);
    return rc;
}

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
    return replay_fit(p, e);
}

static int replay_each(void *arg, const struct wal_record *rec) {
    struct replay *p = arg;

    p->last_index = rec->index;
    p->last_term = rec->term;
    if (rec->index >= p->keep_from)
        return replay_keep(p, rec);
    p->prev_index = rec->index;
    p->prev_term = rec->term;
    if (rec->type != RAFT_ENTRY_CONFIG || rec->index <= p->config_index)
        return 0;
    p->config_index = rec->index;
    return raft_config_decode(rec->data, &p->config, p->reterr);
}

static void replay_done(struct replay *p) {
    for (size_t i = 0; i < p->count; i++)
        bytes_unref(p->tail[i].data);
    free(p->tail);
    p->tail = NULL;
    p->dropped = p->count = p->cap = 0;
    p->applied_bytes = 0;
}

/* The state knows the configuration in force at its applied index, also when the log does not reach
 * back to it any more. Entries up to that one then stay out of memory: raft could not tell which
 * configuration stood in front of them. */
static int replay_begin(struct replay *p) {
    const struct replica *r = p->r;
    uint64_t applied = fsm_applied_index(r->fsm), kept = r->o.raft.applied_entries_kept;
    struct slice config = fsm_config(r->fsm, &p->config_index);

    p->keep_from = MAX(applied > kept ? applied + 1 - kept : 1, p->config_index + 1);
    return p->config_index > 0 ? raft_config_decode(config, &p->config, p->reterr) : 0;
}

/* After the log was read. What is gone from it stands in front of what is left. */
static void replay_end(struct replay *p) {
    const struct wal *wal = p->r->wal;

    p->last_index = wal_last_index(wal);
    if (p->last_index == wal_base_index(wal))
        p->last_term = wal_base_term(wal);
    if (p->prev_index == 0) {
        p->prev_index = wal_base_index(wal);
        p->prev_term = wal_base_term(wal);
    }
}

/* An install that was cut off between the switch of the state and the new log (persist_install in
 * effects.c) is finished by finish_install(). It is one exactly when all of these hold for the
 * entry I that the state was installed at:
 *  - the state has applied I and nothing behind it: entries behind I are written only to the new
 *    log, in the same job or a later one;
 *  - the meta file's synced index is below I. The job lowers it before the switch and sets it to I
 *    once the new log is durable; from then on the log's last index, never below I, is written. So
 *    a log that was lost or rolled back after a finished install is no unfinished one, and an empty
 *    log directory beside such a meta file stays refused (W15);
 *  - the log's base is below I (else the new log is there, and only the meta file is behind).
 * What the old log holds then is of no use: up to I the state has it, and behind I it contradicts
 * what the cluster has committed, or raft would not have asked for the snapshot. */
static bool install_is_open(const struct replica *r, const struct meta_state *st,
                            uint64_t *ret_index, uint64_t *ret_term) {
    fsm_installed(r->fsm, ret_index, ret_term);
    return *ret_index > 0 && fsm_applied_index(r->fsm) == *ret_index &&
           st->synced_index < *ret_index;
}

static int save_meta(struct replica *r, struct meta_state *st, uint64_t synced_index,
                     struct errtext *reterr) {
    st->synced_index = synced_index;
    meta_note_log(r->meta, wal_synced_at(r->wal));
    return meta_save(r->meta, st->term, st->vote, synced_index, reterr);
}

static int finish_install(struct replica *r, struct meta_state *st, struct replay *p) {
    uint64_t index = 0, term = 0;
    int rc = 0;

    if (!install_is_open(r, st, &index, &term))
        return 0;
    if (wal_base_index(r->wal) < index) {
        log_warn(r->env.log, "finishing an interrupted snapshot install", "index=%llu",
                 (unsigned long long) index);
        replay_done(p);
        p->prev_index = p->prev_term = 0;
        rc = wal_reset(r->wal, index, term, p->reterr);
    }
    return rc < 0 ? rc : save_meta(r, st, index, p->reterr);
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

/* A node that waits to be added begins at term 0, so that it is not taken for one whose log is
 * lost: nobody else's meta file says that. */
static int create_meta(struct replica *r, struct meta_state *st, struct errtext *reterr) {
    bool bootstrap = r->o.bootstrap && r->o.bootstrap->count > 0;

    if (!r->o.join && !bootstrap) {
        errtext_set(reterr, "the data directory is empty and no members are configured");
        return ERR_CONFIG;
    }
    if (!r->o.join && !raft_config_find(r->o.bootstrap, r->o.id)) {
        errtext_set(reterr, "node %llu is not among the configured members",
                    (unsigned long long) r->o.id);
        return ERR_CONFIG;
    }
    *st = (struct meta_state){.node_id = r->o.id, .term = r->o.join ? 0 : BOOTSTRAP_TERM};
    memcpy(st->cluster_id, r->o.cluster_id, sizeof(st->cluster_id));
    for (size_t i = 0; i < sizeof(st->incarnation); i += sizeof(uint64_t)) {
        /* Never all zero: that is no incarnation. */
        uint64_t random = r->env.random.next(r->env.random.ctx) | 1;

        memcpy(st->incarnation + i, &random, sizeof(random));
    }
    return meta_create(&r->env.disk, st, &r->meta, reterr);
}

static int open_meta(struct replica *r, struct meta_state *st, struct errtext *reterr) {
    int rc = meta_open(&r->env.disk, &r->meta, st, reterr);

    if (rc == META_MISSING)
        rc = create_meta(r, st, reterr);
    if (rc < 0)
        return rc;
    if (meta_repaired(r->meta))
        log_warn(r->env.log, "the meta file was old or damaged and was repaired from its copy",
                 "term=%llu", (unsigned long long) st->term);
    memcpy(r->disk, st->incarnation, sizeof(r->disk));
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

    if (wal_base_index(r->wal) > applied) {
        errtext_set(p->reterr,
                    "the log begins behind entry %llu but the state has applied only %llu: files "
                    "of the state are missing or old",
                    (unsigned long long) wal_base_index(r->wal), (unsigned long long) applied);
        return ERR_CORRUPT;
    }
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

static int recover_log(struct replica *r, struct meta_state *st, struct replay *p) {
    struct wal_options wo = r->o.wal;
    uint64_t index, term;
    int rc;

    memcpy(wo.identity.cluster_id, r->o.cluster_id, sizeof(wo.identity.cluster_id));
    wo.identity.node_id = r->o.id;
    wo.synced_hint = st->synced_index;
    wo.synced_at = st->log;
    if (!install_is_open(r, st, &index, &term))
        wo.state_index = fsm_applied_index(r->fsm);
    rc = wal_open(&r->env.disk, &wo, replay_each, p, &r->wal, p->reterr);
    if (rc == 0)
        rc = finish_install(r, st, p);
    /* The segment of this life: before anything in it is acknowledged. */
    if (rc == 0)
        rc =
            save_meta(r, st, wal_last_index(r->wal) > 0 ? wal_last_index(r->wal) : st->synced_index,
                      p->reterr);
    if (rc < 0)
        return rc;
    replay_end(p);
    if (p->last_index == 0 && r->o.join && st->synced_index == 0)
        return check_log(r, st, p); /* it was never sent anything */
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
        .compacted_index = wal_base_index(r->wal),
        .compacted_term = wal_base_term(r->wal),
        .tail = p->tail ? p->tail + p->dropped : NULL,
        .tail_count = p->count - p->dropped,
    };
    int rc;

    rc = raft_new(&r->o.raft, &start, r->now, &r->raft, p->reterr);
    if (rc < 0)
        return rc;
    r->apply_target = start.applied_index;
    r->applied_term = fsm_applied_term(r->fsm);
    r->persist.saved = start.hard_state;
    snapshots_init(r);
    scrub_init(r);
    peers_sync(r);
    return 0;
}

static int recover(struct replica *r, struct errtext *reterr) {
    struct replay p = {.r = r, .reterr = reterr};
    struct meta_state st = {0};
    int rc;

    rc = fsm_open(r->kv, &r->o.fsm, &r->fsm, reterr);
    if (rc < 0)
        return rc;
    rc = identity_check_self(r, reterr);
    if (rc < 0)
        return rc;
    rc = ticks_load(r);
    if (rc < 0) {
        errtext_set(reterr, "state store: the schedules cannot be read: %s", err_name(rc));
        return rc;
    }
    rc = replay_begin(&p);
    if (rc >= 0)
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
    /* An answer to a call of an earlier life must not be taken for that of one made in this life:
     * a change of membership was told done that was never made. */
    r->next_peer_call = r->incarnation >> 8;
    r->version = strdup(o->version);
    r->client_address = strdup(o->client_address);
    r->peer_address = strdup(o->peer_address ? o->peer_address : "");
    if (o->hints)
        r->hints = *o->hints;
    r->o.hints = NULL; /* borrowed for this call */
    r->membership.drain_at = MONO_NEVER;
    r->leases.check_at = MONO_NEVER;
    r->persist.mark_at = MONO_NEVER;
    arena_init(&r->arena, ARENA_BYTES_MAX);
    arena_init(&r->rx_arena, 2 * ARENA_BYTES_MAX);
    rc = r->version && r->client_address && r->peer_address ? 0 : -ENOMEM;
    if (rc == 0)
        rc = sched_new(&r->scheduler.sched);
    if (rc == 0)
        rc = ticks_init(r);
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
    change_ops_free(r);
    reads_free(r);
    proposals_free(r);
    forwards_free(r);
    ASSERT(!r->sessions); /* api closes its streams first */
    leases_free(r);
    events_free(r);
    transfers_free(r);
    receive_free(r);
    persist_free(r);
    peers_free(r);
    (void) raft_free(r->raft);
    (void) fsm_free(r->fsm);
    (void) wal_close(r->wal);
    (void) meta_close(r->meta);
    (void) sched_free(r->scheduler.sched);
    ticks_free(r);
    arena_done(&r->arena);
    arena_done(&r->rx_arena);
    free(r->version);
    free(r->client_address);
    free(r->peer_address);
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
    disk_space_turn(r);
    scrub_turn(r);
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
    snapshots_turn(r);
    receive_turn(r);
    /* Each round may give the next one work: an apply frees a slot, the scheduler proposes, raft
     * appends. A few rounds settle it; what is left waits for the next turn. */
    for (int round = 0; round < TURN_ROUNDS_MAX; round++) {
        proposals_drain(r);
        reads_drain(r);
        apply_committed(r);
        if (r->failed)
            return; /* damage met by apply: the state may be asked nothing any more */
        reads_answer(r);
        membership_turn(r);
        ticks_turn(r);
        scheduler_run(r);
        sessions_flush(r);
        logs_serve_ready(r);
        if (r->failed)
            return;
        if (!r->proposals.internal.head && r->forwards.inbox_count == 0)
            break;
    }
    transfers_turn(r);
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
    d = mono_min(d, r->disk_space.at);
    d = mono_min(d, snapshots_deadline(r));
    d = mono_min(d, transfers_deadline(r));
    d = mono_min(d, scrub_deadline(r));
    d = mono_min(d, persist_deadline(r));
    d = mono_min(d, ticks_deadline(r));
    if (r->reads.unasked > 0 && raft_leader(r->raft) != 0)
        d = mono_min(d, r->reads.retry_at);
    if (replica_leads(r))
        d = mono_min(d, r->leases.check_at);
    return mono_min(d, membership_deadline(r));
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
