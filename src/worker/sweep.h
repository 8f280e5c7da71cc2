/* Removes the attempts' private directories, a little per loop turn.
 *
 * What it is: a flat trash. A directory to remove is renamed into the trash; sweeping it unlinks
 * its files and renames its subdirectories into the trash too, so that no depth of nesting needs a
 * stack, and a job that left a million files cannot hold up the loop.
 * What it is not: a follower of symbolic links; they are unlinked like files.
 * Thread: the loop. */
#pragma once

#include "base/defs.h"

#include <dirent.h>
#include <uv.h>

#define SWEEP_ENTRIES_PER_TURN 256

struct sweep {
    int trash_fd; /* owned; -1 when not open */
    uv_idle_t idle;
    bool busy;
    uint64_t counter;      /* names in the trash */
    uint64_t pass_counter; /* its value when the present pass began */
    DIR *trash;            /* owned; open while sweeping */
    DIR *dir;              /* owned; the directory being emptied */
    char name[32];         /* of it */
};

/* @base_fd  the worker's data directory, borrowed for the call; "trash" is created in it.
 * What an earlier process left there is swept. 0 or -errno. */
int sweep_init(struct sweep *s, uv_loop_t *loop, int base_fd) _must_check_;
/* What is left in the trash stays for the next start. The struct's memory must live until @closed
 * has been called with a handle whose data is @arg. */
void sweep_done(struct sweep *s, uv_close_cb closed, void *arg);

/* Remove @name in @dir_fd: at once when it is empty, else through the trash. A name that does not
 * exist is fine. 0 or -errno (the directory stays; log it). */
int sweep_remove(struct sweep *s, int dir_fd, const char *name) _must_check_;
