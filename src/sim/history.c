/* The text of histories; see history.h. Pure. */
#include "sim/history.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ARENA_BYTES (4UL << 30)
#define WORDS_MAX 24

static const char *const outcome_names[] = {
    [HISTORY_OK] = "ok", [HISTORY_FAIL] = "fail", [HISTORY_UNKNOWN] = "unknown"};

static const char *const kind_names[HISTORY_KINDS] = {
    [HISTORY_SUBMIT] = "submit", [HISTORY_CANCEL] = "cancel", [HISTORY_GET] = "get",
    [HISTORY_REPORT] = "report", [HISTORY_PUT] = "put",       [HISTORY_DROP] = "drop",
    [HISTORY_SHOW] = "show",     [HISTORY_SET] = "set",       [HISTORY_READ] = "read",
    [HISTORY_CAS] = "cas",
};

static const char *const result_names[HISTORY_RESULTS] = {
    [HISTORY_DONE] = "ok",           [HISTORY_CONFLICT] = "conflict", [HISTORY_ENDED] = "ended",
    [HISTORY_MISSING] = "missing",   [HISTORY_STALE] = "stale",       [HISTORY_TAKEN] = "taken",
    [HISTORY_MISMATCH] = "mismatch",
};

static const char *const state_names[HISTORY_STATES] = {
    [HISTORY_S_NONE] = "",
    [HISTORY_S_PENDING] = "pending",
    [HISTORY_S_RUNNING] = "running",
    [HISTORY_S_COMPLETED] = "completed",
    [HISTORY_S_FAILED] = "failed",
    [HISTORY_S_CANCELLED] = "cancelled",
    [HISTORY_S_RELEASED] = "released",
};

#define BIT(x) (1U << (x))

/* Which results an operation has, and which of them a job's state would be no answer to. */
static const unsigned results_of[HISTORY_KINDS] = {
    [HISTORY_SUBMIT] = BIT(HISTORY_DONE) | BIT(HISTORY_CONFLICT),
    [HISTORY_CANCEL] = BIT(HISTORY_DONE) | BIT(HISTORY_ENDED) | BIT(HISTORY_MISSING),
    [HISTORY_GET] = BIT(HISTORY_DONE) | BIT(HISTORY_MISSING),
    [HISTORY_REPORT] = BIT(HISTORY_DONE) | BIT(HISTORY_STALE),
    [HISTORY_PUT] =
        BIT(HISTORY_DONE) | BIT(HISTORY_TAKEN) | BIT(HISTORY_MISMATCH) | BIT(HISTORY_MISSING),
    [HISTORY_DROP] = BIT(HISTORY_DONE) | BIT(HISTORY_MISMATCH) | BIT(HISTORY_MISSING),
    [HISTORY_SHOW] = BIT(HISTORY_DONE) | BIT(HISTORY_MISSING),
    [HISTORY_SET] = BIT(HISTORY_DONE),
    [HISTORY_READ] = BIT(HISTORY_DONE),
    [HISTORY_CAS] = BIT(HISTORY_DONE) | BIT(HISTORY_MISMATCH),
};

void history_init(struct history *h) {
    *h = (struct history){0};
    arena_init(&h->arena, ARENA_BYTES);
}

void history_done(struct history *h) {
    free(h->ops);
    arena_done(&h->arena);
    h->ops = NULL;
    h->count = h->cap = 0;
}

struct history_op *history_op_add(struct history *h) {
    if (h->count == h->cap) {
        size_t bigger = h->cap ? h->cap * 2 : 256;
        struct history_op *grown = realloc(h->ops, bigger * sizeof(*grown));

        if (!grown)
            return NULL;
        h->ops = grown;
        h->cap = bigger;
    }
    h->ops[h->count] = (struct history_op){.end_ns = HISTORY_NEVER};
    return &h->ops[h->count++];
}

const char *history_name(struct history *h, const char *s) {
    return arena_strdup(&h->arena, s);
}

