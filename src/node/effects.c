/* Executing raft's effects: the one place where persist-before-send is visible.
 *
 * Invariants: batches reach the disk in persist_seq order; one disk job at a time takes everything
 * that waits (group commit: one fdatasync for all); a message whose after_seq is not durable stays
 * in `delayed`, in order, until the disk job that covers it has returned success (W1, W2); a disk
 * error ends the replica before anything else can be sent (W3). Thread: the loop; persist_run alone
 * is on the disk thread and touches only the batches handed to it, the wal and the meta file. */
#include "node/replica_internal.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WAL_RECORDS_PER_CALL 64
#define NO_SPACE_SAID_MS 10000
/* The meta file is told where the log is durable so long after the first write that it does not
 * know: two small writes, between commits. */
#define MARK_AFTER_NS NS_PER_S

void replica_fail(struct replica *r, int err, const char *fmt, ...) {
    va_list ap;

    ASSERT(err < 0);
    if (r->failed)
        return;
    r->failed = err;
    va_start(ap, fmt);
    (void) vsnprintf(r->failure.s, sizeof(r->failure.s), fmt, ap);
    va_end(ap);
}

struct log_facts log_facts_of(const struct wal *wal) {
    return (struct log_facts){
        .base_index = wal_base_index(wal),
        .base_term = wal_base_term(wal),
        .bytes = wal_bytes(wal),
    };
}

/* ---- persist --------------------------------------------------------------------------------- */

static void batch_free(struct persist_batch *b) {
    for (size_t i = 0; i < b->count; i++)
        bytes_unref(b->entries[i].data);
    free(b);
}

static void batches_free(struct persist_batch *b) {
    while (b) {
        struct persist_batch *next = b->next;

        batch_free(b);
        b = next;
    }
}

static int persist_add(struct replica *r, const struct raft_effects *eff) {
    struct persist_batch *b;

    b = malloc(sizeof(*b) + eff->append_count * sizeof(b->entries[0]));
    if (!b)
        return -ENOMEM;
    *b = (struct persist_batch){
        .seq = eff->persist_seq,
        .install_index = eff->install_index,
        .install_term = eff->install_term,
        .hard_state_changed = eff->hard_state_changed,
        .hard_state = eff->hard_state,
        .truncate_from = eff->truncate_from,
        .count = eff->append_count,
    };
    for (size_t i = 0; i < b->count; i++) {
        b->entries[i] = eff->append[i];
        if (b->entries[i].data)
            bytes_ref(b->entries[i].data);
    }
    ASSERT(!r->persist.tail || r->persist.tail->seq < b->seq);
    if (r->persist.tail)
        r->persist.tail->next = b;
    else
        r->persist.head = b;
    r->persist.tail = b;
    return 0;
}

/* Disk thread. */
static int persist_batch_entries(struct replica *r, const struct persist_batch *b,
                                 struct errtext *e) {
    struct wal_record recs[WAL_RECORDS_PER_CALL];
    int rc;

    if (b->truncate_from > 0 && b->truncate_from <= wal_last_index(r->wal)) {
        rc = wal_truncate(r->wal, b->truncate_from, e);
        if (rc < 0)
            return rc;
    }
    for (size_t done = 0; done < b->count;) {
        size_t n = MIN(b->count - done, (size_t) WAL_RECORDS_PER_CALL);

        for (size_t i = 0; i < n; i++) {
            const struct raft_entry *en = &b->entries[done + i];

            recs[i] = (struct wal_record){.index = en->index,
                                          .term = en->term,
                                          .type = (uint8_t) en->type,
                                          .data = bytes_slice(en->data)};
        }
        rc = wal_append(r->wal, recs, n, e);
        if (rc < 0)
            return rc;
        done += n;
    }
    return 0;
}

/* Disk thread. */
static int save_meta(struct replica *r, uint64_t synced_index, struct errtext *e) {
    const struct raft_hard_state *hs = &r->persist.saved;

    meta_note_log(r->meta, wal_synced_at(r->wal));
    return meta_save(r->meta, hs->term, hs->vote, synced_index, e);
}

