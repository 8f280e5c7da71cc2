#include "api/validate_schedule.h"

#include "fsm/fsm.h"
#include "sched/civil.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* How far the smallest interval is looked for: so many ticks, or so many searches. A pair of ticks
 * that comes closer only later (a yearly exception) is not found; then the second one just starts
 * out of order. */
#define INTERVAL_TICKS_MAX 1000
#define INTERVAL_STEPS_MAX 16384U

STATIC_ASSERT(sizeof(Chronos__V1__ScheduleSpec__LabelsEntry) ==
                  sizeof(Chronos__V1__JobSpec__LabelsEntry),
              "both maps are checked and merged by one function");
STATIC_ASSERT(offsetof(Chronos__V1__ScheduleSpec__LabelsEntry, value) ==
                  offsetof(Chronos__V1__JobSpec__LabelsEntry, value),
              "both maps are checked and merged by one function");
STATIC_ASSERT(VALIDATE_SCHEDULE_NAME_BYTES_MAX == FSM_SCHEDULE_NAME_BYTES_MAX,
              "what is accepted here can be applied");

typedef Chronos__V1__JobSpec__LabelsEntry label;

static int bad(struct errtext *reterr, const char *field, const char *what) {
    errtext_set(reterr, "spec.%s: %s", field, what);
    return VALIDATE_BAD;
}

/* ---- texts ----------------------------------------------------------------------------------- */

static int check_name(const char *name, const char *field, struct errtext *reterr) {
    if (name[0] == '\0') {
        errtext_set(reterr, "%s: is missing", field);
        return VALIDATE_BAD;
    }
    if (strlen(name) > VALIDATE_SCHEDULE_NAME_BYTES_MAX) {
        errtext_set(reterr, "%s: must be at most 128 bytes", field);
        return VALIDATE_BAD;
    }
    if (!validate_is_word(name, "._-")) {
        errtext_set(reterr, "%s: must consist of [A-Za-z0-9._-]", field);
        return VALIDATE_BAD;
    }
    return 0;
}

int validate_schedule_name(const char *name, struct errtext *reterr) {
    ASSERT(name);
    return check_name(name, "name", reterr);
}

static int check_texts(Chronos__V1__ScheduleSpec *s, const struct validate_schedule *o,
                       struct errtext *reterr) {
    const char *d = s->description;

    if (o->with_name || s->name[0] != '\0') {
        int r = check_name(s->name, "spec.name", reterr);

        if (r != 0)
            return r;
    }
    if (strlen(d) > VALIDATE_SCHEDULE_DESCRIPTION_BYTES_MAX)
        return bad(reterr, "description", "must be at most 1,024 bytes");
    for (; *d; d++) {
        if (((unsigned char) *d < 0x20 && *d != '\n' && *d != '\t') || *d == 0x7f)
            return bad(reterr, "description",
                       "must not contain control characters other than line feed and tab");
    }
    return 0;
}

/* ---- numbers --------------------------------------------------------------------------------- */

static int check_choices(const Chronos__V1__ScheduleSpec *s, struct errtext *reterr) {
    if (s->dst < CHRONOS__V1__DST_POLICY__DST_POLICY_ONCE ||
        s->dst > CHRONOS__V1__DST_POLICY__DST_POLICY_SKIP_REPEAT)
        return bad(reterr, "dst", "must be ONCE (0), LITERAL (1) or SKIP_REPEAT (2)");
    if (s->day_match < CHRONOS__V1__DAY_MATCH__DAY_MATCH_OR ||
        s->day_match > CHRONOS__V1__DAY_MATCH__DAY_MATCH_AND)
        return bad(reterr, "day_match", "must be OR (0) or AND (1)");
    if (s->missed < CHRONOS__V1__MISSED_POLICY__MISSED_POLICY_ONCE ||
        s->missed > CHRONOS__V1__MISSED_POLICY__MISSED_POLICY_ALL)
        return bad(reterr, "missed", "must be ONCE (0), SKIP (1) or ALL (2)");
    if (s->overlap < CHRONOS__V1__OVERLAP_POLICY__OVERLAP_POLICY_SKIP ||
        s->overlap > CHRONOS__V1__OVERLAP_POLICY__OVERLAP_POLICY_ALLOW)
        return bad(reterr, "overlap",
                   "must be SKIP (0), BUFFER_ONE (1), BUFFER_ALL (2), CANCEL_OTHER (3), "
                   "TERMINATE_OTHER (4) or ALLOW (5)");
    return 0;
}

