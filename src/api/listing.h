/* One call that lists records: read barrier, slices of a scan, a page, a token to go on.
 *
 * What it is: after the barrier the records are visited in slices of a few milliseconds, one per
 * loop turn, because a filter that matches little may have to look at millions of records while
 * heartbeats must go out every 50 ms. A scan that takes too long answers with a short page and a
 * token to go on. Answers have the page in field 1, the token in field 2, the index in field 3.
 * What it is not: a snapshot. Records may change between slices and pages.
 * Thread: the loop's. */
#pragma once

#include "api/api_impl.h"

#include "base/buf.h"

#define LISTING_PAGE_SIZE_DEFAULT 100
#define LISTING_PAGE_SIZE_MAX 1000
#define LISTING_TOKEN_TEXT_BYTES 512 /* longest token with its NUL */

enum listing_outcome {
    LISTING_MORE,      /* the slice is over */
    LISTING_PAGE_FULL, /* the page has no room for the next record */
    LISTING_END,       /* nothing follows */
};

struct listing;

struct listing_kind {
    /* The barrier is behind: set @index, and where the scan begins if no token said so. */
    void (*begin)(struct listing *l);
    /* Visit records until listing_add() or listing_pause() says so; set outcome when not to its
     * end. Negative errno: the scan failed. */
    int (*scan)(struct listing *l);
    /* Answer the call after @r, negative, from scan. */
    void (*fail)(struct listing *l, int r);
    /* The token to go on with; called when the outcome is not LISTING_END. "" = none after all. */
    void (*token)(const struct listing *l, char ret[LISTING_TOKEN_TEXT_BYTES]);
    void (*free)(struct listing *l); /* what the kind owns, and @l */
    unsigned clock_every;            /* records between looks at the clock */
};

/* The first member of what a kind keeps for a call. */
struct listing {
    struct api_scan scan;
    const struct listing_kind *kind;
    struct api *api;
    struct rpc_call *call; /* NULL once the client is gone */
    struct mono started;
    struct mono deadline;
    size_t page_size;
    uint64_t index; /* in the answer; 0 = not yet known */
    struct buf page;
    size_t count;
    uint64_t slice_end_ns;
    size_t slice_records;
    enum listing_outcome outcome;
};

/* May another listing begin? Else @call was answered. */
bool listing_allowed(struct api *a, struct rpc_call *call);
/* Takes @l, zeroed, into use for @call. */
void listing_init(struct listing *l, const struct listing_kind *kind, struct api *a,
                  struct rpc_call *call);
/* Run it: at once when @stale, else behind a read barrier. @l belongs to itself from here on. */
void listing_start(struct listing *l, bool stale);
void listing_free(struct listing *l);
/* Append one record to the page. 0; 1 = the page has no room for it; -ENOMEM, ERR_LIMIT. */
int listing_add(struct listing *l, const ProtobufCMessage *m) _must_check_;
/* After each record: true when the slice is over. */
bool listing_pause(struct listing *l);
/* For rpc handlers: the client is gone. */
void listing_on_gone(void *ctx, struct rpc_call *call);
