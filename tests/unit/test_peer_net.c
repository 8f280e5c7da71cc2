#include "os_test.h"

#include "base/codec.h"
#include "base/crc32c.h"
#include "os/peer_net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>

#define CLUSTER_A "cluster-aaaaaaaa"
#define CLUSTER_B "cluster-bbbbbbbb"

struct side {
    struct peer_net *net;
    struct logger log;
    char last_log[512];
    unsigned log_lines;
    uint64_t received;
    uint64_t last_number;
    uint64_t large_ok;
    unsigned ups;
    unsigned downs;
    bool closed;
    bool remove_sender; /* in on_message */
};

static void sink(void *ctx, enum log_level level, const char *msg, const char *fields) {
    struct side *s = (struct side *) ctx;

    (void) level;
    s->log_lines++;
    (void) snprintf(s->last_log, sizeof(s->last_log), "%s %s", msg, fields);
}

/* Messages are a number and, when longer, a fill derived from it. */
static void on_message(void *ctx, uint64_t from, struct slice payload) {
    struct side *s = (struct side *) ctx;
    uint64_t number;

    assert_true(payload.len >= 8);
    number = get_le64(payload.data);
    assert_true(number > s->last_number); /* in order on one connection */
    for (size_t i = 8; i < payload.len; i++)
        assert_int_equal(payload.data[i], (uint8_t) (number + i));
    s->large_ok += payload.len > 1000000;
    s->last_number = number;
    s->received++;
    if (s->remove_sender)
        peer_net_remove_peer(s->net, from);
}

static void on_link(void *ctx, uint64_t node, bool up) {
    struct side *s = (struct side *) ctx;

    (void) node;
    if (up)
        s->ups++;
    else
        s->downs++;
    assert_true(s->ups - s->downs <= 1);
}

static struct bytes *message(uint64_t number, size_t len) {
    struct bytes *b = bytes_new(len);

    assert_non_null(b);
    put_le64(b->data, number);
    for (size_t i = 8; i < len; i++)
        b->data[i] = (uint8_t) (number + i);
    return b;
}

static struct peer_net_options options(struct side *s, uint64_t id, const char *cluster) {
    struct peer_net_options o = {
        .self_id = id,
        .listen_address = "127.0.0.1:0",
        .software = "test-1",
        .log = &s->log,
        .seed = id,
        .callbacks = {.on_message = on_message, .on_link = on_link, .ctx = s}};

    s->log = (struct logger){.level = LOG_INFO, .sink = sink, .ctx = s};
    memcpy(o.cluster_id, cluster, sizeof(o.cluster_id));
    return o;
}

static void start(uv_loop_t *loop, struct side *s, uint64_t id, const char *cluster) {
    struct peer_net_options o = options(s, id, cluster);

    o.reject_retry_ms = 50;
    assert_int_equal(peer_net_new(loop, &o, &s->net, NULL), 0);
}

static void on_closed(void *arg) {
    ((struct side *) arg)->closed = true;
}

static bool is_closed(void *arg) {
    return ((struct side *) arg)->closed;
}

static void stop(uv_loop_t *loop, struct side *s) {
    peer_net_close(s->net, on_closed, s);
    os_test_run_until(loop, is_closed, s);
}

static void join(struct side *a, uint64_t id, const struct side *b) {
    char address[32];

    (void) snprintf(address, sizeof(address), "127.0.0.1:%u", peer_net_port(b->net));
    assert_int_equal(peer_net_set_peer(a->net, id, address, NULL), 0);
}

static bool is_up(void *arg) {
    const struct side *s = (const struct side *) arg;

    return s->ups > s->downs;
}

static bool is_down(void *arg) {
    return !is_up(arg);
}

static bool got_10000(void *arg) {
    return ((const struct side *) arg)->received >= 10000;
}

/* Goal: messages arrive whole, unaltered, in order, in both directions. Method: two nets in one
 * loop exchange 10,000 messages each, of 8 bytes to 2 MiB, the queue filling past socket buffers.
 */
