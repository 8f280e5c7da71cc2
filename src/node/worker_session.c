/* The node's half of the worker protocol. See worker_session.h.
 * Thread: the loop. */
#include "node/session_internal.h"

#include "fsm/command.h"
#include "fsm/job_id.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define CODE_INVALID_ARGUMENT 3
#define CODE_ALREADY_EXISTS 6
#define CODE_FAILED_PRECONDITION 9
#define CODE_ABORTED 10
#define CODE_UNAVAILABLE 14
#define CODE_INTERNAL 13
static const char id_taken_message[] =
    "another worker process is connected under this id; ids must be unique";

static const char *const state_names[] = {
    [SESSION_NEW] = "new",
    [SESSION_REGISTERING] = "registering",
    [SESSION_ACTIVE] = "active",
    [SESSION_ENDED] = "ended",
};

/* The one setter of a session's state. */
static void session_set_state(struct worker_session *s, enum session_state to) {
    static const bool allowed[4][4] = {
        [SESSION_NEW] = {[SESSION_REGISTERING] = true, [SESSION_ENDED] = true},
        [SESSION_REGISTERING] = {[SESSION_ACTIVE] = true, [SESSION_ENDED] = true},
        [SESSION_ACTIVE] = {[SESSION_ENDED] = true},
    };

    ASSERT(allowed[s->state][to]);
    log_debug(s->replica->env.log, "worker session", "worker=%s from=%s to=%s",
              s->worker_id ? s->worker_id : "", state_names[s->state], state_names[to]);
    s->state = to;
}

void worker_session_end(struct worker_session *s, int code, const char *message) {
    if (s->state == SESSION_ENDED)
        return;
    session_set_state(s, SESSION_ENDED);
    logs_session_gone(s->replica, s);
    s->ops->end(s->arg, code, message);
}

void worker_session_send(struct worker_session *s, const ProtobufCMessage *message) {
    struct bytes *b = bytes_new(protobuf_c_message_get_packed_size(message));

    if (!b) {
        worker_session_end(s, CODE_INTERNAL, "out of memory");
        return;
    }
    (void) protobuf_c_message_pack(message, b->data);
    s->blocked = s->ops->send(s->arg, b) == 1;
}

int worker_session_new(struct replica *r, const struct worker_session_ops *ops, void *arg,
                       struct worker_session **ret) {
    struct worker_session *s = calloc(1, sizeof(*s));

    if (!s)
        return -ENOMEM;
    *s = (struct worker_session){.replica = r, .ops = ops, .arg = arg, .state = SESSION_NEW};
    arena_init(&s->arena, ARENA_BYTES_MAX);
    s->next = r->sessions;
    if (s->next)
        s->next->prev = s;
    r->sessions = s;
    *ret = s;
    return 0;
}

/* A proposal may still name the session: its memory goes with the last of them. */
void worker_session_unref(struct worker_session *s) {
    if (s->proposals_in_flight > 0 || !s->detached)
        return;
    session_reports_free(s);
    arena_done(&s->arena);
    free(s->assign);
    free(s->worker_id);
    free(s);
}

struct worker_session *worker_session_free(struct worker_session *s) {
    if (!s)
        return NULL;
    if (s->state != SESSION_ENDED) {
        session_set_state(s, SESSION_ENDED);
        logs_session_gone(s->replica, s);
    }
    if (s->prev)
        s->prev->next = s->next;
    else
        s->replica->sessions = s->next;
    if (s->next)
        s->next->prev = s->prev;
    s->detached = true;
    worker_session_unref(s);
    return NULL;
}

struct worker_session *sessions_find(struct replica *r, const char *worker_id) {
    for (struct worker_session *s = r->sessions; s; s = s->next)
        if (s->state == SESSION_ACTIVE && strcmp(s->worker_id, worker_id) == 0)
            return s;
    return NULL;
}

/* ---- hello ----------------------------------------------------------------------------------- */

