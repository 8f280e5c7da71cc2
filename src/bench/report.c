#include "bench/report.h"

#include "bench/floor.h"

#include <inttypes.h>
#include <string.h>

#define CELL_BYTES 24

uint64_t report_floor_p50(const struct floor_figures *f) {
    struct histogram both = f->before;

    histogram_merge(&both, &f->after);
    return histogram_quantile(&both, 500000);
}

/* Three or four significant digits with a unit; "-" for nothing. */
static const char *time_text(uint64_t ns, char out[CELL_BYTES]) {
    double us = (double) ns / 1e3;

    if (ns == 0)
        (void) snprintf(out, CELL_BYTES, "-");
    else if (us < 9999.5)
        (void) snprintf(out, CELL_BYTES, "%.0f us", us);
    else if (us < 9999.5 * 1e3)
        (void) snprintf(out, CELL_BYTES, us < 99.95e3 ? "%.1f ms" : "%.0f ms", us / 1e3);
    else
        (void) snprintf(out, CELL_BYTES, "%.1f s", us / 1e6);
    return out;
}

static const char *rate_text(double v, char out[CELL_BYTES]) {
    (void) snprintf(out, CELL_BYTES, v > 0 ? "%.0f" : "-", v);
    return out;
}

static void print_latency(const struct latency *l, FILE *out) {
    const uint64_t values[] = {l->p50_ns, l->p90_ns, l->p99_ns, l->p999_ns, l->max_ns};
    char cell[CELL_BYTES];

    for (size_t i = 0; i < ARRAY_LEN(values); i++)
        (void) fprintf(out, "  %8s", time_text(values[i], cell));
}

static void print_floor(const char *when, const struct histogram *h, double ops_s, FILE *out) {
    char cell[CELL_BYTES];
    struct latency l;

    if (h->total == 0)
        return;
    latency_of(h, &l);
    (void) fprintf(out, "%-13s  %5d  %5d  %8s", when, FLOOR_WRITERS, 1, rate_text(ops_s, cell));
    print_latency(&l, out);
    (void) fputc('\n', out);
}

static const char *ratio_text(const struct bench_result *r, uint64_t floor_ns,
                              char out[CELL_BYTES]) {
    if (floor_ns == 0 || r->count == 0 || r->no_ratio)
        (void) snprintf(out, CELL_BYTES, "-");
    else
        (void) snprintf(out, CELL_BYTES, "%.2f", (double) r->latency.p50_ns / (double) floor_ns);
    return out;
}

static void print_figures(const struct bench_report *r, const struct floor_figures *f, FILE *out) {
    uint64_t floor_ns = report_floor_p50(f);
    char cell[CELL_BYTES];

    (void) fprintf(out, "%-13s  %5s  %5s  %8s  %8s  %8s  %8s  %8s  %8s  %8s\n", "BENCH", "CONC",
                   "BATCH", "OPS/S", "P50", "P90", "P99", "P99.9", "MAX", "X FLOOR");
    print_floor("floor before", &f->before, f->before_ops_s, out);
    for (size_t i = 0; i < r->count; i++) {
        const struct bench_result *one = &r->results[i];

        (void) fprintf(out, "%-13s  %5u  %5u  %8s", one->name, one->concurrency, one->batch,
                       rate_text(one->ops_s, cell));
        print_latency(&one->latency, out);
        (void) fprintf(out, "  %8s", ratio_text(one, floor_ns, cell));
        if (one->refused > 0)
            (void) fprintf(out, "  %" PRIu64 " refused and tried again", one->refused);
        (void) fputc('\n', out);
    }
    print_floor("floor after", &f->after, f->after_ops_s, out);
}

static void print_usage(const struct usage *u, FILE *out) {
    if (u->rss_mib > 0)
        (void) fprintf(out, "  %5.1f%% %4.0fM", u->cpu_pct, u->rss_mib);
    else
        (void) fprintf(out, "  %12s", "-");
}