static void test_exchange(void **state) {
    struct side a = {0}, b = {0};
    struct peer_net_status st;
    struct env_peers env;
    uv_loop_t loop;
    uint64_t t0;

    (void) state;
    assert_int_equal(uv_loop_init(&loop), 0);
    start(&loop, &a, 1, CLUSTER_A);
    start(&loop, &b, 2, CLUSTER_A);
    join(&a, 2, &b);
    join(&b, 1, &a);
    os_test_run_until(&loop, is_up, &a);
    os_test_run_until(&loop, is_up, &b);
    env = peer_net_env(a.net);
    t0 = uv_hrtime();
    for (uint64_t i = 1; i <= 10000; i++) {
        env.send(env.ctx, 2, message(i, i % 2500 == 0 ? (size_t) 2 << 20 : 8 + i % 300));
        peer_net_send(b.net, 1, message(i, 64));
    }
    os_test_run_until(&loop, got_10000, &a);
    os_test_run_until(&loop, got_10000, &b);
    print_message("20,000 messages in %llu us\n", (unsigned long long) ((uv_hrtime() - t0) / 1000));
    assert_int_equal(a.last_number, 10000);
    assert_int_equal(b.last_number, 10000);
    assert_int_equal(b.large_ok, 4);
    assert_int_equal(peer_net_status(a.net, 2, &st), 0);
    assert_true(st.connected);
    assert_int_equal(st.sent, 10000);
    assert_int_equal(st.dropped, 0);
    assert_int_equal(st.queued_bytes, 0);
    assert_int_equal(st.protocol, 1);
    assert_string_equal(st.software, "test-1");
    assert_int_equal(peer_net_status(a.net, 3, &st), 1);
    stop(&loop, &a);
    stop(&loop, &b);
    os_test_loop_done(&loop);
}

/* Goal: a peer that restarts on the same port is found again; what was sent meanwhile is dropped,
 * not kept; on_link tells both edges. Method: close and reopen one side five times. */
static void test_reconnect(void **state) {
    struct side a = {0}, b = {0};
    struct peer_net_status st;
    char address[32];
    uv_loop_t loop;

    (void) state;
    assert_int_equal(uv_loop_init(&loop), 0);
    start(&loop, &a, 1, CLUSTER_A);
    start(&loop, &b, 2, CLUSTER_A);
    join(&a, 2, &b);
    (void) snprintf(address, sizeof(address), "127.0.0.1:%u", peer_net_port(b.net));
    for (unsigned i = 1; i <= 5; i++) {
        struct peer_net_options o;

        os_test_run_until(&loop, is_up, &a);
        b.closed = false;
        stop(&loop, &b);
        os_test_run_until(&loop, is_down, &a);
        peer_net_send(a.net, 2, message(1, 100));
        o = options(&b, 2, CLUSTER_A);
        o.listen_address = address;
        assert_int_equal(peer_net_new(&loop, &o, &b.net, NULL), 0);
    }
    os_test_run_until(&loop, is_up, &a);
    assert_int_equal(a.ups, 6);
    assert_int_equal(a.downs, 5);
    assert_int_equal(peer_net_status(a.net, 2, &st), 0);
    assert_int_equal(st.connects, 6);
    assert_int_equal(st.dropped, 5);
    stop(&loop, &a);
    b.closed = false;
    stop(&loop, &b);
    os_test_loop_done(&loop);
}

static bool refused_twice(void *arg) {
    struct peer_net_status st;

    assert_int_equal(peer_net_status(((struct side *) arg)->net, 2, &st), 0);
    assert_false(st.connected);
    return st.rejects >= 2;
}

static bool logged_wrong_id(void *arg) {
    return strstr(((const struct side *) arg)->last_log, "wrong node id") != NULL;
}

/* Goal: a foreign cluster, a wrong node id and a protocol that is too new are refused with a reason
 * that the refused side logs, and it tries again. Method: one listener, three misfits in turn. */