static int check_times(Chronos__V1__ScheduleSpec *s, struct errtext *reterr) {
    const int64_t last_ms = civil_days(CRON_YEAR_MAX + 1, 1, 1) * CIVIL_SECONDS_PER_DAY * 1000;

    if (s->start_ms < 0 || s->start_ms >= last_ms)
        return bad(reterr, "start_ms", "must be an instant from 1970 to 2199; 0 = no bound");
    if (s->end_ms < 0 || s->end_ms >= last_ms)
        return bad(reterr, "end_ms", "must be an instant from 1970 to 2199; 0 = no bound");
    if (s->end_ms != 0 && s->end_ms <= s->start_ms)
        return bad(reterr, "end_ms", "must be after start_ms");
    if (s->max_runs > VALIDATE_MAX_RUNS_MAX)
        return bad(reterr, "max_runs", "must be at most 1,000,000,000,000; 0 = no bound");
    if (s->catchup_window_ms == 0)
        s->catchup_window_ms = VALIDATE_CATCHUP_MS_DEFAULT;
    if (s->catchup_window_ms < 0 || s->catchup_window_ms > VALIDATE_SPAN_MS_MAX)
        return bad(reterr, "catchup_window_ms",
                   "must be 0 (1 hour) or at most 31,622,400,000 (366 days)");
    if (s->spread_ms < 0 || s->spread_ms > VALIDATE_SPAN_MS_MAX)
        return bad(reterr, "spread_ms", "must be at most 31,622,400,000 (366 days), 0 = none");
    if (s->jitter_ms < 0 || s->jitter_ms > VALIDATE_SPAN_MS_MAX)
        return bad(reterr, "jitter_ms", "must be at most 31,622,400,000 (366 days), 0 = none");
    return 0;
}

/* ---- expressions ----------------------------------------------------------------------------- */

static int check_zone(Chronos__V1__ScheduleSpec *s, const struct validate_schedule *o,
                      struct arena *arena, struct errtext *reterr) {
    const struct tz *tz;
    struct errtext why = {0};
    int r;

    if (s->time_zone[0] == '\0') {
        s->time_zone = arena_strdup(arena, "UTC");
        return s->time_zone ? 0 : -ENOMEM;
    }
    if (!tz_name_ok(s->time_zone) || strlen(s->time_zone) >= TZ_NAME_BYTES_MAX)
        return bad(reterr, "time_zone",
                   "must be the name of a time zone such as Europe/Berlin; empty = UTC");
    r = zones_find(o->zones, s->time_zone, &tz, &why);
    if (r == -ENOMEM)
        return r;
    return r < 0 ? bad(reterr, "time_zone", why.s) : 0;
}

static bool is_manual(const char *expression) {
    return strncmp(expression + strspn(expression, " \t"), "@manual", 7) == 0;
}

static int check_expressions(const Chronos__V1__ScheduleSpec *s, struct errtext *reterr) {
    if (s->n_cron < 1 || s->n_cron > TIMETABLE_EXPRESSIONS_MAX)
        return bad(reterr, "cron", "must have 1 to 16 expressions (@manual for none)");
    if (s->n_exclude > TIMETABLE_EXPRESSIONS_MAX)
        return bad(reterr, "exclude", "must have at most 16 expressions");
    for (size_t i = 0; i < s->n_cron && s->n_cron > 1; i++) {
        if (is_manual(s->cron[i])) {
            errtext_set(reterr, "spec.cron[%zu]: @manual stands alone", i);
            return VALIDATE_BAD;
        }
    }
    for (size_t i = 0; i < s->n_exclude; i++) {
        if (is_manual(s->exclude[i])) {
            errtext_set(reterr, "spec.exclude[%zu]: @manual names no instants", i);
            return VALIDATE_BAD;
        }
    }
    return 0;
}

