/* See sim_disk.h.
 *
 * Per file: live bytes and an undo log. An undo record says what a write or truncation replaced;
 * rolling all of them back gives the durable plane. A successful datasync forgets them. After a
 * lying sync the durable content of the affected pages moves to `lost`: it replaces the live
 * content at a power cut unless the page has been written and synced again.
 * The directory: live entries and an undo log of operations, forgotten by sync_dir.
 * Invariant: undo records of all files and of the directory carry one common growing number, so
 * "everything up to one moment" is well defined across them. */
#include "sim/sim_disk.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"

#define SECTOR_BYTES 512U
#define PAGE_BYTES 4096U
#define NAME_BYTES 64

struct vec {
    uint8_t *data; /* owned */
    size_t len;
    size_t cap;
};

/* Followed in the vec by old_len replaced bytes; linked backwards for rolling back. */
struct undo {
    uint64_t number;
    uint64_t offset;
    uint64_t old_size; /* of the file */
    size_t old_len;    /* replaced bytes kept (the part inside the old size) */
    size_t new_len;    /* bytes written; 0 for a truncation */
    size_t previous;   /* position of the record before, SIZE_MAX = none */
};

/* A page whose live content the disk silently never took. */
struct lost_page {
    uint64_t page;
    bool written_again;
    uint8_t durable[PAGE_BYTES];
};

struct inode {
    uint32_t refs; /* directory, undo log and handles */
    uint8_t *data; /* owned; live */
    uint64_t size;
    uint64_t cap;
    struct vec undo;
    size_t undo_last;       /* position of the newest record, SIZE_MAX = none */
    struct lost_page *lost; /* owned */
    size_t lost_count;
    uint64_t lost_size; /* durable size behind a lying sync; UINT64_MAX = none */
};

struct entry {
    char name[NAME_BYTES];
    struct inode *inode; /* owned reference */
};

/* A directory operation: what one name held before it. A rename is two with one number. */
struct dir_undo {
    uint64_t number;
    char name[NAME_BYTES];
    struct inode *before; /* owned reference; NULL: the name was free */
};

struct disk_file {
    struct inode *inode; /* owned reference */
    int flags;
    uint64_t life; /* of the disk when it was opened */
};

struct sim_disk {
    struct disk disk;
    struct entry *entries; /* owned */
    size_t entries_count;
    size_t entries_cap;
    struct dir_undo *dir_undos; /* owned */
    size_t dir_undos_count;
    size_t dir_undos_cap;
    uint64_t number; /* of the next undo record */
    uint64_t life;
    uint64_t used_bytes;
    uint64_t capacity_bytes;
    uint64_t counts[SIM_DISK_OPS + 1];
    uint32_t handles;
    bool crashed;
    bool fault_set;
    bool fault_hit;
    uint64_t fault_countdown;
    struct sim_disk_fault fault;
};

/* ---- memory ---- */

static int grow(void **p, size_t *cap, size_t need, size_t item) {
    size_t n = MAX(need, *cap * 2);
    void *q;

    if (need <= *cap)
        return 0;
    q = realloc(*p, n * item);
    if (!q)
        return -ENOMEM;
    *p = q;
    *cap = n;
    return 0;
}

static struct inode *inode_new(void) {
    struct inode *i = (struct inode *) calloc(1, sizeof(*i));

    if (i) {
        i->refs = 1;
        i->undo_last = SIZE_MAX;
        i->lost_size = UINT64_MAX;
    }
    return i;
}

static struct inode *inode_ref(struct inode *i) {
    i->refs++;
    return i;
}

static void inode_unref(struct sim_disk *d, struct inode *i) {
    if (!i)
        return;
    ASSERT(i->refs > 0);
    if (--i->refs > 0)
        return;
    ASSERT(d->used_bytes >= i->size);
    d->used_bytes -= i->size;
    free(i->data);
    free(i->undo.data);
    free(i->lost);
    free(i);
}

static int inode_reserve(struct inode *i, uint64_t size) {
    uint64_t cap = MAX(size, MIN(i->cap * 2, i->cap + (1U << 20)));
    uint8_t *data;

    if (size <= i->cap)
        return 0;
    data = (uint8_t *) realloc(i->data, (size_t) cap);
    if (!data)
        return -ENOMEM;
    i->data = data;
    i->cap = cap;
    return 0;
}