static void test_refused(void **state) {
    static const char *const reasons[] = {"foreign cluster id", "wrong node id", "protocol 7-8"};
    struct side b = {0};
    uv_loop_t loop;

    (void) state;
    assert_int_equal(uv_loop_init(&loop), 0);
    start(&loop, &b, 2, CLUSTER_A);
    for (unsigned i = 0; i < 3; i++) {
        struct side a = {0};
        struct peer_net_options o = options(&a, 1, i == 0 ? CLUSTER_B : CLUSTER_A);
        char address[32];

        o.reject_retry_ms = 30;
        o.protocol_min = i == 2 ? 7 : 1;
        o.protocol_max = i == 2 ? 8 : 1;
        assert_int_equal(peer_net_new(&loop, &o, &a.net, NULL), 0);
        (void) snprintf(address, sizeof(address), "127.0.0.1:%u", peer_net_port(b.net));
        assert_int_equal(peer_net_set_peer(a.net, 2, address, NULL), 0);
        if (i == 1) { /* the listener is 2, and 3 is expected there */
            assert_int_equal(peer_net_set_peer(a.net, 3, address, NULL), 0);
            peer_net_remove_peer(a.net, 2);
            assert_int_equal(peer_net_set_peer(a.net, 2, "127.0.0.1:1", NULL), 0);
            os_test_run_until(&loop, logged_wrong_id, &a);
        } else {
            os_test_run_until(&loop, refused_twice, &a);
        }
        assert_non_null(strstr(a.last_log, reasons[i]));
        assert_int_equal(a.ups, 0);
        stop(&loop, &a);
    }
    assert_int_equal(b.received, 0);
    assert_true(peer_net_counters(b.net).refused >= 5);
    stop(&loop, &b);
    os_test_loop_done(&loop);
}

static int raw_connect(uint16_t port) {
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons(port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (const struct sockaddr *) &sa, sizeof(sa)), 0);
    return fd;
}

struct garbage_wait {
    struct side *side;
    uint64_t want;
};

static bool malformed_seen(void *arg) {
    const struct garbage_wait *w = (const struct garbage_wait *) arg;

    return peer_net_counters(w->side->net).malformed >= w->want &&
           peer_net_counters(w->side->net).incoming == 1;
}

static bool received_one(void *arg) {
    return ((const struct side *) arg)->received == 1;
}

/* Goal: malformed bytes at the port change nothing: the connection is closed, counted, logged a
 * bounded number of times, and a good link goes on. Method: 60 raw connections with text, a bad
 * checksum, a message before the handshake, an oversized handshake. */
static void test_garbage(void **state) {
    struct side a = {0}, b = {0};
    struct garbage_wait wait = {.side = &b};
    uint8_t frame[PEER_FRAME_HEADER_BYTES + 8];
    uv_loop_t loop;

    (void) state;
    assert_int_equal(uv_loop_init(&loop), 0);
    start(&loop, &a, 1, CLUSTER_A);
    start(&loop, &b, 2, CLUSTER_A);
    join(&a, 2, &b);
    os_test_run_until(&loop, is_up, &a);
    for (unsigned i = 0; i < 60; i++) {
        int fd = raw_connect(peer_net_port(b.net));

        memset(frame, 0, sizeof(frame));
        peer_frame_encode_header(frame, PEER_FRAME_MESSAGE, slice_of(frame + 20, 8));
        if (i % 4 == 0)
            memcpy(frame, "GET / HTTP/1.1\r\n\r\n", 18);
        else if (i % 4 == 1)
            frame[17] ^= 1;
        else if (i % 4 == 3) {
            put_le32(frame + 8, 5000);
            put_le32(frame + 16, crc32c(frame, 16));
        }
        assert_int_equal(send(fd, frame, sizeof(frame), MSG_NOSIGNAL), sizeof(frame));
        wait.want = i + 1;
        os_test_run_until(&loop, malformed_seen, &wait);
        assert_int_equal(close(fd), 0);
    }
    assert_true(b.log_lines <= 12);
    assert_int_equal(b.received, 0);
    assert_int_equal(a.downs, 0);
    peer_net_send(a.net, 2, message(1, 64));
    os_test_run_until(&loop, received_one, &b);
    stop(&loop, &a);
    stop(&loop, &b);
    os_test_loop_done(&loop);
}

static bool only_good_left(void *arg) {
    return peer_net_counters(((struct side *) arg)->net).incoming == 1;
}

