/* Goal: the schedule service over a real replica and real gRPC where clients cannot look: without a
 * leader, with clients that leave while their calls wait, and over more schedules than one slice of
 * a listing looks at. What each method answers is tests/system/test_schedules.py's.
 * Method: as test_api_calls.c. Read under the sanitizers. */
#include "api_world.h"

#include "chronos/v1/schedule_service.pb-c.h"

#define SERVICE "/chronos.v1.ScheduleService/"

struct request {
    Chronos__V1__CreateScheduleRequest create;
    Chronos__V1__UpdateScheduleRequest update;
    Chronos__V1__ScheduleSpec spec;
    Chronos__V1__JobSpec job;
    Chronos__V1__Noop noop;
    char *cron[1];
    char name[32];
};

static void fill(struct request *r, const char *name) {
    static char cron[] = "0 0 1 1 *";

    chronos__v1__create_schedule_request__init(&r->create);
    chronos__v1__update_schedule_request__init(&r->update);
    chronos__v1__schedule_spec__init(&r->spec);
    chronos__v1__job_spec__init(&r->job);
    chronos__v1__noop__init(&r->noop);
    (void) snprintf(r->name, sizeof(r->name), "%s", name);
    r->job.payload_case = CHRONOS__V1__JOB_SPEC__PAYLOAD_NOOP;
    r->job.noop = &r->noop;
    r->cron[0] = cron;
    r->spec.cron = r->cron;
    r->spec.n_cron = 1;
    r->spec.name = r->name;
    r->spec.job = &r->job;
    r->create.spec = r->update.spec = &r->spec;
}

static void create(struct world *w, const char *name) {
    struct request r;
    struct answer a;

    fill(&r, name);
    call(w, SERVICE "CreateSchedule", &r.create.base, 5000, &a);
    if (a.code != RPC_OK)
        fail_msg("%s: %s", name, a.message);
    free(a.data);
}

/* Goal: bounded and in the right words: a write was not submitted, a read has no leader; what is
 * wrong with a definition is said all the same. */
static void test_no_leader(void **state) {
    struct world *w = world_new(3, 1000, 256);
    Chronos__V1__GetScheduleRequest get_request = CHRONOS__V1__GET_SCHEDULE_REQUEST__INIT;
    struct request r;
    struct answer a;

    (void) state;
    fill(&r, "one");
    call(w, SERVICE "CreateSchedule", &r.create.base, 20000, &a);
    assert_int_equal(a.code, RPC_DEADLINE_EXCEEDED);
    assert_string_equal(a.message, "not submitted: no leader within 500 ms; safe to retry");
    call(w, SERVICE "UpdateSchedule", &r.update.base, 300, &a);
    assert_true(a.code == RPC_UNAVAILABLE || a.code == RPC_DEADLINE_EXCEEDED);
    r.spec.name[0] = '/';
    call(w, SERVICE "UpdateSchedule", &r.update.base, 5000, &a);
    assert_int_equal(a.code, RPC_INVALID_ARGUMENT);
    get_request.name = r.name;
    (void) snprintf(r.name, sizeof(r.name), "one");
    get_request.consistency = CHRONOS__V1__CONSISTENCY__CONSISTENCY_STALE;
    call(w, SERVICE "GetSchedule", &get_request.base, 5000, &a);
    assert_int_equal(a.code, RPC_NOT_FOUND);
    world_free(w);
}

/* Goal: clients that give up while their calls wait leave nothing behind, in every method that
 * waits; nor do those whom the node's own stop overtakes. */
