/* The state made durable, so that the log may be cut; and a state received, put in place.
 *
 * A local snapshot is no copy: the overlay is written back, the state store flushed on the bulk
 * thread, and then whole log segments that hold nothing newer are released on the disk thread,
 * between commits (design.md section 3; reliability.md W12, W13, R24). It costs what changed.
 * Nothing is released that the state store has not durably taken, and nothing that a follower needs
 * behind the snapshot it is being sent.
 *
 * An install replaces the state: raft has accepted a staged snapshot, the persist job switches the
 * store and the log (effects.c), and here, once nobody reads the old store any more, the state
 * machine is opened anew over the new one. Between the two nothing is applied, and readers of
 * replica_fsm() see the old state. Thread: the loop. */
#include "node/replica_internal.h"

#include <errno.h>
#include <string.h>

#define AGAIN_MS 1000 /* at most so often for the log's size, and after a failure */

void snapshots_init(struct replica *r) {
    struct snapshots *s = &r->snapshots;

    s->replica = r;
    s->durable_index = fsm_applied_index(r->fsm);
    s->taken_at = r->now;
    s->compacted = wal_base_index(r->wal);
    r->persist.log = log_facts_of(r->wal);
}

/* ---- the own state --------------------------------------------------------------------------- */

/* What may go: the durable state has it, and no transfer needs the log behind it. Damage goes in
 * any case: nobody can be served from it. */
static void release_log(struct replica *r) {
    struct persist *p = &r->persist;
    uint64_t to = r->snapshots.durable_index;

    p->release_keep = r->o.log_bytes_kept;
    if (r->scrub.repair_index > 0)
        p->release_keep = 0;
    else
        to = MIN(to, transfers_hold(r));
    if (to <= p->log.base_index)
        return;
    p->release_to = to;
    p->release_wanted = true;
    r->wants_turn = true;
}

/* The log still has everything; the next flush tries again. */
static void flush_without_space(struct replica *r, uint64_t index) {
    log_warn(r->env.log, "no space to make the state durable", "index=%llu",
             (unsigned long long) index);
}

/* Bulk thread. */
static void flush_run(struct disk_job *job) {
    struct snapshots *s = CONTAINER_OF(job, struct snapshots, job);
    struct kv *kv = s->replica->kv;

    s->result = kv->ops->flush(kv);
}

static void flush_done(struct disk_job *job) {
    struct snapshots *s = CONTAINER_OF(job, struct snapshots, job);
    struct replica *r = s->replica;
    struct mono now = r->env.clock.mono(r->env.clock.ctx);

    s->flushing = false;
    r->disk_jobs--;
    r->wants_turn = true;
    if (s->result == -ENOSPC || s->result == -EDQUOT) {
        flush_without_space(r, s->flush_index);
        return;
    }
    if (s->result < 0) {
        replica_fail(r, s->result, "state store: flush: %s", err_name(s->result));
        return;
    }
    if (s->flush_index <= s->durable_index)
        return; /* an install overtook it */
    log_info(
        r->env.log, "snapshot", "index=%llu entries=%llu took_ms=%llu log_base=%llu log_bytes=%llu",
        (unsigned long long) s->flush_index,
        (unsigned long long) (s->flush_index - s->durable_index),
        (unsigned long long) (mono_diff_ns(now, s->taken_at) / NS_PER_MS),
        (unsigned long long) r->persist.log.base_index, (unsigned long long) r->persist.log.bytes);
    s->durable_index = s->flush_index;
    s->taken++;
    release_log(r);
}

/* The overlay goes in on the loop, so that the flush covers an exact prefix of the log (W13). */
static void flush_start(struct replica *r) {
    struct snapshots *s = &r->snapshots;
    int rc = fsm_write_back(r->fsm);

    s->now = false;
    s->taken_at = r->now;
    if (rc == -ENOSPC || rc == -EDQUOT) {
        flush_without_space(r, fsm_applied_index(r->fsm));
        return;
    }
    if (rc < 0) {
        replica_fail(r, rc, "state store: %s", err_name(rc));
        return;
    }
    s->flush_index = fsm_written_index(r->fsm);
    s->flushing = true;
    s->job = (struct disk_job){.run = flush_run, .done = flush_done};
    r->disk_jobs++;
    r->env.bulk_queue.submit(r->env.bulk_queue.ctx, &s->job);
}

/* When the next one is due; MONO_NEVER while there is nothing new to make durable. */
static struct mono flush_due(const struct replica *r) {
    const struct snapshots *s = &r->snapshots;
    uint64_t applied = fsm_applied_index(r->fsm);
    struct mono due = MONO_NEVER;

    if (s->flushing || snapshots_installing(s) || applied <= s->durable_index)
        return MONO_NEVER;
    if (s->now)
        return r->now;
    if (applied - s->durable_index >= r->o.snapshot_entries || r->scrub.repair_index > 0)
        due = mono_add_ns(s->taken_at, r->o.snapshot_interval_ns);
    if (r->persist.log.bytes > r->o.log_bytes_max)
        due = mono_min(due, mono_add_ms(s->taken_at, AGAIN_MS));
    return due;
}

void replica_snapshot_now(struct replica *r) {
    struct snapshots *s = &r->snapshots;

    s->now = true;
    r->wants_turn = true;
    if (fsm_applied_index(r->fsm) == s->durable_index && !snapshots_installing(s)) {
        s->now = false;
        release_log(r); /* nothing new, but a transfer may have ended meanwhile */
    }
}

