#include "cli/retry.h"

#include "os/rpc_client.h"

/* UNAVAILABLE promises that nothing was done, so it is safe for every call. A full proposal channel
 * promises the same and comes with a hint; without the hint RESOURCE_EXHAUSTED means that the
 * message is too large, which no repetition mends. After DEADLINE_EXCEEDED the outcome is unknown.
 */
static bool may_repeat(const struct retry_answer *a) {
    if (a->code == RPC_UNAVAILABLE)
        return true;
    if (a->code == RPC_RESOURCE_EXHAUSTED)
        return a->has_hint;
    return a->code == RPC_DEADLINE_EXCEEDED && a->repeatable;
}

bool retry_next(struct retry *r, struct mono now, const struct retry_answer *a, size_t nodes,
                uint64_t *ret_delay_ms) {
    uint64_t delay = 0, least = 0, step = RETRY_BASE_MS;
    uint32_t round;

    ASSERT(nodes >= 1);
    ASSERT(a->code != RPC_OK);
    r->attempts++;
    if (!may_repeat(a) || mono_reached(now, r->deadline))
        return false;
    round = r->attempts / (uint32_t) nodes;
    if (r->attempts % nodes == 0) {
        for (uint32_t i = 1; i < round && step < RETRY_CAP_MS; i++)
            step *= 2;
        step = MIN(step, (uint64_t) RETRY_CAP_MS);
        /* Half fixed, half random: clients that failed together do not return together. */
        delay = step / 2 + rng_below(&r->rng, step / 2 + 1);
    }
    delay = MAX(delay, a->retry_after_ms);
    /* A node that answers just before the deadline says what is true; a try without time for an
     * answer would only hide that behind the client's own "Deadline Exceeded". */
    if (a->code == RPC_DEADLINE_EXCEEDED)
        least = RETRY_LEAST_MS;
    if (mono_reached(mono_add_ms(now, delay + least), r->deadline))
        return false;
    *ret_delay_ms = delay;
    return true;
}
