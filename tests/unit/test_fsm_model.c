/* The state machine against a second, naive one, and replicas against each other. */
#include "fsm_fixture.h"

#include "base/rand.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define S(x) CHRONOS__V1__JOB_STATE__JOB_STATE_##x
#define O(x) CHRONOS__V1__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_##x
#define R(x) CHRONOS__V1__FAILURE_REASON__FAILURE_REASON_##x

#define JOBS_MAX 2000
#define WORKERS 4
#define KEYS 12
#define KEYS_REMEMBERED_MAX 6
#define ENTRIES 3000

struct model_job {
    unsigned state, attempt, lost, max_attempts;
    uint64_t token;
    int worker;
    bool cancel;
    int reason; /* FAILED only */
};

struct model_worker {
    bool known, lost;
    uint64_t incarnation;
    unsigned slots;
};

struct model_key {
    bool used;
    char hash;
    uint64_t seq;
    int64_t created_ms;
};

struct model {
    struct model_job jobs[JOBS_MAX];
    uint64_t next;
    struct model_worker workers[WORKERS];
    struct model_key keys[KEYS];
    int64_t now_ms;
    uint64_t index;
    unsigned events; /* of the last command */
};

static const char *worker_name(int w) {
    static const char *const names[WORKERS] = {"alpha", "beta", "gamma", "delta"};

    return names[w];
}

static void model_move(struct model *m, struct model_job *j, unsigned state) {
    j->state = state;
    if (state != S(RUNNING))
        j->worker = -1;
    m->events++;
}

static void model_lose_job(struct model *m, struct model_job *j) {
    j->lost++;
    j->reason = R(WORKER_LOST);
    if (j->cancel)
        model_move(m, j, S(CANCELLED));
    else
        model_move(m, j, j->lost < j->max_attempts ? S(PENDING) : S(FAILED));
}

static unsigned model_running(const struct model *m, int w) {
    unsigned n = 0;

    for (uint64_t i = 1; i < m->next; i++)
        n += m->jobs[i].state == S(RUNNING) && m->jobs[i].worker == w;
    return n;
}

/* Forget expired keys, and the oldest while there are more than @room_for. */
static void model_purge(struct model *m, unsigned most) {
    for (;;) {
        struct model_key *oldest = NULL;
        unsigned n = 0;

        for (int i = 0; i < KEYS; i++) {
            struct model_key *k = &m->keys[i];

            if (!k->used)
                continue;
            n++;
            if (!oldest || k->seq < oldest->seq)
                oldest = k;
        }
        if (!oldest || (n <= most && m->now_ms - oldest->created_ms < FSM_IDEMPOTENCY_KEEP_MS))
            return;
        oldest->used = false;
    }
}

static enum fsm_code model_submit(struct model *m, int key, char hash, unsigned max_attempts) {
    if (key >= 0 && m->keys[key].used)
        return m->keys[key].hash == hash ? FSM_EXISTING : FSM_KEY_CONFLICT;
    if (key >= 0) {
        model_purge(m, KEYS_REMEMBERED_MAX - 1);
        m->keys[key] = (struct model_key){true, hash, m->next, m->now_ms};
    }
    m->jobs[m->next] = (struct model_job){.max_attempts = max_attempts, .worker = -1};
    model_move(m, &m->jobs[m->next], S(PENDING));
    m->next++;
    return FSM_OK;
}

static bool model_known(const struct model *m, uint64_t seq) {
    return seq > 0 && seq < m->next;
}

static enum fsm_code model_assign(struct model *m, uint64_t seq, int w, uint64_t incarnation) {
    struct model_worker *mw = &m->workers[w];
    struct model_job *j;

    if (!model_known(m, seq))
        return FSM_NOT_FOUND;
    j = &m->jobs[seq];
    if (j->state != S(PENDING))
        return FSM_NOT_PENDING;
    if (!mw->known || mw->lost || mw->incarnation != incarnation ||
        model_running(m, w) >= mw->slots)
        return FSM_WORKER_GONE;
    model_move(m, j, S(RUNNING));
    j->worker = w;
    j->attempt++;
    j->token = m->index;
    return FSM_OK;
}

static void model_release(struct model *m, struct model_job *j, bool started) {
    if (started && j->max_attempts == 1)
        model_lose_job(m, j);
    else
        model_move(m, j, j->cancel ? S(CANCELLED) : S(PENDING));
}

/* A late report counts only when the job ended as it says: an attempt lost with its worker keeps
 * its token, but its result came too late. */