static void test_clients_that_leave(void **state) {
    struct world *w = world_new(3, 1000, 256);
    Chronos__V1__GetScheduleRequest get_request = CHRONOS__V1__GET_SCHEDULE_REQUEST__INIT;
    Chronos__V1__ListSchedulesRequest list = CHRONOS__V1__LIST_SCHEDULES_REQUEST__INIT;
    Chronos__V1__TriggerScheduleRequest trigger = CHRONOS__V1__TRIGGER_SCHEDULE_REQUEST__INIT;
    Chronos__V1__ExplainRequest explain = CHRONOS__V1__EXPLAIN_REQUEST__INIT;
    struct answer a[60];
    struct request r;

    (void) state;
    fill(&r, "one");
    get_request.name = trigger.name = explain.schedule = r.name;
    for (size_t i = 0; i < ARRAY_LEN(a); i++) {
        const struct {
            const char *path;
            const ProtobufCMessage *m;
        } calls[] = {
            {SERVICE "CreateSchedule", &r.create.base}, {SERVICE "UpdateSchedule", &r.update.base},
            {SERVICE "GetSchedule", &get_request.base}, {SERVICE "ListSchedules", &list.base},
            {SERVICE "TriggerSchedule", &trigger.base}, {SERVICE "Explain", &explain.base}};

        start_call(w, calls[i % ARRAY_LEN(calls)].path, calls[i % ARRAY_LEN(calls)].m,
                   i < 30 ? 50 + i : 20000, &a[i]);
    }
    for (size_t i = 0; i < 30; i++) {
        os_test_run_until(&w->loop, is_done, &a[i]);
        assert_true(a[i].code == RPC_DEADLINE_EXCEEDED || a[i].code == RPC_UNAVAILABLE);
    }
    api_stop(w->api, 100, on_stopped, w);
    os_test_run_until(&w->loop, is_stopped, w);
    for (size_t i = 30; i < ARRAY_LEN(a); i++) {
        os_test_run_until(&w->loop, is_done, &a[i]);
        assert_int_not_equal(a[i].code, RPC_OK);
    }
    world_free(w);
}

/* ---- lists ---- */

static size_t list_all(struct world *w, Chronos__V1__ListSchedulesRequest *req, size_t *ret_pages) {
    char token[600] = "", last[200] = "";
    size_t count = 0;

    *ret_pages = 0;
    do {
        Chronos__V1__ListSchedulesResponse *resp;
        struct answer a;

        req->page_token = token;
        call(w, SERVICE "ListSchedules", &req->base, 20000, &a);
        if (a.code != RPC_OK)
            fail_msg("%s", a.message);
        resp = chronos__v1__list_schedules_response__unpack(NULL, a.len, a.data);
        assert_non_null(resp);
        assert_true(resp->index > 0);
        for (size_t i = 0; i < resp->n_schedules; i++) {
            assert_true(strcmp(last, resp->schedules[i]->spec->name) < 0); /* ordered, none twice */
            (void) snprintf(last, sizeof(last), "%s", resp->schedules[i]->spec->name);
        }
        count += resp->n_schedules;
        (*ret_pages)++;
        (void) snprintf(token, sizeof(token), "%s", resp->next_page_token);
        chronos__v1__list_schedules_response__free_unpacked(resp, NULL);
        free(a.data);
    } while (token[0] != '\0');
    return count;
}

/* Goal: a listing sees each once, whatever its slices and pages, also beside others; one whose
 * client is gone ends. Method: 3,000 schedules, which no slice of 4 ms decodes. */
static void test_lists(void **state) {
    enum { SCHEDULES = 3000 };
    Chronos__V1__ListSchedulesRequest req = CHRONOS__V1__LIST_SCHEDULES_REQUEST__INIT;
    struct world *w = world_new(1, 1000, 256);
    struct answer beside[8];
    size_t pages;

    (void) state;
    for (int i = 0; i < SCHEDULES; i++) {
        char name[32];

        (void) snprintf(name, sizeof(name), "s%d", i * 7919 % SCHEDULES);
        create(w, name);
    }
    req.page_size = 1000;
    assert_int_equal(list_all(w, &req, &pages), SCHEDULES);
    assert_in_range(pages, 3, 10); /* a slow machine may answer with short pages */
    req.name_prefix = (char *) (uintptr_t) "s29";
    assert_int_equal(list_all(w, &req, &pages), 111); /* s29, s290-s299, s2900-s2999 */
    req.name_prefix = (char *) (uintptr_t) "zz";
    assert_int_equal(list_all(w, &req, &pages), 0);
    req.name_prefix = (char *) (uintptr_t) "";
    req.page_token = (char *) (uintptr_t) "";
    req.only_alarmed = true; /* looks at all of them */
    for (size_t i = 0; i < ARRAY_LEN(beside); i++)
        start_call(w, SERVICE "ListSchedules", &req.base, i % 2 ? 20000 : 1, &beside[i]);
    for (size_t i = 0; i < ARRAY_LEN(beside); i++) {
        os_test_run_until(&w->loop, is_done, &beside[i]);
        if (i % 2)
            assert_int_equal(beside[i].code, RPC_OK);
        free(beside[i].data);
    }
    world_free(w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_leader),
        cmocka_unit_test(test_clients_that_leave),
        cmocka_unit_test(test_lists),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