static bool worker_id_ok(const char *id) {
    size_t len = strlen(id);

    if (len == 0 || len > 64)
        return false;
    return strspn(id, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") == len;
}

static void send_assignments_held(struct worker_session *s);

/* Attempts the worker named but that are not its own any more. */
static void send_welcome(struct worker_session *s) {
    struct replica *r = s->replica;
    Chronos__V1__NodeMessage m = CHRONOS__V1__NODE_MESSAGE__INIT;
    Chronos__V1__NodeWelcome w = CHRONOS__V1__NODE_WELCOME__INIT;
    char *addresses[RAFT_NODES_MAX];
    const struct raft_config *config = raft_config_latest(r->raft);

    w.node_id = r->o.id;
    w.heartbeat_interval_ms = (uint32_t) (r->o.worker_heartbeat_ns / NS_PER_MS);
    w.lease_ms = (uint32_t) (r->o.worker_lease_ns / NS_PER_MS);
    for (size_t i = 0; i < config->count; i++) {
        const char *a = replica_client_address(r, config->members[i].id);

        if (a && a[0])
            addresses[w.n_node_addresses++] = (char *) (uintptr_t) a; /* packing reads only */
    }
    w.node_addresses = addresses;
    w.kill = s->hello_kill;
    w.n_kill = s->hello_kill_count;
    m.body_case = CHRONOS__V1__NODE_MESSAGE__BODY_WELCOME;
    m.welcome = &w;
    worker_session_send(s, &m.base);
}

static void collect_stale(struct worker_session *s) {
    s->hello_kill_count = 0;
    for (size_t i = 0; i < s->hello_held_count; i++) {
        Chronos__V1__AttemptRef *ref = s->hello_held[i];
        uint64_t seq = 0;
        const struct fsm_job *j =
            job_id_parse(ref->job_id, &seq) == 0 ? fsm_job_find(s->replica->fsm, seq) : NULL;

        if (!j || !j->worker || j->fencing_token != ref->fencing_token ||
            strcmp(j->worker->id, s->worker_id) != 0)
            s->hello_kill[s->hello_kill_count++] = ref;
    }
}

/* The log says that the worker is not this session's. @w may be NULL. */
static void session_end_moved(struct worker_session *s, const struct fsm_worker *w) {
    if (w && !w->lost && w->incarnation != s->incarnation)
        worker_session_end(s, CODE_ALREADY_EXISTS, id_taken_message);
    else
        worker_session_end(
            s, CODE_FAILED_PRECONDITION,
            "this worker was declared lost or registered elsewhere; say hello again");
}

static void hello_done(void *arg, const struct replica_proposed *res) {
    struct worker_session *s = arg;
    const struct fsm_worker *w;

    s->proposals_in_flight--;
    if (s->detached || s->state != SESSION_REGISTERING) {
        worker_session_unref(s);
        return;
    }
    if (res->status != REPLICA_OK) {
        worker_session_end(s, CODE_UNAVAILABLE, "the registration was not committed; try again");
        return;
    }
    if (res->output->results[0].code == FSM_STALE) {
        worker_session_end(s, CODE_UNAVAILABLE,
                           "a newer registration of this worker came first; say hello again");
        return;
    }
    w = fsm_worker_find(s->replica->fsm, s->worker_id);
    if (!w || w->incarnation != s->incarnation || w->node_id != s->replica->o.id || w->lost) {
        session_end_moved(s, w);
        return;
    }
    session_set_state(s, SESSION_ACTIVE);
    if (s->draining) /* on a follower its first heartbeat says so */
        (void) leases_beat(s->replica, s->worker_id, s->incarnation, true);
    log_info(s->replica->env.log, "worker connected", "worker=%s slots=%u held=%zu", s->worker_id,
             w->slots, s->hello_held_count);
    collect_stale(s);
    send_welcome(s);
    drain_tell(s);
    send_assignments_held(s);
    arena_clear(&s->arena);
    s->hello_held = s->hello_kill = NULL;
    s->hello_held_count = s->hello_kill_count = 0;
}

/* Everything that is assigned to the worker in the state: it ignores what it already has. */
static void send_assignments_held(struct worker_session *s) {
    const struct fsm_worker *w = fsm_worker_find(s->replica->fsm, s->worker_id);

    s->assign_count = 0;
    for (const struct fsm_job *j = w->first_job; j; j = j->worker_next) {
        worker_session_assign(s, j->seq);
        if (j->cancel_requested)
            worker_session_kill(s, j);
    }
}

/* Two processes with one id would evict each other for ever: who is connected stays. A process that
 * was killed has no stream any more, or loses it with its lease. */
static bool id_in_use(const struct worker_session *s) {
    const struct worker_session *o = sessions_find(s->replica, s->worker_id);

    return o && o->incarnation != s->incarnation;
}

/* One more than the same process's session may exist at this node for a moment: the newest wins. */
static void end_other_sessions(struct worker_session *s) {
    for (struct worker_session *o = s->replica->sessions; o; o = o->next)
        if (o != s && o->worker_id && strcmp(o->worker_id, s->worker_id) == 0)
            worker_session_end(o, CODE_ABORTED, "the worker opened another session");
}

/* The refs of hello outlive the message: copied into the session's arena. */
static bool copy_held(struct worker_session *s, const Chronos__V1__WorkerHello *h) {
    size_t n = h->n_running + h->n_finished;

    s->hello_held = arena_alloc(&s->arena, (n + 1) * sizeof(*s->hello_held));
    s->hello_kill = arena_alloc(&s->arena, (n + 1) * sizeof(*s->hello_kill));
    if (!s->hello_held || !s->hello_kill)
        return false;
    for (size_t i = 0; i < n; i++) {
        const Chronos__V1__AttemptRef *from =
            i < h->n_running ? h->running[i] : h->finished[i - h->n_running];
        Chronos__V1__AttemptRef *ref = arena_alloc(&s->arena, sizeof(*ref));

        if (!ref)
            return false;
        chronos__v1__attempt_ref__init(ref);
        ref->job_id = arena_strdup(&s->arena, from->job_id);
        if (!ref->job_id)
            return false;
        ref->attempt = from->attempt;
        ref->fencing_token = from->fencing_token;
        s->hello_held[s->hello_held_count++] = ref;
    }
    return true;
}

static int register_encode(struct worker_session *s, const Chronos__V1__WorkerHello *h,
                           struct bytes **ret) {
    Chronos__Internal__V1__LogCommand cmd = CHRONOS__INTERNAL__V1__LOG_COMMAND__INIT;
    Chronos__Internal__V1__RegisterWorker body = CHRONOS__INTERNAL__V1__REGISTER_WORKER__INIT;
    Chronos__Internal__V1__RegisterWorkerItem item =
        CHRONOS__INTERNAL__V1__REGISTER_WORKER_ITEM__INIT;
    Chronos__Internal__V1__RegisterWorkerItem *items[] = {&item};
    size_t n = s->hello_held_count;
    Chronos__Internal__V1__HeldAttempt *held = arena_alloc(&s->arena, (n + 1) * sizeof(*held));

    item.held = arena_alloc(&s->arena, (n + 1) * sizeof(*item.held));
    item.labels = arena_alloc(&s->arena, (h->n_labels + 1) * sizeof(*item.labels));
    if (!held || !item.held || !item.labels)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++) {
        uint64_t seq = 0;

        if (job_id_parse(s->hello_held[i]->job_id, &seq) != 0)
            continue; /* no job of this cluster: it will be told to kill it */
        chronos__internal__v1__held_attempt__init(&held[item.n_held]);
        held[item.n_held].job_seq = seq;
        held[item.n_held].fencing_token = s->hello_held[i]->fencing_token;
        item.held[item.n_held] = &held[item.n_held];
        item.n_held++;
    }
    for (size_t i = 0; i < h->n_labels; i++) {
        Chronos__Internal__V1__RegisterWorkerItem__LabelsEntry *e =
            arena_alloc(&s->arena, sizeof(*e));

        if (!e)
            return -ENOMEM;
        chronos__internal__v1__register_worker_item__labels_entry__init(e);
        e->key = h->labels[i]->key;
        e->value = h->labels[i]->value;
        item.labels[item.n_labels++] = e;
    }
    item.worker_id = s->worker_id;
    item.incarnation = s->incarnation;
    item.slots = h->slots;
    item.node_id = s->replica->o.id;
    item.version = h->version;
    item.hello = h->hello;
    item.applied_index = fsm_applied_index(s->replica->fsm);
    body.items = items;
    body.n_items = 1;
    cmd.body_case = CHRONOS__INTERNAL__V1__LOG_COMMAND__BODY_REGISTER_WORKER;
    cmd.register_worker = &body;
    return command_encode(&cmd, ret);
}

