/* The disk threads of a node: jobs that take virtual time, on one queue for the log and on another
 * for bulk work. See sim_internal.h. */
#include "sim/sim_internal.h"

static void schedule(struct sim_node *n, struct sim_queue *q) {
    struct world *w = n->world;
    uint64_t ns;

    if (q->running || !q->head)
        return;
    q->running = true;
    ns = rng_range(&w->rng, 20 * NS_PER_US, q->bulk ? w->bulk_disk_max_ns : w->disk_max_ns);
    if (w->now_ns < q->slow_until)
        ns += q->slow_until - w->now_ns;
    sim_push(w, ns, q->bulk ? SIM_BULK_RUN : SIM_DISK_RUN, n->slot, ++q->gen, n->life, NULL);
}

void sim_jobs_hurry(struct sim_node *n, struct sim_queue *q) {
    q->slow_until = 0;
    if (!n->up || !q->running || q->ran)
        return;
    q->running = false;
    schedule(n, q);
}

void sim_jobs_hang(struct sim_node *n, struct sim_queue *q, uint64_t until) {
    q->slow_until = MAX(q->slow_until, until);
    if (!n->up || !q->running || q->ran)
        return;
    q->running = false;
    schedule(n, q);
}

static void submit(struct sim_node *n, struct sim_queue *q, struct disk_job *job) {
    job->next = NULL;
    if (q->tail)
        q->tail->next = job;
    else
        q->head = job;
    q->tail = job;
    schedule(n, q);
}

static void submit_disk(void *ctx, struct disk_job *job) {
    struct sim_node *n = ctx;

    submit(n, &n->disk_jobs, job);
}

static void submit_bulk(void *ctx, struct disk_job *job) {
    struct sim_node *n = ctx;

    submit(n, &n->bulk_jobs, job);
}

void sim_jobs_env(struct sim_node *n, struct env *env) {
    n->disk_jobs =
        (struct sim_queue){.gen = n->disk_jobs.gen, .slow_until = n->disk_jobs.slow_until};
    n->bulk_jobs = (struct sim_queue){
        .gen = n->bulk_jobs.gen, .slow_until = n->bulk_jobs.slow_until, .bulk = true};
    env->disk_queue = (struct env_disk_queue){.submit = submit_disk, .ctx = n};
    env->bulk_queue = (struct env_disk_queue){.submit = submit_bulk, .ctx = n};
}

void sim_jobs_run(struct sim_node *n, struct sim_queue *q) {
    struct world *w = n->world;

    q->head->run(q->head);
    q->ran = true;
    sim_push(w, rng_range(&w->rng, 0, 20 * NS_PER_US), q->bulk ? SIM_BULK_DONE : SIM_DISK_DONE,
             n->slot, 0, n->life, NULL);
}

void sim_jobs_done(struct sim_node *n, struct sim_queue *q) {
    struct disk_job *job = q->head;

    q->head = job->next;
    if (!q->head)
        q->tail = NULL;
    q->running = false;
    q->ran = false;
    job->done(job);
    schedule(n, q);
    sim_node_turn(n);
}

void sim_jobs_abandon(struct sim_queue *q) {
    while (q->head) {
        struct disk_job *job = q->head;

        q->head = job->next;
        if (!q->head)
            q->tail = NULL; /* what it did may ask for more */
        if (!q->ran)
            job->run(job);
        q->ran = false;
        job->done(job);
    }
    q->running = false;
}
