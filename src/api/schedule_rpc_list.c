/* ListSchedules: filters, pages, and a scan by name in slices, as ListJobs (list.c).
 * Thread: the loop's. */
#include "api/schedule_rpc.h"

#include "api/schedule_page.h"
#include "base/buf.h"
#include "fsm/wire.h"
#include "os/clock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define PAGE_SIZE_DEFAULT 100
#define PAGE_SIZE_MAX 1000
#define PAGE_BYTES_MAX (3UL * 1024 * 1024) /* below the 4 MiB that clients accept by default */
#define LIST_BUF_BYTES_MAX (PAGE_BYTES_MAX + 2UL * 1024 * 1024)
#define SLICE_NS (4 * NS_PER_MS)
#define SLICE_CLOCK_EVERY                                                                          \
    8 /* records between looks at the clock: each may be decoded and searched */
#define LIST_NS_MAX (2 * NS_PER_S)
#define REQUEST_BYTES_MAX (256UL * 1024)

struct schedule_rpc_list {
    struct api_scan scan;
    struct api *api;
    struct rpc_call *call; /* NULL once the client is gone */
    struct mono started;
    struct mono deadline;
    struct arena arena; /* owns req */
    Chronos__V1__ListSchedulesRequest *req;
    size_t page_size;
    uint64_t filter_hash;
    uint64_t index;            /* of this page */
    struct schedule_page next; /* where the scan goes on; name "" = from the beginning */
    struct buf page;           /* encoded `schedules` fields */
    size_t count;
    uint64_t slice_end_ns;
    size_t slice_records;
    enum { LIST_MORE, LIST_PAGE_FULL, LIST_END } outcome;
};

static void list_free(struct schedule_rpc_list *l) {
    ASSERT(!l->scan.queued);
    ASSERT(l->api->lists_count > 0);
    l->api->lists_count--;
    if (l->call)
        rpc_call_set_user(l->call, NULL);
    arena_done(&l->arena);
    buf_done(&l->page);
    free(l);
}

