/* The parts of a simulated disk, for sim_disk.c and sim_disk_faults.c only. */
#pragma once

#include "sim/sim_disk.h"

#include "base/err.h"

#define SECTOR_BYTES 512U
#define PAGE_BYTES 4096U
#define NAME_BYTES 64
#define UNLIMITED_BYTES (1ULL << 40) /* of a disk without a capacity, as told by space */

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
    uint64_t written; /* end of the writes since the last one at its beginning */
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
    uint64_t free_bytes_max; /* reported as free at most */
    int full_error;          /* negative; what a write without room gets */
    bool was_full;
    uint64_t counts[SIM_DISK_OPS + 1];
    uint32_t handles;
    bool crashed;
    bool fault_set;
    bool fault_hit;
    uint64_t fault_countdown;
    struct sim_disk_fault fault;
};

/* sim_disk.c */
struct inode *sim_inode_new(void);
struct inode *sim_inode_ref(struct inode *i);
void sim_inode_unref(struct sim_disk *d, struct inode *i);
int sim_inode_reserve(struct inode *i, uint64_t size);
void sim_inode_set_size(struct sim_disk *d, struct inode *i, uint64_t size);
void sim_undo_clear(struct inode *i);
void sim_undo_pop(struct sim_disk *d, struct inode *i, size_t keep);
uint64_t sim_undo_number(const struct inode *i);
struct entry *sim_dir_find(const struct sim_disk *d, const char *name);
void sim_dir_set(struct sim_disk *d, const char *name, struct inode *inode);
int sim_dir_reserve(struct sim_disk *d);
void sim_dir_pop(struct sim_disk *d);
void sim_dir_forget(struct sim_disk *d);

/* No room: note it and say so. */
static inline int sim_disk_no_room(struct sim_disk *d) {
    d->was_full = true;
    return d->full_error;
}

/* sim_disk_faults.c. enter: count the operation; 0 = do it, else what to return at once;
 * *ret_special: the operation itself has to carry the fault out. leave: its result, or the power
 * went in the middle of it. */
int sim_fault_enter(struct sim_disk *d, enum sim_disk_op op, const struct disk_file *f,
                    bool *ret_special);
int sim_fault_leave(struct sim_disk *d, bool special, int r);
size_t sim_fault_part_of(const struct sim_disk *d, size_t len);
int sim_fault_sync_lies(struct sim_disk *d, struct inode *i);
