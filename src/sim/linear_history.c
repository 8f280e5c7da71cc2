/* Whole histories: cut into parts, each judged by the order that the log gives or by search. See
 * linear.h.
 *
 * By index: an answer says which entry of the log it stands for, so the order is known: it must
 * agree with real time (nobody who asked after an answer is placed before it) and every answer must
 * be right in it. Reads that were allowed to be stale have no place in real time, but their index
 * says what they must show, and it is not older than what their client had seen (J22). Thread: one.
 * Pure. */
#include "sim/linear.h"

#include "base/map.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STATES_MAX 1000000
#define UNKNOWN_MAX 200

/* Everything: of a job that nobody said to have submitted. */
#define JOB_ANY 127
#define JOB_ABSENT 1
#define JOB_UNMADE (64 | 2 | 8) /* an unknown submit may make it, or has */

struct part_ref {
    char kind; /* j(ob), k(ey), s(chedule), r(egister) */
    const char *name;
    const struct history_op *op;
};

struct judge {
    const struct history *h;
    struct linear_options o;
    struct linear_report *report;
    struct part_ref *refs;
    size_t count;
    const struct history_op **ops; /* scratch: of one part */
    struct history_op *earlier; /* owned: first tries of cancels that were tried twice, perhaps */
    size_t earlier_count;
    struct bytesmap unknown_keys; /* keys with a submit whose outcome nobody knows */
};

static const char *part_kind(char kind) {
    return kind == 'j' ? "job" : kind == 'k' ? "key" : kind == 's' ? "schedule" : "register";
}

/* The first thing found stands. @p: the part, or NULL; @op: one of its operations, or NULL. */
static void say(struct judge *j, enum linear_verdict verdict, const struct part_ref *p,
                const char *what, const struct history_op *op) {
    char line[256] = "", part[128] = "";

    if (j->report->verdict != LINEAR_HOLDS)
        return;
    j->report->verdict = verdict;
    if (p)
        (void) snprintf(part, sizeof(part), "%s %.100s: ", part_kind(p->kind), p->name);
    if (op)
        (void) history_print(op, line, sizeof(line));
    if (op)
        (void) snprintf(j->report->why, sizeof(j->report->why), "%s%s: line %" PRIu32 ": %s", part,
                        what, op->line, line);
    else
        (void) snprintf(j->report->why, sizeof(j->report->why), "%s%s", part, what);
}

/* ---- parts ----------------------------------------------------------------------------------- */

static void add_ref(struct judge *j, char kind, const char *name, const struct history_op *op) {
    j->refs[j->count++] = (struct part_ref){.kind = kind, .name = name, .op = op};
}

/* A node tries a cancel again when a leader is lost in between: "has ended" may be the answer to
 * the second try, and the job have ended by the first. */
static void add_earlier_try(struct judge *j, const struct history_op *op) {
    struct history_op *first = &j->earlier[j->earlier_count];

    if (op->kind != HISTORY_CANCEL || op->outcome != HISTORY_OK || op->result != HISTORY_ENDED)
        return;
    j->earlier_count++;
    *first = *op;
    first->outcome = HISTORY_UNKNOWN;
    first->result = HISTORY_DONE;
    first->end_ns = HISTORY_NEVER;
    first->index = 0;
    add_ref(j, 'j', op->job, first);
}

static int cut(struct judge *j) {
    for (size_t i = 0; i < j->h->count; i++) {
        const struct history_op *op = &j->h->ops[i];

        if (op->outcome == HISTORY_FAIL || (op->outcome == HISTORY_UNKNOWN && history_is_read(op)))
            continue;
        if (op->kind >= HISTORY_SET) {
            add_ref(j, 'r', op->name, op);
            continue;
        }
        if (op->kind >= HISTORY_PUT) {
            add_ref(j, 's', op->name, op);
            continue;
        }
        add_earlier_try(j, op);
        if (op->job && !(op->kind == HISTORY_SUBMIT && op->outcome != HISTORY_OK))
            add_ref(j, 'j', op->job, op);
        if (op->kind != HISTORY_SUBMIT || !op->key)
            continue;
        add_ref(j, 'k', op->key, op);
        if (op->outcome == HISTORY_UNKNOWN &&
            bytesmap_put(&j->unknown_keys, slice_of(op->key, strlen(op->key)),
                         (void *) (uintptr_t) op) < 0)
            return -ENOMEM;
    }
    return 0;
}

