/* The state machine against a second, naive one, and replicas against each other. */
#include "schedule_fixture.h"
#include "schedule_model.h"

#include "base/rand.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define ENTRIES 3000
#define REASONS 23

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
    mw->node = rng_range(rng, 1, NODES);
    *want = FSM_OK;
    return cmd_register(worker_name(w), mw->incarnation, mw->slots, mw->node,
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

/* A running job, so that slots become free again; any job when none runs. */
static uint64_t random_running(struct rng *rng, const struct model *m) {
    uint64_t from = rng_below(rng, m->next);

    for (uint64_t i = 0; i < m->next; i++) {
        uint64_t seq = (from + i) % m->next;

        if (m->jobs[seq].state == S(RUNNING))
            return seq;
    }
    return random_seq(rng, m);
}

static struct bytes *random_update(struct rng *rng, struct model *m, int64_t stamp,
                                   enum fsm_code *want) {
    uint64_t seq = rng_chance(rng, 600) ? random_running(rng, m) : random_seq(rng, m);
    uint64_t token = rng_chance(rng, 800) && model_known(m, seq) ? m->jobs[seq].token
                                                                 : rng_below(rng, m->index + 1);
    int outcome = (int) rng_below(rng, 6);
    bool started = rng_chance(rng, 500);

    *want = model_update(m, seq, token, outcome, started);
    if (outcome == O(RELEASED))
        return cmd_release(seq, token, started, stamp);
    return cmd_update(seq, token, (Chronos__V1__AttemptOutcome) outcome, R(EXIT_CODE), stamp);
}

static struct bytes *random_cluster(struct rng *rng, struct model *m, int64_t stamp,
                                    enum fsm_code *want) {
    uint64_t dice = rng_below(rng, 100), node = rng_below(rng, NODES + 1);
    int64_t timeout_ms = (int64_t) rng_below(rng, 5000) - 50;
    unsigned level = (unsigned) rng_below(rng, LEVELS + 1);
    int w = (int) rng_below(rng, WORKERS);
    bool on = rng_chance(rng, 350);

    if (dice < 40) {
        uint8_t disk = (uint8_t) (rng_chance(rng, 900) ? node : rng_below(rng, 3));

        level = rng_chance(rng, 700) ? LEVELS : level;
        *want = model_set_node(m, node, disk, level);
        return cmd_set_node(node, disk, rng_chance(rng, 500) ? "peer:1" : "", "client:1", level,
                            stamp);
    }
    if (dice < 60) {
        *want = model_drain_node(m, node, on, timeout_ms);
        return cmd_drain(node, "", on, timeout_ms, stamp);
    }
    if (dice < 85) {
        *want = model_drain_worker(m, w, on, timeout_ms);
        return cmd_drain(0, worker_name(w), on, timeout_ms, stamp);
    }
    *want = model_set_level(m, level);
    return cmd_set_feature_level(level, stamp);
}

static struct bytes *random_put(struct rng *rng, struct model *m, int64_t stamp,
                                enum fsm_code *want) {
    int n = (int) rng_below(rng, SCHEDULES);
    const struct put_args p = {
        .name = schedule_name(n),
        .replace = rng_chance(rng, 400),
        .new_generation = rng_chance(rng, 500),
        .version = rng_chance(rng, 300) ? m->schedules[n].version + rng_below(rng, 3) : 0,
        .overlap = (int) rng_below(rng, 6),
        .pause_on_failure = rng_chance(rng, 200),
        .max_runs = rng_chance(rng, 300) ? rng_range(rng, 1, 20) : 0,
        .max_attempts = (uint32_t) rng_range(rng, 1, 3)};

    *want = model_put(m, n, !p.replace, p.new_generation, p.version, p.overlap, p.pause_on_failure,
                      (unsigned) p.max_runs, p.max_attempts);
    return cmd_put_schedule(&p, stamp);
}

/* Mostly what comes next; now and then what came before, or what cannot be. */
static struct bytes *random_ticks(struct rng *rng, struct model *m, int64_t stamp,
                                  enum fsm_code *want) {
    const struct model_schedule *s = &m->schedules[rng_below(rng, SCHEDULES)];
    uint64_t generation = rng_chance(rng, 950) ? s->generation : s->generation - 1;
    int64_t now_s = m->now_ms / 1000, at = s->watermark_s - 1;
    struct model_ticks_args a = {.count = rng_below(rng, 4)};
    struct tick_args t[4] = {0};

    if (rng_chance(rng, 700))
        at += 2;
    for (size_t i = 0; i < a.count; i++) {
        bool missed = rng_chance(rng, 150);

        at += (int64_t) rng_below(rng, 3) + (i > 0 && rng_chance(rng, 980));
        at = MAX(at, 0);
        a.ticks[i].tick_s = t[i].tick_s = at;
        at += missed ? (int64_t) rng_below(rng, 3) : 0;
        a.ticks[i].last_tick_s = t[i].last_tick_s = at;
        t[i].count = (uint64_t) (t[i].last_tick_s - t[i].tick_s) + 1;
        a.ticks[i].reason = t[i].reason = missed ? R_(MISSED) : R_(ON_TIME);
        if (t[i].last_tick_s == 0)
            t[i].count = 1;
    }
    a.watermark_s = rng_chance(rng, 500) ? now_s : at + (int64_t) rng_below(rng, 2);
    *want = model_ticks(m, s->seq, generation, &a);
    return cmd_ticks(s->seq, generation, a.watermark_s, t, a.count, stamp);
}

static struct bytes *random_run(struct rng *rng, struct model *m, int64_t stamp,
                                enum fsm_code *want) {
    int key = rng_chance(rng, 200) ? (int) rng_below(rng, KEYS) : -1;
    char hash[2] = {rng_chance(rng, 700) ? 'x' : 'y', 0}, name[16] = "";
    int n = (int) rng_below(rng, SCHEDULES);
    size_t count = rng_below(rng, 4);
    bool ignore = rng_chance(rng, 200);
    int64_t ticks[4];

    if (key >= 0)
        (void) snprintf(name, sizeof(name), "key-%d", key);
    for (size_t i = 0; i < count; i++)
        ticks[i] = (int64_t) (100 * i) + (int64_t) rng_below(rng, 102);
    *want = model_run(m, n, ticks, count, ignore, key, hash[0]);
    return cmd_run_schedule(schedule_name(n), R_(BACKFILL), ticks, count, ignore, name, hash,
                            stamp);
}

static struct bytes *random_schedule(struct rng *rng, struct model *m, int64_t stamp,
                                     enum fsm_code *want) {
    uint64_t dice = rng_below(rng, 100);
    int n = (int) rng_below(rng, SCHEDULES);
    bool on = rng_chance(rng, 400);
    uint64_t version = rng_chance(rng, 300) ? m->schedules[n].version + rng_below(rng, 3) : 0;
    int64_t until_ms = rng_chance(rng, 500) ? 0 : stamp + (int64_t) rng_below(rng, 9000) - 500;

    if (dice < 55)
        return random_ticks(rng, m, stamp, want);
    if (dice < 65)
        return random_run(rng, m, stamp, want);
    if (dice < 85)
        return random_put(rng, m, stamp, want);
    if (dice < 90) {
        *want = model_delete(m, n, version, on);
        return cmd_delete_schedule(schedule_name(n), version, on, stamp);
    }
    n = rng_chance(rng, 300) ? -1 : n;
    *want = model_pause(m, n, on, until_ms);
    return cmd_pause_schedule(n < 0 ? "" : schedule_name(n), on, until_ms, "", stamp);
}

/* A configuration entry: it has no time and answers nothing. */
static struct bytes *random_config(struct rng *rng, struct model *m) {
    uint64_t ids[NODES];
    size_t n = 0;

    m->index++;
    m->events = 0;
    m->ticks_count = 0;
    for (uint64_t id = 1; id <= NODES; id++)
        if (rng_chance(rng, 800) || (id == NODES && n == 0))
            ids[n++] = id;
    model_config(m, ids, n);
    return config_at(ids, n, rng_chance(rng, 900) ? "" : "1");
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
    m->ticks_count = 0;
    if (rng_chance(rng, 70))
        return random_cluster(rng, m, stamp, want);
    if (rng_chance(rng, 200) && m->next < JOBS_MAX / 2)
        return random_schedule(rng, m, stamp, want);
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

static void compare_cluster(const struct model *m, struct fixture *x) {
    assert_int_equal(fsm_feature_level(x->f), m->level);
    for (uint64_t id = 1; id <= NODES; id++) {
        const struct model_node *mn = &m->nodes[id];
        const struct fsm_node *n = fsm_node_find(x->f, id);

        assert_int_equal(n != NULL, mn->known);
        if (!n)
            continue;
        assert_int_equal(n->removed, !mn->member);
        assert_int_equal(n->bound, mn->bound);
        assert_int_equal(n->disk[7], mn->disk);
        assert_int_equal(n->feature_max, mn->feature_max);
        assert_int_equal(n->draining, mn->draining);
        assert_true(n->drain_until_ms == mn->until_ms);
    }
    for (int i = 0; i < WORKERS; i++) {
        const struct fsm_worker *w = fsm_worker_find(x->f, worker_name(i));
        int64_t until_ms;

        assert_int_equal(w != NULL, m->workers[i].known);
        if (!w)
            continue;
        assert_int_equal(w->lost, m->workers[i].lost);
        assert_int_equal(w->draining, model_draining(m, i, &until_ms));
        assert_true(w->drain_until_ms == until_ms);
    }
}

static void compare_schedules(const struct model *m, struct fixture *x) {
    uint64_t count = 0;

    for (int i = 0; i < SCHEDULES; i++) {
        const struct model_schedule *ms = &m->schedules[i];
        struct slice name = slice_of(schedule_name(i), strlen(schedule_name(i)));
        const struct fsm_schedule *s = NULL;
        int r = fsm_schedule_find(x->f, name, &s);

        assert_int_equal(r, ms->seq > 0 ? 0 : FSM_READ_NOT_FOUND);
        if (!s)
            continue;
        count++;
        assert_int_equal(s->seq, ms->seq);
        assert_int_equal(s->generation, ms->generation);
        assert_true(s->watermark_s == ms->watermark_s);
        assert_int_equal(s->open_runs, model_open_runs(m, ms->seq, NULL));
        assert_int_equal(s->buffered, ms->waits_count);
        assert_int_equal(fsm_schedule_paused(x->f, s, m->now_ms),
                         model_schedule_paused(m, ms, m->now_ms));
    }
    assert_int_equal(fsm_schedules_count(x->f), count);
}

/* The outcomes the last command tells of. @seen counts them by reason. */
static void compare_ticks(const struct model *m, const struct fsm_output *out, unsigned *seen) {
    assert_int_equal(out->ticks_count, m->ticks_count);
    for (size_t i = 0; i < m->ticks_count; i++) {
        const struct model_tick *want = &m->ticks[i];
        const struct fsm_tick *t = &out->ticks[i];

        assert_int_equal(t->schedule_seq, want->schedule);
        assert_int_equal(t->generation, want->generation);
        assert_true(t->tick_s == want->tick_s);
        assert_int_equal(t->reason, want->reason);
        assert_int_equal(t->waiting, want->waiting);
        assert_int_equal(t->fired, want->reason < 16);
        assert_int_equal(t->job_seq, want->job);
        seen[t->reason]++;
    }
}

/* The counts that only records hold. */
static void compare_records(const struct model *m, struct fixture *x) {
    struct arena arena;

    arena_init(&arena, 1 << 24);
    for (uint64_t i = 1; i < m->next; i++) {
        Chronos__Internal__V1__JobRecord *rec;

        arena_clear(&arena);
        if (m->jobs[i].state == S(UNSPECIFIED)) {
            assert_int_equal(fsm_read_job(x->f, i, &arena, &rec), FSM_READ_NOT_FOUND);
            continue;
        }
        assert_int_equal(fsm_read_job(x->f, i, &arena, &rec), 0);
        assert_int_equal(rec->schedule_seq, m->jobs[i].schedule);
        assert_int_equal(rec->kill, m->jobs[i].kill);
        assert_int_equal(rec->state, m->jobs[i].state);
        assert_int_equal(rec->lost_attempts, m->jobs[i].lost);
        assert_int_equal(rec->released_attempts, m->jobs[i].released);
    }
    for (int i = 0; i < SCHEDULES; i++) {
        Chronos__Internal__V1__ScheduleRecord *rec;

        if (m->schedules[i].seq == 0)
            continue;
        assert_int_equal(fsm_read_schedule(x->f, m->schedules[i].seq, &arena, &rec), 0);
        assert_int_equal(rec->fired, m->schedules[i].fired);
        assert_int_equal(rec->skipped, m->schedules[i].skipped);
        assert_int_equal(rec->runs_counted, m->schedules[i].counted);
        assert_int_equal(rec->n_buffered, m->schedules[i].waits_count);
        assert_int_equal(rec->n_open_runs, model_open_runs(m, rec->seq, NULL));
    }
    arena_done(&arena);
}

static void compare(const struct model *m, struct fixture *x) {
    uint64_t counts[6] = {0};
    const struct fsm_job *ready = fsm_ready_first(x->f);

    compare_cluster(m, x);
    compare_schedules(m, x);
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
    bool is_config[ENTRIES + 1];
    uint8_t digests[ENTRIES + 1][16];
    enum fsm_code codes[ENTRIES + 1];
    uint64_t last;
    unsigned seen[REASONS]; /* outcomes of ticks */
};

static int apply_entry(struct fixture *x, const struct history *h, uint64_t index) {
    if (!h->is_config[index])
        return fixture_apply(x, h->entries[index]);
    return fsm_apply_config(x->f, index, x->term, bytes_slice(h->entries[index]), &x->out, &x->err);
}

/* Apply the next entry of the history to @x, and demand the results and the digest of the first
 * time. */
static void replay_one(struct fixture *x, const struct history *h) {
    uint64_t index = fsm_applied_index(x->f) + 1;
    uint8_t digest[16];

    assert_int_equal(apply_entry(x, h, index), 0);
    assert_int_equal(x->out->results_count, h->is_config[index] ? 0 : 1);
    if (!h->is_config[index])
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

/* @x becomes what a snapshot of @from makes: its records in an empty store, and a note of where
 * they came from. */
static void move(struct fixture *x, struct fixture *from, const struct history *h) {
    uint64_t at = fsm_applied_index(from->f), index = 0, term = 0;
    uint8_t digest[16];
    struct kv *copy;

    assert_int_equal(fsm_write_back(from->f), 0);
    copy = fixture_copy_store(from->kv, at, x->term);
    fixture_done(x);
    x->kv = copy;
    fixture_reopen(x);
    assert_true(fsm_applied_index(x->f) == at);
    fsm_installed(x->f, &index, &term);
    assert_true(index == at && term == x->term);
    fsm_digest(x->f, digest);
    assert_memory_equal(digest, h->digests[at], 16);
    fsm_check_invariants(x->f);
}

/* Every command could be appended; but for levels that only the program under test knows. */
static void check_accepts(const struct bytes *command) {
    struct command_view v;
    int r = command_check(bytes_slice(command), NULL);

    assert_int_equal(command_parse(bytes_slice(command), &v, NULL), 0);
    if (v.kind == CHRONOS__INTERNAL__V1__LOG_COMMAND__BODY_SET_FEATURE_LEVEL && r != 0)
        assert_int_equal(r, ERR_VERSION);
    else
        assert_int_equal(r, 0);
}

/* The next entry, made for the model and applied to @calm. */
static void first_time(struct rng *rng, struct model *m, struct history *h, struct fixture *calm,
                       int64_t stamp) {
    enum fsm_code want = FSM_OK;
    uint64_t i = ++h->last;

    h->is_config[i] = rng_chance(rng, 10);
    if (h->is_config[i]) {
        h->entries[i] = random_config(rng, m);
    } else {
        h->entries[i] = random_command(rng, m, stamp, &want);
        check_accepts(h->entries[i]);
    }
    assert_int_equal(apply_entry(calm, h, i), 0);
    if (!h->is_config[i])
        assert_int_equal(calm->out->results[0].code, want);
    assert_int_equal(calm->out->events_count, m->events);
    compare_ticks(m, calm->out, h->seen);
    assert_true(fsm_last_now_ms(calm->f) == m->now_ms);
    h->codes[i] = want;
    fsm_digest(calm->f, h->digests[i]);
}

/* What may happen to the replicas beside @calm, and that they still agree. */
static void disturb(struct rng *chaos, const struct model *m, const struct history *h,
                    struct fixture *wild, struct fixture *moved) {
    catch_up(wild, h);
    catch_up(moved, h);
    if (rng_chance(chaos, 100) || fsm_wants_write_back(wild->f))
        assert_int_equal(fsm_write_back(wild->f), 0);
    if (rng_chance(chaos, 20))
        crash(wild, chaos, h);
    if (rng_chance(chaos, 10))
        move(moved, rng_chance(chaos, 500) ? wild : moved, h);
    if (h->last % 100 == 0) {
        compare(m, wild);
        compare(m, moved);
        fsm_check_invariants(wild->f);
        fsm_check_invariants(moved->f);
    }
}

static void run_seed(uint64_t seed, unsigned *seen, uint64_t *completed) {
    const struct fsm_options o = {.idempotency_max = KEYS_REMEMBERED_MAX,
                                  .overlay_bytes_max = 4096,
                                  .feature_level_max = LEVELS};
    struct model *m = calloc(1, sizeof(*m));
    struct history *h = calloc(1, sizeof(*h));
    struct rng rng = rng_seed(seed), chaos = rng_seed(seed ^ 0x5eed);
    struct fixture calm, wild, moved;
    int64_t clock_ms = 1000000;

    assert_true(m != NULL && h != NULL);
    m->next = 1;
    m->level = 1;
    fixture_init(&calm, &o);
    fixture_init(&wild, &o);
    fixture_init(&moved, &o);
    for (uint64_t i = 1; i <= ENTRIES; i++) {
        /* Leaders' clocks differ and jump, also backwards, also by days. */
        clock_ms += rng_chance(&rng, 20) ? (int64_t) rng_below(&rng, FSM_IDEMPOTENCY_KEEP_MS)
                                         : (int64_t) rng_below(&rng, 1000) - 400;
        first_time(&rng, m, h, &calm, MAX(clock_ms, 0));
        if (i % 50 == 0) {
            compare(m, &calm);
            fsm_check_invariants(calm.f);
        }
        disturb(&chaos, m, h, &wild, &moved);
    }
    *completed += fsm_jobs_count(calm.f, S(COMPLETED));
    compare_records(m, &calm);
    compare_records(m, &moved);
    for (size_t i = 0; i < REASONS; i++)
        seen[i] += h->seen[i];
    for (uint64_t i = 1; i <= ENTRIES; i++)
        (void) bytes_unref(h->entries[i]);
    fixture_done(&calm);
    fixture_done(&wild);
    fixture_done(&moved);
    free(m);
    free(h);
}

/* Goal: results, events, states, queue order and clocks are those of a naive second implementation,
 * whatever the write-backs and power cuts; replayed entries give the same results and digests
 * (J2, J7, J11, J12, J15-J20, J25, R22).
 * A replica whose records were copied into an empty store, as a snapshot does, is the same in all
 * of it from there on. Method: random commands from printed seeds; one replica is never written
 * back, one is written back at random, loses power with any prefix of its batches, and is replayed,
 * one is made anew from the records of another or of itself. */
static void test_model(void **state) {
    static const int all[] = {R_(ON_TIME), R_(BACKFILL), R_(BUFFERED), R_(MISSED),
                              R_(OVERLAP), R_(PAUSED),   R_(EXPIRED),  R_(DELETED)};
    unsigned seen[REASONS] = {0};
    uint64_t completed = 0;

    (void) state;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        print_message("seed %llu\n", (unsigned long long) seed);
        run_seed(seed, seen, &completed);
    }
    assert_true(completed > 400); /* draining did not stop the world */
    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        print_message("reason %d: %u\n", all[i], seen[all[i]]);
        assert_true(seen[all[i]] > 100); /* each was tried often */
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_model)};

    return cmocka_run_group_tests_name("fsm_model", tests, NULL, NULL);
}
