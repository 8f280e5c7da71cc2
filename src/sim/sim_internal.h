/* The parts of a world, for the files of sim/ only. */
#pragma once

#include "sim/world.h"

#include "base/lease.h"
#include "base/timer_heap.h"
#include "sim/atlas.h"
#include "sim/conformance.h"
#include "sim/sim_kv.h"

#include "chronos/v1/worker_service.pb-c.h"

struct world;

enum sim_event_type {
    SIM_NODE_WAKE,
    SIM_NODE_RESTART,
    SIM_DELIVER,
    SIM_LINK,
    SIM_LINK_DOWN,
    SIM_BULK,
    SIM_FLAP,
    SIM_DISK_RUN,
    SIM_DISK_DONE,
    SIM_BULK_RUN,
    SIM_BULK_DONE,
    SIM_OPERATOR,
    SIM_CLIENT,
    SIM_WORKER_WAKE,
    SIM_TO_WORKER,
    SIM_FROM_WORKER,
    SIM_FAULT,
    SIM_NODE_RESUME
};

#define SIM_ADDRESS_BYTES 24
/* b of a SIM_FAULT: this one, not a drawn one. */
#define SIM_FAULT_LEADER 1
#define SIM_FAULT_DISK 2 /* the menu of disks */
#define SIM_FAULT_ROOM 3 /* the disk of node a has room again */

/* What became of a frame on its way. */
enum sim_damage {
    SIM_INTACT,
    SIM_FLIPPED, /* other bytes than were sent */
    SIM_CUT      /* the connection ended in its midst */
};

struct sim_event {
    struct timer_entry timer;
    uint64_t seq; /* breaks ties, so that order never depends on memory */
    enum sim_event_type type;
    unsigned a, b;       /* nodes, worker or client */
    uint64_t generation; /* of the node's life, the link or the session: older ones are dropped */
    uint64_t append;     /* number of the AppendEntries inside on its link, 0 = none */
    enum sim_damage damage; /* not SIM_INTACT: payload is the frame, not the message in it */
    struct bytes *payload;
    struct sim_event *next; /* while it waits for a paused node */
};

/* Disk jobs of one thread of a node: one at a time, in order. */
struct sim_queue {
    struct disk_job *head, *tail; /* submitted, not yet done */
    bool running;                 /* a RUN or DONE event is on its way */
    unsigned gen;                 /* an older RUN event is void */
    bool ran;                     /* RUN happened, DONE not yet */
    uint64_t slow_until;
    bool bulk;
};

/* What one node has towards another: its ordinary connection and its bulk connection. */
struct sim_link {
    bool peer; /* the node was told of the other by set_peer */
    char address[SIM_ADDRESS_BYTES], other_address[SIM_ADDRESS_BYTES];
    bool up, told_up;  /* what is, and what the node has been told */
    bool trying;       /* a connect is on its way */
    bool blocked;      /* by a partition: nothing gets through, */
    bool flap_down;    /* nor while a link that flaps is down, */
    bool broken;       /* nor where it is so for good */
    bool flap_in_step; /* with others: the time of a turn is exact */
    uint64_t flap_gen, flap_half_ns, flap_until;
    uint64_t slow_until, slow_extra_ns, slow_bytes_per_ms;
    uint64_t busy_until; /* while slow: the last byte that waits is through */
    uint64_t gen;        /* of the connection: messages of older ones are lost */
    /* Plus 1, 0 = none: an older one whose messages still arrive until a new one is taken. */
    uint64_t lingering;
    uint64_t last_at; /* arrival of the newest message, for order */
    uint64_t append_sent, append_got;
    uint64_t bulk_gen;
    uint64_t bulk_at;
    uint64_t bulk_down_until;
    unsigned bulk_queued;
};

/* What a leader has to do, and since when that is so without anything being on its way. */
struct sim_duty {
    uint64_t key; /* 0 = nothing */
    uint64_t since;
    unsigned seen; /* how often it was looked at closely */
};

