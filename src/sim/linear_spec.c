/* What is right: registers, idempotency keys, jobs and schedules, one operation after the other.
 * See linear.h. Written from semantics.md and the protocol, not from fsm/. Pure. */
#include "sim/linear.h"

#include <string.h>

static bool told(const struct history_op *op) {
    return op->outcome == HISTORY_OK;
}

/* Names are compared by a hash of 63 bits, never 0: states are numbers. */
static uint64_t name_hash(const char *s) {
    uint64_t h = 0xcbf29ce484222325ULL;

    for (; *s; s++)
        h = (h ^ (uint8_t) *s) * 0x100000001b3ULL;
    return (h ^ h >> 31) | 1;
}

/* ---- a register: w[0] = its value -------------------------------------------------------------
 */

static bool step_register(const struct history_op *op, const struct linear_state *s,
                          struct linear_state *ret) {
    *ret = *s;
    if (op->kind == HISTORY_READ)
        return told(op) && op->value == s->w[0];
    if (op->kind == HISTORY_CAS && told(op) && op->result == HISTORY_MISMATCH)
        return s->w[0] != op->expect;
    if (op->kind == HISTORY_CAS && s->w[0] != op->expect)
        return false;
    ret->w[0] = op->value;
    return true;
}

const struct linear_spec linear_register = {.name = "register", .step = step_register};

/* ---- an idempotency key: w[0] = request it belongs to, w[1] = job, 0 = not known ---------------
 */

/* J2, J3: one request, one job, for ever (within the 24 h that no history here reaches). */
static bool step_key(const struct history_op *op, const struct linear_state *s,
                     struct linear_state *ret) {
    uint64_t request = name_hash(op->request), job = op->job ? name_hash(op->job) : 0;

    *ret = *s;
    if (told(op) && op->result == HISTORY_CONFLICT)
        return s->w[0] != 0 && s->w[0] != request;
    if (s->w[0] == 0) {
        ret->w[0] = request;
        ret->w[1] = told(op) ? job : 0;
        return true;
    }
    if (!told(op) || s->w[0] != request || (s->w[1] != 0 && s->w[1] != job))
        return false;
    ret->w[1] = job;
    return true;
}

const struct linear_spec linear_key = {.name = "key", .step = step_key};

/* ---- a job ------------------------------------------------------------------------------------
 */

/* Workers and leaders move a job between what clients see, so a state here is a set: which of the
 * classes below the job may be in by now (w[0]), how far it was when last seen (w[1]), and what is
 * known for good: the attempt plus 1 (w[2]), the final state (w[3]); 0 = not known.
 *
 * How far: waiting after n attempts is 2n, running the n-th is 2n - 1. A job only goes up. */
#define ABSENT 1U
#define OPEN 2U       /* waits or runs, nobody has cancelled it */
#define STOPPING 4U   /* runs, cancelled */
#define ENDED 8U      /* by itself: completed or failed */
#define ENDED_ALL 16U /* completed or failed after it had been cancelled */
#define CANCELLED 32U
#define UNMADE 64U /* absent, and somebody whose outcome nobody knows may make it at any time */

/* What follows without anybody asking. */
static void settle(struct linear_state *s) {
    if (s->w[0] & UNMADE)
        s->w[0] |= OPEN;
    if (s->w[0] & OPEN)
        s->w[0] |= ENDED;
    if (s->w[0] & STOPPING)
        s->w[0] |= ENDED_ALL | CANCELLED;
}

/* May the job be running its attempt as told, or (@waits) waiting after it? */
static bool reaches(const struct linear_state *s, const struct history_op *op, bool waits) {
    uint64_t twice = 2ULL * op->attempt;

    if (!op->attempt_known)
        return true;
    if (s->w[2] != 0)
        return s->w[2] == (uint64_t) op->attempt + 1;
    return waits ? twice >= s->w[1] : twice > s->w[1];
}

static bool may_end_as(const struct linear_state *s, enum history_state state) {
    return s->w[3] == 0 || s->w[3] == (uint64_t) state;
}

static void note_attempt(struct linear_state *s, const struct history_op *op, bool for_good) {
    if (op->attempt_known && for_good)
        s->w[2] = (uint64_t) op->attempt + 1;
}

static bool seen_open(const struct history_op *op, const struct linear_state *s,
                      struct linear_state *ret) {
    bool waits = op->state == HISTORY_S_PENDING;
    uint64_t classes = s->w[0] & (waits ? OPEN : OPEN | STOPPING);

    if (op->cancel_known)
        classes &= op->cancel ? STOPPING : OPEN;
    if (classes == 0 || !reaches(s, op, waits))
        return false;
    ret->w[0] = classes;
    if (op->attempt_known)
        ret->w[1] = 2ULL * op->attempt - !waits;
    note_attempt(ret, op, classes == STOPPING);
    settle(ret);
    return true;
}

static bool seen_ended(const struct history_op *op, const struct linear_state *s,
                       struct linear_state *ret) {
    bool cancelled = op->state == HISTORY_S_CANCELLED;
    uint64_t classes = s->w[0] & (cancelled ? CANCELLED : ENDED | ENDED_ALL);

    if (op->cancel_known)
        classes &= op->cancel ? ENDED_ALL | CANCELLED : ENDED;
    if (classes == 0 || !may_end_as(s, op->state) ||
        !(reaches(s, op, false) || (cancelled && reaches(s, op, true))))
        return false;
    ret->w[0] = classes;
    ret->w[3] = (uint64_t) op->state;
    note_attempt(ret, op, true);
    return true;
}

