#include "os_test.h"

#include "base/codec.h"
#include "os/peer_net.h"

#include <errno.h>

#define CLUSTER "cluster-aaaaaaaa"
#define BULK_BIT (1ULL << 63)
#define PIECE ((size_t) 256 * 1024)

/* One node. Messages are a number; those with BULK_BIT came over the bulk connection and are filled
 * with bytes that follow from it. */
struct side {
    struct peer_net *net;
    uint64_t id;
    uint64_t last, last_bulk; /* numbers; each kind must come in order */
    uint64_t received, received_bulk, bulk_bytes;
    uint64_t echo_to; /* answer every message */
    unsigned ready;
    unsigned ups, downs;
    /* on_hello */
    unsigned hellos, hellos_in, hellos_bulk;
    char peer_address[64], client_address[64];
    uint8_t disk[16];
    int answer;
    bool final;
    bool follow; /* set_peer to what an incoming hello says */
    /* on_refused */
    unsigned refusals;
    bool refused_final;
    char reason[200];
    bool closed;
};

static struct bytes *number_message(uint64_t number, size_t len) {
    struct bytes *b = bytes_new(len);

    assert_non_null(b);
    memset(b->data, (int) (number & 0xff), len);
    put_le64(b->data, number);
    return b;
}

static void on_message(void *ctx, uint64_t from, struct slice p) {
    struct side *s = (struct side *) ctx;
    uint64_t number = get_le64(p.data);

    if (number & BULK_BIT) {
        assert_true(number > s->last_bulk);
        s->last_bulk = number;
        s->received_bulk++;
        s->bulk_bytes += p.len;
        for (size_t i = 8; i < p.len; i++)
            if (p.data[i] != (uint8_t) number)
                fail_msg("byte %zu of bulk message %llu", i, (unsigned long long) number);
        return;
    }
    assert_true(number > s->last);
    s->last = number;
    s->received++;
    if (s->echo_to)
        peer_net_send(s->net, from, number_message(number, 8));
}

static void on_link(void *ctx, uint64_t node, bool up) {
    struct side *s = (struct side *) ctx;

    (void) node;
    s->ups += up;
    s->downs += !up;
}

static void on_bulk_ready(void *ctx, uint64_t node) {
    (void) node;
    ((struct side *) ctx)->ready++;
}

static int on_hello(void *ctx, const struct peer_net_hello *h, bool *ret_final,
                    struct errtext *reason) {
    struct side *s = (struct side *) ctx;

    s->hellos++;
    s->hellos_in += h->incoming;
    s->hellos_bulk += h->bulk;
    (void) snprintf(s->peer_address, sizeof(s->peer_address), "%.60s", h->peer_address);
    (void) snprintf(s->client_address, sizeof(s->client_address), "%.60s", h->client_address);
    memcpy(s->disk, h->disk, sizeof(s->disk));
    assert_string_equal(h->software, "test-2");
    if (s->answer != 0) {
        errtext_set(reason, "node %llu is not wanted", (unsigned long long) h->node_id);
        *ret_final = s->final;
    } else if (s->follow && h->incoming) {
        assert_int_equal(peer_net_set_peer(s->net, h->node_id, h->peer_address, ""), 0);
    }
    return s->answer;
}

static void on_refused(void *ctx, uint64_t node, bool final, const char *reason) {
    struct side *s = (struct side *) ctx;

    (void) node;
    s->refusals++;
    s->refused_final = final;
    (void) snprintf(s->reason, sizeof(s->reason), "%s", reason);
}

static struct peer_net_options options(struct side *s, uint64_t id) {
    struct peer_net_options o = {
        .self_id = id,
        .listen_address = "127.0.0.1:0",
        .software = "test-2",
        .seed = id,
        .reject_retry_ms = 30,
        .callbacks = {on_message, on_link, on_hello, on_refused, on_bulk_ready, s}};

    s->id = id;
    memcpy(o.cluster_id, CLUSTER, sizeof(o.cluster_id));
    return o;
}

static void start(uv_loop_t *loop, struct side *s, const struct peer_net_options *o) {
    assert_int_equal(peer_net_new(loop, o, &s->net, NULL), 0);
}

static void start_plain(uv_loop_t *loop, struct side *s, uint64_t id) {
    struct peer_net_options o = options(s, id);

    start(loop, s, &o);
}

static void on_closed(void *arg) {
    ((struct side *) arg)->closed = true;
}