struct sim_node {
    struct world *world;
    unsigned slot; /* id - 1 */
    bool up;
    uint64_t life; /* grows with each start */
    struct replica *replica;
    struct sim_disk *disk;
    struct sim_kv *kv;
    struct logger log;
    int64_t wall_offset_ms; /* its wall clock against the world's; see sim_clock.c */
    int64_t drift_ppm, strobe_ms;
    uint64_t drift_since, strobe_until;
    uint64_t strobe_period_ns;
    uint64_t mono_at, mono_since; /* its monotonic clock, and when of the world's it showed that */
    int64_t mono_ppm;             /* how much faster it runs since */
    bool paused;
    bool leads;                                /* it said so last */
    uint64_t paused_at, resumed_at, paused_ns; /* the last: of all pauses that are over */
    uint64_t pauses;
    struct sim_event *held_first, *held_last; /* owned: what waits for it while it is paused */
    uint32_t feature_max;                     /* newest level its program knows */
    uint64_t clock_odd_until; /* it may have gone back between a plan and its stamp */
    uint64_t wake_at;         /* ns of the wake-up that is armed */
    uint64_t wake_gen;
    struct sim_queue disk_jobs, bulk_jobs;
    bool fresh;             /* not of the first configuration: starts with join */
    bool wiped;             /* its disk was erased: what it was is forgotten */
    bool gone;              /* stopped for good */
    bool broken;            /* not healed at the end, see liveness.c */
    bool joined;            /* some configuration was seen that has it */
    unsigned address;       /* number of moves */
    uint64_t isolated_term; /* when it was cut off from all others, 0 = it is not */
    uint64_t isolated_life;
    /* what the checkers remember */
    uint64_t sent_term;               /* the highest any message promised; survives crashes */
    uint64_t acked_index, acked_term; /* newest entry it acknowledged; survives crashes */
    uint64_t last_in_memory;          /* at the crash */
    uint64_t seen_term, seen_commit, seen_applied;
    uint64_t told_durable;          /* in the trace */
    struct raft_config seen_config; /* when seen_config_index != 0 */
    uint64_t seen_config_index, seen_config_at;
    uint64_t seen_flushes, seen_base;
    unsigned installs;   /* finished, in all lives */
    uint64_t installing; /* raft has begun anew after this entry, the state is not there yet */
    uint64_t receiving;  /* number of the transfer that is coming in, 0 = none */
    uint64_t sent_transfer, sent_sequence; /* newest block sent */
    uint64_t events_cursor;
    int64_t events_at_ms;
    bool seen_leader;
    uint64_t seen_backlog; /* entries that were not committed */
    uint64_t registered_index[SIM_WORKERS_MAX], registered_at[SIM_WORKERS_MAX]; /* by worker */
    uint64_t leads_term, leads_at;      /* 0 = it does not lead; of its clock */
    uint64_t heard_at[SIM_WORKERS_MAX]; /* by worker: as leader, of its clock */
    struct sim_duty waits, hands_over, silent[SIM_WORKERS_MAX];
    struct ghost_entry *chain; /* owned: its log as last looked at, by index */
    size_t chain_cap;
    uint64_t chain_last;
    struct atlas_node atlas;
    uint64_t seen_durable, durable_at; /* of its clock: when that last changed, or was all */
    uint64_t durable_paused_ns;
};

struct ghost_entry {
    uint64_t term;
    uint64_t hash;         /* of this entry and all before it */
    uint64_t config_index; /* of the newest configuration up to here; 0 = not known */
    uint64_t committed_in; /* the ghost's: a term in which it was committed, perhaps a later one */
};

