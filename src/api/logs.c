/* GetJobLogs: the output of an attempt, from the worker that has it.
 *
 * What it is: find the attempt in the job's record, have the replica fetch its output from wherever
 * the worker's stream ends, pass the chunks on. A pending job with follow waits for its start. When
 * the worker's copy is out of reach the tail in the result is sent, marked tail_only.
 * Backpressure: the fetch cannot be paused, so chunks that arrive while the client's queue is full
 * are dropped and fetched again from where the client stands once it has room. One queue of memory
 * per stream, however slow its client.
 * Thread: the loop's. */
#include "api/api_impl.h"

#include "api/convert.h"
#include "fsm/job_id.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/*            running or ended        fetch
 * BARRIER --------------------------> FETCHING <--on_writable-- BLOCKED
 *    |                                 ^   |  \----queue full-----^
 *    |pending, follow    started       |   |
 *    +----------------> PENDING -------+   +--end, error, stop--> ENDED --on_gone--> freed
 */
enum logs_state { LOGS_BARRIER, LOGS_PENDING, LOGS_FETCHING, LOGS_BLOCKED, LOGS_ENDED };

struct api_logs {
    struct api *api;
    struct rpc_call *call; /* NULL: gone while the barrier was out */
    enum logs_state state;
    bool barrier_out;
    struct mono started;
    struct mono deadline;
    uint64_t seq;
    uint32_t attempt; /* as asked for, then the one being fetched */
    uint64_t offset;  /* next byte the client is owed */
    bool follow;
    uint64_t index;
    char worker_id[65];
    uint64_t fencing_token;
    struct replica_logs *fetch; /* owned; NULL when none is open */
    struct api_logs *prev, *next;
};

static const uint8_t logs_edges[] = {
    [LOGS_BARRIER] = 1u << LOGS_PENDING | 1u << LOGS_FETCHING | 1u << LOGS_ENDED,
    [LOGS_PENDING] = 1u << LOGS_FETCHING | 1u << LOGS_ENDED,
    [LOGS_FETCHING] = 1u << LOGS_BLOCKED | 1u << LOGS_ENDED,
    [LOGS_BLOCKED] = 1u << LOGS_FETCHING | 1u << LOGS_ENDED,
    [LOGS_ENDED] = 0,
};

static void logs_set_state(struct api_logs *l, enum logs_state to) {
    ASSERT((size_t) l->state < ARRAY_LEN(logs_edges));
    ASSERT(logs_edges[l->state] >> to & 1u);
    l->state = to;
}

static void logs_free(struct api_logs *l) {
    struct api *a = l->api;

    ASSERT(!l->barrier_out);
    if (l->fetch)
        replica_logs_close(l->fetch);
    if (l->prev)
        l->prev->next = l->next;
    else
        a->logs = l->next;
    if (l->next)
        l->next->prev = l->prev;
    ASSERT(a->logs_count > 0);
    a->logs_count--;
    free(l);
}

/* ---- sending --------------------------------------------------------------------------------- */

static void finish(struct api_logs *l) {
    logs_set_state(l, LOGS_ENDED);
    rpc_call_finish(l->call, RPC_OK, NULL, NULL, 0);
}

/* One message. 0, 1 = the queue is full now; negative: the call was failed and is ENDED. */
static int send_message(struct api_logs *l, struct slice data, bool end, bool tail_only) {
    Chronos__V1__GetJobLogsResponse resp = CHRONOS__V1__GET_JOB_LOGS_RESPONSE__INIT;
    int r;

    resp.offset = l->offset;
    resp.data.data = (uint8_t *) (uintptr_t) data.data; /* packing only reads it */
    resp.data.len = data.len;
    resp.end = end;
    resp.tail_only = tail_only;
    resp.attempt = l->attempt;
    resp.index = l->index;
    r = api_write(l->call, &resp.base);
    if (r < 0) {
        logs_set_state(l, LOGS_ENDED);
        api_fail_memory(l->call);
        return r;
    }
    l->offset += data.len;
    return r;
}

/* The worker's copy is out of reach: what is left is the tail in the record. */
static void send_tail(struct api_logs *l, const char *why) {
    Chronos__Internal__V1__JobRecord *rec;
    uint64_t begin;
    struct slice tail;
    int r;

    arena_clear(&l->api->scratch);
    r = fsm_read_job(replica_fsm(l->api->replica), l->seq, &l->api->scratch, &rec);
    if (r != 0) {
        logs_set_state(l, LOGS_ENDED);
        convert_fail_read(l->api, l->call, l->seq, r);
        return;
    }
    if (!convert_is_terminal(rec->state) || rec->attempt != l->attempt) {
        logs_set_state(l, LOGS_ENDED);
        api_fail(l->call, RPC_UNAVAILABLE, "the output of attempt %" PRIu32 " cannot be had: %s",
                 l->attempt, why);
        return;
    }
    tail = slice_of(rec->output_tail.data, rec->output_tail.len);
    begin = rec->output_bytes > tail.len ? rec->output_bytes - tail.len : 0;
    if (l->offset > begin) { /* the client has, or does not want, the first of it */
        uint64_t skip = MIN(l->offset - begin, (uint64_t) tail.len);

        tail = slice_of(tail.data + skip, tail.len - skip);
    } else {
        l->offset = begin;
    }
    l->index = replica_applied(l->api->replica);
    if (send_message(l, tail, true, true) >= 0)
        finish(l);
}