static bool model_ended_like(const struct model_job *j, int outcome, bool started) {
    if (outcome == O(COMPLETED))
        return j->state == S(COMPLETED);
    if (outcome == O(FAILED))
        return j->state == S(FAILED) && j->reason == R(EXIT_CODE);
    if (outcome == O(CANCELLED))
        return j->state == S(CANCELLED) || (j->state == S(FAILED) && j->reason == R(SIGNAL));
    return outcome == O(RELEASED) &&
           (j->state == S(CANCELLED) || (started && j->max_attempts == 1 && j->state == S(FAILED) &&
                                         j->reason == R(WORKER_LOST)));
}

static enum fsm_code model_update(struct model *m, uint64_t seq, uint64_t token, int outcome,
                                  bool started) {
    struct model_job *j;

    if (!model_known(m, seq))
        return FSM_NOT_FOUND;
    j = &m->jobs[seq];
    if (j->state != S(PENDING) && j->state != S(RUNNING))
        return token > 0 && token == j->token && model_ended_like(j, outcome, started) ? FSM_OK
                                                                                       : FSM_STALE;
    if (j->state != S(RUNNING) || token != j->token)
        return FSM_STALE;
    j->reason = outcome == O(FAILED) ? R(EXIT_CODE) : R(SIGNAL);
    if (outcome == O(COMPLETED))
        model_move(m, j, S(COMPLETED));
    else if (outcome == O(FAILED))
        model_move(m, j, S(FAILED));
    else if (outcome == O(CANCELLED))
        model_move(m, j, j->cancel ? S(CANCELLED) : S(FAILED));
    else if (outcome == O(RELEASED))
        model_release(m, j, started);
    else
        return FSM_REFUSED;
    return FSM_OK;
}

static enum fsm_code model_cancel(struct model *m, uint64_t seq) {
    struct model_job *j;

    if (!model_known(m, seq))
        return FSM_NOT_FOUND;
    j = &m->jobs[seq];
    if (j->state != S(PENDING) && j->state != S(RUNNING))
        return FSM_TERMINAL;
    if (j->cancel)
        return FSM_OK;
    j->cancel = true;
    if (j->state == S(PENDING))
        model_move(m, j, S(CANCELLED));
    else
        m->events++;
    return FSM_OK;
}

static void model_lose_all(struct model *m, int w, const uint64_t (*held)[2], size_t held_count) {
    for (uint64_t i = 1; i < m->next; i++) {
        struct model_job *j = &m->jobs[i];
        bool keep = false;

        if (j->state != S(RUNNING) || j->worker != w)
            continue;
        for (size_t h = 0; h < held_count; h++)
            keep |= held[h][0] == i && held[h][1] == j->token;
        if (!keep)
            model_lose_job(m, j);
    }
}

static enum fsm_code model_lose(struct model *m, int w, uint64_t incarnation) {
    struct model_worker *mw = &m->workers[w];

    if (!mw->known)
        return FSM_NOT_FOUND;
    if (mw->lost || mw->incarnation != incarnation)
        return FSM_WORKER_GONE;
    model_lose_all(m, w, NULL, 0);
    mw->lost = true;
    return FSM_OK;
}

/* ---- one random command, for both -------------------- */

static uint64_t random_seq(struct rng *rng, const struct model *m) {
    uint64_t recent = m->next > 30 ? m->next - 30 : 0;

    return rng_chance(rng, 900) ? rng_range(rng, recent, m->next) : rng_below(rng, m->next + 3);
}

static uint64_t random_incarnation(struct rng *rng, const struct model *m, int w) {
    return rng_chance(rng, 900) ? m->workers[w].incarnation : rng_range(rng, 1, 5);
}

static struct bytes *random_register(struct rng *rng, struct model *m, int64_t stamp,
                                     enum fsm_code *want) {
    int w = (int) rng_below(rng, WORKERS);
    struct model_worker *mw = &m->workers[w];
    uint64_t held[32][2];
    size_t n = 0;

    for (uint64_t i = 1; i < m->next && n < 32; i++) {
        const struct model_job *j = &m->jobs[i];

        if (j->state == S(RUNNING) && (j->worker == w || rng_chance(rng, 50)) &&
            rng_chance(rng, 800)) {
            held[n][0] = i;
            held[n++][1] = rng_chance(rng, 900) ? j->token : j->token + 1;
        }
    }
    model_lose_all(m, w, (const uint64_t(*)[2]) held, n);
    mw->known = true;
    mw->lost = false;
    if (rng_chance(rng, 500))
        mw->incarnation = rng_range(rng, 1, 1000);
    mw->slots = (unsigned) rng_range(rng, 1, 6);
    *want = FSM_OK;
    return cmd_register(worker_name(w), mw->incarnation, mw->slots, rng_range(rng, 1, 3),
                        (const uint64_t(*)[2]) held, n, stamp);
}

