/* Any bytes as a request: what the checks let through validates to a specification that encodes,
 * is accepted by the log, and validates again unchanged; any text as a page token parses only when
 * it prints back the same. A definition of a schedule that is accepted is accepted again unchanged,
 * also after it was packed and unpacked. The first byte of the input chooses. */
#include "fuzz.h"

#include "api/job_filter.h"
#include "api/message_check.h"
#include "api/page_token.h"
#include "api/schedule_page.h"
#include "api/submit_encode.h"
#include "api/validate_job.h"
#include "api/validate_schedule.h"
#include "fake_zones.h"
#include "fsm/command.h"

#include "chronos/v1/job_service.pb-c.h"
#include "chronos/v1/schedule_service.pb-c.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void fuzz_submit(struct arena *arena, struct slice in) {
    Chronos__V1__SubmitJobRequest *req;
    struct submit_item item = {0};
    struct bytes *command = NULL;
    struct errtext e;
    size_t again;

    if (message_check(&chronos__v1__submit_job_request__descriptor, in, &e) != 0)
        return;
    req = chronos__v1__submit_job_request__unpack(arena_pb(arena), in.len, in.data);
    if (!req || validate_job_key(req->idempotency_key, &e) != 0 ||
        validate_job(req->spec, arena, &item.spec_bytes, &e) != 0)
        return;
    item.spec = req->spec;
    item.key = req->idempotency_key;
    ASSERT(submit_encode(&item, 1, &command) == 0);
    ASSERT(command_check(bytes_slice(command), &e) == 0);
    (void) bytes_unref(command);
    ASSERT(validate_job(req->spec, arena, &again, &e) == 0);
    ASSERT(again == item.spec_bytes);
}

static void fuzz_list(struct arena *arena, struct slice in) {
    Chronos__V1__ListJobsRequest *req;
    struct job_filter f;
    struct errtext e;

    if (message_check(&chronos__v1__list_jobs_request__descriptor, in, &e) != 0)
        return;
    req = chronos__v1__list_jobs_request__unpack(arena_pb(arena), in.len, in.data);
    if (!req)
        return;
    if (job_filter_init(&f, req, &e) == 0) {
        Chronos__Internal__V1__JobRecord rec = CHRONOS__INTERNAL__V1__JOB_RECORD__INIT;

        rec.spec.data = (uint8_t *) (uintptr_t) in.data; /* any bytes as a specification */
        rec.spec.len = in.len;
        (void) job_filter_apply(&f, &rec);
        (void) job_filter_hash(&f);
    }
    job_filter_done(&f);
}

static void fuzz_token(struct slice in) {
    char *text = malloc(in.len + 1), again[PAGE_TOKEN_TEXT_BYTES];
    struct page_token t;

    if (!text)
        return;
    memcpy(text, in.data, in.len);
    text[in.len] = '\0';
    if (page_token_parse(text, &t) == 0) {
        page_token_format(&t, again);
        ASSERT(strcmp(text, again) == 0);
    }
    free(text);
}

static struct fake_zone fake[] = {{.name = "Europe/Berlin", .rule = FAKE_BERLIN}, {0}};

static void fuzz_schedule(struct arena *arena, struct slice in) {
    const struct env_zones env = fake_zones(fake);
    struct validate_schedule o = {
        .now_s = 1767225600, .with_job = true, .with_name = true, .must_tick = true};
    Chronos__V1__CreateScheduleRequest *req;
    struct schedule_packed packed, again;
    Chronos__V1__ScheduleSpec *back;
    struct timetable *t = NULL;
    struct errtext e;

    if (message_check(&chronos__v1__create_schedule_request__descriptor, in, &e) != 0)
        return;
    req = chronos__v1__create_schedule_request__unpack(arena_pb(arena), in.len, in.data);
    if (!req || zones_new(&env, &o.zones) != 0)
        return;
    if (validate_schedule(req->spec, &o, arena, &t, &e) == 0 &&
        validate_schedule_pack(req->spec, arena, &packed, &e) == 0) {
        back = validate_schedule_unpack(packed.spec, packed.job, arena);
        t = timetable_unref(t);
        ASSERT(back);
        ASSERT(validate_schedule(back, &o, arena, &t, &e) == 0);
        ASSERT(validate_schedule_pack(back, arena, &again, &e) == 0);
        ASSERT(again.spec.len == packed.spec.len && again.job.len == packed.job.len);
        ASSERT(memcmp(again.spec.data, packed.spec.data, packed.spec.len) == 0);
        ASSERT(memcmp(again.job.data, packed.job.data, packed.job.len) == 0);
    }
    (void) timetable_unref(t);
    (void) zones_free(o.zones);
}

static void fuzz_schedule_token(struct slice in) {
    char *text = malloc(in.len + 1), again[SCHEDULE_PAGE_TEXT_BYTES];
    struct schedule_page p;

    if (!text)
        return;
    memcpy(text, in.data, in.len);
    text[in.len] = '\0';
    if (schedule_page_parse(text, &p) == 0) {
        schedule_page_format(&p, again);
        ASSERT(strcmp(text, again) == 0);
    }
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct arena arena;
    struct slice in;

    if (size == 0)
        return 0;
    in = slice_of(data + 1, size - 1);
    arena_init(&arena, 16UL * 1024 * 1024);
    switch (data[0] % 5) {
    case 0:
        fuzz_submit(&arena, in);
        break;
    case 1:
        fuzz_list(&arena, in);
        break;
    case 2:
        fuzz_token(in);
        break;
    case 3:
        fuzz_schedule(&arena, in);
        break;
    case 4:
        fuzz_schedule_token(in);
        break;
    }
    arena_done(&arena);
    return 0;
}
