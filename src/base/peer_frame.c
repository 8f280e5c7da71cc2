/* peer_frame: bytes in, frames out. Every length is checked before it is used; input is borrowed.
 */
#include "base/peer_frame.h"

#include "base/codec.h"
#include "base/crc32c.h"

#include <string.h>

#define MAGIC "CHRP"
#define HEADER_CRC_OFFSET 16U
#define HELLO_FIXED_BYTES (PEER_FRAME_CLUSTER_ID_BYTES + 8U + 8U + 2U + 2U + 1U)

STATIC_ASSERT(HEADER_CRC_OFFSET + 4 == PEER_FRAME_HEADER_BYTES, "the header CRC is its last field");
STATIC_ASSERT(PEER_FRAME_HELLO_BYTES_MAX <= PEER_FRAME_HANDSHAKE_BYTES_MAX, "a hello fits");
STATIC_ASSERT(PEER_FRAME_REJECT_BYTES_MAX <= PEER_FRAME_HANDSHAKE_BYTES_MAX, "a reason fits");

void peer_frame_encode_header(uint8_t out[PEER_FRAME_HEADER_BYTES], enum peer_frame_type type,
                              struct slice payload) {
    ASSERT(payload.len <= UINT32_MAX);
    memcpy(out, MAGIC, 4);
    out[4] = PEER_FRAME_VERSION;
    out[5] = (uint8_t) type;
    put_le16(out + 6, 0);
    put_le32(out + 8, (uint32_t) payload.len);
    put_le32(out + 12, crc32c(payload.data, payload.len));
    put_le32(out + HEADER_CRC_OFFSET, crc32c(out, HEADER_CRC_OFFSET));
}

static int check_header(const uint8_t *p, uint32_t payload_bytes_max, struct errtext *reterr) {
    uint32_t len = get_le32(p + 8);

    if (get_le32(p + HEADER_CRC_OFFSET) != crc32c(p, HEADER_CRC_OFFSET)) {
        errtext_set(reterr, "header checksum at offset %u does not match", HEADER_CRC_OFFSET);
        return ERR_PROTO;
    }
    if (p[4] > PEER_FRAME_VERSION) {
        errtext_set(reterr, "frame version %u is newer than %u", p[4], PEER_FRAME_VERSION);
        return ERR_VERSION;
    }
    if (p[4] == 0 || get_le16(p + 6) != 0) {
        errtext_set(reterr, "bad version or reserved field at offset %u", p[4] == 0 ? 4U : 6U);
        return ERR_PROTO;
    }
    if (p[5] < PEER_FRAME_HELLO || p[5] > PEER_FRAME_MESSAGE) {
        errtext_set(reterr, "unknown frame type %u at offset 5", p[5]);
        return ERR_PROTO;
    }
    if (len > payload_bytes_max) {
        errtext_set(reterr, "payload of %u bytes at offset 8, limit %u", len, payload_bytes_max);
        return ERR_PROTO;
    }
    return 0;
}

int peer_frame_decode(struct slice in, uint32_t payload_bytes_max, struct peer_frame *ret_frame,
                      size_t *ret_bytes, struct errtext *reterr) {
    size_t magic_len = MIN(in.len, (size_t) 4);
    size_t total;
    int r;

    ASSERT(ret_frame);
    ASSERT(ret_bytes);
    /* Wrong magic is refused at its first byte: a stranger need not send 20 of them. */
    if (magic_len > 0 && memcmp(in.data, MAGIC, magic_len) != 0) {
        errtext_set(reterr, "bad magic at offset 0");
        return ERR_PROTO;
    }
    if (in.len < PEER_FRAME_HEADER_BYTES) {
        *ret_bytes = PEER_FRAME_HEADER_BYTES;
        return PEER_FRAME_MORE;
    }
    r = check_header(in.data, payload_bytes_max, reterr);
    if (r < 0)
        return r;
    total = PEER_FRAME_HEADER_BYTES + (size_t) get_le32(in.data + 8);
    *ret_bytes = total;
    if (in.len < total)
        return PEER_FRAME_MORE;
    ret_frame->type = (enum peer_frame_type) in.data[5];
    ret_frame->payload =
        slice_of(in.data + PEER_FRAME_HEADER_BYTES, total - PEER_FRAME_HEADER_BYTES);
    if (crc32c(ret_frame->payload.data, ret_frame->payload.len) != get_le32(in.data + 12)) {
        errtext_set(reterr, "payload checksum at offset 12 does not match");
        return ERR_PROTO;
    }
    return 0;
}

/* A text of at most 255 bytes behind its length. */
static uint8_t *put_text(uint8_t *p, const char *text, size_t max) {
    size_t len = strnlen(text, max);

    STATIC_ASSERT(PEER_FRAME_ADDRESS_BYTES_MAX <= UINT8_MAX, "one byte of length");
    p[0] = (uint8_t) len;
    memcpy(p + 1, text, len);
    return p + 1 + len;
}

