#include "api/listing.h"

#include "fsm/wire.h"

#include <string.h>

#define PAGE_BYTES_MAX (3UL * 1024 * 1024) /* below the 4 MiB that clients accept by default */
#define BUF_BYTES_MAX (PAGE_BYTES_MAX + 2UL * 1024 * 1024) /* one more record of any size */
#define SLICE_NS (4 * NS_PER_MS)
#define LISTING_NS_MAX (2 * NS_PER_S)

void listing_free(struct listing *l) {
    ASSERT(!l->scan.queued);
    ASSERT(l->api->lists_count > 0);
    l->api->lists_count--;
    if (l->call)
        rpc_call_set_user(l->call, NULL);
    buf_done(&l->page);
    l->kind->free(l);
}

/* ---- the page -------------------------------------------------------------------------------- */

int listing_add(struct listing *l, const ProtobufCMessage *m) {
    size_t bytes = protobuf_c_message_get_packed_size(m);
    uint8_t *p, *start;
    int r;

    if (l->count == l->page_size || (l->count > 0 && l->page.len + bytes > PAGE_BYTES_MAX)) {
        l->outcome = LISTING_PAGE_FULL;
        return 1;
    }
    r = buf_reserve(&l->page, bytes + 16);
    if (r < 0)
        return r;
    start = p = l->page.data + l->page.len;
    *p++ = 1 << 3 | WIRE_LEN;
    p = wire_put_varint(p, bytes);
    p += protobuf_c_message_pack(m, p);
    l->page.len += (size_t) (p - start);
    l->count++;
    return 0;
}

static void answer(struct listing *l) {
    uint8_t tail[LISTING_TOKEN_TEXT_BYTES + 32];
    char token[LISTING_TOKEN_TEXT_BYTES] = "";
    struct bytes *reply;
    uint8_t *p = tail;

    if (l->outcome != LISTING_END)
        l->kind->token(l, token);
    if (token[0] != '\0')
        p = wire_put_bytes(p, 2, slice_of(token, strlen(token)));
    if (l->index > 0) {
        *p++ = 3 << 3 | WIRE_VARINT;
        p = wire_put_varint(p, l->index);
    }
    reply = bytes_new(l->page.len + (size_t) (p - tail));
    if (reply && l->page.len > 0)
        memcpy(reply->data, l->page.data, l->page.len);
    if (reply)
        memcpy(reply->data + l->page.len, tail, (size_t) (p - tail));
    api_reply(l->call, reply);
}

/* ---- the scan -------------------------------------------------------------------------------- */

bool listing_pause(struct listing *l) {
    if (++l->slice_records % l->kind->clock_every != 0 || uv_hrtime() < l->slice_end_ns)
        return false;
    l->outcome = LISTING_MORE;
    return true;
}

static void slice(struct api_scan *scan) {
    struct listing *l = CONTAINER_OF(scan, struct listing, scan);
    uint64_t now = uv_hrtime();
    int r;

    if (!l->call) {
        listing_free(l);
        return;
    }
    l->outcome = LISTING_END; /* what stays when the records run out */
    l->slice_end_ns = now + SLICE_NS;
    l->slice_records = 0; /* each slice looks at one at least */
    arena_clear(&l->api->scratch);
    r = l->kind->scan(l);
    if (r < 0) {
        l->kind->fail(l, r);
        listing_free(l);
        return;
    }
    if (l->outcome == LISTING_MORE &&
        mono_diff_ns((struct mono){now}, l->started) < LISTING_NS_MAX) {
        scan_queue(l->api, &l->scan);
        return;
    }
    answer(l);
    listing_free(l);
}

/* ---- the call -------------------------------------------------------------------------------- */

bool listing_allowed(struct api *a, struct rpc_call *call) {
    if (a->lists_count < a->o.lists_max)
        return true;
    api_fail_status(a, call, STATUS_READ, REPLICA_FULL, (struct mono){0}, MONO_NEVER);
    return false;
}

void listing_init(struct listing *l, const struct listing_kind *kind, struct api *a,
                  struct rpc_call *call) {
    l->kind = kind;
    l->api = a;
    l->scan.slice = slice;
    l->call = call;
    l->started = (struct mono){uv_hrtime()};
    l->deadline = status_answer_by(rpc_call_deadline(call), l->started);
    buf_init(&l->page, BUF_BYTES_MAX);
    a->lists_count++;
    rpc_call_set_user(call, l);
}

static void begin(struct listing *l) {
    l->kind->begin(l);
    scan_queue(l->api, &l->scan);
}

static void on_barrier(void *arg, enum replica_status status, uint64_t index) {
    struct listing *l = arg;

    (void) index; /* replica_applied() is at least that inside this callback */
    if (l->call && status == REPLICA_OK) {
        l->started = (struct mono){uv_hrtime()};
        begin(l);
        return;
    }
    if (l->call)
        api_fail_status(l->api, l->call, STATUS_READ, status, l->started, l->deadline);
    listing_free(l);
}

void listing_start(struct listing *l, bool stale) {
    int r;

    if (stale) {
        begin(l);
        return;
    }
    r = replica_read(l->api->replica, l->deadline, on_barrier, l);
    if (r == 0)
        return;
    if (r > 0)
        api_fail_status(l->api, l->call, STATUS_READ, (enum replica_status) r, l->started,
                        l->deadline);
    else
        api_fail_memory(l->call);
    listing_free(l);
}

void listing_on_gone(void *ctx, struct rpc_call *call) {
    struct listing *l = rpc_call_user(call);

    (void) ctx;
    if (!l)
        return;
    l->call = NULL;
    if (!l->scan.queued)
        return; /* the barrier's callback frees it */
    scan_remove(l->api, &l->scan);
    listing_free(l);
}
