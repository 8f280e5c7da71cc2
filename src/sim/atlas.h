/* Where disks may be damaged: the atlas knows which nodes are damaged and places more only where
 * the promise must hold (the idea of TigerBeetle's ClusterFaultAtlas; PAR, FAST '18).
 *
 * The promise (reliability.md W8, W9, W15; docs/formats.md):
 *  - A node whose files are damaged is as it was, repairs itself, or ends and names the file. Then
 *    it is lost, as one whose disk was erased: so a majority of every configuration that may still
 *    decide is kept free of damage.
 *  - Damage to the last batch before a crash looks like a torn write: no record behind it says that
 *    it was durable. So where that is hit, a majority without this node must have what it
 *    acknowledged, and what it loses begins at the damage. Earlier in the segment nothing is
 *    excused, and nothing before the place in the log that the meta file names. (An old copy of the
 *    whole newest segment may lose what is behind that place, for it can show in nothing else. A
 *    newest segment that is missing is always missed.)
 * Nothing else is excused: a term or a vote is never forgotten, and no content ever differs.
 * Thread: one. */
#pragma once

#include "sim/damage.h"

#include "base/err.h"

struct world;
struct sim_node;

#define ATLAS_BATCHES 8

/* Records that were made durable together. */
struct atlas_batch {
    uint64_t end;   /* offset behind the last one */
    uint64_t index; /* last index of the log then, or where it was cut since */
};

/* What the atlas knows of one node. */
struct atlas_node {
    bool harmed;   /* damaged, and not known to be well again */
    bool planted;  /* under the running node, where only a reader or the scrub finds it */
    bool told;     /* the node has said so and repairs it by itself */
    bool repaired; /* it has said so at its start */
    struct damage damage;
    uint8_t was;          /* planted: the byte that was changed, as it is now */
    bool round;           /* a whole round of the scrub has begun since */
    uint64_t find_within; /* ns of a disk that works */
    uint64_t paused_ns;
    uint64_t find_by;     /* planted: the scrub has seen it by then; 0 = there is none */
    uint64_t may_lose;    /* entries above may be gone at the next start; UINT64_MAX = none */
    uint64_t forgot_term; /* leaders up to this term may believe that it has more */
    uint64_t durable;     /* last index on disk */
    uint64_t cut_to;      /* the lowest end that this segment has seen; UINT64_MAX = none cut */
    /* Where the newest batches end in the newest segment; begins anew with each segment and life.
     */
    char segment[DAMAGE_NAME_BYTES];
    uint64_t base_end; /* what is before it was durable before the segment had its name */
    struct atlas_batch batches[ATLAS_BATCHES];
    size_t batches_count;
    struct damage_copy copy; /* a file as it was, to be put back */
};

/* Damage @n in some way, if the cluster bears it. It is stopped first unless the damage is one that
 * comes under a running node. */
void atlas_strike(struct world *w, struct sim_node *n);
/* Another life begins or has failed to: 0 or why. False: it was not because of damage. */
bool atlas_started(struct world *w, struct sim_node *n, int rc, const struct errtext *why);
/* @n ended by itself with @rc. True: it is because of damage, and it is gone for good. */
bool atlas_ended(struct world *w, struct sim_node *n, int rc, const struct errtext *why);
/* It comes back with less than it acknowledged: is that excused? Then it owes no more than that. */
bool atlas_excuses(struct world *w, struct sim_node *n);
/* A read of its state gave @rc because it is damaged: a right answer (UNAVAILABLE; the node ends).
 */
bool atlas_answers_loss(const struct sim_node *n, int rc);
/* Its state has no damage: all of it can be read. */
bool atlas_state_intact(const struct sim_node *n);
/* After each event of @n: what is on its disk. */
void atlas_note(struct sim_node *n);
/* What the node says: the log's message. */
void atlas_heard(struct world *w, struct sim_node *n, const char *msg);
/* Every damage that is still hidden comes out: the end is judged without surprises. */
void atlas_settle(struct world *w);
void atlas_free(struct sim_node *n);
