/* Damage to the files of a node, as a failing disk or a careless hand does it: bytes that change at
 * rest, writes that land elsewhere, files that go or come back old.
 *
 * What it is not: it does not ask whether the cluster can bear it (atlas.h does). Deterministic.
 * Thread: one. */
#pragma once

#include "base/rand.h"
#include "sim/sim_disk.h"

enum damage_kind {
    DAMAGE_BIT_ROT,     /* some bits of one file */
    DAMAGE_ZERO_SECTOR, /* one sector reads as zeros */
    DAMAGE_MISDIRECTED, /* a sector or page stands where another one belongs */
    DAMAGE_SWAP,        /* two segments have each other's names */
    DAMAGE_OLD_META,    /* an old copy of the file was put back */
    DAMAGE_OLD_SEGMENT, /* the same, of a segment */
    DAMAGE_TRUNCATED,   /* the end of a file is gone */
    DAMAGE_REMOVED,     /* a file is gone */
    DAMAGE_META_SLOT,   /* one of the two slots of the meta file */
    DAMAGE_META_BOTH,   /* both */
    DAMAGE_STATE,       /* a record of the state store */
    DAMAGE_KINDS
};

#define DAMAGE_NAME_BYTES 64

/* What was done. */
struct damage {
    enum damage_kind kind;
    char file[DAMAGE_NAME_BYTES];
    uint64_t offset;  /* the first byte that was touched */
    uint64_t end;     /* behind the last one */
    bool newest;      /* in the newest segment: its end may look like a torn write */
    bool rolled_back; /* a file of the log is missing or old, whole */
};

/* A file as it was at some time. */
struct damage_copy {
    char file[DAMAGE_NAME_BYTES]; /* empty: none */
    uint8_t *bytes;               /* owned */
    uint64_t len;
};

const char *damage_name(enum damage_kind kind);

/* Draw a victim for @kind and say which: file, newest and rolled_back are set, nothing is changed.
 * @copy: for the two kinds that need one. @cold: no newest segment, no meta file. False: this disk
 * has nothing that could be hit so. */
bool damage_draw(const struct sim_disk *d, struct rng *rng, enum damage_kind kind,
                 const struct damage_copy *copy, bool cold, struct damage *ret) _must_check_;
/* Do what was drawn. False: it changed nothing. */
bool damage_do(struct sim_disk *d, struct rng *rng, const struct damage_copy *copy,
               struct damage *dmg) _must_check_;

/* Keep a copy of the meta file or (@meta false) of some segment in use; what was kept before goes.
 * False: there is no such file. */
bool damage_copy_take(struct sim_disk *d, struct rng *rng, bool meta, struct damage_copy *c);
/* The same of the file @name. */
bool damage_copy_file(struct sim_disk *d, const char *name, struct damage_copy *c);
/* Where what is written in the newest segment ends, and its name; 0: there is none. */
uint64_t damage_log_end(struct sim_disk *d, char ret_name[DAMAGE_NAME_BYTES]);
/* What the meta file says of the log. */
struct damage_place {
    char segment[DAMAGE_NAME_BYTES]; /* empty: nothing */
    uint64_t end;                    /* durable in it up to here */
    uint64_t index;                  /* the log's last one then */
};
struct damage_place damage_log_place(struct sim_disk *d);
void damage_copy_drop(struct damage_copy *c);
