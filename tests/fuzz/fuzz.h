/* What every fuzz target shares: libFuzzer's entry points, and bytes taken from the front of an
 * input. A target that was built without libFuzzer replays the inputs in its folder of seeds
 * (replay.c). */
#pragma once

#include "base/bytes.h"
#include "base/codec.h"
#include "base/err.h"

#include <stdio.h>
#include <stdlib.h>

/* libFuzzer's; a target defines the first, and the last when bytes alone would not get behind a
 * checksum. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);

/* ---- an input as a list of choices: at its end everything is 0 --------------------------------
 */

static inline uint8_t fuzz_u8(struct slice *in) {
    uint8_t v;

    if (in->len == 0)
        return 0;
    v = in->data[0];
    *in = slice_of(in->data + 1, in->len - 1);
    return v;
}

static inline uint64_t fuzz_u64(struct slice *in) {
    uint64_t v = 0;

    for (int i = 0; i < 8; i++)
        v |= (uint64_t) fuzz_u8(in) << (8 * i);
    return v;
}

/* Mostly a small number near @base, now and then any. */
static inline uint64_t fuzz_near(struct slice *in, uint64_t base) {
    uint8_t c = fuzz_u8(in);

    if (c == 0xff)
        return fuzz_u64(in);
    return c & 0x80 ? c & 0x7f : base + (c & 0x7f) - MIN(base, (uint64_t) 8);
}

/* The next @len bytes, or what is left. */
static inline struct slice fuzz_bytes(struct slice *in, size_t len) {
    struct slice s = slice_of(in->data, MIN(len, in->len));

    *in = slice_of(in->data + s.len, in->len - s.len);
    return s;
}

/* A refusal says something; with FUZZ_SHOW in the environment it is seen. */
static inline void fuzz_reason(const struct errtext *why) {
    if (getenv("FUZZ_SHOW"))
        fprintf(stderr, "refused: %s\n", why->s);
    ASSERT(why->s[0] != '\0');
    ASSERT(memchr(why->s, '\0', sizeof(why->s)));
}

/* The same for what goes into logs: nobody's bytes may begin a line of their own there. */
static inline void fuzz_sentence(const struct errtext *why) {
    fuzz_reason(why);
    ASSERT(!memchr(why->s, '\n', strlen(why->s)));
}