struct sim_attempt {
    struct sim_attempt *next;
    uint64_t seq;
    uint32_t attempt;
    uint64_t token;
    uint64_t ends_at;
    bool ended;
    bool lease_lost;      /* asked to end, which it does not: it is killed a little later */
    bool late;            /* no longer its own, but it reports all the same */
    int outcome;          /* once ended: Chronos__V1__AttemptOutcome */
    uint64_t reported_on; /* the stream, plus 1; 0 = not yet */
    bool started;         /* with RELEASED: it says that it had begun */
    size_t history;       /* of its report: place in the history plus 1; 0 = none */
};

/* A fake worker: runs attempts for a while, reports until acknowledged, sometimes dies. */
struct sim_worker {
    struct world *world;
    unsigned slot;
    char id[32];
    uint64_t incarnation;
    uint64_t hellos; /* said so far */
    uint32_t slots;
    bool up;
    unsigned node; /* of the session */
    struct worker_session *session;
    uint64_t session_gen; /* grows with each session: messages of older ones are dropped */
    bool session_ended;   /* the node ended it; freed at the next wake */
    bool welcomed;
    uint64_t to_worker_at, from_worker_at; /* a stream keeps its order */
    uint64_t next_beat;
    uint64_t beats;         /* on this stream */
    struct lease lease;     /* production's arithmetic, over a clock of its own */
    struct mono hello_sent; /* by that clock */
    uint64_t lease_wake_at; /* it will look at its lease then */
    int64_t mono_ppm;       /* how much faster that clock runs than the world's */
    uint64_t silent_until;  /* stopped: hears and says nothing, loses nothing, ends nothing */
    bool stopped;           /* since then it has not looked at its lease */
    struct sim_attempt *attempts;
};

enum sim_op_state { OP_PENDING, OP_ACKED, OP_UNKNOWN, OP_REFUSED };

struct sim_op { /* one submit and all its tries */
    unsigned number;
    bool keyed;
    uint32_t max_attempts;
    enum sim_op_state state;
    unsigned tries;
    uint64_t job_seq;
};

struct sim_client {
    struct world *world;
    unsigned slot;
    uint64_t next_at;
    unsigned in_flight;
    uint64_t seen_index; /* newest index of an answer: its session's token (J22) */
};

struct checker {
    struct u64map leader_of_term;  /* term -> id */
    struct ghost_entry *committed; /* by index */
    size_t committed_cap;
    uint64_t committed_count;    /* highest index known committed */
    struct u64map votes;         /* node and term -> candidate, from sent replies */
    struct u64map voters;        /* term and candidate -> bits of the nodes that voted for it */
    struct u64map digests;       /* applied index -> digest's low half, never 0 */
    struct u64map entry_content; /* index and term -> hash of type and data */
    struct u64map entry_chain;   /* index and term -> hash of the whole log up to there */
    struct u64map candidates;    /* term -> first candidate; term and id -> its last entry */
    struct u64map contested;     /* terms counted as such */
    struct u64map events_hash;   /* index -> hash of the events it made */
    struct u64map started;       /* job and token -> worker and incarnation that runs it */
    struct u64map job_state;     /* job -> struct job_ghost */
    uint64_t acked_index;        /* highest index acknowledged to any client */
    struct u64map configs;       /* index and term -> struct raft_config, owned */
    struct schedule_model *schedules;
    struct checker_model *model; /* of jobs */
    /* Bit sets of node ids: of the newest committed configuration, gone from one, and what
     * operators were told or asked for. */
    uint64_t ids_members, ids_removed;
    const struct raft_config *committed_config; /* the newest; NULL = none was seen yet */
    uint64_t ids_told_added, ids_told_removed, ids_asked_to_leave;
};

struct job_ghost {
    uint64_t token;
    uint64_t index; /* of the last event seen */
    uint64_t assigned_index;
    char worker[32];       /* of the newest assignment */
    uint64_t cancel_index; /* of an acknowledged cancel, 0 = none */
    uint64_t result_token; /* whose result was acknowledged to its worker, 0 = none */
    int result_outcome;
    int state;
};

