/* How much processor time the state machine takes: whole job lives (submit, assign, complete)
 * through fsm_apply over kv_mem, commands of --batch items. Not a test; run it by hand: bench_fsm
 * [lives] [batch] [overlay KiB] */
#include "fsm/command.h"
#include "fsm/fsm.h"
#include "storage/kv_mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define BODY(x) CHRONOS__INTERNAL__V1__LOG_COMMAND__BODY_##x
#define BATCH_MAX 1000

struct bench {
    struct fsm *f;
    uint64_t apply_ns, encode_ns, write_back_ns, write_back_max_ns, write_backs;
};

static uint64_t now_ns(void) {
    struct timespec t;

    (void) clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t) t.tv_sec * 1000000000ULL + (uint64_t) t.tv_nsec;
}

static void die(const char *what, int r, const struct errtext *e) {
    (void) fprintf(stderr, "%s: %s: %s\n", what, err_name(r), e->s);
    exit(1);
}

static const struct fsm_output *run(struct bench *b, const Chronos__Internal__V1__LogCommand *c) {
    const struct fsm_output *out = NULL;
    struct errtext e = {0};
    struct bytes *bytes = NULL;
    uint64_t t0 = now_ns(), t1, t2;
    int r = command_encode(c, &bytes);

    if (r < 0)
        die("encode", r, &e);
    command_stamp(bytes, (struct wall){.ms = 1700000000000});
    t1 = now_ns();
    r = fsm_apply(b->f, fsm_applied_index(b->f) + 1, 1, bytes_slice(bytes), &out, &e);
    if (r < 0)
        die("apply", r, &e);
    t2 = now_ns();
    b->encode_ns += t1 - t0;
    b->apply_ns += t2 - t1;
    (void) bytes_unref(bytes);
    return out;
}

static void write_back(struct bench *b) {
    uint64_t t0 = now_ns(), ns;
    struct errtext e = {0};
    int r;

    if (!fsm_wants_write_back(b->f))
        return;
    r = fsm_write_back(b->f);
    if (r < 0)
        die("write back", r, &e);
    ns = now_ns() - t0;
    b->write_back_ns += ns;
    b->write_backs++;
    if (ns > b->write_back_max_ns)
        b->write_back_max_ns = ns;
}

static void register_worker(struct bench *b, char *id) {
    Chronos__Internal__V1__LogCommand c = CHRONOS__INTERNAL__V1__LOG_COMMAND__INIT;
    Chronos__Internal__V1__RegisterWorker body = CHRONOS__INTERNAL__V1__REGISTER_WORKER__INIT;
    Chronos__Internal__V1__RegisterWorkerItem item =
        CHRONOS__INTERNAL__V1__REGISTER_WORKER_ITEM__INIT;
    Chronos__Internal__V1__RegisterWorkerItem *items[] = {&item};

    item.worker_id = id;
    item.incarnation = 1;
    item.slots = 10000;
    body.items = items;
    body.n_items = 1;
    c.body_case = BODY(REGISTER_WORKER);
    c.register_worker = &body;
    (void) run(b, &c);
}

static Chronos__Internal__V1__SubmitJobItem submits[BATCH_MAX], *submit_ptrs[BATCH_MAX];
static Chronos__Internal__V1__AssignJobItem assigns[BATCH_MAX], *assign_ptrs[BATCH_MAX];
static Chronos__Internal__V1__UpdateJobStatus updates[BATCH_MAX], *update_ptrs[BATCH_MAX];

static uint64_t submit(struct bench *b, size_t batch, size_t n) {
    Chronos__Internal__V1__LogCommand c = CHRONOS__INTERNAL__V1__LOG_COMMAND__INIT;
    Chronos__Internal__V1__SubmitJob body = CHRONOS__INTERNAL__V1__SUBMIT_JOB__INIT;
    static uint8_t spec[120];
    static char queue[] = "default";

    memset(spec, 's', sizeof(spec));
    for (size_t i = 0; i < batch; i++) {
        chronos__internal__v1__submit_job_item__init(&submits[i]);
        submits[i].spec.data = spec;
        submits[i].spec.len = sizeof(spec);
        submits[i].max_attempts = 3;
        submits[i].queue = queue;
        submit_ptrs[i] = &submits[i];
    }
    (void) n;
    body.items = submit_ptrs;
    body.n_items = batch;
    c.body_case = BODY(SUBMIT_JOB);
    c.submit_job = &body;
    return run(b, &c)->results[0].job_seq;
}

