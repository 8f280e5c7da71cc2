/* GetSchedule, ListTicks, PreviewSchedule. Thread: the loop's. */
#include "api/schedule_rpc.h"

#include "api/page_token.h"
#include "os/clock.h"

#include <errno.h>
#include <string.h>
#include <xxhash.h>

#define PAGE_SIZE_DEFAULT 100
#define PAGE_SIZE_MAX 1000
#define PREVIEW_DEFAULT 10
#define PREVIEW_MAX 1000
#define PREVIEW_FROM_MS_MAX 7258118400000LL /* the year 2200 */
#define DESCRIPTION_BYTES 512
/* Suppressed instants come on top of those that fire; a whole repeated hour of seconds has 3,600.
 */
#define PREVIEW_ENTRIES_MAX (PREVIEW_MAX + 3600)

static int check_name(struct rpc_call *call, const char *name) {
    struct errtext e;

    if (validate_schedule_name(name, &e) == 0)
        return 0;
    api_fail(call, RPC_INVALID_ARGUMENT, "%s", e.s);
    return 1;
}

/* ---- GetSchedule ----------------------------------------------------------------------------- */

static void get(struct api *a, struct rpc_call *call, const ProtobufCMessage *m, uint64_t index,
                const struct schedule_rpc_call *kept) {
    const Chronos__V1__GetScheduleRequest *req = (const void *) m;
    Chronos__V1__ScheduleResponse resp = CHRONOS__V1__SCHEDULE_RESPONSE__INIT;
    Chronos__Internal__V1__ScheduleRecord *rec;
    const struct fsm_schedule *s;
    int r;

    (void) kept;
    if (schedule_rpc_find(a, call, req->name, &s, &rec) != 0)
        return;
    r = schedule_rpc_view(a, s, rec, &a->scratch, &resp.schedule);
    if (r < 0) {
        schedule_rpc_fail_read(a, call, "the schedule", r);
        return;
    }
    resp.index = index;
    api_reply(call, api_pack(&resp.base));
}

void schedule_rpc_on_get(void *ctx, struct rpc_call *call, struct slice request) {
    const ProtobufCMessageDescriptor *d = &chronos__v1__get_schedule_request__descriptor;
    struct api *a = ctx;
    Chronos__V1__GetScheduleRequest *req;

    req = (Chronos__V1__GetScheduleRequest *) schedule_rpc_decode(a, call, STATUS_READ, d, request);
    if (!req || check_name(call, req->name) != 0)
        return;
    if (req->consistency == CHRONOS__V1__CONSISTENCY__CONSISTENCY_STALE)
        get(a, call, &req->base, replica_applied(a->replica), NULL);
    else
        schedule_rpc_after_barrier(a, call, get, d, request, 0);
}

/* ---- ListTicks ------------------------------------------------------------------------------- */

/* The listing that a page token belongs to: a name may come back as another schedule. */
static uint64_t ticks_hash(uint64_t seq, bool only_missed) {
    return XXH3_64bits_withSeed(&seq, sizeof(seq), only_missed ? 2 : 1);
}

/* The newest ordinal of the page. 0; 1: the call was failed. */
static int ticks_begin(struct rpc_call *call, const Chronos__V1__ListTicksRequest *req,
                       const Chronos__Internal__V1__ScheduleRecord *rec, uint64_t *ret_end) {
    struct page_token token;

    *ret_end = rec->next_ordinal;
    if (req->page_token[0] == '\0')
        return 0;
    if (page_token_parse(req->page_token, &token) != 0) {
        api_fail(call, RPC_INVALID_ARGUMENT,
                 "page_token: is not the next_page_token of an earlier answer");
        return 1;
    }
    if (token.filter_hash != ticks_hash(rec->seq, req->only_missed)) {
        api_fail(call, RPC_INVALID_ARGUMENT,
                 "page_token: belongs to another schedule or to a request with other filters");
        return 1;
    }
    *ret_end = MIN(token.next_seq, rec->next_ordinal);
    return 0;
}

/* Lines below @end, newest first. 0 with *ret_next: 0, or the end of the next page; negative. */
static int ticks_fill(struct api *a, const Chronos__V1__ListTicksRequest *req,
                      const Chronos__Internal__V1__ScheduleRecord *rec, uint64_t end,
                      Chronos__V1__ListTicksResponse *resp, uint64_t *ret_next) {
    size_t most = req->page_size == 0 ? PAGE_SIZE_DEFAULT : req->page_size;

    *ret_next = 0;
    resp->ticks = arena_alloc(&a->scratch, most * sizeof(*resp->ticks));
    if (!resp->ticks)
        return -ENOMEM;
    for (uint64_t at = end; at > rec->first_ordinal; at--) {
        Chronos__Internal__V1__TickRecord *tick;
        int r = fsm_read_tick(replica_fsm(a->replica), rec->seq, at - 1, &a->scratch, &tick);

        if (r < 0)
            return r;
        if (r > 0 || (req->only_missed && tick->fired))
            continue;
        if (resp->n_ticks == most) {
            *ret_next = at;
            break;
        }
        resp->ticks[resp->n_ticks] = schedule_rpc_outcome(tick, at - 1, &a->scratch);
        if (!resp->ticks[resp->n_ticks])
            return -ENOMEM;
        resp->n_ticks++;
    }
    return 0;
}