static void on_hello(struct worker_session *s, const Chronos__V1__WorkerHello *h) {
    struct bytes *command = NULL;
    int rc;

    if (s->state != SESSION_NEW) {
        worker_session_end(s, CODE_FAILED_PRECONDITION, "hello must come first and only once");
        return;
    }
    if (!worker_id_ok(h->worker_id)) {
        worker_session_end(s, CODE_INVALID_ARGUMENT,
                           "hello.worker_id: 1 to 64 characters of A-Z a-z 0-9 . _ - expected");
        return;
    }
    if (h->slots == 0 || h->slots > SESSION_SLOTS_MAX || h->incarnation == 0 ||
        h->n_labels > SESSION_LABELS_MAX || h->n_running + h->n_finished > SESSION_HELD_MAX) {
        worker_session_end(
            s, CODE_INVALID_ARGUMENT,
            "hello: slots 1 to 10000, incarnation > 0, at most 32 labels and 20000 attempts");
        return;
    }
    s->worker_id = strdup(h->worker_id);
    s->incarnation = h->incarnation;
    s->draining = h->draining;
    if (!s->worker_id || !copy_held(s, h)) {
        worker_session_end(s, CODE_INTERNAL, "out of memory");
        return;
    }
    if (id_in_use(s)) {
        log_warn(s->replica->env.log, "a second worker with this id was refused", "worker=%s",
                 s->worker_id);
        worker_session_end(s, CODE_ALREADY_EXISTS, id_taken_message);
        return;
    }
    end_other_sessions(s);
    rc = register_encode(s, h, &command);
    if (rc == 0) {
        session_set_state(s, SESSION_REGISTERING);
        s->proposals_in_flight++;
        /* Applied twice, its list of what is held would the second time miss what was assigned
         * after the first, and give that to another attempt while it runs: so it is proposed again
         * by itself only when apply can tell, by the worker's count of its hellos. */
        rc = replica_propose(s->replica, command,
                             REPLICA_INTERNAL | (h->hello != 0 ? REPLICA_RETRY_SAFE : 0),
                             MONO_NEVER, hello_done, s);
        if (rc != 0)
            s->proposals_in_flight--;
    }
    if (rc != 0)
        worker_session_end(s, CODE_UNAVAILABLE, "the registration could not be proposed");
}

