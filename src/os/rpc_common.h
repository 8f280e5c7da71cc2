/* What the gRPC server and client share: the pump, the stream write queue and message helpers.
 *
 * What it is: the pump owns a completion queue and the one thread that sits in
 * grpc_completion_queue_next(); every completion travels as an intrusive struct rpc_event to the
 * owner's loop. The write queue bounds what a stream holds back while gRPC flow control says no.
 * What it is not: it knows no server, channel or call.
 * Invariants: an event that was handed to gRPC as a tag is counted in pump.pending until its
 * function has been called on the loop; the pump's memory lives until libuv has closed its handle,
 * so a callback may free the object that owns the pump.
 * Thread: the pump's thread touches only the atomic members and `wake`; all else is the loop's.
 */
#pragma once

#include "base/bytes.h"
#include "base/err.h"
#include "os/wake.h"

#include <grpc/grpc.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>

/* A tag given to gRPC. Embedded in its object, so that a completion needs no allocation. */
struct rpc_event {
    struct rpc_event *next;
    void (*fn)(struct rpc_event *e, bool ok); /* on the loop */
    bool lazy; /* set before it is lent: it may wait for an event that is not, or for a collect */
    bool ok;   /* written by the pump's thread before the push */
    /* gRPC holds the tag. Release and acquire here order the loop's last writes before the pump's
     * thread touches the event: gRPC does so too, but neither promises it nor lets a tool see it.
     */
    atomic_bool lent;
};

struct rpc_pump {
    struct wake loop_wake;
    grpc_completion_queue *cq; /* owned */
    pthread_t thread;
    _Atomic(struct rpc_event *) incoming; /* newest first */
    atomic_bool signalled;                /* the loop has been woken and has not looked yet */
    atomic_bool eager;                    /* no event waits any more */
    atomic_bool waiting;                  /* rpc_pump_drain sleeps on `wake` */
    sem_t wake;
    struct rpc_event *ready; /* oldest first; loop only */
    struct rpc_event **ready_tail;
    size_t pending; /* tags gRPC holds or events not yet delivered; loop only */
    bool closed;    /* rpc_pump_free was called, possibly by a callback further up the stack */
};

/* Start the thread. grpc_init must have been called. @name at most 15 bytes. */
int rpc_pump_new(uv_loop_t *loop, const char *name, struct rpc_pump **ret,
                 struct errtext *reterr) _must_check_;
/* Register @e as the tag of an operation that is about to start. */
static inline void *rpc_pump_tag(struct rpc_pump *p, struct rpc_event *e) {
    ASSERT(!atomic_load_explicit(&e->lent, memory_order_relaxed));
    p->pending++;
    atomic_store_explicit(&e->lent, true, memory_order_release);
    return e;
}
/* Deliver what has arrived, lazy or not; on the loop, not from inside a callback. */
void rpc_pump_collect(struct rpc_pump *p);
/* From now on no event is lazy; those that waited come with the next loop turn. */
void rpc_pump_set_eager(struct rpc_pump *p);
/* Deliver events in this thread, sleeping in between, until gRPC holds no tag any more. The caller
 * has cancelled whatever could stay open for ever. */
void rpc_pump_drain(struct rpc_pump *p);
/* No tag may be pending. Joins the thread; the memory goes when libuv has closed the handle.
 * NULL allowed; returns NULL. */
struct rpc_pump *rpc_pump_free(struct rpc_pump *p);

/* Messages of one stream that wait for gRPC to accept the one in flight. */
struct rpc_writeq {
    struct bytes **ring; /* owned references */
    size_t cap;          /* power of two, or 0 */
    size_t head;
    size_t count;
    size_t bytes;
    size_t bytes_max; /* soft bound: above it the writer is told to wait */
    bool blocked;     /* the writer was told to wait and expects on_writable */
};

/* A writer that ignores the soft bound is cut off at this multiple of it. */
#define RPC_WRITEQ_HARD_FACTOR 16

/* Queue a reference of @b. 0; 1 = above the soft bound; -ENOMEM or ERR_LIMIT (not queued). */
int rpc_writeq_push(struct rpc_writeq *q, struct bytes *b) _must_check_;
/* The oldest message; its reference moves to the caller. NULL when empty. */
struct bytes *rpc_writeq_pop(struct rpc_writeq *q);
/* True once after the queue has fallen to half its bound with a waiting writer. */
bool rpc_writeq_unblocked(struct rpc_writeq *q);
/* Drop the messages; the ring stays for the next user of the object. */
void rpc_writeq_clear(struct rpc_writeq *q);
void rpc_writeq_done(struct rpc_writeq *q);

/* A received message as one run of bytes. */
struct rpc_message {
    grpc_byte_buffer *raw; /* owned; gRPC fills it */
    grpc_slice flat;       /* owned when is_flat: several slices joined */
    bool is_flat;
};

/* View the message; copies only when it came in several slices. Valid until rpc_message_clear.
 * False when it is compressed: the limits hold for what was sent, so nothing is unpacked here. */
bool rpc_message_view(struct rpc_message *m, struct slice *ret) _must_check_;
void rpc_message_clear(struct rpc_message *m);

/* Fill the reusable buffer *@bb (created on first use) with a copy of @data. A copy, because
 * gRPC drops slices on threads of its own, where a struct bytes may not be touched. */
void rpc_buffer_fill(grpc_byte_buffer **bb, struct slice data);

/* A NUL-terminated copy of @s in the call's arena: lives until the call is unreferenced. */
char *rpc_slice_text(grpc_call *call, grpc_slice s);

/* Channel arguments. */
grpc_arg rpc_arg_int(const char *key, int value);

/* The process's gRPC library: counted, so one for each server and client. */
void rpc_library_ref(void);
void rpc_library_unref(void);