/* A call of a client that is not answered yet. */
struct sim_call {
    struct sim_call *prev, *next; /* in the order of their begin */
    struct world *world;
    struct sim_op *op; /* submits */
    unsigned client;
    unsigned node;
    uint64_t begun_at, answer_by;
    uint64_t committed; /* reads: what was known committed anywhere when it began */
    uint64_t job_seq;   /* reads: a job that must be there; cancels: the job */
    unsigned installs;  /* submits: of the node when it began */
    uint64_t paused_ns; /* of its node when it began: a pause is nobody's delay */
    bool clash;         /* a submit with a key that belongs to another request */
    bool must_be_there; /* reads: the job was acknowledged */
    size_t history;     /* its place in the history plus 1; 0 = none */
};

struct world {
    struct sim_options o;
    struct sim_result *result;
    struct rng rng;
    uint64_t now_ns;
    struct timer_heap heap;
    uint64_t next_seq;
    unsigned same_instant; /* events since time last moved */
    unsigned first_count;  /* members of the first configuration: slots 0 .. first_count - 1 */
    unsigned nodes_count;  /* slots in use */
    struct sim_node nodes[SIM_SLOTS_MAX];
    struct sim_link links[SIM_SLOTS_MAX][SIM_SLOTS_MAX]; /* from, to */
    unsigned workers_count;
    struct sim_worker workers[SIM_WORKERS_MAX];
    unsigned clients_count;
    struct sim_client clients[SIM_CLIENTS_MAX];
    struct sim_op ops[SIM_OPS_MAX];
    unsigned ops_count;
    unsigned ops_pending;
    unsigned changes_pending; /* of them those of the operator */
    uint64_t operator_gap_ns; /* 0 = there is none */
    bool wipes_early;         /* its first deed; late_node is cut off until then */
    unsigned late_node;
    struct sim_call *calls_first, *calls_last;
    /* faults */
    bool healing;      /* the liveness phase: no new faults */
    bool calm;         /* a scenario is played: no faults but its own */
    bool busy;         /* and clients ask as often as ever, not a tenth of it */
    bool idle;         /* and clients ask for nothing */
    unsigned topology; /* 1 + its place in the table; 0 = none */
    /* Bit sets of node ids: voters that were ever asked to go, nodes that were to be voters. */
    uint64_t ids_may_leave, ids_may_come;
    uint32_t loss_permille, dup_permille, slow_permille;
    unsigned damage_one_in, cut_one_in; /* frames; 0 = none */
    uint64_t delay_max_ns, disk_max_ns;
    uint64_t fault_interval_ns;
    uint64_t disk_menu, disk_interval_ns; /* see faults_disk.c */
    uint64_t bulk_delay_max_ns, bulk_disk_max_ns;
    unsigned bulk_queue_max; /* messages */
    /* drawn settings of the nodes */
    struct replica_options node_options;
    uint64_t lease_ns, beat_ns, commit_timeout_ns;
    uint64_t client_gap_ns;
    uint64_t slow_ns;        /* at most, of a message that is slow */
    uint32_t long_permille;  /* of attempts that may outlive a lease */
    bool in_order;           /* links keep their order, as TCP does; else messages overtake */
    int key_digits;          /* of idempotency keys */
    uint32_t burst_permille; /* clients that submit many at once */
    uint64_t menu;           /* which faults are likely, see faults.c */
    uint64_t crash_one_in;   /* events: the node of one is killed right after it; 0 = none */
    uint64_t tail_until;     /* a long tail is being overtaken: no other partition until then */
    bool rolling;            /* the first members begin with an older program */
    uint32_t mono_ppm_max;   /* no two monotonic clocks differ by more than twice that */
    int64_t wall_base_ms;    /* of the wall clocks that are right, when the world begins */
    unsigned schedules;      /* names in use; 0 = there are none */
    unsigned schedule_keys;
    uint32_t schedule_permille; /* of what clients do */
    struct checker checker;
    struct conformance *conformance; /* owned */
    bool failed;
    bool no_memory;
    struct arena arena;
};

