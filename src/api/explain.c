/* Explain: one line, from replicated state alone, about why a job or a schedule is where it is.
 * Thread: the loop's. */
#include "api/schedule_rpc.h"

#include "api/convert.h"
#include "base/buf.h"
#include "fsm/job_id.h"
#include "sched/civil.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define TEXT_BYTES_MAX 4096
#define AHEAD_MAX 10000 /* jobs counted in front of one; "more than" beyond */

/* The line being written. What does not fit, or finds no memory, is seen at the end. */
struct line {
    struct buf text;
    int failed;
};

static void put(struct line *l, const char *fmt, ...) _printf_(2, 3);
static void put(struct line *l, const char *fmt, ...) {
    char part[1024];
    va_list ap;
    int r;

    va_start(ap, fmt);
    (void) vsnprintf(part, sizeof(part), fmt, ap);
    va_end(ap);
    r = buf_append_str(&l->text, part);
    if (r < 0)
        l->failed = r;
}

/* A client's text inside the line: what would break it is replaced. */
static void put_quoted(struct line *l, const char *text) {
    char clean[257];
    size_t n = 0;

    for (; text[n] && n < sizeof(clean) - 1; n++)
        clean[n] = (unsigned char) text[n] < 0x20 || (unsigned char) text[n] > 0x7e ? '?' : text[n];
    clean[n] = '\0';
    put(l, "%s", clean);
}

static void put_time(struct line *l, int64_t ms) {
    struct civil c = civil_of(ms / 1000);

    put(l, "%04d-%02d-%02dT%02d:%02d:%02dZ", c.year, c.month, c.day, c.hour, c.minute, c.second);
}

static void put_job(struct line *l, uint64_t seq) {
    char id[JOB_ID_BYTES_MAX];

    job_id_format(seq, id);
    put(l, "%s", id);
}

static void reply(struct rpc_call *call, struct line *l, uint64_t index) {
    Chronos__V1__ExplainResponse resp = CHRONOS__V1__EXPLAIN_RESPONSE__INIT;
    int r = l->failed;

    if (r == 0)
        r = buf_append(&l->text, "", 1);
    if (r < 0) {
        api_fail_memory(call);
        return;
    }
    resp.text = (char *) l->text.data;
    resp.index = index;
    api_reply(call, api_pack(&resp.base));
}

/* ---- jobs ------------------------------------------------------------------------------------ */

struct fleet {
    size_t live, draining, full;
    uint32_t slots, running; /* of those that take work */
};

static struct fleet fleet_of(const struct fsm *f) {
    struct fleet fleet = {0};

    for (const struct fsm_worker *w = fsm_worker_first(f); w; w = w->next) {
        if (w->lost)
            continue;
        fleet.live++;
        if (w->draining) {
            fleet.draining++;
            continue;
        }
        fleet.slots += w->slots;
        fleet.running += w->running;
        fleet.full += w->running >= w->slots;
    }
    return fleet;
}

static void put_waiting(struct line *l, const struct fsm *f, uint64_t seq) {
    struct fleet fleet = fleet_of(f);
    size_t ahead = 0;

    if (fleet.live == 0) {
        put(l, "is waiting for a worker: none is connected");
        return;
    }
    if (fleet.live == fleet.draining) {
        put(l, "is waiting for a worker: all %zu are draining", fleet.live);
        return;
    }
    if (fleet.running < fleet.slots) {
        put(l, "is about to be assigned: %u of %u slots are free", fleet.slots - fleet.running,
            fleet.slots);
        return;
    }
    for (const struct fsm_job *j = fsm_ready_first(f); j && j->seq != seq && ahead <= AHEAD_MAX;
         j = j->ready_next)
        ahead++;
    put(l, "is waiting for a worker: all %u slots of the %zu that take work are in use",
        fleet.slots, fleet.live - fleet.draining);
    if (ahead > AHEAD_MAX)
        put(l, ", more than %d jobs are in front of it", AHEAD_MAX);
    else if (ahead > 0)
        put(l, ", %zu job%s in front of it", ahead, ahead == 1 ? " is" : "s are");
}

