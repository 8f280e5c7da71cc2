/* See sim_disk.h: files, directory and the operations on them.
 *
 * Per file: live bytes and an undo log. An undo record says what a write or truncation replaced;
 * rolling all of them back gives the durable plane. A successful datasync forgets them. After a
 * lying sync the durable content of the affected pages moves to `lost`: it replaces the live
 * content at a power cut unless the page has been written and synced again.
 * The directory: live entries and an undo log of operations, forgotten by sync_dir.
 * Invariant: undo records of all files and of the directory carry one common growing number, so
 * "everything up to one moment" is well defined across them. */
#include "sim/sim_disk_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

struct inode *sim_inode_new(void) {
    struct inode *i = (struct inode *) calloc(1, sizeof(*i));

    if (i) {
        i->refs = 1;
        i->undo_last = SIZE_MAX;
        i->lost_size = UINT64_MAX;
    }
    return i;
}

struct inode *sim_inode_ref(struct inode *i) {
    i->refs++;
    return i;
}

void sim_inode_unref(struct sim_disk *d, struct inode *i) {
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

int sim_inode_reserve(struct inode *i, uint64_t size) {
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
void sim_inode_set_size(struct sim_disk *d, struct inode *i, uint64_t size) {
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

void sim_undo_clear(struct inode *i) {
    i->undo.len = 0;
    i->undo_last = SIZE_MAX;
}

/* Take back the newest write, or only its bytes from @keep on. */
void sim_undo_pop(struct sim_disk *d, struct inode *i, size_t keep) {
    struct undo u;
    uint64_t size;

    ASSERT(i->undo_last != SIZE_MAX);
    memcpy(&u, i->undo.data + i->undo_last, sizeof(u));
    keep = MIN(keep, u.new_len);
    size = keep > 0 ? MAX(u.old_size, u.offset + keep) : u.old_size;
    sim_inode_set_size(d, i, size);
    if (u.old_len > keep)
        memcpy(i->data + u.offset + keep, i->undo.data + i->undo_last + sizeof(u) + keep,
               u.old_len - keep);
    i->undo.len = i->undo_last;
    i->undo_last = u.previous;
}

uint64_t sim_undo_number(const struct inode *i) {
    struct undo u;

    memcpy(&u, i->undo.data + i->undo_last, sizeof(u));
    return u.number;
}

/* ---- directory ---- */

struct entry *sim_dir_find(const struct sim_disk *d, const char *name) {
    for (size_t i = 0; i < d->entries_count; i++)
        if (strcmp(d->entries[i].name, name) == 0)
            return &d->entries[i];
    return NULL;
}

/* Let @name hold @inode (a reference is taken; NULL frees the name). Cannot fail when an entry
 * was reserved. */
void sim_dir_set(struct sim_disk *d, const char *name, struct inode *inode) {
    struct entry *e = sim_dir_find(d, name);
    struct inode *old = e ? e->inode : NULL;

    if (inode && !e) {
        ASSERT(d->entries_count < d->entries_cap);
        e = &d->entries[d->entries_count++];
        (void) snprintf(e->name, sizeof(e->name), "%s", name);
    }
    if (inode)
        e->inode = sim_inode_ref(inode);
    else if (e)
        *e = d->entries[--d->entries_count];
    sim_inode_unref(d, old);
}

int sim_dir_reserve(struct sim_disk *d) {
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
    struct entry *e = sim_dir_find(d, name);
    struct dir_undo *u = &d->dir_undos[d->dir_undos_count++];

    ASSERT(d->dir_undos_count <= d->dir_undos_cap);
    u->number = d->number;
    (void) snprintf(u->name, sizeof(u->name), "%s", name);
    u->before = e ? sim_inode_ref(e->inode) : NULL;
}

void sim_dir_pop(struct sim_disk *d) {
    struct dir_undo *u = &d->dir_undos[--d->dir_undos_count];

    sim_dir_set(d, u->name, u->before);
    sim_inode_unref(d, u->before);
}

void sim_dir_forget(struct sim_disk *d) {
    while (d->dir_undos_count > 0)
        sim_inode_unref(d, d->dir_undos[--d->dir_undos_count].before);
}

/* ---- operations ---- */

static int op_open(void *ctx, const char *name, int flags, struct disk_file **ret_file) {
    struct sim_disk *d = (struct sim_disk *) ctx;
    struct disk_file *f;
    struct entry *e;
    bool special;
    int r = sim_fault_enter(d, SIM_DISK_OPEN, NULL, &special);

    if (r < 0)
        return r;
    if (strlen(name) >= NAME_BYTES || strchr(name, '/'))
        return sim_fault_leave(d, special, -EINVAL);
    e = sim_dir_find(d, name);
    if (e && (flags & DISK_CREATE) && (flags & DISK_EXCL))
        return sim_fault_leave(d, special, -EEXIST);
    if (!e && !(flags & DISK_CREATE))
        return sim_fault_leave(d, special, -ENOENT);
    r = sim_dir_reserve(d);
    if (r < 0)
        return r;
    f = (struct disk_file *) calloc(1, sizeof(*f));
    if (!f)
        return -ENOMEM;
    f->flags = flags;
    f->life = d->life;
    f->inode = e ? sim_inode_ref(sim_dir_find(d, name)->inode) : sim_inode_new();
    if (!f->inode) {
        free(f);
        return -ENOMEM;
    }
    if (!e) {
        dir_remember(d, name);
        d->number++;
        sim_dir_set(d, name, f->inode);
    }
    d->handles++;
    *ret_file = f;
    if (special) {
        sim_inode_unref(d, f->inode);
        free(f);
        d->handles--;
        *ret_file = NULL;
    }
    return sim_fault_leave(d, special, 0);
}

static void op_close(void *ctx, struct disk_file *f) {
    struct sim_disk *d = (struct sim_disk *) ctx;

    ASSERT(f);
    ASSERT(d->handles > 0);
    sim_inode_unref(d, f->inode);
    d->handles--;
    free(f);
}

static int op_size(void *ctx, struct disk_file *f, uint64_t *ret_bytes) {
    struct sim_disk *d = (struct sim_disk *) ctx;
    bool special;
    int r = sim_fault_enter(d, SIM_DISK_SIZE, f, &special);

    if (r < 0)
        return r;
    *ret_bytes = f->inode->size;
    return sim_fault_leave(d, special, 0);
}

static int op_pread(void *ctx, struct disk_file *f, uint64_t off, void *buf, size_t len,
                    size_t *ret_n) {
    struct sim_disk *d = (struct sim_disk *) ctx;
    uint64_t size = f->inode->size;
    size_t n = off < size ? (size_t) MIN((uint64_t) len, size - off) : 0;
    bool special;
    int r = sim_fault_enter(d, SIM_DISK_PREAD, f, &special);

    if (r < 0)
        return r;
    if (special)
        n = sim_fault_part_of(d, n);
    if (n > 0)
        memcpy(buf, f->inode->data + off, n);
    *ret_n = n;
    return sim_fault_leave(d, special, 0);
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
    int r = sim_fault_enter(d, SIM_DISK_PWRITE, f, &special);

    if (r < 0)
        return r;
    if (f->flags & DISK_RDONLY)
        return sim_fault_leave(d, special, -EBADF);
    if (special)
        len = sim_fault_part_of(d, len);
    growth = off + len > i->size ? off + len - i->size : 0;
    if (d->capacity_bytes > 0 && d->used_bytes + growth > d->capacity_bytes) {
        uint64_t over = d->used_bytes + growth - d->capacity_bytes;

        if (growth == 0 || over >= len)
            return sim_fault_leave(d, special, sim_disk_no_room(d));
        len -= (size_t) over;
    }
    if (len > 0) {
        uint64_t old_len = off < i->size ? MIN((uint64_t) len, i->size - off) : 0;

        r = sim_inode_reserve(i, off + len);
        if (r >= 0)
            r = undo_push(d, i, off, (size_t) old_len, len);
        if (r < 0)
            return r;
        if (off + len > i->size)
            sim_inode_set_size(d, i, off + len);
        memcpy(i->data + off, buf, len);
        i->written = off == 0 ? len : MAX(i->written, off + len);
        lost_touch(i, off, len);
    }
    *ret_n = len;
    return sim_fault_leave(d, special, 0);
}

static int op_truncate(void *ctx, struct disk_file *f, uint64_t size) {
    struct sim_disk *d = (struct sim_disk *) ctx;
    struct inode *i = f->inode;
    bool special;
    int r = sim_fault_enter(d, SIM_DISK_TRUNCATE, f, &special);

    if (r < 0)
        return r;
    if (size == i->size)
        return sim_fault_leave(d, special, 0);
    if (size > i->size && d->capacity_bytes > 0 &&
        d->used_bytes + (size - i->size) > d->capacity_bytes)
        return sim_fault_leave(d, special, sim_disk_no_room(d));
    r = sim_inode_reserve(i, size);
    if (r >= 0)
        r = undo_push(d, i, MIN(size, i->size), (size_t) (i->size - MIN(size, i->size)), 0);
    if (r < 0)
        return r;
    sim_inode_set_size(d, i, size);
    return sim_fault_leave(d, special, 0);
}

static int op_rename(void *ctx, const char *from, const char *to) {
    struct sim_disk *d = (struct sim_disk *) ctx;
    struct inode *i;
    bool special;
    int r = sim_fault_enter(d, SIM_DISK_RENAME, NULL, &special);

    if (r < 0)
        return r;
    if (strlen(to) >= NAME_BYTES || strchr(to, '/'))
        return sim_fault_leave(d, special, -EINVAL);
    if (!sim_dir_find(d, from))
        return sim_fault_leave(d, special, -ENOENT);
    r = sim_dir_reserve(d);
    if (r < 0)
        return r;
    i = sim_inode_ref(sim_dir_find(d, from)->inode);
    dir_remember(d, from);
    dir_remember(d, to);
    d->number++;
    sim_dir_set(d, to, i);
    if (strcmp(from, to) != 0)
        sim_dir_set(d, from, NULL);
    sim_inode_unref(d, i);
    return sim_fault_leave(d, special, 0);
}

static int op_unlink(void *ctx, const char *name) {
    struct sim_disk *d = (struct sim_disk *) ctx;
    bool special;
    int r = sim_fault_enter(d, SIM_DISK_UNLINK, NULL, &special);

    if (r < 0)
        return r;
    if (!sim_dir_find(d, name))
        return sim_fault_leave(d, special, -ENOENT);
    r = sim_dir_reserve(d);
    if (r < 0)
        return r;
    dir_remember(d, name);
    d->number++;
    sim_dir_set(d, name, NULL);
    return sim_fault_leave(d, special, 0);
}

static int op_sync_dir(void *ctx) {
    struct sim_disk *d = (struct sim_disk *) ctx;
    bool special;
    int r = sim_fault_enter(d, SIM_DISK_SYNC_DIR, NULL, &special);

    if (r < 0)
        return r;
    /* Interrupted: nothing has been promised yet, and the crash decides what stays. */
    if (!special)
        sim_dir_forget(d);
    return sim_fault_leave(d, special, 0);
}

static int op_list(void *ctx, int (*each)(void *arg, const char *name), void *arg) {
    struct sim_disk *d = (struct sim_disk *) ctx;
    bool special;
    int r = sim_fault_enter(d, SIM_DISK_LIST, NULL, &special);

    if (r < 0)
        return r;
    for (size_t i = 0; i < d->entries_count; i++) {
        r = each(arg, d->entries[i].name);
        if (r != 0)
            return r;
    }
    return sim_fault_leave(d, special, 0);
}

static int op_datasync(void *ctx, struct disk_file *f) {
    struct sim_disk *d = (struct sim_disk *) ctx;
    struct inode *i = f->inode;
    size_t kept = 0;
    bool special;
    int r = sim_fault_enter(d, SIM_DISK_DATASYNC, f, &special);

    if (r < 0)
        return r;
    if (special && d->fault.effect != SIM_DISK_CRASH_MID)
        return sim_fault_sync_lies(d, i);
    /* Interrupted: nothing has been promised yet, and the crash decides what stays. */
    if (special)
        return sim_fault_leave(d, special, 0);
    sim_undo_clear(i);
    for (size_t k = 0; k < i->lost_count; k++)
        if (!i->lost[k].written_again)
            i->lost[kept++] = i->lost[k];
    i->lost_count = kept;
    if (kept == 0)
        i->lost_size = UINT64_MAX;
    return 0;
}

/* ---- construction and control ---- */

/* No operation on a file: no fault hits it and it is not counted. */
static int op_space(void *ctx, uint64_t *ret_free, uint64_t *ret_total) {
    const struct sim_disk *d = (const struct sim_disk *) ctx;

    *ret_total = d->capacity_bytes > 0 ? d->capacity_bytes : UNLIMITED_BYTES;
    *ret_free = *ret_total - MIN(*ret_total, d->used_bytes);
    *ret_free = MIN(*ret_free, d->free_bytes_max);
    return d->crashed ? ERR_CRASHED : 0;
}

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
        .space = op_space,
    };
    struct sim_disk *d = (struct sim_disk *) calloc(1, sizeof(*d));

    if (!d)
        return -ENOMEM;
    d->disk.ops = &ops;
    d->disk.ctx = d;
    d->number = 1;
    d->life = 1;
    d->free_bytes_max = UINT64_MAX;
    d->full_error = -ENOSPC;
    *ret = d;
    return 0;
}

struct sim_disk *sim_disk_free(struct sim_disk *d) {
    if (!d)
        return NULL;
    ASSERT(d->handles == 0);
    sim_dir_forget(d);
    while (d->entries_count > 0)
        sim_inode_unref(d, d->entries[--d->entries_count].inode);
    ASSERT(d->used_bytes == 0);
    free(d->entries);
    free(d->dir_undos);
    free(d);
    return NULL;
}

const struct disk *sim_disk_interface(struct sim_disk *d) {
    return &d->disk;
}