/* Disk thread. Switch to the staged state, then begin the log anew behind it. The meta file tells a
 * later start how far this came: while its synced index is below @index, the log may still be the
 * old one (finish_install in replica.c); at @index the switch is complete. Lowering it first loses
 * nothing: raft installs only over a log that lacks (index, term), so what that log holds above is
 * not committed. */
static int persist_install(struct replica *r, uint64_t index, uint64_t term, struct errtext *e) {
    int rc;

    rc = save_meta(r, MIN(wal_synced_index(r->wal), index - 1), e);
    if (rc < 0)
        return rc;
    rc = r->kv->ops->stage_commit(r->kv);
    if (rc < 0) {
        errtext_set(e, "switching to the received state: %s", err_name(rc));
        return rc;
    }
    rc = wal_reset(r->wal, index, term, e);
    if (rc < 0)
        return rc;
    return save_meta(r, index, e);
}

/* Disk thread. Hard state first: after a cut between the two, the log may lack entries but can
 * never hold entries of a term that the hard state does not know. */
static int persist_batches(struct replica *r, const struct persist_batch *first,
                           struct errtext *e) {
    bool log_was_empty = wal_last_index(r->wal) == 0;
    bool hard_changed = false, log_changed = false, cut = false;
    int rc = 0;

    for (const struct persist_batch *b = first; b; b = b->next) {
        if (b->hard_state_changed)
            r->persist.saved = b->hard_state;
        hard_changed = hard_changed || b->hard_state_changed;
        log_changed = log_changed || b->truncate_from > 0 || b->count > 0;
        cut = cut || b->truncate_from > 0;
    }
    if (first->install_index > 0)
        rc = persist_install(r, first->install_index, first->install_term, e);
    else if (hard_changed)
        rc = save_meta(r, wal_last_index(r->wal), e);
    if (rc < 0 || !log_changed)
        return rc;
    for (const struct persist_batch *b = first; b; b = b->next) {
        rc = persist_batch_entries(r, b, e);
        if (rc < 0)
            return rc;
    }
    rc = wal_sync(r->wal, e);
    /* From the first entry on, an empty log beside this meta file is a lost one (W15). The same for
     * each new segment: without it the log would end with the one before, and nobody would miss
     * what was acknowledged in it. And after a cut: an old copy of the segment would not only lack
     * entries, it would have some again that the cluster has replaced. */
    if (rc == 0 && (log_was_empty || cut || wal_synced_at(r->wal).seq != meta_log(r->meta).seq))
        rc = save_meta(r, wal_last_index(r->wal), e);
    return rc;
}

/* ---- the disk thread's jobs ------------------------------------------------------------------ */

static int run_commit(struct replica *r, struct errtext *e) {
    return persist_batches(r, r->persist.running, e);
}

static int run_prepare(struct replica *r, struct errtext *e) {
    return wal_prepare(r->wal, e);
}

static int run_release(struct replica *r, struct errtext *e) {
    return wal_release(r->wal, r->persist.job_release_to, r->persist.job_release_keep, e);
}

/* What a torn write could look like ends here: damage before this place, or a file that is put back
 * as it was before, is refused at the next start (W9). */
static int run_mark(struct replica *r, struct errtext *e) {
    return save_meta(r, wal_last_index(r->wal), e);
}

int persist_settle(struct replica *r, struct errtext *reterr) {
    int rc = wal_seal(r->wal, reterr);

    return rc < 0 ? rc : run_mark(r, reterr);
}

static bool is_marked(const struct replica *r) {
    struct wal_position now = wal_synced_at(r->wal), noted = meta_log(r->meta);

    return now.seq == noted.seq && now.end == noted.end;
}

static void persist_run(struct disk_job *job) {
    static int (*const runs[])(struct replica *, struct errtext *) = {
        [PERSIST_COMMIT] = run_commit,   [PERSIST_PREPARE] = run_prepare,
        [PERSIST_RELEASE] = run_release, [PERSIST_SCRUB] = scrub_step_run,
        [PERSIST_MARK] = run_mark,
    };
    struct persist *p = CONTAINER_OF(job, struct persist, job);
    struct wal *wal = p->replica->wal;

    p->error.s[0] = '\0';
    p->result = runs[p->kind](p->replica, &p->error);
    p->wants_prepare = p->result == 0 && wal_wants_prepare(wal);
    p->job_log = log_facts_of(wal);
    p->marked = is_marked(p->replica);
}

