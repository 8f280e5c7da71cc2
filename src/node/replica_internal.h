/* The parts of a replica, for the files of node/ only. */
#pragma once

#include "base/buf.h"
#include "base/map.h"
#include "base/timer_heap.h"
#include "node/membership_internal.h"
#include "node/replica.h"
#include "node/snapshot_internal.h"
#include "node/ticks_internal.h"
#include "node/worker_session.h"
#include "sched/sched.h"
#include "storage/meta.h"

#include "chronos/internal/v1/peer.pb-c.h"
#include "chronos/v1/worker_service.pb-c.h"

/* Entry data of a COMMAND: this header, then the encoded LogCommand. The origin names the proposal
 * for the node that made it, whichever leader appended it and at whichever index, so that its
 * answer is found at apply and can never be another proposal's. docs/formats.md. */
#define ENTRY_HEADER_BYTES 16
#define ENTRY_HEADER_VERSION 1
#define ORIGIN_COUNTER_BITS 48 /* of an origin: node id above, counter below */
#define COMMAND_BYTES_MAX (WAL_RECORD_BYTES_MAX - 64U)

#define PEER_MESSAGE_VERSION 1
#define ARENA_BYTES_MAX (64UL * 1024 * 1024)
#define APPLY_ENTRIES_PER_TURN 4096
#define FORWARD_SEEN_MAX 16384
#define PROPOSE_BATCH 128
#define FORWARDED_MAX 4096 /* proposals a follower may have handed to a leader unanswered */

/* ---- proposals (proposals.c) -------------------------------------------------------------------
 *
 *              +--------- not leader / entry lost / leader lost (retry-safe) --------+
 *              v                                                                     |
 *   replica_propose -> QUEUED --- this node leads: raft took it ----------> APPENDED-+
 *                        |                                                    ^   |
 *                        +------- sent to the leader ----> FORWARDED -accepted+   |
 *                                                              |                  |
 *   deadline in QUEUED: NO_LEADER; in the others: UNKNOWN      +-- applied: OK <--+
 */
enum proposal_state { PROPOSAL_QUEUED, PROPOSAL_FORWARDED, PROPOSAL_APPENDED };

struct proposal {
    struct timer_entry timer;
    struct proposal *prev, *next; /* in queue (QUEUED) or in flight (else) */
    enum proposal_state state;
    unsigned flags;
    uint64_t origin;
    uint32_t forwards;  /* times it was sent to a leader */
    struct bytes *data; /* owned; header + command */
    bool maybe_taken;   /* an earlier try may still commit: never say "not submitted" */
    uint64_t term;      /* APPENDED */
    uint64_t index;     /* APPENDED */
    replica_propose_fn done;
    void *arg;
};

struct proposal_list {
    struct proposal *head, *tail;
    size_t count;
};

struct proposals {
    struct proposal_list client;   /* the channel */
    struct proposal_list internal; /* goes first */
    struct proposal_list in_flight;
    struct u64map by_origin;
    struct timer_heap deadlines;
    uint64_t next_origin;
    size_t forwarded; /* in state FORWARDED */
    bool raft_full;   /* do not try again before something commits */
};

/* ---- proposals of other nodes (forwards.c) --------------------------------------------------- */

struct forwarded_in {
    uint64_t from;
    uint64_t id;
    uint32_t attempt;
    struct bytes *data; /* owned; header + command */
};

struct forwards {
    struct forwarded_in *inbox; /* owned; waiting for this turn's drain */
    size_t inbox_count, inbox_cap;
    /* Sendings (origin and attempt) handled here, newest FORWARD_SEEN_MAX: a repeated one is not
     * appended again, nor refused after it had been appended. */
    struct u64map seen;
    uint64_t *seen_ring; /* owned; FORWARD_SEEN_MAX slots, 0 = empty */
    size_t seen_next;
};

/* ---- persistence (effects.c) ----------------------------------------------------------------- */

struct persist_batch {
    struct persist_batch *next;
    uint64_t seq;
    uint64_t install_index; /* not 0: begins with the staged snapshot of this entry */
    uint64_t install_term;
    bool hard_state_changed;
    struct raft_hard_state hard_state;
    uint64_t truncate_from;
    size_t count;
    struct raft_entry entries[]; /* data referenced */
};

struct delayed_message {
    struct delayed_message *next;
    uint64_t after_seq;
    uint64_t to;
    size_t len;
    uint8_t data[]; /* packed RaftMessage */
};

