#include "os_test.h"

#include "base/codec.h"
#include "base/crc32c.h"
#include "base/rand.h"
#include "os/peer_addr.h"
#include "base/peer_frame.h"

static size_t make(uint8_t *out, enum peer_frame_type type, const void *data, size_t len) {
    peer_frame_encode_header(out, type, slice_of(data, len));
    if (len > 0)
        memcpy(out + PEER_FRAME_HEADER_BYTES, data, len);
    return PEER_FRAME_HEADER_BYTES + len;
}

/* Goal: a frame comes back as it went in, and every proper prefix asks for more, never past the
 * frame. Method: several lengths, each cut at every byte. */
static void test_round_trip(void **state) {
    uint8_t frame[400], data[300];

    (void) state;
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t) (i * 7);
    for (size_t len = 0; len <= sizeof(data); len += 25) {
        size_t total = make(frame, PEER_FRAME_MESSAGE, data, len);
        struct peer_frame f;
        size_t bytes = 0;

        for (size_t cut = 0; cut < total; cut++) {
            assert_int_equal(peer_frame_decode(slice_of(frame, cut), 1000, &f, &bytes, NULL),
                             PEER_FRAME_MORE);
            assert_true(bytes > cut && bytes <= total);
        }
        assert_int_equal(peer_frame_decode(slice_of(frame, total), 1000, &f, &bytes, NULL), 0);
        assert_int_equal(bytes, total);
        assert_int_equal(f.type, PEER_FRAME_MESSAGE);
        assert_int_equal(f.payload.len, len);
        assert_memory_equal(f.payload.data, data, len);
    }
}

/* Goal: the layout is the documented one. Method: the bytes of one frame, by hand. */
static void test_layout(void **state) {
    uint8_t frame[32];

    (void) state;
    assert_int_equal(make(frame, PEER_FRAME_REJECT, "abc", 3), 23);
    assert_memory_equal(frame, "CHRP\x01\x03\0\0\x03\0\0\0", 12);
    assert_int_equal(get_le32(frame + 12), crc32c("abc", 3));
    assert_int_equal(get_le32(frame + 16), crc32c(frame, 16));
}

/* Goal: no damaged frame is accepted. Method: flip each single bit of a frame. */
static void test_bit_flips(void **state) {
    uint8_t frame[64];
    size_t total = make(frame, PEER_FRAME_MESSAGE, "0123456789", 10);

    (void) state;
    for (size_t bit = 0; bit < total * 8; bit++) {
        struct peer_frame f;
        struct errtext err = {0};
        size_t bytes = 0;
        int r;

        frame[bit / 8] ^= (uint8_t) (1U << (bit % 8));
        r = peer_frame_decode(slice_of(frame, total), 1000, &f, &bytes, &err);
        assert_int_equal(r, ERR_PROTO);
        assert_true(err.s[0] != '\0');
        frame[bit / 8] ^= (uint8_t) (1U << (bit % 8));
    }
}

/* Goal: intact headers with refused values. Method: rewrite a field and its checksum. */
static void test_refusals(void **state) {
    uint8_t frame[64];
    struct peer_frame f;
    size_t bytes = 0, total = make(frame, PEER_FRAME_MESSAGE, "0123456789", 10);

    (void) state;
    assert_int_equal(peer_frame_decode(slice_of(frame, total), 9, &f, &bytes, NULL), ERR_PROTO);
    frame[5] = 9;
    put_le32(frame + 16, crc32c(frame, 16));
    assert_int_equal(peer_frame_decode(slice_of(frame, total), 99, &f, &bytes, NULL), ERR_PROTO);
    frame[4] = 2;
    put_le32(frame + 16, crc32c(frame, 16));
    assert_int_equal(peer_frame_decode(slice_of(frame, total), 99, &f, &bytes, NULL), ERR_VERSION);
}

/* Goal: the handshake round-trips, tolerates a longer payload, and takes one that ends before a
 * later field for an older sender's; one that ends inside a field is refused. Method: cut at every
 * byte. */
