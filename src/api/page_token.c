#include "api/page_token.h"

#include "base/codec.h"
#include "base/crc32c.h"

#include <string.h>

#define PAGE_TOKEN_VERSION 1
#define CRC_OFFSET (PAGE_TOKEN_RAW_BYTES - 4)

static const char hex_digits[] = "0123456789abcdef";

void page_token_format(const struct page_token *t, char ret[PAGE_TOKEN_TEXT_BYTES]) {
    uint8_t raw[PAGE_TOKEN_RAW_BYTES];

    ASSERT(t->next_seq > 0);
    raw[0] = PAGE_TOKEN_VERSION;
    raw[1] = t->ascending ? 1 : 0;
    put_le64(raw + 2, t->next_seq);
    put_le64(raw + 10, t->filter_hash);
    put_le64(raw + 18, t->first_index);
    put_le32(raw + CRC_OFFSET, crc32c(raw, CRC_OFFSET));
    for (size_t i = 0; i < sizeof(raw); i++) {
        ret[2 * i] = hex_digits[raw[i] >> 4];
        ret[2 * i + 1] = hex_digits[raw[i] & 15];
    }
    ret[PAGE_TOKEN_TEXT_BYTES - 1] = '\0';
}

static int hex_value(char c) {
    const char *p = c ? strchr(hex_digits, c) : NULL;

    return p ? (int) (p - hex_digits) : -1;
}

int page_token_parse(const char *text, struct page_token *ret) {
    uint8_t raw[PAGE_TOKEN_RAW_BYTES];

    if (strlen(text) != PAGE_TOKEN_TEXT_BYTES - 1)
        return PAGE_TOKEN_BAD;
    for (size_t i = 0; i < sizeof(raw); i++) {
        int high = hex_value(text[2 * i]), low = hex_value(text[2 * i + 1]);

        if (high < 0 || low < 0)
            return PAGE_TOKEN_BAD;
        raw[i] = (uint8_t) (high << 4 | low);
    }
    if (get_le32(raw + CRC_OFFSET) != crc32c(raw, CRC_OFFSET))
        return PAGE_TOKEN_BAD;
    if (raw[0] != PAGE_TOKEN_VERSION || raw[1] > 1 || get_le64(raw + 2) == 0)
        return PAGE_TOKEN_BAD;
    *ret = (struct page_token){
        .ascending = raw[1] == 1,
        .next_seq = get_le64(raw + 2),
        .filter_hash = get_le64(raw + 10),
        .first_index = get_le64(raw + 18),
    };
    return 0;
}