static void ticks(struct api *a, struct rpc_call *call, const ProtobufCMessage *m, uint64_t index,
                  const struct schedule_rpc_call *kept) {
    const Chronos__V1__ListTicksRequest *req = (const void *) m;
    Chronos__V1__ListTicksResponse resp = CHRONOS__V1__LIST_TICKS_RESPONSE__INIT;
    Chronos__Internal__V1__ScheduleRecord *rec;
    char token[PAGE_TOKEN_TEXT_BYTES];
    const struct fsm_schedule *s;
    uint64_t end, next;
    int r;

    (void) kept;
    if (schedule_rpc_find(a, call, req->name, &s, &rec) != 0 ||
        ticks_begin(call, req, rec, &end) != 0)
        return;
    r = ticks_fill(a, req, rec, end, &resp, &next);
    if (r < 0) {
        schedule_rpc_fail_read(a, call, "the schedule's history", r);
        return;
    }
    if (next > 0) {
        page_token_format(
            &(struct page_token){.next_seq = next,
                                 .filter_hash = ticks_hash(rec->seq, req->only_missed),
                                 .first_index = index},
            token);
        resp.next_page_token = token;
    }
    resp.index = index;
    api_reply(call, api_pack(&resp.base));
}

void schedule_rpc_on_ticks(void *ctx, struct rpc_call *call, struct slice request) {
    const ProtobufCMessageDescriptor *d = &chronos__v1__list_ticks_request__descriptor;
    struct api *a = ctx;
    Chronos__V1__ListTicksRequest *req;

    req = (Chronos__V1__ListTicksRequest *) schedule_rpc_decode(a, call, STATUS_READ, d, request);
    if (!req || check_name(call, req->name) != 0)
        return;
    if (req->page_size > PAGE_SIZE_MAX)
        api_fail(call, RPC_INVALID_ARGUMENT, "page_size: must be at most %d", PAGE_SIZE_MAX);
    else if (req->consistency == CHRONOS__V1__CONSISTENCY__CONSISTENCY_STALE)
        ticks(a, call, &req->base, replica_applied(a->replica), NULL);
    else
        schedule_rpc_after_barrier(a, call, ticks, d, request, 0);
}

/* ---- PreviewSchedule ------------------------------------------------------------------------- */

/* "every hour; and every day at 00:30; but not: ... (Europe/Berlin)". NULL when memory is out. */
static char *describe(const Chronos__V1__ScheduleSpec *s, struct arena *arena) {
    bool and_days = s->day_match == CHRONOS__V1__DAY_MATCH__DAY_MATCH_AND;
    char *text = arena_strdup(arena, "");

    for (size_t i = 0; text && i < s->n_cron + s->n_exclude; i++) {
        bool exclude = i >= s->n_cron;
        const char *expression = exclude ? s->exclude[i - s->n_cron] : s->cron[i];
        const char *between = i == 0           ? ""
                              : i == s->n_cron ? "; but not "
                              : i > s->n_cron  ? ", nor "
                                               : "; and ";
        char words[DESCRIPTION_BYTES];
        struct cron c;

        if (cron_parse(expression, s->name, and_days, &c, NULL) != 0)
            continue; /* it was accepted once, by another version of this program */
        cron_describe(&c, words, sizeof(words));
        text = arena_printf(arena, "%s%s%s", text, between, words);
    }
    return text ? arena_printf(arena, "%s (%s)", text, s->time_zone) : NULL;
}

static int preview_add(struct api *a, const struct preview_instant *i,
                       Chronos__V1__PreviewScheduleResponse *resp) {
    Chronos__V1__PreviewInstant *p = arena_alloc(&a->scratch, sizeof(*p));

    if (!p)
        return -ENOMEM;
    chronos__v1__preview_instant__init(p);
    p->tick_ms = i->tick_s * 1000;
    p->start_ms = i->start_ms;
    p->local = arena_strdup(&a->scratch, i->local);
    p->note = arena_strdup(&a->scratch, i->note);
    p->fires = i->fires;
    resp->instants[resp->n_instants++] = p;
    return p->local && p->note ? 0 : -ENOMEM;
}