static bool is_closed(void *arg) {
    return ((struct side *) arg)->closed;
}

static void stop(uv_loop_t *loop, struct side *s) {
    s->closed = false;
    peer_net_close(s->net, on_closed, s);
    os_test_run_until(loop, is_closed, s);
}

static void address_of(const struct side *s, char out[32]) {
    (void) snprintf(out, 32, "127.0.0.1:%u", peer_net_port(s->net));
}

static void join(struct side *a, const struct side *b) {
    char address[32];

    address_of(b, address);
    assert_int_equal(peer_net_set_peer(a->net, b->id, address, NULL), 0);
}

static struct peer_net_status status_of(const struct side *s, uint64_t node) {
    struct peer_net_status st;

    assert_int_equal(peer_net_status(s->net, node, &st), 0);
    return st;
}

static bool is_up(void *arg) {
    const struct side *s = (const struct side *) arg;

    return s->ups > s->downs;
}

static bool is_down(void *arg) {
    return !is_up(arg);
}

static bool is_ready(void *arg) {
    return ((const struct side *) arg)->ready > 0;
}

static bool is_refused(void *arg) {
    return ((const struct side *) arg)->refusals > 0;
}

/* Two nodes, links up both ways. */
static void start_pair(uv_loop_t *loop, struct side *a, struct side *b) {
    assert_int_equal(uv_loop_init(loop), 0);
    start_plain(loop, a, 1);
    start_plain(loop, b, 2);
    join(a, b);
    join(b, a);
    os_test_run_until(loop, is_up, a);
    os_test_run_until(loop, is_up, b);
}

static void stop_pair(uv_loop_t *loop, struct side *a, struct side *b) {
    stop(loop, a);
    stop(loop, b);
    os_test_loop_done(loop);
}

/* Bulk to @to until it is not taken. Returns the number of the last one that was. */
static uint64_t fill(struct side *a, uint64_t to, uint64_t next, uint64_t last) {
    while (next <= last && peer_net_send_bulk(a->net, to, number_message(BULK_BIT | next, PIECE)))
        next++;
    return next - 1;
}

/* Goal: 64 MiB of bulk do not delay messages: they go back and forth meanwhile, everything in order
 * and whole. Method: a new ping at each pong; the slowest is bounded far below what 4 MiB in front
 * of it would take a stalled loop, and many must fit beside the bulk. */
static void test_beside(void **state) {
    const uint64_t pieces = ((uint64_t) 64 << 20) / PIECE;
    struct side a = {0}, b = {.echo_to = 1};
    uint64_t sent = 0, ping = 0, at = 0, worst = 0, t0, end;
    uv_loop_t loop;

    (void) state;
    start_pair(&loop, &a, &b);
    t0 = uv_hrtime();
    end = t0 + OS_TEST_DEADLINE_MS * 1000000ULL;
    while (b.received_bulk < pieces) {
        assert_true(uv_hrtime() < end);
        sent = fill(&a, 2, sent + 1, pieces);
        if (a.last == ping) {
            if (ping > 0)
                worst = MAX(worst, uv_hrtime() - at);
            at = uv_hrtime();
            peer_net_send(a.net, 2, number_message(++ping, 8));
        }
        (void) uv_run(&loop, UV_RUN_ONCE);
    }
    print_message("64 MiB in %llu ms, %llu round trips, the slowest %llu us\n",
                  (unsigned long long) ((uv_hrtime() - t0) / 1000000), (unsigned long long) ping,
                  (unsigned long long) (worst / 1000));
    assert_int_equal(b.last_bulk, BULK_BIT | pieces);
    assert_int_equal(b.bulk_bytes, (uint64_t) 64 << 20);
    assert_true(ping >= 30);
    assert_true(worst < 500 * 1000000ULL);
    assert_true(a.ready >= 2);
    assert_int_equal(b.hellos_bulk, 1);
    assert_int_equal(a.downs + b.downs, 0);
    stop_pair(&loop, &a, &b);
}

/* Goal: send_bulk says no when nothing can be taken, and on_bulk_ready comes when it can again,
 * never from inside a call. Method: before the connection, a queue filled without a turn of the
 * loop, one message larger than the queue. */
