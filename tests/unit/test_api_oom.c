/* Every allocation of the api folder's codecs and checks fails once: the caller gets -ENOMEM (or
 * NULL), never a refusal of a request that is right, and nothing leaks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "api/convert.h"
#include "api/job_filter.h"
#include "api/message_check.h"
#include "api/page_token.h"
#include "api/schedule_page.h"
#include "api/submit_encode.h"
#include "api/validate_job.h"
#include "api/validate_schedule.h"
#include "fake_zones.h"
#include "fsm/command.h"
#include "nth_memory.h"

#define ARENA_BYTES_MAX (1UL << 20)
#define NOW_S 1767225600 /* 2026-01-01T00:00:00Z */

static char *text(const char *s) {
    return (char *) (uintptr_t) s; /* protobuf-c has no const strings */
}

/* ---- jobs --------------------------------------------------------------------------------------
 */

/* A message as it comes in: checked, unpacked, validated, encoded as a command. */
static int submit(struct slice in, struct arena *arena) {
    Chronos__V1__SubmitJobRequest *req;
    struct submit_item item = {0};
    struct bytes *command = NULL;
    int rc = message_check(&chronos__v1__submit_job_request__descriptor, in, NULL);

    if (rc != 0)
        return rc;
    req = chronos__v1__submit_job_request__unpack(arena_pb(arena), in.len, in.data);
    if (!req)
        return -ENOMEM;
    rc = validate_job_key(req->idempotency_key, NULL);
    if (rc == 0)
        rc = validate_labels(req->spec->labels, &req->spec->n_labels, arena, NULL);
    if (rc == 0)
        rc = validate_job(req->spec, arena, &item.spec_bytes, NULL);
    item.spec = req->spec;
    item.key = req->idempotency_key;
    if (rc == 0)
        rc = submit_encode(&item, 1, &command);
    if (rc == 0)
        assert_int_equal(command_check(bytes_slice(command), NULL), 0);
    (void) bytes_unref(command);
    return rc;
}

static int submit_scenario(void *arg) {
    const struct bytes *in = arg;
    struct arena arena;
    int rc;

    arena_init(&arena, ARENA_BYTES_MAX);
    rc = submit(bytes_slice(in), &arena);
    arena_done(&arena);
    return rc;
}

static void fill_job(Chronos__V1__JobSpec *spec, Chronos__V1__JobSpec__LabelsEntry labels[3],
                     Chronos__V1__JobSpec__LabelsEntry *list[3]) {
    static const char *const keys[] = {"zone", "app", "zone"};

    chronos__v1__job_spec__init(spec);
    spec->payload_case = CHRONOS__V1__JOB_SPEC__PAYLOAD_SHELL;
    spec->shell = text("true");
    for (size_t i = 0; i < 3; i++) {
        chronos__v1__job_spec__labels_entry__init(&labels[i]);
        labels[i].key = text(keys[i]);
        labels[i].value = text("a");
        list[i] = &labels[i];
    }
    spec->n_labels = 3;
    spec->labels = list;
}

static void test_submit(void **state) {
    Chronos__V1__SubmitJobRequest req = CHRONOS__V1__SUBMIT_JOB_REQUEST__INIT;
    Chronos__V1__JobSpec__LabelsEntry labels[3], *list[3];
    Chronos__V1__JobSpec spec;
    struct bytes *in;

    (void) state;
    fill_job(&spec, labels, list);
    req.spec = &spec;
    req.idempotency_key = text("key");
    in = bytes_new(chronos__v1__submit_job_request__get_packed_size(&req));
    assert_non_null(in);
    (void) chronos__v1__submit_job_request__pack(&req, in->data);
    assert_true(nth_memory_loop(submit_scenario, in) >= 2);
    (void) bytes_unref(in);
}

