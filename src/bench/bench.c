#include "bench/bench.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const int caught[] = {SIGINT, SIGTERM, SIGHUP};

STATIC_ASSERT(ARRAY_LEN(caught) == ARRAY_LEN(((struct bench *) NULL)->signals), "one each");

static void on_signal(uv_signal_t *s, int signum) {
    struct bench *b = s->data;

    b->signal = signum;
}

static void on_timer(uv_timer_t *t) {
    struct bench *b = t->data;

    b->timed_out = true;
}

int bench_init(struct bench *b, const struct bench_options *o) {
    *b = (struct bench){.o = o, .quiet = !isatty(STDERR_FILENO)};
    if (uv_loop_init(&b->loop) < 0)
        return bench_fail("the event loop cannot be created");
    (void) uv_timer_init(&b->loop, &b->timer);
    b->timer.data = b;
    for (size_t i = 0; i < ARRAY_LEN(caught); i++) {
        (void) uv_signal_init(&b->loop, &b->signals[i]);
        b->signals[i].data = b;
        if (uv_signal_start(&b->signals[i], on_signal, caught[i]) < 0)
            return bench_fail("cannot listen to signals");
    }
    return BENCH_OK;
}

void bench_done(struct bench *b) {
    uv_close((uv_handle_t *) &b->timer, NULL);
    for (size_t i = 0; i < ARRAY_LEN(caught); i++)
        uv_close((uv_handle_t *) &b->signals[i], NULL);
    (void) uv_run(&b->loop, UV_RUN_DEFAULT);
    (void) uv_loop_close(&b->loop);
}

int bench_wait(struct bench *b, bool (*done)(const void *arg), const void *arg,
               uint64_t timeout_ms) {
    b->timed_out = false;
    uv_update_time(&b->loop);
    (void) uv_timer_start(&b->timer, on_timer, timeout_ms, 0);
    while (!(done && done(arg)) && !b->timed_out && b->signal == 0)
        (void) uv_run(&b->loop, UV_RUN_ONCE);
    (void) uv_timer_stop(&b->timer);
    if (b->signal != 0)
        return BENCH_INTERRUPTED;
    return b->timed_out && !(done && done(arg)) ? BENCH_TIMEOUT : BENCH_OK;
}

void bench_progress(const struct bench *b, const char *fmt, ...) {
    va_list ap;

    if (b->quiet)
        return;
    va_start(ap, fmt);
    (void) vfprintf(stderr, fmt, ap);
    va_end(ap);
    (void) fputc('\n', stderr);
}

int bench_fail(const char *fmt, ...) {
    va_list ap;

    (void) fputs("chronos bench: ", stderr);
    va_start(ap, fmt);
    (void) vfprintf(stderr, fmt, ap);
    va_end(ap);
    (void) fputc('\n', stderr);
    return BENCH_FAILED;
}

void latency_of(const struct histogram *h, struct latency *ret) {
    *ret = (struct latency){
        .p50_ns = histogram_quantile(h, 500000),
        .p90_ns = histogram_quantile(h, 900000),
        .p99_ns = histogram_quantile(h, 990000),
        .p999_ns = histogram_quantile(h, 999000),
        .max_ns = h->total > 0 ? h->max : 0,
    };
}

void bench_result_extra(struct bench_result *r, const char *name, double value) {
    ASSERT(r->extras_count < BENCH_EXTRAS_MAX);
    r->extras[r->extras_count++] = (struct bench_extra){.name = name, .value = value};
}

struct bench_result *bench_report_add(struct bench_report *r, const char *name) {
    struct bench_result *one = &r->results[r->count];

    ASSERT(r->count < BENCH_RESULTS_MAX);
    r->count++;
    *one = (struct bench_result){.name = name};
    return one;
}
