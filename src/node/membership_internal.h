/* Who belongs to the cluster: identity, the peer set, changes, drains and feature levels; for the
 * files of node/ only (membership.c, change_ops.c, identity.c, drain.c, features.c, peer_set.c).
 * Thread: the loop. */
#pragma once

#include "base/timer_heap.h"
#include "node/replica.h"

#include "chronos/internal/v1/peer.pb-c.h"

/* Members, those that have just left, and those that are not members yet. */
#define PEERS_MAX (2 * RAFT_NODES_MAX)
#define VOTERS_MAX 7
#define NODE_ID_MAX 65535
/* A learner is caught up when it lacks no more than this, having got all that was in the log when
 * the leader began to look (dissertation 4.2.1: rounds). */
#define CAUGHT_UP_ENTRIES 256
#define CHANGE_OPS_MAX 64

/* What this node heard of another's disk and what it told the state machine about it. One for each
 * id of late; the oldest makes room. */
struct node_note {
    uint64_t id; /* 0 = free */
    uint8_t disk[16];
    bool disk_known; /* heard in this life, before the state bound one */
    bool in_flight;  /* SetNode proposed */
    bool refused;    /* the state machine refused @refused_disk: do not try again */
    uint8_t refused_disk[16];
};

/* ---- changes (change_ops.c)
 * ----------------------------------------------------------------------
 *
 *            this node leads: entry appended           entry committed
 *      NEW ----------------------------------> APPENDED ---------------> answered
 *       |  \--- no leader's link: waits                (or overwritten: not done)
 *       |       deadline: not done
 *       | another node leads: asked it                 its reply
 *       +----------------------------------> ASKED ----------------------> answered
 *       ^                                      |  link lost, deadline: outcome unknown
 *       +---- "I do not lead" -----------------+
 *
 *      NEW --- transfer begun here ---> HANDING --- another leads ------> answered
 *      ASKED --- its reply -----------> FOLLOWING --- known here too ---> answered
 */
enum change_state { CHANGE_NEW, CHANGE_ASKED, CHANGE_APPENDED, CHANGE_HANDING, CHANGE_FOLLOWING };

struct change_op {
    struct change_op *next;
    struct replica *replica;
    enum change_state state;
    bool transfer;
    Chronos__Internal__V1__ChangeCall *change; /* owned; NULL for a transfer */
    uint64_t to;                               /* transfer: asked for; 0 = any */
    struct mono deadline;
    uint64_t term;      /* APPENDED: of the entry; HANDING: ours; FOLLOWING: the new leader's */
    uint64_t index;     /* APPENDED */
    bool as_asked;      /* APPENDED by an earlier request */
    uint64_t call_id;   /* ASKED */
    struct mono ask_at; /* NEW: not before */
    struct mono settle_till; /* NEW: a change that is being finished may be waited for */
    uint64_t from;           /* the peer that asked; 0 = this node */
    uint64_t from_call;
    replica_change_fn done; /* from == 0 */
    void *arg;
};

struct membership {
    struct change_op *ops; /* in the order of arrival */
    size_t ops_count;
    /* The learner being watched, and what it must have before it is asked again. */
    uint64_t round_of;
    uint64_t round_target;
    struct node_note notes[PEERS_MAX];
    size_t notes_next;
    uint64_t strangers_term; /* of this leader, when its peers were looked at again */
    bool facts_changed;      /* look whether the state machine's facts are right */
    bool feature_in_flight;  /* SetFeatureLevel proposed */
    struct mono drain_at;    /* look again whether leadership can move */
    struct mono peers_at;    /* a peer that is no member is dropped then */
    struct mono leader_at;   /* when a leader was last known, or this node opened */
};

/* A decision of the leader about a change: no code and no config: nothing to do. */
struct change_verdict {
    uint32_t code; /* canonical gRPC code; 0 = go on */
    char message[400];
    bool changed; /* propose @config */
    /* Refused for a change that the leader is finishing, or because a leader that is new has not
     * heard of everybody yet: soon it may not be. */
    bool settling;
    struct raft_config config;
    uint64_t index; /* !changed: of the configuration that already is so */
};

/* membership.c */
/* Everything of this header that a turn has to do. */
void membership_turn(struct replica *r);
/* True for a peer that was let in before the log had told that its id belongs to another disk. */
bool identity_is_stranger(struct replica *r, uint64_t id);
struct mono membership_deadline(const struct replica *r);
/* Judge @c against the configuration in force. Leader only. */
void membership_judge(struct replica *r, const Chronos__Internal__V1__ChangeCall *c,
                      struct change_verdict *ret);
/* The change under way in words, "" when none is. */
void membership_open_change(struct replica *r, char *out, size_t out_bytes);
/* voter, learner, catching_up, leaving. */
const char *membership_of(const struct raft_config *config, const struct raft_member *m);
/* Append @config to the log. 0 with its place; RAFT_PROPOSE_* otherwise. */
int membership_propose(struct replica *r, const struct raft_config *config, uint64_t *ret_index,
                       uint64_t *ret_term);
/* After a CONFIG entry was applied. */
void membership_applied(struct replica *r);
/* The member is this node, or has answered within the liveness window. Leader only. */
bool membership_is_live(struct replica *r, uint64_t id);
/* It has not answered in this term, which may have begun a moment ago. */
bool membership_is_unheard(struct replica *r, uint64_t id);

/* change_ops.c */
void change_ops_run(struct replica *r);
struct mono change_ops_deadline(const struct replica *r);
void change_ops_free(struct replica *r);
void change_serve(struct replica *r, uint64_t from, uint64_t call_id, struct slice body);
void transfer_serve(struct replica *r, uint64_t from, uint64_t call_id, struct slice body);
void removed_serve(struct replica *r, uint64_t from, uint64_t call_id, struct slice body);

/* identity.c */
/* Leader: make the state machine know what was heard. */
void identity_run(struct replica *r);
/* SetNode for @id with what is not NULL / 0; the rest as the record has it. */
int identity_propose(struct replica *r, uint64_t id, const uint8_t *disk, const char *peer_address,
                     const char *client_address, uint32_t feature_max);
/* 0, or ERR_FOREIGN with the reason when this node is no member any more. */
int identity_check_self(struct replica *r, struct errtext *reterr) _must_check_;

/* peer_set.c */
/* Make the peers follow the configuration, the records and those that said hello. */
void peers_sync(struct replica *r);
/* @id said hello from @address and is no member here (yet): it may be one elsewhere. */
void peers_welcome(struct replica *r, uint64_t id, const char *address);
struct peer;
void peers_heard(struct replica *r, struct peer *p);
struct mono peers_deadline(const struct replica *r);

/* drain.c */
void drain_run(struct replica *r);
struct worker_session;
/* Tell the worker when what it was told is not how it is. */
void drain_tell(struct worker_session *s);
void drain_tell_all(struct replica *r);

/* clock_check.c */
/* The node's wall clock is further than a second from the median of all that are heard of. */
bool clock_is_off(const struct replica *r, uint64_t id, int64_t *ret_off_ms);

/* features.c */
/* The newest level that this node's program knows. */
uint32_t features_max(const struct replica *r);
void features_run(struct replica *r);
/* The lowest feature level at which a command of this kind may be proposed. */
uint32_t features_level_of(Chronos__Internal__V1__LogCommand__BodyCase kind);
/* 0, or ERR_VERSION: not all members know this command yet. */
int features_check(struct replica *r, struct slice command);
