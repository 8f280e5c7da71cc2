#include "base/crc32c.h"

#include "base/codec.h"

#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

/* One nibble at a time: 16 constants that a reader can check, and fast enough where the CPU has no
 * instruction for it. The entries are the CRC of each nibble under the reflected polynomial
 * 0x82f63b78 (RFC 3720 B.4). */
static uint32_t nibble_crc(uint32_t v) {
    for (int i = 0; i < 4; i++)
        v = (v >> 1) ^ ((v & 1) ? 0x82f63b78U : 0U);
    return v;
}

uint32_t crc32c_extend_portable(uint32_t crc, const void *data, size_t len) {
    const uint8_t *p = (const uint8_t *) data;
    uint32_t table[16];

    for (uint32_t i = 0; i < 16; i++)
        table[i] = nibble_crc(i);
    crc = ~crc;
    for (size_t i = 0; i < len; i++) {
        crc ^= p[i];
        crc = (crc >> 4) ^ table[crc & 15];
        crc = (crc >> 4) ^ table[crc & 15];
    }
    return ~crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t
crc32c_extend_sse42(uint32_t crc, const void *data, size_t len) {
    const uint8_t *p = (const uint8_t *) data;
    uint64_t c = (uint32_t) ~crc;

    for (; len >= 8; len -= 8, p += 8)
        c = _mm_crc32_u64(c, get_le64(p));
    for (; len > 0; len--, p++)
        c = _mm_crc32_u8((uint32_t) c, *p);
    return ~(uint32_t) c;
}
#endif

uint32_t crc32c_extend(uint32_t crc, const void *data, size_t len) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("sse4.2"))
        return crc32c_extend_sse42(crc, data, len);
#endif
    return crc32c_extend_portable(crc, data, len);
}
