/* Goal: the raw twins are the public messages on the wire, and a record becomes the job it
 * describes. Method: compare the two descriptors field by field; encode a full record and read it
 * as a Job. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "api/convert.h"
#include "chronos/v1/job_service.pb-c.h"
#include "fsm/job_id.h"

static void compare(const ProtobufCMessageDescriptor *raw, const ProtobufCMessageDescriptor *public,
                    const char *bytes_field) {
    assert_int_equal(raw->n_fields, public->n_fields);
    for (unsigned i = 0; i < raw->n_fields; i++) {
        const ProtobufCFieldDescriptor *a = &raw->fields[i], *b = &public->fields[i];

        assert_int_equal(a->id, b->id);
        assert_string_equal(a->name, b->name);
        assert_int_equal(a->label, b->label);
        if (bytes_field && strcmp(a->name, bytes_field) == 0) {
            assert_int_equal(a->type, PROTOBUF_C_TYPE_BYTES);
            assert_int_equal(b->type, PROTOBUF_C_TYPE_MESSAGE);
        } else {
            assert_int_equal(a->type, b->type);
        }
    }
}

/* Goal: nobody changes one schema and forgets the other. */
static void test_twins(void **state) {
    (void) state;
    compare(&chronos__internal__v1__raw_job__descriptor, &chronos__v1__job__descriptor, "spec");
    compare(&chronos__internal__v1__raw_job_response__descriptor,
            &chronos__v1__get_job_response__descriptor, NULL);
    compare(&chronos__internal__v1__raw_job_response__descriptor,
            &chronos__v1__cancel_job_response__descriptor, NULL);
    compare(&chronos__internal__v1__raw_list_jobs_response__descriptor,
            &chronos__v1__list_jobs_response__descriptor, NULL);
}

static char *mutable(const char *s) {
    return (char *) (uintptr_t) s; /* protobuf-c has no const strings */
}

static void fill(Chronos__Internal__V1__JobRecord *rec) {
    static uint8_t spec[] = {0x12, 4, 't', 'r', 'u', 'e'}; /* shell: "true" */
    static uint8_t tail[] = "output";

    rec->spec.data = spec;
    rec->spec.len = sizeof(spec);
    rec->state = CHRONOS__V1__JOB_STATE__JOB_STATE_FAILED;
    rec->attempt = 2;
    rec->max_attempts = 3;
    rec->worker_id = mutable("w1");
    rec->fencing_token = 101;
    rec->cancel_requested = true;
    rec->created_at_ms = 102;
    rec->started_at_ms = 103;
    rec->finished_at_ms = 104;
    rec->exit_code = -7;
    rec->term_signal = 9;
    rec->failure_reason = CHRONOS__V1__FAILURE_REASON__FAILURE_REASON_TIMEOUT;
    rec->failure_message = mutable("why");
    rec->output_tail.data = tail;
    rec->output_tail.len = 6;
    rec->output_bytes = 105;
    rec->output_truncated = true;
    rec->created_index = 106;
    rec->updated_index = 107;
    rec->schedule = mutable("nightly");
    rec->tick_s = 108;
}

/* Goal: every field of the record arrives in the public message. */
static void test_record_to_job(void **state) {
    Chronos__Internal__V1__JobRecord rec = CHRONOS__INTERNAL__V1__JOB_RECORD__INIT;
    Chronos__V1__GetJobResponse *resp;
    struct bytes *b;
    Chronos__V1__Job *j;

    (void) state;
    fill(&rec);
    b = convert_job_response(33, &rec, 500);
    assert_non_null(b);
    resp = chronos__v1__get_job_response__unpack(NULL, b->len, b->data);
    assert_non_null(resp);
    assert_int_equal(resp->index, 500);
    j = resp->job;
    assert_string_equal(j->id, "j211");
    assert_int_equal(j->spec->payload_case, CHRONOS__V1__JOB_SPEC__PAYLOAD_SHELL);
    assert_string_equal(j->spec->shell, "true");
    assert_int_equal(j->state, rec.state);
    assert_int_equal(j->attempt, 2);
    assert_string_equal(j->worker_id, "w1");
    assert_int_equal(j->fencing_token, 101);
    assert_true(j->cancel_requested);
    assert_int_equal(j->created_at_ms, 102);
    assert_int_equal(j->started_at_ms, 103);
    assert_int_equal(j->finished_at_ms, 104);
    assert_int_equal(j->exit_code, -7);
    assert_int_equal(j->term_signal, 9);
    assert_int_equal(j->failure_reason, rec.failure_reason);
    assert_string_equal(j->failure_message, "why");
    assert_int_equal(j->output_tail.len, 6);
    assert_int_equal(j->output_bytes, 105);
    assert_true(j->output_truncated);
    assert_int_equal(j->created_index, 106);
    assert_string_equal(j->schedule, "nightly");
    assert_int_equal(j->tick_ms, 108000);
    assert_int_equal(j->updated_index, 107);
    chronos__v1__get_job_response__free_unpacked(resp, NULL);
    (void) bytes_unref(b);
}

/* Goal: an event keeps all that it says. */
static void test_event(void **state) {
    const struct fsm_event ev = {
        .job_seq = 1,
        .from = CHRONOS__V1__JOB_STATE__JOB_STATE_RUNNING,
        .to = CHRONOS__V1__JOB_STATE__JOB_STATE_FAILED,
        .attempt = 3,
        .worker_id = "w9",
        .fencing_token = 44,
        .cancel_requested = true,
        .failure_reason = CHRONOS__V1__FAILURE_REASON__FAILURE_REASON_SIGNAL,
        .exit_code = 1,
        .term_signal = 11,
    };
    Chronos__V1__JobEvent out;
    char id[JOB_ID_BYTES_MAX];

    (void) state;
    convert_event(77, 88, &ev, id, &out);
    assert_int_equal(out.index, 77);
    assert_int_equal(out.at_ms, 88);
    assert_string_equal(out.job_id, "j11");
    assert_int_equal(out.from, ev.from);
    assert_int_equal(out.to, ev.to);
    assert_int_equal(out.attempt, 3);
    assert_string_equal(out.worker_id, "w9");
    assert_int_equal(out.fencing_token, 44);
    assert_true(out.cancel_requested);
    assert_int_equal(out.failure_reason, ev.failure_reason);
    assert_int_equal(out.exit_code, 1);
    assert_int_equal(out.term_signal, 11);
}

/* Goal: exactly the three ended states are terminal, and each state has its name. */
static void test_states(void **state) {
    (void) state;
    for (int s = 0; s <= CHRONOS__V1__JOB_STATE__JOB_STATE_CANCELLED; s++) {
        const ProtobufCEnumValue *v =
            protobuf_c_enum_descriptor_get_value(&chronos__v1__job_state__descriptor, s);

        assert_non_null(v);
        assert_string_equal(v->name + strlen("JOB_STATE_"),
                            convert_state_name((Chronos__V1__JobState) s));
        assert_int_equal(convert_is_terminal((Chronos__V1__JobState) s),
                         s >= CHRONOS__V1__JOB_STATE__JOB_STATE_COMPLETED);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_twins),
        cmocka_unit_test(test_record_to_job),
        cmocka_unit_test(test_event),
        cmocka_unit_test(test_states),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
