/* disk_queue: two intrusive lists, one mutex, one thread.
 *
 * What it is not: a thread pool, or a place where errors are looked at.
 * Cost: a commit waits for two thread hops, so each is one futex wake (submit) or one eventfd write
 * (completion), and neither happens while the other side is awake anyway.
 * Invariants: a job is in exactly one of: queued, running, finished, the submitter's hands.
 * Thread: fields below "shared" under the mutex; the rest belongs to the loop. */
#include "os/disk_queue.h"

#include "os/wake.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

struct job_list {
    struct disk_job *head;
    struct disk_job **tail;
};

struct disk_queue {
    struct wake wake; /* its close frees the struct */
    pthread_t thread;
    size_t pending; /* submitted, done() not called yet */
    bool in_drain;  /* done() callbacks are running: no second drain inside */
    pthread_mutex_t lock;
    pthread_cond_t work;     /* the thread waits here */
    pthread_cond_t finished; /* disk_queue_stop() waits here */
    /* shared */
    struct job_list queued;
    struct job_list done;
    bool stopping;
    bool idle; /* the thread is waiting for work */
};

static void list_init(struct job_list *l) {
    l->head = NULL;
    l->tail = &l->head;
}

static void list_push(struct job_list *l, struct disk_job *j) {
    j->next = NULL;
    *l->tail = j;
    l->tail = &j->next;
}

static struct disk_job *list_pop(struct job_list *l) {
    struct disk_job *j = l->head;

    if (!j)
        return NULL;
    l->head = j->next;
    if (!l->head)
        l->tail = &l->head;
    j->next = NULL;
    return j;
}

static void *thread_main(void *arg) {
    struct disk_queue *q = (struct disk_queue *) arg;

    (void) pthread_mutex_lock(&q->lock);
    for (;;) {
        struct disk_job *j = list_pop(&q->queued);
        bool wake;

        if (!j) {
            if (q->stopping)
                break;
            q->idle = true;
            (void) pthread_cond_wait(&q->work, &q->lock);
            q->idle = false;
            continue;
        }
        (void) pthread_mutex_unlock(&q->lock);
        j->run(j);
        (void) pthread_mutex_lock(&q->lock);
        wake = !q->done.head; /* otherwise the loop has been told and has not looked yet */
        list_push(&q->done, j);
        (void) pthread_cond_signal(&q->finished);
        if (wake) {
            /* Outside the lock: the loop may run at once and would only block on it. The handle
             * outlives the thread: it is closed after the join. */
            (void) pthread_mutex_unlock(&q->lock);
            wake_send(&q->wake);
            (void) pthread_mutex_lock(&q->lock);
        }
    }
    (void) pthread_mutex_unlock(&q->lock);
    return NULL;
}

/* Call done() of all that has finished. Takes the whole list at once, so that jobs submitted and
 * finished meanwhile wait for the next turn and cannot keep the loop here. */
static void drain_done(struct disk_queue *q) {
    struct disk_job *j;

    if (q->in_drain)
        return;
    (void) pthread_mutex_lock(&q->lock);
    j = q->done.head;
    list_init(&q->done);
    (void) pthread_mutex_unlock(&q->lock);
    q->in_drain = true;
    while (j) {
        struct disk_job *next = j->next;

        j->next = NULL;
        ASSERT(q->pending > 0);
        q->pending--;
        j->done(j); /* may free j and may submit */
        j = next;
    }
    q->in_drain = false;
}

static void on_wake(struct wake *w) {
    drain_done(CONTAINER_OF(w, struct disk_queue, wake));
}

static void env_submit(void *ctx, struct disk_job *job) {
    struct disk_queue *q = (struct disk_queue *) ctx;
    bool wake;

    ASSERT(q);
    ASSERT(job && job->run && job->done);
    q->pending++;
    (void) pthread_mutex_lock(&q->lock);
    ASSERT(!q->stopping);
    list_push(&q->queued, job);
    wake = q->idle;
    q->idle = false; /* one wake is enough for any number of submits */
    (void) pthread_mutex_unlock(&q->lock);
    if (wake)
        (void) pthread_cond_signal(&q->work);
}

/* With all signals blocked: they are the loop's business. */
static int start_thread(struct disk_queue *q) {
    sigset_t all, old;
    int r;

    (void) sigfillset(&all);
    (void) pthread_sigmask(SIG_SETMASK, &all, &old);
    r = pthread_create(&q->thread, NULL, thread_main, q);
    (void) pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (r != 0)
        return -r;
    (void) pthread_setname_np(q->thread, "chronos-disk");
    return 0;
}

static void on_closed(struct wake *w) {
    struct disk_queue *q = CONTAINER_OF(w, struct disk_queue, wake);

    (void) pthread_cond_destroy(&q->work);
    (void) pthread_cond_destroy(&q->finished);
    (void) pthread_mutex_destroy(&q->lock);
    free(q);
}

int disk_queue_new(uv_loop_t *loop, struct disk_queue **ret) {
    struct disk_queue *q;
    int r;

    ASSERT(loop);
    ASSERT(ret);
    q = calloc(1, sizeof(*q));
    if (!q)
        return -ENOMEM;
    r = wake_init(loop, &q->wake, on_wake);
    if (r < 0) {
        free(q);
        return r;
    }
    (void) pthread_mutex_init(&q->lock, NULL);
    (void) pthread_cond_init(&q->work, NULL);
    (void) pthread_cond_init(&q->finished, NULL);
    list_init(&q->queued);
    list_init(&q->done);
    r = start_thread(q);
    if (r < 0) {
        wake_close(&q->wake, on_closed);
        return r;
    }
    *ret = q;
    return 0;
}

struct env_disk_queue disk_queue_env(struct disk_queue *q) {
    ASSERT(q);
    return (struct env_disk_queue){.submit = env_submit, .ctx = q};
}

size_t disk_queue_pending(const struct disk_queue *q) {
    return q->pending;
}

struct disk_queue *disk_queue_stop(struct disk_queue *q) {
    if (!q)
        return NULL;
    ASSERT(!q->in_drain);
    while (q->pending > 0) {
        (void) pthread_mutex_lock(&q->lock);
        while (!q->done.head)
            (void) pthread_cond_wait(&q->finished, &q->lock);
        (void) pthread_mutex_unlock(&q->lock);
        drain_done(q);
    }
    (void) pthread_mutex_lock(&q->lock);
    q->stopping = true;
    (void) pthread_cond_signal(&q->work);
    (void) pthread_mutex_unlock(&q->lock);
    (void) pthread_join(q->thread, NULL);
    ASSERT(!q->queued.head && !q->done.head);
    wake_close(&q->wake, on_closed);
    return NULL;
}
