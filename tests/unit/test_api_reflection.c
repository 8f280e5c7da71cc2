/* Goal: reflection finds every service, file and symbol of the public schemas with what they
 * import, says NOT_FOUND for the rest, and survives damaged descriptors and no memory. Method:
 * questions against the compiled-in descriptors; truncations and damage of the set itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "api/reflection.h"
#include "base/rand.h"
#include "nth_memory.h"
#include "proto_descriptors.h"

struct world {
    struct reflection *r;
    struct arena arena;
    Grpc__Reflection__V1__ServerReflectionRequest req;
    Grpc__Reflection__V1__ServerReflectionResponse resp;
};

static int open_world(void **state) {
    struct world *w = calloc(1, sizeof(*w));
    struct errtext e;

    assert_non_null(w);
    arena_init(&w->arena, 8 * 1024 * 1024);
    assert_int_equal(reflection_new(slice_of(proto_descriptors, proto_descriptors_len), &w->r, &e),
                     0);
    *state = w;
    return 0;
}

static int close_world(void **state) {
    struct world *w = *state;

    (void) reflection_free(w->r);
    arena_done(&w->arena);
    free(w);
    return 0;
}

static void ask(struct world *w) {
    grpc__reflection__v1__server_reflection_response__init(&w->resp);
    assert_int_equal(reflection_answer(w->r, &w->req, &w->arena, &w->resp), 0);
    assert_ptr_equal(w->resp.original_request, &w->req);
    assert_true(protobuf_c_message_check(&w->resp.base));
}

static void ask_symbol(struct world *w, const char *name) {
    grpc__reflection__v1__server_reflection_request__init(&w->req);
    w->req.message_request_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_SYMBOL;
    w->req.file_containing_symbol = (char *) (uintptr_t) name;
    ask(w);
}

static void ask_file(struct world *w, const char *name) {
    grpc__reflection__v1__server_reflection_request__init(&w->req);
    w->req.message_request_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_BY_FILENAME;
    w->req.file_by_filename = (char *) (uintptr_t) name;
    ask(w);
}

/* True when file @at of the answer has @name as its first field. */
static bool answer_is(const struct world *w, size_t at, const char *name) {
    const ProtobufCBinaryData *d = &w->resp.file_descriptor_response->file_descriptor_proto[at];

    return d->len > strlen(name) + 2 && d->data[0] == 0x0a && d->data[1] == strlen(name) &&
           memcmp(d->data + 2, name, strlen(name)) == 0;
}

