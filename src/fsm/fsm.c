/* The state machine's outside: accessors and reads. Applying is in fsm_apply.c, loading in
 * fsm_open.c. Thread: the loop. */
#include "fsm/fsm_internal.h"

#include <inttypes.h>
#include <stdlib.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#define SCHEDULES_DIGEST_BYTES 48

struct fsm *fsm_free(struct fsm *f) {
    if (!f)
        return NULL;
    overlay_done(&f->overlay);
    idem_done(&f->keys);
    jobs_free_all(f);
    workers_free_all(f);
    nodes_free_all(f);
    schedules_free_all(f);
    schedule_work_done(&f->work);
    buf_done(&f->config);
    arena_done(&f->arena);
    buf_done(&f->read);
    buf_done(&f->encode);
    free(f->ops);
    free(f->results);
    free(f->events);
    free(f->schedule_events);
    free(f->ticks);
    free(f);
    return NULL;
}

uint64_t fsm_applied_index(const struct fsm *f) {
    ASSERT(f);
    return f->applied_index;
}

uint64_t fsm_applied_term(const struct fsm *f) {
    ASSERT(f);
    return f->applied_term;
}

uint64_t fsm_written_index(const struct fsm *f) {
    ASSERT(f);
    return f->written_index;
}

int64_t fsm_last_now_ms(const struct fsm *f) {
    ASSERT(f);
    return f->last_now_ms;
}

uint64_t fsm_next_seq(const struct fsm *f) {
    ASSERT(f);
    return f->next_seq;
}

uint64_t fsm_records_count(const struct fsm *f) {
    uint64_t count;

    ASSERT(f);
    count = f->keys_count;
    for (size_t i = 0; i < JOB_STATE_COUNT; i++)
        count += f->counts[i];
    return count;
}

uint64_t fsm_jobs_count(const struct fsm *f, Chronos__V1__JobState state) {
    ASSERT(f);
    ASSERT(state < JOB_STATE_COUNT);
    return f->counts[state];
}

const struct fsm_job *fsm_job_find(const struct fsm *f, uint64_t seq) {
    ASSERT(f);
    return u64map_get(&f->jobs, seq);
}

const struct fsm_job *fsm_ready_first(const struct fsm *f) {
    ASSERT(f);
    return f->ready_first;
}

const struct fsm_worker *fsm_worker_first(const struct fsm *f) {
    ASSERT(f);
    return f->workers_first;
}

const struct fsm_worker *fsm_worker_find(const struct fsm *f, const char *id) {
    ASSERT(f);
    ASSERT(id);
    return workers_find(f, slice_of(id, strlen(id)));
}

const struct fsm_node *fsm_node_first(const struct fsm *f) {
    ASSERT(f);
    return f->nodes_first;
}

const struct fsm_node *fsm_node_find(const struct fsm *f, uint64_t id) {
    ASSERT(f);
    return nodes_find(f, id);
}

struct slice fsm_config(const struct fsm *f, uint64_t *ret_index) {
    ASSERT(f);
    ASSERT((f->config.len == 0) == (f->config_index == 0));
    if (ret_index)
        *ret_index = f->config_index;
    return slice_of(f->config.data, f->config.len);
}

uint32_t fsm_feature_level(const struct fsm *f) {
    ASSERT(f);
    ASSERT(f->feature_level > 0);
    return f->feature_level;
}

void fsm_installed(const struct fsm *f, uint64_t *ret_index, uint64_t *ret_term) {
    ASSERT(f);
    ASSERT(ret_index);
    ASSERT(ret_term);
    *ret_index = f->installed_index;
    *ret_term = f->installed_term;
}

bool schedules_ever(const struct fsm *f) {
    return f->last_schedule_seq > 0 || f->schedules_pause.paused ||
           f->schedules_pause.resumed_ms > 0;
}

static uint8_t *digest_schedules(const struct fsm *f, uint8_t *p) {
    const struct schedules_pause *pause = &f->schedules_pause;

    put_le64(p, f->last_schedule_seq);
    put_le64(p + 8, f->schedules.count);
    put_le64(p + 16, pause->paused);
    put_le64(p + 24, (uint64_t) pause->until_ms);
    put_le64(p + 32, (uint64_t) pause->resumed_ms);
    put_le64(p + 40, XXH3_64bits(pause->reason, pause->reason_len));
    return p + SCHEDULES_DIGEST_BYTES;
}