/* Set the live size; bytes that appear are zero. Room must have been reserved. */
static void inode_set_size(struct sim_disk *d, struct inode *i, uint64_t size) {
    ASSERT(size <= i->cap || size <= i->size);
    if (size > i->size)
        memset(i->data + i->size, 0, (size_t) (size - i->size));
    d->used_bytes += size;
    d->used_bytes -= i->size;
    i->size = size;
}

/* ---- undo of data ---- */

/* Remember what [offset, offset + len) holds before it is overwritten. */
static int undo_push(struct sim_disk *d, struct inode *i, uint64_t offset, size_t old_len,
                     size_t new_len) {
    const struct undo u = {
        .number = d->number,
        .offset = offset,
        .old_size = i->size,
        .old_len = old_len,
        .new_len = new_len,
        .previous = i->undo_last,
    };
    void *p = i->undo.data;
    int r = grow(&p, &i->undo.cap, i->undo.len + sizeof(u) + old_len, 1);

    i->undo.data = (uint8_t *) p;
    if (r < 0)
        return r;
    d->number++;
    i->undo_last = i->undo.len;
    memcpy(i->undo.data + i->undo.len, &u, sizeof(u));
    if (old_len > 0)
        memcpy(i->undo.data + i->undo.len + sizeof(u), i->data + offset, old_len);
    i->undo.len += sizeof(u) + old_len;
    return 0;
}

static void undo_clear(struct inode *i) {
    i->undo.len = 0;
    i->undo_last = SIZE_MAX;
}

/* Take back the newest write, or only its bytes from @keep on. */
static void undo_pop(struct sim_disk *d, struct inode *i, size_t keep) {
    struct undo u;
    uint64_t size;

    ASSERT(i->undo_last != SIZE_MAX);
    memcpy(&u, i->undo.data + i->undo_last, sizeof(u));
    keep = MIN(keep, u.new_len);
    size = keep > 0 ? MAX(u.old_size, u.offset + keep) : u.old_size;
    inode_set_size(d, i, size);
    if (u.old_len > keep)
        memcpy(i->data + u.offset + keep, i->undo.data + i->undo_last + sizeof(u) + keep,
               u.old_len - keep);
    i->undo.len = i->undo_last;
    i->undo_last = u.previous;
}

static uint64_t undo_number(const struct inode *i) {
    struct undo u;

    memcpy(&u, i->undo.data + i->undo_last, sizeof(u));
    return u.number;
}

/* ---- directory ---- */

static struct entry *dir_find(const struct sim_disk *d, const char *name) {
    for (size_t i = 0; i < d->entries_count; i++)
        if (strcmp(d->entries[i].name, name) == 0)
            return &d->entries[i];
    return NULL;
}

/* Let @name hold @inode (a reference is taken; NULL frees the name). Cannot fail when an entry
 * was reserved. */
static void dir_set(struct sim_disk *d, const char *name, struct inode *inode) {
    struct entry *e = dir_find(d, name);
    struct inode *old = e ? e->inode : NULL;

    if (inode && !e) {
        ASSERT(d->entries_count < d->entries_cap);
        e = &d->entries[d->entries_count++];
        (void) snprintf(e->name, sizeof(e->name), "%s", name);
    }
    if (inode)
        e->inode = inode_ref(inode);
    else if (e)
        *e = d->entries[--d->entries_count];
    inode_unref(d, old);
}

static int dir_reserve(struct sim_disk *d) {
    void *p = d->entries;
    int r =
        grow(&p, &d->entries_cap, d->entries_count + d->dir_undos_count + 8, sizeof(*d->entries));

    d->entries = (struct entry *) p;
    if (r < 0)
        return r;
    p = d->dir_undos;
    r = grow(&p, &d->dir_undos_cap, d->dir_undos_count + 2, sizeof(*d->dir_undos));
    d->dir_undos = (struct dir_undo *) p;
    return r;
}