static void release_delayed(struct replica *r) {
    struct persist *p = &r->persist;

    while (p->delayed_head && p->delayed_head->after_seq <= p->durable_seq) {
        struct delayed_message *d = p->delayed_head;

        p->delayed_head = d->next;
        if (!p->delayed_head)
            p->delayed_tail = NULL;
        peers_queue_packed_raft(r, d->to, d->data, d->len);
        free(d);
    }
}

static void commit_done(struct replica *r) {
    struct persist *p = &r->persist;
    struct raft_event ev = {.type = RAFT_EV_PERSISTED};
    bool installed = p->running->install_index > 0;

    for (struct persist_batch *b = p->running; b; b = b->next) {
        ev.persisted_seq = b->seq;
        for (size_t i = 0; i < b->count; i++)
            p->prepare_debt += b->entries[i].data ? b->entries[i].data->len : 0;
    }
    batches_free(p->running);
    p->running = NULL;
    p->durable_seq = ev.persisted_seq;
    release_delayed(r);
    if (installed)
        snapshots_install_durable(r);
    (void) replica_step(r, &ev, NULL);
}

static void persist_done(struct disk_job *job) {
    struct persist *p = CONTAINER_OF(job, struct persist, job);
    struct replica *r = p->replica;

    p->busy = false;
    p->log = p->job_log;
    r->wants_turn = true;
    r->now = r->env.clock.mono(r->env.clock.ctx);
    if (p->marked)
        p->mark_at = MONO_NEVER;
    else if (p->mark_at.ns == UINT64_MAX)
        p->mark_at = mono_add_ns(r->now, MARK_AFTER_NS);
    if (p->kind == PERSIST_PREPARE && (p->result == -ENOSPC || p->result == -EDQUOT)) {
        /* The segment in use may still have room; the next commit tries again. What a snapshot
         * releases becomes spare. Until then that room is for running work: refuse submits now, not
         * when the next second is over. */
        r->disk_space.at = r->now;
        disk_space_turn(r);
        if (mono_reached(r->now, p->no_space_said)) {
            p->no_space_said = mono_add_ms(r->now, NO_SPACE_SAID_MS);
            log_warn(r->env.log, "no space for a spare log segment", "reason=\"%s\"", p->error.s);
        }
        snapshots_make_room(r);
        return;
    }
    if (p->kind == PERSIST_SCRUB) {
        scrub_step_done(r, p->result, &p->error);
        return;
    }
    if (p->result < 0) {
        replica_fail(r, p->result, "disk: %s", p->error.s[0] ? p->error.s : err_name(p->result));
        return;
    }
    if (p->kind == PERSIST_COMMIT)
        commit_done(r);
    else if (p->kind == PERSIST_RELEASE)
        snapshots_released(r);
}

/* Everything that waits, but an install only at the front: the store is switched before anything
 * of its batch and after everything of the batches before. */
static void take_batches(struct persist *p) {
    struct persist_batch *last = p->head;

    p->running = p->head;
    while (last->next && last->next->install_index == 0)
        last = last->next;
    p->head = last->next;
    if (!p->head)
        p->tail = NULL;
    last->next = NULL;
}