/* The smallest interval among the next ticks, CRON_NEVER with fewer than two of them. *ret_none:
 * there is no tick at all, for sure. */
static int64_t smallest_interval(const struct timetable *t, int64_t now_s, bool *ret_none) {
    int64_t at = now_s, before = CRON_NEVER, smallest = CRON_NEVER;
    uint32_t steps = 0;

    *ret_none = false;
    for (size_t ticks = 0; ticks < INTERVAL_TICKS_MAX && steps < INTERVAL_STEPS_MAX;) {
        struct timetable_instant i = timetable_next(t, at, &steps);

        if (i.at_s == CRON_NEVER) {
            *ret_none = before == CRON_NEVER;
            break;
        }
        at = i.at_s;
        if (!i.is_tick)
            continue;
        if (before != CRON_NEVER)
            smallest = MIN(smallest, at - before);
        before = at;
        ticks++;
    }
    return smallest;
}

static int check_ticks(const Chronos__V1__ScheduleSpec *s, const struct validate_schedule *o,
                       const struct timetable *t, struct errtext *reterr) {
    int64_t smallest;
    bool none;

    if (!o->must_tick && s->spread_ms == 0 && s->jitter_ms == 0)
        return 0;
    smallest = smallest_interval(t, o->now_s, &none);
    if (o->must_tick && none && !is_manual(s->cron[0])) {
        if (s->end_ms != 0 && s->end_ms / 1000 <= o->now_s)
            return bad(reterr, "end_ms", "has passed already: the schedule would never fire");
        return bad(reterr, "cron",
                   "no instant is left to fire at: all are in the past, excluded, "
                   "or outside of start_ms and end_ms");
    }
    if (smallest != CRON_NEVER && s->spread_ms + s->jitter_ms >= smallest * 1000) {
        errtext_set(reterr,
                    "spec.%s: spread_ms and jitter_ms together must be below the smallest interval "
                    "between ticks, here %" PRId64 " ms",
                    s->jitter_ms > 0 ? "jitter_ms" : "spread_ms", smallest * 1000);
        return VALIDATE_BAD;
    }
    return 0;
}

static int check_timetable(Chronos__V1__ScheduleSpec *s, const struct validate_schedule *o,
                           struct timetable **ret, struct errtext *reterr) {
    _cleanup_(timetable_unrefp) struct timetable *t = NULL;
    struct errtext why = {0};
    int r = check_expressions(s, reterr);

    if (r != 0)
        return r;
    r = timetable_new(s, o->zones, &t, &why);
    if (r == -ENOMEM)
        return r;
    if (r < 0) {
        errtext_set(reterr, "spec.%.500s", why.s);
        return VALIDATE_BAD;
    }
    r = check_ticks(s, o, t, reterr);
    if (r == 0)
        *ret = TAKE_PTR(t);
    return r;
}

/* ---- labels and the job ---------------------------------------------------------------------- */

static int label_find(label *const *labels, size_t count, const char *key) {
    for (size_t i = 0; i < count; i++) {
        if (strcmp(labels[i]->key, key) == 0)
            return (int) i;
    }
    return -1;
}

static label **labels_of(const Chronos__V1__ScheduleSpec *s) {
    return (label **) (void *) s->labels;
}

/* Drop what the schedule says as well. */
static void strip_labels(const Chronos__V1__ScheduleSpec *s) {
    Chronos__V1__JobSpec *job = s->job;
    size_t kept = 0;

    for (size_t i = 0; i < job->n_labels; i++) {
        int at = label_find(labels_of(s), s->n_labels, job->labels[i]->key);

        if (at < 0 || strcmp(labels_of(s)[at]->value, job->labels[i]->value) != 0)
            job->labels[kept++] = job->labels[i];
    }
    job->n_labels = kept;
}