static void test_hello(void **state) {
    struct peer_frame_hello h = {.cluster_id = "fifteen bytes..",
                                 .from = 7,
                                 .to = 9,
                                 .protocol_min = 1,
                                 .protocol_max = 3,
                                 .software = "1.2.3\n\"x\"",
                                 .purpose = PEER_FRAME_BULK,
                                 .disk = "disk of a node.",
                                 .peer_address = "10.0.0.7:7402",
                                 .client_address = "node\x1b:7401"};
    struct peer_frame_hello got;
    uint8_t out[PEER_FRAME_HELLO_BYTES_MAX + 8] = {0};
    size_t len = peer_frame_encode_hello(out, &h);
    /* Where the payload of an older program may end: after the software text, and each field. */
    const size_t software = 37 + 9, purpose = software + 1, disk = purpose + 16,
                 peer = disk + 1 + 13;

    (void) state;
    assert_int_equal(len, peer + 1 + 10);
    assert_int_equal(peer_frame_decode_hello(slice_of(out, len + 8), &got, NULL), 0);
    assert_memory_equal(got.cluster_id, h.cluster_id, 16);
    assert_int_equal(got.from, 7);
    assert_int_equal(got.to, 9);
    assert_int_equal(got.protocol_min, 1);
    assert_int_equal(got.protocol_max, 3);
    assert_string_equal(got.software, "1.2.3??x?");
    assert_int_equal(got.purpose, PEER_FRAME_BULK);
    assert_memory_equal(got.disk, h.disk, 16);
    assert_string_equal(got.peer_address, "10.0.0.7:7402");
    assert_string_equal(got.client_address, "node?:7401");
    for (size_t cut = 0; cut < len; cut++) {
        bool end = cut == software || cut == purpose || cut == disk || cut == peer;

        memset(&got, 0x55, sizeof(got));
        assert_int_equal(peer_frame_decode_hello(slice_of(out, cut), &got, NULL),
                         end ? 0 : ERR_PROTO);
        if (!end)
            continue;
        assert_int_equal(got.purpose, cut >= purpose ? PEER_FRAME_BULK : PEER_FRAME_MESSAGES);
        assert_int_equal(got.disk[0], cut >= disk ? 'd' : 0);
        assert_string_equal(got.peer_address, cut >= peer ? "10.0.0.7:7402" : "");
        assert_string_equal(got.client_address, "");
    }
    memset(h.software, 'v', sizeof(h.software));
    memset(h.peer_address, 'p', sizeof(h.peer_address));
    memset(h.client_address, 'c', sizeof(h.client_address));
    len = peer_frame_encode_hello(out, &h);
    assert_int_equal(len, PEER_FRAME_HELLO_BYTES_MAX);
    assert_int_equal(peer_frame_decode_hello(slice_of(out, len), &got, NULL), 0);
    assert_int_equal(strlen(got.client_address), PEER_FRAME_ADDRESS_BYTES_MAX);
    h.from = 0;
    len = peer_frame_encode_hello(out, &h);
    assert_int_equal(peer_frame_decode_hello(slice_of(out, len), &got, NULL), ERR_PROTO);
}

/* Goal: a refusal keeps its code and reason; one without a code can be retried; nothing unprintable
 * comes out. */
static void test_reject(void **state) {
    uint8_t out[PEER_FRAME_REJECT_BYTES_MAX];
    char reason[PEER_FRAME_REASON_BYTES_MAX + 1], large[PEER_FRAME_REASON_BYTES_MAX + 100];
    size_t len = peer_frame_encode_reject(out, PEER_FRAME_FINAL, "removed");

    (void) state;
    assert_int_equal(len, 8);
    assert_int_equal(out[0], 2);
    assert_int_equal(peer_frame_decode_reject(slice_of(out, len), reason), PEER_FRAME_FINAL);
    assert_string_equal(reason, "removed");
    len = peer_frame_encode_reject(out, PEER_FRAME_RETRY, "a\nb");
    assert_int_equal(peer_frame_decode_reject(slice_of(out, len), reason), PEER_FRAME_RETRY);
    assert_string_equal(reason, "a?b");
    assert_int_equal(peer_frame_decode_reject(slice_of("\x09text", 5), reason), PEER_FRAME_RETRY);
    assert_string_equal(reason, "?text");
    assert_int_equal(peer_frame_decode_reject(slice_of("", 0), reason), PEER_FRAME_RETRY);
    assert_string_equal(reason, "");
    memset(large, 'x', sizeof(large));
    large[sizeof(large) - 1] = '\0';
    len = peer_frame_encode_reject(out, PEER_FRAME_RETRY, large);
    assert_int_equal(len, PEER_FRAME_REJECT_BYTES_MAX);
    (void) peer_frame_decode_reject(slice_of(out, len), reason);
    assert_int_equal(strlen(reason), PEER_FRAME_REASON_BYTES_MAX);
}

/* Goal: host:port texts, good and bad. */
static void test_addr(void **state) {
    static const char *const bad[] = {"",     ":1",      "host",   "host:",   "h:65536",
                                      "h:1x", "::1:740", "[]:740", "h h:740", "h:99999999999999"};
    struct peer_addr a;
    struct errtext err = {0};

    (void) state;
    assert_int_equal(peer_addr_parse("127.0.0.1:7402", &a, NULL), 0);
    assert_string_equal(a.host, "127.0.0.1");
    assert_int_equal(a.port, 7402);
    assert_int_equal(peer_addr_parse("[::1]:0", &a, NULL), 0);
    assert_string_equal(a.host, "::1");
    assert_int_equal(a.port, 0);
    assert_int_equal(peer_addr_parse("node-2.example:65535", &a, NULL), 0);
    assert_int_equal(a.port, 65535);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        assert_int_equal(peer_addr_parse(bad[i], &a, &err), ERR_CONFIG);
        assert_non_null(strstr(err.s, bad[i]));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip), cmocka_unit_test(test_layout),
        cmocka_unit_test(test_bit_flips),  cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_hello),      cmocka_unit_test(test_addr),
        cmocka_unit_test(test_reject),
    };

    return cmocka_run_group_tests_name("peer_frame", tests, NULL, NULL);
}
