/* The search for an order; see linear.h.
 *
 * Calls and answers lie in one list in the order of time. An operation whose call comes before the
 * first answer in the list may be the next one: it is tried and lifted out, and when an answer is
 * met first, the newest choice was wrong and is taken back. What was tried is remembered as the set
 * of operations done and the state they led to (Lowe: two ways to the same set and state have the
 * same future). An operation without an answer has no place at which it must have happened. */
#include "sim/linear.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MEMO_BYTES_MAX (1UL << 30)
#define STATE_WORDS ARRAY_LEN(((struct linear_state *) 0)->w)

struct mark { /* a call or an answer in the list */
    struct mark *prev, *next;
    struct mark *answer; /* of a call; NULL: there is none */
    int64_t at_ns;
    size_t number; /* of the operation */
    bool call;
};

/* Sets and states that were met: @count keys of @words words, found through @slots. */
struct memo {
    uint64_t *keys;
    size_t words, count, cap, max;
    uint32_t *slots; /* place of a key plus 1, 0 = empty */
    size_t slots_cap;
};

struct choice {
    struct mark *call;
    struct linear_state before;
    bool no_choice; /* a read that is right here and tells nothing new */
};

struct search {
    const struct linear_spec *spec;
    const struct history_op *const *ops;
    struct mark *marks, head;
    struct choice *choices; /* made so far */
    size_t choices_count;
    uint64_t *key; /* the set of what is done, then room for the state */
    size_t set_words;
    struct linear_state state;
    size_t *first; /* of each: the operation that must be done before it, plus 1; 0 = none */
    size_t left;   /* with an answer, not yet done */
    struct memo memo;
};

/* ---- memo ------------------------------------------------------------------------------------ */

static uint64_t hash_of(const uint64_t *key, size_t words) {
    uint64_t h = 0x9e3779b97f4a7c15ULL;

    for (size_t i = 0; i < words; i++) {
        h = (h ^ key[i]) * 0xff51afd7ed558ccdULL;
        h ^= h >> 32;
    }
    return h;
}

static uint32_t *slot_of(const struct memo *m, const uint64_t *key) {
    size_t at = hash_of(key, m->words) & (m->slots_cap - 1);

    while (m->slots[at] != 0 &&
           memcmp(m->keys + (m->slots[at] - 1) * m->words, key, m->words * sizeof(*key)) != 0)
        at = (at + 1) & (m->slots_cap - 1);
    return &m->slots[at];
}

static int memo_grow(struct memo *m) {
    size_t cap = m->cap ? m->cap * 2 : 64;
    uint64_t *keys = realloc(m->keys, cap * m->words * sizeof(*keys));
    uint32_t *slots;

    if (!keys)
        return -ENOMEM;
    m->keys = keys;
    slots = calloc(cap * 2, sizeof(*slots));
    if (!slots)
        return -ENOMEM;
    free(m->slots);
    m->slots = slots;
    m->slots_cap = cap * 2;
    m->cap = cap;
    for (size_t i = 0; i < m->count; i++)
        *slot_of(m, keys + i * m->words) = (uint32_t) i + 1;
    return 0;
}

enum { MEMO_NEW = 0, MEMO_KNOWN = 1, MEMO_FULL = 2 };

static int memo_add(struct memo *m, const uint64_t *key) {
    uint32_t *slot;

    if (m->count == m->cap) {
        int r = memo_grow(m);

        if (r < 0)
            return r;
    }
    slot = slot_of(m, key);
    if (*slot != 0)
        return MEMO_KNOWN;
    if (m->count >= m->max)
        return MEMO_FULL;
    memcpy(m->keys + m->count * m->words, key, m->words * sizeof(*key));
    *slot = (uint32_t) ++m->count;
    return MEMO_NEW;
}

/* ---- the list -------------------------------------------------------------------------------- */

/* What happens at one instant is concurrent: calls come first. */
static int compare_marks(const void *a, const void *b) {
    const struct mark *x = a, *y = b;

    if (x->at_ns != y->at_ns)
        return x->at_ns < y->at_ns ? -1 : 1;
    if (x->call != y->call)
        return x->call ? -1 : 1;
    return x->number < y->number ? -1 : x->number > y->number;
}