static int compare_refs(const void *a, const void *b) {
    const struct part_ref *x = a, *y = b;
    int r = x->kind != y->kind ? x->kind - y->kind : strcmp(x->name, y->name);

    if (r != 0)
        return r;
    if (x->op->begin_ns != y->op->begin_ns)
        return x->op->begin_ns < y->op->begin_ns ? -1 : 1;
    return x->op < y->op ? -1 : x->op > y->op;
}

static const struct linear_spec *spec_of(char kind) {
    return kind == 'j'   ? &linear_job
           : kind == 'k' ? &linear_key
           : kind == 's' ? &linear_schedule
                         : &linear_register;
}

/* What a part's object was before the first operation. */
static struct linear_state state_before(const struct judge *j, const struct part_ref *refs,
                                        size_t count) {
    struct linear_state s = {0};
    bool submitted = false, twice = false;

    if (refs[0].kind != 'j')
        return s;
    for (size_t i = 0; i < count; i++) {
        const char *key = refs[i].op->key;

        if (refs[i].op->kind != HISTORY_SUBMIT)
            continue;
        submitted = true;
        twice = twice || (key && bytesmap_get(&j->unknown_keys, slice_of(key, strlen(key))));
    }
    s.w[0] = !submitted ? JOB_ANY : twice ? JOB_UNMADE : JOB_ABSENT;
    return s;
}

/* ---- by index -------------------------------------------------------------------------------- */

/* Changes before the reads that contain them; two answers for one entry as they were asked. */
static int compare_index(const void *a, const void *b) {
    const struct history_op *x = *(const struct history_op *const *) a;
    const struct history_op *y = *(const struct history_op *const *) b;

    if (x->index != y->index)
        return x->index < y->index ? -1 : 1;
    if (history_is_read(x) != history_is_read(y))
        return history_is_read(x) ? 1 : -1;
    return x < y ? -1 : x > y;
}

/* Every change is known and has its place. */
static bool has_places(const struct part_ref *refs, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (refs[i].op->outcome != HISTORY_OK || refs[i].op->index == 0)
            return false;
    return true;
}

static void judge_by_index(struct judge *j, const struct part_ref *refs, size_t count) {
    struct linear_state s = state_before(j, refs, count), next;

    for (size_t i = 0; i < count; i++)
        j->ops[i] = refs[i].op;
    qsort(j->ops, count, sizeof(*j->ops), compare_index);
    for (size_t i = 0; i < count; i++) {
        if (!spec_of(refs[0].kind)->step(j->ops[i], &s, &next)) {
            say(j, LINEAR_BROKEN, &refs[0], "not possible in the order of the log", j->ops[i]);
            return;
        }
        s = next;
    }
}

static int compare_begin(const void *a, const void *b) {
    const struct history_op *x = *(const struct history_op *const *) a;
    const struct history_op *y = *(const struct history_op *const *) b;

    return x->begin_ns != y->begin_ns ? (x->begin_ns < y->begin_ns ? -1 : 1) : x < y ? -1 : x > y;
}

static int compare_end(const void *a, const void *b) {
    const struct history_op *x = *(const struct history_op *const *) a;
    const struct history_op *y = *(const struct history_op *const *) b;

    return x->end_ns != y->end_ns ? (x->end_ns < y->end_ns ? -1 : 1) : x < y ? -1 : x > y;
}