static void dir_remember(struct sim_disk *d, const char *name) {
    struct entry *e = dir_find(d, name);
    struct dir_undo *u = &d->dir_undos[d->dir_undos_count++];

    ASSERT(d->dir_undos_count <= d->dir_undos_cap);
    u->number = d->number;
    (void) snprintf(u->name, sizeof(u->name), "%s", name);
    u->before = e ? inode_ref(e->inode) : NULL;
}

static void dir_pop(struct sim_disk *d) {
    struct dir_undo *u = &d->dir_undos[--d->dir_undos_count];

    dir_set(d, u->name, u->before);
    inode_unref(d, u->before);
}

static void dir_forget(struct sim_disk *d) {
    while (d->dir_undos_count > 0)
        inode_unref(d, d->dir_undos[--d->dir_undos_count].before);
}

/* ---- faults ---- */

/* Count the operation and say whether the fault hits it. Returns 0 (do it), or a result to return
 * at once. @ret_effect is set when the operation itself has to carry the fault out. */
static int enter(struct sim_disk *d, enum sim_disk_op op, const struct disk_file *f,
                 bool *ret_special) {
    const struct sim_disk_fault *x = &d->fault;

    *ret_special = false;
    if (d->crashed || (f && f->life != d->life))
        return ERR_CRASHED;
    d->counts[op]++;
    d->counts[SIM_DISK_ANY]++;
    if (!d->fault_set || (x->op != SIM_DISK_ANY && x->op != op))
        return 0;
    if (d->fault_countdown > 1) {
        d->fault_countdown--;
        return 0;
    }
    if (!x->repeat)
        d->fault_set = false;
    d->fault_hit = true;
    switch (x->effect) {
    case SIM_DISK_FAIL:
        return x->err;
    case SIM_DISK_SHORT:
        *ret_special = op == SIM_DISK_PREAD || op == SIM_DISK_PWRITE;
        return 0;
    case SIM_DISK_SYNC_LIES:
    case SIM_DISK_SYNC_DROPS:
        *ret_special = op == SIM_DISK_DATASYNC;
        return 0;
    case SIM_DISK_CRASH:
        d->crashed = true;
        return ERR_CRASHED;
    case SIM_DISK_CRASH_MID:
        *ret_special = true;
        return 0;
    }
    return 0;
}

/* The power went in the middle of an operation that was just carried out. */
static int leave(struct sim_disk *d, bool special, int r) {
    if (!special || d->fault.effect != SIM_DISK_CRASH_MID)
        return r;
    d->crashed = true;
    return ERR_CRASHED;
}

/* How much of @len a short or interrupted transfer does. */
static size_t part_of(const struct sim_disk *d, size_t len) {
    size_t n = d->fault.effect == SIM_DISK_SHORT ? len / 3 + 1 : len / 2;

    return MIN(n, len);
}

/* ---- operations ---- */

static int op_open(void *ctx, const char *name, int flags, struct disk_file **ret_file) {
    struct sim_disk *d = (struct sim_disk *) ctx;
    struct disk_file *f;
    struct entry *e;
    bool special;
    int r = enter(d, SIM_DISK_OPEN, NULL, &special);

    if (r < 0)
        return r;
    if (strlen(name) >= NAME_BYTES || strchr(name, '/'))
        return leave(d, special, -EINVAL);
    e = dir_find(d, name);
    if (e && (flags & DISK_CREATE) && (flags & DISK_EXCL))
        return leave(d, special, -EEXIST);
    if (!e && !(flags & DISK_CREATE))
        return leave(d, special, -ENOENT);
    r = dir_reserve(d);
    if (r < 0)
        return r;
    f = (struct disk_file *) calloc(1, sizeof(*f));
    if (!f)
        return -ENOMEM;
    f->flags = flags;
    f->life = d->life;
    f->inode = e ? inode_ref(dir_find(d, name)->inode) : inode_new();
    if (!f->inode) {
        free(f);
        return -ENOMEM;
    }
    if (!e) {
        dir_remember(d, name);
        d->number++;
        dir_set(d, name, f->inode);
    }
    d->handles++;
    *ret_file = f;
    if (special) {
        inode_unref(d, f->inode);
        free(f);
        d->handles--;
        *ret_file = NULL;
    }
    return leave(d, special, 0);
}

