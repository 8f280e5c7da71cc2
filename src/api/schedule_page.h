/* The page token of ListSchedules: the name where the next page begins, and of which listing.
 *
 * As page_token.h, which has numbers where this has names. Layout, then written as hex: version u8,
 * filter_hash le64, name, crc32c le32 of what stands before it.
 * Pure. Thread: any. */
#pragma once

#include "base/bytes.h"

#define SCHEDULE_PAGE_NAME_BYTES_MAX 128
/* With the NUL. */
#define SCHEDULE_PAGE_TEXT_BYTES ((1 + 8 + SCHEDULE_PAGE_NAME_BYTES_MAX + 4) * 2 + 1)

struct schedule_page {
    uint64_t filter_hash;
    char name[SCHEDULE_PAGE_NAME_BYTES_MAX + 1]; /* not empty */
};

void schedule_page_format(const struct schedule_page *p, char ret[SCHEDULE_PAGE_TEXT_BYTES]);
enum { SCHEDULE_PAGE_BAD = 1 };
/* 0, or SCHEDULE_PAGE_BAD: not one of our tokens. */
int schedule_page_parse(const char *text, struct schedule_page *ret) _must_check_;