static struct bytes *random_submit(struct rng *rng, struct model *m, int64_t stamp,
                                   enum fsm_code *want) {
    int key = rng_chance(rng, 400) ? (int) rng_below(rng, KEYS) : -1;
    char hash[2] = {rng_chance(rng, 700) ? 'x' : 'y', 0};
    unsigned max = (unsigned) rng_range(rng, 1, 4);
    char name[16] = "", spec[200];
    size_t spec_bytes = rng_below(rng, sizeof(spec));

    if (key >= 0)
        (void) snprintf(name, sizeof(name), "key-%d", key);
    memset(spec, 's', sizeof(spec));
    spec[spec_bytes] = '\0';
    *want = model_submit(m, key, hash[0], max);
    return cmd_submit(spec, name, hash, max, stamp);
}

static struct bytes *random_update(struct rng *rng, struct model *m, int64_t stamp,
                                   enum fsm_code *want) {
    uint64_t seq = random_seq(rng, m);
    uint64_t token = rng_chance(rng, 800) && model_known(m, seq) ? m->jobs[seq].token
                                                                 : rng_below(rng, m->index + 1);
    int outcome = (int) rng_below(rng, 6);
    bool started = rng_chance(rng, 500);

    *want = model_update(m, seq, token, outcome, started);
    if (outcome == O(RELEASED))
        return cmd_release(seq, token, started, stamp);
    return cmd_update(seq, token, (Chronos__V1__AttemptOutcome) outcome, R(EXIT_CODE), stamp);
}

static struct bytes *random_command(struct rng *rng, struct model *m, int64_t stamp,
                                    enum fsm_code *want) {
    uint64_t dice = rng_below(rng, 100), seq = random_seq(rng, m);
    int w = (int) rng_below(rng, WORKERS);
    uint64_t incarnation = random_incarnation(rng, m, w);

    m->index++;
    m->events = 0;
    m->now_ms = MAX(m->now_ms, stamp);
    model_purge(m, KEYS_REMEMBERED_MAX);
    if (dice < 30 && m->next < JOBS_MAX)
        return random_submit(rng, m, stamp, want);
    if (dice < 60) {
        *want = model_assign(m, seq, w, incarnation);
        return cmd_assign(seq, worker_name(w), incarnation, stamp);
    }
    if (dice < 80)
        return random_update(rng, m, stamp, want);
    if (dice < 88) {
        *want = model_cancel(m, seq);
        return cmd_cancel(seq, stamp);
    }
    if (dice < 92) {
        *want = model_lose(m, w, incarnation);
        return cmd_lose(worker_name(w), incarnation, stamp);
    }
    return random_register(rng, m, stamp, want);
}

static void compare(const struct model *m, struct fixture *x) {
    uint64_t counts[6] = {0};
    const struct fsm_job *ready = fsm_ready_first(x->f);

    assert_int_equal(fsm_next_seq(x->f), m->next);
    for (uint64_t i = 1; i < m->next; i++) {
        const struct model_job *mj = &m->jobs[i];
        const struct fsm_job *j = fsm_job_find(x->f, i);

        counts[mj->state]++;
        assert_int_equal(j != NULL, mj->state == S(PENDING) || mj->state == S(RUNNING));
        if (!j)
            continue;
        assert_int_equal(j->state, mj->state);
        assert_int_equal(j->attempt, mj->attempt);
        assert_int_equal(j->fencing_token, mj->token);
        assert_int_equal(j->cancel_requested, mj->cancel);
        if (mj->state == S(RUNNING))
            assert_string_equal(j->worker->id, worker_name(mj->worker));
        if (mj->state == S(PENDING)) { /* the queue's order is the order of submission */
            assert_ptr_equal(ready, j);
            ready = ready->ready_next;
        }
    }
    assert_null(ready);
    for (unsigned s = S(PENDING); s <= S(CANCELLED); s++)
        assert_int_equal(fsm_jobs_count(x->f, (Chronos__V1__JobState) s), counts[s]);
}

/* ---- replicas -------------------- */

