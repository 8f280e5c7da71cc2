#include "sched/sched.h"

#include "base/map.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* "Recent" forgets by halves: every RECENT_WINDOW assignments all counters count half as much. */
#define RECENT_WINDOW 1024
#define SEATS_SLACK 16 /* seats of departed workers tolerated before a sweep */

/* What we remember about a worker between plans. */
struct seat {
    char *id;           /* owned */
    uint32_t in_flight; /* proposed, not yet applied */
    uint64_t recent;    /* as of window recent_at */
    uint64_t recent_at;
    struct seat *next;
};

struct plan_item {
    uint64_t job_seq;
    struct seat *seat; /* a seat with something in flight is never swept */
};

struct plan {
    uint64_t id;
    struct plan *next;
    size_t items_count;
    struct plan_item items[];
};

/* A worker while one plan is made. */
struct candidate {
    const struct fsm_worker *worker;
    struct seat *seat;
    uint32_t load; /* running + in flight */
    uint64_t recent;
};

struct sched {
    struct bytesmap seats;    /* id -> struct seat */
    struct seat *seats_first; /* owned */
    struct u64map jobs;       /* jobs in flight -> struct plan */
    struct plan *plans;       /* owned, newest first */
    size_t plans_count;
    uint64_t last_plan;
    uint64_t assigned;      /* since reset */
    struct candidate *heap; /* owned scratch */
    size_t heap_cap;
};

int sched_new(struct sched **ret) {
    struct sched *s = calloc(1, sizeof(*s));

    ASSERT(ret);
    if (!s)
        return -ENOMEM;
    u64map_init(&s->jobs);
    bytesmap_init(&s->seats);
    *ret = s;
    return 0;
}

void sched_reset(struct sched *s) {
    ASSERT(s);
    while (s->plans) {
        struct plan *p = s->plans;

        s->plans = p->next;
        free(p);
    }
    while (s->seats_first) {
        struct seat *t = s->seats_first;

        s->seats_first = t->next;
        free(t->id);
        free(t);
    }
    u64map_done(&s->jobs);
    bytesmap_done(&s->seats);
    s->plans_count = 0;
    s->assigned = 0; /* last_plan goes on: a late sched_plan_done must not hit a new plan */
}

struct sched *sched_free(struct sched *s) {
    if (!s)
        return NULL;
    sched_reset(s);
    free(s->heap);
    free(s);
    return NULL;
}

size_t sched_in_flight(const struct sched *s) {
    ASSERT(s);
    return s->jobs.count;
}

/* ---- seats -------------------- */

static struct seat *seat_of(struct sched *s, const char *id) {
    struct slice key = slice_of(id, strlen(id));
    struct seat *t = bytesmap_get(&s->seats, key);

    ASSERT(key.len > 0);
    if (t)
        return t;
    t = calloc(1, sizeof(*t));
    if (!t)
        return NULL;
    t->id = strdup(id);
    if (!t->id || bytesmap_put(&s->seats, slice_of(t->id, key.len), t) < 0) {
        free(t->id);
        free(t);
        return NULL;
    }
    t->next = s->seats_first;
    s->seats_first = t;
    return t;
}

/* Drop the seats of workers that the state machine has forgotten, so that names do not pile up. */
static void sweep_seats(struct sched *s, const struct fsm *f, size_t workers) {
    struct seat **at = &s->seats_first;

    if (s->seats.count <= 2 * workers + SEATS_SLACK)
        return;
    while (*at) {
        struct seat *t = *at;
        void *was;

        if (t->in_flight > 0 || fsm_worker_find(f, t->id)) {
            at = &t->next;
            continue;
        }
        *at = t->next;
        was = bytesmap_del(&s->seats, slice_of(t->id, strlen(t->id)));
        ASSERT(was == t);
        free(t->id);
        free(t);
    }
}

static uint64_t recent_now(const struct sched *s, const struct seat *t) {
    uint64_t age = s->assigned / RECENT_WINDOW - t->recent_at;

    ASSERT(t->recent_at <= s->assigned / RECENT_WINDOW);
    return age < 64 ? t->recent >> age : 0;
}

static void recent_add(struct sched *s, struct seat *t) {
    s->assigned++;
    t->recent = recent_now(s, t) + 1;
    t->recent_at = s->assigned / RECENT_WINDOW;
}

/* ---- the heap of candidates -------------------- */

/* C35: fewest running per slot, then fewest running, then fewest recent, then id. */
static bool before(const struct candidate *a, const struct candidate *b) {
    uint64_t x = (uint64_t) a->load * b->worker->slots, y = (uint64_t) b->load * a->worker->slots;

    if (x != y)
        return x < y;
    if (a->load != b->load)
        return a->load < b->load;
    if (a->recent != b->recent)
        return a->recent < b->recent;
    return strcmp(a->worker->id, b->worker->id) < 0;
}

static void sift_down(struct candidate *heap, size_t n, size_t i) {
    for (;;) {
        size_t child = 2 * i + 1;
        struct candidate swap;

        if (child >= n)
            return;
        if (child + 1 < n && before(&heap[child + 1], &heap[child]))
            child++;
        if (!before(&heap[child], &heap[i]))
            return;
        swap = heap[i];
        heap[i] = heap[child];
        heap[child] = swap;
        i = child;
    }
}

