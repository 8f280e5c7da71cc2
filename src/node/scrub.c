/* Looking for damage before it is needed (reliability.md W14).
 *
 * Once per scrub_interval everything stored is verified: the log in small steps on the disk thread,
 * between commits and at most SCRUB_BYTES_PER_S; the state store by its own checksums on the bulk
 * thread. Damage in the log at entries that the state durably has is repaired by making a snapshot
 * and releasing those segments (W8: nothing is cut that was not made durable elsewhere). Any other
 * damage ends the node, with the command that puts it right: it must not vote or serve with it.
 * Thread: the loop; scrub_step_run is on the disk thread. */
#include "node/replica_internal.h"

#include <errno.h>
#include <stdio.h>

#define SCRUB_STEP_BYTES (128U * 1024)
#define SCRUB_BYTES_PER_S (2ULL * 1024 * 1024)
#define STEP_NS (SCRUB_STEP_BYTES * NS_PER_S / SCRUB_BYTES_PER_S)
#define FIRST_ROUND_PART 24U /* of the interval: opening has just verified the log */

void scrub_init(struct replica *r) {
    struct scrub *s = &r->scrub;

    s->replica = r;
    s->step_at = MONO_NEVER;
    s->round_at = r->o.scrub_interval_ns == 0
                      ? MONO_NEVER
                      : mono_add_ns(r->now, r->o.scrub_interval_ns / FIRST_ROUND_PART);
}

/* ---- the log --------------------------------------------------------------------------------- */

int scrub_step_run(struct replica *r, struct errtext *reterr) {
    return wal_scrub(r->wal, &r->scrub.cursor, SCRUB_STEP_BYTES, &r->scrub.bad_index, reterr);
}

static void stop_for(struct replica *r, const char *by, const char *what, const char *why) {
    replica_fail(r, ERR_CORRUPT,
                 "%s: the %s is damaged: %s; stop this node for good and put a new one in its "
                 "place: `chronos cluster replace`",
                 by, what, why);
}

static void found_in_log(struct replica *r, const struct errtext *why) {
    struct scrub *s = &r->scrub;

    s->found = true;
    s->round = false;
    s->step_at = MONO_NEVER;
    if (s->bad_index > fsm_applied_index(r->fsm)) {
        stop_for(r, "scrub", "log", why->s);
        return;
    }
    s->repair_index = MAX(s->repair_index, s->bad_index);
    (void) snprintf(s->alarm, sizeof(s->alarm),
                    "scrub: damage in the log, in entries that the state has; they go with the "
                    "next snapshots: %.120s",
                    why->s);
    log_error(r->env.log, "scrub: damage in the log", "reason=\"%s\" up_to_index=%llu", why->s,
              (unsigned long long) s->bad_index);
    replica_snapshot_now(r);
}

void scrub_released(struct replica *r) {
    struct scrub *s = &r->scrub;

    if (s->repair_index == 0 || r->persist.log.base_index < s->repair_index)
        return;
    s->repaired++;
    (void) snprintf(s->alarm, sizeof(s->alarm),
                    "scrub: damage in the log up to entry %llu was found and released, the state "
                    "has it; look after this disk",
                    (unsigned long long) s->repair_index);
    log_warn(r->env.log, "scrub: damaged log segments released", "up_to_index=%llu",
             (unsigned long long) s->repair_index);
    s->repair_index = 0;
    s->round_at = r->now; /* the rest of the round, from the front */
}

/* A round is over when both the log and the state store have been verified. */
static void round_end(struct replica *r) {
    struct scrub *s = &r->scrub;

    if (!s->log_verified || s->verifying)
        return;
    s->log_verified = false;
    s->rounds++;
    log_info(r->env.log, "scrub: round ended", "rounds=%llu", (unsigned long long) s->rounds);
}

static void log_end(struct replica *r) {
    struct scrub *s = &r->scrub;

    s->round = false;
    s->step_at = MONO_NEVER;
    s->log_verified = true;
    round_end(r);
}

void scrub_step_done(struct replica *r, int result, const struct errtext *why) {
    struct scrub *s = &r->scrub;

    if (result == ERR_CORRUPT)
        found_in_log(r, why);
    else if (result < 0)
        replica_fail(r, result, "scrub: %s", why->s[0] ? why->s : err_name(result));
    else if (s->cursor.seq == 0)
        log_end(r);
    else
        s->step_at = mono_add_ns(r->now, STEP_NS);
}

/* ---- the state store ------------------------------------------------------------------------- */

/* Bulk thread. */
static void verify_run(struct disk_job *job) {
    struct scrub *s = CONTAINER_OF(job, struct scrub, job);
    struct kv *kv = s->replica->kv;

    s->error.s[0] = '\0';
    s->result = kv->ops->verify(kv, &s->error);
}

static void verify_done(struct disk_job *job) {
    struct scrub *s = CONTAINER_OF(job, struct scrub, job);
    struct replica *r = s->replica;

    s->verifying = false;
    r->disk_jobs--;
    r->wants_turn = true;
    if (s->result == ERR_CORRUPT)
        stop_for(r, "scrub", "state store", s->error.s);
    else if (s->result < 0)
        replica_fail(r, s->result, "scrub: state store: %s",
                     s->error.s[0] ? s->error.s : err_name(s->result));
    else
        round_end(r);
}

static void verify_start(struct replica *r) {
    struct scrub *s = &r->scrub;

    s->verifying = true;
    s->job = (struct disk_job){.run = verify_run, .done = verify_done};
    r->disk_jobs++;
    r->env.bulk_queue.submit(r->env.bulk_queue.ctx, &s->job);
}

/* What somebody reads meets damage before a round does. Serving on would fail each who asks for it;
 * the other nodes have it whole. */
static bool damage_was_read(const struct replica *r) {
    return fsm_store_damaged(r->fsm) && !r->failed;
}

/* ---- pace ------------------------------------------------------------------------------------ */

void scrub_turn(struct replica *r) {
    struct scrub *s = &r->scrub;

    if (damage_was_read(r)) {
        stop_for(r, "read", "state store", "a record is not as it was written");
        return;
    }
    if (s->repair_index == 0 && !s->round && !s->verifying &&
        !snapshots_installing(&r->snapshots) && mono_reached(r->now, s->round_at)) {
        s->round_at = mono_add_ns(r->now, r->o.scrub_interval_ns);
        s->round = true;
        s->log_verified = false;
        log_info(r->env.log, "scrub: round begins", "rounds=%llu", (unsigned long long) s->rounds);
        if (!s->found)
            s->alarm[0] = '\0'; /* a whole round without a find */
        s->found = false;
        s->cursor = (struct wal_scrub){0};
        s->step_at = r->now;
        verify_start(r);
    }
    if (s->round && !s->step_wanted && mono_reached(r->now, s->step_at)) {
        s->step_at = MONO_NEVER; /* until it is done */
        s->step_wanted = true;
    }
}

struct mono scrub_deadline(const struct replica *r) {
    const struct scrub *s = &r->scrub;
    struct mono d = s->round ? s->step_at : MONO_NEVER;

    if (damage_was_read(r))
        return r->now;
    if (s->repair_index == 0 && !s->round && !s->verifying && !snapshots_installing(&r->snapshots))
        d = mono_min(d, s->round_at);
    return d;
}
