/* See damage.h. Everything goes through the parts of sim_disk.h that are for damage by hand. */
#include "sim/damage.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/codec.h"
#include "base/crc32c.h"

#define SECTOR 512U
#define PAGE 4096U
#define META_SLOT 4096U
#define FILES_MAX 256

static const char *const names[] = {
    [DAMAGE_BIT_ROT] = "bits rot",
    [DAMAGE_ZERO_SECTOR] = "a sector reads as zeros",
    [DAMAGE_MISDIRECTED] = "a write landed elsewhere",
    [DAMAGE_SWAP] = "two segments are swapped",
    [DAMAGE_OLD_META] = "an old meta file is put back",
    [DAMAGE_OLD_SEGMENT] = "an old segment is put back",
    [DAMAGE_TRUNCATED] = "a file is cut short",
    [DAMAGE_REMOVED] = "a file is removed",
    [DAMAGE_META_SLOT] = "a slot of the meta file is damaged",
    [DAMAGE_META_BOTH] = "both slots of the meta file are damaged",
    [DAMAGE_STATE] = "a record of the state is damaged",
};
STATIC_ASSERT(ARRAY_LEN(names) == DAMAGE_KINDS, "every kind has a name");

const char *damage_name(enum damage_kind kind) {
    ASSERT(kind < DAMAGE_KINDS);
    return names[kind];
}

static bool is_segment(const char *name) {
    return strncmp(name, "wal-", 4) == 0 && strstr(name, ".log");
}

static bool is_meta(const char *name) {
    return strncmp(name, "meta", 4) == 0;
}

/* Names have their number in fixed width: the greatest is the newest. NULL: no segment. */
static const char *newest_segment(const struct sim_disk *d) {
    const char *newest = NULL, *name;

    for (size_t i = 0; (name = sim_disk_name(d, i)); i++)
        if (is_segment(name) && (!newest || strcmp(name, newest) > 0))
            newest = name;
    return newest;
}

enum choice { ANY_FILE, ANY_SEGMENT, COLD_SEGMENT };

/* A file of that sort but not @but; NULL: there is none. */
static const char *draw_file(const struct sim_disk *d, struct rng *rng, enum choice choice,
                             const char *but) {
    const char *found[FILES_MAX], *newest = newest_segment(d), *name;
    size_t n = 0;

    for (size_t i = 0; n < FILES_MAX && (name = sim_disk_name(d, i)); i++) {
        if (but && strcmp(name, but) == 0)
            continue;
        if (choice == ANY_FILE || (choice == ANY_SEGMENT && is_segment(name)) ||
            (choice == COLD_SEGMENT && is_segment(name) && name != newest))
            found[n++] = name;
    }
    return n > 0 ? found[rng_below(rng, n)] : NULL;
}

static const char *victim(const struct sim_disk *d, struct rng *rng, enum damage_kind kind,
                          const struct damage_copy *copy, bool cold) {
    switch (kind) {
    case DAMAGE_BIT_ROT:
    case DAMAGE_ZERO_SECTOR:
    case DAMAGE_MISDIRECTED:
    case DAMAGE_TRUNCATED:
        if (cold)
            return draw_file(d, rng, COLD_SEGMENT, NULL);
        return draw_file(d, rng, rng_chance(rng, 300) ? ANY_FILE : ANY_SEGMENT, NULL);
    case DAMAGE_SWAP:
        return draw_file(d, rng, ANY_SEGMENT, NULL);
    case DAMAGE_REMOVED:
        return draw_file(d, rng, ANY_FILE, NULL);
    case DAMAGE_META_SLOT:
    case DAMAGE_META_BOTH:
        return rng_chance(rng, 700) ? "meta" : "meta-copy";
    case DAMAGE_OLD_META:
        return is_meta(copy->file) ? copy->file : NULL;
    case DAMAGE_OLD_SEGMENT:
        return is_segment(copy->file) ? copy->file : NULL;
    case DAMAGE_STATE:
    case DAMAGE_KINDS:
        break;
    }
    return NULL;
}

bool damage_draw(const struct sim_disk *d, struct rng *rng, enum damage_kind kind,
                 const struct damage_copy *copy, bool cold, struct damage *ret) {
    const char *file = victim(d, rng, kind, copy, cold), *newest = newest_segment(d);

    if (!file)
        return false;
    *ret = (struct damage){.kind = kind};
    (void) snprintf(ret->file, sizeof(ret->file), "%s", file);
    ret->newest = newest && strcmp(newest, file) == 0;
    ret->rolled_back = ret->newest && (kind == DAMAGE_REMOVED || kind == DAMAGE_OLD_SEGMENT);
    return true;
}