static int heap_reserve(struct sched *s, size_t n) {
    struct candidate *heap;
    size_t cap = MAX(n, s->heap_cap * 2);

    if (n <= s->heap_cap)
        return 0;
    heap = realloc(s->heap, cap * sizeof(*heap));
    if (!heap)
        return -ENOMEM;
    s->heap = heap;
    s->heap_cap = cap;
    return 0;
}

/* All live workers with a free slot that no operator drains (C36). */
static int gather(struct sched *s, const struct fsm *f, const struct sched_liveness *live,
                  size_t *ret_count) {
    size_t n = 0, workers = 0;

    for (const struct fsm_worker *w = fsm_worker_first(f); w; w = w->next) {
        struct seat *t;

        workers++;
        if (w->lost || w->draining || (live && live->alive && !live->alive(live->ctx, w)))
            continue;
        t = seat_of(s, w->id);
        if (!t || heap_reserve(s, n + 1) < 0)
            return -ENOMEM;
        if ((uint64_t) w->running + t->in_flight >= w->slots)
            continue;
        s->heap[n++] = (struct candidate){
            .worker = w,
            .seat = t,
            .load = w->running + t->in_flight,
            .recent = recent_now(s, t),
        };
    }
    sweep_seats(s, f, workers);
    for (size_t i = n / 2; i > 0; i--)
        sift_down(s->heap, n, i - 1);
    *ret_count = n;
    return 0;
}

/* ---- plans -------------------- */

static void release_items(struct sched *s, struct plan *p) {
    for (size_t i = 0; i < p->items_count; i++) {
        void *was = u64map_del(&s->jobs, p->items[i].job_seq);

        ASSERT(was == p);
        ASSERT(p->items[i].seat->in_flight > 0);
        p->items[i].seat->in_flight--;
    }
}

/* Give the first candidate the next job; the heap stays a heap. */
static int place(struct sched *s, struct plan *p, const struct fsm_job *j, size_t *heap_count) {
    struct candidate *c = &s->heap[0];

    ASSERT(*heap_count > 0);
    ASSERT(c->load < c->worker->slots);
    if (u64map_put(&s->jobs, j->seq, p) < 0)
        return -ENOMEM;
    p->items[p->items_count++] = (struct plan_item){.job_seq = j->seq, .seat = c->seat};
    c->seat->in_flight++;
    recent_add(s, c->seat);
    c->load++;
    c->recent++;
    if (c->load >= c->worker->slots)
        *c = s->heap[--*heap_count];
    sift_down(s->heap, *heap_count, 0);
    return 0;
}

static int fill(struct sched *s, const struct fsm *f, struct plan *p, size_t heap_count,
                Chronos__Internal__V1__AssignJobItem *items, size_t items_max) {
    for (const struct fsm_job *j = fsm_ready_first(f);
         j && p->items_count < items_max && heap_count; j = j->ready_next) {
        const struct fsm_worker *w = s->heap[0].worker;
        int r;

        if (u64map_get(&s->jobs, j->seq))
            continue; /* proposed before; these are the oldest, so few are passed over */
        r = place(s, p, j, &heap_count);
        if (r < 0)
            return r;
        chronos__internal__v1__assign_job_item__init(&items[p->items_count - 1]);
        items[p->items_count - 1].job_seq = j->seq;
        items[p->items_count - 1].worker_id = w->id;
        items[p->items_count - 1].worker_incarnation = w->incarnation;
    }
    return 0;
}

int sched_plan(struct sched *s, const struct fsm *f, const struct sched_liveness *live,
               Chronos__Internal__V1__AssignJobItem *items, size_t items_max, size_t *ret_count,
               uint64_t *ret_plan) {
    struct plan *p;
    size_t heap_count, most;
    int r;

    ASSERT(s);
    ASSERT(f);
    ASSERT(ret_count);
    ASSERT(ret_plan);
    most = MIN(items_max, fsm_jobs_count(f, CHRONOS__V1__JOB_STATE__JOB_STATE_PENDING));
    *ret_count = 0;
    if (most == 0 || s->plans_count >= SCHED_PLANS_MAX)
        return 0;
    r = gather(s, f, live, &heap_count);
    if (r < 0 || heap_count == 0)
        return r;
    p = malloc(sizeof(*p) + most * sizeof(p->items[0]));
    if (!p)
        return -ENOMEM;
    p->items_count = 0;
    r = fill(s, f, p, heap_count, items, most);
    if (r < 0 || p->items_count == 0) {
        release_items(s, p);
        free(p);
        return r;
    }
    p->id = ++s->last_plan;
    p->next = s->plans;
    s->plans = p;
    s->plans_count++;
    *ret_count = p->items_count;
    *ret_plan = p->id;
    return 0;
}

void sched_plan_done(struct sched *s, uint64_t plan) {
    struct plan **at = &s->plans;

    ASSERT(s);
    ASSERT(plan <= s->last_plan);
    while (*at && (*at)->id != plan)
        at = &(*at)->next;
    if (*at) { /* else forgotten by sched_reset */
        struct plan *p = *at;

        *at = p->next;
        s->plans_count--;
        release_items(s, p);
        free(p);
    }
}
