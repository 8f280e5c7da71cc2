/* Commands of the log, encoded as replica_propose() takes them, for the tests of node/. */
#pragma once

#include "fsm/command.h"

_unused_ static struct bytes *log_command(const Chronos__Internal__V1__LogCommand *cmd) {
    struct bytes *command = NULL;

    assert_int_equal(command_encode(cmd, &command), 0);
    return command;
}

/* One job of three attempts at most, its specification taken as it is; @key "": none. */
_unused_ static struct bytes *log_submit(struct slice spec, const char *key) {
    Chronos__Internal__V1__LogCommand cmd = CHRONOS__INTERNAL__V1__LOG_COMMAND__INIT;
    Chronos__Internal__V1__SubmitJob body = CHRONOS__INTERNAL__V1__SUBMIT_JOB__INIT;
    Chronos__Internal__V1__SubmitJobItem item = CHRONOS__INTERNAL__V1__SUBMIT_JOB_ITEM__INIT;
    Chronos__Internal__V1__SubmitJobItem *items[] = {&item};
    char queue[] = "default";

    item.spec.data = (uint8_t *) (uintptr_t) spec.data; /* protobuf-c has no const */
    item.spec.len = spec.len;
    item.idempotency_key = (char *) (uintptr_t) key;
    item.max_attempts = 3;
    item.queue = queue;
    body.items = items;
    body.n_items = 1;
    cmd.body_case = CHRONOS__INTERNAL__V1__LOG_COMMAND__BODY_SUBMIT_JOB;
    cmd.submit_job = &body;
    return log_command(&cmd);
}

_unused_ static struct bytes *log_cancel(uint64_t job_seq) {
    Chronos__Internal__V1__LogCommand cmd = CHRONOS__INTERNAL__V1__LOG_COMMAND__INIT;
    Chronos__Internal__V1__CancelJob body = CHRONOS__INTERNAL__V1__CANCEL_JOB__INIT;
    Chronos__Internal__V1__CancelJobItem item = CHRONOS__INTERNAL__V1__CANCEL_JOB_ITEM__INIT;
    Chronos__Internal__V1__CancelJobItem *items[] = {&item};

    item.job_seq = job_seq;
    body.items = items;
    body.n_items = 1;
    cmd.body_case = CHRONOS__INTERNAL__V1__LOG_COMMAND__BODY_CANCEL_JOB;
    cmd.cancel_job = &body;
    return log_command(&cmd);
}

/* Of node @node_id, or with 0 of @worker. */
_unused_ static struct bytes *log_drain(uint64_t node_id, const char *worker, bool on,
                                        int64_t timeout_ms) {
    Chronos__Internal__V1__LogCommand cmd = CHRONOS__INTERNAL__V1__LOG_COMMAND__INIT;
    Chronos__Internal__V1__Drain body = CHRONOS__INTERNAL__V1__DRAIN__INIT;

    body.node_id = node_id;
    body.worker_id = (char *) (uintptr_t) worker;
    body.on = on;
    body.timeout_ms = timeout_ms;
    cmd.body_case = CHRONOS__INTERNAL__V1__LOG_COMMAND__BODY_DRAIN;
    cmd.drain = &body;
    return log_command(&cmd);
}
