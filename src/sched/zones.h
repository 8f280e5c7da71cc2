/* The time zones in use, parsed once and read again when their files change (semantics.md C5).
 *
 * What it is: a cache in front of env_zones. What it is not: a clock; the owner says when to look
 * whether files have changed. A zone that cannot be read is an entry with its reason and without
 * data: whoever uses it says so and goes on.
 * Invariants: what is cached is held by somebody or was readable, so that asking for names that do
 * not exist fills nothing. Thread: the owner's. */
#pragma once

#include "base/env.h"
#include "sched/tz.h"

struct zone {
    char name[TZ_NAME_BYTES_MAX + 1];
    struct tz *tz;        /* NULL: cannot be read */
    struct errtext error; /* why */
    uint32_t version;     /* grows whenever tz changed */
    /* private */
    bool nameable; /* a file may have this name */
    uint32_t holders;
    uint64_t stamp;
    struct zone *next;
};

struct zones;

/* @env is copied; its ctx must outlive the cache. 0, -ENOMEM. */
int zones_new(const struct env_zones *env, struct zones **ret) _must_check_;
struct zones *zones_free(struct zones *z); /* nobody may hold one */
DEFINE_CLEANUP(struct zones *, zones_free);

/* True for the names of UTC that need no file. */
bool zones_is_utc(const char *name);

/* The zone's data, borrowed until the next zones_refresh(); *ret NULL for UTC (cron_next takes it
 * so). 0; ERR_CONFIG with the reason (no such zone, damaged file: names what is wrong); -ENOMEM. */
int zones_find(struct zones *z, const char *name, const struct tz **ret,
               struct errtext *reterr) _must_check_;

/* Hold the entry of a name, readable or not; NULL for UTC. It stays where it is until released.
 * 0, -ENOMEM. */
int zones_hold(struct zones *z, const char *name, struct zone **ret) _must_check_;
void zones_release(struct zones *z, struct zone *zone); /* NULL allowed */

/* Look at the files of all cached zones and read those again that changed. 1: some did. -ENOMEM. */
int zones_refresh(struct zones *z) _must_check_;

const char *zones_version(const struct zones *z);

/* TZif bytes of a zone that follows one POSIX rule for ever ("CET-1CEST,M3.5.0,M10.5.0/3"), for
 * tests and the simulator: what env_zones.load may give. NULL: no memory. */
struct bytes *zones_synthetic(const char *rule) _must_check_;