/* ---- reading --------------------------------------------------------------------------------- */

struct line {
    struct history *h;
    uint32_t number;
    struct errtext *err;
    bool no_memory;
    bool result_said;
};

static bool bad(const struct line *l, const char *word, const char *right) {
    errtext_set(l->err, "line %" PRIu32 ": \"%.80s\": %s", l->number, word, right);
    return false;
}

static bool read_number(const struct line *l, const char *word, const char *digits, uint64_t *ret) {
    char *stop = NULL;

    errno = 0;
    *ret = digits[0] >= '0' && digits[0] <= '9' ? strtoull(digits, &stop, 10) : 0;
    if (!stop || *stop || errno)
        return bad(l, word, "a number expected");
    return true;
}

static bool read_time(const struct line *l, const char *word, int64_t *ret) {
    uint64_t v;

    if (!read_number(l, word, word, &v))
        return false;
    if (v >= HISTORY_NEVER)
        return bad(l, word, "nanoseconds below 2^63 - 1 expected");
    *ret = (int64_t) v;
    return true;
}

/* The place of @word in @names; -1 when it is none of them. */
static int place_of(const char *word, const char *const *names, int count) {
    for (int i = 0; i < count; i++)
        if (strcmp(word, names[i]) == 0)
            return i;
    return -1;
}

static bool read_state(const struct line *l, struct history_op *op, const char *word,
                       const char *value) {
    int s = place_of(value, state_names, HISTORY_STATES);

    if (op->kind == HISTORY_GET && strcmp(value, "missing") == 0) {
        op->result = HISTORY_MISSING;
        return true;
    }
    if (s <= HISTORY_S_NONE || (op->kind == HISTORY_GET && s == HISTORY_S_RELEASED) ||
        (op->kind == HISTORY_REPORT && s < HISTORY_S_COMPLETED))
        return bad(l, word, "not a state that this operation can name");
    op->state = (enum history_state) s;
    return true;
}

static bool read_result(struct line *l, struct history_op *op, const char *word,
                        const char *value) {
    int r = place_of(value, result_names, HISTORY_RESULTS);

    if (r < 0 || !(results_of[op->kind] & BIT(r)))
        return bad(l, word, "not a result of this operation");
    op->result = (enum history_result) r;
    l->result_said = true;
    return true;
}

static bool read_text(struct line *l, const char **field, const char *value) {
    *field = history_name(l->h, value);
    l->no_memory = !*field;
    return *field != NULL;
}

static bool read_flag(const struct line *l, bool *field, const char *word, const char *value) {
    if (strcmp(value, "0") != 0 && strcmp(value, "1") != 0)
        return bad(l, word, "0 or 1 expected");
    *field = value[0] == '1';
    return true;
}

static bool read_field(struct line *l, struct history_op *op, char *word) {
    char *value = strchr(word, '=');
    char name[32] = "";
    uint64_t n = 0;

    if (!value || value == word || value - word >= (int) sizeof(name) || !value[1])
        return bad(l, word, "name=value expected");
    memcpy(name, word, (size_t) (value - word));
    value++;
    if (strcmp(name, "key") == 0)
        return read_text(l, &op->key, value);
    if (strcmp(name, "request") == 0)
        return read_text(l, &op->request, value);
    if (strcmp(name, "job") == 0)
        return read_text(l, &op->job, value);
    if (strcmp(name, "schedule") == 0 || strcmp(name, "register") == 0)
        return read_text(l, &op->name, value);
    if (strcmp(name, "result") == 0)
        return read_result(l, op, word, value);
    if (strcmp(name, "state") == 0 || strcmp(name, "outcome") == 0)
        return read_state(l, op, word, value);
    if (strcmp(name, "create") == 0)
        return read_flag(l, &op->create, word, value);
    if (strcmp(name, "stale") == 0)
        return read_flag(l, &op->stale, word, value);
    if (strcmp(name, "cancel") == 0) {
        op->cancel_known = true;
        return read_flag(l, &op->cancel, word, value);
    }
    if (!read_number(l, word, value, &n))
        return false;
    if (strcmp(name, "attempt") == 0 && n < UINT32_MAX) {
        op->attempt = (uint32_t) n;
        op->attempt_known = true;
    } else if (strcmp(name, "index") == 0) {
        op->index = n;
    } else if (strcmp(name, "token") == 0) {
        op->token = n;
    } else if (strcmp(name, "version") == 0) {
        op->version = n;
    } else if (strcmp(name, "expect") == 0) {
        op->expect = n;
    } else if (strcmp(name, "value") == 0) {
        op->value = n;
    } else {
        return bad(l, word, "not a field of a history");
    }
    return true;
}

