/* The order in which idempotency keys expire.
 *
 * The keys themselves are records ("k" + key); this is a packed first-in first-out queue of (time,
 * job, key), rebuilt from the records by fsm_open. An entry whose record was replaced meanwhile
 * (the key expired and was used again) is stale and is dropped without effect, so that a queue that
 * was rebuilt and one that was not lead to the same records.
 * Memory: 17 bytes and the key for each key remembered.
 * Thread: the loop. */
#pragma once

#include "base/bytes.h"

struct idem_chunk;

struct idem {
    struct idem_chunk *first, *last; /* owned */
};

struct idem_front {
    int64_t created_at_ms;
    uint64_t job_seq;
    struct slice key; /* borrowed until idem_pop or idem_push */
};

static inline void idem_init(struct idem *q) {
    *q = (struct idem){0};
}
void idem_done(struct idem *q);
/* Times must not decrease from push to push. 0 or -ENOMEM. */
int idem_push(struct idem *q, int64_t created_at_ms, uint64_t job_seq,
              struct slice key) _must_check_;
/* False when empty. */
bool idem_peek(const struct idem *q, struct idem_front *ret);
void idem_pop(struct idem *q);
