#include "fsm_model.h"

const char *worker_name(int w) {
    static const char *const names[WORKERS] = {"alpha", "beta", "gamma", "delta"};

    return names[w];
}

void model_move(struct model *m, struct model_job *j, unsigned state) {
    j->state = state;
    if (state != S(RUNNING))
        j->worker = -1;
    m->events++;
    if (state != S(PENDING) && state != S(RUNNING) && j->schedule > 0)
        model_run_ended(m, j);
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

void model_purge(struct model *m, unsigned most) {
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

enum fsm_code model_submit(struct model *m, int key, char hash, unsigned max_attempts) {
    if (key >= 0 && m->keys[key].used)
        return m->keys[key].hash == hash && m->keys[key].schedule == 0 ? FSM_EXISTING
                                                                       : FSM_KEY_CONFLICT;
    if (key >= 0) {
        model_purge(m, KEYS_REMEMBERED_MAX - 1);
        m->keys[key] = (struct model_key){true, hash, m->next, m->now_ms, 0};
    }
    m->jobs[m->next] = (struct model_job){.max_attempts = max_attempts, .worker = -1};
    model_move(m, &m->jobs[m->next], S(PENDING));
    m->next++;
    return FSM_OK;
}

bool model_known(const struct model *m, uint64_t seq) {
    return seq > 0 && seq < m->next;
}

enum fsm_code model_assign(struct model *m, uint64_t seq, int w, uint64_t incarnation) {
    struct model_worker *mw = &m->workers[w];
    struct model_job *j;
    int64_t until_ms;

    if (!model_known(m, seq))
        return FSM_NOT_FOUND;
    j = &m->jobs[seq];
    if (j->state != S(PENDING))
        return FSM_NOT_PENDING;
    if (!mw->known || mw->lost || mw->incarnation != incarnation ||
        model_running(m, w) >= mw->slots)
        return FSM_WORKER_GONE;
    if (model_draining(m, w, &until_ms))
        return FSM_WORKER_DRAINING;
    model_move(m, j, S(RUNNING));
    j->worker = w;
    j->attempt++;
    j->token = m->index;
    return FSM_OK;
}

static void model_release(struct model *m, struct model_job *j, bool started) {
    if (started && j->max_attempts == 1 && !j->cancel)
        model_lose_job(m, j);
    else {
        j->released += !j->cancel;
        model_move(m, j, j->cancel ? S(CANCELLED) : S(PENDING));
    }
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

enum fsm_code model_update(struct model *m, uint64_t seq, uint64_t token, int outcome,
                           bool started) {
    struct model_job *j;

    if (!model_known(m, seq))
        return FSM_NOT_FOUND;
    j = &m->jobs[seq];
    if (j->state == S(UNSPECIFIED))
        return FSM_NOT_FOUND; /* a number without a job */
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

void model_stop(struct model *m, uint64_t seq, bool kill) {
    struct model_job *j = &m->jobs[seq];

    if (j->cancel && (j->kill || !kill))
        return;
    j->cancel = true;
    j->kill = kill;
    if (j->state == S(PENDING))
        model_move(m, j, S(CANCELLED));
    else
        m->events++;
}

enum fsm_code model_cancel(struct model *m, uint64_t seq) {
    struct model_job *j;

    if (!model_known(m, seq) || m->jobs[seq].state == S(UNSPECIFIED)) /* a key's number */
        return FSM_NOT_FOUND;
    j = &m->jobs[seq];
    if (j->state != S(PENDING) && j->state != S(RUNNING))
        return FSM_TERMINAL;
    model_stop(m, seq, false);
    return FSM_OK;
}

void model_lose_all(struct model *m, int w, const uint64_t (*held)[2], size_t held_count) {
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

enum fsm_code model_lose(struct model *m, int w, uint64_t incarnation) {
    struct model_worker *mw = &m->workers[w];

    if (!mw->known)
        return FSM_NOT_FOUND;
    if (mw->lost || mw->incarnation != incarnation)
        return FSM_WORKER_GONE;
    model_lose_all(m, w, NULL, 0);
    mw->lost = true;
    return FSM_OK;
}

/* ---- the cluster -------------------- */

bool model_draining(const struct model *m, int w, int64_t *ret_until_ms) {
    const struct model_worker *mw = &m->workers[w];
    const struct model_node *n = &m->nodes[mw->node];
    bool through_node = mw->node > 0 && n->draining;

    *ret_until_ms = 0;
    if (mw->draining)
        *ret_until_ms = mw->until_ms;
    if (through_node && (!mw->draining || n->until_ms < mw->until_ms))
        *ret_until_ms = n->until_ms;
    return mw->draining || through_node;
}

enum fsm_code model_set_node(struct model *m, uint64_t node, uint8_t disk, unsigned feature_max) {
    struct model_node *n = &m->nodes[node];

    if (!n->known)
        return FSM_NOT_FOUND;
    if (!n->member || disk == 0 || (n->bound && n->disk != disk))
        return FSM_REFUSED;
    n->bound = true;
    n->disk = disk;
    n->feature_max = feature_max;
    return FSM_OK;
}

enum fsm_code model_drain_node(struct model *m, uint64_t node, bool on, int64_t timeout_ms) {
    struct model_node *n = &m->nodes[node];

    if (node == 0 || (on && timeout_ms < 0))
        return FSM_REFUSED;
    if (!n->known)
        return FSM_NOT_FOUND;
    if (!n->member && on)
        return FSM_REFUSED;
    n->draining = on;
    n->until_ms = on ? m->now_ms + timeout_ms : 0;
    return FSM_OK;
}

enum fsm_code model_drain_worker(struct model *m, int w, bool on, int64_t timeout_ms) {
    struct model_worker *mw = &m->workers[w];

    if (on && timeout_ms < 0)
        return FSM_REFUSED;
    if (!mw->known)
        return FSM_NOT_FOUND;
    mw->draining = on;
    mw->until_ms = on ? m->now_ms + timeout_ms : 0;
    return FSM_OK;
}

enum fsm_code model_set_level(struct model *m, unsigned level) {
    if (level <= m->level)
        return FSM_REFUSED;
    for (int i = 1; i <= NODES; i++)
        if (m->nodes[i].member && m->nodes[i].feature_max < level)
            return FSM_REFUSED;
    m->level = level;
    return FSM_OK;
}

void model_config(struct model *m, const uint64_t *ids, size_t count) {
    for (int i = 1; i <= NODES; i++)
        m->nodes[i].member = false;
    for (size_t i = 0; i < count; i++)
        m->nodes[ids[i]].known = m->nodes[ids[i]].member = true;
}