static void op_close(void *ctx, struct disk_file *f) {
    struct sim_disk *d = (struct sim_disk *) ctx;

    ASSERT(f);
    ASSERT(d->handles > 0);
    inode_unref(d, f->inode);
    d->handles--;
    free(f);
}

static int op_size(void *ctx, struct disk_file *f, uint64_t *ret_bytes) {
    struct sim_disk *d = (struct sim_disk *) ctx;
    bool special;
    int r = enter(d, SIM_DISK_SIZE, f, &special);

    if (r < 0)
        return r;
    *ret_bytes = f->inode->size;
    return leave(d, special, 0);
}

static int op_pread(void *ctx, struct disk_file *f, uint64_t off, void *buf, size_t len,
                    size_t *ret_n) {
    struct sim_disk *d = (struct sim_disk *) ctx;
    uint64_t size = f->inode->size;
    size_t n = off < size ? (size_t) MIN((uint64_t) len, size - off) : 0;
    bool special;
    int r = enter(d, SIM_DISK_PREAD, f, &special);

    if (r < 0)
        return r;
    if (special)
        n = part_of(d, n);
    if (n > 0)
        memcpy(buf, f->inode->data + off, n);
    *ret_n = n;
    return leave(d, special, 0);
}

/* A page written again is a candidate for becoming durable after all. */
static void lost_touch(struct inode *i, uint64_t off, size_t len) {
    for (size_t k = 0; k < i->lost_count; k++) {
        uint64_t start = i->lost[k].page * PAGE_BYTES;

        if (off < start + PAGE_BYTES && start < off + len)
            i->lost[k].written_again = true;
    }
}

static int op_pwrite(void *ctx, struct disk_file *f, uint64_t off, const void *buf, size_t len,
                     size_t *ret_n) {
    struct sim_disk *d = (struct sim_disk *) ctx;
    struct inode *i = f->inode;
    uint64_t growth;
    bool special;
    int r = enter(d, SIM_DISK_PWRITE, f, &special);

    if (r < 0)
        return r;
    if (f->flags & DISK_RDONLY)
        return leave(d, special, -EBADF);
    if (special)
        len = part_of(d, len);
    growth = off + len > i->size ? off + len - i->size : 0;
    if (d->capacity_bytes > 0 && d->used_bytes + growth > d->capacity_bytes) {
        uint64_t over = d->used_bytes + growth - d->capacity_bytes;

        if (growth == 0 || over >= len)
            return leave(d, special, -ENOSPC);
        len -= (size_t) over;
    }
    if (len > 0) {
        uint64_t old_len = off < i->size ? MIN((uint64_t) len, i->size - off) : 0;

        r = inode_reserve(i, off + len);
        if (r >= 0)
            r = undo_push(d, i, off, (size_t) old_len, len);
        if (r < 0)
            return r;
        if (off + len > i->size)
            inode_set_size(d, i, off + len);
        memcpy(i->data + off, buf, len);
        lost_touch(i, off, len);
    }
    *ret_n = len;
    return leave(d, special, 0);
}

static int op_truncate(void *ctx, struct disk_file *f, uint64_t size) {
    struct sim_disk *d = (struct sim_disk *) ctx;
    struct inode *i = f->inode;
    bool special;
    int r = enter(d, SIM_DISK_TRUNCATE, f, &special);

    if (r < 0)
        return r;
    if (size == i->size)
        return leave(d, special, 0);
    if (size > i->size && d->capacity_bytes > 0 &&
        d->used_bytes + (size - i->size) > d->capacity_bytes)
        return leave(d, special, -ENOSPC);
    r = inode_reserve(i, size);
    if (r >= 0)
        r = undo_push(d, i, MIN(size, i->size), (size_t) (i->size - MIN(size, i->size)), 0);
    if (r < 0)
        return r;
    inode_set_size(d, i, size);
    return leave(d, special, 0);
}