/* No new faults: a scenario is played, or the end has come. */
static inline bool sim_faultless(const struct world *w) {
    return w->healing || w->calm;
}

static inline void sim_count(struct world *w, enum sim_stat stat) {
    w->result->stats[stat]++;
}

/* world.c */
void sim_fail(struct world *w, const char *fmt, ...) _printf_(2, 3);
void sim_trace(struct world *w, const char *fmt, ...) _printf_(2, 3);
/* The event, for what is not said by the arguments; NULL when memory is out. */
struct sim_event *sim_push(struct world *w, uint64_t delay_ns, enum sim_event_type type, unsigned a,
                           unsigned b, uint64_t generation, struct bytes *payload);

/* Do what the event says, and free it. */
void sim_dispatch(struct world *w, struct sim_event *e);

bool sim_world_may_step(const struct world *w);
void sim_world_step(struct world *w);

/* liveness.c */
/* All faults end, every node is up. */
void liveness_end_faults(struct world *w);
/* The same for good, perhaps but for a minority. */
void liveness_heal(struct world *w);
void liveness_check(struct world *w);
/* A member with the disk it came with, and healed: what the end is judged by. */
bool sim_world_counts(const struct world *w, const struct sim_node *n);

/* faults.c */
void faults_draw(struct world *w, bool swarm);
/* As much as anything else. */
void faults_prefer_clocks(struct world *w);
void faults_next(struct world *w);
void faults_crash_leader(struct world *w);

/* faults_network.c */
void faults_heal_network(struct world *w);
void faults_isolate(struct world *w, unsigned a);
void faults_partition(struct world *w);
void faults_cut_leader(struct world *w);
void faults_partial_links(struct world *w);
void faults_break_link(struct world *w);
void faults_flap_link(struct world *w);
void faults_slow_link(struct world *w);
/* The node that leads, by its own belief; NULL when none does. Of several the one drawn. */
struct sim_node *faults_leader(struct world *w);

void faults_crash(struct world *w, struct sim_node *n, bool power_cut);

/* faults_process.c */
void faults_process_draw(struct world *w);
/* After each event. */
void faults_after(struct world *w, const struct sim_event *e);
void faults_pause(struct world *w);
/* True when the event has to wait, because its node is paused. */
bool faults_hold(struct world *w, struct sim_event *e);
void faults_long_tail(struct world *w);
void faults_resume(struct sim_node *n);
void faults_on_resume(struct world *w, const struct sim_event *e);
/* It was killed in a pause, perhaps. */
void faults_pause_killed(struct sim_node *n);
/* How long it was paused in all its lives. */
uint64_t faults_paused_ns(const struct sim_node *n);
bool faults_leads_beside(const struct world *w, const struct sim_node *n);
/* The newest level that the program knows which starts now. */
uint32_t faults_feature_max(struct sim_node *n);

/* faults_disk.c */
void faults_disk_start(struct world *w);
void faults_disk_next(struct world *w);
void faults_disk_room(struct sim_node *n);
/* All disks are as fast and as large as they should be. */
void faults_disk_heal(struct world *w);

/* sim_node.c */
bool sim_node_start(struct sim_node *n);
void sim_node_crash(struct sim_node *n, bool power_cut);
void sim_node_turn(struct sim_node *n);
/* A slot with an empty disk. False: memory. */
bool sim_node_make(struct world *w, unsigned slot);
void sim_node_deliver(struct sim_node *n, unsigned from, struct bytes *payload);
void sim_node_free(struct sim_node *n);