/* What the disk thread does next; false: nothing. */
static bool choose_job(struct replica *r) {
    struct persist *p = &r->persist;
    bool aside = !p->head || p->kind == PERSIST_COMMIT; /* commits wait for one other job at most */

    if (p->wants_prepare && (!p->head || p->prepare_debt >= WAL_PREPARE_STEP_BYTES)) {
        /* Spare segments are made in small steps at the pace at which the log grows, so that no
         * commit ever waits for a whole segment to be written. */
        p->wants_prepare = false;
        p->prepare_debt -= MIN(p->prepare_debt, (size_t) WAL_PREPARE_STEP_BYTES);
        p->kind = PERSIST_PREPARE;
    } else if (p->release_wanted && aside) {
        p->release_wanted = false;
        p->job_release_to = p->release_to;
        p->job_release_keep = p->release_keep;
        p->kind = PERSIST_RELEASE;
    } else if (r->scrub.step_wanted && aside) {
        r->scrub.step_wanted = false;
        p->kind = PERSIST_SCRUB;
    } else if (mono_reached(r->now, p->mark_at) && aside) {
        p->kind = PERSIST_MARK;
    } else if (p->head) {
        take_batches(p);
        p->kind = PERSIST_COMMIT;
    } else {
        return false;
    }
    return true;
}

struct mono persist_deadline(const struct replica *r) {
    return r->persist.busy ? MONO_NEVER : r->persist.mark_at;
}

/* Hand what waits to the disk thread, unless it is busy: then the next job takes it all. */
void persist_start(struct replica *r) {
    struct persist *p = &r->persist;

    if (p->busy || r->failed || !choose_job(r))
        return;
    p->busy = true;
    p->replica = r;
    p->job = (struct disk_job){.run = persist_run, .done = persist_done};
    r->env.disk_queue.submit(r->env.disk_queue.ctx, &p->job);
}

void persist_free(struct replica *r) {
    struct persist *p = &r->persist;

    ASSERT(!p->busy);
    batches_free(p->head);
    batches_free(p->running);
    while (p->delayed_head) {
        struct delayed_message *d = p->delayed_head;

        p->delayed_head = d->next;
        free(d);
    }
    *p = (struct persist){0};
}

/* ---- send ------------------------------------------------------------------------------------ */

static int delay_message(struct replica *r, const struct raft_message *m) {
    struct persist *p = &r->persist;
    struct delayed_message *d;
    struct buf packed;
    size_t len;

    buf_init(&packed, ARENA_BYTES_MAX);
    len = peers_pack_raft(r, m, &packed);
    if (len == 0) {
        buf_done(&packed);
        return -ENOMEM;
    }
    d = malloc(sizeof(*d) + len);
    if (!d) {
        buf_done(&packed);
        return -ENOMEM;
    }
    *d = (struct delayed_message){.after_seq = m->after_seq, .to = m->to, .len = len};
    memcpy(d->data, packed.data, len);
    buf_done(&packed);
    if (p->delayed_tail)
        p->delayed_tail->next = d;
    else
        p->delayed_head = d;
    p->delayed_tail = d;
    return 0;
}

/* ---- old entries for a slow follower --------------------------------------------------------- */

struct load_job {
    struct disk_job job;
    struct replica *replica;
    struct raft_load load;
    uint64_t prev_term;
    struct raft_entry *entries; /* owned, with data references */
    size_t count, cap;
    int result;
    struct errtext error;
};

static int load_each(void *arg, const struct wal_record *rec) {
    struct load_job *l = arg;
    struct raft_entry *e;

    if (l->count == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : 64;
        struct raft_entry *grown = realloc(l->entries, cap * sizeof(*grown));

        if (!grown)
            return -ENOMEM;
        l->entries = grown;
        l->cap = cap;
    }
    e = &l->entries[l->count];
    *e = (struct raft_entry){.term = rec->term, .index = rec->index};
    e->type = (enum raft_entry_type) rec->type;
    if (rec->data.len > 0) {
        e->data = bytes_copy(rec->data.data, rec->data.len);
        if (!e->data)
            return -ENOMEM;
    }
    l->count++;
    return 0;
}

static void load_run(struct disk_job *job) {
    struct load_job *l = CONTAINER_OF(job, struct load_job, job);
    struct wal *wal = l->replica->wal;

    if (l->load.first_index - 1 == wal_base_index(wal))
        l->prev_term = wal_base_term(wal);
    else if (l->load.first_index > 1)
        l->result = wal_term(wal, l->load.first_index - 1, &l->prev_term, &l->error);
    if (l->result == 0)
        l->result = wal_read(wal, l->load.first_index, l->load.max_bytes, load_each, l, &l->error);
}