static int op_rename(void *ctx, const char *from, const char *to) {
    struct sim_disk *d = (struct sim_disk *) ctx;
    struct inode *i;
    bool special;
    int r = enter(d, SIM_DISK_RENAME, NULL, &special);

    if (r < 0)
        return r;
    if (strlen(to) >= NAME_BYTES || strchr(to, '/'))
        return leave(d, special, -EINVAL);
    if (!dir_find(d, from))
        return leave(d, special, -ENOENT);
    r = dir_reserve(d);
    if (r < 0)
        return r;
    i = inode_ref(dir_find(d, from)->inode);
    dir_remember(d, from);
    dir_remember(d, to);
    d->number++;
    dir_set(d, to, i);
    if (strcmp(from, to) != 0)
        dir_set(d, from, NULL);
    inode_unref(d, i);
    return leave(d, special, 0);
}

static int op_unlink(void *ctx, const char *name) {
    struct sim_disk *d = (struct sim_disk *) ctx;
    bool special;
    int r = enter(d, SIM_DISK_UNLINK, NULL, &special);

    if (r < 0)
        return r;
    if (!dir_find(d, name))
        return leave(d, special, -ENOENT);
    r = dir_reserve(d);
    if (r < 0)
        return r;
    dir_remember(d, name);
    d->number++;
    dir_set(d, name, NULL);
    return leave(d, special, 0);
}

static int op_sync_dir(void *ctx) {
    struct sim_disk *d = (struct sim_disk *) ctx;
    bool special;
    int r = enter(d, SIM_DISK_SYNC_DIR, NULL, &special);

    if (r < 0)
        return r;
    /* Interrupted: nothing has been promised yet, and the crash decides what stays. */
    if (!special)
        dir_forget(d);
    return leave(d, special, 0);
}

static int op_list(void *ctx, int (*each)(void *arg, const char *name), void *arg) {
    struct sim_disk *d = (struct sim_disk *) ctx;
    bool special;
    int r = enter(d, SIM_DISK_LIST, NULL, &special);

    if (r < 0)
        return r;
    for (size_t i = 0; i < d->entries_count; i++) {
        r = each(arg, d->entries[i].name);
        if (r != 0)
            return r;
    }
    return leave(d, special, 0);
}

/* ---- durable plane ---- */

/* The durable content of a file: the live one with everything unsynced taken back. */
struct plane {
    uint8_t *data; /* owned */
    uint64_t size;
};

static void plane_done(struct plane *p) {
    free(p->data);
}

static void lost_apply(struct sim_disk *d, struct inode *i) {
    for (size_t k = 0; k < i->lost_count; k++) {
        uint64_t start = i->lost[k].page * PAGE_BYTES;

        if (start < i->size)
            memcpy(i->data + start, i->lost[k].durable,
                   (size_t) MIN((uint64_t) PAGE_BYTES, i->size - start));
    }
    if (i->lost_size < i->size)
        inode_set_size(d, i, i->lost_size);
    i->lost_count = 0;
    i->lost_size = UINT64_MAX;
}

/* Memory for a simulated power cut must be there: a crash has no way to fail. */
static void *must_alloc(size_t bytes) {
    void *p = malloc(MAX(bytes, (size_t) 1));

    ASSERT(p);
    return p;
}

static void must_reserve(struct inode *i, uint64_t size) {
    int r = inode_reserve(i, size);

    ASSERT(r == 0);
}

static struct plane plane_copy(const struct inode *i) {
    struct plane p = {.data = (uint8_t *) must_alloc((size_t) i->size), .size = i->size};

    if (i->size > 0)
        memcpy(p.data, i->data, (size_t) i->size);
    return p;
}

static bool chunk_equal(const struct plane *p, const struct inode *i, uint64_t start, size_t len) {
    uint64_t end = start + len;
    uint64_t a = MIN(end, p->size);
    uint64_t b = MIN(end, i->size);

    return a == b && (a <= start || memcmp(p->data + start, i->data + start, a - start) == 0);
}