void fsm_digest(const struct fsm *f, uint8_t ret[16]) {
    uint8_t all[16 + 8 + 8 + 8 + 8 * JOB_STATE_COUNT + 8 + 8 + 16 + SCHEDULES_DIGEST_BYTES];
    XXH128_hash_t config = XXH3_128bits(f->config.data, f->config.len);
    XXH128_canonical_t out;
    uint8_t *p = all;

    ASSERT(f);
    ASSERT(ret);
    put_le64(p, (uint64_t) f->digest);
    put_le64(p + 8, (uint64_t) (f->digest >> 64));
    put_le64(p + 16, f->next_seq);
    put_le64(p + 24, (uint64_t) f->last_now_ms);
    put_le64(p + 32, f->keys_count);
    for (size_t i = 0; i < JOB_STATE_COUNT; i++)
        put_le64(p + 40 + 8 * i, f->counts[i]);
    p += 40 + 8 * JOB_STATE_COUNT;
    put_le64(p, f->feature_level);
    put_le64(p + 8, f->config_index);
    put_le64(p + 16, config.low64);
    put_le64(p + 24, config.high64);
    p += 32;
    ASSERT(p + SCHEDULES_DIGEST_BYTES == all + sizeof(all));
    if (schedules_ever(f))
        p = digest_schedules(f, p);
    STATIC_ASSERT(sizeof(out.digest) == 16, "128 bits");
    XXH128_canonicalFromHash(&out, XXH3_128bits(all, (size_t) (p - all)));
    memcpy(ret, out.digest, 16);
}

int fsm_read_job(struct fsm *f, uint64_t seq, struct arena *arena,
                 Chronos__Internal__V1__JobRecord **ret) {
    uint8_t key[RECORD_JOB_KEY_BYTES];

    ASSERT(f);
    ASSERT(ret);
    return store_read_record(f, record_job_key(seq, key),
                             &chronos__internal__v1__job_record__descriptor, arena,
                             (ProtobufCMessage **) (void *) ret);
}

int fsm_read_worker(struct fsm *f, const char *id, struct arena *arena,
                    Chronos__Internal__V1__WorkerRecord **ret) {
    uint8_t key[RECORD_KEY_BYTES_MAX];

    ASSERT(f);
    ASSERT(id);
    if (id[0] == '\0' || strlen(id) > FSM_WORKER_ID_BYTES_MAX)
        return FSM_READ_NOT_FOUND;
    return store_read_record(f, record_name_key('w', slice_of(id, strlen(id)), key),
                             &chronos__internal__v1__worker_record__descriptor, arena,
                             (ProtobufCMessage **) (void *) ret);
}

static bool at_job(const struct kv_iter *it) {
    struct slice key;

    if (!it->ops->valid(it))
        return false;
    key = it->ops->key(it);
    return key.len == RECORD_JOB_KEY_BYTES && key.data[0] == 'j';
}

static int scan(struct kv_iter *it, uint64_t from_seq, bool ascending, struct arena *arena,
                int (*each)(void *arg, uint64_t seq, const Chronos__Internal__V1__JobRecord *rec),
                void *arg) {
    uint8_t key[RECORD_JOB_KEY_BYTES];
    int r;

    if (ascending)
        it->ops->seek(it, record_job_key(from_seq, key));
    else
        it->ops->seek_for_prev(it, record_job_key(from_seq, key));
    for (; at_job(it); ascending ? it->ops->next(it) : it->ops->prev(it)) {
        uint64_t seq = get_be64(it->ops->key(it).data + 1);
        ProtobufCMessage *m;

        if (seq == 0)
            return ERR_CORRUPT; /* numbers begin at 1 */
        arena_clear(arena);
        r = store_unpack(&chronos__internal__v1__job_record__descriptor, it->ops->value(it), arena,
                         &m);
        if (r < 0)
            return r;
        r = each(arg, seq, (const Chronos__Internal__V1__JobRecord *) (const void *) m);
        if (r != 0)
            return r < 0 ? r : 0;
    }
    return it->ops->status(it);
}

int fsm_scan_jobs(struct fsm *f, uint64_t from_seq, bool ascending, struct arena *arena,
                  int (*each)(void *arg, uint64_t seq, const Chronos__Internal__V1__JobRecord *rec),
                  void *arg) {
    struct kv_iter *it;
    int r;

    ASSERT(f);
    ASSERT(each);
    r = fsm_write_back(f);
    if (r < 0)
        return r;
    r = store_seen(f, f->kv->ops->iter_open(f->kv, &it));
    if (r < 0)
        return r;
    r = scan(it, from_seq, ascending, arena, each, arg);
    (void) store_seen(f, it->ops->status(it));
    it->ops->close(it);
    return r;
}