/* What an operation of its kind cannot be judged without. */
static bool complete(const struct line *l, const struct history_op *op) {
    bool named =
        op->kind >= HISTORY_PUT ? op->name != NULL : op->kind == HISTORY_SUBMIT || op->job != NULL;

    if (!named)
        return bad(l, kind_names[op->kind], "job=, schedule= or register= is missing");
    if (op->kind == HISTORY_SUBMIT && !op->request)
        return bad(l, "submit", "request= is missing");
    if (op->kind == HISTORY_SUBMIT && op->outcome == HISTORY_OK &&
        (op->result == HISTORY_DONE) != (op->job != NULL))
        return bad(l, "submit", "either job= or result=conflict expected");
    if (op->kind == HISTORY_SUBMIT && op->result == HISTORY_CONFLICT && !op->key)
        return bad(l, "submit", "a conflict without key=");
    if (op->outcome == HISTORY_OK && op->kind == HISTORY_GET && op->result == HISTORY_DONE &&
        op->state == HISTORY_S_NONE)
        return bad(l, "get", "state= is missing");
    if (op->kind == HISTORY_REPORT && (op->state == HISTORY_S_NONE || !op->attempt_known))
        return bad(l, "report", "attempt= and outcome= expected");
    if (op->outcome == HISTORY_OK && !l->result_said &&
        (results_of[op->kind] & (results_of[op->kind] - 1)) && op->kind != HISTORY_SUBMIT &&
        op->kind != HISTORY_GET)
        return bad(l, kind_names[op->kind], "result= is missing");
    return true;
}

static bool read_head(struct line *l, struct history_op *op, char **words) {
    uint64_t client;
    int outcome = place_of(words[3], outcome_names, 3);
    int kind = place_of(words[4], kind_names, HISTORY_KINDS);

    if (!read_number(l, words[0], words[0], &client) || !read_time(l, words[1], &op->begin_ns))
        return false;
    if (outcome < 0)
        return bad(l, words[3], "ok, fail or unknown expected");
    if (kind < 0)
        return bad(l, words[4], "not an operation");
    op->client = (uint32_t) client;
    op->outcome = (enum history_outcome) outcome;
    op->kind = (enum history_kind) kind;
    if (strcmp(words[2], "-") == 0)
        return outcome != HISTORY_OK || bad(l, words[2], "an answer has its time");
    if (!read_time(l, words[2], &op->end_ns))
        return false;
    if (op->end_ns < op->begin_ns)
        return bad(l, words[2], "the end is before the beginning");
    if (op->outcome == HISTORY_UNKNOWN)
        op->end_ns = HISTORY_NEVER; /* what timed out may still happen */
    return true;
}