static bool answered(const struct history_op *op) {
    return op->outcome == HISTORY_OK;
}

static void list_build(struct search *s, size_t count) {
    struct mark **calls = (struct mark **) (void *) s->choices; /* room that is free by now */
    struct mark *last = &s->head;
    size_t n = 0;

    for (size_t i = 0; i < count; i++) {
        const struct history_op *op = s->ops[i];

        if (op->outcome == HISTORY_FAIL)
            continue;
        s->marks[n++] = (struct mark){.at_ns = op->begin_ns, .number = i, .call = true};
        if (!answered(op))
            continue;
        s->marks[n++] = (struct mark){.at_ns = op->end_ns, .number = i};
        s->left++;
    }
    qsort(s->marks, n, sizeof(*s->marks), compare_marks);
    for (size_t i = 0; i < n; i++) {
        struct mark *m = &s->marks[i];

        if (m->call)
            calls[m->number] = m;
        else
            calls[m->number]->answer = m;
        m->prev = last;
        last->next = m;
        last = m;
    }
}

static void lift(struct mark *m) {
    m->prev->next = m->next;
    if (m->next)
        m->next->prev = m->prev;
}

static void put_back(struct mark *m) {
    m->prev->next = m;
    if (m->next)
        m->next->prev = m;
}

/* ---- orders that are known ------------------------------------------------------------------- */

static bool same_text(const char *a, const char *b) {
    return a && b ? strcmp(a, b) == 0 : a == b;
}

/* Nobody can tell their effects apart. */
static bool same_question(const struct history_op *a, const struct history_op *b) {
    return a->kind == b->kind && a->create == b->create && a->expect == b->expect &&
           a->value == b->value && a->state == b->state && a->attempt == b->attempt &&
           same_text(a->key, b->key) && same_text(a->request, b->request) &&
           same_text(a->job, b->job) && same_text(a->name, b->name);
}

/* Of unanswered operations that ask the same, the one that was asked first comes first: an order
 * with two of them the other way round is one with them this way round. */
static bool is_elder_twin(const struct search *s, size_t elder, size_t i) {
    const struct history_op *a = s->ops[elder], *b = s->ops[i];

    return elder != i && a->outcome == HISTORY_UNKNOWN && same_question(a, b) &&
           (a->begin_ns < b->begin_ns || (a->begin_ns == b->begin_ns && elder < i));
}

static bool is_younger(const struct search *s, size_t a, size_t b) {
    return s->ops[a]->begin_ns != s->ops[b]->begin_ns ? s->ops[a]->begin_ns > s->ops[b]->begin_ns
                                                      : a > b;
}

static void order_twins(struct search *s, size_t count) {
    for (size_t i = 0; i < count; i++)
        for (size_t k = 0; k < count && s->ops[i]->outcome == HISTORY_UNKNOWN; k++)
            if (is_elder_twin(s, k, i) && (!s->first[i] || is_younger(s, k, s->first[i] - 1)))
                s->first[i] = k + 1;
}

struct place {
    const struct history_op *op;
    size_t number;
};

static int compare_places(const void *a, const void *b) {
    const struct place *x = a, *y = b;
    bool xr = history_is_read(x->op), yr = history_is_read(y->op);

    if (x->op->index != y->op->index)
        return x->op->index < y->op->index ? -1 : 1;
    if (xr != yr)
        return xr ? 1 : -1;
    if (x->op->begin_ns != y->op->begin_ns)
        return x->op->begin_ns < y->op->begin_ns ? -1 : 1;
    return x->number < y->number ? -1 : x->number > y->number;
}

/* Answers that name their place in the log are in its order; what is left to be found is where
 * those that do not belong. */
static int order_by_index(struct search *s, size_t count) {
    struct place *places = calloc(count + 1, sizeof(*places));
    size_t n = 0;

    if (!places)
        return -ENOMEM;
    for (size_t i = 0; i < count; i++)
        if (answered(s->ops[i]) && s->ops[i]->index != 0)
            places[n++] = (struct place){.op = s->ops[i], .number = i};
    qsort(places, n, sizeof(*places), compare_places);
    for (size_t i = 1; i < n; i++)
        s->first[places[i].number] = places[i - 1].number + 1;
    free(places);
    return 0;
}

