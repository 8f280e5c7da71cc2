/* The cache of zones. A few hundred entries at most (tzdata has about 600 names), in a list: they
 * are looked up when a schedule is defined, not when it fires. */
#include "sched/zones.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct zones {
    struct env_zones env;
    struct zone *first; /* owned */
};

int zones_new(const struct env_zones *env, struct zones **ret) {
    struct zones *z;

    ASSERT(env);
    ASSERT(!env->load || (env->stamp && env->version));
    z = calloc(1, sizeof(*z));
    if (!z)
        return -ENOMEM;
    z->env = *env;
    *ret = z;
    return 0;
}

static struct zone *zone_free(struct zone *zone) {
    if (!zone)
        return NULL;
    (void) tz_free(zone->tz);
    free(zone);
    return NULL;
}

struct zones *zones_free(struct zones *z) {
    if (!z)
        return NULL;
    for (struct zone *zone = z->first, *next; zone; zone = next) {
        ASSERT(zone->holders == 0);
        next = zone->next;
        (void) zone_free(zone);
    }
    free(z);
    return NULL;
}

bool zones_is_utc(const char *name) {
    ASSERT(name);
    return name[0] == 0 || strcmp(name, "UTC") == 0;
}

/* The file's present content into @zone. 0, also when it cannot be read; -ENOMEM. */
static int zone_load(struct zones *z, struct zone *zone) {
    _cleanup_(bytes_unrefp) struct bytes *data = NULL;
    _cleanup_(tz_freep) struct tz *tz = NULL;
    struct errtext why = {0};
    uint64_t stamp = 0;
    int rc;

    rc = -ENOENT;
    if (z->env.load)
        rc = z->env.load(z->env.ctx, zone->name, &data, &stamp, &why);
    if (rc == 0)
        rc = tz_parse(bytes_slice(data), &tz, &why);
    if (rc == -ENOMEM)
        return rc;
    (void) tz_free(zone->tz);
    zone->tz = TAKE_PTR(tz);
    zone->stamp = stamp;
    zone->version++;
    zone->error.s[0] = 0;
    if (rc < 0)
        errtext_set(&zone->error, "time zone %s: %.400s", zone->name,
                    why.s[0] ? why.s : err_name(rc));
    return 0;
}

static struct zone *find(const struct zones *z, const char *name) {
    for (struct zone *zone = z->first; zone; zone = zone->next)
        if (strcmp(zone->name, name) == 0)
            return zone;
    return NULL;
}

/* A new entry that is not yet in the list. A name that no file may have is an entry like that of a
 * missing file. */
static int zone_new(struct zones *z, const char *name, struct zone **ret) {
    struct zone *zone = calloc(1, sizeof(*zone));
    int rc = 0;

    if (!zone)
        return -ENOMEM;
    (void) snprintf(zone->name, sizeof(zone->name), "%s", name);
    zone->nameable = tz_name_ok(name);
    if (zone->nameable)
        rc = zone_load(z, zone);
    else
        errtext_set(&zone->error, "\"%.64s\" is not the name of a time zone (like Europe/Berlin)",
                    name);
    if (rc < 0)
        return (void) zone_free(zone), rc;
    *ret = zone;
    return 0;
}

static void link_zone(struct zones *z, struct zone *zone) {
    zone->next = z->first;
    z->first = zone;
}

static void unlink_zone(struct zones *z, struct zone *zone) {
    struct zone **at = &z->first;

    while (*at != zone)
        at = &(*at)->next;
    *at = zone->next;
}

int zones_find(struct zones *z, const char *name, const struct tz **ret, struct errtext *reterr) {
    struct zone *zone;
    int rc;

    ASSERT(z && ret);
    *ret = NULL;
    if (zones_is_utc(name))
        return 0;
    zone = find(z, name);
    if (!zone) {
        rc = zone_new(z, name, &zone);
        if (rc < 0)
            return rc;
        if (!zone->tz) {
            errtext_set(reterr, "%s", zone->error.s);
            (void) zone_free(zone);
            return ERR_CONFIG;
        }
        link_zone(z, zone);
    }
    if (!zone->tz) {
        errtext_set(reterr, "%s", zone->error.s);
        return ERR_CONFIG;
    }
    *ret = zone->tz;
    return 0;
}

int zones_hold(struct zones *z, const char *name, struct zone **ret) {
    struct zone *zone;
    int rc;

    ASSERT(z && ret);
    *ret = NULL;
    if (zones_is_utc(name))
        return 0;
    zone = find(z, name);
    if (!zone) {
        rc = zone_new(z, name, &zone);
        if (rc < 0)
            return rc;
        link_zone(z, zone);
    }
    zone->holders++;
    *ret = zone;
    return 0;
}

void zones_release(struct zones *z, struct zone *zone) {
    if (!zone)
        return;
    ASSERT(zone->holders > 0);
    if (--zone->holders > 0 || zone->tz)
        return;
    unlink_zone(z, zone);
    (void) zone_free(zone);
}

int zones_refresh(struct zones *z) {
    int changed = 0;

    ASSERT(z);
    for (struct zone *zone = z->first; zone; zone = zone->next) {
        bool readable = zone->tz;
        int rc;

        if (!zone->nameable || !z->env.load || z->env.stamp(z->env.ctx, zone->name) == zone->stamp)
            continue;
        rc = zone_load(z, zone);
        if (rc < 0)
            return rc;
        if (zone->tz || readable)
            changed = 1;
    }
    return changed;
}

const char *zones_version(const struct zones *z) {
    return z->env.version ? z->env.version(z->env.ctx) : "";
}

struct bytes *zones_synthetic(const char *rule) {
    /* RFC 9636: a version 1 header with one type, its data block (type, name), the same again for
     * version 2, and the footer. */
    static const uint8_t block[] = {'T', 'Z', 'i', 'f', '2', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                                    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                                    1, 0, 0, 0, 4,
                                    /* offset, dst, name index; the name */
                                    0, 0, 0, 0, 0, 0, 'U', 'T', 'C', 0};
    size_t n = sizeof(block), len = strlen(rule);
    struct bytes *b = bytes_new(2 * n + len + 2);

    if (!b)
        return NULL;
    memcpy(b->data, block, n);
    memcpy(b->data + n, block, n);
    b->data[2 * n] = '\n';
    memcpy(b->data + 2 * n + 1, rule, len);
    b->data[2 * n + 1 + len] = '\n';
    return b;
}
