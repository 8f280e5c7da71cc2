/* WatchJobs: the replica's event ring as a stream.
 *
 * What it is: each watch holds a cursor, the index up to which its client has been sent everything
 * that it asked for. New events, or a queue that has room again, move it forward. A watch keeps no
 * copy of any event, so a slow client costs one stream queue and nothing more; when the ring has
 * moved past its cursor it gets OUT_OF_RANGE instead of a silent gap (reliability.md J23).
 * Invariants: indices are never split between messages and never sent twice on one stream.
 * Thread: the loop's. */
#include "api/api_impl.h"

#include "api/convert.h"
#include "fsm/job_id.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#define WATCH_EVENTS_PER_MESSAGE 512
#define WATCH_JOB_IDS_MAX 1000

/*           barrier needed            barrier answered
 * (new) ------> WAITING ---------------> OPEN ------queue full-----> BLOCKED
 *   |                                    ^  ^ |                        |
 *   +----------- no barrier -------------+  +-|-----on_writable--------+
 *                                             +--ring moved on, stop--> ENDED --on_gone--> freed
 */
enum watch_state { WATCH_WAITING, WATCH_OPEN, WATCH_BLOCKED, WATCH_ENDED };

struct api_watch {
    struct api *api;
    struct rpc_call *call; /* NULL: the client went away while the barrier was out */
    enum watch_state state;
    bool barrier_out;
    uint64_t cursor;
    struct mono started;
    struct mono deadline;
    struct mono last_write;
    uint64_t *seqs; /* owned, sorted: the jobs wanted; NULL = all */
    size_t seqs_count;
    struct api_watch *prev, *next;
};

static const uint8_t watch_edges[] = {
    [WATCH_WAITING] = 1u << WATCH_OPEN | 1u << WATCH_ENDED,
    [WATCH_OPEN] = 1u << WATCH_BLOCKED | 1u << WATCH_ENDED,
    [WATCH_BLOCKED] = 1u << WATCH_OPEN | 1u << WATCH_ENDED,
    [WATCH_ENDED] = 0,
};

static void watch_set_state(struct api_watch *w, enum watch_state to) {
    ASSERT((size_t) w->state < ARRAY_LEN(watch_edges));
    ASSERT(watch_edges[w->state] >> to & 1u);
    w->state = to;
}

static void watch_free(struct api_watch *w) {
    struct api *a = w->api;

    ASSERT(!w->barrier_out);
    if (w->prev)
        w->prev->next = w->next;
    else
        a->watches = w->next;
    if (w->next)
        w->next->prev = w->prev;
    ASSERT(a->watches_count > 0);
    a->watches_count--;
    free(w->seqs);
    free(w);
    api_tick_update(a);
}

/* ---- sending --------------------------------------------------------------------------------- */

static int compare_seqs(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *) a, y = *(const uint64_t *) b;

    return x < y ? -1 : x > y;
}

static bool wants(const struct api_watch *w, uint64_t seq) {
    return !w->seqs || bsearch(&seq, w->seqs, w->seqs_count, sizeof(seq), compare_seqs) != NULL;
}

static void end_out_of_range(struct api_watch *w, uint64_t oldest) {
    watch_set_state(w, WATCH_ENDED);
    api_fail(w->call, RPC_OUT_OF_RANGE,
             "after_index: events after %" PRIu64
             " are no longer kept here, the oldest index to "
             "watch after is %" PRIu64 "; list the jobs and watch after the list's index",
             w->cursor, oldest);
}

/* Write one message. Moves to BLOCKED when the queue is full, to ENDED without memory. */
static void send_message(struct api_watch *w, Chronos__V1__JobEvent **events, size_t count) {
    Chronos__V1__WatchJobsResponse resp = CHRONOS__V1__WATCH_JOBS_RESPONSE__INIT;
    int r;

    resp.index = w->cursor;
    resp.events = events;
    resp.n_events = count;
    r = api_write(w->call, &resp.base);
    w->last_write = replica_now(w->api->replica);
    if (r < 0) {
        watch_set_state(w, WATCH_ENDED);
        api_fail_memory(w->call);
    } else if (r > 0) {
        watch_set_state(w, WATCH_BLOCKED);
    }
}

