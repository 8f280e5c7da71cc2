/* Job ids as people see them: short, unique, ordered by creation.
 *
 * "j" + one character that counts the digits + the sequence number in base 32 (0-9 a-z without
 * i l o u, Crockford's alphabet in lower case). The count makes string order equal number order:
 * job 1 is "j11", job 33 is "j211", job 1,000,000 is "j4ygj0".
 * Pure. */
#pragma once

#include "base/defs.h"

#define JOB_ID_BYTES_MAX 16 /* 'j', count, 13 digits, NUL */

/* @seq > 0. Writes a NUL-terminated id. */
void job_id_format(uint64_t seq, char ret[JOB_ID_BYTES_MAX]);
/* 0 with *ret_seq; 1 when @s is no well-formed id (canonical form only, so parse-print is
 * identity). */
int job_id_parse(const char *s, uint64_t *ret_seq) _must_check_;
