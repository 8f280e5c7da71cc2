/* Time zones without files, for tests: names, and the rules that they follow for ever. */
#pragma once

#include "base/defs.h"
#include "sched/zones.h"

#include <errno.h>
#include <string.h>

#define FAKE_BERLIN "CET-1CEST,M3.5.0,M10.5.0/3"
#define FAKE_NEW_YORK "EST5EDT,M3.2.0,M11.1.0"

/* An array of these ends with an entry without a name. */
struct fake_zone {
    const char *name;
    const char *rule;  /* NULL: there is no such file; "": it is damaged */
    uint64_t replaced; /* how often the file was */
};

static uint64_t fake_zone_stamp(void *ctx, const char *name) {
    for (const struct fake_zone *z = ctx; z->name; z++)
        if (strcmp(z->name, name) == 0 && z->rule)
            return z->replaced + 1;
    return 0;
}

static int fake_zone_load(void *ctx, const char *name, struct bytes **ret, uint64_t *ret_stamp,
                          struct errtext *reterr) {
    const struct fake_zone *z = ctx;

    *ret_stamp = fake_zone_stamp(ctx, name);
    if (*ret_stamp == 0) {
        errtext_set(reterr, "no such file");
        return -ENOENT;
    }
    while (strcmp(z->name, name) != 0)
        z++;
    *ret = z->rule[0] ? zones_synthetic(z->rule) : bytes_copy("not a zone", 10);
    return *ret ? 0 : -ENOMEM;
}

static const char *fake_zone_version(void *ctx) {
    (void) ctx;
    return "2026z";
}

/* @zones must outlive it; it may be changed meanwhile. */
static inline struct env_zones fake_zones(struct fake_zone *zones) {
    return (struct env_zones){fake_zone_load, fake_zone_stamp, fake_zone_version, zones};
}
