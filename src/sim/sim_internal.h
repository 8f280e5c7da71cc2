/* The parts of a world, for the files of sim/ only. */
#pragma once

#include "sim/world.h"

#include "base/timer_heap.h"

#include "chronos/v1/worker_service.pb-c.h"

struct world;

enum sim_event_type {
    SIM_NODE_WAKE,
    SIM_NODE_RESTART,
    SIM_DELIVER,
    SIM_LINK,
    SIM_DISK_RUN,
    SIM_DISK_DONE,
    SIM_CLIENT,
    SIM_WORKER_WAKE,
    SIM_TO_WORKER,
    SIM_FROM_WORKER,
    SIM_FAULT
};

struct sim_event {
    struct timer_entry timer;
    uint64_t seq; /* breaks ties, so that order never depends on memory */
    enum sim_event_type type;
    unsigned a, b;       /* nodes, worker or client */
    uint64_t generation; /* of the node's life, the link or the session: older ones are dropped */
    struct bytes *payload;
};

struct sim_node {
    struct world *world;
    unsigned slot; /* id - 1 */
    bool up;
    uint64_t life; /* grows with each start */
    struct replica *replica;
    struct sim_disk *disk;
    struct kv *kv;
    struct logger log;
    int64_t wall_offset_ms;
    uint64_t wake_at; /* ns of the wake-up that is armed */
    uint64_t wake_gen;
    struct disk_job *job_head, *job_tail; /* submitted, not yet done */
    bool job_running;                     /* a RUN or DONE event is on its way */
    bool job_ran;                         /* RUN happened, DONE not yet */
    uint64_t disk_slow_until;
    /* what the checkers remember */
    uint64_t sent_term; /* the highest any message promised; survives crashes */
    uint64_t seen_term, seen_commit, seen_applied, checked_last;
    uint64_t events_cursor;
    bool seen_leader;
};

struct sim_attempt {
    struct sim_attempt *next;
    uint64_t seq;
    uint32_t attempt;
    uint64_t token;
    uint64_t ends_at;
    bool ended;
    bool cancelled;
    uint64_t report_at;
};

/* A fake worker: runs attempts for a while, reports until acknowledged, sometimes dies. */
struct sim_worker {
    struct world *world;
    unsigned slot;
    char id[32];
    uint64_t incarnation;
    uint32_t slots;
    bool up;
    unsigned node; /* of the session */
    struct worker_session *session;
    uint64_t session_gen; /* grows with each session: messages of older ones are dropped */
    bool session_ended;   /* the node ended it; freed at the next wake */
    bool welcomed;
    uint64_t to_worker_at, from_worker_at; /* a stream keeps its order */
    uint64_t next_beat;
    struct sim_attempt *attempts;
};

enum sim_op_state { OP_PENDING, OP_ACKED, OP_UNKNOWN, OP_REFUSED };

struct sim_op { /* one submit and all its tries */
    unsigned number;
    bool keyed;
    enum sim_op_state state;
    unsigned tries;
    uint64_t job_seq;
    uint64_t begun_at;
};

struct sim_client {
    struct world *world;
    unsigned slot;
    uint64_t next_at;
    unsigned in_flight;
};

struct ghost_entry {
    uint64_t term;
    uint64_t hash;
};

struct checker {
    struct u64map leader_of_term;  /* term -> id */
    struct ghost_entry *committed; /* by index */
    size_t committed_cap;
    uint64_t committed_count; /* highest index known committed */
    struct u64map votes;      /* node and term -> candidate, from sent replies */
    struct u64map digests;    /* applied index -> digest's low half, never 0 */
    struct u64map entry_hash; /* hash(index, term) -> hash of content and of the one before */
    struct u64map job_state;  /* job -> struct job_ghost */
    uint64_t acked_index;     /* highest index acknowledged to any client */
};

struct job_ghost {
    uint64_t token;
    uint64_t index; /* of the last event seen */
    int state;
};

struct world {
    struct sim_options o;
    struct sim_result *result;
    struct rng rng;
    uint64_t now_ns;
    struct timer_heap heap;
    uint64_t next_seq;
    unsigned nodes_count;
    struct sim_node nodes[SIM_NODES_MAX];
    unsigned workers_count;
    struct sim_worker workers[SIM_NODES_MAX];
    unsigned clients_count;
    struct sim_client clients[SIM_CLIENTS_MAX];
    struct sim_op ops[SIM_OPS_MAX];
    unsigned ops_count;
    unsigned ops_pending;
    /* faults */
    bool healing;                               /* the liveness phase: no new faults */
    bool blocked[SIM_NODES_MAX][SIM_NODES_MAX]; /* from, to: nothing gets through */
    uint64_t link_gen[SIM_NODES_MAX][SIM_NODES_MAX];
    uint32_t loss_permille, dup_permille, slow_permille;
    uint64_t delay_max_ns, disk_max_ns;
    uint64_t fault_interval_ns;
    uint64_t seed_pool;
    size_t applied_kept;
    uint32_t segment_bytes;
    struct checker checker;
    bool failed;
    bool no_memory;
    struct arena arena;
};

/* world.c */
void sim_fail(struct world *w, const char *fmt, ...) _printf_(2, 3);
void sim_trace(struct world *w, const char *fmt, ...) _printf_(2, 3);
void sim_push(struct world *w, uint64_t delay_ns, enum sim_event_type type, unsigned a, unsigned b,
              uint64_t generation, struct bytes *payload);

/* sim_node.c */
bool sim_node_start(struct sim_node *n);
void sim_node_crash(struct sim_node *n, bool power_cut);
void sim_node_turn(struct sim_node *n);
void sim_node_disk_run(struct sim_node *n);
void sim_node_disk_done(struct sim_node *n);
void sim_node_deliver(struct sim_node *n, unsigned from, struct bytes *payload);
void sim_node_free(struct sim_node *n);

/* sim_worker.c */
void sim_worker_start(struct sim_worker *wk);
void sim_worker_wake(struct sim_worker *wk);
void sim_worker_receive(struct sim_worker *wk, struct slice message);
void sim_worker_node_gone(struct sim_worker *wk);
void sim_worker_kill(struct sim_worker *wk);
void sim_worker_free(struct sim_worker *wk);

/* sim_client.c */
void sim_client_act(struct sim_client *c);

/* checker.c */
void checker_init(struct checker *c);
void checker_done(struct checker *c);
void checker_node(struct world *w, struct sim_node *n);
void checker_restarted(struct world *w, struct sim_node *n);
void checker_sent(struct world *w, struct sim_node *n, struct slice payload);
void checker_final(struct world *w);
