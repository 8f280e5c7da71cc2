/* Output of attempts, fetched from the worker that has it, wherever its stream ends.
 *
 *   local:  api -> replica_logs -> session -> worker -> WorkerLogData -> callback
 *   remote: api -> replica_logs -> LOGS call -> the other node's served_logs -> the same there
 * Thread: the loop. */
#include "node/replica_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct replica_logs {
    struct replica_logs *prev, *next;
    struct replica *replica;
    struct worker_session *session; /* local: borrowed until logs_session_gone */
    uint64_t request_id;            /* local */
    uint64_t call_id;               /* remote; 0 = none */
    uint64_t job_seq;
    uint64_t fencing_token;
    uint32_t attempt;
    replica_logs_fn done;
    void *arg;
};

static void logs_unlink(struct replica_logs *l) {
    if (l->prev)
        l->prev->next = l->next;
    else
        l->replica->logs = l->next;
    if (l->next)
        l->next->prev = l->prev;
}

/* Last callback; frees. */
static void logs_end(struct replica_logs *l, const char *error) {
    struct replica_logs_chunk chunk = {.end = true, .error = error};

    logs_unlink(l);
    l->done(l->arg, &chunk);
    free(l);
}

static void logs_chunk(struct replica_logs *l, const Chronos__V1__WorkerLogData *d) {
    struct replica_logs_chunk chunk = {.offset = d->offset,
                                       .data = slice_of(d->data.data, d->data.len)};

    if (d->data.len > 0 && !d->end) {
        l->done(l->arg, &chunk);
        return;
    }
    if (!d->end)
        return;
    chunk.end = true;
    chunk.error = d->error[0] ? d->error : NULL;
    logs_unlink(l);
    l->done(l->arg, &chunk);
    free(l);
}

void logs_on_data(struct replica *r, const struct worker_session *s,
                  const Chronos__V1__WorkerLogData *d) {
    for (struct replica_logs *l = r->logs; l; l = l->next) {
        if (l->session != s || l->request_id != d->request_id)
            continue;
        logs_chunk(l, d);
        return;
    }
}

void logs_session_gone(struct replica *r, const struct worker_session *s) {
    struct replica_logs *l = r->logs;

    while (l) {
        struct replica_logs *next = l->next;

        if (l->session == s) {
            l->session = NULL;
            logs_end(l, "the worker's stream broke");
            next = r->logs; /* a callback may have closed others */
        }
        l = next;
    }
}

static void remote_reply(void *arg, uint32_t code, struct slice body, bool more) {
    struct replica_logs *l = arg;
    Chronos__V1__WorkerLogData *d;

    if (!more)
        l->call_id = 0;
    if (code != 0) {
        logs_end(l, "the worker's node could not be asked");
        return;
    }
    d = chronos__v1__worker_log_data__unpack(NULL, body.len, body.data);
    if (!d) {
        if (!more)
            logs_end(l, "malformed log data");
        return;
    }
    d->end = !more;
    logs_chunk(l, d);
    chronos__v1__worker_log_data__free_unpacked(d, NULL);
}

static int open_remote(struct replica_logs *l, uint64_t node_id, const char *worker_id,
                       uint64_t offset, bool follow) {
    Chronos__Internal__V1__LogsCall m = CHRONOS__INTERNAL__V1__LOGS_CALL__INIT;
    uint8_t body[256];

    m.worker_id = (char *) (uintptr_t) worker_id; /* packing reads only */
    m.job_seq = l->job_seq;
    m.attempt = l->attempt;
    m.fencing_token = l->fencing_token;
    m.offset = offset;
    m.follow = follow;
    m.applied_index = fsm_applied_index(l->replica->fsm);
    if (chronos__internal__v1__logs_call__get_packed_size(&m) > sizeof(body))
        return REPLICA_REFUSED;
    return peer_call_start(l->replica, node_id, PEER_CALL_LOGS,
                           slice_of(body, chronos__internal__v1__logs_call__pack(&m, body)),
                           follow ? MONO_NEVER : mono_add_ms(l->replica->now, 30 * 1000),
                           remote_reply, l, &l->call_id);
}