/* Goal: silent connections end at the handshake deadline, are bounded in number, and do not keep a
 * node out. Method: limit 8; 30 silent strangers, then a real peer, then wait. */
static void test_silent(void **state) {
    struct side a = {0}, b = {0};
    struct peer_net_options o = options(&b, 2, CLUSTER_A);
    int fds[30];
    uv_loop_t loop;

    (void) state;
    o.incoming_max = 8;
    o.handshake_ms = 400;
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(peer_net_new(&loop, &o, &b.net, NULL), 0);
    start(&loop, &a, 1, CLUSTER_A);
    for (unsigned i = 0; i < 30; i++) {
        fds[i] = raw_connect(peer_net_port(b.net));
        (void) uv_run(&loop, UV_RUN_NOWAIT);
        assert_true(peer_net_counters(b.net).incoming <= 8);
    }
    join(&a, 2, &b);
    os_test_run_until(&loop, is_up, &a);
    os_test_run_until(&loop, only_good_left, &b);
    assert_true(peer_net_counters(b.net).timed_out > 0);
    assert_true(peer_net_counters(b.net).over_limit >= 20);
    assert_int_equal(a.downs, 0);
    for (unsigned i = 0; i < 30; i++)
        assert_int_equal(close(fds[i]), 0);
    stop(&loop, &a);
    stop(&loop, &b);
    os_test_loop_done(&loop);
}

static bool has_received(void *arg) {
    return ((const struct side *) arg)->received > 0;
}

/* Goal: a peer that stops reading (a stopped process, whose kernel still answers) is given up after
 * the stall time instead of being fed stale messages later. Method: a raw socket plays a peer that
 * shakes hands and then never reads. */
static void test_stall(void **state) {
    struct side a = {0};
    struct peer_net_options o = options(&a, 1, CLUSTER_A);
    struct peer_frame_hello h = {.from = 2, .to = 1, .protocol_min = 1, .protocol_max = 1};
    uint8_t frame[PEER_FRAME_HEADER_BYTES + PEER_FRAME_HELLO_BYTES_MAX];
    struct sockaddr_in sa = {.sin_family = AF_INET};
    socklen_t sa_len = sizeof(sa);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), peer;
    uv_loop_t loop;
    char address[32];
    size_t len;

    (void) state;
    sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(bind(fd, (const struct sockaddr *) &sa, sizeof(sa)), 0);
    assert_int_equal(listen(fd, 1), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *) &sa, &sa_len), 0);
    (void) snprintf(address, sizeof(address), "127.0.0.1:%u", ntohs(sa.sin_port));
    o.stall_ms = 100;
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(peer_net_new(&loop, &o, &a.net, NULL), 0);
    assert_int_equal(peer_net_set_peer(a.net, 2, address, NULL), 0);
    (void) uv_run(&loop, UV_RUN_NOWAIT);
    peer = accept(fd, NULL, NULL);
    assert_true(peer >= 0);
    memcpy(h.cluster_id, CLUSTER_A, sizeof(h.cluster_id));
    len = peer_frame_encode_hello(frame + PEER_FRAME_HEADER_BYTES, &h);
    peer_frame_encode_header(frame, PEER_FRAME_WELCOME,
                             slice_of(frame + PEER_FRAME_HEADER_BYTES, len));
    len += PEER_FRAME_HEADER_BYTES;
    assert_int_equal(send(peer, frame, len, MSG_NOSIGNAL), len);
    os_test_run_until(&loop, is_up, &a);
    for (uint64_t i = 1; i <= 20; i++)
        peer_net_send(a.net, 2, message(i, (size_t) 1 << 20));
    os_test_run_until(&loop, is_down, &a);
    assert_non_null(strstr(a.last_log, "reads nothing"));
    stop(&loop, &a);
    os_test_loop_done(&loop);
    assert_int_equal(close(peer), 0);
    assert_int_equal(close(fd), 0);
}

/* Goal: a bounded queue drops and counts; sending to nobody drops; removing the sender from inside
 * its own message is safe. Method: limits small enough to reach before the loop runs. */
