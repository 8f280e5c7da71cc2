/* The frames that nodes exchange: a pure codec over byte ranges.
 *
 * Frame, little-endian:
 *
 *   offset  bytes  field
 *        0      4  magic "CHRP"
 *        4      1  header version, 1; these 20 bytes keep their place in every version
 *        5      1  type (enum peer_frame_type)
 *        6      2  reserved, 0
 *        8      4  payload length
 *       12      4  CRC32C of the payload
 *       16      4  CRC32C of bytes 0..15
 *       20      n  payload
 *
 * The header has a checksum of its own so that a damaged length is never believed.
 * HELLO and WELCOME payloads may grow at their end: decoders ignore what follows the known fields,
 * and take a payload that ends early for one of an older program.
 * Thread: any; no state. */
#pragma once

#include "base/bytes.h"
#include "base/err.h"

#define PEER_FRAME_HEADER_BYTES 20U
#define PEER_FRAME_VERSION 1U
#define PEER_FRAME_CLUSTER_ID_BYTES 16U
#define PEER_FRAME_SOFTWARE_BYTES_MAX 64U
#define PEER_FRAME_DISK_BYTES 16U
#define PEER_FRAME_ADDRESS_BYTES_MAX 255U
#define PEER_FRAME_REASON_BYTES_MAX 400U
/* Before the handshake nothing larger is read. */
#define PEER_FRAME_HANDSHAKE_BYTES_MAX 1024U

enum peer_frame_type {
    PEER_FRAME_HELLO = 1,   /* first frame of the side that connected */
    PEER_FRAME_WELCOME = 2, /* the answer: messages may follow */
    PEER_FRAME_REJECT = 3,  /* the answer: a code and a reason text; then closed */
    PEER_FRAME_MESSAGE = 4, /* opaque to this layer */
};

/* What a connection is for; said in HELLO, repeated in WELCOME. */
enum peer_frame_purpose {
    PEER_FRAME_MESSAGES = 0,
    PEER_FRAME_BULK = 1,
};

/* First byte of a REJECT. */
enum peer_frame_reject {
    PEER_FRAME_RETRY = 1, /* come again, something may have changed */
    PEER_FRAME_FINAL = 2, /* not before an operator did something */
};

enum { PEER_FRAME_MORE = 1 };

struct peer_frame {
    enum peer_frame_type type;
    struct slice payload; /* borrowed from the input */
};

/* Write the header of a frame with @payload into @out. @payload is at most UINT32_MAX bytes. */
void peer_frame_encode_header(uint8_t out[PEER_FRAME_HEADER_BYTES], enum peer_frame_type type,
                              struct slice payload);

/* Take one frame from the front of @in.
 *
 * @payload_bytes_max larger frames are refused before anything is allocated for them
 * @ret_frame         on 0
 * @ret_bytes         on 0: bytes used; on PEER_FRAME_MORE: bytes the frame needs in all, as far as
 *                    known now (more than in.len)
 *
 * Returns 0; PEER_FRAME_MORE (read more, call again); ERR_PROTO (close the connection);
 * ERR_VERSION (the peer's header is newer than this program: close). */
int peer_frame_decode(struct slice in, uint32_t payload_bytes_max, struct peer_frame *ret_frame,
                      size_t *ret_bytes, struct errtext *reterr) _must_check_;

/* Who is speaking, and to whom it believes it speaks. The payload of HELLO and WELCOME. */
struct peer_frame_hello {
    uint8_t cluster_id[PEER_FRAME_CLUSTER_ID_BYTES];
    uint64_t from;         /* node id of the sender */
    uint64_t to;           /* node id the sender expects at the other end */
    uint16_t protocol_min; /* oldest and newest message protocol the sender speaks; in WELCOME */
    uint16_t protocol_max; /* both are the one chosen */
    char software[PEER_FRAME_SOFTWARE_BYTES_MAX + 1]; /* version text for people, NUL-terminated */
    uint8_t purpose;                     /* enum peer_frame_purpose; others are refused above */
    uint8_t disk[PEER_FRAME_DISK_BYTES]; /* of the sender's data directory; zero = none */
    char peer_address[PEER_FRAME_ADDRESS_BYTES_MAX + 1]; /* of the sender; "" = not said */
    char client_address[PEER_FRAME_ADDRESS_BYTES_MAX + 1];
};

#define PEER_FRAME_HELLO_BYTES_MAX                                                                 \
    (PEER_FRAME_CLUSTER_ID_BYTES + 8U + 8U + 2U + 2U + 1U + PEER_FRAME_SOFTWARE_BYTES_MAX + 1U +   \
     PEER_FRAME_DISK_BYTES + 2U * (1U + PEER_FRAME_ADDRESS_BYTES_MAX))
#define PEER_FRAME_REJECT_BYTES_MAX (1U + PEER_FRAME_REASON_BYTES_MAX)

/* Returns the number of bytes written. */
size_t peer_frame_encode_hello(uint8_t out[PEER_FRAME_HELLO_BYTES_MAX],
                               const struct peer_frame_hello *h);
/* 0, or ERR_PROTO with the offset in @reterr. Unprintable bytes of the texts become '?'. A payload
 * may end before any field after the software text: that field and what follows it are empty. */
int peer_frame_decode_hello(struct slice in, struct peer_frame_hello *ret,
                            struct errtext *reterr) _must_check_;

/* Returns the number of bytes written; a longer reason is cut. */
size_t peer_frame_encode_reject(uint8_t out[PEER_FRAME_REJECT_BYTES_MAX],
                                enum peer_frame_reject code, const char *reason);
/* Never fails: a payload without a code byte is a reason of the kind PEER_FRAME_RETRY. */
enum peer_frame_reject peer_frame_decode_reject(struct slice in,
                                                char ret_reason[PEER_FRAME_REASON_BYTES_MAX + 1]);

/* Copy a text from the wire into @out (at least @cap bytes, NUL-terminated, cut when longer), with
 * everything outside printable ASCII replaced by '?': it goes into logs and onto terminals. */
void peer_frame_copy_text(char *out, size_t cap, struct slice in);
