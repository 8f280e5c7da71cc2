/* The judge of histories. Goal: it finds an order when there is one and says so when there is none.
 * Method: 100,000 random small histories against brute force over every order and every choice of
 * the unknown operations; histories by hand whose verdict is known (test_linear_cases.c). */
#include "sim/linear.h"

#include "base/rand.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define OPS_MAX 7
#define HISTORIES 100000
#define ANSWER_TRIES 6

/* ---- brute force ----------------------------------------------------------------------------- */

struct brute {
    const struct linear_spec *spec;
    const struct history_op *const *ops;
    size_t count;
    size_t order[OPS_MAX];
};

/* Whoever was answered before another one asked comes before it; everybody answered is there. */
static bool respects_time(const struct brute *b, size_t n) {
    for (size_t i = 0; i < b->count; i++) {
        bool there = false;

        for (size_t k = 0; k < n; k++)
            there = there || b->order[k] == i;
        if (!there && b->ops[i]->outcome == HISTORY_OK)
            return false;
    }
    for (size_t i = 0; i < n; i++)
        for (size_t k = i + 1; k < n; k++) {
            const struct history_op *later = b->ops[b->order[k]], *first = b->ops[b->order[i]];

            if (later->outcome == HISTORY_OK && later->end_ns < first->begin_ns)
                return false;
        }
    return true;
}

static bool any_order(struct brute *b, const struct linear_state *s, size_t n) {
    struct linear_state next;

    if (respects_time(b, n))
        return true;
    for (size_t i = 0; i < b->count; i++) {
        bool used = b->ops[i]->outcome == HISTORY_FAIL;

        for (size_t k = 0; k < n; k++)
            used = used || b->order[k] == i;
        if (used || !b->spec->step(b->ops[i], s, &next))
            continue;
        b->order[n] = i;
        if (any_order(b, &next, n + 1))
            return true;
    }
    return false;
}

/* ---- random histories ------------------------------------------------------------------------ */

static const char *const words[] = {"a", "b", "c"};

static const char *word(struct rng *rng, unsigned n) {
    return words[rng_below(rng, n)];
}

static void draw_job_question(struct rng *rng, struct history_op *op) {
    uint64_t dice = rng_below(rng, 100);

    op->job = "j";
    op->kind = dice < 55   ? HISTORY_GET
               : dice < 75 ? HISTORY_CANCEL
               : dice < 90 ? HISTORY_REPORT
                           : HISTORY_SUBMIT;
    if (op->kind == HISTORY_SUBMIT) {
        op->request = "a";
        op->key = rng_chance(rng, 500) ? "k" : NULL;
    }
    if (op->kind == HISTORY_REPORT) {
        op->attempt_known = true;
        op->attempt = (uint32_t) rng_range(rng, 1, 2);
        op->state = (enum history_state) rng_range(rng, HISTORY_S_COMPLETED, HISTORY_S_RELEASED);
    }
}

static void draw_question(struct rng *rng, char kind, struct history_op *op) {
    static const enum history_kind registers[] = {HISTORY_SET, HISTORY_READ, HISTORY_CAS};
    static const enum history_kind schedules[] = {HISTORY_PUT, HISTORY_DROP, HISTORY_SHOW};

    *op = (struct history_op){.end_ns = HISTORY_NEVER};
    if (kind == 'j') {
        draw_job_question(rng, op);
        return;
    }
    op->name = "x";
    op->value = rng_below(rng, 3);
    op->expect = rng_below(rng, 3);
    if (kind == 'r') {
        op->kind = registers[rng_below(rng, ARRAY_LEN(registers))];
    } else if (kind == 's') {
        op->kind = schedules[rng_below(rng, ARRAY_LEN(schedules))];
        op->create = rng_chance(rng, 500);
    } else {
        op->kind = HISTORY_SUBMIT;
        op->key = "k";
        op->request = word(rng, 2);
    }
}