struct event_slot {
    Chronos__V1__JobEvent event;
    char id[JOB_ID_BYTES_MAX];
};

/* Convert what the client wants of @count events. 0 or -ENOMEM. */
static int pick(struct api_watch *w, const struct replica_event *events, size_t count,
                Chronos__V1__JobEvent ***ret, size_t *ret_count) {
    struct arena *arena = &w->api->scratch;
    struct event_slot *slots;
    size_t n = 0;

    arena_clear(arena);
    *ret_count = 0;
    if (count == 0)
        return 0;
    slots = arena_alloc(arena, count * sizeof(*slots));
    *ret = arena_alloc(arena, count * sizeof(**ret));
    if (!slots || !*ret)
        return -ENOMEM;
    for (size_t i = 0; i < count; i++) {
        if (events[i].index <= w->cursor || !wants(w, events[i].event.job_seq))
            continue;
        convert_event(events[i].index, events[i].at_ms, &events[i].event, slots[n].id,
                      &slots[n].event);
        (*ret)[n] = &slots[n].event;
        n++;
    }
    *ret_count = n;
    return 0;
}

/* Send everything new, as far as the queue takes it. */
static void pump(struct api_watch *w) {
    while (w->state == WATCH_OPEN) {
        const struct replica_event *events = NULL;
        Chronos__V1__JobEvent **picked = NULL;
        size_t count = 0, picked_count = 0;
        uint64_t index = 0;
        int r;

        r = replica_events_read(w->api->replica, w->cursor, &events, WATCH_EVENTS_PER_MESSAGE,
                                &count, &index);
        if (r > 0) {
            end_out_of_range(w, index);
            return;
        }
        if (r < 0 || pick(w, events, count, &picked, &picked_count) < 0) {
            watch_set_state(w, WATCH_ENDED);
            api_fail_memory(w->call);
            return;
        }
        w->cursor = MAX(w->cursor, index);
        if (picked_count > 0)
            send_message(w, picked, picked_count);
        if (count == 0)
            return;
    }
}

void watch_on_events(struct api *a) {
    for (struct api_watch *w = a->watches; w; w = w->next)
        pump(w);
}

void watch_tick(struct api *a, struct mono now) {
    for (struct api_watch *w = a->watches; w; w = w->next) {
        if (w->state == WATCH_OPEN)
            pump(w); /* entries without events move the cursor, too */
        if (w->state == WATCH_OPEN &&
            mono_diff_ns(now, w->last_write) >= a->o.sign_of_life_ms * NS_PER_MS)
            send_message(w, NULL, 0);
    }
}

void watch_on_writable(void *ctx, struct rpc_call *call) {
    struct api_watch *w = rpc_call_user(call);

    (void) ctx;
    if (!w || w->state != WATCH_BLOCKED)
        return;
    watch_set_state(w, WATCH_OPEN);
    pump(w);
}

/* ---- the call -------------------------------------------------------------------------------- */

static void open_at(struct api_watch *w, uint64_t cursor) {
    w->cursor = cursor;
    watch_set_state(w, WATCH_OPEN);
    if (cursor < replica_events_oldest(w->api->replica)) {
        end_out_of_range(w, replica_events_oldest(w->api->replica));
        return;
    }
    send_message(w, NULL, 0); /* tells the client where it stands before anything happens */
    pump(w);
}

static void on_barrier(void *arg, enum replica_status status, uint64_t index) {
    struct api_watch *w = arg;
    uint64_t applied = replica_applied(w->api->replica);

    (void) index;
    w->barrier_out = false;
    if (!w->call) {
        watch_free(w);
        return;
    }
    if (w->state != WATCH_WAITING)
        return; /* ended by watch_stop */
    if (status != REPLICA_OK) {
        watch_set_state(w, WATCH_ENDED);
        api_fail_status(w->api, w->call, STATUS_READ, status, w->started, w->deadline);
    } else if (w->cursor > applied) {
        watch_set_state(w, WATCH_ENDED);
        api_fail(w->call, RPC_OUT_OF_RANGE,
                 "after_index: %" PRIu64 " is beyond the cluster's index %" PRIu64, w->cursor,
                 applied);
    } else {
        open_at(w, w->cursor);
    }
}