static void put_failure(struct line *l, const Chronos__Internal__V1__JobRecord *rec) {
    switch (rec->failure_reason) {
    case CHRONOS__V1__FAILURE_REASON__FAILURE_REASON_EXIT_CODE:
        put(l, "its command ended with exit code %d", rec->exit_code);
        break;
    case CHRONOS__V1__FAILURE_REASON__FAILURE_REASON_SIGNAL:
        put(l, "its command was ended by signal %d", rec->term_signal);
        break;
    case CHRONOS__V1__FAILURE_REASON__FAILURE_REASON_TIMEOUT:
        put(l, "it ran longer than its run_timeout and was killed");
        break;
    case CHRONOS__V1__FAILURE_REASON__FAILURE_REASON_START:
        put(l, "it could not be started");
        break;
    case CHRONOS__V1__FAILURE_REASON__FAILURE_REASON_WORKER_LOST:
        put(l, "its last allowed attempt lost its worker");
        break;
    case CHRONOS__V1__FAILURE_REASON__FAILURE_REASON_OUTPUT_LIMIT:
        put(l, "it wrote too much");
        break;
    case CHRONOS__V1__FAILURE_REASON__FAILURE_REASON_UNSPECIFIED:
    case _CHRONOS__V1__FAILURE_REASON_IS_INT_SIZE:
        put(l, "no reason is known");
        break;
    }
    if (rec->failure_message[0] != '\0') {
        put(l, " (");
        put_quoted(l, rec->failure_message);
        put(l, ")");
    }
}

static void put_running(struct line *l, const Chronos__Internal__V1__JobRecord *rec) {
    put(l, "is running on worker %s since ", rec->worker_id);
    put_time(l, rec->started_at_ms);
    put(l, ", attempt %u of %u", rec->attempt, rec->max_attempts);
    if (rec->cancel_requested)
        put(l, "; it has been asked to stop%s", rec->kill ? " at once" : "");
}

static void put_job_state(struct line *l, const struct fsm *f, uint64_t seq,
                          const Chronos__Internal__V1__JobRecord *rec) {
    switch (rec->state) {
    case CHRONOS__V1__JOB_STATE__JOB_STATE_PENDING:
        put_waiting(l, f, seq);
        put(l, "; submitted ");
        put_time(l, rec->created_at_ms);
        if (rec->attempt > 0)
            put(l, ", %u attempt%s so far, the last on worker %s", rec->attempt,
                rec->attempt > 1 ? "s" : "", rec->worker_id);
        return;
    case CHRONOS__V1__JOB_STATE__JOB_STATE_RUNNING:
        put_running(l, rec);
        return;
    case CHRONOS__V1__JOB_STATE__JOB_STATE_COMPLETED:
        put(l, "completed at ");
        break;
    case CHRONOS__V1__JOB_STATE__JOB_STATE_FAILED:
        put(l, "failed: ");
        put_failure(l, rec);
        put(l, "; it ended at ");
        break;
    case CHRONOS__V1__JOB_STATE__JOB_STATE_CANCELLED:
        put(l, "was cancelled at ");
        break;
    case CHRONOS__V1__JOB_STATE__JOB_STATE_UNSPECIFIED:
    case _CHRONOS__V1__JOB_STATE_IS_INT_SIZE:
        put(l, "is in a state that this version does not know");
        return;
    }
    put_time(l, rec->finished_at_ms);
    if (rec->attempt > 0)
        put(l, ", attempt %u of %u on worker %s", rec->attempt, rec->max_attempts, rec->worker_id);
}

static void explain_job(struct api *a, struct rpc_call *call, uint64_t seq, uint64_t index) {
    struct fsm *f = replica_fsm(a->replica);
    Chronos__Internal__V1__JobRecord *rec;
    struct line l = {0};
    int r = fsm_read_job(f, seq, &a->scratch, &rec);

    if (r != 0) {
        convert_fail_read(a, call, seq, r);
        return;
    }
    buf_init(&l.text, TEXT_BYTES_MAX);
    put_job(&l, seq);
    put(&l, " ");
    put_job_state(&l, f, seq, rec);
    if (rec->schedule[0] != '\0') {
        put(&l, "; a run of schedule %s for ", rec->schedule);
        put_time(&l, rec->tick_s * 1000);
    }
    reply(call, &l, index);
    buf_done(&l.text);
}

/* ---- schedules ------------------------------------------------------------------------------- */

