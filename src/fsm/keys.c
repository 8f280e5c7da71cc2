/* Idempotency keys: remembered for 24 hours of logical time and bounded in number (C19, J2).
 *
 * A key that has expired is treated as unknown from that instant on; its record is dropped a little
 * later, a few with each command, so that no command pays for a day's worth. Which records exist
 * depends on records and commands alone: a queue rebuilt by fsm_open drops the same ones.
 * Thread: the loop. */
#include "fsm/fsm_internal.h"

/* More than one for each new key, so that expired ones run out even under steady load. */
#define PURGE_PER_KEY 2

static bool expired(int64_t now_ms, int64_t created_at_ms) {
    ASSERT(now_ms >= 0);
    return now_ms - created_at_ms >= FSM_IDEMPOTENCY_KEEP_MS;
}

static int load(const struct fsm *f, struct apply *a, struct slice bytes, struct record_key *ret) {
    size_t at = 0;

    ASSERT(ret);
    if (record_decode(&record_shape_key, bytes, ret, &at) == 0 && ret->job_seq > 0 &&
        ret->job_seq < f->next_seq)
        return 0;
    errtext_set(a->err, "record of an idempotency key: malformed at byte %zu", at);
    return ERR_CORRUPT;
}

int keys_find(struct fsm *f, struct apply *a, struct slice key, struct record_key *ret) {
    uint8_t bytes[RECORD_KEY_BYTES_MAX];
    struct slice value;
    int r;

    ASSERT(key.len > 0);
    ASSERT(key.len <= FSM_IDEMPOTENCY_KEY_BYTES_MAX);
    r = store_read(f, record_name_key('k', key, bytes), &value);
    if (r != 0)
        return r == STORE_NOT_FOUND ? KEYS_NOT_FOUND : r;
    r = load(f, a, value, ret);
    if (r < 0)
        return r;
    return expired(a->now_ms, ret->created_at_ms) ? KEYS_NOT_FOUND : 0;
}

int keys_remember(struct fsm *f, struct slice key, const struct record_key *rec) {
    uint8_t bytes[RECORD_KEY_BYTES_MAX];
    struct overlay_entry *e;
    int r;

    ASSERT(key.len > 0);
    ASSERT(rec->job_seq > 0);
    ASSERT(rec->job_seq < f->next_seq);
    r = store_open(f, record_name_key('k', key, bytes), &e);
    if (r < 0)
        return r;
    if (!e->exists)
        f->keys_count++; /* else the expired one is replaced, and its place in the queue is stale */
    r = record_encode(&record_shape_key, rec, &f->encode);
    if (r == 0)
        r = store_put(f, e, slice_of(f->encode.data, f->encode.len));
    return r < 0 ? r : idem_push(&f->keys, rec->created_at_ms, rec->job_seq, key);
}

static bool same(struct slice a, struct slice b) {
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

int keys_check(struct fsm *f, struct apply *a, struct slice key, struct slice request_hash,
               struct record_key *ret, enum fsm_code *ret_code) {
    int r;

    *ret_code = FSM_OK;
    *ret = (struct record_key){0};
    if (key.len == 0)
        return 0;
    r = keys_find(f, a, key, ret);
    if (r < 0)
        return r;
    if (r == KEYS_NOT_FOUND) {
        *ret = (struct record_key){0}; /* what has expired names nothing */
        return keys_purge(f, a, 1, PURGE_PER_KEY);
    }
    ASSERT(ret->job_seq > 0);
    ASSERT(ret->job_seq < f->next_seq);
    *ret_code = same(ret->request_hash, request_hash) ? FSM_EXISTING : FSM_KEY_CONFLICT;
    return 0;
}

int keys_purge(struct fsm *f, struct apply *a, uint64_t wanted, unsigned budget) {
    uint8_t bytes[RECORD_KEY_BYTES_MAX];
    struct overlay_entry *e;
    struct idem_front front;
    struct record_key rec;
    int r;

    while (budget > 0 && idem_peek(&f->keys, &front)) {
        if (!expired(a->now_ms, front.created_at_ms) &&
            f->keys_count + wanted <= f->options.idempotency_max)
            return 0;
        r = store_open(f, record_name_key('k', front.key, bytes), &e);
        if (r < 0)
            return r;
        if (e->exists) {
            r = load(f, a, overlay_value(e), &rec);
            if (r < 0)
                return r;
        }
        if (e->exists && rec.job_seq == front.job_seq) {
            ASSERT(f->keys_count > 0);
            store_delete(f, e);
            f->keys_count--;
            budget--;
        }
        idem_pop(&f->keys);
    }
    return 0;
}
