/* The system's zone files: bytes by name, below one directory.
 *
 * What it is: the env_zones of the real world. What it is not: a parser (sched/tz.h), nor a cache
 * of content; the system's page cache is one. Names are taken for relative paths below the
 * directory and nothing else: absolute ones and those with ".." are refused here, too.
 * Thread: any, one at a time. */
#pragma once

#include "base/env.h"

#define TZDIR_DEFAULT "/usr/share/zoneinfo"
#define TZDIR_FILE_BYTES_MAX (256U * 1024)

struct tzdir {
    char path[512];
    char version[32]; /* "" = not known */
    uint64_t version_stamp;
};

/* @path: the directory; NULL = $CHRONOS_TZDIR, else the default. Does not touch the disk: a
 * directory that is not there shows when a zone is asked for. 0; ERR_CONFIG: too long. */
int tzdir_init(struct tzdir *d, const char *path, struct errtext *reterr) _must_check_;
/* @d must outlive what uses the table. */
struct env_zones tzdir_env(struct tzdir *d);
