/* The client's calls, between rpc_client.c (channels, unary) and rpc_stream.c (streams).
 * Private to os/. Thread: the loop's. */
#pragma once

#include "base/map.h"
#include "os/rpc_client.h"
#include "os/rpc_common.h"

/* What a unary call and a stream have in common: a member of its channel's list, and the answer. */
struct rpc_task {
    struct rpc_task *prev, *next; /* in the channel's list while the caller awaits an answer */
    struct rpc_client *client;
    struct rpc_channel *channel;         /* NULL once answered */
    void (*abandon)(struct rpc_task *t); /* answer CANCELLED now: the channel goes away */
    grpc_call *call;                     /* owned */
    grpc_metadata_array headers;         /* arrays kept between uses, elements owned by `call` */
    grpc_metadata_array trailers;
    grpc_status_code status;
    grpc_slice status_text; /* owned while has_text */
    bool has_text;
    unsigned holds; /* operations gRPC holds, and callback frames on the stack */
};

/* Make the gRPC call and enter the channel's list. -ENOMEM. */
int rpc_task_begin(struct rpc_task *t, struct rpc_channel *ch, const char *path,
                   uint64_t timeout_ms) _must_check_;
/* Leave the channel's list: the answer is about to be given. */
void rpc_task_leave(struct rpc_task *t);
/* Drop what belongs to the call, for reuse or release. */
void rpc_task_reset(struct rpc_task *t);
void rpc_task_start(struct rpc_task *t, const grpc_op *ops, size_t count, struct rpc_event *tag);
grpc_op rpc_task_op_initial(const struct rpc_task *t, bool wait_ready);
grpc_op rpc_task_op_headers(struct rpc_task *t);
grpc_op rpc_task_op_status(struct rpc_task *t);
/* The status as the caller sees it; texts live in the call. */
void rpc_task_result(struct rpc_task *t, struct rpc_result *ret);

/* Bracket every callback: it may free the channel or the client. */
void rpc_client_enter(struct rpc_client *c);
void rpc_client_leave(struct rpc_client *c);