/* sim_jobs.c */
void sim_jobs_env(struct sim_node *n, struct env *env);
void sim_jobs_run(struct sim_node *n, struct sim_queue *q);
void sim_jobs_done(struct sim_node *n, struct sim_queue *q);
/* The disk is fast again, also for the job that has begun. */
void sim_jobs_hurry(struct sim_node *n, struct sim_queue *q);
/* Nothing of the queue ends before @until, what has begun included. */
void sim_jobs_hang(struct sim_node *n, struct sim_queue *q, uint64_t until);
/* Jobs in flight end against a dead disk, so that their memory comes back. */
void sim_jobs_abandon(struct sim_queue *q);

/* sim_net.c */
void sim_net_env(struct sim_node *n, struct env *env);
/* Connects of and to a node that has just started. */
void sim_net_started(struct sim_node *n);
/* All its connections break: it died, or (@to >= 0) the one to @to alone. */
void sim_net_died(struct sim_node *n);
void sim_net_break(struct sim_node *n, unsigned to);
/* The receiver has ended the connection of @from to @to. */
void sim_net_closed_by_receiver(struct world *w, unsigned from, unsigned to);
/* Nothing gets through at present, for whatever reason. */
bool sim_net_closed(const struct sim_link *l);
/* The direction goes down and up again every @half_ns, until @until_ns. */
void sim_net_flap(struct world *w, unsigned a, unsigned b, uint64_t half_ns, uint64_t until_ns);
/* The same with all links of @a at once, for ever. */
void sim_net_flap_node(struct world *w, unsigned a, uint64_t half_ns);
void sim_net_flap_end(struct sim_link *l);
void sim_net_on_flap(struct world *w, const struct sim_event *e);
void sim_net_break_bulk(struct world *w, unsigned from, unsigned to);
void sim_net_address(const struct sim_node *n, char ret[SIM_ADDRESS_BYTES]);
void sim_net_on_connect(struct world *w, const struct sim_event *e);
void sim_net_on_down(struct world *w, const struct sim_event *e);
void sim_net_on_deliver(struct world *w, struct sim_event *e);
void sim_net_on_bulk(struct world *w, struct sim_event *e);

/* sim_frame.c */
void sim_frame_draw(struct world *w, bool swarm);
/* What is sent of @payload (borrowed): a reference of it, or with *ret_damage a damaged frame. */
struct bytes *sim_frame_send(struct world *w, struct bytes *payload, enum sim_damage *ret_damage);
/* It arrived: the production codec must not take it for a message. */
void sim_frame_damaged(struct world *w, const struct sim_event *e);

/* sim_worker.c */
void sim_worker_start(struct sim_worker *wk);
void sim_worker_wake(struct sim_worker *wk);
void sim_worker_receive(struct sim_worker *wk, struct bytes *message);
void sim_worker_node_gone(struct sim_worker *wk);
void sim_worker_kill(struct sim_worker *wk);
void sim_worker_free(struct sim_worker *wk);

/* sim_client.c */
void sim_client_act(struct sim_client *c);
void sim_client_check_deadlines(struct world *w);
/* Many submits at one node. */
void sim_client_burst(struct world *w, struct sim_node *n, unsigned count);

/* checker.c */
void checker_init(struct checker *c);
void checker_done(struct checker *c);
void checker_node(struct world *w, struct sim_node *n);
void checker_restarted(struct world *w, struct sim_node *n);
bool checker_installing(const struct sim_node *n);
void checker_crashed(struct world *w, struct sim_node *n);
/* Remember @value under @key, or compare with what was remembered. False on difference. */
bool checker_remember(struct world *w, struct u64map *m, uint64_t key, uint64_t value);
uint64_t checker_entry_key(uint64_t index, uint64_t term);
uint64_t checker_content_hash(uint32_t type, struct slice data);

