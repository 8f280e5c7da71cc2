#include "os_test.h"

#include "os/disk_queue.h"

#include <pthread.h>
#include <semaphore.h>

struct test_job {
    struct disk_job job;
    struct test_world *world;
    unsigned number;
    unsigned resubmits;
};

struct test_world {
    struct env_disk_queue env;
    pthread_t loop_thread;
    unsigned run_next;  /* disk thread */
    unsigned done_next; /* loop */
    unsigned want;
};

static void job_run(struct disk_job *j) {
    struct test_job *t = CONTAINER_OF(j, struct test_job, job);

    assert_false(pthread_equal(pthread_self(), t->world->loop_thread));
    if (t->resubmits == 0)
        assert_int_equal(t->number, t->world->run_next++);
}

static void job_done(struct disk_job *j) {
    struct test_job *t = CONTAINER_OF(j, struct test_job, job);
    struct test_world *w = t->world;

    assert_true(pthread_equal(pthread_self(), w->loop_thread));
    if (t->resubmits > 0) {
        t->resubmits--;
        w->env.submit(w->env.ctx, j);
        return;
    }
    assert_int_equal(t->number, w->done_next++);
    free(t);
}

static void submit(struct test_world *w, unsigned number, unsigned resubmits) {
    struct test_job *t = calloc(1, sizeof(*t));

    assert_non_null(t);
    *t = (struct test_job){.job = {.run = job_run, .done = job_done},
                           .world = w,
                           .number = number,
                           .resubmits = resubmits};
    w->env.submit(w->env.ctx, &t->job);
}

static bool all_done(void *arg) {
    const struct test_world *w = (const struct test_world *) arg;

    return w->done_next == w->want;
}

/* Goal: jobs run on another thread one by one in order, and complete on the loop in that order.
 * Method: 20,000 numbered jobs in bursts; each checks its number and thread. */
static void test_order(void **state) {
    struct test_world w = {.loop_thread = pthread_self(), .want = 20000};
    struct disk_queue *q = NULL;
    uv_loop_t loop;

    (void) state;
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(disk_queue_new(&loop, &q), 0);
    w.env = disk_queue_env(q);
    for (unsigned i = 0; i < w.want; i++) {
        submit(&w, i, 0);
        if (i % 64 == 0)
            (void) uv_run(&loop, UV_RUN_NOWAIT);
    }
    os_test_run_until(&loop, all_done, &w);
    assert_int_equal(disk_queue_pending(q), 0);
    q = disk_queue_stop(q);
    os_test_loop_done(&loop);
}

/* Goal: stop loses nothing, also not what done() submits meanwhile. Method: stop without running
 * the loop, with jobs that resubmit themselves three times. */
static void test_stop_drains(void **state) {
    struct test_world w = {.loop_thread = pthread_self()};
    struct disk_queue *q = NULL;
    uv_loop_t loop;

    (void) state;
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(disk_queue_new(&loop, &q), 0);
    w.env = disk_queue_env(q);
    for (unsigned i = 0; i < 100; i++)
        submit(&w, i, 3);
    assert_int_equal(disk_queue_pending(q), 100);
    q = disk_queue_stop(q);
    assert_null(q);
    assert_int_equal(w.run_next, 100);
    assert_int_equal(w.done_next, 100);
    os_test_loop_done(&loop);
}

struct round_trip {
    struct disk_job job;
    struct env_disk_queue env;
    uint64_t start;
    uint64_t total_ns;
    unsigned left;
};

static void trip_run(struct disk_job *j) {
    (void) j;
}

static void trip_done(struct disk_job *j) {
    struct round_trip *t = CONTAINER_OF(j, struct round_trip, job);

    t->total_ns += uv_hrtime() - t->start;
    if (--t->left == 0)
        return;
    t->start = uv_hrtime();
    t->env.submit(t->env.ctx, j);
}

static bool trips_done(void *arg) {
    return ((const struct round_trip *) arg)->left == 0;
}

/* Goal: the two thread hops of one commit stay small against an fdatasync (114 us), and the figure
 * is printed. Method: 20,000 empty jobs one after the other; the bound only catches a lost wakeup
 * or a polling design. */
static void test_round_trip(void **state) {
    struct round_trip t = {.job = {.run = trip_run, .done = trip_done}, .left = 20000};
    struct disk_queue *q = NULL;
    uv_loop_t loop;
    uint64_t mean;

    (void) state;
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(disk_queue_new(&loop, &q), 0);
    t.env = disk_queue_env(q);
    t.start = uv_hrtime();
    t.env.submit(t.env.ctx, &t.job);
    os_test_run_until(&loop, trips_done, &t);
    mean = t.total_ns / 20000;
    print_message("round trip: %llu ns\n", (unsigned long long) mean);
    assert_true(mean < 1000000);
    q = disk_queue_stop(q);
    os_test_loop_done(&loop);
}

struct slow_job {
    struct disk_job job;
    sem_t *go;
    bool done;
};

static void slow_run(struct disk_job *j) {
    (void) sem_wait(CONTAINER_OF(j, struct slow_job, job)->go);
}

static void slow_done(struct disk_job *j) {
    CONTAINER_OF(j, struct slow_job, job)->done = true;
}

static bool slow_is_done(void *arg) {
    return ((const struct slow_job *) arg)->done;
}

/* Goal: two queues on one loop do not wait for each other: the log goes on while bulk work blocks,
 * and each can be stopped alone. Method: a bulk job that waits for a semaphore which is posted only
 * after 1,000 jobs of the other queue are done. */
static void test_two_queues(void **state) {
    struct test_world w = {.loop_thread = pthread_self(), .want = 1000};
    struct disk_queue *log = NULL, *bulk = NULL;
    struct env_disk_queue bulk_env;
    struct slow_job slow = {.job = {.run = slow_run, .done = slow_done}};
    uv_loop_t loop;
    sem_t go;

    (void) state;
    assert_int_equal(sem_init(&go, 0, 0), 0);
    slow.go = &go;
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(disk_queue_new(&loop, &log), 0);
    assert_int_equal(disk_queue_new(&loop, &bulk), 0);
    w.env = disk_queue_env(log);
    bulk_env = disk_queue_env(bulk);
    bulk_env.submit(bulk_env.ctx, &slow.job);
    for (unsigned i = 0; i < w.want; i++)
        submit(&w, i, 0);
    os_test_run_until(&loop, all_done, &w);
    assert_false(slow.done);
    assert_int_equal(disk_queue_pending(bulk), 1);
    log = disk_queue_stop(log);
    (void) sem_post(&go);
    os_test_run_until(&loop, slow_is_done, &slow);
    bulk = disk_queue_stop(bulk);
    os_test_loop_done(&loop);
    assert_int_equal(sem_destroy(&go), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_stop_drains),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_two_queues),
    };

    return cmocka_run_group_tests_name("disk_queue", tests, NULL, NULL);
}