static void answer(struct schedule_rpc_list *l) {
    uint8_t tail[SCHEDULE_PAGE_TEXT_BYTES + 32];
    char token[SCHEDULE_PAGE_TEXT_BYTES];
    struct bytes *reply;
    uint8_t *p = tail;

    if (l->outcome != LIST_END) {
        l->next.filter_hash = l->filter_hash;
        schedule_page_format(&l->next, token);
        p = wire_put_bytes(p, 2, slice_of(token, strlen(token)));
    }
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

/* ---- filters --------------------------------------------------------------------------------- */

static bool has_labels(const Chronos__V1__ListSchedulesRequest *req,
                       const Chronos__V1__ScheduleSpec *spec) {
    for (size_t i = 0; i < req->n_labels; i++) {
        bool found = false;

        for (size_t k = 0; k < spec->n_labels && !found; k++)
            found = strcmp(req->labels[i]->key, spec->labels[k]->key) == 0 &&
                    strcmp(req->labels[i]->value, spec->labels[k]->value) == 0;
        if (!found)
            return false;
    }
    return true;
}

/* What can be told before the definition is decoded. */
static bool wanted_by_state(struct schedule_rpc_list *l, const struct fsm_schedule *s) {
    if (l->req->only_alarmed && !s->alarmed)
        return false;
    return !l->req->only_paused ||
           fsm_schedule_paused(replica_fsm(l->api->replica), s, clock_wall().ms);
}

static bool wanted(const struct schedule_rpc_list *l, const Chronos__V1__Schedule *v) {
    int64_t before_ms = l->req->next_before_ms;

    if (before_ms != 0 && (v->next_run_ms == 0 || v->next_run_ms >= before_ms))
        return false;
    return has_labels(l->req, v->spec);
}

static uint64_t hash_filters(const Chronos__V1__ListSchedulesRequest *req) {
    uint64_t h = XXH3_64bits_withSeed(req->name_prefix, strlen(req->name_prefix),
                                      (req->only_paused ? 1UL : 0) + (req->only_alarmed ? 2UL : 0));

    h = XXH3_64bits_withSeed(&req->next_before_ms, sizeof(req->next_before_ms), h);
    for (size_t i = 0; i < req->n_labels; i++) {
        h = XXH3_64bits_withSeed(req->labels[i]->key, strlen(req->labels[i]->key), h);
        h = XXH3_64bits_withSeed(req->labels[i]->value, strlen(req->labels[i]->value), h);
    }
    return h;
}

/* ---- the scan -------------------------------------------------------------------------------- */

/* Append one schedule to the page. 0; 1 = the page has no room for it; -ENOMEM, ERR_LIMIT. */
static int add(struct schedule_rpc_list *l, const Chronos__V1__Schedule *v) {
    size_t bytes = chronos__v1__schedule__get_packed_size(v);
    uint8_t *p, *start;
    int r;

    if (l->count == l->page_size || (l->count > 0 && l->page.len + bytes > PAGE_BYTES_MAX))
        return 1;
    r = buf_reserve(&l->page, bytes + 16);
    if (r < 0)
        return r;
    start = p = l->page.data + l->page.len;
    *p++ = 1 << 3 | WIRE_LEN;
    p = wire_put_varint(p, bytes);
    p += chronos__v1__schedule__pack(v, p);
    l->page.len += (size_t) (p - start);
    l->count++;
    return 0;
}

static int take(struct schedule_rpc_list *l, const struct fsm_schedule *s,
                const Chronos__Internal__V1__ScheduleRecord *rec) {
    Chronos__V1__Schedule *v;
    int r;

    if (!wanted_by_state(l, s))
        return 0;
    r = schedule_rpc_view(l->api, s, rec, &l->api->scratch, &v);
    if (r < 0)
        return r;
    return wanted(l, v) ? add(l, v) : 0;
}

static int on_record(void *arg, const struct fsm_schedule *s,
                     const Chronos__Internal__V1__ScheduleRecord *rec) {
    struct schedule_rpc_list *l = arg;
    size_t prefix = strlen(l->req->name_prefix);
    int r;

    if (strncmp(rec->name, l->req->name_prefix, prefix) != 0)
        return 1; /* names are in order: none follows either */
    (void) snprintf(l->next.name, sizeof(l->next.name), "%s", rec->name);
    if (l->slice_records % SLICE_CLOCK_EVERY == SLICE_CLOCK_EVERY - 1 &&
        uv_hrtime() >= l->slice_end_ns) {
        l->outcome = LIST_MORE; /* this one is the first of the next slice */
        return 1;
    }
    l->slice_records++;
    r = take(l, s, rec);
    if (r > 0)
        l->outcome = LIST_PAGE_FULL;
    return r;
}

static void list_slice(struct api_scan *scan) {
    struct schedule_rpc_list *l = CONTAINER_OF(scan, struct schedule_rpc_list, scan);
    struct api *a = l->api;
    uint64_t now = uv_hrtime();
    char from[SCHEDULE_PAGE_NAME_BYTES_MAX + 1];
    int r;

    if (!l->call) {
        list_free(l);
        return;
    }
    l->outcome = LIST_END; /* what stays when the records run out */
    l->slice_end_ns = now + SLICE_NS;
    l->slice_records = 0; /* each slice looks at one at least */
    memcpy(from, l->next.name, sizeof(from));
    arena_clear(&a->scratch);
    r = fsm_scan_schedules(replica_fsm(a->replica), slice_of(from, strlen(from)), &a->scratch,
                           on_record, l);
    if (r < 0) {
        schedule_rpc_fail_read(l->call, "a schedule", r);
        list_free(l);
        return;
    }
    if (l->outcome == LIST_MORE && mono_diff_ns((struct mono){now}, l->started) < LIST_NS_MAX) {
        scan_queue(a, &l->scan);
        return;
    }
    answer(l);
    list_free(l);
}

/* ---- the call -------------------------------------------------------------------------------- */

static void begin(struct schedule_rpc_list *l) {
    l->index = replica_applied(l->api->replica);
    scan_queue(l->api, &l->scan);
}

static void on_barrier(void *arg, enum replica_status status, uint64_t index) {
    struct schedule_rpc_list *l = arg;

    (void) index; /* replica_applied() is at least that inside this callback */
    if (l->call && status == REPLICA_OK) {
        l->started = (struct mono){uv_hrtime()};
        begin(l);
        return;
    }
    if (l->call)
        api_fail_status(l->api, l->call, STATUS_READ, status, l->started, l->deadline);
    list_free(l);
}

/* 0; 1: the call was failed. */
static int list_check(struct schedule_rpc_list *l) {
    const Chronos__V1__ListSchedulesRequest *req = l->req;

    if (req->page_size > PAGE_SIZE_MAX) {
        api_fail(l->call, RPC_INVALID_ARGUMENT, "page_size: must be at most %d", PAGE_SIZE_MAX);
        return 1;
    }
    if (req->n_labels > VALIDATE_LABELS_MAX) {
        api_fail(l->call, RPC_INVALID_ARGUMENT, "labels: must have at most %d entries",
                 VALIDATE_LABELS_MAX);
        return 1;
    }
    if (strlen(req->name_prefix) > VALIDATE_SCHEDULE_NAME_BYTES_MAX ||
        !validate_is_word(req->name_prefix, "._-")) {
        api_fail(l->call, RPC_INVALID_ARGUMENT,
                 "name_prefix: must be at most 128 bytes of [A-Za-z0-9._-]");
        return 1;
    }
    if (req->next_before_ms < 0) {
        api_fail(l->call, RPC_INVALID_ARGUMENT, "next_before_ms: must not be negative");
        return 1;
    }
    l->page_size = req->page_size == 0 ? PAGE_SIZE_DEFAULT : req->page_size;
    l->filter_hash = hash_filters(req);
    if (req->page_token[0] == '\0') {
        (void) snprintf(l->next.name, sizeof(l->next.name), "%s", req->name_prefix);
        return 0;
    }
    if (schedule_page_parse(req->page_token, &l->next) != 0) {
        api_fail(l->call, RPC_INVALID_ARGUMENT,
                 "page_token: is not the next_page_token of an earlier answer");
        return 1;
    }
    if (l->next.filter_hash != l->filter_hash) {
        api_fail(l->call, RPC_INVALID_ARGUMENT,
                 "page_token: belongs to a request with other filters");
        return 1;
    }
    return 0;
}

static struct schedule_rpc_list *list_new(struct api *a, struct rpc_call *call,
                                          struct slice request) {
    struct schedule_rpc_list *l = calloc(1, sizeof(*l));

    if (!l)
        return NULL;
    l->api = a;
    l->scan.slice = list_slice;
    l->call = call;
    l->started = (struct mono){uv_hrtime()};
    l->deadline = status_answer_by(rpc_call_deadline(call), l->started);
    buf_init(&l->page, LIST_BUF_BYTES_MAX);
    arena_init(&l->arena, 4 * REQUEST_BYTES_MAX);
    a->lists_count++;
    rpc_call_set_user(call, l);
    l->req =
        chronos__v1__list_schedules_request__unpack(arena_pb(&l->arena), request.len, request.data);
    if (!l->req) {
        list_free(l);
        return NULL;
    }
    return l;
}

void schedule_rpc_on_list(void *ctx, struct rpc_call *call, struct slice request) {
    const ProtobufCMessageDescriptor *d = &chronos__v1__list_schedules_request__descriptor;
    struct api *a = ctx;
    struct schedule_rpc_list *l;
    int r;

    if (!schedule_rpc_decode(a, call, STATUS_READ, d, request))
        return;
    if (a->lists_count >= a->o.lists_max) {
        api_fail_status(a, call, STATUS_READ, REPLICA_FULL, (struct mono){0}, MONO_NEVER);
        return;
    }
    if (request.len > REQUEST_BYTES_MAX) {
        api_fail(call, RPC_INVALID_ARGUMENT, "labels: are too long");
        return;
    }
    l = list_new(a, call, request);
    if (!l) {
        api_fail_memory(call);
        return;
    }
    if (list_check(l) != 0) {
        list_free(l);
        return;
    }
    if (l->req->consistency == CHRONOS__V1__CONSISTENCY__CONSISTENCY_STALE) {
        begin(l);
        return;
    }
    r = replica_read(a->replica, l->deadline, on_barrier, l);
    if (r == 0)
        return;
    if (r > 0)
        api_fail_status(a, call, STATUS_READ, (enum replica_status) r, l->started, l->deadline);
    else
        api_fail_memory(call);
    list_free(l);
}

void schedule_rpc_on_list_gone(void *ctx, struct rpc_call *call) {
    struct schedule_rpc_list *l = rpc_call_user(call);

    (void) ctx;
    if (!l)
        return;
    l->call = NULL;
    if (!l->scan.queued)
        return; /* the barrier's callback frees it */
    scan_remove(l->api, &l->scan);
    list_free(l);
}
