/* CPU time and memory of a process, from /proc. Thread: any. */
#pragma once

#include "base/err.h"

#include <sys/types.h>

struct procstat {
    uint64_t cpu_ns;    /* user and system time of all its threads, in clock ticks' resolution */
    uint64_t rss_bytes; /* resident set */
    uint64_t rss_peak_bytes;
    uint32_t threads;
};

/* 0; -ESRCH when there is no such process; other -errno. */
int procstat_read(pid_t pid, struct procstat *ret) _must_check_;

/* What /proc/PID/stat says first. */
struct procstat_ids {
    pid_t pid;
    pid_t ppid;
    pid_t pgrp;
    pid_t session;
    char state; /* 'Z' = ended and not yet waited for */
    uint64_t utime_ticks;
    uint64_t stime_ticks;
    uint32_t threads;
    uint64_t start_ticks; /* since boot: with pid, names a process for good */
    uint64_t rss_pages;
};
int procstat_read_ids(pid_t pid, struct procstat_ids *ret) _must_check_;
