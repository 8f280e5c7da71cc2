/* Free space on the data directory's file system (reliability.md W5).
 *
 * Once a second the bulk thread looks. Below the reserve clients' submits are refused while there
 * is still room for everything that gives space back or ends work: cancels, results, assignments,
 * snapshots, the log's own segments. It ends by itself when there is room again. A leader in need
 * hands over, once, to a member that is not. Thread: the loop. */
#include "node/replica_internal.h"

#include "fsm/command.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define LOOK_MS 1000
#define RESERVE_PART 20U    /* of the file system: 5% */
#define HYSTERESIS_PART 10U /* of the reserve: must be free beyond it before submits go on */
#define MIB (1024ULL * 1024)

static const char alarm_name[] = "disk_full";

size_t alarms_own(const struct replica *r, const char *ret[ALARMS_MAX]) {
    size_t n = 0;

    if (r->disk_space.alarm[0])
        ret[n++] = r->disk_space.alarm;
    if (r->scrub.alarm[0])
        ret[n++] = r->scrub.alarm;
    if (r->ticks.clock_alarm[0])
        ret[n++] = r->ticks.clock_alarm;
    return n;
}

static bool peer_is_low(const struct replica *r, uint64_t id) {
    for (size_t i = 0; i < r->peers_count; i++)
        if (r->peers[i].id == id)
            return strstr(r->peers[i].alarms, alarm_name);
    return false;
}

/* The most caught-up live voter with room; 0 = none. */
static uint64_t voter_with_room(const struct replica *r) {
    const struct raft_config *c = raft_config_latest(r->raft);
    uint64_t best = 0, best_match = 0;

    for (size_t i = 0; i < c->count; i++) {
        const struct raft_member *m = &c->members[i];
        struct raft_peer_status st = {0};

        if (!(m->flags & RAFT_MEMBER_VOTER) || m->id == r->o.id || peer_is_low(r, m->id) ||
            raft_peer_status(r->raft, m->id, &st) != 0 || !st.contacted ||
            mono_diff_ns(r->now, st.last_contact) >= r->o.peer_liveness_ns)
            continue;
        if (best == 0 || st.match > best_match) {
            best = m->id;
            best_match = st.match;
        }
    }
    return best;
}

static void hand_over(struct replica *r) {
    uint64_t to;

    if (r->disk_space.handed_over || raft_role(r->raft) != RAFT_LEADER)
        return;
    to = voter_with_room(r);
    if (to == 0)
        return;
    r->disk_space.handed_over = true;
    log_warn(r->env.log, "disk full: handing leadership over", "to=%llu", (unsigned long long) to);
    replica_transfer_leadership(r, to);
}

static void judge(struct replica *r) {
    struct disk_space *d = &r->disk_space;
    uint64_t reserve = MAX(r->o.disk_reserve_bytes, d->total_bytes / RESERVE_PART);
    bool low = d->free_bytes < (d->low ? reserve + reserve / HYSTERESIS_PART : reserve);

    if (r->o.disk_reserve_bytes == 0)
        low = false; /* switched off */
    if (low != d->low)
        log_warn(r->env.log, low ? "disk nearly full: submits are refused" : "disk has room again",
                 "free_bytes=%llu reserve_bytes=%llu", (unsigned long long) d->free_bytes,
                 (unsigned long long) reserve);
    if (low != d->low)
        replica_snapshot_now(r); /* what the log can give back; what could not be made durable */
    d->low = low;
    d->alarm[0] = '\0';
    if (!low) {
        d->handed_over = false;
        return;
    }
    (void) snprintf(d->alarm, sizeof(d->alarm),
                    "%s: %llu MiB free of %llu MiB, %llu MiB are reserved; new jobs are refused "
                    "here until there is room",
                    alarm_name, (unsigned long long) (d->free_bytes / MIB),
                    (unsigned long long) (d->total_bytes / MIB),
                    (unsigned long long) (reserve / MIB));
    hand_over(r);
}

/* Bulk thread. */
static void look_run(struct disk_job *job) {
    struct disk_space *d = CONTAINER_OF(job, struct disk_space, job);
    const struct disk *disk = &d->replica->env.disk;

    d->result = disk->ops->space(disk->ctx, &d->job_free, &d->job_total);
}

static void look_done(struct disk_job *job) {
    struct disk_space *d = CONTAINER_OF(job, struct disk_space, job);
    struct replica *r = d->replica;

    d->busy = false;
    r->disk_jobs--;
    r->now = r->env.clock.mono(r->env.clock.ctx);
    if (d->result < 0) { /* the answer of before stays: neither refuse nor admit by a guess */
        log_warn(r->env.log, "free space of the data directory is unknown", "reason=\"%s\"",
                 err_name(d->result));
        return;
    }
    d->known = true;
    d->free_bytes = d->job_free;
    d->total_bytes = d->job_total;
    if (!r->failed)
        judge(r);
}

void disk_space_turn(struct replica *r) {
    struct disk_space *d = &r->disk_space;

    if (!mono_reached(r->now, d->at))
        return;
    d->at = mono_add_ms(r->now, LOOK_MS);
    if (d->busy)
        return;
    d->busy = true;
    d->replica = r;
    d->job = (struct disk_job){.run = look_run, .done = look_done};
    r->disk_jobs++;
    r->env.bulk_queue.submit(r->env.bulk_queue.ctx, &d->job);
}

bool disk_space_refuses(const struct replica *r, struct slice command) {
    struct command_view v;

    return r->disk_space.low && command_parse(command, &v, NULL) == 0 &&
           v.kind == CHRONOS__INTERNAL__V1__LOG_COMMAND__BODY_SUBMIT_JOB;
}