static void test_full(void **state) {
    struct side a = {0}, b = {0};
    struct peer_net_status st;
    struct env_peers env;
    uv_loop_t loop;

    (void) state;
    start_pair(&loop, &a, &b);
    env = peer_net_env(a.net);
    assert_false(env.send_bulk(env.ctx, 77, number_message(BULK_BIT | 1, 8)));
    assert_false(env.send_bulk(env.ctx, 2, number_message(BULK_BIT | 1, 8)));
    assert_false(status_of(&a, 2).bulk_connected);
    os_test_run_until(&loop, is_ready, &a);
    assert_true(status_of(&a, 2).bulk_connected);
    assert_int_equal(fill(&a, 2, 2, 100), 16); /* 15 with their headers are under 4 MiB */
    st = status_of(&a, 2);
    assert_true(st.bulk_queued_bytes > 15 * PIECE && st.bulk_queued_bytes <= (size_t) 4 << 20);
    a.ready = 0;
    env.flush(env.ctx);
    assert_int_equal(a.ready, 0);
    os_test_run_until(&loop, is_ready, &a);
    st = status_of(&a, 2);
    assert_true(st.bulk_queued_bytes <= (size_t) 2 << 20);
    while (b.received_bulk < 15)
        (void) uv_run(&loop, UV_RUN_ONCE);
    assert_true(env.send_bulk(env.ctx, 2, number_message(BULK_BIT | 200, (size_t) 9 << 20)));
    assert_false(env.send_bulk(env.ctx, 2, number_message(BULK_BIT | 201, 8)));
    while (b.received_bulk < 16)
        (void) uv_run(&loop, UV_RUN_ONCE);
    assert_int_equal(b.last_bulk, BULK_BIT | 200);
    assert_true(status_of(&a, 2).bulk_sent_bytes > ((uint64_t) 9 << 20) + 15 * PIECE);
    stop_pair(&loop, &a, &b);
}

static bool got_some_bulk(void *arg) {
    return ((const struct side *) arg)->received_bulk >= 4;
}

/* Goal: a receiver that goes away in the middle of bulk data and comes back is found again, and
 * what arrives stays whole and in order. Method: restart it on its port after some pieces. */
static void test_restart(void **state) {
    struct side a = {0}, b = {0};
    struct peer_net_options o;
    char address[32];
    uint64_t sent;
    uv_loop_t loop;

    (void) state;
    start_pair(&loop, &a, &b);
    address_of(&b, address);
    (void) fill(&a, 2, 1, 1);
    for (unsigned i = 1; i <= 3; i++) {
        os_test_run_until(&loop, is_ready, &a);
        sent = fill(&a, 2, i * 1000ULL, i * 1000ULL + 50);
        assert_true(sent >= i * 1000ULL + 4);
        b.received_bulk = 0;
        os_test_run_until(&loop, got_some_bulk, &b);
        stop(&loop, &b);
        os_test_run_until(&loop, is_down, &a);
        while (status_of(&a, 2).bulk_connected)
            (void) uv_run(&loop, UV_RUN_ONCE);
        assert_int_equal(status_of(&a, 2).bulk_queued_bytes, 0);
        assert_false(peer_net_send_bulk(a.net, 2, number_message(BULK_BIT | 1, 8)));
        a.ready = 0;
        o = options(&b, 2);
        o.listen_address = address;
        start(&loop, &b, &o);
        join(&b, &a);
        os_test_run_until(&loop, is_up, &a);
    }
    stop_pair(&loop, &a, &b);
}

static bool nobody_in(void *arg) {
    return peer_net_counters(((struct side *) arg)->net).incoming == 0;
}

/* Goal: removing a peer ends bulk as well, in both directions. Method: in the middle of it; the
 * other side must see every connection of it close. */
static void test_remove(void **state) {
    struct side a = {0}, b = {0};
    struct peer_net_status st;
    uv_loop_t loop;

    (void) state;
    start_pair(&loop, &a, &b);
    (void) fill(&a, 2, 1, 1);
    (void) fill(&b, 1, 1, 1);
    os_test_run_until(&loop, is_ready, &a);
    os_test_run_until(&loop, is_ready, &b);
    assert_int_equal(peer_net_counters(a.net).incoming, 2);
    assert_int_equal(peer_net_counters(b.net).incoming, 2);
    (void) fill(&a, 2, 2, 50);
    (void) fill(&b, 1, 2, 50);
    os_test_run_until(&loop, got_some_bulk, &b);
    peer_net_remove_peer(b.net, 1);
    peer_net_remove_peer(a.net, 2);
    assert_false(peer_net_send_bulk(a.net, 2, number_message(BULK_BIT | 99, 8)));
    assert_int_equal(peer_net_status(a.net, 2, &st), 1);
    os_test_run_until(&loop, nobody_in, &a);
    os_test_run_until(&loop, nobody_in, &b);
    stop_pair(&loop, &a, &b);
}

