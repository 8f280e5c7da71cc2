/* What goes wrong on a simulated disk: operations that fail or are cut short, what a power cut
 * leaves of what was not synced, and damage by hand. See sim_disk_internal.h. */
#include "sim/sim_disk_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- faults ---- */

/* Count the operation and say whether the fault hits it. Returns 0 (do it), or a result to return
 * at once. @ret_effect is set when the operation itself has to carry the fault out. */
int sim_fault_enter(struct sim_disk *d, enum sim_disk_op op, const struct disk_file *f,
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
int sim_fault_leave(struct sim_disk *d, bool special, int r) {
    if (!special || d->fault.effect != SIM_DISK_CRASH_MID)
        return r;
    d->crashed = true;
    return ERR_CRASHED;
}

/* How much of @len a short or interrupted transfer does. */
size_t sim_fault_part_of(const struct sim_disk *d, size_t len) {
    size_t n = d->fault.effect == SIM_DISK_SHORT ? len / 3 + 1 : len / 2;

    return MIN(n, len);
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
        sim_inode_set_size(d, i, i->lost_size);
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
    int r = sim_inode_reserve(i, size);

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
int sim_fault_sync_lies(struct sim_disk *d, struct inode *i) {
    _cleanup_(plane_done) struct plane live = plane_copy(i);
    size_t pages = (size_t) ((live.size + PAGE_BYTES - 1) / PAGE_BYTES);
    struct lost_page *lost =
        (struct lost_page *) must_alloc((pages + i->lost_count) * sizeof(struct lost_page));
    size_t n = 0;

    while (i->undo_last != SIZE_MAX)
        sim_undo_pop(d, i, 0);
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
    sim_inode_set_size(d, i, live.size);
    if (live.size > 0)
        memcpy(i->data, live.data, (size_t) live.size);
    return d->fault.err;
}
/* Keep each unsynced @unit-byte piece with probability one half. */
static void keep_pieces(struct sim_disk *d, struct inode *i, struct rng *rng, uint32_t unit) {
    _cleanup_(plane_done) struct plane live = plane_copy(i);
    uint64_t size;

    while (i->undo_last != SIZE_MAX)
        sim_undo_pop(d, i, 0);
    size = rng_chance(rng, 500) ? live.size : i->size;
    must_reserve(i, size);
    sim_inode_set_size(d, i, size);
    for (uint64_t start = 0; start < size; start += unit) {
        size_t n = start < live.size ? (size_t) MIN((uint64_t) unit, live.size - start) : 0;

        n = (size_t) MIN((uint64_t) n, size - start);
        if (n > 0 && memcmp(i->data + start, live.data + start, n) != 0 && rng_chance(rng, 500))
            memcpy(i->data + start, live.data + start, n);
    }
}

/* Everything up to operation @cut stays; the write that is operation @cut keeps @torn bytes. */
static void keep_prefix(struct sim_disk *d, struct inode *i, uint64_t cut, size_t torn) {
    while (i->undo_last != SIZE_MAX && sim_undo_number(i) >= cut)
        sim_undo_pop(d, i, sim_undo_number(i) == cut ? torn : 0);
}

static void crash_inode(struct sim_disk *d, struct inode *i, struct rng *rng,
                        enum sim_disk_model model, uint64_t cut, size_t torn) {
    if (i->undo_last == SIZE_MAX && i->lost_count == 0 && i->lost_size == UINT64_MAX)
        return;
    switch (model) {
    case SIM_DISK_KEEP_NONE:
        while (i->undo_last != SIZE_MAX)
            sim_undo_pop(d, i, 0);
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
    sim_undo_clear(i);
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
    d->was_full = false;
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
        sim_dir_pop(d);
    sim_dir_forget(d);
    for (size_t k = 0; k < d->entries_count; k++)
        crash_inode(d, d->entries[k].inode, rng, model, cut, torn);
    sim_disk_kill(d);
}

bool sim_disk_crashed(const struct sim_disk *d) {
    return d->crashed;
}

/* Copy a file with its undo log: the copy can be crashed on its own. */
static struct inode *inode_clone(struct sim_disk *to, const struct inode *i) {
    struct inode *c = sim_inode_new();

    if (!c)
        return NULL;
    c->data = (uint8_t *) malloc(MAX((size_t) i->size, (size_t) 1));
    c->undo.data = (uint8_t *) malloc(MAX(i->undo.len, (size_t) 1));
    c->lost = (struct lost_page *) malloc(MAX(i->lost_count, (size_t) 1) * sizeof(*c->lost));
    if (!c->data || !c->undo.data || !c->lost) {
        sim_inode_unref(to, c);
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
    if (sim_disk_new(&c) < 0 || sim_dir_reserve(c) < 0)
        return NULL;
    c->number = d->number;
    c->capacity_bytes = d->capacity_bytes;
    for (size_t k = 0; k < d->entries_count; k++) {
        struct inode *i;

        if (sim_dir_reserve(c) < 0)
            return NULL;
        i = inode_clone(c, d->entries[k].inode);
        if (!i)
            return NULL;
        sim_dir_set(c, d->entries[k].name, i);
        sim_inode_unref(c, i);
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
    d->capacity_bytes = bytes; /* was_full stays: a node may not yet know what it met */
}

void sim_disk_set_full_error(struct sim_disk *d, int err) {
    ASSERT(err < 0);
    d->full_error = err;
}

bool sim_disk_was_full(const struct sim_disk *d) {
    return d->was_full;
}

uint64_t sim_disk_used(const struct sim_disk *d) {
    return d->used_bytes;
}

void sim_disk_set_free(struct sim_disk *d, uint64_t bytes) {
    d->free_bytes_max = bytes;
}

uint64_t sim_disk_count(const struct sim_disk *d, enum sim_disk_op op) {
    ASSERT(op <= SIM_DISK_ANY);
    return d->counts[op];
}

uint32_t sim_disk_open_handles(const struct sim_disk *d) {
    return d->handles;
}

uint8_t *sim_disk_bytes(struct sim_disk *d, const char *name, uint64_t *ret_len) {
    struct entry *e = sim_dir_find(d, name);

    /* An empty file has an address too: NULL means that there is no file. */
    if (!e || sim_inode_reserve(e->inode, 1) < 0)
        return NULL;
    *ret_len = e->inode->size;
    return e->inode->data;
}

uint64_t sim_disk_written(const struct sim_disk *d, const char *name) {
    const struct entry *e = sim_dir_find(d, name);

    return e ? MIN(e->inode->written, e->inode->size) : 0;
}

bool sim_disk_resize(struct sim_disk *d, const char *name, uint64_t len) {
    struct entry *e = sim_dir_find(d, name);

    if (!e || sim_inode_reserve(e->inode, len) < 0)
        return false;
    sim_undo_clear(e->inode);
    sim_inode_set_size(d, e->inode, len);
    return true;
}

bool sim_disk_remove(struct sim_disk *d, const char *name) {
    if (!sim_dir_find(d, name))
        return false;
    sim_dir_set(d, name, NULL);
    return true;
}

bool sim_disk_swap_names(struct sim_disk *d, const char *a, const char *b) {
    struct entry *x = sim_dir_find(d, a);
    struct entry *y = sim_dir_find(d, b);
    struct inode *i;

    if (!x || !y)
        return false;
    i = x->inode;
    x->inode = y->inode;
    y->inode = i;
    return true;
}

bool sim_disk_put(struct sim_disk *d, const char *name, const void *bytes, uint64_t len) {
    struct entry *e = sim_dir_find(d, name);
    struct inode *i = e ? e->inode : NULL;

    ASSERT(len > 0);
    if (!i) {
        if (sim_dir_reserve(d) < 0 || !(i = sim_inode_new()))
            return false;
        sim_dir_set(d, name, i);
        sim_inode_unref(d, i);
    }
    if (sim_inode_reserve(i, len) < 0)
        return false;
    sim_undo_clear(i);
    sim_inode_set_size(d, i, len);
    memcpy(i->data, bytes, (size_t) len);
    return true;
}

const char *sim_disk_name(const struct sim_disk *d, size_t i) {
    return i < d->entries_count ? d->entries[i].name : NULL;
}