/* ---- the fetch ------------------------------------------------------------------------------- */

/* The fetch's end says that nothing more comes. That is the attempt's end when we followed it (the
 * worker knows before the log does); else the log has to say so. */
static bool attempt_is_over(const struct api_logs *l) {
    const struct fsm_job *job = fsm_job_find(replica_fsm(l->api->replica), l->seq);

    return l->follow || !job || job->state != CHRONOS__V1__JOB_STATE__JOB_STATE_RUNNING ||
           job->attempt != l->attempt;
}

static void on_chunk(void *arg, const struct replica_logs_chunk *chunk) {
    struct api_logs *l = arg;
    struct slice data = chunk->data;
    int r;

    if (chunk->end)
        l->fetch = NULL;
    if (l->state != LOGS_FETCHING)
        return; /* blocked: on_writable fetches this again; ended: nobody wants it */
    if (chunk->end && chunk->error) {
        send_tail(l, chunk->error);
        return;
    }
    l->index = replica_applied(l->api->replica);
    if (chunk->offset > l->offset)
        l->offset = chunk->offset; /* beyond what the worker kept */
    if (data.len > 0 && l->offset > chunk->offset) {
        uint64_t skip = MIN(l->offset - chunk->offset, (uint64_t) data.len);

        data = slice_of(data.data + skip, data.len - skip);
    }
    if (data.len == 0 && !chunk->end)
        return;
    r = send_message(l, data, chunk->end && attempt_is_over(l), false);
    if (r < 0)
        return;
    if (chunk->end)
        finish(l);
    else if (r > 0)
        logs_set_state(l, LOGS_BLOCKED);
}

/* Open the fetch at the client's offset; FETCHING. */
static void fetch(struct api_logs *l) {
    struct replica_logs *opened = NULL;
    int r;

    ASSERT(!l->fetch);
    logs_set_state(l, LOGS_FETCHING);
    r = replica_logs_open(l->api->replica, l->worker_id, l->seq, l->attempt, l->fencing_token,
                          l->offset, l->follow, on_chunk, l, &opened);
    if (r == 0) {
        l->fetch = opened;
        return;
    }
    if (r == REPLICA_REFUSED) {
        send_tail(l, "its worker is not connected");
        return;
    }
    logs_set_state(l, LOGS_ENDED);
    if (r > 0)
        api_fail_status(l->api, l->call, STATUS_READ, (enum replica_status) r, l->started,
                        l->deadline);
    else
        api_fail_memory(l->call);
}

void logs_on_writable(void *ctx, struct rpc_call *call) {
    struct api_logs *l = rpc_call_user(call);

    (void) ctx;
    if (!l || l->state != LOGS_BLOCKED)
        return;
    if (l->fetch)
        replica_logs_close(l->fetch);
    l->fetch = NULL;
    fetch(l);
}

/* ---- finding the attempt --------------------------------------------------------------------- */

static void no_such_attempt(struct api_logs *l, const Chronos__Internal__V1__JobRecord *rec) {
    logs_set_state(l, LOGS_ENDED);
    api_fail(l->call, RPC_NOT_FOUND,
             "attempt: output is known for attempt %" PRIu32 " only, %" PRIu32 " was asked for",
             rec->attempt, l->attempt);
}

/* The job has not begun the attempt that is wanted. */
static void not_begun(struct api_logs *l, const Chronos__Internal__V1__JobRecord *rec) {
    if (convert_is_terminal(rec->state)) {
        if (l->attempt > 0) {
            no_such_attempt(l, rec);
        } else if (send_message(l, slice_of(NULL, 0), true, false) >= 0) {
            finish(l); /* cancelled before it ran: there is no output, and there will be none */
        }
    } else if (l->follow) {
        if (l->state != LOGS_PENDING)
            logs_set_state(l, LOGS_PENDING);
    } else if (send_message(l, slice_of(NULL, 0), false, false) >= 0) {
        finish(l);
    }
}