static void start(struct api_watch *w, const Chronos__V1__WatchJobsRequest *req) {
    struct replica *replica = w->api->replica;
    int r;

    if (req->after_index == 0) {
        open_at(w, req->from_start ? replica_events_oldest(replica) : replica_applied(replica));
        return;
    }
    if (req->after_index <= replica_applied(replica)) {
        open_at(w, req->after_index);
        return;
    }
    /* Another node was ahead of this one. What the cluster has committed is applied here once the
     * barrier is passed; an index beyond that was never given to anybody. */
    w->cursor = req->after_index;
    r = replica_read(replica, w->deadline, on_barrier, w);
    if (r == 0) {
        w->barrier_out = true;
        return;
    }
    watch_set_state(w, WATCH_ENDED);
    if (r > 0)
        api_fail_status(w->api, w->call, STATUS_READ, (enum replica_status) r, w->started,
                        w->deadline);
    else
        api_fail_memory(w->call);
}

/* 0; 1 = the call was failed. */
static int take_ids(struct api_watch *w, const Chronos__V1__WatchJobsRequest *req) {
    if (req->n_job_ids == 0)
        return 0;
    w->seqs = calloc(req->n_job_ids, sizeof(*w->seqs));
    if (!w->seqs) {
        api_fail_memory(w->call);
        return 1;
    }
    for (size_t i = 0; i < req->n_job_ids; i++) {
        if (job_id_parse(req->job_ids[i], &w->seqs[i]) != 0) {
            api_fail(w->call, RPC_INVALID_ARGUMENT, "job_ids[%zu]: is not a job id", i);
            return 1;
        }
    }
    w->seqs_count = req->n_job_ids;
    qsort(w->seqs, w->seqs_count, sizeof(*w->seqs), compare_seqs);
    return 0;
}

static struct api_watch *watch_new(struct api *a, struct rpc_call *call) {
    struct api_watch *w = calloc(1, sizeof(*w));

    if (!w)
        return NULL;
    w->api = a;
    w->call = call;
    w->started = (struct mono){uv_hrtime()};
    w->deadline = status_answer_by(rpc_call_deadline(call), w->started);
    w->next = a->watches;
    if (w->next)
        w->next->prev = w;
    a->watches = w;
    a->watches_count++;
    rpc_call_set_user(call, w);
    api_tick_update(a);
    return w;
}

void watch_on_call(void *ctx, struct rpc_call *call, struct slice request) {
    struct api *a = ctx;
    Chronos__V1__WatchJobsRequest *req;
    struct api_watch *w;

    if (api_refuse_stopping(a, call, STATUS_READ))
        return;
    if (a->watches_count >= a->o.watches_max) {
        api_fail(call, RPC_RESOURCE_EXHAUSTED, "this node serves at most %zu watches",
                 a->o.watches_max);
        return;
    }
    req = (Chronos__V1__WatchJobsRequest *) api_decode(
        a, call, &chronos__v1__watch_jobs_request__descriptor, request);
    if (!req)
        return;
    if (req->n_job_ids > WATCH_JOB_IDS_MAX) {
        api_fail(call, RPC_INVALID_ARGUMENT, "job_ids: must have at most %d elements",
                 WATCH_JOB_IDS_MAX);
        return;
    }
    w = watch_new(a, call);
    if (!w)
        api_fail_memory(call);
    else if (take_ids(w, req) != 0)
        watch_set_state(w, WATCH_ENDED);
    else
        start(w, req);
}

void watch_on_gone(void *ctx, struct rpc_call *call) {
    struct api_watch *w = rpc_call_user(call);

    (void) ctx;
    if (!w)
        return;
    w->call = NULL;
    if (w->state != WATCH_ENDED)
        watch_set_state(w, WATCH_ENDED);
    if (!w->barrier_out)
        watch_free(w);
}

void watch_stop(struct api *a) {
    for (struct api_watch *w = a->watches; w; w = w->next) {
        if (w->state == WATCH_ENDED)
            continue;
        watch_set_state(w, WATCH_ENDED);
        api_fail_status(a, w->call, STATUS_READ, REPLICA_STOPPING, w->started, w->deadline);
    }
}
