/* See meta.h; the slot's bytes are in docs/formats.md.
 *
 * Invariants: the slot last written is never the one written next, except by meta_open, which
 * writes it again with the same bytes; term never decreases; after a failed write nothing is
 * written again. */
#include "storage/meta.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/codec.h"
#include "base/crc32c.h"
#include "storage/io.h"

#define META_NAME "meta"
#define META_TEMP_NAME "meta.tmp"
#define META_SLOT_BYTES 4096U
#define META_SLOTS 2U
#define META_VERSION 1U
/* "CHRNMETA" as little-endian bytes. */
#define META_MAGIC 0x4154454d4e524843ULL

enum {
    M_MAGIC = 0,
    M_VERSION = 8,
    M_CRC = 12,
    M_GENERATION = 16,
    M_CLUSTER = 24,
    M_NODE = 40,
    M_TERM = 48,
    M_VOTE = 56,
    M_SYNCED = 64,
    M_INCARNATION = 72, /* zeros in files from before it was there */
    M_END = 88
};

STATIC_ASSERT(M_END <= META_SLOT_BYTES, "the fields fit the slot");

struct meta {
    struct disk disk;
    struct disk_file *file; /* owned */
    struct meta_state state;
    uint64_t generation;
    uint32_t slot; /* the one that holds state */
    int failed;    /* first error; sticky */
    uint8_t block[META_SLOT_BYTES];
};

static uint32_t slot_crc(const uint8_t *b) {
    return crc32c_extend(crc32c(b, M_CRC), b + M_CRC + 4, META_SLOT_BYTES - M_CRC - 4);
}

static void slot_encode(uint8_t *b, const struct meta_state *s, uint64_t generation) {
    ASSERT(generation > 0);
    memset(b, 0, META_SLOT_BYTES);
    put_le64(b + M_MAGIC, META_MAGIC);
    put_le32(b + M_VERSION, META_VERSION);
    put_le64(b + M_GENERATION, generation);
    memcpy(b + M_CLUSTER, s->cluster_id, sizeof(s->cluster_id));
    put_le64(b + M_NODE, s->node_id);
    put_le64(b + M_TERM, s->term);
    put_le64(b + M_VOTE, s->vote);
    put_le64(b + M_SYNCED, s->synced_index);
    memcpy(b + M_INCARNATION, s->incarnation, sizeof(s->incarnation));
    put_le32(b + M_CRC, slot_crc(b));
}

/* 0, ERR_CORRUPT, ERR_VERSION. */
static int slot_decode(const uint8_t *b, struct meta_state *ret_s, uint64_t *ret_generation) {
    if (get_le64(b + M_MAGIC) != META_MAGIC || get_le32(b + M_CRC) != slot_crc(b))
        return ERR_CORRUPT;
    if (get_le32(b + M_VERSION) != META_VERSION)
        return ERR_VERSION;
    if (get_le64(b + M_GENERATION) == 0)
        return ERR_CORRUPT;
    *ret_generation = get_le64(b + M_GENERATION);
    memcpy(ret_s->cluster_id, b + M_CLUSTER, sizeof(ret_s->cluster_id));
    ret_s->node_id = get_le64(b + M_NODE);
    ret_s->term = get_le64(b + M_TERM);
    ret_s->vote = get_le64(b + M_VOTE);
    ret_s->synced_index = get_le64(b + M_SYNCED);
    memcpy(ret_s->incarnation, b + M_INCARNATION, sizeof(ret_s->incarnation));
    return 0;
}

static int fail(struct meta *m, int err, struct errtext *reterr, const char *doing) {
    ASSERT(err < 0);
    m->failed = m->failed ? m->failed : err;
    errtext_set(reterr, "cannot %s the file " META_NAME ": %s", doing, err_name(err));
    return err;
}

static int write_slot(struct meta *m, uint32_t slot, struct errtext *reterr) {
    int r;

    ASSERT(slot < META_SLOTS);
    slot_encode(m->block, &m->state, m->generation);
    r = io_write_full(&m->disk, m->file, (uint64_t) slot * META_SLOT_BYTES, m->block,
                      META_SLOT_BYTES);
    if (r < 0)
        return fail(m, r, reterr, "write");
    r = m->disk.ops->datasync(m->disk.ctx, m->file);
    if (r < 0)
        return fail(m, r, reterr, "sync");
    m->slot = slot;
    return 0;
}

/* Take the intact slot with the higher generation. */
static int read_slots(struct meta *m, struct errtext *reterr) {
    bool found = false;
    int worst = ERR_CORRUPT;

    for (uint32_t i = 0; i < META_SLOTS; i++) {
        struct meta_state s = {0};
        uint64_t generation = 0;
        size_t n = 0;
        int r = io_read_full(&m->disk, m->file, (uint64_t) i * META_SLOT_BYTES, m->block,
                             META_SLOT_BYTES, &n);

        if (r < 0)
            return fail(m, r, reterr, "read");
        r = n == META_SLOT_BYTES ? slot_decode(m->block, &s, &generation) : ERR_CORRUPT;
        if (r == ERR_VERSION)
            worst = r;
        if (r < 0 || (found && generation <= m->generation))
            continue;
        found = true;
        m->state = s;
        m->generation = generation;
        m->slot = i;
    }
    /* An intact slot of a newer program beside an old one of ours: its term may be the truth. */
    if (worst == ERR_VERSION) {
        errtext_set(reterr,
                    "the file " META_NAME " was written by a newer version of this program");
        return ERR_VERSION;
    }
    if (found)
        return 0;
    errtext_set(
        reterr,
        "the file " META_NAME
        ": both slots (offset 0 and offset %u) are damaged; term and vote are lost, so this "
        "node must not vote again: leave it stopped, the others go on without it",
        META_SLOT_BYTES);
    return ERR_CORRUPT;
}

