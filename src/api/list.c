/* ListJobs: filters, pages, and a scan that never holds up the loop.
 *
 * What it is: after the read barrier the records are visited in slices of a few milliseconds, one
 * per loop turn, because a filter that matches little may have to look at millions of records while
 * heartbeats must go out every 50 ms. A scan that takes too long answers with a short page and a
 * token to go on.
 * What it is not: a snapshot. Jobs may change between slices and pages; `index` is the one from
 * before the first record was read, so a watch that begins there misses nothing.
 * Thread: the loop's. */
#include "api/api_impl.h"

#include "api/convert.h"
#include "api/job_filter.h"
#include "api/page_token.h"
#include "base/buf.h"
#include "fsm/job_id.h"
#include "fsm/wire.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define PAGE_SIZE_DEFAULT 100
#define PAGE_SIZE_MAX 1000
#define PAGE_BYTES_MAX (3UL * 1024 * 1024) /* below the 4 MiB that clients accept by default */
#define LIST_BUF_BYTES_MAX (PAGE_BYTES_MAX + 2UL * 1024 * 1024) /* one more job of any size */
#define SLICE_NS (4 * NS_PER_MS)
#define SLICE_CLOCK_EVERY 64 /* records between looks at the clock */
#define LIST_NS_MAX (2 * NS_PER_S)

struct api_list {
    struct api_scan scan;
    struct api *api;
    struct rpc_call *call; /* NULL once the client is gone */
    struct mono started;
    struct mono deadline;
    struct job_filter filter;
    size_t page_size;
    bool with_output;
    uint64_t next_seq;    /* where the scan goes on */
    uint64_t first_index; /* 0 on the first page until the barrier */
    struct buf page;      /* encoded `jobs` fields */
    size_t count;
    uint64_t slice_end_ns;
    size_t slice_records;
    enum { LIST_MORE, LIST_PAGE_FULL, LIST_END } outcome;
};

static void list_free(struct api_list *l) {
    ASSERT(!l->scan.queued);
    ASSERT(l->api->lists_count > 0);
    l->api->lists_count--;
    if (l->call)
        rpc_call_set_user(l->call, NULL);
    job_filter_done(&l->filter);
    buf_done(&l->page);
    free(l);
}

/* ---- the answer ------------------------------------------------------------------------------ */

static void answer(struct api_list *l) {
    uint8_t tail[2 * (PAGE_TOKEN_TEXT_BYTES + 16)];
    char token[PAGE_TOKEN_TEXT_BYTES];
    struct bytes *reply;
    uint8_t *p = tail;

    if (l->outcome != LIST_END && l->next_seq > 0) {
        page_token_format(&(struct page_token){.ascending = l->filter.ascending,
                                               .next_seq = l->next_seq,
                                               .filter_hash = job_filter_hash(&l->filter),
                                               .first_index = l->first_index},
                          token);
        p = wire_put_bytes(p, 2, slice_of(token, strlen(token)));
    }
    if (l->first_index > 0) {
        *p++ = 3 << 3 | WIRE_VARINT;
        p = wire_put_varint(p, l->first_index);
    }
    reply = bytes_new(l->page.len + (size_t) (p - tail));
    if (reply && l->page.len > 0)
        memcpy(reply->data, l->page.data, l->page.len);
    if (reply)
        memcpy(reply->data + l->page.len, tail, (size_t) (p - tail));
    api_reply(l->call, reply);
}

/* ---- the scan -------------------------------------------------------------------------------- */

/* Append one job to the page. 0; 1 = the page has no room for it; -ENOMEM, ERR_LIMIT. */
static int add_job(struct api_list *l, uint64_t seq, const Chronos__Internal__V1__JobRecord *rec) {
    Chronos__Internal__V1__RawJob job;
    char id[JOB_ID_BYTES_MAX];
    uint8_t *p, *start;
    size_t bytes;
    int r;

    convert_job(seq, rec, id, &job);
    if (!l->with_output)
        job.output_tail = (ProtobufCBinaryData){0};
    bytes = chronos__internal__v1__raw_job__get_packed_size(&job);
    if (l->count > 0 && l->page.len + bytes > PAGE_BYTES_MAX)
        return 1;
    r = buf_reserve(&l->page, bytes + 16);
    if (r < 0)
        return r;
    start = p = l->page.data + l->page.len;
    *p++ = 1 << 3 | WIRE_LEN;
    p = wire_put_varint(p, bytes);
    p += chronos__internal__v1__raw_job__pack(&job, p);
    l->page.len += (size_t) (p - start);
    l->count++;
    return 0;
}

static int on_record(void *arg, uint64_t seq, const Chronos__Internal__V1__JobRecord *rec) {
    struct api_list *l = arg;
    int r;

    switch (job_filter_apply(&l->filter, rec)) {
    case JOB_FILTER_STOP:
        l->outcome = LIST_END;
        return 1;
    case JOB_FILTER_TAKE:
        r = l->count == l->page_size ? 1 : add_job(l, seq, rec);
        if (r < 0)
            return r;
        if (r > 0) {
            l->outcome = LIST_PAGE_FULL;
            l->next_seq =
                seq; /* the first of the next page; only now it is known that there is one */
            return 1;
        }
        break;
    case JOB_FILTER_SKIP:
        break;
    }
    l->next_seq = l->filter.ascending ? seq + 1 : seq - 1;
    if (++l->slice_records % SLICE_CLOCK_EVERY == 0 && uv_hrtime() >= l->slice_end_ns) {
        l->outcome = LIST_MORE;
        return 1;
    }
    return 0;
}