static void draw_answer(struct rng *rng, struct history_op *op) {
    static const enum history_result cancels[] = {HISTORY_DONE, HISTORY_DONE, HISTORY_ENDED,
                                                  HISTORY_MISSING};
    static const enum history_result puts[] = {HISTORY_DONE, HISTORY_DONE, HISTORY_MISMATCH,
                                               HISTORY_MISSING};

    op->result = HISTORY_DONE;
    if (op->kind == HISTORY_READ)
        op->value = rng_below(rng, 3);
    else if (op->kind == HISTORY_CAS)
        op->result = rng_chance(rng, 500) ? HISTORY_DONE : HISTORY_MISMATCH;
    else if (op->kind == HISTORY_CANCEL)
        op->result = cancels[rng_below(rng, ARRAY_LEN(cancels))];
    else if (op->kind == HISTORY_PUT || op->kind == HISTORY_DROP)
        op->result = op->create && op->kind == HISTORY_PUT
                         ? (rng_chance(rng, 500) ? HISTORY_DONE : HISTORY_TAKEN)
                         : puts[rng_below(rng, ARRAY_LEN(puts))];
    else if (op->kind == HISTORY_SHOW || op->kind == HISTORY_GET)
        op->result = rng_chance(rng, 200) ? HISTORY_MISSING : HISTORY_DONE;
    else if (op->kind == HISTORY_REPORT)
        op->result = rng_chance(rng, 200) ? HISTORY_STALE : HISTORY_DONE;
    if (op->kind == HISTORY_SUBMIT && op->key && op->job == NULL) {
        op->result = rng_chance(rng, 300) ? HISTORY_CONFLICT : HISTORY_DONE;
        op->job = op->result == HISTORY_DONE ? word(rng, 2) : NULL;
    }
    if (op->kind == HISTORY_SHOW || op->kind == HISTORY_PUT)
        op->version = rng_below(rng, 4);
    if (op->kind == HISTORY_GET && op->result == HISTORY_DONE) {
        op->state = (enum history_state) rng_range(rng, HISTORY_S_PENDING, HISTORY_S_CANCELLED);
        op->attempt_known = rng_chance(rng, 700);
        op->attempt = (uint32_t) rng_below(rng, 3);
        op->cancel_known = rng_chance(rng, 700);
        op->cancel = rng_chance(rng, 500);
    }
}

/* Each operation happens at an instant of its own; answers are drawn until one is right there, and
 * in half of the histories one of them is drawn once more. */
static size_t draw_history(struct rng *rng, char kind, const struct linear_spec *spec,
                           struct linear_state s, struct history_op ops[OPS_MAX]) {
    size_t n = rng_range(rng, 1, OPS_MAX);
    struct linear_state next;

    for (size_t i = 0; i < n; i++) {
        struct history_op *op = &ops[i], question;
        int64_t at = 10 * (int64_t) i + 100;
        uint64_t dice = rng_below(rng, 100);

        draw_question(rng, kind, op);
        question = *op;
        op->outcome = HISTORY_OK;
        draw_answer(rng, op);
        for (int k = 0; k < ANSWER_TRIES && !spec->step(op, &s, &next); k++) {
            *op = question;
            draw_answer(rng, op);
        }
        if (spec->step(op, &s, &next))
            s = next;
        op->begin_ns = at - (int64_t) rng_below(rng, 45);
        op->end_ns = at + (int64_t) rng_below(rng, 45);
        if (dice < 75)
            continue;
        *op = question; /* nobody knows the answer */
        op->begin_ns = at - (int64_t) rng_below(rng, 45);
        op->outcome = dice < 95 ? HISTORY_UNKNOWN : HISTORY_FAIL;
    }
    if (rng_chance(rng, 500)) {
        struct history_op *op = &ops[rng_below(rng, n)];

        if (op->outcome == HISTORY_OK) {
            if (op->kind == HISTORY_SUBMIT && kind == 'k')
                op->job = NULL;
            draw_answer(rng, op);
        }
    }
    return n;
}

static void complain(char kind, const struct history_op *ops, size_t n, bool expected) {
    char line[256];

    print_message("kind %c: brute force says %d\n", kind, (int) expected);
    for (size_t i = 0; i < n; i++) {
        (void) history_print(&ops[i], line, sizeof(line));
        print_message("%s\n", line);
    }
}