/* ---- heartbeats ------------------------------------------------------------------------------ */

static void send_heartbeat_ack(struct worker_session *s, uint64_t sequence) {
    Chronos__V1__NodeMessage m = CHRONOS__V1__NODE_MESSAGE__INIT;
    Chronos__V1__NodeHeartbeatAck ack = CHRONOS__V1__NODE_HEARTBEAT_ACK__INIT;

    ack.index = fsm_applied_index(s->replica->fsm);
    ack.sequence = sequence;
    m.body_case = CHRONOS__V1__NODE_MESSAGE__BODY_HEARTBEAT_ACK;
    m.heartbeat_ack = &ack;
    worker_session_send(s, &m.base);
}

static void on_heartbeat(struct worker_session *s, const Chronos__V1__WorkerHeartbeat *h) {
    struct replica *r = s->replica;
    Chronos__Internal__V1__WorkerBeat beat = CHRONOS__INTERNAL__V1__WORKER_BEAT__INIT;

    if (s->state != SESSION_ACTIVE)
        return;
    if (raft_role(r->raft) == RAFT_LEADER) {
        if (leases_beat(r, s->worker_id, s->incarnation, h->draining))
            send_heartbeat_ack(s, h->sequence);
        return;
    }
    beat.worker_id = s->worker_id;
    beat.incarnation = s->incarnation;
    beat.sequence = h->sequence;
    beat.draining = h->draining;
    peers_queue_field(r, raft_leader(r->raft), 5, &beat.base);
}

void sessions_beat_acked(struct replica *r, const Chronos__Internal__V1__WorkerBeat *beat) {
    struct worker_session *s = sessions_find(r, beat->worker_id);

    if (s && s->incarnation == beat->incarnation)
        send_heartbeat_ack(s, beat->sequence);
}

/* ---- assignments and kills ------------------------------------------------------------------- */

void sessions_on_event(struct replica *r, const struct fsm_event *e) {
    const struct fsm_job *j;
    struct worker_session *s;

    if (e->to != CHRONOS__V1__JOB_STATE__JOB_STATE_RUNNING || !r->sessions)
        return;
    s = sessions_find(r, e->worker_id);
    if (!s)
        return;
    if (e->from == CHRONOS__V1__JOB_STATE__JOB_STATE_PENDING) {
        worker_session_assign(s, e->job_seq);
    } else if (e->cancel_requested) {
        j = fsm_job_find(r->fsm, e->job_seq);
        if (j)
            worker_session_kill(s, j);
    }
}

