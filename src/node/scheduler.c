/* The leader's scheduler loop: wakes on events, plans, proposes.
 *
 * A pass runs at the end of a turn in which something could have changed its answer (a job became
 * ready, a slot free, a worker came, leadership was won, a plan was applied), never on a tick.
 * Thread: the loop. */
#include "node/replica_internal.h"

#include "fsm/command.h"

#include <errno.h>
#include <stdlib.h>

#define PLANS_IN_FLIGHT_MAX 4
#define PLAN_ITEMS_MAX 500

bool replica_leads(const struct replica *r) {
    return raft_role(r->raft) == RAFT_LEADER && raft_leader_ready(r->raft) &&
           r->applied_term == raft_term(r->raft);
}

void scheduler_reset(struct replica *r) {
    sched_reset(r->scheduler.sched);
    r->scheduler.dirty = true;
    r->wants_turn = true;
}

struct plan_arg {
    struct replica *replica;
    uint64_t plan;
};

static void plan_done(void *arg, const struct replica_proposed *res) {
    struct plan_arg *a = arg;
    struct replica *r = a->replica;

    (void) res; /* applied or surely lost: either way the state machine knows what is assigned */
    sched_plan_done(r->scheduler.sched, a->plan);
    r->scheduler.plans_in_flight--;
    r->scheduler.dirty = true;
    r->wants_turn = true;
    free(a);
}

/* One that is stopping takes no more work (semantics C36). */
static bool worker_takes_work(void *ctx, const struct fsm_worker *w) {
    return leases_alive(ctx, w) && !leases_draining(ctx, w);
}

static int plan_propose(struct replica *r, Chronos__Internal__V1__AssignJobItem *items, size_t n,
                        uint64_t plan) {
    Chronos__Internal__V1__LogCommand cmd = CHRONOS__INTERNAL__V1__LOG_COMMAND__INIT;
    Chronos__Internal__V1__AssignJob body = CHRONOS__INTERNAL__V1__ASSIGN_JOB__INIT;
    Chronos__Internal__V1__AssignJobItem *pointers[PLAN_ITEMS_MAX];
    struct plan_arg *a = malloc(sizeof(*a));
    struct bytes *command = NULL;
    int rc;

    if (!a)
        return -ENOMEM;
    *a = (struct plan_arg){.replica = r, .plan = plan};
    for (size_t i = 0; i < n; i++)
        pointers[i] = &items[i];
    body.items = pointers;
    body.n_items = n;
    cmd.body_case = CHRONOS__INTERNAL__V1__LOG_COMMAND__BODY_ASSIGN_JOB;
    cmd.assign_job = &body;
    rc = command_encode(&cmd, &command);
    if (rc == 0) {
        r->scheduler.plans_in_flight++;
        rc = replica_propose(r, command, REPLICA_INTERNAL | REPLICA_OWN_TERM, MONO_NEVER, plan_done,
                             a);
        if (rc != 0)
            r->scheduler.plans_in_flight--;
    }
    if (rc != 0)
        free(a);
    return rc;
}

void scheduler_run(struct replica *r) {
    struct sched_liveness live = {.alive = worker_takes_work, .ctx = r};

    if (!r->scheduler.dirty || !replica_leads(r))
        return;
    while (r->scheduler.plans_in_flight < PLANS_IN_FLIGHT_MAX) {
        Chronos__Internal__V1__AssignJobItem items[PLAN_ITEMS_MAX];
        uint64_t plan = 0;
        size_t n = 0;
        int rc;

        rc = sched_plan(r->scheduler.sched, r->fsm, &live, items, PLAN_ITEMS_MAX, &n, &plan);
        if (rc == 0 && n > 0)
            rc = plan_propose(r, items, n, plan);
        if (rc < 0) {
            replica_fail(r, rc, "scheduler: %s", err_name(rc));
            return;
        }
        if (n < PLAN_ITEMS_MAX)
            break; /* no more jobs or no more slots */
    }
    r->scheduler.dirty = false; /* plan_done sets it again */
}