/* Look at the record and do what it allows: fetch, wait, or end. */
static void resolve(struct api_logs *l) {
    Chronos__Internal__V1__JobRecord *rec;
    uint32_t wanted;
    int r;

    arena_clear(&l->api->scratch);
    l->index = replica_applied(l->api->replica);
    r = fsm_read_job(replica_fsm(l->api->replica), l->seq, &l->api->scratch, &rec);
    if (r != 0) {
        logs_set_state(l, LOGS_ENDED);
        convert_fail_read(l->api, l->call, l->seq, r);
        return;
    }
    wanted = l->attempt;
    if (wanted == 0) {
        wanted = rec->attempt;
        /* A lost attempt's worker is out of reach; the one to follow is the next. */
        if (rec->state == CHRONOS__V1__JOB_STATE__JOB_STATE_PENDING && l->follow)
            wanted++;
    }
    if (wanted == 0 || wanted > rec->attempt) {
        not_begun(l, rec);
        return;
    }
    if (wanted < rec->attempt || rec->worker_id[0] == '\0') {
        no_such_attempt(l, rec);
        return;
    }
    l->attempt = wanted;
    l->fencing_token = rec->fencing_token;
    (void) snprintf(l->worker_id, sizeof(l->worker_id), "%s", rec->worker_id);
    fetch(l);
}

void logs_on_events(struct api *a) {
    for (struct api_logs *l = a->logs; l; l = l->next) {
        const struct fsm_job *job;

        if (l->state != LOGS_PENDING)
            continue;
        job = fsm_job_find(replica_fsm(a->replica), l->seq);
        if (!job || job->state != CHRONOS__V1__JOB_STATE__JOB_STATE_PENDING)
            resolve(l);
    }
}

/* ---- the call -------------------------------------------------------------------------------- */

static void on_barrier(void *arg, enum replica_status status, uint64_t index) {
    struct api_logs *l = arg;

    (void) index;
    l->barrier_out = false;
    if (!l->call) {
        logs_free(l);
        return;
    }
    if (l->state != LOGS_BARRIER)
        return; /* ended by logs_stop */
    if (status == REPLICA_OK) {
        resolve(l);
        return;
    }
    logs_set_state(l, LOGS_ENDED);
    api_fail_status(l->api, l->call, STATUS_READ, status, l->started, l->deadline);
}

static struct api_logs *logs_new(struct api *a, struct rpc_call *call) {
    struct api_logs *l = calloc(1, sizeof(*l));

    if (!l)
        return NULL;
    l->api = a;
    l->call = call;
    l->started = (struct mono){uv_hrtime()};
    l->deadline = status_answer_by(rpc_call_deadline(call), l->started);
    l->next = a->logs;
    if (l->next)
        l->next->prev = l;
    a->logs = l;
    a->logs_count++;
    rpc_call_set_user(call, l);
    return l;
}

void logs_on_call(void *ctx, struct rpc_call *call, struct slice request) {
    struct api *a = ctx;
    Chronos__V1__GetJobLogsRequest *req;
    struct api_logs *l;
    uint64_t seq;
    int r;

    if (api_refuse_stopping(a, call, STATUS_READ))
        return;
    if (a->logs_count >= a->o.logs_max) {
        api_fail(call, RPC_RESOURCE_EXHAUSTED, "this node serves at most %zu log streams",
                 a->o.logs_max);
        return;
    }
    req = (Chronos__V1__GetJobLogsRequest *) api_decode(
        a, call, &chronos__v1__get_job_logs_request__descriptor, request);
    if (!req || api_job_id(call, req->job_id, &seq) != 0)
        return;
    l = logs_new(a, call);
    if (!l) {
        api_fail_memory(call);
        return;
    }
    l->seq = seq;
    l->attempt = req->attempt;
    l->offset = req->offset;
    l->follow = req->follow;
    r = replica_read(a->replica, l->deadline, on_barrier, l);
    if (r == 0) {
        l->barrier_out = true;
        return;
    }
    logs_set_state(l, LOGS_ENDED);
    if (r > 0)
        api_fail_status(a, call, STATUS_READ, (enum replica_status) r, l->started, l->deadline);
    else
        api_fail_memory(call);
}

void logs_on_gone(void *ctx, struct rpc_call *call) {
    struct api_logs *l = rpc_call_user(call);

    (void) ctx;
    if (!l)
        return;
    l->call = NULL;
    if (l->state != LOGS_ENDED)
        logs_set_state(l, LOGS_ENDED);
    if (!l->barrier_out)
        logs_free(l);
}

void logs_stop(struct api *a) {
    for (struct api_logs *l = a->logs; l; l = l->next) {
        if (l->state == LOGS_ENDED)
            continue;
        logs_set_state(l, LOGS_ENDED);
        api_fail_status(a, l->call, STATUS_READ, REPLICA_STOPPING, l->started, l->deadline);
    }
}