/* A failed sync that calls the pages clean: what the disk really holds is kept aside. */
static int sync_lies(struct sim_disk *d, struct inode *i) {
    _cleanup_(plane_done) struct plane live = plane_copy(i);
    size_t pages = (size_t) ((live.size + PAGE_BYTES - 1) / PAGE_BYTES);
    struct lost_page *lost =
        (struct lost_page *) must_alloc((pages + i->lost_count) * sizeof(struct lost_page));
    size_t n = 0;

    while (i->undo_last != SIZE_MAX)
        undo_pop(d, i, 0);
    lost_apply(d, i); /* now the durable plane */
    for (uint64_t page = 0; page < pages; page++) {
        uint64_t start = page * PAGE_BYTES;

        if (chunk_equal(&live, i, start, PAGE_BYTES))
            continue;
        lost[n] = (struct lost_page){.page = page};
        if (start < i->size)
            memcpy(lost[n].durable, i->data + start,
                   (size_t) MIN((uint64_t) PAGE_BYTES, i->size - start));
        n++;
    }
    free(i->lost);
    i->lost = lost;
    if (d->fault.effect == SIM_DISK_SYNC_DROPS)
        return d->fault.err;
    i->lost_count = n;
    i->lost_size = i->size;
    must_reserve(i, live.size);
    inode_set_size(d, i, live.size);
    if (live.size > 0)
        memcpy(i->data, live.data, (size_t) live.size);
    return d->fault.err;
}

static int op_datasync(void *ctx, struct disk_file *f) {
    struct sim_disk *d = (struct sim_disk *) ctx;
    struct inode *i = f->inode;
    size_t kept = 0;
    bool special;
    int r = enter(d, SIM_DISK_DATASYNC, f, &special);

    if (r < 0)
        return r;
    if (special && d->fault.effect != SIM_DISK_CRASH_MID)
        return sync_lies(d, i);
    /* Interrupted: nothing has been promised yet, and the crash decides what stays. */
    if (special)
        return leave(d, special, 0);
    undo_clear(i);
    for (size_t k = 0; k < i->lost_count; k++)
        if (!i->lost[k].written_again)
            i->lost[kept++] = i->lost[k];
    i->lost_count = kept;
    if (kept == 0)
        i->lost_size = UINT64_MAX;
    return 0;
}

/* Keep each unsynced @unit-byte piece with probability one half. */
static void keep_pieces(struct sim_disk *d, struct inode *i, struct rng *rng, uint32_t unit) {
    _cleanup_(plane_done) struct plane live = plane_copy(i);
    uint64_t size;

    while (i->undo_last != SIZE_MAX)
        undo_pop(d, i, 0);
    size = rng_chance(rng, 500) ? live.size : i->size;
    must_reserve(i, size);
    inode_set_size(d, i, size);
    for (uint64_t start = 0; start < size; start += unit) {
        size_t n = start < live.size ? (size_t) MIN((uint64_t) unit, live.size - start) : 0;

        n = (size_t) MIN((uint64_t) n, size - start);
        if (n > 0 && memcmp(i->data + start, live.data + start, n) != 0 && rng_chance(rng, 500))
            memcpy(i->data + start, live.data + start, n);
    }
}

/* Everything up to operation @cut stays; the write that is operation @cut keeps @torn bytes. */
static void keep_prefix(struct sim_disk *d, struct inode *i, uint64_t cut, size_t torn) {
    while (i->undo_last != SIZE_MAX && undo_number(i) >= cut)
        undo_pop(d, i, undo_number(i) == cut ? torn : 0);
}

static void crash_inode(struct sim_disk *d, struct inode *i, struct rng *rng,
                        enum sim_disk_model model, uint64_t cut, size_t torn) {
    if (i->undo_last == SIZE_MAX && i->lost_count == 0 && i->lost_size == UINT64_MAX)
        return;
    switch (model) {
    case SIM_DISK_KEEP_NONE:
        while (i->undo_last != SIZE_MAX)
            undo_pop(d, i, 0);
        break;
    case SIM_DISK_KEEP_ALL:
    case SIM_DISK_LOSE_DIR:
    case SIM_DISK_MODELS:
        break;
    case SIM_DISK_KEEP_PREFIX:
        keep_prefix(d, i, cut, torn);
        break;
    case SIM_DISK_KEEP_SECTORS:
        keep_pieces(d, i, rng, SECTOR_BYTES);
        break;
    case SIM_DISK_KEEP_PAGES:
        keep_pieces(d, i, rng, PAGE_BYTES);
        break;
    }
    undo_clear(i);
    lost_apply(d, i);
}

