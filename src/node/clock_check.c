/* Clocks compared: logical time is the leader's, so a node whose clock is off would, once it leads,
 * stamp what it appends with it. Nothing depends on it but what people read and drain timeouts;
 * therefore an alarm, no refusal. Offsets are as of the last facts, about a second old, and wrong
 * by the way they took. Thread: the loop. */
#include "node/replica_internal.h"

#include <stdlib.h>

#define CLOCK_OFF_MS_MAX 1000

static int compare(const void *a, const void *b) {
    int64_t x = *(const int64_t *) a, y = *(const int64_t *) b;

    return x < y ? -1 : x > y;
}

bool clock_is_off(const struct replica *r, uint64_t id, int64_t *ret_off_ms) {
    int64_t sorted[PEERS_MAX + 1] = {0}; /* this node's own offset is the first: 0 */
    int64_t own = 0, median, off;
    size_t n = 1;
    bool found = id == r->o.id;

    for (size_t i = 0; i < r->peers_count; i++) {
        const struct peer *p = &r->peers[i];

        if (!p->member || !p->up || !p->facts_known)
            continue;
        sorted[n++] = p->clock_offset_ms;
        if (p->id == id) {
            own = p->clock_offset_ms;
            found = true;
        }
    }
    if (!found || n < 2)
        return false;
    qsort(sorted, n, sizeof(sorted[0]), compare);
    /* Of two, nobody knows which one is right: each is off by half. */
    median = n % 2 == 1 ? sorted[n / 2] : sorted[n / 2 - 1] / 2 + sorted[n / 2] / 2;
    off = own - median;
    if (off >= -CLOCK_OFF_MS_MAX && off <= CLOCK_OFF_MS_MAX)
        return false;
    *ret_off_ms = off;
    return true;
}
