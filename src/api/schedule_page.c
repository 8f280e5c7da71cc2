#include "api/schedule_page.h"

#include "base/codec.h"
#include "base/crc32c.h"

#include <string.h>

#define VERSION 2 /* 1 is page_token.h's: neither takes the other's */
#define HEAD_BYTES 9
#define RAW_BYTES_MAX (HEAD_BYTES + SCHEDULE_PAGE_NAME_BYTES_MAX + 4)

static const char hex_digits[] = "0123456789abcdef";

void schedule_page_format(const struct schedule_page *p, char ret[SCHEDULE_PAGE_TEXT_BYTES]) {
    size_t len = strlen(p->name), n = HEAD_BYTES + len;
    uint8_t raw[RAW_BYTES_MAX];

    ASSERT(len > 0 && len <= SCHEDULE_PAGE_NAME_BYTES_MAX);
    raw[0] = VERSION;
    put_le64(raw + 1, p->filter_hash);
    memcpy(raw + HEAD_BYTES, p->name, len);
    put_le32(raw + n, crc32c(raw, n));
    n += 4;
    for (size_t i = 0; i < n; i++) {
        ret[2 * i] = hex_digits[raw[i] >> 4];
        ret[2 * i + 1] = hex_digits[raw[i] & 15];
    }
    ret[2 * n] = '\0';
}

static int hex_value(char c) {
    const char *p = c ? strchr(hex_digits, c) : NULL;

    return p ? (int) (p - hex_digits) : -1;
}

int schedule_page_parse(const char *text, struct schedule_page *ret) {
    size_t n = strnlen(text, SCHEDULE_PAGE_TEXT_BYTES);
    uint8_t raw[RAW_BYTES_MAX];

    if (n >= SCHEDULE_PAGE_TEXT_BYTES || n % 2 != 0 || n / 2 < HEAD_BYTES + 1 + 4)
        return SCHEDULE_PAGE_BAD;
    n /= 2;
    for (size_t i = 0; i < n; i++) {
        int high = hex_value(text[2 * i]), low = hex_value(text[2 * i + 1]);

        if (high < 0 || low < 0)
            return SCHEDULE_PAGE_BAD;
        raw[i] = (uint8_t) (high << 4 | low);
    }
    n -= 4;
    if (raw[0] != VERSION || get_le32(raw + n) != crc32c(raw, n) ||
        memchr(raw + HEAD_BYTES, 0, n - HEAD_BYTES))
        return SCHEDULE_PAGE_BAD;
    *ret = (struct schedule_page){.filter_hash = get_le64(raw + 1)};
    memcpy(ret->name, raw + HEAD_BYTES, n - HEAD_BYTES);
    return 0;
}
