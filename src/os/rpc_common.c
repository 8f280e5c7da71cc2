/* The pump from gRPC's completion queue to a libuv loop, and message helpers. See rpc_common.h. */
#include "os/rpc_common.h"

#include <errno.h>
#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/slice_buffer.h>
#include <grpc/support/log.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#define PUMP_STACK_BYTES (1024 * 1024)
#define WRITEQ_CAP_MIN 16
#define WRITEQ_CAP_MAX ((size_t) 1 << 20)

/* The loop is woken by the first push that is not lazy since it last looked: one wake-up serves
 * every event pushed until then. A lazy event (the end of an answered call) needs nobody's
 * attention; a wake-up of its own would cost a loop turn in the middle of the next call. */
static void pump_push(struct rpc_pump *p, struct rpc_event *e) {
    struct rpc_event *old = atomic_load_explicit(&p->incoming, memory_order_relaxed);
    bool lazy = e->lazy; /* once pushed, the loop may free it */

    do {
        e->next = old;
    } while (!atomic_compare_exchange_weak(&p->incoming, &old, e));
    if ((lazy && !atomic_load(&p->eager)) || atomic_exchange(&p->signalled, true))
        return;
    /* `waiting` is set before the drain empties the list: a push that comes later sees it. */
    if (atomic_load(&p->waiting))
        (void) sem_post(&p->wake);
    else
        wake_send(&p->loop_wake);
}