void snapshots_make_room(struct replica *r) {
    if (mono_reached(r->now, mono_add_ms(r->snapshots.taken_at, AGAIN_MS)))
        replica_snapshot_now(r);
}

void snapshots_released(struct replica *r) {
    const struct log_facts *log = &r->persist.log;
    struct raft_event ev = {.type = RAFT_EV_COMPACTED};

    scrub_released(r);
    if (log->base_index <= r->snapshots.compacted || snapshots_installing(&r->snapshots))
        return;
    r->snapshots.compacted = log->base_index;
    ev.compacted.index = log->base_index;
    ev.compacted.term = log->base_term;
    (void) replica_step(r, &ev, NULL);
}

/* ---- a foreign state ------------------------------------------------------------------------- */

void snapshots_install_begin(struct replica *r, uint64_t index, uint64_t term) {
    struct install *in = &r->snapshots.install;

    ASSERT(in->state == INSTALL_IDLE);
    ASSERT(index > fsm_applied_index(r->fsm));
    in->state = INSTALL_WRITING;
    in->index = index;
    in->term = term;
    r->persist.release_wanted = false; /* of a log that is about to go */
}

void snapshots_install_durable(struct replica *r) {
    ASSERT(r->snapshots.install.state == INSTALL_WRITING);
    r->snapshots.install.state = INSTALL_DURABLE;
    r->snapshots.compacted = r->snapshots.install.index; /* raft knows since it accepted it */
}

/* What arrived must be what was sent: the digest covers every record (R19). */
static int check_installed(struct replica *r) {
    const struct install *in = &r->snapshots.install;
    uint8_t digest[16];

    fsm_digest(r->fsm, digest);
    if (fsm_applied_index(r->fsm) == in->index && fsm_applied_term(r->fsm) == in->term &&
        memcmp(digest, in->digest, sizeof(digest)) == 0)
        return 0;
    replica_fail(r, ERR_CORRUPT,
                 "the state received as a snapshot of entry %llu is not the one that was sent "
                 "(applied %llu, term %llu, other digest); replace this node: "
                 "`chronos cluster replace`",
                 (unsigned long long) in->index, (unsigned long long) fsm_applied_index(r->fsm),
                 (unsigned long long) fsm_applied_term(r->fsm));
    return ERR_CORRUPT;
}

static int reopen_state(struct replica *r) {
    struct errtext why = {0};
    struct fsm *fsm = NULL;
    int rc;

    views_invalidate(r);
    rc = r->kv->ops->stage_adopt(r->kv);
    if (rc == 0)
        rc = fsm_open(r->kv, &r->o.fsm, &fsm, &why);
    if (rc < 0) { /* the old one stays, so that a host that is about to stop finds a state */
        replica_fail(r, rc, "opening the received state: %s", why.s[0] ? why.s : err_name(rc));
        return rc;
    }
    (void) fsm_free(r->fsm);
    r->fsm = fsm;
    return check_installed(r);
}

static void reload_schedules(struct replica *r) {
    int rc = ticks_load(r);

    if (rc < 0)
        replica_fail(r, rc, "reading the schedules of the installed state: %s", err_name(rc));
    ticks_reset(r);
}

/* Once nothing reads the old store. Everything that knows the state by heart begins again. */
static void adopt(struct replica *r) {
    struct snapshots *s = &r->snapshots;

    if (reopen_state(r) < 0)
        return;
    s->install.state = INSTALL_IDLE;
    s->durable_index = s->skipped_to = s->install.index;
    s->taken_at = r->now;
    s->installed++;
    r->applied_term = fsm_applied_term(r->fsm);
    r->apply_target = MAX(r->apply_target, s->install.index);
    log_info(r->env.log, "snapshot installed", "index=%llu term=%llu",
             (unsigned long long) s->install.index, (unsigned long long) s->install.term);
    events_reset(r);
    sessions_restart(r);
    scheduler_reset(r);
    reload_schedules(r);
    if (r->was_leader)
        leases_reset(r);
    membership_applied(r);
    proposals_skipped(r, s->install.index, s->install.term);
    r->wants_turn = true;
}

void snapshots_turn(struct replica *r) {
    struct snapshots *s = &r->snapshots;

    if (s->install.state == INSTALL_DURABLE && !s->flushing && !r->scrub.verifying &&
        !views_reading(r))
        adopt(r);
    if (!r->failed && mono_reached(r->now, flush_due(r)))
        flush_start(r);
}

struct mono snapshots_deadline(const struct replica *r) {
    return flush_due(r);
}

/* ---- an orderly stop ------------------------------------------------------------------------- */

int replica_settle(struct replica *r, struct errtext *reterr) {
    int rc;

    ASSERT(replica_idle(r));
    if (r->failed) {
        if (reterr)
            *reterr = r->failure;
        return r->failed;
    }
    /* The old state machine of an install that is not adopted yet has nothing to add. */
    rc = snapshots_installing(&r->snapshots) ? 0 : fsm_write_back(r->fsm);
    if (rc == 0)
        rc = r->kv->ops->flush(r->kv);
    if (rc < 0) {
        errtext_set(reterr, "state store: %s", err_name(rc));
        return rc;
    }
    return persist_settle(r, reterr);
}
