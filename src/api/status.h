/* How a replica's answer becomes a gRPC status: one table for all methods.
 * Pure. Thread: any. */
#pragma once

#include "base/err.h"
#include "base/time.h"
#include "node/replica.h"
#include "os/rpc_server.h"

enum status_kind {
    STATUS_WRITE, /* submit, cancel */
    STATUS_READ,  /* everything that changes nothing */
};

enum status_metadata {
    STATUS_NONE,
    STATUS_RETRY_AFTER,    /* "retry-after-ms" */
    STATUS_LEADER_ADDRESS, /* "leader-address", when it is known and not this node */
};

struct status_answer {
    enum rpc_code code;
    enum status_metadata metadata;
};

/* @status is not REPLICA_OK. @waited_ms: how long an answer was waited for at most; stands in the
 * text of *ret_text. */
struct status_answer status_of(enum status_kind kind, enum replica_status status,
                               uint64_t waited_ms, struct errtext *ret_text);

/* When a call that arrived @now must be answered so that its client, which gives up at
 * @client_deadline, still reads the text: 50 ms or a tenth of the time left earlier, whichever is
 * less. MONO_NEVER stays MONO_NEVER. */
struct mono status_answer_by(struct mono client_deadline, struct mono now);

/* The longest wait of a call that began at @started: the commit timeout or the client's deadline,
 * whichever is shorter, in milliseconds. */
uint64_t status_wait_ms(struct mono started, struct mono client_deadline,
                        uint64_t commit_timeout_ms);
