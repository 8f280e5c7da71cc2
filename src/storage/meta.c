/* See meta.h; the slot's bytes are in docs/formats.md.
 *
 * Invariants: in each file the slot last written is never the one written next, except by
 * meta_open, which writes it again with the same bytes; the copy is written after the file is
 * durable; term never decreases; after a failed write nothing is written again. */
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
#define META_COPY_NAME "meta-copy"
#define META_SLOT_BYTES 4096U
#define META_SLOTS 2U
#define META_VERSION 1U
/* Nothing counts so far; a slot that says more is none of ours, and the next one must not wrap. */
#define META_GENERATION_MAX (UINT64_MAX / 4)
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
    M_LOG_SEQ = 88,     /* these, too */
    M_LOG_END = 96,
    M_LOG_CRC = 100,
    M_END = 104
};

STATIC_ASSERT(M_END <= META_SLOT_BYTES, "the fields fit the slot");

/* One of the two files. */
struct slots {
    const char *name;
    struct disk_file *file; /* owned; NULL: not there */
    struct meta_state state;
    uint64_t generation; /* 0: no slot is intact */
    uint32_t slot;       /* the one that holds it */
    bool newer_version;
};

struct meta {
    struct disk disk;
    struct slots main, copy;
    struct meta_state state;
    uint64_t generation;
    bool repaired;
    int failed; /* first error; sticky */
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
    put_le64(b + M_LOG_SEQ, s->log.seq);
    put_le32(b + M_LOG_END, s->log.end);
    put_le32(b + M_LOG_CRC, s->log.crc);
    put_le32(b + M_CRC, slot_crc(b));
}

/* 0, ERR_CORRUPT, ERR_VERSION. */
static int slot_decode(const uint8_t *b, struct meta_state *ret_s, uint64_t *ret_generation) {
    if (get_le64(b + M_MAGIC) != META_MAGIC || get_le32(b + M_CRC) != slot_crc(b))
        return ERR_CORRUPT;
    if (get_le32(b + M_VERSION) != META_VERSION)
        return ERR_VERSION;
    if (get_le64(b + M_GENERATION) == 0 || get_le64(b + M_GENERATION) > META_GENERATION_MAX)
        return ERR_CORRUPT;
    *ret_generation = get_le64(b + M_GENERATION);
    memcpy(ret_s->cluster_id, b + M_CLUSTER, sizeof(ret_s->cluster_id));
    ret_s->node_id = get_le64(b + M_NODE);
    ret_s->term = get_le64(b + M_TERM);
    ret_s->vote = get_le64(b + M_VOTE);
    ret_s->synced_index = get_le64(b + M_SYNCED);
    memcpy(ret_s->incarnation, b + M_INCARNATION, sizeof(ret_s->incarnation));
    ret_s->log.seq = get_le64(b + M_LOG_SEQ);
    ret_s->log.end = get_le32(b + M_LOG_END);
    ret_s->log.crc = get_le32(b + M_LOG_CRC);
    return 0;
}

static int fail(struct meta *m, int err, struct errtext *reterr, const char *doing,
                const char *name) {
    ASSERT(err < 0);
    m->failed = m->failed ? m->failed : err;
    errtext_set(reterr, "cannot %s the file %s: %s", doing, name, err_name(err));
    return err;
}

/* Write what is to be remembered into @slot of @f. */
static int write_slot(struct meta *m, struct slots *f, uint32_t slot, struct errtext *reterr) {
    int r;

    ASSERT(slot < META_SLOTS);
    slot_encode(m->block, &m->state, m->generation);
    r = io_write_full(&m->disk, f->file, (uint64_t) slot * META_SLOT_BYTES, m->block,
                      META_SLOT_BYTES);
    if (r < 0)
        return fail(m, r, reterr, "write", f->name);
    r = m->disk.ops->datasync(m->disk.ctx, f->file);
    if (r < 0)
        return fail(m, r, reterr, "sync", f->name);
    f->slot = slot;
    f->generation = m->generation;
    return 0;
}

/* What @f holds: in place when it is that already, else beside what it holds. */
static int bring_up(struct meta *m, struct slots *f, struct errtext *reterr) {
    bool same = f->generation == m->generation || f->generation == 0;

    return write_slot(m, f, same ? f->slot : 1 - f->slot, reterr);
}

/* Find the intact slot with the higher generation. */
static int read_slots(struct meta *m, struct slots *f, struct errtext *reterr) {
    for (uint32_t i = 0; i < META_SLOTS; i++) {
        struct meta_state s = {0};
        uint64_t generation = 0;
        size_t n = 0;
        int r = io_read_full(&m->disk, f->file, (uint64_t) i * META_SLOT_BYTES, m->block,
                             META_SLOT_BYTES, &n);

        if (r < 0)
            return fail(m, r, reterr, "read", f->name);
        r = n == META_SLOT_BYTES ? slot_decode(m->block, &s, &generation) : ERR_CORRUPT;
        f->newer_version = f->newer_version || r == ERR_VERSION;
        if (r < 0 || generation <= f->generation)
            continue;
        f->state = s;
        f->generation = generation;
        f->slot = i;
    }
    if (!f->newer_version)
        return 0;
    /* An intact slot of a newer program beside an old one of ours: its term may be the truth. */
    errtext_set(reterr, "the file %s was written by a newer version of this program", f->name);
    return ERR_VERSION;
}

static int open_slots(struct meta *m, struct slots *f, struct errtext *reterr) {
    int r = m->disk.ops->open(m->disk.ctx, f->name, 0, &f->file);

    if (r == -ENOENT)
        return 0;
    return r < 0 ? fail(m, r, reterr, "open", f->name) : read_slots(m, f, reterr);
}