/* ---- doing it -------------------------------------------------------------------------------- */

static uint64_t written_end(const uint8_t *bytes, uint64_t len) {
    while (len >= 8 && memcmp(bytes + len - 8, "\0\0\0\0\0\0\0", 8) == 0)
        len -= 8; /* records are 8-byte aligned */
    return len;
}

/* Where: rather where something is, since most of a segment is zeros; not always. Often at the end,
 * where damage looks like a torn write. */
static uint64_t draw_offset(struct sim_disk *d, struct rng *rng, const char *file) {
    uint64_t len = 0, end, at;
    const uint8_t *bytes = sim_disk_bytes(d, file, &len);

    at = rng_below(rng, len);
    end = written_end(bytes, MIN(len, sim_disk_written(d, file)));

    if (end > 0 && rng_chance(rng, 300))
        return end - 1 - rng_below(rng, MIN(end, (uint64_t) SECTOR));

    for (unsigned i = 0; i < 16 && bytes[at] == 0; i++)
        at = rng_below(rng, len);
    return at;
}

static bool rot(struct sim_disk *d, struct rng *rng, struct damage *dmg) {
    uint64_t len = 0, bits = rng_range(rng, 1, rng_chance(rng, 700) ? 2 : 64);
    uint8_t *bytes = sim_disk_bytes(d, dmg->file, &len);

    if (!bytes || len == 0)
        return false;
    dmg->offset = draw_offset(d, rng, dmg->file);
    bytes[dmg->offset] ^= (uint8_t) (1U << rng_below(rng, 8));
    dmg->end = MIN(dmg->offset + bits * 3 + 1, len);
    for (; bits > 1; bits--) /* near by: never the same bit twice in one byte */
        bytes[(dmg->offset + bits * 3) % len] ^= (uint8_t) (1U << rng_below(rng, 8));
    return true;
}

static bool overwrite(struct sim_disk *d, struct rng *rng, struct damage *dmg, const uint8_t *with,
                      uint32_t unit) {
    uint64_t len = 0;
    uint8_t *bytes = sim_disk_bytes(d, dmg->file, &len);

    if (!bytes || len < unit)
        return false;
    dmg->offset = draw_offset(d, rng, dmg->file) / unit * unit;
    if (dmg->offset + unit > len || memcmp(bytes + dmg->offset, with, unit) == 0)
        return false;
    memcpy(bytes + dmg->offset, with, unit);
    dmg->end = dmg->offset + unit;
    return true;
}

/* What belongs at one place of the log, or of any file, stands at another. */
static bool misdirect(struct sim_disk *d, struct rng *rng, struct damage *dmg) {
    uint32_t unit = rng_chance(rng, 500) ? SECTOR : PAGE;
    const char *from = rng_chance(rng, 400) ? dmg->file : draw_file(d, rng, ANY_FILE, NULL);
    uint8_t block[PAGE];
    uint64_t len = 0, at;
    const uint8_t *bytes = sim_disk_bytes(d, from, &len);

    if (!bytes || len < unit)
        return false;
    at = draw_offset(d, rng, from) / unit * unit;
    if (at + unit > len)
        return false;
    memcpy(block, bytes + at, unit);
    return overwrite(d, rng, dmg, block, unit);
}

static bool truncated(struct sim_disk *d, struct rng *rng, struct damage *dmg) {
    uint64_t len = 0, cut;

    if (!sim_disk_bytes(d, dmg->file, &len) || len == 0)
        return false;
    for (cut = 1; cut < len && rng_chance(rng, 800);)
        cut *= 2;
    dmg->offset = len - MIN(cut, len);
    return sim_disk_resize(d, dmg->file, dmg->offset);
}

static bool meta_slots(struct sim_disk *d, struct rng *rng, struct damage *dmg, bool both) {
    uint64_t len = 0;
    uint8_t *bytes = sim_disk_bytes(d, dmg->file, &len);
    unsigned slot = (unsigned) rng_below(rng, 2);

    if (!bytes || len < 2UL * META_SLOT)
        return false;
    dmg->offset = both ? 0 : slot * META_SLOT;
    for (unsigned i = 0; i < 2; i++)
        if (both || i == slot)
            bytes[i * META_SLOT + rng_below(rng, 88)] ^= (uint8_t) (1U << rng_below(rng, 8));
    return true;
}