static bool is_done(const struct search *s, size_t number) {
    return s->key[number / 64] >> number % 64 & 1;
}

/* ---- the search ------------------------------------------------------------------------------ */

static void choose(struct search *s, struct mark *call, const struct linear_state *after) {
    s->choices[s->choices_count++] =
        (struct choice){.call = call,
                        .before = s->state,
                        .no_choice = history_is_read(s->ops[call->number]) &&
                                     memcmp(after, &s->state, sizeof(*after)) == 0};
    s->state = *after;
    lift(call);
    if (call->answer) {
        lift(call->answer);
        s->left--;
    }
}

/* The call that was the wrong choice; NULL: there was none. A read that is right now can come now
 * in every order in which it comes later: nothing depends on it, so it is no choice. */
static struct mark *take_back(struct search *s) {
    struct choice *c = NULL;

    while (s->choices_count > 0 && (!c || c->no_choice)) {
        c = &s->choices[--s->choices_count];
        s->state = c->before;
        s->key[c->call->number / 64] &= ~(1ULL << c->call->number % 64);
        if (c->call->answer) {
            put_back(c->call->answer);
            s->left++;
        }
        put_back(c->call);
    }
    return c && !c->no_choice ? c->call : NULL;
}

/* MEMO_NEW: @call was chosen. MEMO_KNOWN: it cannot be next, or that leads nowhere. */
static int try_call(struct search *s, struct mark *call) {
    struct linear_state after;
    int r;

    if (s->first[call->number] && !is_done(s, s->first[call->number] - 1))
        return MEMO_KNOWN;
    if (!s->spec->step(s->ops[call->number], &s->state, &after))
        return MEMO_KNOWN;
    s->key[call->number / 64] |= 1ULL << call->number % 64;
    memcpy(s->key + s->set_words, after.w, sizeof(after.w));
    r = memo_add(&s->memo, s->key);
    if (r == MEMO_NEW)
        choose(s, call, &after);
    else
        s->key[call->number / 64] &= ~(1ULL << call->number % 64);
    return r;
}

static int run(struct search *s, enum linear_verdict *ret) {
    struct mark *m = s->head.next;

    while (s->left > 0) {
        int r = MEMO_KNOWN;

        if (m && m->call) {
            r = try_call(s, m);
            if (r < 0)
                return r;
        }
        if (r == MEMO_FULL) {
            *ret = LINEAR_UNDECIDED;
            return 0;
        }
        if (r == MEMO_NEW) {
            m = s->head.next;
        } else if (m && m->call) {
            m = m->next;
        } else {
            m = take_back(s);
            if (!m) {
                *ret = LINEAR_BROKEN;
                return 0;
            }
            m = m->next;
        }
    }
    *ret = LINEAR_HOLDS;
    return 0;
}

int linear_search(const struct linear_spec *spec, const struct linear_state *from,
                  const struct history_op *const *ops, size_t count, size_t states_max,
                  enum linear_verdict *ret) {
    struct search s = {.spec = spec, .ops = ops, .state = *from};
    int r = -ENOMEM;

    ASSERT(spec);
    ASSERT(states_max > 0);
    s.set_words = (count + 63) / 64;
    s.memo.words = s.set_words + STATE_WORDS;
    s.memo.max = MIN(MIN(states_max, MEMO_BYTES_MAX / (s.memo.words * 8)), (size_t) UINT32_MAX - 1);
    s.key = calloc(s.memo.words, sizeof(*s.key));
    s.marks = calloc(2 * count + 1, sizeof(*s.marks));
    s.choices = calloc(count + 1, sizeof(*s.choices));
    s.first = calloc(count + 1, sizeof(*s.first));
    if (s.key && s.marks && s.choices && s.first) {
        order_twins(&s, count);
        r = order_by_index(&s, count);
    }
    if (r == 0) {
        list_build(&s, count);
        r = run(&s, ret);
    }
    free(s.key);
    free(s.marks);
    free(s.choices);
    free(s.first);
    free(s.memo.keys);
    free(s.memo.slots);
    return r;
}