/* Goal: all services are listed. */
static void test_services(void **state) {
    static const char *const names[] = {
        "chronos.v1.JobService",
        "chronos.v1.ClusterService",
        "chronos.v1.WorkerService",
        "chronos.v1.ScheduleService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    };
    struct world *w = *state;

    grpc__reflection__v1__server_reflection_request__init(&w->req);
    w->req.message_request_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_LIST_SERVICES;
    w->req.list_services = (char *) (uintptr_t) "*";
    ask(w);
    assert_int_equal(w->resp.list_services_response->n_service, ARRAY_LEN(names));
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        assert_true(reflection_has_service(w->r, names[i]));
    assert_false(reflection_has_service(w->r, "chronos.v1.Job"));
}

/* Goal: each kind of symbol leads to its file; the internal schemas stay inside. */
static void test_symbols(void **state) {
    static const char *const there[] = {
        "chronos.v1.Job",
        "chronos.v1.Job.output_tail",
        "chronos.v1.JobSpec.payload",
        "chronos.v1.JobSpec.EnvEntry",
        "chronos.v1.JobSpec.EnvEntry.key",
        "chronos.v1.JobState",
        "chronos.v1.JOB_STATE_RUNNING",
    };
    static const char *const missing[] = {
        "",
        "chronos",
        "chronos.v1",
        "chronos.v1.Jo",
        ".chronos.v1.Job",
        "chronos.internal.v1.JobRecord",
        "chronos.v1.JobState.JOB_STATE_RUNNING",
    };
    struct world *w = *state;

    for (size_t i = 0; i < ARRAY_LEN(there); i++) {
        ask_symbol(w, there[i]);
        assert_int_equal(
            w->resp.message_response_case,
            GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_FILE_DESCRIPTOR_RESPONSE);
        assert_true(answer_is(w, 0, "chronos/v1/job.proto"));
    }
    for (size_t i = 0; i < ARRAY_LEN(missing); i++) {
        ask_symbol(w, missing[i]);
        assert_int_equal(
            w->resp.message_response_case,
            GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_ERROR_RESPONSE);
        assert_int_equal(w->resp.error_response->error_code, 5);
    }
    ask_symbol(w, "chronos.v1.JobService.SubmitJob");
    assert_true(answer_is(w, 0, "chronos/v1/job_service.proto"));
    ask_symbol(w, "grpc.health.v1.HealthCheckResponse.ServingStatus");
    assert_true(answer_is(w, 0, "grpc/health/v1/health.proto"));
}

/* Goal: a file brings all it imports, each once. */
static void test_files(void **state) {
    struct world *w = *state;

    ask_file(w, "chronos/v1/job_service.proto");
    assert_int_equal(w->resp.file_descriptor_response->n_file_descriptor_proto, 2);
    assert_true(answer_is(w, 0, "chronos/v1/job_service.proto"));
    assert_true(answer_is(w, 1, "chronos/v1/job.proto"));
    ask_file(w, "chronos/v1/job.proto");
    assert_int_equal(w->resp.file_descriptor_response->n_file_descriptor_proto, 1);
    ask_file(w, "chronos/v1/nothing.proto");
    assert_int_equal(w->resp.error_response->error_code, 5);
}

/* Goal: extensions and an empty question are answered by errors, not by silence. */
static void test_other_requests(void **state) {
    struct world *w = *state;

    grpc__reflection__v1__server_reflection_request__init(&w->req);
    ask(w);
    assert_int_equal(w->resp.error_response->error_code, 3);
    w->req.message_request_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_ALL_EXTENSION_NUMBERS_OF_TYPE;
    w->req.all_extension_numbers_of_type = (char *) (uintptr_t) "chronos.v1.Job";
    ask(w);
    assert_int_equal(w->resp.error_response->error_code, 5);
}

/* Goal: damaged descriptor sets are refused or indexed, never a crash. */
static void test_damaged_sets(void **state) {
    struct rng rng = rng_seed(3);
    uint8_t *copy = malloc(proto_descriptors_len);
    size_t refused = 0;

    (void) state;
    print_message("seed 3\n");
    assert_non_null(copy);
    for (int i = 0; i < 400; i++) {
        size_t len = i % 2 ? rng_below(&rng, proto_descriptors_len) : proto_descriptors_len;
        struct reflection *r = NULL;

        memcpy(copy, proto_descriptors, proto_descriptors_len);
        if (len == proto_descriptors_len)
            copy[rng_below(&rng, len)] ^= (uint8_t) (1 + rng_below(&rng, 255));
        if (reflection_new(slice_of(copy, len), &r, NULL) == 0)
            (void) reflection_free(r);
        else
            refused++;
    }
    assert_true(refused > 0);
    free(copy);
}

static int build(void *arg) {
    struct reflection *x = NULL;
    int r = reflection_new(slice_of(proto_descriptors, proto_descriptors_len), &x, NULL);

    (void) arg;
    assert_true((r == 0) == (x != NULL));
    (void) reflection_free(x);
    return r;
}

/* Goal: building the index survives each allocation failing once. */
static void test_out_of_memory(void **state) {
    (void) state;
    assert_true(nth_memory_loop(build, NULL) > 10);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_services, open_world, close_world),
        cmocka_unit_test_setup_teardown(test_symbols, open_world, close_world),
        cmocka_unit_test_setup_teardown(test_files, open_world, close_world),
        cmocka_unit_test_setup_teardown(test_other_requests, open_world, close_world),
        cmocka_unit_test(test_damaged_sets),
        cmocka_unit_test(test_out_of_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
