#include "api/status.h"

#include <inttypes.h>
#include <stdio.h>

/* Where a duration belongs in a text. */
#define STATUS_TRAVEL_NS (50 * NS_PER_MS) /* an answer's way to its client */
#define STATUS_WAIT_MARK '@'

struct status_row {
    enum rpc_code code;
    enum status_metadata metadata;
    const char *text;
};

/* The wording is part of the contract: clients tell "outcome unknown" from "not submitted" by it,
 * and only the first needs an idempotency key to be retried (reliability.md J3). */
static const struct status_row status_rows[2][REPLICA_NO_SPACE + 1] = {
    [STATUS_WRITE] =
        {
            [REPLICA_OK] = {RPC_INTERNAL, STATUS_NONE, "no failure"},
            [REPLICA_FULL] = {RPC_RESOURCE_EXHAUSTED, STATUS_RETRY_AFTER,
                              "not submitted: too many pending proposals; safe to retry"},
            [REPLICA_NO_LEADER] = {RPC_DEADLINE_EXCEEDED, STATUS_NONE,
                                   "not submitted: no leader within @; safe to retry"},
            [REPLICA_UNKNOWN] = {RPC_DEADLINE_EXCEEDED, STATUS_NONE,
                                 "outcome unknown: the cluster did not confirm within @; "
                                 "retry with the same idempotency key"},
            [REPLICA_STOPPING] = {RPC_UNAVAILABLE, STATUS_LEADER_ADDRESS,
                                  "outcome unknown: this node is stopping; retry at another node "
                                  "with the same idempotency key"},
            [REPLICA_REFUSED] = {RPC_INTERNAL, STATUS_NONE, "the write was refused"},
            [REPLICA_NO_SPACE] = {RPC_RESOURCE_EXHAUSTED, STATUS_RETRY_AFTER,
                                  "not submitted: the disk is nearly full and what is free is "
                                  "reserved for running work; safe to retry once there is room"},
        },
    [STATUS_READ] =
        {
            [REPLICA_OK] = {RPC_INTERNAL, STATUS_NONE, "no failure"},
            [REPLICA_FULL] = {RPC_RESOURCE_EXHAUSTED, STATUS_RETRY_AFTER,
                              "too many pending reads; safe to retry"},
            [REPLICA_NO_LEADER] = {RPC_UNAVAILABLE, STATUS_LEADER_ADDRESS,
                                   "no leader within @, which a linearizable read needs; safe to "
                                   "retry, or read with CONSISTENCY_STALE"},
            [REPLICA_UNKNOWN] = {RPC_DEADLINE_EXCEEDED, STATUS_NONE,
                                 "no answer within @; safe to retry"},
            [REPLICA_STOPPING] = {RPC_UNAVAILABLE, STATUS_LEADER_ADDRESS,
                                  "this node is stopping; retry at another node"},
            [REPLICA_REFUSED] = {RPC_UNAVAILABLE, STATUS_NONE,
                                 "the node that has the answer cannot be reached; safe to retry"},
            [REPLICA_NO_SPACE] = {RPC_INTERNAL, STATUS_NONE, "reads need no space"},
        },
};

static void put_wait(uint64_t ms, char out[32]) {
    if (ms >= 1000 && ms % 1000 == 0)
        (void) snprintf(out, 32, "%" PRIu64 " s", ms / 1000);
    else
        (void) snprintf(out, 32, "%" PRIu64 " ms", ms);
}

struct status_answer status_of(enum status_kind kind, enum replica_status status,
                               uint64_t waited_ms, struct errtext *ret_text) {
    const struct status_row *row;
    const char *mark;
    char wait[32];

    ASSERT(status != REPLICA_OK);
    ASSERT((size_t) status < ARRAY_LEN(status_rows[0]));
    ASSERT((size_t) kind < ARRAY_LEN(status_rows));
    row = &status_rows[kind][status];
    mark = row->text;
    while (*mark && *mark != STATUS_WAIT_MARK)
        mark++;
    put_wait(waited_ms, wait);
    errtext_set(ret_text, "%.*s%s%s", (int) (mark - row->text), row->text, *mark ? wait : "",
                *mark ? mark + 1 : "");
    return (struct status_answer){.code = row->code, .metadata = row->metadata};
}

struct mono status_answer_by(struct mono client_deadline, struct mono now) {
    uint64_t left_ns = mono_diff_ns(client_deadline, now);

    if (client_deadline.ns == MONO_NEVER.ns)
        return client_deadline;
    return (struct mono){client_deadline.ns - MIN(left_ns / 10, STATUS_TRAVEL_NS)};
}

uint64_t status_wait_ms(struct mono started, struct mono client_deadline,
                        uint64_t commit_timeout_ms) {
    uint64_t client_ms = mono_diff_ns(client_deadline, started) / NS_PER_MS;

    return MIN(client_ms, commit_timeout_ms);
}