/* The oldest operation number still undecided. */
static uint64_t oldest_number(const struct sim_disk *d) {
    uint64_t oldest = d->number;

    for (size_t k = 0; k < d->dir_undos_count; k++)
        oldest = MIN(oldest, d->dir_undos[k].number);
    for (size_t k = 0; k < d->entries_count; k++) {
        const struct inode *i = d->entries[k].inode;
        struct undo u;

        if (i->undo_last == SIZE_MAX)
            continue;
        memcpy(&u, i->undo.data, sizeof(u));
        oldest = MIN(oldest, u.number);
    }
    return oldest;
}

static uint64_t dir_cut(struct sim_disk *d, struct rng *rng, enum sim_disk_model model,
                        uint64_t cut) {
    switch (model) {
    case SIM_DISK_KEEP_NONE:
    case SIM_DISK_LOSE_DIR:
        return 0;
    case SIM_DISK_KEEP_PREFIX:
        return cut;
    case SIM_DISK_KEEP_SECTORS:
    case SIM_DISK_KEEP_PAGES:
        return rng_range(rng, d->dir_undos_count > 0 ? d->dir_undos[0].number : d->number,
                         d->number);
    case SIM_DISK_KEEP_ALL:
    case SIM_DISK_MODELS:
        break;
    }
    return UINT64_MAX;
}

void sim_disk_kill(struct sim_disk *d) {
    d->life++;
    d->crashed = false;
    sim_disk_clear_fault(d);
}

void sim_disk_crash(struct sim_disk *d, struct rng *rng, enum sim_disk_model model) {
    uint64_t cut = rng_range(rng, oldest_number(d), d->number);
    uint64_t dirs = dir_cut(d, rng, model, cut);
    size_t torn = (size_t) rng_below(rng, 64 * 1024);

    /* Torn at any byte half of the time, else between two sectors. */
    if (rng_chance(rng, 500))
        torn -= torn % SECTOR_BYTES;
    while (d->dir_undos_count > 0 && d->dir_undos[d->dir_undos_count - 1].number >= dirs)
        dir_pop(d);
    dir_forget(d);
    for (size_t k = 0; k < d->entries_count; k++)
        crash_inode(d, d->entries[k].inode, rng, model, cut, torn);
    sim_disk_kill(d);
}

bool sim_disk_crashed(const struct sim_disk *d) {
    return d->crashed;
}

/* ---- construction and control ---- */

int sim_disk_new(struct sim_disk **ret) {
    static const struct disk_ops ops = {
        .open = op_open,
        .close = op_close,
        .size = op_size,
        .pread = op_pread,
        .pwrite = op_pwrite,
        .datasync = op_datasync,
        .truncate = op_truncate,
        .rename = op_rename,
        .unlink = op_unlink,
        .sync_dir = op_sync_dir,
        .list = op_list,
    };
    struct sim_disk *d = (struct sim_disk *) calloc(1, sizeof(*d));

    if (!d)
        return -ENOMEM;
    d->disk.ops = &ops;
    d->disk.ctx = d;
    d->number = 1;
    d->life = 1;
    *ret = d;
    return 0;
}

struct sim_disk *sim_disk_free(struct sim_disk *d) {
    if (!d)
        return NULL;
    ASSERT(d->handles == 0);
    dir_forget(d);
    while (d->entries_count > 0)
        inode_unref(d, d->entries[--d->entries_count].inode);
    ASSERT(d->used_bytes == 0);
    free(d->entries);
    free(d->dir_undos);
    free(d);
    return NULL;
}

const struct disk *sim_disk_interface(struct sim_disk *d) {
    return &d->disk;
}

/* Copy a file with its undo log: the copy can be crashed on its own. */
static struct inode *inode_clone(struct sim_disk *to, const struct inode *i) {
    struct inode *c = inode_new();

