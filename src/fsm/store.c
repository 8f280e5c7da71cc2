/* Records: the overlay in front of the kv store, and the digest over both.
 *
 * The digest is the sum modulo 2^128 of XXH3-128(key, 0x00, value) over all records: a change costs
 * one subtraction and one addition, and the order of changes does not matter, so a replica that was
 * rebuilt from a snapshot has the digest of one that lived through the log (R22).
 * Thread: the loop. */
#include "fsm/fsm_internal.h"

#include <errno.h>
#include <stdlib.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

fsm_u128 store_digest(struct slice hashed) {
    XXH128_hash_t h = XXH3_128bits(hashed.data, hashed.len);

    ASSERT(hashed.len > 0);
    return ((fsm_u128) h.high64 << 64) | h.low64;
}

static fsm_u128 entry_digest(const struct overlay_entry *e) {
    return ((fsm_u128) e->digest_high << 64) | e->digest_low;
}

static void set_entry_digest(struct overlay_entry *e, fsm_u128 d) {
    e->digest_low = (uint64_t) d;
    e->digest_high = (uint64_t) (d >> 64);
}

int store_seen(struct fsm *f, int r) {
    f->store_damaged |= r == ERR_CORRUPT;
    return r;
}

bool fsm_store_damaged(const struct fsm *f) {
    ASSERT(f);
    return f->store_damaged;
}

int store_read(struct fsm *f, struct slice key, struct slice *ret) {
    const struct overlay_entry *e = overlay_find(&f->overlay, key);
    int r;

    ASSERT(!f->failed);
    ASSERT(ret);
    if (e) {
        if (!e->exists)
            return STORE_NOT_FOUND;
        *ret = overlay_value(e);
        return 0;
    }
    buf_clear(&f->read);
    r = store_seen(f, f->kv->ops->get(f->kv, key, &f->read));
    if (r != 0)
        return r == KV_NOT_FOUND ? STORE_NOT_FOUND : r;
    *ret = slice_of(f->read.data, f->read.len);
    return 0;
}

static int fill(struct fsm *f, struct overlay_entry *e, struct slice value) {
    uint8_t *p;
    int r = overlay_resize(&f->overlay, e, value.len, &p);

    ASSERT(e);
    if (r < 0)
        return r;
    if (value.len > 0)
        memcpy(p, value.data, value.len);
    e->exists = true;
    return 0;
}

int store_open(struct fsm *f, struct slice key, struct overlay_entry **ret) {
    struct overlay_entry *e = overlay_find(&f->overlay, key);
    int found, r;

    ASSERT(!f->failed);
    ASSERT(ret);
    if (e) {
        *ret = e;
        return 0;
    }
    buf_clear(&f->read);
    found = store_seen(f, f->kv->ops->get(f->kv, key, &f->read));
    if (found < 0)
        return found;
    r = overlay_obtain(&f->overlay, key, &e);
    if (r < 0)
        return r;
    if (found == 0) {
        r = fill(f, e, slice_of(f->read.data, f->read.len));
        if (r < 0)
            return r;
        set_entry_digest(e, store_digest(overlay_hashed(e)));
    }
    *ret = e;
    return 0;
}

int store_create(struct fsm *f, struct slice key, struct overlay_entry **ret) {
    int r = overlay_obtain(&f->overlay, key, ret);

    ASSERT(!f->failed);
    ASSERT(r < 0 || !(*ret)->exists);
    return r;
}

int store_put(struct fsm *f, struct overlay_entry *e, struct slice value) {
    fsm_u128 now;
    int r;

    ASSERT(e);
    ASSERT(value.data != overlay_value(e).data || value.len == 0);
    f->digest -= entry_digest(e);
    r = fill(f, e, value);
    if (r < 0)
        return r;
    now = store_digest(overlay_hashed(e));
    f->digest += now;
    set_entry_digest(e, now);
    e->dirty = true;
    return 0;
}

void store_delete(struct fsm *f, struct overlay_entry *e) {
    ASSERT(e);
    ASSERT(e->exists);
    f->digest -= entry_digest(e);
    set_entry_digest(e, 0);
    e->exists = false;
    e->dirty = true;
    e->value_len = 0;
}

/* protobuf-c answers NULL for malformed bytes and for no memory alike; only the latter goes through
 * here. */
struct noting_allocator {
    ProtobufCAllocator pb;
    struct arena *arena;
    bool failed;
};

static void *noting_alloc(void *ctx, size_t size) {
    struct noting_allocator *n = ctx;
    void *p = arena_alloc(n->arena, size);

    n->failed |= !p;
    return p;
}

static void noting_free(void *ctx, void *p) {
    (void) ctx;
    (void) p; /* released with the arena */
}

