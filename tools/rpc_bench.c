/* Unary echo calls per second and their latency, server and client in two processes.
 *
 * What it is: a measuring tool for src/os/rpc_*; not run by the tests.
 *   rpc_bench server [defer]            prints its port and serves until killed
 *   rpc_bench client ADDRESS OUTSTANDING SECONDS [BYTES]
 *   rpc_bench idle                      opens both and sleeps in the loop (for memory and CPU)
 * "defer" answers from a later turn of the loop, as a server that commits first does. */
#include "os/rpc_client.h"
#include "os/rpc_server.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#define SAMPLES_MAX ((size_t) 1 << 20)
#define DEFERRED_MAX 8192

struct bench {
    uv_loop_t loop;
    uv_check_t later;
    struct rpc_call *deferred[DEFERRED_MAX];
    struct bytes *replies[DEFERRED_MAX];
    size_t deferred_count;
    bool defer;
    struct rpc_channel *channel;
    struct bytes *request;
    uint64_t calls, errors, end_ns;
    unsigned outstanding;
    uint64_t *samples;
    size_t samples_count;
};

struct one {
    struct bench *bench;
    uint64_t start_ns;
};

static void srv_gone(void *ctx, struct rpc_call *call) {
    struct bench *b = ctx;

    for (size_t i = 0; i < b->deferred_count; i++)
        if (b->deferred[i] == call)
            b->deferred[i] = NULL;
}

static void srv_gone_fast(void *ctx, struct rpc_call *call) {
    (void) ctx;
    (void) call;
}

static void srv_echo(void *ctx, struct rpc_call *call, struct slice request) {
    struct bench *b = ctx;
    struct bytes *reply = bytes_copy(request.data, request.len);

    if (b->defer && b->deferred_count < DEFERRED_MAX) {
        b->deferred[b->deferred_count] = call;
        b->replies[b->deferred_count++] = reply;
        return;
    }
    rpc_call_reply(call, reply);
    (void) bytes_unref(reply);
}

static void on_later(uv_check_t *c) {
    struct bench *b = CONTAINER_OF(c, struct bench, later);

    for (size_t i = 0; i < b->deferred_count; i++) {
        if (b->deferred[i])
            rpc_call_reply(b->deferred[i], b->replies[i]);
        (void) bytes_unref(b->replies[i]);
    }
    b->deferred_count = 0;
}

static struct rpc_server *serve(struct bench *b, struct rpc_method *m) {
    struct rpc_server_options o = {
        .address = "127.0.0.1:0", .methods = m, .methods_count = 1, .ctx = b};
    struct rpc_server *s = NULL;
    struct errtext e = {""};

    *m = (struct rpc_method){.path = "/bench/Echo",
                             .kind = RPC_UNARY,
                             .on_call = srv_echo,
                             .on_gone = b->defer ? srv_gone : srv_gone_fast};
    if (rpc_server_new(&b->loop, &o, &s, &e) < 0) {
        fprintf(stderr, "%s\n", e.s);
        exit(1);
    }
    (void) uv_check_init(&b->loop, &b->later);
    if (b->defer)
        (void) uv_check_start(&b->later, on_later);
    printf("%d\n", rpc_server_port(s));
    (void) fflush(stdout);
    return s;
}

static void begin(struct one *o);

static void on_done(void *arg, const struct rpc_result *res) {
    struct one *o = arg;
    struct bench *b = o->bench;
    uint64_t now = uv_hrtime();

    b->calls++;
    if (res->code != RPC_OK && b->errors++ == 0)
        fprintf(stderr, "code %d: %s\n", (int) res->code, res->message);
    if (b->samples_count < SAMPLES_MAX)
        b->samples[b->samples_count++] = now - o->start_ns;
    if (now < b->end_ns)
        begin(o);
    else if (--b->outstanding == 0)
        uv_stop(&b->loop);
}

static void begin(struct one *o) {
    o->start_ns = uv_hrtime();
    if (rpc_unary(o->bench->channel, "/bench/Echo", o->bench->request, 10000, true, on_done, o) < 0)
        abort();
}

static int compare(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *) a;
    uint64_t y = *(const uint64_t *) b;

    return (x > y) - (x < y);
}

static void report(struct bench *b, double seconds) {
    struct rusage u;

    qsort(b->samples, b->samples_count, sizeof(*b->samples), compare);
    (void) getrusage(RUSAGE_SELF, &u);
    printf("%.0f calls/s, errors %llu, p50 %.0f us, p99 %.0f us, client cpu %.2f s, rss %ld KiB\n",
           (double) b->calls / seconds, (unsigned long long) b->errors,
           (double) b->samples[b->samples_count / 2] / 1e3,
           (double) b->samples[b->samples_count * 99 / 100] / 1e3,
           (double) (u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
               (double) (u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6,
           u.ru_maxrss);
}

static int client(struct bench *b, const char *address, unsigned outstanding, double seconds,
                  size_t bytes) {
    struct rpc_client *c = NULL;
    struct one *ones = calloc(outstanding, sizeof(*ones));
    struct errtext e = {""};
    uint64_t start = 0;

    b->samples = malloc(SAMPLES_MAX * sizeof(*b->samples));
    b->request = bytes_new(bytes);
    if (!ones || !b->samples || !b->request || rpc_client_new(&b->loop, &c, &e) < 0 ||
        rpc_channel_new(c, address, 0, &b->channel) < 0)
        return 1;
    memset(b->request->data, 'x', bytes);
    start = uv_hrtime();
    b->end_ns = start + (uint64_t) (seconds * 1e9);
    b->outstanding = outstanding;
    for (unsigned i = 0; i < outstanding; i++) {
        ones[i].bench = b;
        begin(&ones[i]);
    }
    (void) uv_run(&b->loop, UV_RUN_DEFAULT);
    report(b, (double) (uv_hrtime() - start) / 1e9);
    (void) rpc_client_free(c);
    (void) bytes_unref(b->request);
    free(b->samples);
    free(ones);
    return 0;
}

int main(int argc, char **argv) {
    static struct bench b;
    struct rpc_method m;

    (void) uv_loop_init(&b.loop);
    if (argc >= 2 && strcmp(argv[1], "server") == 0) {
        b.defer = argc >= 3 && strcmp(argv[2], "defer") == 0;
        (void) serve(&b, &m);
        return uv_run(&b.loop, UV_RUN_DEFAULT);
    }
    if (argc >= 5 && strcmp(argv[1], "client") == 0)
        return client(&b, argv[2], (unsigned) atoi(argv[3]), atof(argv[4]),
                      argc >= 6 ? (size_t) atoi(argv[5]) : 100);
    if (argc >= 2 && strcmp(argv[1], "idle") == 0) {
        struct rpc_client *c = NULL;

        (void) serve(&b, &m);
        if (rpc_client_new(&b.loop, &c, NULL) < 0)
            return 1;
        return uv_run(&b.loop, UV_RUN_DEFAULT);
    }
    fprintf(stderr, "see the head of tools/rpc_bench.c\n");
    return 2;
}
