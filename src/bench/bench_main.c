/* `chronos bench`: the menu. Two clusters one after the other: without workers for the submits,
 * then a fresh one with workers for everything else. See bench.h. */
#include "bench/bench_main.h"

#include "bench/cluster.h"
#include "bench/e2e.h"
#include "bench/failover.h"
#include "bench/floor.h"
#include "bench/install.h"
#include "bench/load.h"
#include "bench/options.h"
#include "bench/read_load.h"
#include "bench/report.h"
#include "bench/schedules.h"
#include "bench/stored.h"
#include "bench/target.h"
#include "bench/transfer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_UNAVAILABLE = 4 };

#define BATCH_JOBS 64U
#define WORKER_SLOTS                                                                               \
    512U /* of each worker: the round of assign and report must not be the limit                   \
          */
#define NOOP_WINDOW 2048U
#define EXEC_WINDOW 96U
#define EXEC_BATCH 8U

static const uint32_t batch_calls[] = {4, 16};
static const uint32_t read_calls[] = {1, 256};

/* Times of one mode, milliseconds. The sums are what --help promises with room to spare. */
struct plan {
    uint64_t floor_ms;
    uint64_t warm_ms;
    uint64_t measure_ms;
    uint64_t single_ms; /* of one job at a time, end to end */
    uint64_t settle_ms; /* before idle */
    uint64_t idle_ms;
    uint32_t trials;
    uint32_t transfers;
    uint64_t stretch_ms; /* of the long ones */
};

static const struct plan plan_full = {.floor_ms = 2500,
                                      .warm_ms = 1000,
                                      .measure_ms = 4500,
                                      .single_ms = 3000,
                                      .settle_ms = 2000,
                                      .idle_ms = 10000,
                                      .trials = 20,
                                      .transfers = 50,
                                      .stretch_ms = 20000};
static const struct plan plan_quick = {.floor_ms = 800,
                                       .warm_ms = 300,
                                       .measure_ms = 1500,
                                       .single_ms = 1000,
                                       .settle_ms = 500,
                                       .idle_ms = 5000,
                                       .trials = 5,
                                       .transfers = 10,
                                       .stretch_ms = 8000};

struct menu {
    struct bench bench;
    struct bench_options o;
    struct plan plan;
    struct cluster cluster;
    struct target target;
    struct bench_report report;
    struct floor_figures floor;
    int failed;       /* steps that did not succeed */
    bool unavailable; /* the cluster that was given does not answer */
};

/* A failed step does not end the menu; a signal does. */
static int note(struct menu *m, int r) {
    if (r == BENCH_FAILED)
        m->failed++;
    return r == BENCH_FAILED ? BENCH_OK : r;
}

/* ---- the parts ----------------------------------------------------------------------------- */

static int add_load(struct menu *m, const char *name, uint32_t calls, uint32_t batch) {
    struct load_spec spec = {.name = name,
                             .concurrency = calls,
                             .batch = batch,
                             .warm_ms = m->plan.warm_ms,
                             .measure_ms = m->plan.measure_ms};
    struct bench_result result;
    int r;

    bench_progress(&m->bench, "%s, %u calls outstanding, %u job%s each...", name, calls, batch,
                   batch == 1 ? "" : "s");
    r = load_run(&m->target, &spec, &result);
    if (r == BENCH_OK)
        *bench_report_add(&m->report, name) = result;
    return note(m, r);
}

static int run_submits(struct menu *m) {
    int r = BENCH_OK;

    for (size_t i = 0; m->o.selected[BENCH_SUBMIT] && r == BENCH_OK && i < m->o.concurrency_count;
         i++)
        r = add_load(m, "submit", m->o.concurrency[i], 1);
    for (size_t i = 0;
         m->o.selected[BENCH_SUBMIT_BATCH] && r == BENCH_OK && i < ARRAY_LEN(batch_calls); i++)
        r = add_load(m, "submit_batch", batch_calls[i], BATCH_JOBS);
    return r;
}