/* 0, or -ENOMEM. */
static int preview_fill(struct api *a, const Chronos__V1__ScheduleSpec *spec,
                        const struct timetable *t, int64_t from_ms, uint32_t count,
                        Chronos__V1__PreviewScheduleResponse *resp) {
    uint32_t steps = 0, fired = 0;
    struct preview_instant i;
    struct preview p;
    int r = 0;

    resp->instants = arena_alloc(&a->scratch, PREVIEW_ENTRIES_MAX * sizeof(*resp->instants));
    resp->description = describe(spec, &a->scratch);
    if (!resp->instants || !resp->description)
        return -ENOMEM;
    preview_begin(&p, t, spec->name, (from_ms + 999) / 1000 - 1);
    while (r == 0 && fired < count && resp->n_instants < PREVIEW_ENTRIES_MAX &&
           steps < SCHEDULES_STEPS_MAX && preview_next(&p, &steps, &i)) {
        if (i.fires)
            fired++;
        if (i.fires || i.note[0] != '\0')
            r = preview_add(a, &i, resp);
    }
    return r;
}

static void preview_answer(struct api *a, struct rpc_call *call,
                           const Chronos__V1__PreviewScheduleRequest *req,
                           const Chronos__V1__ScheduleSpec *spec, const struct timetable *t) {
    Chronos__V1__PreviewScheduleResponse resp = CHRONOS__V1__PREVIEW_SCHEDULE_RESPONSE__INIT;
    int64_t from_ms = req->from_ms > 0 ? req->from_ms : clock_wall().ms;

    if (timetable_zone(t) && !timetable_zone(t)->tz)
        api_fail(call, RPC_FAILED_PRECONDITION, "the schedule has no ticks here: %s",
                 timetable_zone(t)->error.s);
    else if (preview_fill(a, spec, t, from_ms, req->count > 0 ? req->count : PREVIEW_DEFAULT,
                          &resp) < 0)
        api_fail_memory(call);
    else
        api_reply(call, api_pack(&resp.base));
}

static void preview_stored(struct api *a, struct rpc_call *call, const ProtobufCMessage *m,
                           uint64_t index, const struct schedule_rpc_call *kept) {
    const Chronos__V1__PreviewScheduleRequest *req = (const void *) m;
    _cleanup_(timetable_unrefp) struct timetable *t = NULL;
    Chronos__Internal__V1__ScheduleRecord *rec;
    Chronos__V1__ScheduleSpec *spec;
    const struct fsm_schedule *s;
    struct errtext e = {0};

    (void) index;
    (void) kept;
    if (schedule_rpc_find(a, call, req->name, &s, &rec) != 0 ||
        schedule_rpc_definition(a, call, rec, &spec, &t, &e) != 0)
        return;
    if (t)
        preview_answer(a, call, req, spec, t);
    else
        api_fail(call, RPC_FAILED_PRECONDITION, "the schedule has no ticks here: %s", e.s);
}

static void preview_spec(struct api *a, struct rpc_call *call,
                         Chronos__V1__PreviewScheduleRequest *req) {
    const struct validate_schedule o = {.zones = replica_zones(a->replica),
                                        .now_s = clock_wall().ms / 1000};
    _cleanup_(timetable_unrefp) struct timetable *t = NULL;
    struct errtext e = {0};
    int r = validate_schedule(req->spec, &o, &a->scratch, &t, &e);

    if (r > 0)
        api_fail(call, RPC_INVALID_ARGUMENT, "%s", e.s);
    else if (r < 0)
        api_fail_memory(call);
    else
        preview_answer(a, call, req, req->spec, t);
}

void schedule_rpc_on_preview(void *ctx, struct rpc_call *call, struct slice request) {
    const ProtobufCMessageDescriptor *d = &chronos__v1__preview_schedule_request__descriptor;
    struct api *a = ctx;
    Chronos__V1__PreviewScheduleRequest *req;

    req = (Chronos__V1__PreviewScheduleRequest *) schedule_rpc_decode(a, call, STATUS_READ, d,
                                                                      request);
    if (!req)
        return;
    if (req->count > PREVIEW_MAX)
        api_fail(call, RPC_INVALID_ARGUMENT, "count: must be at most %d", PREVIEW_MAX);
    else if (req->from_ms < 0 || req->from_ms > PREVIEW_FROM_MS_MAX)
        api_fail(call, RPC_INVALID_ARGUMENT,
                 "from_ms: must be an instant from 1970 to 2199; 0 = now");
    else if ((req->name[0] != '\0') == (req->spec != NULL))
        api_fail(call, RPC_INVALID_ARGUMENT, "name: set one of name and spec");
    else if (req->spec)
        preview_spec(a, call, req);
    else if (check_name(call, req->name) == 0)
        schedule_rpc_after_barrier(a, call, preview_stored, d, request, 0);
}