static void *pump_main(void *arg) {
    struct rpc_pump *p = (struct rpc_pump *) arg;

    for (;;) {
        grpc_event ev =
            grpc_completion_queue_next(p->cq, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
        struct rpc_event *e = NULL;

        if (ev.type == GRPC_QUEUE_SHUTDOWN)
            return NULL;
        if (ev.type != GRPC_OP_COMPLETE)
            continue;
        e = (struct rpc_event *) ev.tag;
        ASSERT(atomic_load_explicit(&e->lent, memory_order_acquire));
        atomic_store_explicit(&e->lent, false, memory_order_relaxed);
        e->ok = ev.success != 0;
        pump_push(p, e);
    }
}

/* Move everything that has arrived to the ready list, oldest first. */
static void pump_take(struct rpc_pump *p) {
    struct rpc_event *list, *last;
    struct rpc_event *first = NULL;

    /* First: a push after the exchange below wakes the loop again. */
    atomic_store(&p->signalled, false);
    list = last = atomic_exchange(&p->incoming, NULL);
    if (!list)
        return;
    while (list) {
        struct rpc_event *next = list->next;

        list->next = first;
        first = list;
        list = next;
    }
    *p->ready_tail = first;
    p->ready_tail = &last->next;
}

/* Deliver what is ready. The list is a member, not a local: a callback that drains or frees the
 * owner further down the stack continues the same list, and nothing is delivered twice. */
static void pump_deliver(struct rpc_pump *p) {
    struct rpc_event *e = NULL;

    while (!p->closed && (e = p->ready)) {
        p->ready = e->next;
        if (!p->ready)
            p->ready_tail = &p->ready;
        ASSERT(p->pending > 0);
        p->pending--;
        e->fn(e, e->ok);
    }
}

static void on_wake(struct wake *w) {
    struct rpc_pump *p = CONTAINER_OF(w, struct rpc_pump, loop_wake);

    rpc_pump_collect(p);
}

void rpc_pump_collect(struct rpc_pump *p) {
    pump_take(p);
    pump_deliver(p);
}

void rpc_pump_set_eager(struct rpc_pump *p) {
    atomic_store(&p->eager, true);
    wake_send(&p->loop_wake);
}

/* Signals belong to the loop's thread, which has the handlers; this one only waits. */
static int pump_start_thread(struct rpc_pump *p, const char *name) {
    pthread_attr_t attr;
    sigset_t all, old;
    int r = pthread_attr_init(&attr);

    if (r != 0)
        return -r;
    (void) pthread_attr_setstacksize(&attr, PUMP_STACK_BYTES);
    (void) sigfillset(&all);
    (void) pthread_sigmask(SIG_SETMASK, &all, &old);
    r = pthread_create(&p->thread, &attr, pump_main, p);
    (void) pthread_sigmask(SIG_SETMASK, &old, NULL);
    (void) pthread_attr_destroy(&attr);
    if (r == 0)
        (void) pthread_setname_np(p->thread, name);
    return -r;
}

static void on_closed(struct wake *w) {
    struct rpc_pump *p = CONTAINER_OF(w, struct rpc_pump, loop_wake);

    (void) sem_destroy(&p->wake);
    free(p);
}

static void pump_close_cq(struct rpc_pump *p) {
    if (!p->cq)
        return;
    grpc_completion_queue_shutdown(p->cq);
    if (p->thread)
        (void) pthread_join(p->thread, NULL);
    else
        while (grpc_completion_queue_next(p->cq, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL).type !=
               GRPC_QUEUE_SHUTDOWN) {
        }
    grpc_completion_queue_destroy(p->cq);
    p->cq = NULL;
}

int rpc_pump_new(uv_loop_t *loop, const char *name, struct rpc_pump **ret, struct errtext *reterr) {
    struct rpc_pump *p = calloc(1, sizeof(*p));
    int r = 0;

    ASSERT(loop);
    ASSERT(ret);
    if (!p)
        return -ENOMEM;
    p->ready_tail = &p->ready;
    r = sem_init(&p->wake, 0, 0) < 0 ? -errno : wake_init(loop, &p->loop_wake, on_wake);
    if (r < 0) {
        errtext_set(reterr, "cannot create a wake-up handle: %s", strerror(-r));
        free(p);
        return r;
    }
    p->cq = grpc_completion_queue_create_for_next(NULL);
    r = p->cq ? pump_start_thread(p, name) : -ENOMEM;
    if (r < 0) {
        errtext_set(reterr, "cannot start the gRPC thread: %s", strerror(-r));
        p->thread = 0;
        (void) rpc_pump_free(p);
        return r;
    }
    *ret = p;
    return 0;
}

void rpc_pump_drain(struct rpc_pump *p) {
    ASSERT(!p->closed);
    atomic_store(&p->eager, true);
    atomic_store(&p->waiting, true);
    for (;;) {
        pump_take(p);
        pump_deliver(p);
        if (p->closed || p->pending == 0)
            break;
        while (sem_wait(&p->wake) < 0 && errno == EINTR) {
        }
    }
    atomic_store(&p->waiting, false);
}

struct rpc_pump *rpc_pump_free(struct rpc_pump *p) {
    if (!p)
        return NULL;
    ASSERT(!p->closed);
    ASSERT(p->pending == 0);
    p->closed = true;
    pump_close_cq(p);
    wake_close(&p->loop_wake, on_closed);
    return NULL;
}

static int writeq_grow(struct rpc_writeq *q) {
    size_t cap = q->cap ? q->cap * 2 : WRITEQ_CAP_MIN;
    struct bytes **ring = NULL;

    if (cap > WRITEQ_CAP_MAX)
        return ERR_LIMIT;
    ring = (struct bytes **) calloc(cap, sizeof(*ring));
    if (!ring)
        return -ENOMEM;
    for (size_t i = 0; i < q->count; i++)
        ring[i] = q->ring[(q->head + i) & (q->cap - 1)];
    free(q->ring);
    q->ring = ring;
    q->cap = cap;
    q->head = 0;
    return 0;
}

int rpc_writeq_push(struct rpc_writeq *q, struct bytes *b) {
    ASSERT(b);
    if (q->count > 0 && q->bytes + b->len > q->bytes_max * RPC_WRITEQ_HARD_FACTOR)
        return ERR_LIMIT;
    if (q->count == q->cap) {
        int r = writeq_grow(q);
        if (r < 0)
            return r;
    }
    q->ring[(q->head + q->count) & (q->cap - 1)] = bytes_ref(b);
    q->count++;
    q->bytes += b->len;
    if (q->bytes <= q->bytes_max)
        return 0;
    q->blocked = true;
    return 1;
}

struct bytes *rpc_writeq_pop(struct rpc_writeq *q) {
    struct bytes *b = NULL;

    if (q->count == 0)
        return NULL;
    b = q->ring[q->head];
    q->ring[q->head] = NULL;
    q->head = (q->head + 1) & (q->cap - 1);
    q->count--;
    ASSERT(q->bytes >= b->len);
    q->bytes -= b->len;
    return b;
}

bool rpc_writeq_unblocked(struct rpc_writeq *q) {
    if (!q->blocked || q->bytes > q->bytes_max / 2)
        return false;
    q->blocked = false;
    return true;
}

void rpc_writeq_clear(struct rpc_writeq *q) {
    struct bytes *b = NULL;

    while ((b = rpc_writeq_pop(q)))
        (void) bytes_unref(b);
    ASSERT(q->bytes == 0);
    q->blocked = false;
}

void rpc_writeq_done(struct rpc_writeq *q) {
    rpc_writeq_clear(q);
    free(q->ring);
    *q = (struct rpc_writeq){0};
}

bool rpc_message_view(struct rpc_message *m, struct slice *ret) {
    grpc_slice_buffer *sb = NULL;
    grpc_byte_buffer_reader reader;

    ASSERT(m->raw);
    ASSERT(!m->is_flat);
    if (m->raw->type != GRPC_BB_RAW || m->raw->data.raw.compression != GRPC_COMPRESS_NONE)
        return false;
    sb = &m->raw->data.raw.slice_buffer;
    if (sb->count == 0) {
        *ret = slice_of("", 0);
        return true;
    }
    if (sb->count == 1) {
        *ret = slice_of(GRPC_SLICE_START_PTR(sb->slices[0]), GRPC_SLICE_LENGTH(sb->slices[0]));
        return true;
    }
    if (!grpc_byte_buffer_reader_init(&reader, m->raw))
        return false;
    m->flat = grpc_byte_buffer_reader_readall(&reader);
    m->is_flat = true;
    grpc_byte_buffer_reader_destroy(&reader);
    *ret = slice_of(GRPC_SLICE_START_PTR(m->flat), GRPC_SLICE_LENGTH(m->flat));
    return true;
}

void rpc_message_clear(struct rpc_message *m) {
    if (m->is_flat)
        grpc_slice_unref(m->flat);
    m->is_flat = false;
    if (m->raw)
        grpc_byte_buffer_destroy(m->raw);
    m->raw = NULL;
}

void rpc_buffer_fill(grpc_byte_buffer **bb, struct slice data) {
    grpc_slice s = grpc_slice_malloc(data.len);

    if (data.len > 0)
        memcpy(GRPC_SLICE_START_PTR(s), data.data, data.len);
    if (!*bb)
        *bb = grpc_raw_byte_buffer_create(NULL, 0);
    grpc_slice_buffer_reset_and_unref(&(*bb)->data.raw.slice_buffer);
    grpc_slice_buffer_add(&(*bb)->data.raw.slice_buffer, s);
}

char *rpc_slice_text(grpc_call *call, grpc_slice s) {
    size_t len = GRPC_SLICE_LENGTH(s);
    char *text = (char *) grpc_call_arena_alloc(call, len + 1);

    if (len > 0)
        memcpy(text, GRPC_SLICE_START_PTR(s), len);
    text[len] = '\0';
    return text;
}

grpc_arg rpc_arg_int(const char *key, int value) {
    /* gRPC copies the key; its type merely lacks the const. */
    return (grpc_arg){
        .type = GRPC_ARG_INTEGER, .key = (char *) (uintptr_t) key, .value.integer = value};
}

/* The core prints what clients send, raw, into our standard error: a way to forge log lines. What
 * matters of it reaches callers as an error of the call or of rpc_server_new(). */
static void drop_core_log(gpr_log_func_args *args) {
    (void) args;
}

void rpc_library_ref(void) {
    gpr_set_log_verbosity(GPR_LOG_SEVERITY_ERROR);
    gpr_set_log_function(drop_core_log);
    grpc_init();
}

void rpc_library_unref(void) {
    grpc_shutdown();
}