static void assign(struct bench *b, size_t batch, uint64_t seq, char *worker) {
    Chronos__Internal__V1__LogCommand c = CHRONOS__INTERNAL__V1__LOG_COMMAND__INIT;
    Chronos__Internal__V1__AssignJob body = CHRONOS__INTERNAL__V1__ASSIGN_JOB__INIT;

    for (size_t i = 0; i < batch; i++) {
        chronos__internal__v1__assign_job_item__init(&assigns[i]);
        assigns[i].job_seq = seq + i;
        assigns[i].worker_id = worker;
        assigns[i].worker_incarnation = 1;
        assign_ptrs[i] = &assigns[i];
    }
    body.items = assign_ptrs;
    body.n_items = batch;
    c.body_case = BODY(ASSIGN_JOB);
    c.assign_job = &body;
    (void) run(b, &c);
}

static void complete(struct bench *b, size_t batch, uint64_t seq, uint64_t token) {
    Chronos__Internal__V1__LogCommand c = CHRONOS__INTERNAL__V1__LOG_COMMAND__INIT;
    Chronos__Internal__V1__BatchUpdateJobStatus body =
        CHRONOS__INTERNAL__V1__BATCH_UPDATE_JOB_STATUS__INIT;

    for (size_t i = 0; i < batch; i++) {
        chronos__internal__v1__update_job_status__init(&updates[i]);
        updates[i].job_seq = seq + i;
        updates[i].fencing_token = token;
        updates[i].outcome = CHRONOS__V1__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_COMPLETED;
        update_ptrs[i] = &updates[i];
    }
    body.items = update_ptrs;
    body.n_items = batch;
    c.body_case = BODY(BATCH_UPDATE_JOB_STATUS);
    c.batch_update_job_status = &body;
    (void) run(b, &c);
}

int main(int argc, char **argv) {
    uint64_t lives = argc > 1 ? strtoull(argv[1], NULL, 10) : 1000000;
    size_t batch = argc > 2 ? strtoull(argv[2], NULL, 10) : 64;
    struct fsm_options o = {.overlay_bytes_max = (argc > 3 ? strtoull(argv[3], NULL, 10) : 8192)
                                                 << 10};
    struct bench b = {0};
    struct errtext e = {0};
    static char worker[] = "worker-1";
    struct kv *kv = NULL;
    uint64_t start, open_ns;
    int r = kv_mem_new(1000000, &kv);

    if (r < 0 || batch == 0 || batch > BATCH_MAX)
        return 1;
    r = fsm_open(kv, &o, &b.f, &e);
    if (r < 0)
        die("open", r, &e);
    register_worker(&b, worker);
    start = now_ns();
    for (uint64_t n = 0; n < lives; n += batch) {
        uint64_t seq = submit(&b, batch, n);

        assign(&b, batch, seq, worker);
        complete(&b, batch, seq, fsm_applied_index(b.f));
        write_back(&b);
    }
    start = now_ns() - start;
    if (fsm_jobs_count(b.f, CHRONOS__V1__JOB_STATE__JOB_STATE_COMPLETED) < lives)
        return 1;
    r = fsm_write_back(b.f);
    if (r < 0)
        return 1;
    (void) fsm_free(b.f);
    open_ns = now_ns();
    r = fsm_open(kv, &o, &b.f, &e);
    if (r < 0)
        die("reopen", r, &e);
    open_ns = now_ns() - open_ns;
    (void) printf(
        "lives %llu batch %zu: %.0f ns/life (apply %.0f, encode %.0f, write back %.0f); "
        "%llu write-backs, longest %.1f ms; reopen %.2f ms\n",
        (unsigned long long) lives, batch, (double) start / (double) lives,
        (double) b.apply_ns / (double) lives, (double) b.encode_ns / (double) lives,
        (double) b.write_back_ns / (double) lives, (unsigned long long) b.write_backs,
        (double) b.write_back_max_ns / 1e6, (double) open_ns / 1e6);
    (void) fsm_free(b.f);
    kv->ops->close(kv);
    return 0;
}