/* What a job on the disk thread does. Everything but a commit goes between commits. */
enum persist_kind { PERSIST_COMMIT, PERSIST_PREPARE, PERSIST_RELEASE, PERSIST_SCRUB, PERSIST_MARK };

struct persist {
    struct disk_job job; /* in flight when busy */
    struct replica *replica;
    bool busy;
    enum persist_kind kind;            /* of the job in flight, or of the last one */
    bool wants_prepare;                /* as wal_wants_prepare() said at the end of the last job */
    size_t prepare_debt;               /* log bytes written since the last step of preparing */
    struct persist_batch *head, *tail; /* waiting for the next job */
    struct persist_batch *running;     /* of the job in flight */
    uint64_t durable_seq;
    bool release_wanted; /* of segments up to release_to, but for release_keep bytes */
    uint64_t release_to, release_keep;
    uint64_t job_release_to, job_release_keep; /* the disk thread's */
    struct raft_hard_state saved;              /* in the meta file; the disk thread's while busy */
    struct log_facts job_log;                  /* the disk thread's */
    struct log_facts log;                      /* after the last job */
    struct delayed_message *delayed_head, *delayed_tail;
    struct mono no_space_said; /* not again before: each commit would */
    bool marked;               /* the meta file knew all that was durable after the last job */
    struct mono mark_at;       /* when it is told the rest */
    int result;
    struct errtext error;
};

/* ---- peers (peers.c) ------------------------------------------------------------------------- */

struct peer {
    uint64_t id;
    bool up;
    struct buf outbox; /* PeerMessage bytes of this turn, field by field */
    bool facts_known;
    char version[64];
    char client_address[RAFT_ADDRESS_BYTES_MAX];
    uint64_t applied_index;
    uint64_t digest_index;
    uint64_t digest_low, digest_high;
    uint8_t disk[16];
    char peer_address[RAFT_ADDRESS_BYTES_MAX]; /* as it says itself */
    uint32_t feature_max;
    int64_t clock_offset_ms; /* its wall clock minus this node's, when it last told */
    char alarms[512];        /* as it last told, one a line */
    uint64_t disk_free_bytes;
    bool send_facts;
    /* Where it is looked for (peer_set.c). */
    char address[RAFT_ADDRESS_BYTES_MAX], other_address[RAFT_ADDRESS_BYTES_MAX];
    char hello_address[RAFT_ADDRESS_BYTES_MAX]; /* as its last hello said */
    bool member;                                /* of the configuration in force */
    bool told_removed;                          /* it answered that it knows */
    struct mono keep_till;                      /* no member: dropped then */
};

struct peer_call { /* a call to another node, waiting for replies */
    struct timer_entry timer;
    uint64_t id;
    uint64_t peer;
    /* @code canonical gRPC code; @more: further replies follow. Last call has more = false. */
    void (*done)(void *arg, uint32_t code, struct slice body, bool more);
    void *arg;
};

enum peer_call_kind {
    PEER_CALL_STATUS = 1,
    PEER_CALL_LOGS = 2,
    PEER_CALL_CANCEL = 3,
    PEER_CALL_CHANGE = 4,   /* body ChangeCall, reply ChangeReply */
    PEER_CALL_TRANSFER = 5, /* body TransferCall, reply ChangeReply */
    PEER_CALL_REMOVED = 6   /* body RemovedCall */
};

struct served_logs { /* a LOGS call of a peer that this node serves */
    struct served_logs *next;
    struct replica *replica;
    uint64_t peer;
    uint64_t call_id;
    Chronos__Internal__V1__LogsCall *call; /* not yet started: waits for applied_index */
    struct replica_logs *logs;             /* NULL before */
};

/* ---- reads (reads.c) ------------------------------------------------------------------------- */

struct pending_read {
    struct timer_entry timer;
    struct pending_read *prev, *next;
    uint64_t context; /* 0 = not yet handed to raft */
    bool confirmed;
    uint64_t index; /* confirmed: answer once applied */
    replica_read_fn done;
    void *arg;
};

struct reads {
    struct pending_read *head, *tail;
    size_t count;
    size_t unasked; /* with context 0 */
    struct timer_heap deadlines;
    uint64_t next_context;
    struct mono retry_at;
};

/* ---- event ring (events.c) ------------------------------------------------------------------- */

struct event_chunk {
    struct event_chunk *next;
    size_t count;
    size_t cap;
    struct replica_event events[];
};

struct events {
    struct event_chunk *head, *tail;
    size_t chunks;
    size_t chunks_max;
    uint64_t oldest; /* cursor before the first event kept */
    struct replica_listener *listeners;
    bool added;
};

