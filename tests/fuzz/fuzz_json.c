/* Any message as JSON: what unpacks is printed as text that a strict reader takes back to the same
 * value; any bytes as a JSON string are valid UTF-8. The first byte chooses. */
#include "fuzz.h"

#include "api/message_check.h"
#include "cli/json.h"

#include "chronos/v1/cluster_service.pb-c.h"
#include "chronos/v1/job_service.pb-c.h"
#include "chronos/v1/schedule_service.pb-c.h"
#include "chronos/v1/worker_service.pb-c.h"

#include <stdlib.h>

static const ProtobufCMessageDescriptor *const kinds[] = {
    &chronos__v1__get_job_response__descriptor,
    &chronos__v1__list_jobs_response__descriptor,
    &chronos__v1__watch_jobs_response__descriptor,
    &chronos__v1__get_cluster_status_response__descriptor,
    &chronos__v1__list_log_entries_response__descriptor,
    &chronos__v1__schedule_response__descriptor,
    &chronos__v1__list_schedules_response__descriptor,
    &chronos__v1__preview_schedule_response__descriptor,
    &chronos__v1__list_ticks_response__descriptor,
    &chronos__v1__explain_response__descriptor,
    &chronos__v1__submit_jobs_request__descriptor,
    &chronos__v1__worker_message__descriptor,
    &chronos__v1__node_message__descriptor,
};

static void print_and_read(json_t *j) {
    char *text = json_dumps(j, JSON_COMPACT | JSON_ENCODE_ANY);
    json_error_t error;
    json_t *back;

    ASSERT(text);
    back = json_loads(text, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);
    ASSERT(back);
    ASSERT(json_equal(j, back));
    json_decref(back);
    free(text);
}

static void message(const ProtobufCMessageDescriptor *d, struct slice in) {
    ProtobufCMessage *m = protobuf_c_message_unpack(d, NULL, in.len, in.data);
    json_t *j;

    if (!m)
        return;
    j = json_from_message(m);
    ASSERT(j && json_is_object(j));
    print_and_read(j);
    json_decref(j);
    protobuf_c_message_free_unpacked(m, NULL);
}

static void text(struct slice in) {
    json_t *j = json_text(in.data, in.len);
    struct slice s;

    ASSERT(j && json_is_string(j));
    s = slice_of(json_string_value(j), json_string_length(j));
    ASSERT(message_check_text(s));
    /* Text that is well-formed stays as it is. */
    if (message_check_text(in))
        ASSERT(s.len == in.len && (in.len == 0 || memcmp(s.data, in.data, in.len) == 0));
    print_and_read(j);
    json_decref(j);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct slice in = slice_of(data, size);
    uint8_t which = fuzz_u8(&in);

    if (which % 16 < ARRAY_LEN(kinds))
        message(kinds[which % 16], in);
    else
        text(in);
    return 0;
}
