/* ListSchedules: filters and pages of schedules by name; listing.h does the rest.
 * Thread: the loop's. */
#include "api/listing.h"
#include "api/schedule_rpc.h"

#include "api/schedule_page.h"
#include "os/clock.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define CLOCK_EVERY 8 /* each may be decoded and searched */
#define REQUEST_BYTES_MAX (256UL * 1024)

struct schedule_rpc_list {
    struct listing l;   /* first */
    struct arena arena; /* owns req */
    Chronos__V1__ListSchedulesRequest *req;
    uint64_t filter_hash;
    struct schedule_page next; /* where the scan goes on; name "" = from the beginning */
};

STATIC_ASSERT(SCHEDULE_PAGE_TEXT_BYTES <= LISTING_TOKEN_TEXT_BYTES, "a token fits into the answer");

static void list_free(struct listing *base) {
    struct schedule_rpc_list *l = CONTAINER_OF(base, struct schedule_rpc_list, l);

    arena_done(&l->arena);
    free(l);
}

static void list_token(const struct listing *base, char ret[LISTING_TOKEN_TEXT_BYTES]) {
    const struct schedule_rpc_list *l = CONTAINER_OF(base, const struct schedule_rpc_list, l);
    struct schedule_page next = l->next;

    next.filter_hash = l->filter_hash;
    schedule_page_format(&next, ret);
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
           fsm_schedule_paused(replica_fsm(l->l.api->replica), s, clock_wall().ms);
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

static int take(struct schedule_rpc_list *l, const struct fsm_schedule *s,
                const Chronos__Internal__V1__ScheduleRecord *rec) {
    Chronos__V1__Schedule *v;
    int r;

    if (!wanted_by_state(l, s))
        return 0;
    r = schedule_rpc_view(l->l.api, s, rec, &l->l.api->scratch, &v);
    if (r < 0)
        return r;
    return wanted(l, v) ? listing_add(&l->l, &v->base) : 0;
}

static int on_record(void *arg, const struct fsm_schedule *s,
                     const Chronos__Internal__V1__ScheduleRecord *rec) {
    struct schedule_rpc_list *l = arg;
    size_t prefix = strlen(l->req->name_prefix);

    if (strncmp(rec->name, l->req->name_prefix, prefix) != 0)
        return 1; /* names are in order: none follows either */
    (void) snprintf(l->next.name, sizeof(l->next.name), "%s", rec->name);
    if (listing_pause(&l->l))
        return 1; /* this one is the first of the next slice */
    return take(l, s, rec);
}

static void list_begin(struct listing *l) {
    l->index = replica_applied(l->api->replica);
}

static int list_scan(struct listing *base) {
    struct schedule_rpc_list *l = CONTAINER_OF(base, struct schedule_rpc_list, l);
    char from[SCHEDULE_PAGE_NAME_BYTES_MAX + 1];

    memcpy(from, l->next.name, sizeof(from));
    return fsm_scan_schedules(replica_fsm(base->api->replica), slice_of(from, strlen(from)),
                              &base->api->scratch, on_record, l);
}

static void list_fail(struct listing *l, int r) {
    schedule_rpc_fail_read(l->api, l->call, "a schedule", r);
}

static const struct listing_kind list_kind = {.begin = list_begin,
                                              .scan = list_scan,
                                              .fail = list_fail,
                                              .token = list_token,
                                              .free = list_free,
                                              .clock_every = CLOCK_EVERY};

/* ---- the call -------------------------------------------------------------------------------- */

/* 0; 1: the call was failed. */
static int list_check(struct schedule_rpc_list *l) {
    const Chronos__V1__ListSchedulesRequest *req = l->req;

    if (req->page_size > LISTING_PAGE_SIZE_MAX) {
        api_fail(l->l.call, RPC_INVALID_ARGUMENT, "page_size: must be at most %d",
                 LISTING_PAGE_SIZE_MAX);
        return 1;
    }
    if (req->n_labels > VALIDATE_LABELS_MAX) {
        api_fail(l->l.call, RPC_INVALID_ARGUMENT, "labels: must have at most %d entries",
                 VALIDATE_LABELS_MAX);
        return 1;
    }
    if (strlen(req->name_prefix) > VALIDATE_SCHEDULE_NAME_BYTES_MAX ||
        !validate_is_word(req->name_prefix, "._-")) {
        api_fail(l->l.call, RPC_INVALID_ARGUMENT,
                 "name_prefix: must be at most 128 bytes of [A-Za-z0-9._-]");
        return 1;
    }
    if (req->next_before_ms < 0) {
        api_fail(l->l.call, RPC_INVALID_ARGUMENT, "next_before_ms: must not be negative");
        return 1;
    }
    l->l.page_size = req->page_size == 0 ? LISTING_PAGE_SIZE_DEFAULT : req->page_size;
    l->filter_hash = hash_filters(req);
    if (req->page_token[0] == '\0') {
        (void) snprintf(l->next.name, sizeof(l->next.name), "%s", req->name_prefix);
        return 0;
    }
    if (schedule_page_parse(req->page_token, &l->next) != 0) {
        api_fail(l->l.call, RPC_INVALID_ARGUMENT,
                 "page_token: is not the next_page_token of an earlier answer");
        return 1;
    }
    if (l->next.filter_hash != l->filter_hash) {
        api_fail(l->l.call, RPC_INVALID_ARGUMENT,
                 "page_token: belongs to a request with other filters");
        return 1;
    }
    return 0;
}

void schedule_rpc_on_list(void *ctx, struct rpc_call *call, struct slice request) {
    const ProtobufCMessageDescriptor *d = &chronos__v1__list_schedules_request__descriptor;
    struct api *a = ctx;
    struct schedule_rpc_list *l;

    if (!schedule_rpc_decode(a, call, STATUS_READ, d, request) || !listing_allowed(a, call))
        return;
    if (request.len > REQUEST_BYTES_MAX) {
        api_fail(call, RPC_INVALID_ARGUMENT, "labels: are too long");
        return;
    }
    l = calloc(1, sizeof(*l));
    if (!l) {
        api_fail_memory(call);
        return;
    }
    listing_init(&l->l, &list_kind, a, call);
    arena_init(&l->arena, 4 * REQUEST_BYTES_MAX);
    l->req =
        chronos__v1__list_schedules_request__unpack(arena_pb(&l->arena), request.len, request.data);
    if (!l->req)
        api_fail_memory(call);
    else if (list_check(l) == 0) {
        listing_start(&l->l, l->req->consistency == CHRONOS__V1__CONSISTENCY__CONSISTENCY_STALE);
        return;
    }
    listing_free(&l->l);
}