static int add_read(struct menu *m, struct read_load *reads, uint32_t calls, bool by_follower) {
    struct read_spec spec = {.name = by_follower ? "read_follower" : "read",
                             .concurrency = calls,
                             .by_follower = by_follower,
                             .warm_ms = m->plan.warm_ms,
                             .measure_ms = m->plan.measure_ms};
    struct bench_result result;
    int r;

    bench_progress(&m->bench, "%s, %u calls outstanding...", spec.name, calls);
    r = read_load_run(reads, &spec, &result);
    result.no_ratio = true; /* the disk has no part in it */
    if (r == BENCH_OK)
        *bench_report_add(&m->report, spec.name) = result;
    return note(m, r);
}

static int run_reads(struct menu *m) {
    struct read_load *reads = NULL;
    int r;

    if (!m->o.selected[BENCH_READ])
        return BENCH_OK;
    r = read_load_new(&m->target, &reads);
    for (size_t i = 0; r == BENCH_OK && i < 2 * ARRAY_LEN(read_calls); i++) {
        bool by_follower = i >= ARRAY_LEN(read_calls);

        if (!by_follower || m->target.count > 1)
            r = add_read(m, reads, read_calls[i % ARRAY_LEN(read_calls)], by_follower);
    }
    (void) read_load_free(reads);
    return note(m, r);
}

static int add_e2e(struct menu *m, enum request_payload what, uint32_t window, uint32_t batch,
                   uint64_t measure_ms) {
    struct e2e_spec spec = {.name = what == REQUEST_NOOP ? "e2e_noop" : "e2e_exec",
                            .what = what,
                            .window = window,
                            .batch = batch,
                            .warm_ms = m->plan.warm_ms,
                            .measure_ms = measure_ms};
    struct bench_result result;
    int r;

    bench_progress(&m->bench, "%s, %u job%s open...", spec.name, window, window == 1 ? "" : "s");
    r = e2e_run(&m->target, &spec, &result);
    if (r == BENCH_OK)
        *bench_report_add(&m->report, spec.name) = result;
    return note(m, r);
}

static int run_jobs(struct menu *m) {
    int r = BENCH_OK;

    if (m->o.selected[BENCH_E2E_NOOP]) {
        r = add_e2e(m, REQUEST_NOOP, NOOP_WINDOW, BATCH_JOBS, m->plan.measure_ms);
        if (r == BENCH_OK)
            r = add_e2e(m, REQUEST_NOOP, 1, 1, m->plan.single_ms);
    }
    if (r == BENCH_OK && m->o.selected[BENCH_E2E_EXEC])
        r = add_e2e(m, REQUEST_TRUE, EXEC_WINDOW, EXEC_BATCH, m->plan.measure_ms);
    return r;
}

static int run_failover(struct menu *m) {
    struct bench_result result;
    int r;

    if (!m->o.selected[BENCH_FAILOVER])
        return BENCH_OK;
    bench_progress(&m->bench, "failover, %u trials...", m->plan.trials);
    r = failover_run(&m->target, m->plan.trials, &result);
    if (r == BENCH_OK)
        *bench_report_add(&m->report, "failover") = result;
    /* What follows must not meet a cluster with a node missing. */
    if (r == BENCH_FAILED) {
        m->failed++;
        return BENCH_FAILED;
    }
    return r == BENCH_OK ? target_find_leader(&m->target, 5000) : r;
}

static int run_transfer(struct menu *m) {
    struct bench_result result;
    int r;

    if (!m->o.selected[BENCH_TRANSFER])
        return BENCH_OK;
    bench_progress(&m->bench, "transfer, %u trials...", m->plan.transfers);
    r = transfer_run(&m->target, m->plan.transfers, &result);
    if (r == BENCH_OK)
        *bench_report_add(&m->report, "transfer") = result;
    return note(m, r);
}

static int run_idle(struct menu *m) {
    struct bench_result result = {.name = "idle"};
    struct usage_mark mark;
    int r;

    if (!m->o.selected[BENCH_IDLE])
        return BENCH_OK;
    bench_progress(&m->bench, "idle, %.0f s...", (double) m->plan.idle_ms / 1000);
    r = bench_pause(&m->bench, m->plan.settle_ms);
    if (r != BENCH_OK)
        return r;
    target_usage_begin(&m->target, &mark);
    r = bench_pause(&m->bench, m->plan.idle_ms);
    target_usage_end(&m->target, &mark, &result.usage);
    if (r == BENCH_OK)
        *bench_report_add(&m->report, "idle") = result;
    return r;
}