static int list_scenario(void *arg) {
    const struct page_token token = {
        .ascending = true, .next_seq = 5, .filter_hash = 77, .first_index = 9};
    Chronos__V1__ListJobsRequest req = CHRONOS__V1__LIST_JOBS_REQUEST__INIT;
    char out[PAGE_TOKEN_TEXT_BYTES];
    struct page_token back;
    struct job_filter f;
    int rc;

    (void) arg;
    req.worker_id = text("w1");
    req.queue = text("default");
    req.schedule = text("nightly");
    req.command_contains = text("echo");
    rc = job_filter_init(&f, &req, NULL);
    job_filter_done(&f);
    page_token_format(&token, out);
    if (rc == 0)
        rc = page_token_parse(out, &back);
    return rc;
}

static void test_list(void **state) {
    (void) state;
    assert_true(nth_memory_loop(list_scenario, NULL) >= 4);
}

static int convert_scenario(void *arg) {
    Chronos__Internal__V1__JobRecord rec = CHRONOS__INTERNAL__V1__JOB_RECORD__INIT;
    struct bytes *b;

    (void) arg;
    rec.worker_id = text("w1");
    rec.state = CHRONOS__V1__JOB_STATE__JOB_STATE_RUNNING;
    b = convert_job_response(7, &rec, 9);
    if (!b)
        return -ENOMEM;
    (void) bytes_unref(b);
    return 0;
}

static void test_convert(void **state) {
    (void) state;
    assert_true(nth_memory_loop(convert_scenario, NULL) >= 1);
}

/* ---- schedules ---------------------------------------------------------------------------------
 */

static struct fake_zone fake[] = {{.name = "Europe/Berlin", .rule = FAKE_BERLIN}, {0}};

/* Accepted, packed as a record has it, and shown again. */
static int schedule(struct zones *zones, struct arena *arena) {
    const struct validate_schedule o = {
        .zones = zones, .now_s = NOW_S, .with_job = true, .with_name = true, .must_tick = true};
    Chronos__V1__ScheduleSpec spec = CHRONOS__V1__SCHEDULE_SPEC__INIT;
    Chronos__V1__JobSpec__LabelsEntry labels[3], *list[3];
    char *cron[] = {text("0 9 * * mon-fri")};
    struct timetable *t = NULL;
    struct schedule_packed packed;
    Chronos__V1__JobSpec job;
    int rc = validate_schedule_name("nightly", NULL);

    fill_job(&job, labels, list);
    spec.name = text("nightly");
    spec.cron = cron;
    spec.n_cron = 1;
    spec.time_zone = text("Europe/Berlin");
    spec.job = &job;
    if (rc == 0)
        rc = validate_schedule(&spec, &o, arena, &t, NULL);
    if (rc == 0)
        rc = validate_schedule_pack(&spec, arena, &packed, NULL);
    if (rc == 0 && !validate_schedule_unpack(packed.spec, packed.job, arena))
        rc = -ENOMEM;
    (void) timetable_unref(t);
    return rc;
}

static int schedule_scenario(void *arg) {
    const struct env_zones env = fake_zones(fake);
    struct schedule_page page = {.filter_hash = 7, .name = "nightly"}, back;
    char out[SCHEDULE_PAGE_TEXT_BYTES];
    struct zones *zones = NULL;
    struct arena arena;
    int rc = zones_new(&env, &zones);

    (void) arg;
    arena_init(&arena, ARENA_BYTES_MAX);
    if (rc == 0)
        rc = schedule(zones, &arena);
    arena_done(&arena);
    (void) zones_free(zones);
    schedule_page_format(&page, out);
    if (rc == 0)
        rc = schedule_page_parse(out, &back);
    return rc;
}

static void test_schedule(void **state) {
    (void) state;
    assert_true(nth_memory_loop(schedule_scenario, NULL) > 8);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_submit),
        cmocka_unit_test(test_list),
        cmocka_unit_test(test_convert),
        cmocka_unit_test(test_schedule),
    };

    return cmocka_run_group_tests_name("api_oom", tests, NULL, NULL);
}