static bool swap(struct sim_disk *d, struct rng *rng, const struct damage *dmg) {
    const char *other = draw_file(d, rng, ANY_SEGMENT, dmg->file);

    return other && sim_disk_swap_names(d, dmg->file, other);
}

static bool put_back(struct sim_disk *d, const struct damage_copy *copy) {
    uint64_t len = 0;
    const uint8_t *now = sim_disk_bytes(d, copy->file, &len);

    if (now && len == copy->len && memcmp(now, copy->bytes, len) == 0)
        return false;
    return sim_disk_put(d, copy->file, copy->bytes, copy->len);
}

bool damage_do(struct sim_disk *d, struct rng *rng, const struct damage_copy *copy,
               struct damage *dmg) {
    static const uint8_t zeros[SECTOR];

    switch (dmg->kind) {
    case DAMAGE_BIT_ROT:
        return rot(d, rng, dmg);
    case DAMAGE_ZERO_SECTOR:
        return overwrite(d, rng, dmg, zeros, SECTOR);
    case DAMAGE_MISDIRECTED:
        return misdirect(d, rng, dmg);
    case DAMAGE_SWAP:
        return swap(d, rng, dmg);
    case DAMAGE_OLD_META:
    case DAMAGE_OLD_SEGMENT:
        return put_back(d, copy);
    case DAMAGE_TRUNCATED:
        return truncated(d, rng, dmg);
    case DAMAGE_REMOVED:
        return sim_disk_remove(d, dmg->file);
    case DAMAGE_META_SLOT:
    case DAMAGE_META_BOTH:
        return meta_slots(d, rng, dmg, dmg->kind == DAMAGE_META_BOTH);
    case DAMAGE_STATE:
    case DAMAGE_KINDS:
        break;
    }
    return false;
}

/* ---- copies ---------------------------------------------------------------------------------- */

bool damage_copy_file(struct sim_disk *d, const char *name, struct damage_copy *c) {
    uint64_t len = 0;
    const uint8_t *bytes = sim_disk_bytes(d, name, &len);

    if (!bytes || len == 0)
        return false;
    damage_copy_drop(c);
    c->bytes = (uint8_t *) malloc(len);
    ASSERT(c->bytes);
    memcpy(c->bytes, bytes, len);
    c->len = len;
    (void) snprintf(c->file, sizeof(c->file), "%s", name);
    return true;
}

bool damage_copy_take(struct sim_disk *d, struct rng *rng, bool meta, struct damage_copy *c) {
    const char *file = draw_file(d, rng, ANY_SEGMENT, NULL);

    if (meta)
        file = rng_chance(rng, 700) ? "meta" : "meta-copy";
    return file && damage_copy_file(d, file, c);
}

uint64_t damage_log_end(struct sim_disk *d, char ret_name[DAMAGE_NAME_BYTES]) {
    const char *newest = newest_segment(d);
    const uint8_t *bytes;
    uint64_t len = 0;

    if (!newest)
        return 0;
    (void) snprintf(ret_name, DAMAGE_NAME_BYTES, "%s", newest);
    bytes = sim_disk_bytes(d, newest, &len);
    /* Blocks are written whole, the last one with zeros at its end. */
    return bytes ? written_end(bytes, MIN(len, sim_disk_written(d, newest))) : 0;
}

/* The layout is in docs/formats.md; it is read here once more, to see that it is that. */
struct damage_place damage_log_place(struct sim_disk *d) {
    uint64_t len = 0, newest = 0;
    const uint8_t *bytes = sim_disk_bytes(d, "meta", &len);
    struct damage_place place = {0};

    for (size_t i = 0; bytes && i < 2 && len >= 2UL * META_SLOT; i++) {
        const uint8_t *b = bytes + i * META_SLOT;
        uint32_t crc = crc32c_extend(crc32c(b, 12), b + 16, META_SLOT - 16);

        if (get_le32(b + 12) != crc || get_le64(b + 16) <= newest)
            continue;
        newest = get_le64(b + 16);
        place = (struct damage_place){.end = get_le32(b + 96), .index = get_le64(b + 64)};
        if (get_le64(b + 88) > 0)
            (void) snprintf(place.segment, sizeof(place.segment), "wal-%016llx.log",
                            (unsigned long long) get_le64(b + 88));
    }
    return place;
}

void damage_copy_drop(struct damage_copy *c) {
    free(c->bytes);
    *c = (struct damage_copy){0};
}
