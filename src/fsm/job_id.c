#include "fsm/job_id.h"

#include <string.h>

#define DIGITS_MAX 13 /* 32^13 > 2^64 */
STATIC_ASSERT(1 + 1 + DIGITS_MAX + 1 <= JOB_ID_BYTES_MAX, "the longest id must fit");

static const char digits[] = "0123456789abcdefghjkmnpqrstvwxyz";
STATIC_ASSERT(sizeof(digits) == 32 + 1, "base 32");

void job_id_format(uint64_t seq, char ret[JOB_ID_BYTES_MAX]) {
    char reversed[DIGITS_MAX];
    size_t n = 0;

    ASSERT(seq > 0);
    ASSERT(ret);
    for (; seq > 0; seq >>= 5)
        reversed[n++] = digits[seq & 31];
    ASSERT(n <= DIGITS_MAX);
    ret[0] = 'j';
    ret[1] = digits[n];
    for (size_t i = 0; i < n; i++)
        ret[2 + i] = reversed[n - 1 - i];
    ret[2 + n] = '\0';
}

/* -1 when @c is no digit; NUL is none. */
static int digit_value(char c) {
    const char *at = c ? strchr(digits, c) : NULL;

    return at ? (int) (at - digits) : -1;
}

int job_id_parse(const char *s, uint64_t *ret_seq) {
    uint64_t seq = 0;
    int n;

    ASSERT(s);
    ASSERT(ret_seq);
    if (s[0] != 'j')
        return 1;
    n = digit_value(s[1]);
    if (n < 1 || n > DIGITS_MAX || s[2] == '0') /* a leading zero would be a second spelling */
        return 1;
    for (int i = 0; i < n; i++) {
        int v = digit_value(s[2 + i]);

        if (v < 0 || seq > UINT64_MAX >> 5)
            return 1;
        seq = (seq << 5) | (uint64_t) v;
    }
    if (s[2 + n] != '\0')
        return 1;
    *ret_seq = seq;
    return 0;
}