struct history {
    struct bytes *entries[ENTRIES + 1]; /* by index */
    uint8_t digests[ENTRIES + 1][16];
    enum fsm_code codes[ENTRIES + 1];
    uint64_t last;
};

/* Apply the next entry of the history to @x, and demand the results and the digest of the first
 * time. */
static void replay_one(struct fixture *x, const struct history *h) {
    uint64_t index = fsm_applied_index(x->f) + 1;
    uint8_t digest[16];

    assert_int_equal(fixture_apply(x, h->entries[index]), 0);
    assert_int_equal(x->out->results_count, 1);
    assert_int_equal(x->out->results[0].code, h->codes[index]);
    fsm_digest(x->f, digest);
    assert_memory_equal(digest, h->digests[index], 16);
}

static void catch_up(struct fixture *x, const struct history *h) {
    while (fsm_applied_index(x->f) < h->last)
        replay_one(x, h);
}

/* A power cut of the disturbed replica, then the log again from where its store is. */
static void crash(struct fixture *x, struct rng *rng, const struct history *h) {
    uint8_t digest[16];
    uint64_t at;

    if (rng_chance(rng, 300))
        assert_int_equal(x->kv->ops->flush(x->kv), 0);
    fixture_crash(x, rng_below(rng, kv_mem_unflushed(x->kv) + 1));
    at = fsm_applied_index(x->f);
    assert_true(at <= h->last);
    if (at > 0) {
        fsm_digest(x->f, digest);
        assert_memory_equal(digest, h->digests[at], 16);
    }
    fsm_check_invariants(x->f);
    catch_up(x, h);
}

static void run_seed(uint64_t seed) {
    const struct fsm_options o = {.idempotency_max = KEYS_REMEMBERED_MAX,
                                  .overlay_bytes_max = 4096};
    struct model *m = calloc(1, sizeof(*m));
    struct history *h = calloc(1, sizeof(*h));
    struct rng rng = rng_seed(seed), chaos = rng_seed(seed ^ 0x5eed);
    struct fixture calm, wild;
    int64_t clock_ms = 1000000;

    assert_true(m != NULL && h != NULL);
    m->next = 1;
    fixture_init(&calm, &o);
    fixture_init(&wild, &o);
    for (uint64_t i = 1; i <= ENTRIES; i++) {
        enum fsm_code want = FSM_OK;

        /* Leaders' clocks differ and jump, also backwards, also by days. */
        clock_ms += rng_chance(&rng, 20) ? (int64_t) rng_below(&rng, FSM_IDEMPOTENCY_KEEP_MS)
                                         : (int64_t) rng_below(&rng, 1000) - 400;
        h->entries[i] = random_command(&rng, m, MAX(clock_ms, 0), &want);
        assert_int_equal(command_check(bytes_slice(h->entries[i]), NULL), 0);
        assert_int_equal(fixture_apply(&calm, h->entries[i]), 0);
        assert_int_equal(calm.out->results[0].code, want);
        assert_int_equal(calm.out->events_count, m->events);
        assert_true(fsm_last_now_ms(calm.f) == m->now_ms);
        h->codes[i] = want;
        fsm_digest(calm.f, h->digests[i]);
        h->last = i;
        if (i % 50 == 0) {
            compare(m, &calm);
            fsm_check_invariants(calm.f);
        }
        catch_up(&wild, h);
        if (rng_chance(&chaos, 100) || fsm_wants_write_back(wild.f))
            assert_int_equal(fsm_write_back(wild.f), 0);
        if (rng_chance(&chaos, 20))
            crash(&wild, &chaos, h);
        if (i % 100 == 0) {
            compare(m, &wild);
            fsm_check_invariants(wild.f);
        }
    }
    for (uint64_t i = 1; i <= ENTRIES; i++)
        (void) bytes_unref(h->entries[i]);
    fixture_done(&calm);
    fixture_done(&wild);
    free(m);
    free(h);
}

/* Goal: results, events, states, queue order and clocks are those of a naive second implementation,
 * whatever the write-backs and power cuts; replayed entries give the same results and digests
 * (J2, J7, J11, J12, J15-J20, J25, R22).
 * Method: random commands from printed seeds; one replica is never written back, the other is
 * written back at random, loses power with any prefix of its batches, and is replayed. */
static void test_model(void **state) {
    (void) state;
    for (uint64_t seed = 1; seed <= 12; seed++) {
        print_message("seed %llu\n", (unsigned long long) seed);
        run_seed(seed);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_model)};

    return cmocka_run_group_tests_name("fsm_model", tests, NULL, NULL);
}