/* A worker that the log declared lost, or that lives on at another node, has no session here. */
void sessions_workers_changed(struct replica *r) {
    for (struct worker_session *s = r->sessions; s; s = s->next) {
        const struct fsm_worker *w;

        if (s->state != SESSION_ACTIVE)
            continue;
        w = fsm_worker_find(r->fsm, s->worker_id);
        if (!w || w->lost || w->incarnation != s->incarnation || w->node_id != r->o.id)
            session_end_moved(s, w);
    }
}

void sessions_restart(struct replica *r) {
    for (struct worker_session *s = r->sessions; s; s = s->next)
        if (s->state == SESSION_REGISTERING || s->state == SESSION_ACTIVE)
            worker_session_end(s, CODE_UNAVAILABLE,
                               "this node took over a snapshot of the state; say hello again");
}

void sessions_flush(struct replica *r) {
    for (struct worker_session *s = r->sessions; s; s = s->next) {
        worker_session_flush(s);
        session_reports_flush(s);
    }
}

/* ---- log requests ---------------------------------------------------------------------------- */

int worker_session_log_request(struct worker_session *s, uint64_t request_id, uint64_t job_seq,
                               uint32_t attempt, uint64_t fencing_token, uint64_t offset,
                               bool follow, bool cancel) {
    Chronos__V1__NodeMessage m = CHRONOS__V1__NODE_MESSAGE__INIT;
    Chronos__V1__NodeLogRequest q = CHRONOS__V1__NODE_LOG_REQUEST__INIT;
    Chronos__V1__AttemptRef ref = CHRONOS__V1__ATTEMPT_REF__INIT;
    char id[JOB_ID_BYTES_MAX];

    if (s->state != SESSION_ACTIVE)
        return REPLICA_REFUSED;
    worker_session_flush(s); /* it must know the attempt before it is asked for its output */
    if (worker_session_owes(s, job_seq))
        return REPLICA_REFUSED;
    job_id_format(job_seq, id);
    ref.job_id = id;
    ref.attempt = attempt;
    ref.fencing_token = fencing_token;
    q.request_id = request_id;
    q.attempt = &ref;
    q.offset = offset;
    q.follow = follow;
    q.cancel = cancel;
    m.body_case = CHRONOS__V1__NODE_MESSAGE__BODY_LOG_REQUEST;
    m.log_request = &q;
    worker_session_send(s, &m.base);
    return 0;
}

/* ---- dispatch -------------------------------------------------------------------------------- */

void worker_session_message(struct worker_session *s, struct slice message) {
    Chronos__V1__WorkerMessage *m;
    struct arena arena;

    if (s->state == SESSION_ENDED || s->replica->failed)
        return;
    s->replica->now = s->replica->env.clock.mono(s->replica->env.clock.ctx);
    s->replica->wants_turn = true;
    arena_init(&arena, ARENA_BYTES_MAX);
    m = chronos__v1__worker_message__unpack(arena_pb(&arena), message.len, message.data);
    if (!m) {
        worker_session_end(s, CODE_INVALID_ARGUMENT, "malformed WorkerMessage");
        arena_done(&arena);
        return;
    }
    switch (m->body_case) {
    case CHRONOS__V1__WORKER_MESSAGE__BODY_HELLO:
        on_hello(s, m->hello);
        break;
    case CHRONOS__V1__WORKER_MESSAGE__BODY_HEARTBEAT:
        on_heartbeat(s, m->heartbeat);
        break;
    case CHRONOS__V1__WORKER_MESSAGE__BODY_REPORTS:
        if (session_reports_add(s, m->reports) < 0)
            worker_session_end(s, CODE_INVALID_ARGUMENT,
                               "reports: malformed, or too many unacknowledged");
        break;
    case CHRONOS__V1__WORKER_MESSAGE__BODY_LOG_DATA:
        logs_on_data(s->replica, s, m->log_data);
        break;
    case CHRONOS__V1__WORKER_MESSAGE__BODY__NOT_SET:
    case _CHRONOS__V1__WORKER_MESSAGE__BODY__CASE_IS_INT_SIZE:
        break; /* a message kind of a newer worker */
    }
    arena_done(&arena);
}

/* Log data is paced by its reader, not by the worker's stream. */
void worker_session_writable(struct worker_session *s) {
    s->blocked = false;
    s->replica->wants_turn = true;
}
