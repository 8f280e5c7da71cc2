#include "fsm/idem.h"

#include "base/codec.h"
#include "fsm/record.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK_BYTES 8192UL
#define ENTRY_HEAD_BYTES 17UL /* time, sequence number, key length */
STATIC_ASSERT(RECORD_NAME_BYTES_MAX <= UINT8_MAX, "the key's length is one byte");
STATIC_ASSERT(CHUNK_BYTES >= ENTRY_HEAD_BYTES + RECORD_NAME_BYTES_MAX, "any entry fits a chunk");

struct idem_chunk {
    struct idem_chunk *next;
    size_t head, tail; /* bytes popped, bytes pushed */
    uint8_t data[CHUNK_BYTES];
};

void idem_done(struct idem *q) {
    ASSERT(q);
    while (q->first) {
        struct idem_chunk *c = q->first;

        q->first = c->next;
        free(c);
    }
    q->last = NULL;
}

int idem_push(struct idem *q, int64_t created_at_ms, uint64_t job_seq, struct slice key) {
    struct idem_chunk *c = q->last;
    size_t bytes = ENTRY_HEAD_BYTES + key.len;
    uint8_t *p;

    ASSERT(key.len > 0);
    ASSERT(key.len <= RECORD_NAME_BYTES_MAX);
    if (!c || CHUNK_BYTES - c->tail < bytes) {
        c = malloc(sizeof(*c));
        if (!c)
            return -ENOMEM;
        c->next = NULL;
        c->head = c->tail = 0;
        if (q->last)
            q->last->next = c;
        else
            q->first = c;
        q->last = c;
    }
    p = c->data + c->tail;
    put_le64(p, (uint64_t) created_at_ms);
    put_le64(p + 8, job_seq);
    p[16] = (uint8_t) key.len;
    memcpy(p + ENTRY_HEAD_BYTES, key.data, key.len);
    c->tail += bytes;
    return 0;
}

bool idem_peek(const struct idem *q, struct idem_front *ret) {
    const struct idem_chunk *c = q->first;
    const uint8_t *p;

    ASSERT(ret);
    if (!c || c->head == c->tail)
        return false;
    ASSERT(c->tail - c->head > ENTRY_HEAD_BYTES);
    p = c->data + c->head;
    *ret = (struct idem_front){
        .created_at_ms = (int64_t) get_le64(p),
        .job_seq = get_le64(p + 8),
        .key = slice_of(p + ENTRY_HEAD_BYTES, p[16]),
    };
    return true;
}

void idem_pop(struct idem *q) {
    struct idem_chunk *c = q->first;

    ASSERT(c);
    ASSERT(c->head < c->tail);
    c->head += ENTRY_HEAD_BYTES + c->data[c->head + 16];
    if (c->head < c->tail)
        return;
    if (c->next) {
        q->first = c->next;
        free(c);
    } else {
        c->head = c->tail = 0; /* the last chunk stays for the next push */
    }
}