/* ---- workers (worker_session.c, leases.c, scheduler.c) --------------------------------------- */

struct lease {
    char *worker_id; /* owned; key of the map */
    uint64_t incarnation;
    uint64_t registered_index; /* of the hello it began with, or that it knew of */
    struct mono last_beat;
    bool beaten;   /* a heartbeat or registration came in this leader's term */
    bool losing;   /* LoseWorker proposed */
    bool draining; /* this process of the worker is stopping: no more work (C36) */
};

struct leases {
    struct bytesmap by_worker; /* struct lease */
    struct mono check_at;
};

struct scheduler {
    struct sched *sched;
    bool dirty;
    size_t plans_in_flight;
};

struct replica {
    struct replica_options o;
    struct env env;
    struct kv *kv; /* borrowed */
    char *version;
    char *client_address;
    struct raft *raft;
    struct fsm *fsm;
    struct wal *wal;
    struct meta *meta;
    struct mono now; /* of the turn in progress */
    bool wants_turn;
    int failed;
    struct errtext failure;
    uint64_t incarnation;

    struct persist persist;
    struct snapshots snapshots;
    struct transfers transfers;
    struct receive receive;
    struct disk_space disk_space;
    struct scrub scrub;
    struct proposals proposals;
    struct forwards forwards;
    struct reads reads;
    struct events events;
    struct leases leases;
    struct scheduler scheduler;
    struct ticks ticks;
    size_t disk_jobs; /* in flight beside persist: loads, log listings */

    struct peer peers[PEERS_MAX];
    size_t peers_count;
    struct membership membership;
    struct raft_config hints; /* copied */
    uint8_t disk[16];         /* incarnation of the data directory */
    char *peer_address;
    struct u64map peer_calls;
    struct timer_heap peer_call_deadlines;
    uint64_t next_peer_call;
    struct served_logs *served_logs;
    struct mono facts_at;

    struct worker_session *sessions; /* all */
    struct replica_logs *logs;       /* all open local log requests */
    uint64_t next_log_request;

    bool spread_commit; /* something applied this turn is awaited on other nodes */
    uint64_t apply_target;
    uint64_t applied_term;
    bool was_leader;
    struct arena arena;    /* scratch within one function */
    struct arena rx_arena; /* the peer message being handled */
    uint64_t bad_messages; /* dropped from peers */
};

/* Stop for good: the host sees it after the turn. The first reason wins. */
void replica_fail(struct replica *r, int err, const char *fmt, ...) _printf_(3, 4);

/* effects.c */
int replica_step(struct replica *r, const struct raft_event *ev, const struct raft_effects **ret);
void persist_start(struct replica *r);
struct mono persist_deadline(const struct replica *r);
/* The last writes of an orderly stop: nothing of the log can be taken for a torn tail. */
int persist_settle(struct replica *r, struct errtext *reterr) _must_check_;
void persist_free(struct replica *r);

/* proposals.c */
int proposals_init(struct replica *r) _must_check_;
void proposals_free(struct replica *r);
void proposals_drain(struct replica *r);
void proposals_expire(struct replica *r);
/* Offer @n entries, at most PROPOSE_BATCH, to raft, which takes all or none and refers to their
 * data. True when they were appended, at *ret_index and behind it, in *ret_term; else *ret_result
 * says why not. */
bool proposals_append(struct replica *r, const struct raft_entry *entries, size_t n,
                      enum raft_propose_result *ret_result, uint64_t *ret_index,
                      uint64_t *ret_term);
/* An applied COMMAND entry with this origin: answers the proposal when it is ours. */
void proposals_applied(struct replica *r, uint64_t origin, uint64_t index,
                       const struct fsm_output *out);
/* Entries of @term are being applied: what was appended in older terms beyond is lost. */
void proposals_term_applied(struct replica *r, uint64_t term, uint64_t index);
void proposals_leader_changed(struct replica *r);
/* A snapshot replaced the entries up to @index, the last one of @term: what was in them is unknown.
 */
void proposals_skipped(struct replica *r, uint64_t index, uint64_t term);
void proposals_on_forward_result(struct replica *r,
                                 const Chronos__Internal__V1__ForwardResult *res);

/* forwards.c */
/* A proposal of @from, borrowed for the call: kept for the drain; dropped when it was here before,
 * is malformed or does not fit into memory. */
void forwards_on_proposal(struct replica *r, uint64_t from,
                          const Chronos__Internal__V1__ForwardProposal *m);
