/* Leases of workers, on the leader's monotonic clock (semantics.md C24).
 *
 * A worker that is silent for a whole lease loses its attempts through a LoseWorker entry, never by
 * a clock alone. A new leader does not know when it last spoke, so every lease begins again in
 * full. Thread: the loop. */
#include "node/replica_internal.h"

#include "fsm/command.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct lease *lease_find(struct replica *r, const char *worker_id) {
    return bytesmap_get(&r->leases.by_worker, slice_of(worker_id, strlen(worker_id)));
}

void leases_free(struct replica *r) {
    struct bytesmap_slot *s;
    size_t pos = 0;

    while ((s = bytesmap_next(&r->leases.by_worker, &pos))) {
        struct lease *l = s->value;

        free(l->worker_id);
        free(l);
    }
    bytesmap_done(&r->leases.by_worker);
}

/* A lease for @w, full from now on. */
static struct lease *lease_start(struct replica *r, const struct fsm_worker *w) {
    struct lease *l = lease_find(r, w->id);

    if (!l) {
        l = calloc(1, sizeof(*l));
        if (!l)
            return NULL;
        l->worker_id = strdup(w->id);
        if (!l->worker_id || bytesmap_put(&r->leases.by_worker,
                                          slice_of(l->worker_id, strlen(l->worker_id)), l) < 0) {
            free(l->worker_id);
            free(l);
            return NULL;
        }
    }
    l->draining = l->draining && l->incarnation == w->incarnation; /* the same process */
    l->incarnation = w->incarnation;
    l->registered_index = w->registered_index;
    l->last_beat = r->now;
    l->beaten = false;
    l->losing = false;
    r->leases.check_at = mono_min(r->leases.check_at, mono_add_ns(r->now, r->o.worker_lease_ns));
    return l;
}

void leases_reset(struct replica *r) {
    leases_free(r);
    r->leases.check_at = MONO_NEVER;
    for (const struct fsm_worker *w = fsm_worker_first(r->fsm); w; w = w->next)
        if (!w->lost && !lease_start(r, w))
            replica_fail(r, -ENOMEM, "leases: out of memory");
}

void leases_workers_changed(struct replica *r) {
    if (!r->was_leader)
        return;
    for (const struct fsm_worker *w = fsm_worker_first(r->fsm); w; w = w->next) {
        struct lease *l = lease_find(r, w->id);

        if (w->lost && l)
            l->losing = true; /* also when nobody knew any more whether it was committed */
        if (w->lost || (l && l->registered_index == w->registered_index && !l->losing))
            continue; /* not this one: a hello of the same process counts as well */
        if (!lease_start(r, w))
            replica_fail(r, -ENOMEM, "leases: out of memory");
        else
            lease_find(r, w->id)->beaten = true; /* registering is a sign of life */
    }
}

bool leases_beat(struct replica *r, const char *worker_id, uint64_t incarnation, bool draining) {
    const struct fsm_worker *w = fsm_worker_find(r->fsm, worker_id);
    struct lease *l;

    if (!r->was_leader || !w || w->lost || w->incarnation != incarnation)
        return false;
    l = lease_find(r, worker_id);
    if (!l || l->incarnation != incarnation || l->losing)
        return false;
    if (!leases_alive(r, w))
        r->scheduler.dirty = true; /* back from a silence that no entry has made final */
    l->last_beat = r->now;
    l->beaten = true;
    l->draining |= draining; /* no way back but a new process */
    return true;
}

bool leases_alive(struct replica *r, const struct fsm_worker *w) {
    const struct lease *l = lease_find(r, w->id);

    return l && !w->lost && l->incarnation == w->incarnation && !l->losing &&
           mono_diff_ns(r->now, l->last_beat) < r->o.worker_lease_ns;
}

bool leases_draining(struct replica *r, const struct fsm_worker *w) {
    const struct lease *l = lease_find(r, w->id);

    return l && l->incarnation == w->incarnation && l->draining;
}

int64_t leases_age_ms(struct replica *r, const char *worker_id) {
    const struct lease *l = lease_find(r, worker_id);

    return l && l->beaten ? (int64_t) (mono_diff_ns(r->now, l->last_beat) / NS_PER_MS) : -1;
}

struct lose_arg {
    struct replica *replica;
    uint64_t incarnation;
    char worker_id[]; /* the lease may be gone when the answer comes */
};

static void lose_done(void *arg, const struct replica_proposed *res) {
    struct lose_arg *a = arg;

    if (res->status != REPLICA_OK && res->status != REPLICA_STOPPING) {
        struct lease *l = lease_find(a->replica, a->worker_id);

        if (l && l->incarnation == a->incarnation && l->losing) {
            l->losing = false; /* still silent? then it is proposed again */
            a->replica->leases.check_at = a->replica->now;
        }
    }
    free(a);
}

static int lose_propose(struct replica *r, const struct lease *l) {
    Chronos__Internal__V1__LogCommand cmd = CHRONOS__INTERNAL__V1__LOG_COMMAND__INIT;
    Chronos__Internal__V1__LoseWorker body = CHRONOS__INTERNAL__V1__LOSE_WORKER__INIT;
    Chronos__Internal__V1__LoseWorkerItem item = CHRONOS__INTERNAL__V1__LOSE_WORKER_ITEM__INIT;
    Chronos__Internal__V1__LoseWorkerItem *items[] = {&item};
    struct lose_arg *a = malloc(sizeof(*a) + strlen(l->worker_id) + 1);
    struct bytes *command = NULL;
    int rc;

    if (!a)
        return -ENOMEM;
    *a = (struct lose_arg){.replica = r, .incarnation = l->incarnation};
    memcpy(a->worker_id, l->worker_id, strlen(l->worker_id) + 1);
    item.worker_id = l->worker_id;
    item.incarnation = l->incarnation;
    body.items = items;
    body.n_items = 1;
    cmd.body_case = CHRONOS__INTERNAL__V1__LOG_COMMAND__BODY_LOSE_WORKER;
    cmd.lose_worker = &body;
    rc = command_encode(&cmd, &command);
    if (rc == 0)
        rc = replica_propose(r, command, REPLICA_INTERNAL | REPLICA_OWN_TERM, MONO_NEVER, lose_done,
                             a);
    if (rc != 0)
        free(a);
    return rc;
}

void leases_check(struct replica *r) {
    struct mono next = MONO_NEVER;
    struct bytesmap_slot *s;
    size_t pos = 0;

    if (!replica_leads(r) || !mono_reached(r->now, r->leases.check_at))
        return;
    while ((s = bytesmap_next(&r->leases.by_worker, &pos))) {
        struct lease *l = s->value;
        const struct fsm_worker *w = fsm_worker_find(r->fsm, l->worker_id);
        struct mono end = mono_add_ns(l->last_beat, r->o.worker_lease_ns);

        if (!w || w->lost || w->incarnation != l->incarnation || l->losing)
            continue;
        if (!mono_reached(r->now, end)) {
            next = mono_min(next, end);
            continue;
        }
        log_warn(r->env.log, "worker lost", "worker=%s silent_ms=%llu", l->worker_id,
                 (unsigned long long) (mono_diff_ns(r->now, l->last_beat) / NS_PER_MS));
        if (lose_propose(r, l) == 0)
            l->losing = true;
        else
            next = mono_min(next, mono_add_ms(r->now, 100));
    }
    r->leases.check_at = next;
}
