/* Any records as a state store: fsm_open refuses with a reason or opens, and what was opened can be
 * read, listed and written back without a crash.
 *
 * The input is a byte of flags, then records {key length u8, value length u16, key, value}. With
 * flag 1 the counters in the state's head are set to what the records say, or nearly nothing would
 * get behind that check. */
#include "fuzz.h"

#include "fsm/command.h"
#include "fsm/fsm.h"
#include "storage/kv_mem.h"

#include <stdlib.h>

#define STATES 6
#define META_BYTES_MAX 4096U

static void put(struct kv *kv, struct slice key, struct slice value) {
    struct kv_op op = {.key = key, .value = value};
    int rc = kv->ops->write(kv, &op, 1);

    ASSERT(rc == 0);
}

struct counted {
    uint64_t jobs[STATES], keys, schedules, next_seq, last_schedule;
};

static void count_one(struct counted *c, struct slice key, struct slice value) {
    Chronos__Internal__V1__JobRecord *job;

    if (key.len == 0)
        return;
    c->keys += key.data[0] == 'k';
    c->schedules += key.data[0] == 's';
    if (key.data[0] == 's' && key.len == 9)
        c->last_schedule = MAX(c->last_schedule, get_be64(key.data + 1));
    if (key.data[0] != 'j' || key.len != 9)
        return;
    c->next_seq = MAX(c->next_seq, get_be64(key.data + 1) + 1);
    job = chronos__internal__v1__job_record__unpack(NULL, value.len, value.data);
    if (job && (unsigned) job->state < STATES)
        c->jobs[job->state]++;
    if (job)
        chronos__internal__v1__job_record__free_unpacked(job, NULL);
}

/* The head says what there is. */
static void mend_head(struct kv *kv) {
    Chronos__Internal__V1__StateMeta *m;
    struct counted c = {.next_seq = 1};
    uint8_t packed[META_BYTES_MAX];
    struct kv_iter *it = NULL;
    struct buf head;

    buf_init(&head, META_BYTES_MAX / 2);
    if (kv->ops->get(kv, slice_of("m", 1), &head) != 0)
        return;
    m = chronos__internal__v1__state_meta__unpack(NULL, head.len, head.data);
    if (m && kv->ops->iter_open(kv, &it) == 0) {
        for (it->ops->seek(it, slice_of("", 0)); it->ops->valid(it); it->ops->next(it))
            count_one(&c, it->ops->key(it), it->ops->value(it));
        it->ops->close(it);
        for (size_t i = 0; i < m->n_jobs_by_state && i < STATES; i++)
            m->jobs_by_state[i] = c.jobs[i];
        m->idempotency_keys = c.keys;
        m->schedules = c.schedules;
        m->next_job_seq = MAX(m->next_job_seq, c.next_seq);
        m->last_schedule_seq = MAX(m->last_schedule_seq, c.last_schedule);
        if (chronos__internal__v1__state_meta__get_packed_size(m) <= sizeof(packed))
            put(kv, slice_of("m", 1),
                slice_of(packed, chronos__internal__v1__state_meta__pack(m, packed)));
    }
    if (m)
        chronos__internal__v1__state_meta__free_unpacked(m, NULL);
    buf_done(&head);
}

static int see_job(void *arg, uint64_t seq, const Chronos__Internal__V1__JobRecord *rec) {
    ASSERT(seq > 0 && rec);
    (*(size_t *) arg)++;
    return 0;
}

static int see_schedule(void *arg, const struct fsm_schedule *s,
                        const Chronos__Internal__V1__ScheduleRecord *rec) {
    ASSERT(s && rec);
    (*(size_t *) arg)++;
    return 0;
}

