/* One to three real replicas over a simulated disk, a memory store and a hand-driven clock and
 * network, for the tests of node/. Nothing moves but by the calls below. */
#pragma once

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
    struct disk_job *jobs, *jobs_tail;
    bool hold_disk; /* jobs wait */
    uint64_t random;
};

struct node_world_message {
    uint64_t from, to;
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
};

void node_world_init(struct node_world *w, unsigned count);
void node_world_open(struct node_world *w);
void node_world_close(struct node_world *w);
/* Turns, disk jobs and messages until nothing moves; time stands still. */
void node_world_settle(struct node_world *w);
/* Let @ms pass, waking each node when it asked for it. */
void node_world_run(struct node_world *w, uint64_t ms);
/* Run until one node leads and is ready. Its slot. */
unsigned node_world_lead(struct node_world *w);

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
    char end_text[128];
};
extern const struct worker_session_ops stream_ops;
void stream_open(struct stream *s, struct replica *r);
void stream_close(struct stream *s);
void stream_send(struct stream *s, const Chronos__V1__WorkerMessage *m);
void stream_hello(struct stream *s, const char *id, uint64_t incarnation, uint32_t slots);
void stream_beat(struct stream *s, uint64_t sequence);
/* The newest message of a kind, or NULL. */
const Chronos__V1__NodeMessage *stream_last(const struct stream *s,
                                            Chronos__V1__NodeMessage__BodyCase kind);
