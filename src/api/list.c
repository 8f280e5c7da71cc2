/* ListJobs: filters and pages of jobs; listing.h does the rest. `index` is the one from before the
 * first record of the first page was read, so a watch that begins there misses nothing.
 * Thread: the loop's. */
#include "api/listing.h"

#include "api/convert.h"
#include "api/job_filter.h"
#include "api/page_token.h"
#include "fsm/job_id.h"

#include <errno.h>
#include <stdlib.h>

#define CLOCK_EVERY 64

struct api_list {
    struct listing l; /* first */
    struct job_filter filter;
    bool with_output;
    uint64_t next_seq; /* where the scan goes on */
};

STATIC_ASSERT(PAGE_TOKEN_TEXT_BYTES <= LISTING_TOKEN_TEXT_BYTES, "a token fits into the answer");

static void list_free(struct listing *base) {
    struct api_list *l = CONTAINER_OF(base, struct api_list, l);

    job_filter_done(&l->filter);
    free(l);
}

static void list_token(const struct listing *base, char ret[LISTING_TOKEN_TEXT_BYTES]) {
    const struct api_list *l = CONTAINER_OF(base, const struct api_list, l);

    if (l->next_seq > 0)
        page_token_format(&(struct page_token){.ascending = l->filter.ascending,
                                               .next_seq = l->next_seq,
                                               .filter_hash = job_filter_hash(&l->filter),
                                               .first_index = base->index},
                          ret);
}

/* ---- the scan -------------------------------------------------------------------------------- */

static int add_job(struct api_list *l, uint64_t seq, const Chronos__Internal__V1__JobRecord *rec) {
    Chronos__Internal__V1__RawJob job;
    char id[JOB_ID_BYTES_MAX];

    convert_job(seq, rec, id, &job);
    if (!l->with_output)
        job.output_tail = (ProtobufCBinaryData){0};
    return listing_add(&l->l, &job.base);
}

static int on_record(void *arg, uint64_t seq, const Chronos__Internal__V1__JobRecord *rec) {
    struct api_list *l = arg;
    int r;

    switch (job_filter_apply(&l->filter, rec)) {
    case JOB_FILTER_STOP:
        return 1;
    case JOB_FILTER_TAKE:
        r = add_job(l, seq, rec);
        if (r > 0)
            l->next_seq =
                seq; /* the first of the next page; only now it is known that there is one */
        if (r != 0)
            return r;
        break;
    case JOB_FILTER_SKIP:
        break;
    }
    l->next_seq = l->filter.ascending ? seq + 1 : seq - 1;
    return listing_pause(&l->l);
}

static void list_begin(struct listing *base) {
    struct api_list *l = CONTAINER_OF(base, struct api_list, l);
    struct api *a = base->api;

    if (base->index != 0)
        return;
    base->index = replica_applied(a->replica);
    l->next_seq = l->filter.ascending ? 1 : fsm_next_seq(replica_fsm(a->replica));
}

static int list_scan(struct listing *base) {
    struct api_list *l = CONTAINER_OF(base, struct api_list, l);
    struct api *a = base->api;

    if (l->next_seq == 0)
        return 0;
    return fsm_scan_jobs(replica_fsm(a->replica), l->next_seq, l->filter.ascending, &a->scratch,
                         on_record, l);
}

static void list_fail(struct listing *l, int r) {
    if (r == -ENOSPC || r == -EDQUOT) /* what is not in the store yet is not in order */
        api_fail(l->call, RPC_UNAVAILABLE,
                 "this node cannot list jobs while its disk is full; ask another node");
    else
        api_fail_read(l->api, l->call, "a job", r);
}

static const struct listing_kind list_kind = {.begin = list_begin,
                                              .scan = list_scan,
                                              .fail = list_fail,
                                              .token = list_token,
                                              .free = list_free,
                                              .clock_every = CLOCK_EVERY};

/* ---- the call -------------------------------------------------------------------------------- */

/* 0; 1 with a text for INVALID_ARGUMENT; -ENOMEM. */
static int list_init(struct api_list *l, const Chronos__V1__ListJobsRequest *req,
                     struct errtext *reterr) {
    struct page_token token;
    int r;

    if (req->page_size > LISTING_PAGE_SIZE_MAX) {
        errtext_set(reterr, "page_size: must be at most %d", LISTING_PAGE_SIZE_MAX);
        return 1;
    }
    r = job_filter_init(&l->filter, req, reterr);
    if (r != 0)
        return r;
    l->l.page_size = req->page_size == 0 ? LISTING_PAGE_SIZE_DEFAULT : req->page_size;
    l->with_output = req->with_output;
    if (req->page_token[0] == '\0')
        return 0;
    if (page_token_parse(req->page_token, &token) != 0) {
        errtext_set(reterr, "page_token: is not the next_page_token of an earlier answer");
        return 1;
    }
    if (token.filter_hash != job_filter_hash(&l->filter) ||
        token.ascending != l->filter.ascending) {
        errtext_set(reterr, "page_token: belongs to a request with other filters or order");
        return 1;
    }
    l->next_seq = token.next_seq;
    l->l.index = MAX(token.first_index, 1UL);
    return 0;
}

void list_on_call(void *ctx, struct rpc_call *call, struct slice request) {
    struct api *a = ctx;
    Chronos__V1__ListJobsRequest *req;
    struct api_list *l;
    struct errtext e;
    int r;

    if (api_refuse_stopping(a, call, STATUS_READ) || !listing_allowed(a, call))
        return;
    req = (Chronos__V1__ListJobsRequest *) api_decode(
        a, call, &chronos__v1__list_jobs_request__descriptor, request);
    if (!req)
        return;
    l = calloc(1, sizeof(*l));
    if (!l) {
        api_fail_memory(call);
        return;
    }
    listing_init(&l->l, &list_kind, a, call);
    r = list_init(l, req, &e);
    if (r == 0) {
        listing_start(&l->l, req->consistency == CHRONOS__V1__CONSISTENCY__CONSISTENCY_STALE);
        return;
    }
    if (r > 0)
        api_fail(call, RPC_INVALID_ARGUMENT, "%s", e.s);
    else
        api_fail_memory(call);
    listing_free(&l->l);
}