size_t peer_frame_encode_hello(uint8_t out[PEER_FRAME_HELLO_BYTES_MAX],
                               const struct peer_frame_hello *h) {
    uint8_t *p = out;

    memcpy(p, h->cluster_id, PEER_FRAME_CLUSTER_ID_BYTES);
    p += PEER_FRAME_CLUSTER_ID_BYTES;
    put_le64(p, h->from);
    put_le64(p + 8, h->to);
    put_le16(p + 16, h->protocol_min);
    put_le16(p + 18, h->protocol_max);
    p = put_text(p + 20, h->software, PEER_FRAME_SOFTWARE_BYTES_MAX);
    *p++ = h->purpose;
    memcpy(p, h->disk, PEER_FRAME_DISK_BYTES);
    p = put_text(p + PEER_FRAME_DISK_BYTES, h->peer_address, PEER_FRAME_ADDRESS_BYTES_MAX);
    p = put_text(p, h->client_address, PEER_FRAME_ADDRESS_BYTES_MAX);
    return (size_t) (p - out);
}

/* The fields that came later, each of which an older sender leaves out with all that follows. */
struct rest {
    struct slice in; /* the whole payload */
    size_t at;
    bool broken; /* a field is there, but not all of it */
};

/* NULL when the field is absent. */
static const uint8_t *take(struct rest *r, size_t len) {
    const uint8_t *p = r->in.data + r->at;

    if (r->broken || r->at == r->in.len)
        return NULL;
    r->broken = r->in.len - r->at < len;
    if (r->broken)
        return NULL;
    r->at += len;
    return p;
}

static void take_text(struct rest *r, char out[PEER_FRAME_ADDRESS_BYTES_MAX + 1]) {
    const uint8_t *len = take(r, 1), *text;

    out[0] = '\0';
    if (!len || *len == 0)
        return;
    text = take(r, *len);
    r->broken = text == NULL;
    if (text)
        peer_frame_copy_text(out, PEER_FRAME_ADDRESS_BYTES_MAX + 1, slice_of(text, *len));
}

static int decode_rest(struct slice in, size_t at, struct peer_frame_hello *ret,
                       struct errtext *reterr) {
    struct rest r = {.in = in, .at = at};
    const uint8_t *p = take(&r, 1);

    ret->purpose = p ? *p : PEER_FRAME_MESSAGES;
    p = take(&r, PEER_FRAME_DISK_BYTES);
    memset(ret->disk, 0, sizeof(ret->disk));
    if (p)
        memcpy(ret->disk, p, sizeof(ret->disk));
    take_text(&r, ret->peer_address);
    take_text(&r, ret->client_address);
    if (!r.broken)
        return 0;
    errtext_set(reterr, "handshake ends inside the field at offset %zu", r.at);
    return ERR_PROTO;
}

int peer_frame_decode_hello(struct slice in, struct peer_frame_hello *ret, struct errtext *reterr) {
    const uint8_t *p = in.data;
    size_t len;

    ASSERT(ret);
    if (in.len < HELLO_FIXED_BYTES) {
        errtext_set(reterr, "handshake of %zu bytes, at least %u needed", in.len,
                    HELLO_FIXED_BYTES);
        return ERR_PROTO;
    }
    len = p[HELLO_FIXED_BYTES - 1];
    if (len > PEER_FRAME_SOFTWARE_BYTES_MAX || len > in.len - HELLO_FIXED_BYTES) {
        errtext_set(reterr, "software text of %zu bytes at offset %u does not fit", len,
                    HELLO_FIXED_BYTES - 1);
        return ERR_PROTO;
    }
    memcpy(ret->cluster_id, p, PEER_FRAME_CLUSTER_ID_BYTES);
    p += PEER_FRAME_CLUSTER_ID_BYTES;
    ret->from = get_le64(p);
    ret->to = get_le64(p + 8);
    ret->protocol_min = get_le16(p + 16);
    ret->protocol_max = get_le16(p + 18);
    peer_frame_copy_text(ret->software, sizeof(ret->software), slice_of(p + 21, len));
    if (ret->from == 0 || ret->protocol_min == 0 || ret->protocol_min > ret->protocol_max) {
        errtext_set(reterr, "handshake with node id 0 or an empty protocol range at offset 16");
        return ERR_PROTO;
    }
    return decode_rest(in, HELLO_FIXED_BYTES + len, ret, reterr);
}

size_t peer_frame_encode_reject(uint8_t out[PEER_FRAME_REJECT_BYTES_MAX],
                                enum peer_frame_reject code, const char *reason) {
    size_t len = strnlen(reason, PEER_FRAME_REASON_BYTES_MAX);

    out[0] = (uint8_t) code;
    memcpy(out + 1, reason, len);
    return 1 + len;
}

enum peer_frame_reject peer_frame_decode_reject(struct slice in,
                                                char ret_reason[PEER_FRAME_REASON_BYTES_MAX + 1]) {
    bool coded = in.len > 0 && (in.data[0] == PEER_FRAME_RETRY || in.data[0] == PEER_FRAME_FINAL);
    enum peer_frame_reject code = PEER_FRAME_RETRY;

    if (coded) {
        code = (enum peer_frame_reject) in.data[0];
        in = slice_of(in.data + 1, in.len - 1);
    }
    peer_frame_copy_text(ret_reason, PEER_FRAME_REASON_BYTES_MAX + 1, in);
    return code;
}

void peer_frame_copy_text(char *out, size_t cap, struct slice in) {
    size_t n;

    ASSERT(cap > 0);
    n = MIN(in.len, cap - 1);
    for (size_t i = 0; i < n; i++) {
        uint8_t c = in.data[i];

        out[i] = '?';
        if (c >= 0x20 && c < 0x7f && c != '"' && c != '\\')
            out[i] = (char) c;
    }
    out[n] = '\0';
}