/* Reading may say that a record is damaged, nothing worse. */
static void read_all(struct fsm *f) {
    struct arena arena;
    size_t seen = 0;
    uint8_t digest[16];
    int rc;

    arena_init(&arena, SIZE_MAX / 2);
    fsm_digest(f, digest);
    rc = fsm_scan_jobs(f, 1, true, &arena, see_job, &seen);
    ASSERT(rc <= 0);
    rc = fsm_scan_jobs(f, UINT64_MAX, false, &arena, see_job, &seen);
    ASSERT(rc <= 0);
    rc = fsm_scan_schedules(f, slice_of("", 0), &arena, see_schedule, &seen);
    ASSERT(rc <= 0);
    rc = fsm_load_schedules(f, 0, &arena, see_schedule, &seen);
    ASSERT(rc <= 0);
    for (const struct fsm_schedule *s = fsm_schedule_first(f); s; s = s->next) {
        Chronos__Internal__V1__ScheduleRecord *rec = NULL;
        Chronos__Internal__V1__TickRecord *tick = NULL;

        if (fsm_read_schedule(f, s->seq, &arena, &rec) != 0)
            continue;
        for (uint64_t n = rec->first_ordinal; n < rec->next_ordinal && n < rec->first_ordinal + 4;
             n++)
            (void) !fsm_read_tick(f, s->seq, n, &arena, &tick);
    }
    for (const struct fsm_worker *w = fsm_worker_first(f); w; w = w->next) {
        Chronos__Internal__V1__WorkerRecord *rec = NULL;

        (void) !fsm_read_worker(f, w->id, &arena, &rec);
    }
    arena_done(&arena);
}

/* The next entries, on whatever stands there: a job, its cancelling, all schedules paused. They are
 * applied or the damage is told. */
static void apply_some(struct fsm *f) {
    static const uint8_t submit[] = {0x08, 1, 0x12, 6, 0x0a, 4, 0x0a, 2, 0x1a, 0,
                                     0xa1, 6, 0,    0, 0,    0, 1,    0, 0,    0};
    static const uint8_t cancel[] = {0x08, 1, 0x3a, 4, 0x0a, 2, 0x08, 1, 0xa1,
                                     6,    0, 0,    0, 0,    2, 0,    0, 0};
    static const uint8_t pause[] = {0x08, 1, 0x72, 2, 0x10, 1, 0xa1, 6, 0, 0, 0, 0, 3, 0, 0, 0};
    const struct slice commands[] = {slice_of(submit, sizeof(submit)),
                                     slice_of(cancel, sizeof(cancel)),
                                     slice_of(pause, sizeof(pause))};
    const struct fsm_output *out;
    struct errtext why = {""};
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < ARRAY_LEN(commands); i++) {
        rc = command_check(commands[i], &why);
        ASSERT(rc == 0);
        rc = fsm_apply(f, fsm_applied_index(f) + 1, fsm_applied_term(f), commands[i], &out, &why);
        ASSERT(rc == 0 || rc == ERR_CORRUPT);
    }
    if (rc == 0)
        rc = fsm_write_back(f);
    ASSERT(rc == 0 || rc == ERR_CORRUPT);
}

static void check(struct kv *kv) {
    const struct fsm_options o = {.idempotency_max = 64};
    struct errtext why = {""};
    struct fsm *f = NULL;
    int rc = fsm_open(kv, &o, &f, &why);

    ASSERT(rc == 0 || rc == ERR_CORRUPT || rc == ERR_VERSION);
    if (rc != 0) {
        fuzz_sentence(&why);
        ASSERT(!f);
        return;
    }
    read_all(f);
    rc = fsm_write_back(f);
    ASSERT(rc == 0);
    apply_some(f);
    (void) fsm_free(f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct slice in = slice_of(data, size);
    uint8_t flags = fuzz_u8(&in);
    struct kv *kv = NULL;
    int rc = kv_mem_new(0, &kv);

    ASSERT(rc == 0);
    while (in.len > 3) {
        size_t key_len = in.data[0], value_len = get_le16(in.data + 1);
        struct slice key, value;

        (void) fuzz_bytes(&in, 3);
        key = fuzz_bytes(&in, key_len);
        value = fuzz_bytes(&in, value_len);
        put(kv, key, value);
    }
    if (flags & 1)
        mend_head(kv);
    check(kv);
    kv->ops->close(kv);
    return 0;
}
