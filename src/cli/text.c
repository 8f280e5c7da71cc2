#include "cli/text.h"

#include "base/units.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

/* ---- escaping ------------------------------------------------------------------------------ */

/* Bytes of the UTF-8 character that starts with @b; 0 = no such start. */
static size_t utf8_len(uint8_t b) {
    if (b < 0x80)
        return 1;
    if (b >= 0xc2 && b <= 0xdf)
        return 2;
    if ((b & 0xf0) == 0xe0)
        return 3;
    return b >= 0xf0 && b <= 0xf4 ? 4 : 0;
}

/* The code point of a complete sequence, or UINT32_MAX when it is overlong, a surrogate, too large
 * or has a wrong continuation byte. */
static uint32_t utf8_decode(const uint8_t *p, size_t len) {
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    uint32_t cp;

    if (len == 1)
        return p[0];
    cp = p[0] & (0xffU >> (len + 1));
    for (size_t i = 1; i < len; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return UINT32_MAX;
        cp = (cp << 6) | (p[i] & 0x3f);
    }
    if (cp < least[len] || cp > 0x10ffff || (cp >= 0xd800 && cp <= 0xdfff))
        return UINT32_MAX;
    return cp;
}

static bool is_control(uint32_t cp, bool one_line) {
    if (cp == '\n' || cp == '\t')
        return one_line;
    if (cp < 0x20 || (cp >= 0x7f && cp < 0xa0))
        return true;
    /* Marks and overrides that make text read in another order than it stands. */
    return (cp >= 0x200e && cp <= 0x200f) || (cp >= 0x2028 && cp <= 0x202e) ||
           (cp >= 0x2066 && cp <= 0x2069);
}

static int append_hex(const uint8_t *p, size_t len, struct buf *out) {
    int r = 0;

    for (size_t i = 0; r == 0 && i < len; i++)
        r = buf_printf(out, "\\x%02x", p[i]);
    return r;
}

/* One sequence at the start of @p: how many bytes it took, 0 = more bytes are needed. */
static int escape_one(const uint8_t *p, size_t len, bool one_line, struct buf *out,
                      size_t *ret_taken) {
    size_t need = utf8_len(p[0]);
    uint32_t cp;

    *ret_taken = 1;
    if (need == 0)
        return append_hex(p, 1, out);
    for (size_t i = 1; i < need && i < len; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return append_hex(p, 1, out);
    }
    if (len < need) {
        *ret_taken = 0;
        return 0;
    }
    cp = utf8_decode(p, need);
    if (cp == UINT32_MAX)
        return append_hex(p, 1, out);
    *ret_taken = need;
    return is_control(cp, one_line) ? append_hex(p, need, out) : buf_append(out, p, need);
}

int text_escape(struct text_escape *e, const void *data, size_t len, bool one_line,
                struct buf *out) {
    const uint8_t *p = data;
    size_t taken;
    int r;

    /* First complete what the last chunk left over, byte by byte. What turns out to be no character
     * gives up its first byte, and the rest is looked at again. */
    while (e->pending_len > 0 && len > 0) {
        ASSERT(e->pending_len < sizeof(e->pending));
        e->pending[e->pending_len++] = *p++;
        len--;
        do {
            r = escape_one(e->pending, e->pending_len, one_line, out, &taken);
            if (r < 0)
                return r;
            e->pending_len -= taken;
            memmove(e->pending, e->pending + taken, e->pending_len);
        } while (taken > 0 && e->pending_len > 0);
    }
    while (len > 0) {
        r = escape_one(p, len, one_line, out, &taken);
        if (r < 0)
            return r;
        if (taken == 0) {
            memcpy(e->pending, p, len);
            e->pending_len = len;
            return 0;
        }
        p += taken;
        len -= taken;
    }
    return 0;
}

int text_escape_end(struct text_escape *e, struct buf *out) {
    size_t len = e->pending_len;

    e->pending_len = 0;
    return append_hex(e->pending, len, out);
}

int text_field(int columns, const char *label, const char *value) {
    struct text_escape e = {0};
    struct buf b;
    int r;

    if (!value[0])
        return 0;
    buf_init(&b, 8 * strlen(value) + 64);
    r = text_escape(&e, value, strlen(value), /* one_line= */ true, &b);
    if (r == 0)
        r = text_escape_end(&e, &b);
    if (r == 0)
        printf("%-*s %.*s\n", columns, label, (int) b.len, (const char *) b.data);
    buf_done(&b);
    return r;
}

size_t text_width(const char *s) {
    size_t n = 0;

    for (; *s; s++)
        n += ((uint8_t) *s & 0xc0) != 0x80;
    return n;
}

/* ---- terminal ------------------------------------------------------------------------------ */

bool text_colour_wanted(FILE *out) {
    const char *no = getenv("NO_COLOR");
    const char *term = getenv("TERM");

    return isatty(fileno(out)) && !(no && no[0]) && term && strcmp(term, "dumb") != 0;
}

size_t text_terminal_columns(FILE *out) {
    struct winsize w = {0};

    if (!isatty(fileno(out)))
        return 0;
    if (ioctl(fileno(out), TIOCGWINSZ, &w) < 0 || w.ws_col == 0)
        return 80;
    return w.ws_col;
}

/* ---- time ---------------------------------------------------------------------------------- */

const char *text_time(int64_t ms, char out[32]) {
    time_t t = (time_t) (ms / 1000);
    struct tm tm;

    if (ms <= 0 || !gmtime_r(&t, &tm) || strftime(out, 32, "%Y-%m-%d %H:%M:%S", &tm) == 0)
        (void) snprintf(out, 32, "-");
    return out;
}

const char *text_elapsed(int64_t ms, char out[32]) {
    int64_t s = ms / 1000;

    if (ms < 0)
        (void) snprintf(out, 32, "-");
    else if (ms < 1000)
        (void) snprintf(out, 32, "%dms", (int) ms);
    else if (s < 60)
        (void) snprintf(out, 32, "%d.%ds", (int) s, (int) (ms % 1000 / 100));
    else if (s < 3600)
        (void) snprintf(out, 32, "%dm%02ds", (int) (s / 60), (int) (s % 60));
    else
        (void) snprintf(out, 32, "%lldh%02dm", (long long) (s / 3600), (int) (s % 3600 / 60));
    return out;
}

int text_parse_time(const char *s, int64_t now_ms, int64_t *ret_ms, struct errtext *reterr) {
    static const char *const forms[] = {"%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d %H:%M:%S", "%Y-%m-%d"};
    struct errtext ignored;
    uint64_t back = 0;

    if (units_parse_duration(s, &back, &ignored) == 0 && back <= (uint64_t) now_ms) {
        *ret_ms = now_ms - (int64_t) back;
        return 0;
    }
    for (size_t i = 0; i < ARRAY_LEN(forms); i++) {
        struct tm tm = {0};
        const char *end = strptime(s, forms[i], &tm);

        if (end && *end == '\0') {
            *ret_ms = (int64_t) timegm(&tm) * 1000;
            return 0;
        }
    }
    errtext_set(reterr,
                "\"%.64s\" is not a time; write it like 15m (ago), 2026-07-01 or "
                "2026-07-01T12:00:00Z (UTC)",
                s);
    return 1;
}
