#include "bench/stored.h"

#include "bench/paced.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PER_S 2000U
#define WINDOW 4096U
#define BATCH 64U
#define FILL_MS 1800000U
#define READY_MS 60000U
#define SETTLE_MS 2000U
#define SNAPSHOT_EACH_MS 1000U
#define SNAPSHOT_NEVER_MS (24U * 3600 * 1000)
#define COMMAND_MS 1800000U
#define LINE_BYTES 1024
#define MIB (1024.0 * 1024.0)

int stored_fill(struct target *t, uint64_t jobs, size_t payload_bytes) {
    struct e2e_spec spec = {.name = "fill",
                            .what = REQUEST_NOOP,
                            .window = WINDOW,
                            .batch = BATCH,
                            .measure_ms = FILL_MS,
                            .jobs = jobs,
                            .payload_bytes = payload_bytes};
    struct bench_result ignored;

    bench_progress(t->b, "running %" PRIu64 " jobs...", jobs);
    return e2e_run(t, &spec, &ignored);
}

/* ---- what a node did ------------------------------------------------------------------------- */

/* The leader's own account: its log tells each snapshot, the kernel what it wrote. */
struct account {
    long log_at;
    uint64_t written_bytes;
    uint64_t at_ns;
};

static FILE *open_log(const struct target *t) {
    char path[PATH_MAX + 16];

    (void) snprintf(path, sizeof(path), "%s/server.log", t->cluster->nodes[t->leader].data_dir);
    return fopen(path, "re");
}

/* By write(2) to files and peers; what the kernel calls write_bytes counts whole folios again with
 * each sync. 0 when it does not say. */
static uint64_t written_bytes(pid_t pid) {
    unsigned long long value = 0;
    char path[64], line[128];
    FILE *f;

    (void) snprintf(path, sizeof(path), "/proc/%d/io", pid);
    f = fopen(path, "re");
    if (!f)
        return 0;
    while (fgets(line, sizeof(line), f) && sscanf(line, "wchar: %llu", &value) != 1)
        continue;
    (void) fclose(f);
    return value;
}

static void account_begin(const struct target *t, struct account *a) {
    FILE *f = open_log(t);

    *a = (struct account){.written_bytes = written_bytes(t->cluster->nodes[t->leader].pid),
                          .at_ns = uv_hrtime()};
    if (!f)
        return;
    if (fseek(f, 0, SEEK_END) == 0)
        a->log_at = ftell(f);
    (void) fclose(f);
}

static void account_end(const struct target *t, const struct account *a, struct bench_result *ret) {
    uint64_t entries = 0, ms = 0, most_ms = 0, count = 0, written;
    double seconds = (double) (uv_hrtime() - a->at_ns) / 1e9;
    char line[LINE_BYTES];
    FILE *f = open_log(t);

    if (f && fseek(f, a->log_at, SEEK_SET) == 0) {
        while (fgets(line, sizeof(line), f)) {
            const char *e = strstr(line, " entries="), *m = strstr(line, " took_ms=");
            uint64_t took = m ? strtoull(m + strlen(" took_ms="), NULL, 10) : 0;

            if (!e || !m)
                continue;
            count++;
            entries += strtoull(e + strlen(" entries="), NULL, 10);
            ms += took;
            most_ms = MAX(most_ms, took);
        }
    }
    if (f)
        (void) fclose(f);
    written = written_bytes(t->cluster->nodes[t->leader].pid) - a->written_bytes;
    bench_result_extra(ret, "snapshots", (double) count);
    bench_result_extra(ret, "snapshot_entries", count > 0 ? (double) entries / (double) count : 0);
    bench_result_extra(ret, "snapshot_ms", count > 0 ? (double) ms / (double) count : 0);
    bench_result_extra(ret, "snapshot_max_ms", (double) most_ms);
    bench_result_extra(ret, "leader_write_mib_s", (double) written / MIB / seconds);
}

/* ---- snapshots ------------------------------------------------------------------------------- */