int history_parse_line(struct history *h, const char *text, uint32_t line, struct errtext *reterr) {
    struct line l = {.h = h, .number = line, .err = reterr};
    char copy[HISTORY_LINE_BYTES_MAX], *words[WORDS_MAX], *save = NULL, *w;
    struct history_op op = {.line = line, .end_ns = HISTORY_NEVER}, *added;
    size_t count = 0, len = strlen(text);

    if (len >= sizeof(copy)) {
        errtext_set(reterr, "line %" PRIu32 ": %zu bytes, at most %zu expected", line, len,
                    sizeof(copy) - 1);
        return ERR_PROTO;
    }
    memcpy(copy, text, len + 1);
    for (w = strtok_r(copy, " \t\r\n", &save); w && count < WORDS_MAX;
         w = strtok_r(NULL, " \t\r\n", &save))
        words[count++] = w;
    if (count == 0 || words[0][0] == '#')
        return 0;
    if (count < 5 || w) {
        (void) bad(&l, words[0], "CLIENT BEGIN END OUTCOME OPERATION [name=value ...] expected");
        return ERR_PROTO;
    }
    if (!read_head(&l, &op, words))
        return ERR_PROTO;
    for (size_t i = 5; i < count; i++)
        if (!read_field(&l, &op, words[i]))
            return l.no_memory ? -ENOMEM : ERR_PROTO;
    if (!complete(&l, &op))
        return ERR_PROTO;
    added = history_op_add(h);
    if (!added)
        return -ENOMEM;
    *added = op;
    return 0;
}

/* ---- writing --------------------------------------------------------------------------------- */

struct printer {
    char *out;
    size_t bytes;
    int len;
};

static void put(struct printer *p, const char *fmt, ...) _printf_(2, 3);
static void put(struct printer *p, const char *fmt, ...) {
    size_t at = MIN((size_t) p->len, p->bytes);
    va_list ap;

    va_start(ap, fmt);
    p->len += vsnprintf(p->bytes ? p->out + at : NULL, p->bytes - at, fmt, ap);
    va_end(ap);
}

static void print_names(struct printer *p, const struct history_op *op) {
    if (op->key)
        put(p, " key=%s", op->key);
    if (op->request)
        put(p, " request=%s", op->request);
    if (op->job)
        put(p, " job=%s", op->job);
    if (op->name)
        put(p, " %s=%s", op->kind >= HISTORY_SET ? "register" : "schedule", op->name);
}

static void print_arguments(struct printer *p, const struct history_op *op) {
    if (op->kind == HISTORY_PUT)
        put(p, " create=%d", (int) op->create);
    if (op->expect != 0 || op->kind == HISTORY_CAS)
        put(p, " expect=%" PRIu64, op->expect);
    if (op->kind == HISTORY_SET || op->kind == HISTORY_CAS ||
        (op->kind == HISTORY_READ && op->outcome == HISTORY_OK))
        put(p, " value=%" PRIu64, op->value);
    if (op->attempt_known)
        put(p, " attempt=%" PRIu32, op->attempt);
    if (op->kind == HISTORY_REPORT)
        put(p, " outcome=%s", state_names[op->state]);
}

static void print_answer(struct printer *p, const struct history_op *op) {
    unsigned results = results_of[op->kind];

    if (op->kind == HISTORY_GET)
        put(p, " state=%s", op->result == HISTORY_MISSING ? "missing" : state_names[op->state]);
    else if ((results & (results - 1)) &&
             (op->kind != HISTORY_SUBMIT || op->result != HISTORY_DONE))
        put(p, " result=%s", result_names[op->result]);
    if (op->cancel_known)
        put(p, " cancel=%d", (int) op->cancel);
    if (op->version != 0)
        put(p, " version=%" PRIu64, op->version);
    if (op->index != 0)
        put(p, " index=%" PRIu64, op->index);
}

int history_print(const struct history_op *op, char *out, size_t out_bytes) {
    struct printer p = {.out = out, .bytes = out_bytes};

    put(&p, "%" PRIu32 " %" PRId64 " ", op->client, op->begin_ns);
    if (op->end_ns == HISTORY_NEVER)
        put(&p, "- ");
    else
        put(&p, "%" PRId64 " ", op->end_ns);
    put(&p, "%s %s", outcome_names[op->outcome], kind_names[op->kind]);
    print_names(&p, op);
    print_arguments(&p, op);
    if (op->outcome == HISTORY_OK)
        print_answer(&p, op);
    if (op->stale)
        put(&p, " stale=1 token=%" PRIu64, op->token);
    return p.len;
}