static int refuse(struct errtext *reterr, const char *why) {
    errtext_set(reterr,
                "%s; term and vote are lost, so this node must not vote again: leave it "
                "stopped, the others go on without it",
                why);
    return ERR_CORRUPT;
}

static bool same_birth(const struct meta_state *a, const struct meta_state *b) {
    return a->node_id == b->node_id &&
           memcmp(a->cluster_id, b->cluster_id, sizeof(a->cluster_id)) == 0 &&
           memcmp(a->incarnation, b->incarnation, sizeof(a->incarnation)) == 0;
}

/* Both files were read: what counts. The copy is written after the file, so it is never ahead of
 * it unless the file was put back from an old copy or lost its newest slot. */
static int judge(struct meta *m, struct errtext *reterr) {
    const struct slots *f = &m->main, *c = &m->copy;

    if (!f->file)
        return refuse(reterr, "the file " META_NAME " is missing beside " META_COPY_NAME);
    if (f->generation == 0)
        return refuse(reterr,
                      "the file " META_NAME ": both slots (offset 0 and offset 4096) are damaged");
    if (c->generation > 0 && !same_birth(&f->state, &c->state))
        return refuse(reterr, "the files " META_NAME " and " META_COPY_NAME
                              " belong to different data directories (offset 24)");
    m->repaired = c->generation > f->generation;
    m->state = m->repaired ? c->state : f->state;
    m->generation = MAX(c->generation, f->generation);
    return 0;
}

static struct meta *meta_new(const struct disk *disk) {
    struct meta *m = (struct meta *) calloc(1, sizeof(*m));

    if (m) {
        m->disk = *disk;
        m->main.name = META_NAME;
        m->copy.name = META_COPY_NAME;
    }
    return m;
}

/* Make @f of zeros, under @name. */
static int create_slots(struct meta *m, struct slots *f, const char *name, struct errtext *reterr) {
    const struct disk *disk = &m->disk;
    int r = disk->ops->open(disk->ctx, name, DISK_CREATE, &f->file);

    if (r >= 0)
        r = disk->ops->truncate(disk->ctx, f->file, 0);
    if (r >= 0)
        r = io_write_zeros(disk, f->file, 0, (uint64_t) META_SLOTS * META_SLOT_BYTES);
    return r < 0 ? fail(m, r, reterr, "create", name) : 0;
}

/* The copy, which was not there, or is not whole. */
static int create_copy(struct meta *m, struct errtext *reterr) {
    int r;

    m->copy.file = io_close(&m->disk, m->copy.file);
    r = create_slots(m, &m->copy, META_COPY_NAME, reterr);
    if (r >= 0)
        r = write_slot(m, &m->copy, 0, reterr);
    if (r < 0)
        return r;
    r = m->disk.ops->sync_dir(m->disk.ctx);
    return r < 0 ? fail(m, r, reterr, "name", META_COPY_NAME) : 0;
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
    r = open_slots(m, &m->main, reterr);
    if (r >= 0)
        r = open_slots(m, &m->copy, reterr);
    if (r < 0)
        return r;
    if (!m->main.file && !m->copy.file)
        return META_MISSING;
    r = judge(m, reterr);
    if (r < 0)
        return r;
    /* What was read may be in the page cache only, left by a sync that failed (W3). Writing the
     * same bytes to the same slot makes it durable, and a power cut in the middle leaves the other
     * slot, which is then the newest durable one. */
    r = bring_up(m, &m->main, reterr);
    if (r >= 0)
        r = m->copy.generation > 0 ? bring_up(m, &m->copy, reterr) : create_copy(m, reterr);
    if (r < 0)
        return r;
    *ret_state = m->state;
    *ret = TAKE_PTR(m);
    return 0;
}

void meta_note_log(struct meta *m, struct wal_position log) {
    ASSERT(log.seq >= m->state.log.seq);
    m->state.log = log;
}

struct wal_position meta_log(const struct meta *m) {
    return m->state.log;
}

bool meta_repaired(const struct meta *m) {
    return m->repaired;
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
        return fail(m, r, reterr, "look for", META_NAME);
    m->state = *state;
    m->generation = 1;
    r = create_slots(m, &m->main, META_TEMP_NAME, reterr);
    if (r >= 0)
        r = write_slot(m, &m->main, 0, reterr);
    if (r < 0)
        return r;
    r = disk->ops->rename(disk->ctx, META_TEMP_NAME, META_NAME);
    if (r >= 0)
        r = disk->ops->sync_dir(disk->ctx);
    if (r < 0)
        return fail(m, r, reterr, "rename", META_NAME);
    r = create_copy(m, reterr);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(m);
    return 0;
}

int meta_save(struct meta *m, uint64_t term, uint64_t vote, uint64_t synced_index,
              struct errtext *reterr) {
    int r;

    ASSERT(m);
    ASSERT(term >= m->state.term);
    /* One vote a term: changing it would be voting twice (Raft, section 5.2). */
    ASSERT(term > m->state.term || m->state.vote == 0 || m->state.vote == vote);
    if (m->failed)
        return fail(m, m->failed, reterr, "write", META_NAME);
    if (m->generation >= META_GENERATION_MAX) /* the next one would be refused when it is read */
        return fail(m, -EOVERFLOW, reterr, "write", META_NAME);
    m->state.term = term;
    m->state.vote = vote;
    m->state.synced_index = synced_index;
    m->generation++;
    r = write_slot(m, &m->main, 1 - m->main.slot, reterr);
    return r < 0 ? r : write_slot(m, &m->copy, 1 - m->copy.slot, reterr);
}

struct meta *meta_close(struct meta *m) {
    if (!m)
        return NULL;
    m->main.file = io_close(&m->disk, m->main.file);
    m->copy.file = io_close(&m->disk, m->copy.file);
    free(m);
    return NULL;
}
