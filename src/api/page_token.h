/* The page token of ListJobs: where the next page begins, and of which listing.
 *
 * What it is: an opaque text of fixed length for the client; version, direction, position, a hash
 * of the filters and a checksum for us, so that a token that was cut, changed or used with other
 * filters is refused instead of giving wrong pages.
 * What it is not: a secret or a capability: it names nothing the client could not ask for.
 * Layout, then written as hex: version u8, direction u8, next_seq le64, filter_hash le64,
 * first_index le64, crc32c le32 of what stands before it.
 * Pure. Thread: any. */
#pragma once

#include "base/bytes.h"

#define PAGE_TOKEN_RAW_BYTES (1 + 1 + 8 + 8 + 8 + 4)
#define PAGE_TOKEN_TEXT_BYTES (PAGE_TOKEN_RAW_BYTES * 2 + 1) /* with NUL */

struct page_token {
    bool ascending;
    uint64_t next_seq;    /* first job of the next page; > 0 */
    uint64_t filter_hash; /* of the request's filters */
    uint64_t first_index; /* index that the first page reflects */
};

enum { PAGE_TOKEN_BAD = 1 };

void page_token_format(const struct page_token *t, char ret[PAGE_TOKEN_TEXT_BYTES]);
/* 0, or PAGE_TOKEN_BAD: not one of our tokens. */
int page_token_parse(const char *text, struct page_token *ret) _must_check_;