static int stretch(struct target *t, const char *name, uint64_t ms, struct bench_result *ret) {
    struct paced *load = NULL;
    struct usage_mark mark;
    struct account account;
    int r, s;

    *ret = (struct bench_result){.name = name, .concurrency = 1};
    bench_progress(t->b, "%s...", name);
    r = target_find_leader(t, READY_MS);
    if (r == BENCH_OK)
        r = paced_new(t, PER_S, /* via_any= */ false, &load);
    if (r != BENCH_OK)
        return r;
    r = bench_pause(t->b, SETTLE_MS);
    account_begin(t, &account);
    target_usage_begin(t, &mark);
    paced_mark(load);
    if (r == BENCH_OK)
        r = bench_pause(t->b, ms);
    paced_result(load, ret);
    target_usage_end(t, &mark, &ret->usage);
    account_end(t, &account, ret);
    s = paced_stop(load);
    (void) paced_free(load);
    return r == BENCH_OK ? s : r;
}

static int restart(struct target *t, uint64_t snapshot_interval_ms) {
    int r;

    cluster_halt(t->cluster);
    t->cluster->snapshot_interval_ms = snapshot_interval_ms;
    r = cluster_resume(t->cluster);
    return r == BENCH_OK ? target_wait_ready(t, READY_MS) : r;
}

int stored_snapshots(struct target *t, uint64_t jobs, uint64_t ms,
                     struct bench_result ret[STORED_SNAPSHOT_RESULTS], size_t *ret_count) {
    int r = restart(t, SNAPSHOT_EACH_MS);

    *ret_count = 0;
    if (r == BENCH_OK)
        r = stretch(t, "snapshot_empty", ms, &ret[(*ret_count)++]);
    if (r == BENCH_OK)
        r = restart(t, SNAPSHOT_NEVER_MS);
    if (r == BENCH_OK)
        r = stored_fill(t, jobs, 0);
    if (r == BENCH_OK)
        r = stretch(t, "snapshot_none", ms, &ret[(*ret_count)++]);
    if (r == BENCH_OK)
        r = restart(t, SNAPSHOT_EACH_MS);
    if (r == BENCH_OK)
        r = stretch(t, "snapshot", ms, &ret[(*ret_count)++]);
    if (r != BENCH_OK && *ret_count > 0)
        (*ret_count)--;
    return r;
}

/* ---- a backup -------------------------------------------------------------------------------- */

int stored_restore(struct target *t, struct bench_result *ret) {
    struct cluster *c = t->cluster;
    char file[PATH_MAX + 32], dir[PATH_MAX + 32];
    const char *create[] = {"backup",    "create", file, "--address", c->nodes[t->leader].address,
                            "--timeout", "30m",    NULL};
    const char *restore[] = {"restore",        file,          "--data-dir", dir, "--node-id", "1",
                             "--peer-address", "127.0.0.1:1", NULL};
    uint64_t backup_ms = 0, restore_ms = 0;
    struct stat st = {0};
    int r;

    (void) snprintf(file, sizeof(file), "%s/bench.backup", c->dir);
    (void) snprintf(dir, sizeof(dir), "%s/restored", c->dir);
    bench_progress(t->b, "restore: writing a backup, then restoring it...");
    r = cluster_run(c, t->b, create, COMMAND_MS, &backup_ms);
    if (r == BENCH_OK && stat(file, &st) < 0)
        r = bench_fail("%s: it was not written", file);
    if (r == BENCH_OK)
        r = cluster_run(c, t->b, restore, COMMAND_MS, &restore_ms);
    *ret = (struct bench_result){
        .name = "restore", .concurrency = 1, .batch = 1, .count = 1, .no_ratio = true};
    ret->latency = (struct latency){.p50_ns = restore_ms * NS_PER_MS,
                                    .p90_ns = restore_ms * NS_PER_MS,
                                    .p99_ns = restore_ms * NS_PER_MS,
                                    .p999_ns = restore_ms * NS_PER_MS,
                                    .max_ns = restore_ms * NS_PER_MS};
    bench_result_extra(ret, "backup_ms", (double) backup_ms);
    bench_result_extra(ret, "restore_ms", (double) restore_ms);
    bench_result_extra(ret, "backup_mib", (double) st.st_size / MIB);
    return r;
}