int replica_logs_open(struct replica *r, const char *worker_id, uint64_t job_seq, uint32_t attempt,
                      uint64_t fencing_token, uint64_t offset, bool follow, replica_logs_fn done,
                      void *arg, struct replica_logs **ret) {
    const struct fsm_worker *w = fsm_worker_find(r->fsm, worker_id);
    struct replica_logs *l;
    int rc;

    if (!w)
        return REPLICA_REFUSED;
    l = calloc(1, sizeof(*l));
    if (!l)
        return -ENOMEM;
    *l = (struct replica_logs){.replica = r,
                               .job_seq = job_seq,
                               .attempt = attempt,
                               .fencing_token = fencing_token,
                               .done = done,
                               .arg = arg};
    r->now = r->env.clock.mono(r->env.clock.ctx);
    l->session = sessions_find(r, worker_id);
    if (l->session) {
        l->request_id = ++r->next_log_request;
        rc = worker_session_log_request(l->session, l->request_id, job_seq, attempt, fencing_token,
                                        offset, follow, false);
    } else {
        rc = w->node_id == r->o.id ? REPLICA_REFUSED
                                   : open_remote(l, w->node_id, worker_id, offset, follow);
    }
    if (rc != 0) {
        free(l);
        return rc;
    }
    l->next = r->logs;
    if (l->next)
        l->next->prev = l;
    r->logs = l;
    *ret = l;
    return 0;
}

void replica_logs_close(struct replica_logs *l) {
    if (!l)
        return;
    if (l->session)
        (void) worker_session_log_request(l->session, l->request_id, l->job_seq, l->attempt,
                                          l->fencing_token, 0, false, true);
    if (l->call_id != 0)
        peer_call_forget(l->replica, l->call_id);
    logs_unlink(l);
    free(l);
}

/* ---- for other nodes ------------------------------------------------------------------------- */

static void served_free(struct served_logs *s) {
    struct served_logs **p = &s->replica->served_logs;

    while (*p != s)
        p = &(*p)->next;
    *p = s->next;
    if (s->call)
        chronos__internal__v1__logs_call__free_unpacked(s->call, NULL);
    free(s);
}

static void served_chunk(void *arg, const struct replica_logs_chunk *chunk) {
    struct served_logs *s = arg;
    Chronos__V1__WorkerLogData d = CHRONOS__V1__WORKER_LOG_DATA__INIT;
    struct bytes *packed;

    d.offset = chunk->offset;
    d.data.data = (uint8_t *) (uintptr_t) chunk->data.data; /* packing reads only */
    d.data.len = chunk->data.len;
    d.end = chunk->end;
    if (chunk->error)
        d.error = (char *) (uintptr_t) chunk->error;
    packed = bytes_new(chronos__v1__worker_log_data__get_packed_size(&d));
    if (packed) {
        (void) chronos__v1__worker_log_data__pack(&d, packed->data);
        peer_calls_reply(s->replica, s->peer, s->call_id, 0, "", bytes_slice(packed), !chunk->end);
        bytes_unref(packed);
    }
    if (chunk->end)
        served_free(s);
}

/* The worker must have been told of the attempt before it is asked for its output, so this node has
 * to be as far as the caller was when it saw the attempt. */
static void served_start(struct served_logs *s) {
    struct replica *r = s->replica;
    Chronos__Internal__V1__LogsCall *m = s->call;
    int rc = REPLICA_REFUSED;

    s->call = NULL;
    if (sessions_find(r, m->worker_id)) /* else it has moved: never pass the call on */
        rc = replica_logs_open(r, m->worker_id, m->job_seq, m->attempt, m->fencing_token, m->offset,
                               m->follow, served_chunk, s, &s->logs);
    chronos__internal__v1__logs_call__free_unpacked(m, NULL);
    if (rc == 0)
        return;
    peer_calls_reply(r, s->peer, s->call_id, 14, "no such worker here", slice_of(NULL, 0), false);
    served_free(s);
}

void logs_serve_ready(struct replica *r) {
    struct served_logs *s = r->served_logs;

    while (s) {
        struct served_logs *next = s->next;

        if (s->call && s->call->applied_index <= fsm_applied_index(r->fsm))
            served_start(s);
        s = next;
    }
}

void logs_serve(struct replica *r, uint64_t from, uint64_t call_id, struct slice body) {
    struct served_logs *s = calloc(1, sizeof(*s));

    if (!s)
        return; /* the caller's deadline covers a lost call */
    *s = (struct served_logs){
        .next = r->served_logs, .replica = r, .peer = from, .call_id = call_id};
    s->call = chronos__internal__v1__logs_call__unpack(NULL, body.len, body.data);
    if (!s->call) {
        r->bad_messages++;
        free(s);
        return;
    }
    r->served_logs = s;
    r->wants_turn = true; /* logs_serve_ready comes behind the apply */
}

void logs_serve_cancel(struct replica *r, uint64_t from, uint64_t call_id) {
    struct served_logs *s = r->served_logs;

    while (s) {
        struct served_logs *next = s->next;

        if (s->peer == from && (call_id == 0 || s->call_id == call_id)) {
            replica_logs_close(s->logs);
            served_free(s);
        }
        s = next;
    }
}

void logs_free(struct replica *r) {
    while (r->served_logs) {
        struct served_logs *s = r->served_logs;

        replica_logs_close(s->logs);
        served_free(s);
    }
    while (r->logs)
        logs_end(r->logs, "the node is stopping");
}
