/* What the parts of the benchmark share: options, the loop, one result.
 *
 * The benchmark is sequential: each step runs the loop until its condition holds, its time is over
 * or a signal came (bench_wait). Results are 0 or one of enum bench_code; whatever is not 0 has
 * been told on standard error.
 * Thread: the caller's, with a loop of its own. */
#pragma once

#include "base/err.h"
#include "base/histogram.h"
#include "base/time.h"

#include <uv.h>

#define BENCH_NODES_MAX 7
#define BENCH_CONCURRENCY_MAX 1024
#define BENCH_LIST_MAX 8
#define BENCH_PAYLOAD_BYTES_MAX 65536
#define BENCH_CHANNELS_MAX 16
#define BENCH_RESULTS_MAX 48
#define BENCH_EXTRAS_MAX 8

enum bench_code { BENCH_OK = 0, BENCH_FAILED = 1, BENCH_INTERRUPTED = 2, BENCH_TIMEOUT = 3 };

enum bench_kind {
    BENCH_SUBMIT,
    BENCH_SUBMIT_BATCH,
    BENCH_READ,
    BENCH_E2E_NOOP,
    BENCH_E2E_EXEC,
    BENCH_FAILOVER,
    BENCH_TRANSFER,
    BENCH_IDLE,
    BENCH_SNAPSHOT, /* from here on minutes: only when asked for */
    BENCH_RESTORE,
    BENCH_INSTALL,
    BENCH_SCHEDULES,
    BENCH_KINDS
};
#define BENCH_KINDS_SHORT BENCH_SNAPSHOT

struct bench_options {
    const char *addresses[BENCH_NODES_MAX]; /* of a running cluster; none = start our own */
    size_t addresses_count;
    bool selected[BENCH_KINDS];
    uint64_t duration_ms; /* of each measurement; 0 = by mode */
    uint32_t concurrency[BENCH_LIST_MAX];
    size_t concurrency_count;
    size_t payload_bytes; /* beside the fixed part of a job */
    size_t channels;      /* connections to each node */
    const char *dir;      /* where the temporary directory is made */
    const char *json_file;
    bool json; /* instead of the table */
    bool quick;
    bool full;            /* also what takes minutes */
    bool lease_reads;     /* of our own cluster */
    uint64_t jobs;        /* stored before snapshots, and restored */
    uint64_t state_bytes; /* of what a new node is sent */
    uint64_t schedules;   /* created, idle */
    bool via_any;         /* spread submits over all nodes instead of sending them to the leader */
};

struct bench {
    const struct bench_options *o;
    uv_loop_t loop;
    uv_timer_t timer; /* of bench_wait */
    uv_signal_t signals[3];
    int signal; /* caught; 0 = none */
    bool timed_out;
    bool quiet; /* no progress: standard error is not a terminal */
};

int bench_init(struct bench *b, const struct bench_options *o) _must_check_;
void bench_done(struct bench *b);

/* Run the loop until @done says so (NULL: never). @timeout_ms bounds it. 0, BENCH_TIMEOUT,
 * BENCH_INTERRUPTED. Not from inside a callback. */
int bench_wait(struct bench *b, bool (*done)(const void *arg), const void *arg,
               uint64_t timeout_ms) _must_check_;
static inline int bench_pause(struct bench *b, uint64_t ms) {
    int r = bench_wait(b, NULL, NULL, ms);

    return r == BENCH_TIMEOUT ? BENCH_OK : r;
}

/* One line on standard error when it is a terminal. */
void bench_progress(const struct bench *b, const char *fmt, ...) _printf_(2, 3);
/* One line on standard error; returns BENCH_FAILED. */
int bench_fail(const char *fmt, ...) _printf_(1, 2);

/* A process over a measurement. */
struct usage {
    double cpu_pct; /* 100 = one core */
    double rss_mib; /* at its end */
};

struct bench_usage {
    struct usage servers[BENCH_NODES_MAX];
    struct usage workers[BENCH_NODES_MAX];
    struct usage client;
    double other_pct; /* all else on this machine, also the jobs' own processes */
    size_t nodes;     /* 0 = not our processes */
    size_t leader;    /* index, at the start */
    bool with_workers;
};

struct latency {
    uint64_t p50_ns, p90_ns, p99_ns, p999_ns, max_ns;
};

/* A figure that only one kind of measurement has. */
struct bench_extra {
    const char *name; /* with its unit last: catch_up_ms */
    double value;
};

struct bench_result {
    const char *name;
    uint32_t concurrency;
    uint32_t batch;
    double ops_s;
    uint64_t count; /* measured latencies; 0 = none apply */
    struct latency latency;
    struct bench_usage usage;
    bool no_ratio;    /* not a matter of the disk */
    uint64_t refused; /* RESOURCE_EXHAUSTED, each tried again */
    struct bench_extra extras[BENCH_EXTRAS_MAX];
    size_t extras_count;
};

struct bench_report {
    struct bench_result results[BENCH_RESULTS_MAX];
    size_t count;
};

void latency_of(const struct histogram *h, struct latency *ret);
void bench_result_extra(struct bench_result *r, const char *name, double value);
/* The next free result, zeroed. */
struct bench_result *bench_report_add(struct bench_report *r, const char *name);