static void put_runs(struct line *l, struct api *a,
                     const Chronos__Internal__V1__ScheduleRecord *rec) {
    Chronos__Internal__V1__JobRecord *job;

    if (rec->n_open_runs == 0)
        return;
    put(l, "; run ");
    put_job(l, rec->open_runs[0]);
    put(l, " is still open");
    if (fsm_read_job(replica_fsm(a->replica), rec->open_runs[0], &a->scratch, &job) == 0) {
        put(l, " since ");
        put_time(l, job->created_at_ms);
        put(l, " (%s)", convert_state_name(job->state));
    }
    if (rec->n_open_runs > 1)
        put(l, " and %zu more", rec->n_open_runs - 1);
    if (rec->n_buffered > 0)
        put(l, ", %zu tick%s for it to end", rec->n_buffered,
            rec->n_buffered == 1 ? " waits" : "s wait");
}

static void put_reason(struct line *l, const Chronos__Internal__V1__TickRecord *t) {
    switch (t->reason) {
    case CHRONOS__V1__TICK_REASON__TICK_REASON_WINDOW:
        put(l, "it was older than the catch-up window");
        break;
    case CHRONOS__V1__TICK_REASON__TICK_REASON_MISSED:
        put(l, "it was late, and the missed policy did not run it");
        break;
    case CHRONOS__V1__TICK_REASON__TICK_REASON_OVERLAP:
        put(l, "run ");
        if (t->job_seq > 0)
            put_job(l, t->job_seq);
        put(l, " was still open");
        break;
    case CHRONOS__V1__TICK_REASON__TICK_REASON_PAUSED:
        put(l, "it was paused");
        break;
    case CHRONOS__V1__TICK_REASON__TICK_REASON_CAP:
        put(l, "too many were waiting or running");
        break;
    case CHRONOS__V1__TICK_REASON__TICK_REASON_EXPIRED:
        put(l, "max_runs was used up");
        break;
    case CHRONOS__V1__TICK_REASON__TICK_REASON_DELETED:
        put(l, "the schedule was edited before it could start");
        break;
    case CHRONOS__V1__TICK_REASON__TICK_REASON_UNSPECIFIED:
    case CHRONOS__V1__TICK_REASON__TICK_REASON_ON_TIME:
    case CHRONOS__V1__TICK_REASON__TICK_REASON_FAILOVER:
    case CHRONOS__V1__TICK_REASON__TICK_REASON_CATCH_UP:
    case CHRONOS__V1__TICK_REASON__TICK_REASON_TRIGGER:
    case CHRONOS__V1__TICK_REASON__TICK_REASON_BACKFILL:
    case CHRONOS__V1__TICK_REASON__TICK_REASON_BUFFERED:
    case _CHRONOS__V1__TICK_REASON_IS_INT_SIZE:
        put(l, "reason %d", (int) t->reason);
        break;
    }
}

static void put_last_tick(struct line *l, struct api *a,
                          const Chronos__Internal__V1__ScheduleRecord *rec) {
    Chronos__Internal__V1__TickRecord *t;

    if (rec->next_ordinal <= rec->first_ordinal ||
        fsm_read_tick(replica_fsm(a->replica), rec->seq, rec->next_ordinal - 1, &a->scratch, &t) !=
            0)
        return;
    put(l, "; the last tick, ");
    put_time(l, MAX(t->last_tick_s, t->tick_s) * 1000);
    if (t->waiting) {
        put(l, ", waits for run ");
        put_job(l, t->job_seq);
        put(l, " to end");
    } else if (t->fired) {
        put(l, ", became ");
        put_job(l, t->job_seq);
    } else {
        put(l, ", was skipped because ");
        put_reason(l, t);
    }
}

static void put_next(struct line *l, const struct schedule_rpc_next *next,
                     const struct timetable *t) {
    const struct zone *zone = t ? timetable_zone(t) : NULL;
    char local[PREVIEW_LOCAL_BYTES];

    if (next->run_ms == 0)
        return;
    put(l, "next run at ");
    put_time(l, next->run_ms);
    if (zone && zone->tz) {
        preview_local(zone->tz, next->run_tick_s, local);
        put(l, " (%s)", local);
    }
    if (next->run_ms != next->run_tick_s * 1000) {
        put(l, " for the tick of ");
        put_time(l, next->run_tick_s * 1000);
    }
    if (next->note == CRON_NOTE_MOVED)
        put(l, ", " PREVIEW_NOTE_MOVED);
}