    if (!c)
        return NULL;
    c->data = (uint8_t *) malloc(MAX((size_t) i->size, (size_t) 1));
    c->undo.data = (uint8_t *) malloc(MAX(i->undo.len, (size_t) 1));
    c->lost = (struct lost_page *) malloc(MAX(i->lost_count, (size_t) 1) * sizeof(*c->lost));
    if (!c->data || !c->undo.data || !c->lost) {
        inode_unref(to, c);
        return NULL;
    }
    c->cap = MAX(i->size, (uint64_t) 1);
    c->size = i->size;
    to->used_bytes += i->size;
    c->undo.len = i->undo.len;
    c->undo.cap = MAX(i->undo.len, (size_t) 1);
    c->undo_last = i->undo_last;
    c->lost_count = i->lost_count;
    c->lost_size = i->lost_size;
    if (i->size > 0)
        memcpy(c->data, i->data, (size_t) i->size);
    if (i->undo.len > 0)
        memcpy(c->undo.data, i->undo.data, i->undo.len);
    if (i->lost_count > 0)
        memcpy(c->lost, i->lost, i->lost_count * sizeof(*c->lost));
    return c;
}

struct sim_disk *sim_disk_clone(const struct sim_disk *d) {
    _cleanup_(sim_disk_freep) struct sim_disk *c = NULL;

    /* With a pending directory operation two names may share a file; tests clone settled disks. */
    ASSERT(d->dir_undos_count == 0);
    if (sim_disk_new(&c) < 0 || dir_reserve(c) < 0)
        return NULL;
    c->number = d->number;
    c->capacity_bytes = d->capacity_bytes;
    for (size_t k = 0; k < d->entries_count; k++) {
        struct inode *i;

        if (dir_reserve(c) < 0)
            return NULL;
        i = inode_clone(c, d->entries[k].inode);
        if (!i)
            return NULL;
        dir_set(c, d->entries[k].name, i);
        inode_unref(c, i);
    }
    return TAKE_PTR(c);
}

void sim_disk_set_fault(struct sim_disk *d, struct sim_disk_fault fault) {
    ASSERT(fault.nth > 0);
    ASSERT(fault.err <= 0);
    d->fault = fault;
    d->fault_set = true;
    d->fault_hit = false;
    d->fault_countdown = fault.nth;
}

void sim_disk_clear_fault(struct sim_disk *d) {
    d->fault_set = false;
}

bool sim_disk_fault_hit(const struct sim_disk *d) {
    return d->fault_hit;
}

void sim_disk_set_capacity(struct sim_disk *d, uint64_t bytes) {
    d->capacity_bytes = bytes;
}

uint64_t sim_disk_count(const struct sim_disk *d, enum sim_disk_op op) {
    ASSERT(op <= SIM_DISK_ANY);
    return d->counts[op];
}

uint32_t sim_disk_open_handles(const struct sim_disk *d) {
    return d->handles;
}

uint8_t *sim_disk_bytes(struct sim_disk *d, const char *name, uint64_t *ret_len) {
    struct entry *e = dir_find(d, name);

    /* An empty file has an address too: NULL means that there is no file. */
    if (!e || inode_reserve(e->inode, 1) < 0)
        return NULL;
    *ret_len = e->inode->size;
    return e->inode->data;
}

bool sim_disk_resize(struct sim_disk *d, const char *name, uint64_t len) {
    struct entry *e = dir_find(d, name);

    if (!e || inode_reserve(e->inode, len) < 0)
        return false;
    undo_clear(e->inode);
    inode_set_size(d, e->inode, len);
    return true;
}

bool sim_disk_remove(struct sim_disk *d, const char *name) {
    if (!dir_find(d, name))
        return false;
    dir_set(d, name, NULL);
    return true;
}

bool sim_disk_swap_names(struct sim_disk *d, const char *a, const char *b) {
    struct entry *x = dir_find(d, a);
    struct entry *y = dir_find(d, b);
    struct inode *i;

    if (!x || !y)
        return false;
    i = x->inode;
    x->inode = y->inode;
    y->inode = i;
    return true;
}

const char *sim_disk_name(const struct sim_disk *d, size_t i) {
    return i < d->entries_count ? d->entries[i].name : NULL;
}
