/* Snapshots, views, transfers, free space and scrubbing: their structs and calls between the files
 * of node/. Included by replica_internal.h. */
#pragma once

#include "base/buf.h"
#include "node/replica.h"
#include "storage/snapshot_format.h"

#include "chronos/internal/v1/peer.pb-c.h"

#define VIEWS_MAX 4
#define ALARM_BYTES 256
#define ALARMS_MAX 4 /* kept of one node */

/* ---- the log, as the disk thread last saw it (effects.c) ------------------------------------ */

struct log_facts {
    uint64_t base_index, base_term; /* the last entry that is gone */
    uint64_t bytes;
};

struct log_facts log_facts_of(const struct wal *wal);

/* ---- the own state made durable, and a foreign one taken over (snapshots.c) ----------------- */

/* A snapshot that raft has accepted: the state is not touched until it is in place.
 *
 *   IDLE --effects.install_index--> WRITING --durable--> DURABLE --no reader left--> IDLE (adopted)
 */
enum install_state { INSTALL_IDLE, INSTALL_WRITING, INSTALL_DURABLE };

struct install {
    enum install_state state;
    uint64_t index, term;
    uint8_t digest[16]; /* of the state, as the leader computed it */
};

struct snapshots {
    struct disk_job job; /* a flush of the state store, when flushing */
    struct replica *replica;
    bool flushing;
    bool now;             /* do not wait for the interval */
    uint64_t flush_index; /* applied when the flush was submitted */
    int result;
    uint64_t durable_index; /* the state store on disk contains all up to here */
    struct mono taken_at;   /* the last one began */
    uint64_t compacted;     /* raft knows that all up to here is gone from the log */
    struct install install;
    uint64_t skipped_to; /* entries up to here were never seen here: a snapshot had them */
    struct replica_view *views;
    size_t views_count;
    uint64_t taken, installed; /* since the start */
};

void snapshots_init(struct replica *r);
/* Policy, and the end of an install whose readers are gone. Once a turn. */
void snapshots_turn(struct replica *r);
struct mono snapshots_deadline(const struct replica *r);
/* A snapshot soon: what it releases is needed as spare segments. */
void snapshots_make_room(struct replica *r);
/* The log on disk now begins behind log.base_index. */
void snapshots_released(struct replica *r);
/* Effects of a step asked to install what the receiver has staged. */
void snapshots_install_begin(struct replica *r, uint64_t index, uint64_t term);
/* The persist job that switched to it is done. */
void snapshots_install_durable(struct replica *r);
/* Nothing may be applied: the state is being replaced. */
static inline bool snapshots_installing(const struct snapshots *s) {
    return s->install.state != INSTALL_IDLE;
}

/* snapshot_view.c */
bool views_reading(const struct replica *r);
/* How much of it was read, 0 to 99. */
unsigned view_percent(const struct replica_view *v);
void views_invalidate(struct replica *r);
/* Length of the block at the front of @in; 0 when it does not begin with a whole one. */
size_t snapshot_block_len(struct slice in);

/* ---- to followers (snapshot_send.c) --------------------------------------------------------- */

/* One transfer to one follower.
 *
 *   WAITING --a place is free, state >= commit--> SENDING --follower has it--> FOLLOWING --> gone
 *      |                                             |
 *      +--raft no longer asks---------> gone <-------+--no progress, refused (raft probes again)
 */
enum transfer_state { TRANSFER_WAITING, TRANSFER_SENDING, TRANSFER_FOLLOWING };

struct transfer_block {
    struct transfer_block *next;
    uint64_t sequence;
    size_t len;
    uint8_t data[];
};

struct transfer {
    struct transfer *next;
    struct replica *replica;
    enum transfer_state state;
    uint64_t peer, term, session; /* as raft asked */
    uint64_t number;              /* of this transfer, unique in this process's life */
    uint64_t min_index;           /* the state must contain at least this */
    uint64_t index;               /* what is sent contains all up to here */
    struct replica_view *view;    /* owned; NULL before and after SENDING */
    bool reading, read_all;
    bool failed;
    struct transfer_block *head, *tail; /* not yet acknowledged, in order */
    struct transfer_block *unsent;      /* the first not yet sent; NULL = all are */
    size_t bytes;                       /* of these blocks */
    uint64_t acked;                     /* the follower has all blocks before this one */
    uint64_t next_sequence;             /* of the next block that is read */
    uint64_t bytes_acked;
    uint64_t follow_to;      /* FOLLOWING: until it has this entry */
    uint64_t match;          /* FOLLOWING: as last seen */
    struct mono start_at;    /* WAITING: not before */
    struct mono read_at;     /* SENDING: the next piece not before */
    struct mono progress_at; /* of the last progress */
    struct mono sent_at;     /* of the last block, or of the last going back */
    struct mono back_at;     /* going back is for then at the earliest */
    struct mono retry_at;    /* the connection took nothing: try again then */
};