static void put_state(struct line *l, const Chronos__Internal__V1__ScheduleRecord *rec,
                      const struct schedule_rpc_pause *pause, const struct schedule_rpc_next *next,
                      const struct timetable *t, const char *error) {
    const char *between = "";

    if (rec->alarm[0] != '\0' || error[0] != '\0') {
        put(l, "it does not fire: ");
        put_quoted(l, rec->alarm[0] != '\0' ? rec->alarm : error);
        between = "; ";
    }
    if (pause->paused) {
        put(l, "%spaused", between);
        if (pause->until_ms > 0) {
            put(l, " until ");
            put_time(l, pause->until_ms);
        }
        if (pause->reason[0] != '\0') {
            put(l, ": ");
            put_quoted(l, pause->reason);
        }
        between = "; ";
    }
    if (next->run_ms != 0) {
        put(l, "%s", between);
        put_next(l, next, t);
    } else if (next->finished && rec->max_runs > 0 && rec->runs_counted >= rec->max_runs) {
        put(l, "%sfinished: all of its %" PRIu64 " runs are used up", between, rec->max_runs);
    } else if (next->finished) {
        put(l, "%sfinished: no instant is left to fire at", between);
    } else if (between[0] == '\0') {
        put(l, "it runs only when it is triggered");
    }
}

static void explain_schedule(struct api *a, struct rpc_call *call, const char *name,
                             uint64_t index) {
    _cleanup_(timetable_unrefp) struct timetable *t = NULL;
    Chronos__Internal__V1__ScheduleRecord *rec;
    Chronos__V1__ScheduleSpec *spec;
    const struct fsm_schedule *s;
    struct schedule_rpc_pause pause;
    struct schedule_rpc_next next;
    struct errtext e = {0};
    struct line l = {0};

    if (schedule_rpc_find(a, call, name, &s, &rec) != 0 ||
        schedule_rpc_definition(a, call, rec, &spec, &t, &e) != 0)
        return;
    if (schedule_rpc_pause_of(a, s, rec, &a->scratch, &pause) < 0) {
        api_fail_memory(call);
        return;
    }
    if (t && timetable_zone(t) && !timetable_zone(t)->tz)
        e = timetable_zone(t)->error;
    schedule_rpc_next(a, s, rec, spec, t, &next);
    buf_init(&l.text, TEXT_BYTES_MAX);
    put(&l, "%s: ", rec->name);
    put_state(&l, rec, &pause, &next, t, e.s);
    put_runs(&l, a, rec);
    put_last_tick(&l, a, rec);
    reply(call, &l, index);
    buf_done(&l.text);
}

static void explain(struct api *a, struct rpc_call *call, const ProtobufCMessage *m, uint64_t index,
                    const struct schedule_rpc_call *kept) {
    const Chronos__V1__ExplainRequest *req = (const void *) m;
    uint64_t seq;

    (void) kept;
    if (req->job_id[0] == '\0')
        explain_schedule(a, call, req->schedule, index);
    else if (api_job_id(call, req->job_id, &seq) == 0)
        explain_job(a, call, seq, index);
}

void explain_on_call(void *ctx, struct rpc_call *call, struct slice request) {
    const ProtobufCMessageDescriptor *d = &chronos__v1__explain_request__descriptor;
    struct api *a = ctx;
    Chronos__V1__ExplainRequest *req;
    struct errtext e;
    uint64_t seq;

    req = (Chronos__V1__ExplainRequest *) schedule_rpc_decode(a, call, STATUS_READ, d, request);
    if (!req)
        return;
    if ((req->job_id[0] != '\0') == (req->schedule[0] != '\0')) {
        api_fail(call, RPC_INVALID_ARGUMENT, "job_id: set one of job_id and schedule");
        return;
    }
    if (req->job_id[0] != '\0' && api_job_id(call, req->job_id, &seq) != 0)
        return;
    if (req->schedule[0] != '\0' && validate_schedule_name(req->schedule, &e) != 0) {
        api_fail(call, RPC_INVALID_ARGUMENT, "schedule%s", e.s + strlen("name"));
        return;
    }
    schedule_rpc_after_barrier(a, call, explain, d, request, 0);
}