/* ---- phases -------------------------------------------------------------------------------- */

/* Start a cluster (unless one was given), run @part on it, stop it. */
static int with_cluster(struct menu *m, bool workers, int (*part)(struct menu *m)) {
    bool own = m->o.addresses_count == 0;
    int r = BENCH_OK;

    if (own) {
        bench_progress(&m->bench, "starting three nodes, workers %s...", workers ? "on" : "off");
        r = cluster_start(&m->cluster, &m->o, workers, WORKER_SLOTS);
    }
    if (r == BENCH_OK) {
        r = target_open(&m->target, &m->bench, own ? &m->cluster : NULL);
        m->unavailable = !own && r == BENCH_FAILED;
        if (r == BENCH_OK)
            r = part(m);
        target_close(&m->target);
    }
    if (own) {
        (void) cluster_find_dead(&m->cluster); /* says so, with the end of its log */
        cluster_stop(&m->cluster);
    }
    return note(m, r);
}

static int part_submits(struct menu *m) {
    int r = run_reads(m);

    return r == BENCH_OK ? run_submits(m) : r;
}

/* Idle first: what an idle node needs, not what it keeps after work. */
static int part_jobs(struct menu *m) {
    int r = run_idle(m);

    if (r == BENCH_OK)
        r = run_jobs(m);
    if (r == BENCH_OK)
        r = run_transfer(m);
    return r == BENCH_OK ? run_failover(m) : r;
}

/* One fill serves both. */
static int part_stored(struct menu *m) {
    struct bench_result results[STORED_SNAPSHOT_RESULTS], restore;
    size_t count = 0;
    int r;

    if (m->o.selected[BENCH_SNAPSHOT])
        r = stored_snapshots(&m->target, m->o.jobs, m->plan.stretch_ms, results, &count);
    else
        r = stored_fill(&m->target, m->o.jobs, 0);
    for (size_t i = 0; i < count; i++)
        *bench_report_add(&m->report, results[i].name) = results[i];
    if (r != BENCH_OK || !m->o.selected[BENCH_RESTORE])
        return r;
    r = stored_restore(&m->target, &restore);
    if (r == BENCH_OK)
        *bench_report_add(&m->report, "restore") = restore;
    return r;
}

static int part_install(struct menu *m) {
    struct bench_result results[2];
    int r = install_run(&m->target, m->o.state_bytes, m->plan.stretch_ms, results);

    for (size_t i = 0; r == BENCH_OK && i < ARRAY_LEN(results); i++)
        *bench_report_add(&m->report, results[i].name) = results[i];
    return r;
}

static int part_schedules(struct menu *m) {
    struct bench_result results[SCHEDULES_RESULTS];
    int r = schedules_run(&m->target, m->o.schedules, m->plan.idle_ms, m->plan.trials, results);

    for (size_t i = 0; r == BENCH_OK && i < ARRAY_LEN(results); i++)
        *bench_report_add(&m->report, results[i].name) = results[i];
    return r;
}

static int part_all(struct menu *m) {
    int r = part_submits(m);

    return r == BENCH_OK ? run_jobs(m) : r;
}

static int measure_floor(struct menu *m, bool after) {
    struct floor_figures *f = &m->floor;
    int r;

    bench_progress(&m->bench, "disk floor %s...", after ? "after" : "before");
    r = floor_measure(&m->bench, m->o.dir, m->plan.floor_ms, after ? &f->after : &f->before,
                      after ? &f->after_ops_s : &f->before_ops_s);
    return note(m, r);
}