int store_unpack(const ProtobufCMessageDescriptor *type, struct slice bytes, struct arena *arena,
                 ProtobufCMessage **ret) {
    struct noting_allocator n = {.arena = arena};
    ProtobufCMessage *m;

    ASSERT(arena);
    ASSERT(ret);
    n.pb = (ProtobufCAllocator){.alloc = noting_alloc, .free = noting_free, .allocator_data = &n};
    m = protobuf_c_message_unpack(type, &n.pb, bytes.len, bytes.data);
    if (!m)
        return n.failed ? -ENOMEM : ERR_CORRUPT;
    *ret = m;
    return 0;
}

int store_read_record(struct fsm *f, struct slice key, const ProtobufCMessageDescriptor *type,
                      struct arena *arena, ProtobufCMessage **ret) {
    struct slice value;
    int r;

    ASSERT(key.len > 1);
    r = store_read(f, key, &value);
    if (r != 0)
        return r == STORE_NOT_FOUND ? FSM_READ_NOT_FOUND : r;
    return store_unpack(type, value, arena, ret);
}

/* The oldest job that has not ended: fsm_open need not read the records before it. */
static uint64_t first_active_seq(const struct fsm *f) {
    uint64_t first = f->ready_first ? f->ready_first->seq : f->next_seq;

    for (const struct fsm_worker *w = f->workers_first; w; w = w->next)
        if (w->first_job)
            first = MIN(first, w->first_job->seq);
    ASSERT(first > 0);
    ASSERT(first <= f->next_seq);
    return first;
}

int store_encode_meta(const struct fsm *f, struct buf *b) {
    Chronos__Internal__V1__StateMeta m = CHRONOS__INTERNAL__V1__STATE_META__INIT;
    char reason[sizeof(f->schedules_pause.reason)];
    uint64_t counts[JOB_STATE_COUNT];
    size_t n, packed;
    int r;

    memcpy(reason, f->schedules_pause.reason, sizeof(reason));
    memcpy(counts, f->counts, sizeof(counts));
    m.version = FSM_COMMAND_VERSION;
    m.applied_index = f->applied_index;
    m.applied_term = f->applied_term;
    m.next_job_seq = f->next_seq;
    m.last_now_ms = f->last_now_ms;
    m.digest_low = (uint64_t) f->digest;
    m.digest_high = (uint64_t) (f->digest >> 64);
    m.jobs_by_state = counts;
    m.n_jobs_by_state = JOB_STATE_COUNT;
    m.first_active_seq = first_active_seq(f);
    m.idempotency_keys = f->keys_count;
    m.config.data = f->config.data;
    m.config.len = f->config.len;
    m.config_index = f->config_index;
    m.feature_level = f->feature_level;
    m.last_schedule_seq = f->last_schedule_seq;
    m.schedules = f->schedules.count;
    m.schedules_paused = f->schedules_pause.paused;
    m.schedules_paused_until_ms = f->schedules_pause.until_ms;
    m.schedules_pause_reason = reason;
    m.schedules_resumed_ms = f->schedules_pause.resumed_ms;
    n = chronos__internal__v1__state_meta__get_packed_size(&m);
    buf_clear(b);
    r = buf_reserve(b, n);
    if (r < 0)
        return r;
    packed = chronos__internal__v1__state_meta__pack(&m, b->data);
    ASSERT(packed == n);
    b->len = n;
    return 0;
}

static int ops_reserve(struct fsm *f, size_t n) {
    struct kv_op *ops;

    if (n <= f->ops_cap)
        return 0;
    ops = realloc(f->ops, n * sizeof(*ops));
    if (!ops)
        return -ENOMEM;
    f->ops = ops;
    f->ops_cap = n;
    return 0;
}

int fsm_write_back(struct fsm *f) {
    size_t n = 0;
    int r;

    ASSERT(f);
    ASSERT(!f->failed);
    if (f->written_index == f->applied_index)
        return 0;
    r = ops_reserve(f, f->overlay.count + 1);
    if (r == 0)
        r = store_encode_meta(f, &f->encode);
    if (r < 0) {
        f->failed = true;
        return r;
    }
    for (const struct overlay_entry *e = f->overlay.first; e; e = e->list_next) {
        if (!e->dirty)
            continue;
        f->ops[n++] =
            (struct kv_op){.key = overlay_key(e), .value = overlay_value(e), .del = !e->exists};
    }
    f->ops[n++] =
        (struct kv_op){.key = slice_of("m", 1), .value = slice_of(f->encode.data, f->encode.len)};
    ASSERT(n <= f->ops_cap);
    r = f->kv->ops->write(f->kv, f->ops, n);
    if (r == -ENOSPC || r == -EDQUOT)
        return r; /* a batch is written whole or not at all: the overlay still has all of it */
    if (r < 0) {
        f->failed = true;
        return r;
    }
    overlay_clear(&f->overlay);
    f->written_index = f->applied_index;
    return 0;
}

bool fsm_wants_write_back(const struct fsm *f) {
    ASSERT(f);
    ASSERT(f->written_index <= f->applied_index);
    return f->overlay.arena.used_bytes > f->options.overlay_bytes_max;
}