/* It is not there. */
static bool is_missing(const struct linear_state *s, struct linear_state *ret) {
    *ret = (struct linear_state){.w = {s->w[0] & (ABSENT | UNMADE)}};
    settle(ret);
    return ret->w[0] != 0;
}

static bool step_get(const struct history_op *op, const struct linear_state *s,
                     struct linear_state *ret) {
    if (!told(op))
        return false;
    if (op->result == HISTORY_MISSING)
        return is_missing(s, ret);
    if (op->state <= HISTORY_S_RUNNING)
        return seen_open(op, s, ret);
    return seen_ended(op, s, ret);
}

/* J19: from an acknowledged cancel on there is no further attempt. */
static bool step_cancel(const struct history_op *op, const struct linear_state *s,
                        struct linear_state *ret) {
    if (told(op) && op->result == HISTORY_MISSING)
        return is_missing(s, ret);
    if (told(op) && op->result == HISTORY_ENDED) {
        ret->w[0] = s->w[0] & (ENDED | ENDED_ALL | CANCELLED);
        return ret->w[0] != 0;
    }
    if (s->w[0] & OPEN)
        ret->w[0] = STOPPING;
    else if (told(op)) /* again: it changes nothing, also when the job is cancelled by now */
        ret->w[0] = s->w[0] & (STOPPING | CANCELLED);
    else
        return false; /* nothing that it would change */
    settle(ret);
    return ret->w[0] != 0;
}

/* J12: what a worker is told counts, once: the same again is fine. */
static bool step_report(const struct history_op *op, const struct linear_state *s,
                        struct linear_state *ret) {
    uint64_t w = s->w[0], to = 0;

    if (!told(op) || op->result == HISTORY_STALE)
        return told(op);
    if (!reaches(s, op, false))
        return false;
    if (op->state == HISTORY_S_RELEASED) {
        to = w & (OPEN | CANCELLED | ENDED);
        if (w & STOPPING)
            to |= CANCELLED;
        ret->w[0] = to;
        ret->w[1] = 2ULL * op->attempt - (op->attempt > 0);
        settle(ret);
        return to != 0;
    }
    if (op->state == HISTORY_S_CANCELLED) { /* nobody asked: it failed */
        to = w & (CANCELLED | ENDED | ENDED_ALL);
        ret->w[0] = to;
        note_attempt(ret, op, true);
        return to != 0;
    }
    to = w & (ENDED | ENDED_ALL);
    ret->w[0] = to;
    ret->w[3] = (uint64_t) op->state;
    note_attempt(ret, op, true);
    return to != 0 && may_end_as(s, op->state);
}

static bool step_job(const struct history_op *op, const struct linear_state *s,
                     struct linear_state *ret) {
    *ret = *s;
    if (op->kind == HISTORY_GET)
        return step_get(op, s, ret);
    if (op->kind == HISTORY_CANCEL)
        return step_cancel(op, s, ret);
    if (op->kind == HISTORY_REPORT)
        return step_report(op, s, ret);
    if (s->w[0] & (ABSENT | UNMADE)) {
        /* With a key it may have been made by an earlier try. */
        ret->w[0] = op->key ? s->w[0] & ~(uint64_t) (ABSENT | UNMADE) : 0;
        ret->w[0] |= OPEN;
        settle(ret);
        return true;
    }
    return op->key != NULL;
}

const struct linear_spec linear_job = {.name = "job", .step = step_job};

/* ---- a schedule: w[0] = it is there, w[1] = its version, 0 = not known, w[2] = newest version
 * that the name ever had, for no version comes again ------------------------------------------- */

static bool version_fits(const struct linear_state *s, uint64_t version) {
    return version == 0 || (s->w[1] == 0 ? version > s->w[2] : s->w[1] == version);
}

/* A new definition. */
static bool take_version(const struct history_op *op, struct linear_state *ret) {
    uint64_t version = told(op) ? op->version : 0;

    if (version != 0 && version <= ret->w[2])
        return false;
    ret->w[0] = 1;
    ret->w[1] = version;
    ret->w[2] = MAX(ret->w[2], version);
    return true;
}

static bool mismatches(const struct history_op *op, const struct linear_state *s) {
    return s->w[0] != 0 && (s->w[1] == 0 || s->w[1] != op->expect);
}

static bool step_put(const struct history_op *op, const struct linear_state *s,
                     struct linear_state *ret) {
    if (op->create && told(op) && op->result == HISTORY_TAKEN)
        return s->w[0] != 0;
    if (op->create)
        return s->w[0] == 0 && take_version(op, ret);
    if (told(op) && op->result == HISTORY_MISMATCH)
        return mismatches(op, s);
    if (s->w[0] == 0 || !version_fits(s, op->expect))
        return false;
    ret->w[2] = MAX(s->w[2], op->expect);
    return take_version(op, ret);
}

static bool step_schedule(const struct history_op *op, const struct linear_state *s,
                          struct linear_state *ret) {
    *ret = *s;
    if (told(op) && op->result == HISTORY_MISSING)
        return s->w[0] == 0;
    if (op->kind == HISTORY_PUT)
        return step_put(op, s, ret);
    if (op->kind == HISTORY_SHOW) {
        if (!told(op) || s->w[0] == 0 || !version_fits(s, op->version))
            return false;
        ret->w[1] = op->version ? op->version : s->w[1];
        ret->w[2] = MAX(s->w[2], op->version);
        return true;
    }
    if (told(op) && op->result == HISTORY_MISMATCH)
        return mismatches(op, s);
    ret->w[0] = ret->w[1] = 0;
    ret->w[2] = MAX(s->w[2], op->expect);
    return s->w[0] != 0 && version_fits(s, op->expect);
}

const struct linear_spec linear_schedule = {.name = "schedule", .step = step_schedule};