static int run_menu(struct menu *m) {
    const bool *s = m->o.selected;
    int r = measure_floor(m, false);

    /* A directory that cannot be written, or no memory: nothing else would work. */
    if (r != BENCH_OK || m->failed > 0)
        return r;
    if (m->o.addresses_count > 0) {
        r = with_cluster(m, false, part_all);
    } else {
        if (s[BENCH_SUBMIT] || s[BENCH_SUBMIT_BATCH] || s[BENCH_READ])
            r = with_cluster(m, false, part_submits);
        if (r == BENCH_OK && (s[BENCH_E2E_NOOP] || s[BENCH_E2E_EXEC] || s[BENCH_FAILOVER] ||
                              s[BENCH_TRANSFER] || s[BENCH_IDLE]))
            r = with_cluster(m, true, part_jobs);
        if (r == BENCH_OK && (s[BENCH_SNAPSHOT] || s[BENCH_RESTORE]))
            r = with_cluster(m, true, part_stored);
        if (r == BENCH_OK && s[BENCH_INSTALL])
            r = with_cluster(m, true, part_install);
        if (r == BENCH_OK && s[BENCH_SCHEDULES])
            r = with_cluster(m, true, part_schedules);
    }
    return r == BENCH_OK && m->report.count > 0 ? measure_floor(m, true) : r;
}

/* ---- output -------------------------------------------------------------------------------- */

static int write_json_file(struct menu *m) {
    FILE *f = fopen(m->o.json_file, "we");
    int bad;

    if (!f)
        return bench_fail("%s: %s", m->o.json_file, strerror(errno));
    report_json(&m->report, &m->floor, f);
    bad = ferror(f);
    if (fclose(f) != 0 || bad)
        return bench_fail("%s: %s", m->o.json_file, strerror(errno));
    return BENCH_OK;
}

static void print_report(struct menu *m) {
    bool to_stdout = m->o.json_file && strcmp(m->o.json_file, "-") == 0;

    if (m->o.json_file && !to_stdout)
        (void) note(m, write_json_file(m));
    if (m->o.json || to_stdout)
        report_json(&m->report, &m->floor, stdout);
    else
        report_table(&m->report, &m->floor, stdout);
    if (fflush(stdout) != 0)
        (void) note(m, bench_fail("standard output: %s", strerror(errno)));
}

/* Everything is checked before minutes are spent. */
static int check_files(const struct menu *m) {
    FILE *f;

    if (access(m->o.dir, W_OK) < 0)
        return bench_fail("--dir %s: %s", m->o.dir, strerror(errno));
    if (!m->o.json_file || strcmp(m->o.json_file, "-") == 0)
        return BENCH_OK;
    f = fopen(m->o.json_file, "ae");
    if (!f)
        return bench_fail("--json %s: %s", m->o.json_file, strerror(errno));
    (void) fclose(f);
    return BENCH_OK;
}

int bench_main(int argc, char **argv) {
    _cleanup_(freep) struct menu *m = calloc(1, sizeof(*m)); /* histograms are large */
    struct errtext why = {""};
    int r;

    if (!m)
        return EXIT_FAILED;
    r = options_parse(argc, argv, &m->o, &why);
    if (r == 1)
        return fputs(options_help(), stdout) < 0 ? EXIT_FAILED : EXIT_OK;
    if (r != 0) {
        (void) fprintf(stderr, "chronos bench: %s\nSee \"chronos bench --help\".\n", why.s);
        return EXIT_USAGE;
    }
    if (check_files(m) != BENCH_OK)
        return EXIT_USAGE;
    m->plan = m->o.quick ? plan_quick : plan_full;
    if (m->o.duration_ms > 0)
        m->plan.measure_ms = m->plan.single_ms = m->o.duration_ms;
    if (bench_init(&m->bench, &m->o) != BENCH_OK)
        return EXIT_FAILED;
    r = run_menu(m);
    bench_done(&m->bench);
    if (r == BENCH_INTERRUPTED) {
        (void) bench_fail(m->o.addresses_count > 0
                              ? "interrupted"
                              : "interrupted; the cluster was stopped and its data removed");
        return EXIT_FAILED;
    }
    if (m->report.count > 0)
        print_report(m);
    if (m->unavailable)
        return EXIT_UNAVAILABLE;
    return m->failed > 0 ? EXIT_FAILED : EXIT_OK;
}