/* What came this turn goes into the log. Refused ones are answered: their own node keeps them. */
void forwards_drain(struct replica *r);
void forwards_free(struct replica *r);

/* reads.c */
void reads_drain(struct replica *r);
void reads_expire(struct replica *r);
void reads_on_result(struct replica *r, const struct raft_read *res);
void reads_answer(struct replica *r);
void reads_free(struct replica *r);

/* events.c */
int events_init(struct replica *r, size_t max) _must_check_;
void events_add(struct replica *r, uint64_t index, const struct fsm_output *out);
void events_notify(struct replica *r);
/* Forget all: the transitions up to the applied index were never seen. Readers are told. */
void events_reset(struct replica *r);
void events_free(struct replica *r);

/* apply.c */
void apply_committed(struct replica *r);

/* peers.c */
void peer_init(struct peer *p, uint64_t id);
void peers_free(struct replica *r);
struct peer *peer_find(struct replica *r, uint64_t id);
void peers_queue_raft(struct replica *r, const struct raft_message *m);
void peers_queue_packed_raft(struct replica *r, uint64_t to, const uint8_t *data, size_t len);
/* Append one field (a packed sub-message) of PeerMessage to a peer's outbox. */
void peers_queue_field(struct replica *r, uint64_t to, uint32_t field,
                       const ProtobufCMessage *message);
void peers_flush(struct replica *r);
void peers_send_facts(struct replica *r);
size_t peers_pack_raft(struct replica *r, const struct raft_message *m, struct buf *out);

/* peer_calls.c */
int peer_call_start(struct replica *r, uint64_t peer, enum peer_call_kind kind, struct slice body,
                    struct mono deadline,
                    void (*done)(void *arg, uint32_t code, struct slice body, bool more), void *arg,
                    uint64_t *ret_id) _must_check_;
void peer_call_forget(struct replica *r, uint64_t id); /* no further callback */
void peer_calls_on_call(struct replica *r, uint64_t from,
                        const Chronos__Internal__V1__PeerCall *call);
void peer_calls_on_reply(struct replica *r, uint64_t from,
                         const Chronos__Internal__V1__PeerReply *reply);
void peer_calls_expire(struct replica *r);
void peer_calls_link_down(struct replica *r, uint64_t peer);
void peer_calls_reply(struct replica *r, uint64_t to, uint64_t id, uint32_t code,
                      const char *message, struct slice body, bool more);
void peer_calls_free(struct replica *r);

/* leases.c */
void leases_reset(struct replica *r);
void leases_free(struct replica *r);
/* Leader: a beat of a worker. True when the worker is registered and live here. */
bool leases_beat(struct replica *r, const char *worker_id, uint64_t incarnation, bool draining);
void leases_check(struct replica *r);
void leases_workers_changed(struct replica *r);
bool leases_alive(struct replica *r, const struct fsm_worker *w);
/* It said that it is stopping. */
bool leases_draining(struct replica *r, const struct fsm_worker *w);
int64_t leases_age_ms(struct replica *r, const char *worker_id);

/* scheduler.c */
void scheduler_run(struct replica *r);
void scheduler_reset(struct replica *r);
bool replica_leads(const struct replica *r); /* leader, and its term's first entry is applied */

/* worker_session.c */
void sessions_on_event(struct replica *r, const struct fsm_event *e);
void sessions_flush(struct replica *r);
void sessions_beat_acked(struct replica *r, const Chronos__Internal__V1__WorkerBeat *beat);
void sessions_workers_changed(struct replica *r);
/* The state jumped: workers say hello again and are told what is theirs. */
void sessions_restart(struct replica *r);
struct worker_session *sessions_find(struct replica *r, const char *worker_id);
int worker_session_log_request(struct worker_session *s, uint64_t request_id, uint64_t job_seq,
                               uint32_t attempt, uint64_t fencing_token, uint64_t offset,
                               bool follow, bool cancel);

/* logs.c */
void logs_on_data(struct replica *r, const struct worker_session *s,
                  const Chronos__V1__WorkerLogData *d);
void logs_session_gone(struct replica *r, const struct worker_session *s);
void logs_serve(struct replica *r, uint64_t from, uint64_t call_id, struct slice body);
void logs_serve_ready(struct replica *r);
void logs_serve_cancel(struct replica *r, uint64_t from, uint64_t call_id);
void logs_free(struct replica *r);

/* status.c */
void status_serve(struct replica *r, uint64_t from, uint64_t call_id);