/* checker_members.c */
bool checker_quorum(const struct raft_config *c, uint64_t bits); /* bit of a node: 1 << id */
bool checker_quorum_of(const struct sim_node *n, uint64_t bits);
void checker_config_entry(struct world *w, struct sim_node *n, const struct raft_entry *e);
void checker_config_committed(struct world *w, struct sim_node *n, uint64_t index);
void checker_members(struct world *w, struct sim_node *n);
void checker_hello(struct world *w, struct sim_node *n, const struct sim_node *other,
                   const struct replica_hello *h, int rc, bool final);
void checker_stopped(struct world *w, struct sim_node *n, const char *why);
const struct raft_config *checker_config(const struct world *w);
void checker_members_final(struct world *w);

/* sim_operator.c */
/* A node that was never there before, with an empty disk. NULL: no room, or it did not start. */
struct sim_node *sim_operator_new_node(struct world *w);
/* Ask @n to change the membership; a node to be added is the one of that id. */
void sim_operator_ask(struct world *w, const struct sim_node *n, enum replica_change_kind kind,
                      uint64_t id, uint64_t within_ns);
void sim_operator_start(struct world *w);
void sim_operator_act(struct world *w);
/* Too few disks are left for some configuration a node goes by: nothing can be promised. */
bool sim_operator_quorum_lost(const struct world *w);

/* checker_wire.c */
/* True when an AppendEntries is inside. */
bool checker_sent(struct world *w, struct sim_node *n, struct slice payload);

/* checker_jobs.c */
void checker_jobs(struct world *w, struct sim_node *n);
void checker_started(struct world *w, const struct sim_worker *wk, uint64_t seq, uint32_t attempt,
                     uint64_t token);
unsigned checker_worker_slot(const char *id);
/* The node says that a worker's lease is over. */
void checker_worker_lost(struct world *w, struct sim_node *n, const char *fields);
void checker_result_acked(struct world *w, const struct sim_attempt *a);
void checker_cancelled(struct world *w, uint64_t seq, uint64_t index);
void checker_final(struct world *w);

/* checker_duties.c */
void checker_duties(struct world *w, struct sim_node *n);
/* A sign of life of the worker has come to @n; what a node forwards may have some. */
void checker_heard(struct sim_node *n, unsigned worker);
void checker_heard_from(struct world *w, struct sim_node *n, struct slice payload);
void checker_duties_final(struct world *w);

/* sim_schedules.c */
struct bytes *sim_schedules_draw(struct world *w, struct sim_node *n, unsigned *ret_flags);
void sim_schedules_done(struct world *w, const struct replica_proposed *res);

/* sim_clock.c */
/* Its monotonic clock; and how long of the world's time until it shows @at. */
struct mono sim_clock_mono(const struct sim_node *n);
uint64_t sim_clock_until(const struct sim_node *n, struct mono at);
/* The clock of a worker's host: one rate for the whole world, as far from the others' as a node's
 * may be. The same for it: its time, and how long until it shows @at. */
void sim_clock_worker_boot(struct sim_worker *wk);
struct mono sim_clock_worker(const struct sim_worker *wk);
uint64_t sim_clock_worker_until(const struct sim_worker *wk, struct mono at);
/* What @ns of a node's time may take longer, at most, of the world's. */
uint64_t sim_clock_slack(const struct world *w, uint64_t ns);
void sim_clock_boot(struct sim_node *n);
void sim_clock_draw(struct world *w);
struct wall sim_clock_wall(const struct sim_node *n);
void sim_clock_fault(struct sim_node *n);
void sim_clock_leap(struct world *w);
void sim_clock_heal(struct sim_node *n);
void sim_clock_env(struct env *env);

/* checker_schedules.c */
/* @all: its whole history, not only what is new. */
void checker_schedules(struct world *w, struct sim_node *n, bool all);
/* Everything due has its outcome, as far as can be told. */
bool checker_schedules_settled(struct world *w, uint64_t applied);
/* For the trace. */
void checker_schedules_tell(struct world *w);
void checker_schedules_end(struct world *w);
void checker_schedules_final(struct world *w, struct sim_node *n);