static void list_slice(struct api_scan *scan) {
    struct api_list *l = CONTAINER_OF(scan, struct api_list, scan);
    struct api *a = l->api;
    uint64_t now = uv_hrtime();
    int r = 0;

    if (!l->call) {
        list_free(l);
        return;
    }
    l->outcome = LIST_END; /* what stays when the records run out */
    l->slice_end_ns = now + SLICE_NS;
    if (l->next_seq > 0) {
        arena_clear(&a->scratch);
        r = fsm_scan_jobs(replica_fsm(a->replica), l->next_seq, l->filter.ascending, &a->scratch,
                          on_record, l);
    }
    if (r < 0) {
        if (r == -ENOMEM)
            api_fail_memory(l->call);
        else if (r == -ENOSPC || r == -EDQUOT) /* what is not in the store yet is not in order */
            api_fail(l->call, RPC_UNAVAILABLE,
                     "this node cannot list jobs while its disk is full; ask another node");
        else
            api_fail(l->call, r == ERR_CORRUPT ? RPC_DATA_LOSS : RPC_INTERNAL,
                     "the jobs cannot be read: %s", err_name(r));
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

static void begin(struct api_list *l) {
    struct api *a = l->api;
    uint64_t last = fsm_next_seq(replica_fsm(a->replica));

    if (l->first_index == 0) {
        l->first_index = replica_applied(a->replica);
        l->next_seq = l->filter.ascending ? 1 : last;
    }
    scan_queue(a, &l->scan);
}

static void on_barrier(void *arg, enum replica_status status, uint64_t index) {
    struct api_list *l = arg;

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

/* 0; 1 with a text for INVALID_ARGUMENT; -ENOMEM. */
static int list_init(struct api_list *l, const Chronos__V1__ListJobsRequest *req,
                     struct errtext *reterr) {
    struct page_token token;
    int r;

    if (req->page_size > PAGE_SIZE_MAX) {
        errtext_set(reterr, "page_size: must be at most %d", PAGE_SIZE_MAX);
        return 1;
    }
    r = job_filter_init(&l->filter, req, reterr);
    if (r != 0)
        return r;
    l->page_size = req->page_size == 0 ? PAGE_SIZE_DEFAULT : req->page_size;
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
    l->first_index = MAX(token.first_index, 1UL);
    return 0;
}

static struct api_list *list_new(struct api *a, struct rpc_call *call) {
    struct api_list *l = calloc(1, sizeof(*l));

    if (!l)
        return NULL;
    l->api = a;
    l->scan.slice = list_slice;
    l->call = call;
    l->started = (struct mono){uv_hrtime()};
    l->deadline = status_answer_by(rpc_call_deadline(call), l->started);
    buf_init(&l->page, LIST_BUF_BYTES_MAX);
    a->lists_count++;
    rpc_call_set_user(call, l);
    return l;
}

static void list_start(struct api_list *l, const Chronos__V1__ListJobsRequest *req) {
    struct errtext e;
    int r = list_init(l, req, &e);

    if (r > 0) {
        api_fail(l->call, RPC_INVALID_ARGUMENT, "%s", e.s);
    } else if (r < 0) {
        api_fail_memory(l->call);
    } else if (req->consistency == CHRONOS__V1__CONSISTENCY__CONSISTENCY_STALE) {
        begin(l);
        return;
    } else {
        r = replica_read(l->api->replica, l->deadline, on_barrier, l);
        if (r == 0)
            return;
        if (r > 0)
            api_fail_status(l->api, l->call, STATUS_READ, (enum replica_status) r, l->started,
                            l->deadline);
        else
            api_fail_memory(l->call);
    }
    list_free(l);
}

void list_on_call(void *ctx, struct rpc_call *call, struct slice request) {
    struct api *a = ctx;
    Chronos__V1__ListJobsRequest *req;
    struct api_list *l;

    if (api_refuse_stopping(a, call, STATUS_READ))
        return;
    if (a->lists_count >= a->o.lists_max) {
        api_fail_status(a, call, STATUS_READ, REPLICA_FULL, (struct mono){0}, MONO_NEVER);
        return;
    }
    req = (Chronos__V1__ListJobsRequest *) api_decode(
        a, call, &chronos__v1__list_jobs_request__descriptor, request);
    if (!req)
        return;
    l = list_new(a, call);
    if (!l)
        api_fail_memory(call);
    else
        list_start(l, req);
}

void list_on_gone(void *ctx, struct rpc_call *call) {
    struct api_list *l = rpc_call_user(call);

    (void) ctx;
    if (!l)
        return;
    l->call = NULL;
    if (!l->scan.queued)
        return; /* the barrier's callback frees it */
    scan_remove(l->api, &l->scan);
    list_free(l);
}