static void test_bounds(void **state) {
    struct side a = {0}, b = {.remove_sender = true};
    struct peer_net_options o = options(&a, 1, CLUSTER_A);
    struct peer_net_status st;
    uv_loop_t loop;

    (void) state;
    o.queue_bytes_max = 10 * (100 + PEER_FRAME_HEADER_BYTES);
    o.message_bytes_max = 500;
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(peer_net_new(&loop, &o, &a.net, NULL), 0);
    start(&loop, &b, 2, CLUSTER_A);
    join(&a, 2, &b);
    peer_net_send(a.net, 2, message(1, 100)); /* not up yet */
    peer_net_send(a.net, 77, message(1, 100));
    os_test_run_until(&loop, is_up, &a);
    peer_net_send(a.net, 2, message(1, 501));
    for (uint64_t i = 2; i < 17; i++)
        peer_net_send(a.net, 2, message(i, 100));
    assert_int_equal(peer_net_status(a.net, 2, &st), 0);
    assert_int_equal(st.dropped, 1 + 1 + 5);
    assert_int_equal(st.queued_bytes, o.queue_bytes_max);
    os_test_run_until(&loop, has_received, &b);
    assert_int_equal(b.received, 1); /* the rest went with the connection */
    os_test_run_until(&loop, is_down, &a);
    stop(&loop, &a);
    stop(&loop, &b);
    os_test_loop_done(&loop);
}

/* Goal: a taken or impossible address is a clear error, and nothing is left behind. */
static void test_listen_errors(void **state) {
    struct side a = {0}, b = {0};
    struct peer_net_options o;
    struct errtext err = {0};
    char address[32];
    uv_loop_t loop;

    (void) state;
    assert_int_equal(uv_loop_init(&loop), 0);
    start(&loop, &a, 1, CLUSTER_A);
    (void) snprintf(address, sizeof(address), "127.0.0.1:%u", peer_net_port(a.net));
    o = options(&b, 2, CLUSTER_A);
    o.listen_address = address;
    assert_int_equal(peer_net_new(&loop, &o, &b.net, &err), -EADDRINUSE);
    assert_non_null(strstr(err.s, address));
    assert_non_null(strstr(err.s, "in use"));
    o.listen_address = "7402";
    assert_int_equal(peer_net_new(&loop, &o, &b.net, &err), ERR_CONFIG);
    assert_int_equal(peer_net_set_peer(a.net, 1, "127.0.0.1:1", NULL), ERR_CONFIG);
    assert_int_equal(peer_net_set_peer(a.net, 2, "nonsense", NULL), ERR_CONFIG);
    stop(&loop, &a);
    os_test_loop_done(&loop);
}

/* Goal: a peer given by name works, and a changed address is followed. Method: first a dead port,
 * then localhost by name. */
static void test_names(void **state) {
    struct side a = {0}, b = {0};
    char address[32];
    uv_loop_t loop;

    (void) state;
    assert_int_equal(uv_loop_init(&loop), 0);
    start(&loop, &a, 1, CLUSTER_A);
    start(&loop, &b, 2, CLUSTER_A);
    assert_int_equal(peer_net_set_peer(a.net, 2, "127.0.0.1:1", NULL), 0);
    for (int i = 0; i < 5; i++)
        (void) uv_run(&loop, UV_RUN_NOWAIT);
    (void) snprintf(address, sizeof(address), "localhost:%u", peer_net_port(b.net));
    assert_int_equal(peer_net_set_peer(a.net, 2, address, NULL), 0);
    os_test_run_until(&loop, is_up, &a);
    assert_int_equal(peer_net_set_peer(a.net, 3, "localhost:1", NULL), 0);
    (void) uv_run(&loop, UV_RUN_NOWAIT);
    stop(&loop, &a); /* while a name may be on its way */
    stop(&loop, &b);
    os_test_loop_done(&loop);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exchange), cmocka_unit_test(test_reconnect),
        cmocka_unit_test(test_refused),  cmocka_unit_test(test_garbage),
        cmocka_unit_test(test_silent),   cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_names),    cmocka_unit_test(test_listen_errors),
        cmocka_unit_test(test_stall),
    };

    return cmocka_run_group_tests_name("peer_net", tests, NULL, NULL);
}
