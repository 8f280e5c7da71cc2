/* Any bytes through the frame and handshake decoders: no read outside the input, no result that
 * contradicts itself, and what is accepted encodes back to the same bytes. */
#include "fuzz.h"

#include "base/peer_frame.h"

#include <stdlib.h>
#include <string.h>

static void check_hello(struct slice payload) {
    uint8_t again[PEER_FRAME_HELLO_BYTES_MAX];
    struct peer_frame_hello h, h2;

    if (peer_frame_decode_hello(payload, &h, NULL) < 0)
        return;
    ASSERT(h.from != 0);
    ASSERT(peer_frame_decode_hello(slice_of(again, peer_frame_encode_hello(again, &h)), &h2,
                                   NULL) == 0);
    ASSERT(h2.from == h.from && h2.to == h.to && strcmp(h.software, h2.software) == 0);
    ASSERT(h2.purpose == h.purpose && memcmp(h2.disk, h.disk, sizeof(h.disk)) == 0);
    ASSERT(strcmp(h2.peer_address, h.peer_address) == 0);
    ASSERT(strcmp(h2.client_address, h.client_address) == 0);
}

static void check_reject(struct slice payload) {
    char reason[PEER_FRAME_REASON_BYTES_MAX + 1], reason2[PEER_FRAME_REASON_BYTES_MAX + 1];
    uint8_t again[PEER_FRAME_REJECT_BYTES_MAX];
    enum peer_frame_reject code = peer_frame_decode_reject(payload, reason);
    size_t len = peer_frame_encode_reject(again, code, reason);

    ASSERT(strlen(reason) <= payload.len);
    ASSERT(peer_frame_decode_reject(slice_of(again, len), reason2) == code);
    ASSERT(strcmp(reason, reason2) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct slice in = slice_of(data, size);
    struct errtext err = {0};

    check_hello(in);
    check_reject(in);
    while (in.len > 0) {
        uint8_t header[PEER_FRAME_HEADER_BYTES];
        struct peer_frame f;
        size_t bytes = 0;
        int r = peer_frame_decode(in, 1 << 16, &f, &bytes, &err);

        if (r == PEER_FRAME_MORE)
            ASSERT(bytes > in.len && bytes <= PEER_FRAME_HEADER_BYTES + (1 << 16));
        if (r != 0)
            break;
        ASSERT(bytes <= in.len && f.payload.len + PEER_FRAME_HEADER_BYTES == bytes);
        peer_frame_encode_header(header, f.type, f.payload);
        ASSERT(memcmp(header, in.data, sizeof(header)) == 0);
        check_hello(f.payload);
        in = slice_of(in.data + bytes, in.len - bytes);
    }
    return 0;
}