static void test_brute_force(void **state) {
    static const struct {
        char kind;
        const struct linear_spec *spec;
        uint64_t before;
    } kinds[] = {{'r', &linear_register, 0},
                 {'k', &linear_key, 0},
                 {'j', &linear_job, 1},
                 {'j', &linear_job, 64 + 2 + 8},
                 {'s', &linear_schedule, 0}};
    const char *given = getenv("CHRONOS_TEST_SEED");
    uint64_t seed = given ? strtoull(given, NULL, 10) : 20260101, good = 0;
    struct rng rng = rng_seed(seed);

    (void) state;
    print_message("CHRONOS_TEST_SEED=%llu\n", (unsigned long long) seed);
    for (int i = 0; i < HISTORIES; i++) {
        size_t k = (size_t) i % ARRAY_LEN(kinds), n;
        struct linear_state from = {.w = {kinds[k].before}};
        struct history_op ops[OPS_MAX];
        const struct history_op *pointers[OPS_MAX];
        struct brute b = {.spec = kinds[k].spec, .ops = pointers};
        enum linear_verdict verdict = LINEAR_UNDECIDED;
        bool expected;

        n = draw_history(&rng, kinds[k].kind, kinds[k].spec, from, ops);
        for (size_t m = 0; m < n; m++)
            pointers[m] = &ops[m];
        b.count = n;
        expected = any_order(&b, &from, 0);
        assert_int_equal(linear_search(kinds[k].spec, &from, pointers, n, 100000, &verdict), 0);
        if (verdict != (expected ? LINEAR_HOLDS : LINEAR_BROKEN)) {
            print_message("history %d\n", i);
            complain(kinds[k].kind, ops, n, expected);
            fail();
        }
        good += expected;
    }
    print_message("%llu of %d histories hold\n", (unsigned long long) good, HISTORIES);
    assert_in_range(good, HISTORIES / 5, HISTORIES * 4 / 5);
}

/* A budget that is used up is no verdict: 40 concurrent increments that cannot be told apart. */
static void test_budget(void **state) {
    struct history_op ops[40];
    const struct history_op *pointers[ARRAY_LEN(ops)];
    struct linear_state from = {.w = {0}};
    enum linear_verdict verdict = LINEAR_HOLDS;

    (void) state;
    for (size_t i = 0; i < ARRAY_LEN(ops); i++) {
        ops[i] = (struct history_op){.kind = HISTORY_SET,
                                     .begin_ns = (int64_t) i,
                                     .end_ns = 1000 + (int64_t) i,
                                     .name = "x",
                                     .value = i % 7};
        pointers[i] = &ops[i];
    }
    ops[ARRAY_LEN(ops) - 1].kind = HISTORY_READ; /* of a value that was never there */
    ops[ARRAY_LEN(ops) - 1].value = 99;
    assert_int_equal(
        linear_search(&linear_register, &from, pointers, ARRAY_LEN(ops), 5000, &verdict), 0);
    assert_int_equal(verdict, LINEAR_UNDECIDED);
}

/* Long and nearly sequential is no work: 20,000 operations of one register. */
static void test_long(void **state) {
    const size_t n = 20000;
    struct history h;
    struct linear_report report;
    struct rng rng = rng_seed(7);
    uint64_t value = 0;

    (void) state;
    history_init(&h);
    for (size_t i = 0; i < n; i++) {
        struct history_op *op = history_op_add(&h);

        assert_non_null(op);
        op->kind = rng_chance(&rng, 500) ? HISTORY_SET : HISTORY_READ;
        op->name = "x";
        if (op->kind == HISTORY_SET)
            value = rng_below(&rng, 5);
        op->value = value;
        op->begin_ns = 10 * (int64_t) i;
        op->end_ns = 10 * (int64_t) i + 9;
        op->index = i + 1;
    }
    assert_int_equal(linear_check_history(&h, NULL, &report), 0);
    assert_int_equal(report.verdict, LINEAR_HOLDS);
    assert_int_equal(report.searched, 0);
    for (size_t i = 0; i < 2000; i++)
        h.ops[i].index = 0;
    h.count = 2000;
    assert_int_equal(linear_check_history(&h, NULL, &report), 0);
    assert_int_equal(report.verdict, LINEAR_HOLDS);
    assert_int_equal(report.searched, 1);
    history_done(&h);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_brute_force),
                                       cmocka_unit_test(test_budget), cmocka_unit_test(test_long)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