static void load_done(struct disk_job *job) {
    struct load_job *l = CONTAINER_OF(job, struct load_job, job);
    struct replica *r = l->replica;
    struct raft_event ev = {.type = RAFT_EV_LOADED};

    r->disk_jobs--;
    r->wants_turn = true;
    if (l->result < 0) {
        replica_fail(r, l->result, "reading the log: %s", l->error.s);
    } else if (!r->failed) {
        ev.loaded.peer = l->load.peer;
        ev.loaded.prev_term = l->prev_term;
        ev.loaded.entries = l->entries;
        ev.loaded.count = l->count;
        r->now = r->env.clock.mono(r->env.clock.ctx);
        (void) replica_step(r, &ev, NULL);
    }
    for (size_t i = 0; i < l->count; i++)
        bytes_unref(l->entries[i].data);
    free(l->entries);
    free(l);
}

static int load_start(struct replica *r, const struct raft_load *load) {
    struct load_job *l = calloc(1, sizeof(*l));

    if (!l)
        return -ENOMEM;
    l->job = (struct disk_job){.run = load_run, .done = load_done};
    l->replica = r;
    l->load = *load;
    r->disk_jobs++;
    r->env.disk_queue.submit(r->env.disk_queue.ctx, &l->job);
    return 0;
}

/* ---- all of it ------------------------------------------------------------------------------- */

static void note_role(struct replica *r) {
    bool leads = raft_role(r->raft) == RAFT_LEADER;

    log_info(r->env.log, "role", "node=%llu role=%s term=%llu leader=%llu",
             (unsigned long long) r->o.id, raft_role_to_string(raft_role(r->raft)),
             (unsigned long long) raft_term(r->raft), (unsigned long long) raft_leader(r->raft));
    if (leads != r->was_leader) {
        r->was_leader = leads;
        scheduler_reset(r);
        ticks_reset(r);
        if (leads)
            leases_reset(r);
    }
    proposals_leader_changed(r);
}

/* The contract of raft/raft.h, in its order. Messages that need no persistence are queued at once
 * and so leave in parallel with the disk; the others wait for the disk job of their batch. */
static int replica_handle_effects(struct replica *r, const struct raft_effects *eff) {
    int rc;

    if (eff->persist_seq != 0) {
        rc = persist_add(r, eff);
        if (rc < 0)
            return rc;
        if (eff->install_index > 0)
            snapshots_install_begin(r, eff->install_index, eff->install_term);
    }
    for (size_t i = 0; i < eff->messages_count; i++) {
        const struct raft_message *m = &eff->messages[i];

        if (m->after_seq > r->persist.durable_seq) {
            rc = delay_message(r, m);
            if (rc < 0)
                return rc;
        } else {
            peers_queue_raft(r, m);
        }
    }
    ASSERT(eff->apply_index >= r->apply_target);
    r->apply_target = eff->apply_index;
    for (size_t i = 0; i < eff->reads_count; i++)
        reads_on_result(r, &eff->reads[i]);
    for (size_t i = 0; i < eff->loads_count; i++) {
        rc = load_start(r, &eff->loads[i]);
        if (rc < 0)
            return rc;
    }
    for (size_t i = 0; i < eff->snapshots_count; i++) {
        rc = transfers_wanted(r, &eff->snapshots[i]);
        if (rc < 0)
            return rc;
    }
    if (eff->role_changed)
        note_role(r);
    return 0;
}

/* One event through raft. @ret (optional) gives the proposal result; borrowed until the next step.
 */
int replica_step(struct replica *r, const struct raft_event *ev, const struct raft_effects **ret) {
    const struct raft_effects *eff = NULL;
    int rc;

    if (r->failed)
        return r->failed;
    rc = raft_step(r->raft, r->now, ev, &eff);
    if (rc == 0 && r->o.on_step)
        r->o.on_step(r->o.on_step_ctx, r->raft, ev, eff);
    if (rc == 0)
        rc = replica_handle_effects(r, eff);
    if (rc < 0) {
        replica_fail(r, rc, "consensus: %s", err_name(rc));
        return rc;
    }
    if (ret)
        *ret = eff;
    return 0;
}