/* The job's labels, completed by the schedule's, sorted. 0, VALIDATE_BAD, -ENOMEM. */
static int merge_labels(const Chronos__V1__ScheduleSpec *s, struct arena *arena,
                        Chronos__V1__JobSpec *job, struct errtext *reterr) {
    label **all = arena_alloc(arena, (s->n_labels + job->n_labels + 1) * sizeof(*all));
    size_t count = 0;

    if (!all)
        return -ENOMEM;
    for (size_t i = 0; i < job->n_labels; i++)
        all[count++] = job->labels[i];
    for (size_t i = 0; i < s->n_labels; i++) {
        if (label_find(job->labels, job->n_labels, labels_of(s)[i]->key) < 0)
            all[count++] = labels_of(s)[i];
    }
    if (count > VALIDATE_LABELS_MAX)
        return bad(reterr, "job.labels", "with those of the schedule there must be at most 32");
    job->labels = all;
    job->n_labels = count;
    return validate_labels(all, &job->n_labels, arena, reterr);
}

static int check_job(Chronos__V1__ScheduleSpec *s, struct arena *arena, struct errtext *reterr) {
    struct errtext why = {0};
    size_t bytes;
    int r;

    if (!s->job)
        return bad(reterr, "job", "is missing");
    r = validate_job(s->job, arena, &bytes, &why);
    if (r == VALIDATE_BAD) /* "spec.shell: ..." or "spec: ..." of the job */
        errtext_set(reterr, "spec.job%.500s", why.s + strlen("spec"));
    if (r == 0)
        strip_labels(s);
    return r;
}

int validate_schedule(Chronos__V1__ScheduleSpec *spec, const struct validate_schedule *o,
                      struct arena *arena, struct timetable **ret, struct errtext *reterr) {
    _cleanup_(timetable_unrefp) struct timetable *t = NULL;
    int r;

    ASSERT(o->zones);
    ASSERT(ret);
    if (!spec) {
        errtext_set(reterr, "spec: is missing");
        return VALIDATE_BAD;
    }
    spec->base.n_unknown_fields = 0;
    r = check_texts(spec, o, reterr);
    if (r == 0)
        r = check_choices(spec, reterr);
    if (r == 0)
        r = check_times(spec, reterr);
    if (r == 0)
        r = check_zone(spec, o, arena, reterr);
    if (r == 0)
        r = check_timetable(spec, o, &t, reterr);
    if (r == 0)
        r = validate_labels(labels_of(spec), &spec->n_labels, arena, reterr);
    if (r == 0 && o->with_job)
        r = check_job(spec, arena, reterr);
    if (r == 0)
        *ret = TAKE_PTR(t);
    return r;
}

/* ---- one form, packed ------------------------------------------------------------------------ */

static int pack(const ProtobufCMessage *m, struct arena *arena, struct slice *ret) {
    size_t len = protobuf_c_message_get_packed_size(m);
    uint8_t *data = arena_alloc(arena, len + 1);

    if (!data)
        return -ENOMEM;
    *ret = slice_of(data, protobuf_c_message_pack(m, data));
    return 0;
}

int validate_schedule_pack(Chronos__V1__ScheduleSpec *spec, struct arena *arena,
                           struct schedule_packed *ret, struct errtext *reterr) {
    Chronos__V1__ScheduleSpec bare = *spec;
    Chronos__V1__JobSpec job = *spec->job;
    int r;

    bare.job = NULL;
    r = merge_labels(spec, arena, &job, reterr);
    if (r == 0)
        r = pack(&bare.base, arena, &ret->spec);
    if (r == 0)
        r = pack(&job.base, arena, &ret->job);
    if (r != 0)
        return r;
    if (ret->spec.len + ret->job.len > FSM_SCHEDULE_BYTES_MAX) {
        errtext_set(reterr, "spec: must be at most 1,048,576 bytes encoded, is %zu",
                    ret->spec.len + ret->job.len);
        return VALIDATE_BAD;
    }
    return 0;
}

Chronos__V1__ScheduleSpec *validate_schedule_unpack(struct slice spec, struct slice job,
                                                    struct arena *arena) {
    Chronos__V1__ScheduleSpec *s =
        chronos__v1__schedule_spec__unpack(arena_pb(arena), spec.len, spec.data);

    if (!s)
        return NULL;
    s->job = chronos__v1__job_spec__unpack(arena_pb(arena), job.len, job.data);
    if (!s->job)
        return NULL;
    strip_labels(s);
    return s;
}