static bool one_in(void *arg) {
    return peer_net_counters(((struct side *) arg)->net).incoming == 1;
}

/* Goal: a bulk connection that is not used is closed, also when it never came up, and the next use
 * makes a new one. Method: an idle time of 60 ms, twice. */
static void test_idle(void **state) {
    struct side a = {0}, b = {0};
    struct peer_net_options o = options(&a, 1);
    uv_loop_t loop;

    (void) state;
    o.bulk_idle_ms = 60;
    assert_int_equal(uv_loop_init(&loop), 0);
    start(&loop, &a, &o);
    start_plain(&loop, &b, 2);
    join(&a, &b);
    assert_int_equal(peer_net_set_peer(a.net, 3, "127.0.0.1:1", NULL), 0);
    (void) fill(&a, 3, 1, 1);
    os_test_run_until(&loop, is_up, &a);
    for (uint64_t i = 1; i <= 2; i++) {
        a.ready = 0;
        assert_int_equal(fill(&a, 2, i * 10, i * 10), i * 10 - 1);
        os_test_run_until(&loop, is_ready, &a);
        assert_int_equal(fill(&a, 2, i * 10, i * 10), i * 10);
        assert_int_equal(peer_net_counters(b.net).incoming, 2);
        os_test_run_until(&loop, one_in, &b);
        assert_false(status_of(&a, 2).bulk_connected);
        assert_int_equal(b.received_bulk, i);
    }
    assert_int_equal(b.hellos_bulk, 2);
    assert_int_equal(a.downs, 0);
    stop_pair(&loop, &a, &b);
}

/* Goal: of two addresses the one that answers is found; as long as it is one of the two a change of
 * them breaks nothing; a change that leaves it out reconnects. Method: dead ports and a live one.
 */
static void test_addresses(void **state) {
    struct side a = {0}, b = {0}, c = {0};
    struct peer_net_options o;
    char live[32], moved[32];
    uv_loop_t loop;

    (void) state;
    assert_int_equal(uv_loop_init(&loop), 0);
    start_plain(&loop, &a, 1);
    start_plain(&loop, &b, 2);
    address_of(&b, live);
    assert_int_equal(peer_net_set_peer(a.net, 2, "127.0.0.1:1", "nonsense"), ERR_CONFIG);
    assert_int_equal(peer_net_set_peer(a.net, 2, "127.0.0.1:1", live), 0);
    os_test_run_until(&loop, is_up, &a);
    assert_int_equal(peer_net_set_peer(a.net, 2, live, "127.0.0.1:2"), 0);
    assert_int_equal(peer_net_set_peer(a.net, 2, "127.0.0.1:3", live), 0);
    assert_int_equal(peer_net_set_peer(a.net, 2, live, ""), 0);
    peer_net_send(a.net, 2, number_message(1, 8));
    while (b.received == 0)
        (void) uv_run(&loop, UV_RUN_ONCE);
    assert_int_equal(status_of(&a, 2).connects, 1);
    assert_int_equal(a.downs, 0);
    /* Node 2 also at another address, as after a restart elsewhere. */
    o = options(&c, 2);
    start(&loop, &c, &o);
    address_of(&c, moved);
    assert_int_equal(peer_net_set_peer(a.net, 2, moved, ""), 0);
    os_test_run_until(&loop, is_down, &a);
    os_test_run_until(&loop, is_up, &a);
    peer_net_send(a.net, 2, number_message(2, 8));
    while (c.received == 0)
        (void) uv_run(&loop, UV_RUN_ONCE);
    /* A connection that breaks goes on to the other address. */
    assert_int_equal(peer_net_set_peer(a.net, 2, live, moved), 0);
    stop(&loop, &c);
    os_test_run_until(&loop, is_down, &a);
    os_test_run_until(&loop, is_up, &a);
    peer_net_send(a.net, 2, number_message(3, 8));
    while (b.received == 1)
        (void) uv_run(&loop, UV_RUN_ONCE);
    stop_pair(&loop, &a, &b);
}

/* Goal: a handshake tells both sides who the other is, and a node that announces itself at a new
 * address is dialled there. Method: only one side knows the other at first. */
