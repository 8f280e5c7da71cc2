/* CRC32C (Castagnoli), as in RFC 3720 appendix B.4: init and final xor 0xffffffff.
 * crc32c_extend(crc32c(a), b) == crc32c(a || b). */
#pragma once

#include "base/defs.h"

uint32_t crc32c_extend(uint32_t crc, const void *data, size_t len);
static inline uint32_t crc32c(const void *data, size_t len) {
    return crc32c_extend(0, data, len);
}
/* The table-driven variant, exported so that a test can compare both. */
uint32_t crc32c_extend_portable(uint32_t crc, const void *data, size_t len);
