/* SubmitJob.
 *
 * "Ids are short, unique, ordered by creation": the job's number is the next one, given by the log.
 * "Same key and same request return the first job's id; same key with another request is
 * ALREADY_EXISTS; remembered 24 h, bounded; holds across failover" (C19, J2, J3): a client whose
 * submit has an unknown outcome repeats it with its key and gets at most one job. */
#include "fsm/fsm_internal.h"

#include <errno.h>

#define PURGE_PER_KEY                                                                              \
    2 /* more than one each, so that expired keys run out even under steady load */
#define REQUEST_HASH_BYTES_MAX 64

static bool same(struct slice a, struct slice b) {
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

/* 0: the key is free (or there is none); 1: *res tells what the key named; negative. */
static int check_key(struct fsm *f, struct apply *a, const struct item_submit *s,
                     struct fsm_result *res) {
    struct record_key rec;
    int r;

    if (s->idempotency_key.len == 0)
        return 0;
    r = keys_find(f, a, s->idempotency_key, &rec);
    if (r < 0)
        return r;
    if (r == KEYS_NOT_FOUND)
        return keys_purge(f, a, 1, PURGE_PER_KEY);
    ASSERT(rec.job_seq > 0);
    ASSERT(rec.job_seq < f->next_seq);
    *res = (struct fsm_result){
        .code = same(rec.request_hash, s->request_hash) ? FSM_EXISTING : FSM_KEY_CONFLICT,
        .job_seq = rec.job_seq,
    };
    return 1;
}

static int create(struct fsm *f, struct apply *a, const struct item_submit *s, uint64_t seq) {
    struct record_job rec = {
        .spec = s->spec,
        .max_attempts = s->max_attempts ? s->max_attempts : FSM_MAX_ATTEMPTS_DEFAULT,
        .created_at_ms = a->now_ms,
        .created_index = a->index,
        .queue = s->queue,
    };
    uint8_t key[RECORD_JOB_KEY_BYTES];
    struct overlay_entry *e;
    struct fsm_job *j;
    int r;

    ASSERT(seq > 0);
    r = store_create(f, record_job_key(seq, key), &e);
    if (r < 0)
        return r;
    j = jobs_new(f, seq);
    if (!j)
        return -ENOMEM;
    j->max_attempts = rec.max_attempts;
    return jobs_transition(f, a, j, &rec, e, JOB_EVENT_SUBMIT);
}

int apply_submit_job(struct fsm *f, struct apply *a, const void *item, struct slice raw,
                     struct fsm_result *res) {
    const struct item_submit *s = item;
    uint64_t seq = f->next_seq;
    int r;

    ASSERT(seq > 0);
    ASSERT(raw.len >= s->spec.len);
    if (s->spec.len > FSM_SPEC_BYTES_MAX || s->queue.len > FSM_IDEMPOTENCY_KEY_BYTES_MAX ||
        s->idempotency_key.len > FSM_IDEMPOTENCY_KEY_BYTES_MAX ||
        s->request_hash.len > REQUEST_HASH_BYTES_MAX) {
        res->code = FSM_REFUSED;
        return 0;
    }
    r = check_key(f, a, s, res);
    if (r != 0)
        return r < 0 ? r : 0;
    f->next_seq++;
    r = create(f, a, s, seq);
    if (r == 0 && s->idempotency_key.len > 0)
        r = keys_remember(f, a, s->idempotency_key, s->request_hash, seq);
    *res = (struct fsm_result){.code = FSM_OK, .job_seq = seq};
    return r;
}
