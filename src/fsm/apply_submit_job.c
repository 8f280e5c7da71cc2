/* SubmitJob.
 *
 * "Ids are short, unique, ordered by creation": the job's number is the next one, given by the log.
 * "Same key and same request return the first job's id; same key with another request is
 * ALREADY_EXISTS; remembered 24 h, bounded; holds across failover" (C19, J2, J3): a client whose
 * submit has an unknown outcome repeats it with its key and gets at most one job. */
#include "fsm/fsm_internal.h"

#define REQUEST_HASH_BYTES_MAX 64

int apply_submit_job(struct fsm *f, struct apply *a, const void *item, struct slice raw,
                     struct fsm_result *res) {
    const struct item_submit *s = item;
    struct record_job rec = {.spec = s->spec, .max_attempts = s->max_attempts, .queue = s->queue};
    struct record_key key;
    uint64_t seq;
    int r;

    ASSERT(raw.len >= s->spec.len);
    if (s->spec.len > FSM_SPEC_BYTES_MAX || s->queue.len > FSM_IDEMPOTENCY_KEY_BYTES_MAX ||
        s->idempotency_key.len > FSM_IDEMPOTENCY_KEY_BYTES_MAX ||
        s->request_hash.len > REQUEST_HASH_BYTES_MAX) {
        res->code = FSM_REFUSED;
        return 0;
    }
    r = keys_check(f, a, s->idempotency_key, s->request_hash, &key, &res->code);
    if (r < 0)
        return r;
    if (res->code != FSM_OK) {
        if (key.schedule_seq > 0)
            res->code = FSM_KEY_CONFLICT; /* a schedule's: no job has that number */
        else
            res->job_seq = key.job_seq;
        return 0;
    }
    r = jobs_create(f, a, &rec, &seq);
    if (r == 0 && s->idempotency_key.len > 0) {
        key = (struct record_key){
            .request_hash = s->request_hash, .job_seq = seq, .created_at_ms = a->now_ms};
        r = keys_remember(f, s->idempotency_key, &key);
    }
    if (r == 0)
        res->job_seq = seq;
    return r;
}