struct transfers {
    struct transfer *list;
    uint64_t next_number;
    struct mono not_before[RAFT_NODES_MAX]; /* after a failure, by slot of failed_peer */
    uint64_t failed_peer[RAFT_NODES_MAX];
    uint64_t done, failed; /* since the start */
};

int transfers_wanted(struct replica *r, const struct raft_snapshot_wanted *w) _must_check_;
void transfers_turn(struct replica *r);
struct mono transfers_deadline(const struct replica *r);
void transfers_on_ack(struct replica *r, uint64_t from,
                      const Chronos__Internal__V1__SnapshotAck *ack);
void transfers_on_link(struct replica *r, uint64_t peer);
/* Entries behind this one are needed by a follower. UINT64_MAX: none. */
uint64_t transfers_hold(const struct replica *r);
/* -1 when none is under way. */
int64_t transfers_percent(const struct replica *r, uint64_t peer);
void transfers_free(struct replica *r);

/* ---- from the leader (snapshot_receive.c) --------------------------------------------------- */

struct receive_piece {
    struct receive_piece *next;
    uint64_t sequence;
    uint64_t blocks;
    size_t len;
    uint8_t data[];
};

struct receive {
    struct replica *replica;
    bool active;
    uint64_t from, term, session, transfer;
    uint64_t queued_next;  /* the block expected from the network */
    uint64_t written_next; /* the block expected by the stage: what is acknowledged */
    struct receive_piece *head, *tail;
    size_t queued_bytes;
    bool busy;      /* a job is on the bulk thread: what follows is its own */
    bool abandoned; /* forget it all when the job is done */
    bool staged;    /* the store may hold a stage */
    struct disk_job job;
    struct receive_piece *piece; /* NULL: the job drops the stage */
    int result;
    struct errtext error;
    struct snapshot_reader reader;
    bool complete;
    uint64_t index, index_term; /* of the header */
    struct raft_config config;
    uint64_t config_index;
    uint8_t digest[16];
};

void receive_on_blocks(struct replica *r, uint64_t from,
                       const Chronos__Internal__V1__SnapshotBlocks *m);
void receive_turn(struct replica *r);
void receive_free(struct replica *r);

/* ---- free space (disk_space.c) -------------------------------------------------------------- */

struct disk_space {
    struct disk_job job;
    struct replica *replica;
    bool busy;
    int result;
    uint64_t job_free, job_total; /* the job's */
    bool known;
    uint64_t free_bytes, total_bytes;
    bool low;                /* clients' submits are refused */
    bool handed_over;        /* leadership, in this shortage */
    struct mono at;          /* of the next look */
    char alarm[ALARM_BYTES]; /* "" = none */
};

void disk_space_turn(struct replica *r);
/* May a client's command go into the log? */
bool disk_space_refuses(const struct replica *r, struct slice command);

/* ---- scrubbing (scrub.c) -------------------------------------------------------------------- */

struct scrub {
    struct replica *replica;
    struct mono round_at;    /* of the next round */
    struct mono step_at;     /* of the next step of this one */
    bool round;              /* under way in the log */
    bool log_verified;       /* by the last round, which may still be in the state store */
    bool step_wanted;        /* goes to the disk thread between commits */
    struct wal_scrub cursor; /* the disk thread's while a step runs */
    uint64_t bad_index;      /* of the last step */
    uint64_t repair_index;   /* damage up to here waits to be released; 0 = none */
    struct disk_job job;     /* verifies the state store */
    bool verifying;
    int result;
    struct errtext error;
    bool found;                /* damage, in this round */
    uint64_t rounds, repaired; /* since the start */
    char alarm[ALARM_BYTES];   /* "" = none */
};

void scrub_init(struct replica *r);
void scrub_turn(struct replica *r);
struct mono scrub_deadline(const struct replica *r);
int scrub_step_run(struct replica *r, struct errtext *reterr) _must_check_; /* disk thread */
void scrub_step_done(struct replica *r, int result, const struct errtext *why);
/* The log was released: is the damage gone? */
void scrub_released(struct replica *r);

/* ---- alarms (disk_space.c) ------------------------------------------------------------------ */

/* This node's, in words; borrowed until the next turn. */
size_t alarms_own(const struct replica *r, const char *ret[ALARMS_MAX]);
