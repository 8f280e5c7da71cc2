/* See paced.h.
 *
 * Invariants: every slot is idle, in a call, or in the list that is tried again; open counts the
 * last two. Thread: the loop's. */
#include "bench/paced.h"

#include "bench/requests.h"

#include <inttypes.h>
#include <stdlib.h>

#define CALL_MS 6000U /* longer than the server's own answer, "outcome unknown" */
#define TICK_MS 1U
#define TRIES_MAX 2000U /* of one call, a tick apart */
#define FAILURES_MAX 100U

struct paced_slot {
    struct paced *p;
    struct paced_slot *next; /* idle, or tried again */
    uint64_t due_ns;
    uint32_t tries;
};

struct paced {
    struct target *t;
    struct bytes *request; /* owned */
    uv_timer_t timer;
    uint32_t per_s;
    bool via_any;
    bool stopping;
    uint64_t begin_ns;
    uint64_t issued; /* since begin_ns */
    uint32_t open;
    uint32_t turn; /* which node and which channel is next */
    struct paced_slot *idle, *again;
    uint64_t failures, retried;
    struct errtext why; /* of the last failure */
    uint64_t mark_ns, acked_ns, gap_ns, acks;
    struct histogram latency;
    struct paced_slot slots[PACED_OPEN_MAX];
};

static void issue(struct paced_slot *s);

static void on_acked(struct paced *p, uint64_t due_ns) {
    uint64_t now = uv_hrtime();

    p->gap_ns = MAX(p->gap_ns, now - p->acked_ns);
    p->acked_ns = now;
    p->acks++;
    histogram_add(&p->latency, now - due_ns);
}

static void slot_done(struct paced_slot *s) {
    struct paced *p = s->p;

    s->next = p->idle;
    p->idle = s;
    p->open--;
}

static void on_done(void *arg, const struct rpc_result *res) {
    struct paced_slot *s = arg;
    struct paced *p = s->p;

    if (res->code == RPC_OK) {
        on_acked(p, s->due_ns);
        slot_done(s);
        return;
    }
    errtext_set(&p->why, "code %d, %.400s", (int) res->code, res->message);
    p->retried++;
    if (++s->tries > TRIES_MAX || p->stopping) {
        p->failures += p->stopping ? 0 : 1;
        slot_done(s);
        return;
    }
    s->next = p->again;
    p->again = s;
}

static void issue(struct paced_slot *s) {
    struct paced *p = s->p;
    struct target *t = p->t;
    uint32_t turn = p->turn++;
    size_t node = p->via_any ? turn % t->count : t->leader;
    size_t channel = turn / t->count % t->channels;

    if (rpc_unary(t->nodes[node].channels[channel], PATH_SUBMIT_JOB, p->request, CALL_MS,
                  /* wait_ready= */ true, on_done, s) == 0)
        return;
    p->failures++;
    errtext_set(&p->why, "out of memory");
    slot_done(s);
}

static void on_tick(uv_timer_t *timer) {
    struct paced *p = timer->data;
    struct paced_slot *s = p->again;
    uint64_t due = (uv_hrtime() - p->begin_ns) * p->per_s / NS_PER_S;

    p->again = NULL;
    while (s) {
        struct paced_slot *next = s->next;

        issue(s);
        s = next;
    }
    while (!p->stopping && p->issued < due && (s = p->idle)) {
        p->idle = s->next;
        p->open++;
        p->issued++;
        s->due_ns = p->begin_ns + p->issued * NS_PER_S / p->per_s;
        s->tries = 0;
        issue(s);
    }
}

int paced_new(struct target *t, uint32_t per_s, bool via_any, struct paced **ret) {
    struct paced *p = calloc(1, sizeof(*p));

    ASSERT(per_s > 0);
    if (!p)
        return bench_fail("out of memory");
    p->t = t;
    p->per_s = per_s;
    p->via_any = via_any;
    p->request = request_submit(REQUEST_NOOP, t->b->o->payload_bytes);
    if (!p->request) {
        free(p);
        return bench_fail("out of memory");
    }
    for (size_t i = 0; i < PACED_OPEN_MAX; i++) {
        p->slots[i] = (struct paced_slot){.p = p, .next = p->idle};
        p->idle = &p->slots[i];
    }
    (void) uv_timer_init(&t->b->loop, &p->timer);
    p->timer.data = p;
    p->begin_ns = uv_hrtime();
    paced_mark(p);
    (void) uv_timer_start(&p->timer, on_tick, TICK_MS, TICK_MS);
    *ret = p;
    return BENCH_OK;
}

static bool none_open(const void *arg) {
    return ((const struct paced *) arg)->open == 0;
}

int paced_stop(struct paced *p) {
    struct bench *b = p->t->b;
    int signal = b->signal;

    p->stopping = true;
    b->signal = 0;
    while (p->open > 0) {
        if (bench_wait(b, none_open, p, CALL_MS + 2000) == BENCH_INTERRUPTED) {
            signal = b->signal;
            b->signal = 0;
        }
    }
    (void) uv_timer_stop(&p->timer);
    b->signal = signal;
    if (signal != 0)
        return BENCH_INTERRUPTED;
    if (p->failures > FAILURES_MAX)
        return bench_fail("%" PRIu64 " submits failed for good; the last: %s", p->failures,
                          p->why.s);
    return BENCH_OK;
}

static void on_timer_closed(uv_handle_t *h) {
    struct paced *p = h->data;

    p->request = bytes_unref(p->request);
    free(p);
}

struct paced *paced_free(struct paced *p) {
    if (!p)
        return NULL;
    ASSERT(p->open == 0);
    uv_close((uv_handle_t *) &p->timer, on_timer_closed);
    return NULL;
}

void paced_mark(struct paced *p) {
    histogram_clear(&p->latency);
    p->acks = p->retried = p->gap_ns = 0;
    p->mark_ns = p->acked_ns = uv_hrtime();
}

void paced_result(const struct paced *p, struct bench_result *ret) {
    ret->batch = 1;
    ret->no_ratio = true;
    ret->count = p->latency.total;
    ret->ops_s = (double) p->acks * 1e9 / (double) MAX(uv_hrtime() - p->mark_ns, 1U);
    latency_of(&p->latency, &ret->latency);
}

uint64_t paced_gap_ns(const struct paced *p) {
    return MAX(p->gap_ns, uv_hrtime() - p->acked_ns);
}