static void test_hello_says(void **state) {
    struct side a = {0}, b = {.follow = true};
    struct peer_net_options oa = options(&a, 1), ob = options(&b, 2), o;
    uint8_t disk[16];
    char address[32];
    uv_loop_t loop;

    (void) state;
    assert_int_equal(uv_loop_init(&loop), 0);
    ob.peer_address = "b.example:7402";
    ob.client_address = "b.example:7401";
    memset(ob.disk, 0xb, sizeof(ob.disk));
    start(&loop, &b, &ob);
    /* The port of a is known only once it listens: take one, give it back, listen there again. */
    start(&loop, &a, &oa);
    address_of(&a, address);
    stop(&loop, &a);
    o = oa;
    o.listen_address = o.peer_address = address;
    start(&loop, &a, &o);
    memset(disk, 0xa, sizeof(disk));
    peer_net_set_disk(a.net, disk);
    join(&a, &b);
    os_test_run_until(&loop, is_up, &a);
    os_test_run_until(&loop, is_up, &b);
    assert_string_equal(b.peer_address, address);
    assert_string_equal(b.client_address, "");
    assert_memory_equal(b.disk, disk, sizeof(disk));
    assert_string_equal(a.peer_address, "b.example:7402");
    assert_string_equal(a.client_address, "b.example:7401");
    assert_memory_equal(a.disk, ob.disk, sizeof(disk));
    assert_int_equal(a.hellos, 2);
    assert_int_equal(a.hellos_in, 1);
    assert_int_equal(b.hellos, 2);
    assert_int_equal(b.hellos_in, 1);
    stop_pair(&loop, &a, &b);
}

static bool refused_again(void *arg) {
    return ((const struct side *) arg)->refusals >= 3;
}

/* Goal: the owner's refusal reaches the other owner with its reason and whether it is for good; the
 * refused one tries again and comes in when it is wanted; a side that does not want the one it
 * dials closes and tries again. Method: change the answers in turn. */
static void test_refusals(void **state) {
    struct side a = {0}, b = {.answer = -1};
    struct peer_net_status st;
    uv_loop_t loop;

    (void) state;
    assert_int_equal(uv_loop_init(&loop), 0);
    start_plain(&loop, &a, 1);
    start_plain(&loop, &b, 2);
    join(&a, &b);
    os_test_run_until(&loop, is_refused, &a);
    assert_false(a.refused_final);
    assert_string_equal(a.reason, "node 1 is not wanted");
    b.final = true;
    a.refusals = 0;
    os_test_run_until(&loop, refused_again, &a);
    assert_true(a.refused_final);
    assert_int_equal(a.ups, 0);
    assert_int_equal(a.hellos, 0); /* nobody welcomed it, so it was not asked */
    b.answer = 0;
    a.answer = -1;
    while (a.hellos < 3)
        (void) uv_run(&loop, UV_RUN_ONCE);
    assert_int_equal(a.ups, 0);
    st = status_of(&a, 2);
    assert_false(st.connected);
    a.answer = 0;
    os_test_run_until(&loop, is_up, &a);
    assert_int_equal(b.received, 0);
    stop_pair(&loop, &a, &b);
}

/* Goal: a node that does not know its cluster dials nobody and lets nobody in, until it is told.
 * Method: one such node and one that dials it. */
static void test_cluster_later(void **state) {
    struct side a = {0}, b = {0};
    struct peer_net_options o = options(&a, 1);
    uv_loop_t loop;

    (void) state;
    assert_int_equal(uv_loop_init(&loop), 0);
    memset(o.cluster_id, 0, sizeof(o.cluster_id));
    start(&loop, &a, &o);
    start_plain(&loop, &b, 2);
    join(&a, &b);
    join(&b, &a);
    os_test_run_until(&loop, is_refused, &b);
    assert_string_equal(b.reason, "node 1 has not joined a cluster yet");
    assert_false(b.refused_final);
    assert_int_equal(peer_net_counters(b.net).incoming, 0);
    assert_int_equal(a.hellos + b.hellos, 0);
    peer_net_set_cluster_id(a.net, (const uint8_t *) CLUSTER);
    os_test_run_until(&loop, is_up, &a);
    os_test_run_until(&loop, is_up, &b);
    stop_pair(&loop, &a, &b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_beside),        cmocka_unit_test(test_full),
        cmocka_unit_test(test_restart),       cmocka_unit_test(test_remove),
        cmocka_unit_test(test_idle),          cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_hello_says),    cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_cluster_later),
    };

    return cmocka_run_group_tests_name("peer_net_bulk", tests, NULL, NULL);
}
