/* Frames that arrive damaged or in part. The production codec (base/peer_frame.h) judges them, as
 * os/peer_conn.c does: a frame that is not whole waits for the rest, and one with other bytes than
 * were sent must never be taken for a message. Only such frames are put into bytes here; the others
 * would be accepted as they are. Thread: one. */
#include "sim/sim_internal.h"

#include "base/peer_frame.h"

#include <string.h>

#define FLIPS_MAX 8
#define PAYLOAD_BYTES_MAX (64U << 20) /* as os/peer_net.h has it by default */

void sim_frame_draw(struct world *w, bool swarm) {
    if (rng_chance(&w->rng, 300))
        w->damage_one_in = (unsigned) rng_range(&w->rng, swarm ? 30 : 300, 3000);
    if (rng_chance(&w->rng, 300))
        w->cut_one_in = (unsigned) rng_range(&w->rng, swarm ? 30 : 300, 3000);
}

static struct bytes *frame_of(const struct bytes *payload) {
    struct bytes *b = bytes_new(PEER_FRAME_HEADER_BYTES + payload->len);

    if (!b)
        return NULL;
    peer_frame_encode_header(b->data, PEER_FRAME_MESSAGE, slice_of(payload->data, payload->len));
    memcpy(b->data + PEER_FRAME_HEADER_BYTES, payload->data, payload->len);
    return b;
}

/* One bit, some bits anywhere, some in the header, or a run of bytes that were others' before. */
static void flip(struct world *w, struct bytes *b) {
    uint64_t kind = rng_below(&w->rng, 4);
    size_t within = kind == 2 ? PEER_FRAME_HEADER_BYTES : b->len;
    size_t at = rng_below(&w->rng, within),
           count = kind == 0 ? 1 : rng_range(&w->rng, 1, FLIPS_MAX);

    if (kind == 3) {
        for (size_t i = at; i < MIN(at + count, b->len); i++)
            b->data[i] ^= (uint8_t) rng_range(&w->rng, 1, 255);
        return;
    }
    b->data[at] ^= (uint8_t) (1U << rng_below(&w->rng, 8));
    for (size_t i = 1; i < count; i++) { /* never the first byte: it stays another one */
        size_t k = rng_below(&w->rng, within);

        b->data[k] =
            (uint8_t) (b->data[k] ^ (k == at ? 0 : (uint8_t) (1U << rng_below(&w->rng, 8))));
    }
}

static bool strikes(struct world *w, unsigned one_in) {
    return one_in != 0 && rng_below(&w->rng, one_in) == 0;
}

struct bytes *sim_frame_send(struct world *w, struct bytes *payload, enum sim_damage *ret_damage) {
    bool flipped = strikes(w, w->damage_one_in), cut = strikes(w, w->cut_one_in);
    struct bytes *b;

    *ret_damage = SIM_INTACT;
    if (!flipped && !cut)
        return bytes_ref(payload);
    b = frame_of(payload);
    if (!b) {
        w->no_memory = true;
        return bytes_ref(payload);
    }
    *ret_damage = flipped ? SIM_FLIPPED : SIM_CUT;
    if (flipped)
        flip(w, b);
    else
        b->len = (uint32_t) rng_below(&w->rng, b->len);
    return b;
}

/* The bytes come in pieces, as from a socket: at no point may there be a message in them. */
void sim_frame_damaged(struct world *w, const struct sim_event *e) {
    struct slice all = bytes_slice(e->payload);
    size_t have = rng_below(&w->rng, all.len + 1), need = 0;
    struct errtext why = {0};
    struct peer_frame f;
    int rc;

    ASSERT(e->damage != SIM_INTACT);
    rc = peer_frame_decode(slice_of(all.data, have), PAYLOAD_BYTES_MAX, &f, &need, &why);
    if (rc == PEER_FRAME_MORE && need <= have)
        sim_fail(w, "%zu bytes of a frame do not suffice, %zu are asked for", have, need);
    if (rc == PEER_FRAME_MORE)
        rc = peer_frame_decode(all, PAYLOAD_BYTES_MAX, &f, &need, &why);
    if (rc == 0)
        sim_fail(w, "node %u takes a %s frame of node %u for a message", e->b + 1,
                 e->damage == SIM_CUT ? "cut" : "damaged", e->a + 1);
    else if (e->damage == SIM_CUT && rc != PEER_FRAME_MORE)
        sim_fail(w, "node %u refuses the first %zu bytes of a sound frame: %s", e->b + 1, all.len,
                 why.s);
    else if (e->damage == SIM_FLIPPED && rc == PEER_FRAME_MORE)
        sim_fail(w, "node %u waits for %zu bytes of a damaged frame of %zu", e->b + 1, need,
                 all.len);
    sim_count(w, e->damage == SIM_CUT ? SIM_STAT_FRAMES_CUT : SIM_STAT_FRAMES_DAMAGED);
    sim_trace(w, "node %u: a %s frame of node %u: %s", e->b + 1,
              e->damage == SIM_CUT ? "cut" : "damaged", e->a + 1, why.s);
}