static void print_processes(const struct bench_report *r, FILE *out) {
    size_t nodes = 0;

    for (size_t i = 0; i < r->count; i++)
        nodes = MAX(nodes, r->results[i].usage.nodes);
    (void) fprintf(out,
                   "\nCPU (100%% = one core) and resident memory in MiB of each process; * = "
                   "the leader at the time; other = all else on this machine\n%-13s  %5s",
                   "BENCH", "CONC");
    for (size_t i = 0; i < nodes; i++)
        (void) fprintf(out, "   %9s %zu ", "server", i + 1);
    for (size_t i = 0; i < nodes; i++)
        (void) fprintf(out, "  %10s %zu", "worker", i + 1);
    (void) fprintf(out, "  %12s  %6s\n", "client", "other");
    for (size_t i = 0; i < r->count; i++) {
        const struct bench_usage *u = &r->results[i].usage;

        (void) fprintf(out, "%-13s  %5u", r->results[i].name, r->results[i].concurrency);
        for (size_t k = 0; k < nodes; k++) {
            print_usage(&u->servers[k], out);
            (void) fputc(k == u->leader && u->nodes > 0 ? '*' : ' ', out);
        }
        for (size_t k = 0; k < nodes; k++)
            print_usage(&u->workers[k], out);
        print_usage(&u->client, out);
        /* Two clocks that tick apart may make it a little less than nothing. */
        (void) fprintf(out, "  %5.1f%%\n", MAX(u->other_pct, 0.0));
    }
}

static void print_extras(const struct bench_report *r, FILE *out) {
    for (size_t i = 0; i < r->count; i++) {
        const struct bench_result *one = &r->results[i];

        for (size_t k = 0; k < one->extras_count; k++)
            (void) fprintf(out, "%s%s %s=%.6g%s", k == 0 ? "\n" : "", k == 0 ? one->name : "",
                           one->extras[k].name, one->extras[k].value,
                           k + 1 == one->extras_count ? "\n" : "");
    }
}

void report_table(const struct bench_report *r, const struct floor_figures *f, FILE *out) {
    print_figures(r, f, out);
    print_processes(r, out);
    print_extras(r, out);
}

/* The busiest and the largest server process. */
static struct usage largest_server(const struct bench_usage *u) {
    struct usage most = {0};

    for (size_t i = 0; i < u->nodes; i++) {
        most.cpu_pct = MAX(most.cpu_pct, u->servers[i].cpu_pct);
        most.rss_mib = MAX(most.rss_mib, u->servers[i].rss_mib);
    }
    return most;
}

void report_json(const struct bench_report *r, const struct floor_figures *f, FILE *out) {
    double floor_us = (double) report_floor_p50(f) / 1e3;

    (void) fputs("[", out);
    for (size_t i = 0; i < r->count; i++) {
        const struct bench_result *one = &r->results[i];
        const struct latency *l = &one->latency;
        struct usage most = largest_server(&one->usage);
        double p50 = (double) l->p50_ns / 1e3;

        (void) fprintf(out,
                       "%s\n  {\"name\": \"%s\", \"concurrency\": %u, \"batch\": %u, \"ops_s\": "
                       "%.1f, \"p50_us\": %.1f, \"p90_us\": %.1f, \"p99_us\": %.1f, \"p999_us\": "
                       "%.1f, \"max_us\": %.1f, \"floor_p50_us\": %.1f, \"ratio_p50\": %.3f, "
                       "\"cpu_pct\": %.1f, \"rss_mib\": %.1f",
                       i > 0 ? "," : "", one->name, one->concurrency, one->batch, one->ops_s, p50,
                       (double) l->p90_ns / 1e3, (double) l->p99_ns / 1e3,
                       (double) l->p999_ns / 1e3, (double) l->max_ns / 1e3, floor_us,
                       floor_us > 0 && !one->no_ratio ? p50 / floor_us : 0, most.cpu_pct,
                       most.rss_mib);
        for (size_t k = 0; k < one->extras_count; k++)
            (void) fprintf(out, ", \"%s\": %.3f", one->extras[k].name, one->extras[k].value);
        (void) fputs("}", out);
    }
    (void) fputs("\n]\n", out);
}