/* R16: nobody who asks after an answer is placed before it; a change is placed behind it. */
static int check_real_time(struct judge *j) {
    const struct history_op **begins = calloc(j->h->count + 1, sizeof(*begins));
    const struct history_op **ends = calloc(j->h->count + 1, sizeof(*ends)), *newest = NULL;
    size_t n = 0, done = 0;

    for (size_t i = 0; begins && ends && i < j->h->count; i++) {
        const struct history_op *op = &j->h->ops[i];

        if (op->outcome == HISTORY_OK && op->index != 0 && !op->stale)
            begins[n] = ends[n] = op, n++;
        if (op->outcome == HISTORY_OK && op->stale && op->index < op->token)
            say(j, LINEAR_BROKEN, NULL, "older than what its client had seen", op);
    }
    if (begins && ends) {
        qsort(begins, n, sizeof(*begins), compare_begin);
        qsort(ends, n, sizeof(*ends), compare_end);
    }
    for (size_t i = 0; begins && ends && i < n; i++) {
        for (; done < n && ends[done]->end_ns < begins[i]->begin_ns; done++)
            if (!newest || ends[done]->index > newest->index)
                newest = ends[done];
        if (newest && begins[i]->index < newest->index + !history_is_read(begins[i]))
            say(j, LINEAR_BROKEN, NULL, "it was asked after a newer answer had come", begins[i]);
    }
    free(begins);
    free(ends);
    return begins && ends ? 0 : -ENOMEM;
}

/* ---- by search ------------------------------------------------------------------------------- */

static int judge_by_search(struct judge *j, const struct part_ref *refs, size_t count) {
    struct linear_state from = state_before(j, refs, count);
    enum linear_verdict verdict = LINEAR_HOLDS;
    size_t n = 0, unknown = 0;
    int r;

    for (size_t i = 0; i < count; i++) {
        if (refs[i].op->stale)
            continue;
        unknown += refs[i].op->outcome == HISTORY_UNKNOWN;
        j->ops[n++] = refs[i].op;
    }
    j->report->searched++;
    if (unknown > j->o.unknown_max) {
        say(j, LINEAR_UNDECIDED, &refs[0], "too many operations of unknown outcome", NULL);
        return 0;
    }
    r = linear_search(spec_of(refs[0].kind), &from, j->ops, n, j->o.states_max, &verdict);
    if (verdict == LINEAR_BROKEN)
        say(j, verdict, &refs[0], "there is no order in which all answers are right; first",
            refs[0].op);
    if (verdict == LINEAR_UNDECIDED)
        say(j, verdict, &refs[0], "the search has used up its budget", NULL);
    return r;
}

static int judge_parts(struct judge *j) {
    int r = 0;

    for (size_t i = 0, end; i < j->count && r == 0; i = end) {
        const struct part_ref *p = &j->refs[i];

        for (end = i + 1; end < j->count && j->refs[end].kind == p->kind &&
                          strcmp(j->refs[end].name, p->name) == 0;)
            end++;
        j->report->parts++;
        j->report->largest = MAX(j->report->largest, (uint64_t) (end - i));
        if (has_places(p, end - i))
            judge_by_index(j, p, end - i);
        else
            r = judge_by_search(j, p, end - i);
    }
    return r;
}

int linear_check_history(const struct history *h, const struct linear_options *o,
                         struct linear_report *ret) {
    struct judge j = {.h = h, .report = ret};
    int r = -ENOMEM;

    ASSERT(h);
    ASSERT(ret);
    *ret = (struct linear_report){.verdict = LINEAR_HOLDS};
    j.o.states_max = o && o->states_max ? o->states_max : STATES_MAX;
    j.o.unknown_max = o && o->unknown_max ? o->unknown_max : UNKNOWN_MAX;
    j.refs = calloc(2 * h->count + 1, sizeof(*j.refs));
    j.ops = calloc(2 * h->count + 1, sizeof(*j.ops));
    j.earlier = calloc(h->count + 1, sizeof(*j.earlier));
    bytesmap_init(&j.unknown_keys);
    if (j.refs && j.ops && j.earlier)
        r = cut(&j);
    if (r == 0) {
        qsort(j.refs, j.count, sizeof(*j.refs), compare_refs);
        r = check_real_time(&j);
    }
    if (r == 0)
        r = judge_parts(&j);
    bytesmap_done(&j.unknown_keys);
    free(j.refs);
    free(j.ops);
    free(j.earlier);
    return r;
}