static struct meta *meta_new(const struct disk *disk) {
    struct meta *m = (struct meta *) calloc(1, sizeof(*m));

    if (m)
        m->disk = *disk;
    return m;
}

int meta_open(const struct disk *disk, struct meta **ret, struct meta_state *ret_state,
              struct errtext *reterr) {
    _cleanup_(meta_closep) struct meta *m = NULL;
    int r;

    ASSERT(disk && disk->ops);
    ASSERT(ret && ret_state);
    *ret = NULL;
    m = meta_new(disk);
    if (!m)
        return -ENOMEM;
    r = disk->ops->open(disk->ctx, META_NAME, 0, &m->file);
    if (r == -ENOENT)
        return META_MISSING;
    if (r < 0)
        return fail(m, r, reterr, "open");
    r = read_slots(m, reterr);
    if (r < 0)
        return r;
    /* What was read may be in the page cache only, left by a sync that failed (W3). Writing the
     * same bytes to the same slot makes it durable, and a power cut in the middle leaves the other
     * slot, which is then the newest durable one. */
    r = write_slot(m, m->slot, reterr);
    if (r < 0)
        return r;
    *ret_state = m->state;
    *ret = TAKE_PTR(m);
    return 0;
}

int meta_inspect(const struct disk *disk, struct meta_inspect_slot ret[2], struct errtext *reterr) {
    struct disk_file *file = NULL;
    uint8_t block[META_SLOT_BYTES];
    int r;

    ASSERT(disk && disk->ops && ret);
    r = disk->ops->open(disk->ctx, META_NAME, DISK_RDONLY, &file);
    if (r == -ENOENT)
        return META_MISSING;
    for (uint32_t i = 0; r >= 0 && i < META_SLOTS; i++) {
        size_t n = 0;

        ret[i] = (struct meta_inspect_slot){.rc = ERR_CORRUPT};
        r = io_read_full(disk, file, (uint64_t) i * META_SLOT_BYTES, block, META_SLOT_BYTES, &n);
        if (r >= 0 && n == META_SLOT_BYTES)
            ret[i].rc = slot_decode(block, &ret[i].state, &ret[i].generation);
    }
    if (r < 0)
        errtext_set(reterr, "cannot read the file " META_NAME ": %s", err_name(r));
    if (file)
        file = io_close(disk, file);
    return r < 0 ? r : 0;
}

int meta_create(const struct disk *disk, const struct meta_state *state, struct meta **ret,
                struct errtext *reterr) {
    _cleanup_(meta_closep) struct meta *m = NULL;
    struct disk_file *old = NULL;
    int r;

    ASSERT(disk && disk->ops);
    ASSERT(state && ret);
    *ret = NULL;
    m = meta_new(disk);
    if (!m)
        return -ENOMEM;
    r = disk->ops->open(disk->ctx, META_NAME, DISK_RDONLY, &old);
    if (r >= 0) {
        old = io_close(disk, old);
        errtext_set(reterr, "the file " META_NAME " exists already");
        return -EEXIST;
    }
    if (r != -ENOENT)
        return fail(m, r, reterr, "look for");
    r = disk->ops->open(disk->ctx, META_TEMP_NAME, DISK_CREATE, &m->file);
    if (r >= 0)
        r = disk->ops->truncate(disk->ctx, m->file, 0);
    if (r >= 0)
        r = io_write_zeros(disk, m->file, 0, (uint64_t) META_SLOTS * META_SLOT_BYTES);
    if (r < 0)
        return fail(m, r, reterr, "create");
    m->state = *state;
    m->generation = 1;
    r = write_slot(m, 0, reterr);
    if (r < 0)
        return r;
    r = disk->ops->rename(disk->ctx, META_TEMP_NAME, META_NAME);
    if (r >= 0)
        r = disk->ops->sync_dir(disk->ctx);
    if (r < 0)
        return fail(m, r, reterr, "rename");
    *ret = TAKE_PTR(m);
    return 0;
}

int meta_save(struct meta *m, uint64_t term, uint64_t vote, uint64_t synced_index,
              struct errtext *reterr) {
    ASSERT(m);
    ASSERT(term >= m->state.term);
    /* One vote a term: changing it would be voting twice (Raft, section 5.2). */
    ASSERT(term > m->state.term || m->state.vote == 0 || m->state.vote == vote);
    if (m->failed)
        return fail(m, m->failed, reterr, "write");
    m->state.term = term;
    m->state.vote = vote;
    m->state.synced_index = synced_index;
    m->generation++;
    return write_slot(m, 1 - m->slot, reterr);
}

struct meta *meta_close(struct meta *m) {
    if (!m)
        return NULL;
    m->file = io_close(&m->disk, m->file);
    free(m);
    return NULL;
}
