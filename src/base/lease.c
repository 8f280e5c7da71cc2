#include "base/lease.h"

#include <string.h>

void lease_init(struct lease *l) {
    *l = (struct lease){.lease_ms = LEASE_MS_DEFAULT};
}

static void renew(struct lease *l, struct mono sent) {
    if (sent.ns > l->renewed.ns)
        l->renewed = sent;
}

void lease_welcome(struct lease *l, struct mono sent, uint64_t lease_ms) {
    l->lease_ms = lease_ms == 0 ? LEASE_MS_DEFAULT : MIN(MAX(lease_ms, LEASE_MS_MIN), LEASE_MS_MAX);
    l->held = true;
    renew(l, sent);
}

void lease_sent(struct lease *l, uint64_t sequence, struct mono now) {
    ASSERT(sequence > 0);
    if (l->pending_count == LEASE_PENDING_MAX) /* keep the oldest: they are the cautious ones */
        return;
    l->pending[l->pending_count].sequence = sequence;
    l->pending[l->pending_count].sent = now;
    l->pending_count++;
}

void lease_acked(struct lease *l, uint64_t sequence) {
    size_t i = 0;

    if (l->pending_count == 0)
        return;
    if (sequence != 0)
        while (i < l->pending_count && l->pending[i].sequence != sequence)
            i++;
    if (i == l->pending_count)
        return;
    renew(l, l->pending[i].sent);
    l->pending_count -= i + 1;
    memmove(l->pending, &l->pending[i + 1], l->pending_count * sizeof(l->pending[0]));
}

void lease_drop_pending(struct lease *l) {
    l->pending_count = 0;
}

static struct mono kill_at(const struct lease *l) {
    uint64_t margin_ms = MIN((uint64_t) 500, l->lease_ms / 20);

    return mono_add_ms(l->renewed, l->lease_ms - l->lease_ms / 10 - margin_ms);
}

static struct mono term_at(const struct lease *l) {
    struct mono k = kill_at(l);

    return (struct mono){.ns = k.ns - l->lease_ms / 8 * NS_PER_MS};
}

enum lease_verdict lease_check(const struct lease *l, struct mono now) {
    if (!l->held)
        return LEASE_FINE;
    if (mono_reached(now, kill_at(l)))
        return LEASE_KILL;
    return mono_reached(now, term_at(l)) ? LEASE_TERM : LEASE_FINE;
}

struct mono lease_deadline(const struct lease *l, struct mono now) {
    if (!l->held)
        return MONO_NEVER;
    return mono_reached(now, term_at(l)) ? kill_at(l) : term_at(l);
}

struct mono lease_end(const struct lease *l) {
    return l->held ? mono_add_ms(l->renewed, l->lease_ms) : (struct mono){0};
}
