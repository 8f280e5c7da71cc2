/* One to three real replicas over a simulated disk, a memory store and a hand-driven clock and
 * network, for the tests of node/. Nothing moves but by the calls below. */
#pragma once

#include "fake_zones.h"
#include "held_jobs.h"
#include "node/replica.h"
#include "node/worker_session.h"
#include "sim/sim_disk.h"

#include "chronos/v1/worker_service.pb-c.h"

#define NODE_WORLD_MAX 3
#define NODE_WORLD_MESSAGES 4096

struct node_world;

struct node_world_node {
    struct node_world *world;
    uint64_t id;
    struct replica *replica;
    struct sim_disk *disk;
    struct kv *kv;
    struct logger log;
    struct held_jobs jobs, bulk;
    bool hold_disk;    /* jobs wait */
    bool hold_bulk;    /* those of the bulk thread */
    bool bulk_counted; /* only bulk_budget more of them run */
    unsigned bulk_budget;
    bool bulk_full;                 /* send_bulk takes nothing */
    bool may_fail;                  /* a test that expects it */
    bool joins;                     /* not in the first configuration: it waits to be added */
    bool down;                      /* between a crash and the start after it */
    uint64_t disk_free, disk_total; /* total 0: as the simulated disk says */
    struct disk_ops disk_ops;
    uint64_t random;
    int64_t wall_off_ms;       /* its wall clock is that much ahead */
    struct fake_zone zones[2]; /* Europe/Berlin, at first without a file */
};

struct node_world_message {
    uint64_t from, to;
    bool bulk;
    struct bytes *payload;
};

struct node_world {
    uint64_t now_ns;
    unsigned count;
    struct node_world_node nodes[NODE_WORLD_MAX];
    bool cut[NODE_WORLD_MAX][NODE_WORLD_MAX]; /* from, to: lost */
    struct node_world_message queue[NODE_WORLD_MESSAGES];
    size_t head, tail;
    struct replica_options options; /* change before node_world_open() */
    struct raft_config config;      /* of the bootstrap; may be set before node_world_open() */
    bool hold_delivery;             /* messages wait */
    bool lose_bulk;                 /* the bulk connections are broken: what is sent is lost */
    uint64_t bulk_sent, bulk_lost;  /* messages */
    size_t bulk_bytes_max;          /* largest sum of bulk messages on the way at one time */
    size_t bulk_bytes;              /* on the way now */
};

void node_world_init(struct node_world *w, unsigned count);
void node_world_open(struct node_world *w);
void node_world_close(struct node_world *w);
/* The power of one node goes: its log keeps what @model says, its state store the first
 * @keep_batches that were not flushed. */
void node_world_crash(struct node_world *w, unsigned slot, enum sim_disk_model model,
                      size_t keep_batches);
/* Start it again over what is left. What replica_open() said. */
int node_world_start(struct node_world *w, unsigned slot, struct errtext *reterr);
/* The same; it must succeed. */
void node_world_restart(struct node_world *w, unsigned slot);
/* Turns, disk jobs and messages until nothing moves; time stands still. */
void node_world_settle(struct node_world *w);
/* Let @ms pass, waking each node when it asked for it. */
void node_world_run(struct node_world *w, uint64_t ms);
/* Run until one node leads and is ready. Its slot. */
unsigned node_world_lead(struct node_world *w);
/* All of this with the options as they are: init, open, lead. */
unsigned node_world_begin(struct node_world *w, unsigned count);
/* Nothing from node @slot or to it arrives; with @cut false everything of it does again. */
void node_world_cut_off(struct node_world *w, unsigned slot, bool cut);

/* What an answer was. */
struct answer {
    unsigned count;
    enum replica_status status;
    uint64_t index;
    int code; /* of the first item's result, -1 = none */
    uint64_t job_seq;
    uint64_t at_ns;
    struct node_world *world;
};
void answer_proposed(void *arg, const struct replica_proposed *res);
void answer_read(void *arg, enum replica_status status, uint64_t index);

/* Propose @command, whose reference is taken, at node @slot; @a is set anew. What replica_propose()
 * returned. */
int node_world_propose(struct node_world *w, unsigned slot, struct bytes *command, unsigned flags,
                       struct mono deadline, struct answer *a);
/* Propose one submit with @key ("" = none) at node @slot. What replica_propose() returned. */
int node_world_submit(struct node_world *w, unsigned slot, const char *key, unsigned flags,
                      struct mono deadline, struct answer *a);
struct mono node_world_in_ms(const struct node_world *w, uint64_t ms);

/* A worker's stream: what the node sent, decoded. */
struct stream {
    struct worker_session *session;
    Chronos__V1__NodeMessage *got[256];
    size_t count;
    int end_code; /* 0 = open */
    bool full;    /* what the session is told with each message */
    char end_text[128];
};
extern const struct worker_session_ops stream_ops;
void stream_open(struct stream *s, struct replica *r);
void stream_close(struct stream *s);
void stream_send(struct stream *s, const Chronos__V1__WorkerMessage *m);
void stream_hello(struct stream *s, const char *id, uint64_t incarnation, uint32_t slots);
/* With the process's count of its hellos. */
void stream_hello_counted(struct stream *s, const char *id, uint64_t incarnation, uint32_t slots,
                          uint64_t hello);
void stream_beat(struct stream *s, uint64_t sequence);
/* The newest message of a kind, or NULL. */
const Chronos__V1__NodeMessage *stream_last(const struct stream *s,
                                            Chronos__V1__NodeMessage__BodyCase kind);
