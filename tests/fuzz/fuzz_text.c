/* Any text as what people type: durations, sizes, numbers, instants, job ids, addresses. It is
 * refused with a sentence, or what it means prints to a text that means the same. And any bytes on
 * their way to a terminal lose every control character. The first byte chooses. */
#include "fuzz.h"

#include "api/message_check.h"
#include "base/units.h"
#include "cli/config.h"
#include "cli/schedule_text.h"
#include "cli/text.h"
#include "fsm/job_id.h"
#include "sched/civil.h"

#include <stdlib.h>

#define NOW_MS 1767225600000

static void duration(const char *s) {
    struct errtext why = {""};
    char out[UNITS_TEXT_BYTES_MAX];
    uint64_t ms = 0, again = 0;
    int rc = units_parse_duration(s, &ms, &why);

    if (rc != 0) {
        fuzz_reason(&why);
        return;
    }
    ASSERT(ms <= INT64_MAX);
    ASSERT(units_parse_duration(units_print_duration(ms, out), &again, &why) == 0);
    ASSERT(again == ms);
}

static void bytes(const char *s) {
    struct errtext why = {""};
    char out[UNITS_TEXT_BYTES_MAX];
    uint64_t n = 0, again = 0;
    int rc = units_parse_size(s, &n, &why);

    if (rc != 0) {
        fuzz_reason(&why);
        return;
    }
    ASSERT(n <= INT64_MAX);
    ASSERT(units_parse_size(units_print_size(n, out), &again, &why) == 0);
    ASSERT(again == n);
}

static void number(const char *s) {
    struct errtext why = {""};
    uint64_t n = 0;
    int rc = units_parse_uint(s, &n, &why);
    char out[32];

    if (rc != 0) {
        fuzz_reason(&why);
        return;
    }
    while (s[0] == '0' && s[1] != '\0')
        s++;
    (void) snprintf(out, sizeof(out), "%llu", (unsigned long long) n);
    ASSERT(strcmp(out, s) == 0);
}

static void job_id(const char *s) {
    char out[JOB_ID_BYTES_MAX];
    uint64_t seq = 0;

    if (job_id_parse(s, &seq) != 0)
        return;
    ASSERT(seq > 0);
    job_id_format(seq, out);
    ASSERT(strcmp(out, s) == 0);
}

static void instant(const char *s) {
    struct errtext why = {""};
    char out[SCHEDULE_INSTANT_BYTES], shown[32];
    int64_t ms = 0, again = 0;
    int rc = schedule_parse_instant(s, &ms, &why);

    if (rc != 0) {
        ASSERT(rc == 1);
        fuzz_reason(&why);
    } else {
        rc = schedule_parse_instant(schedule_print_instant(ms, out), &again, &why);
        ASSERT(rc == 0 && again == ms);
    }
    rc = text_parse_time(s, NOW_MS, &ms, &why);
    if (rc != 0) {
        fuzz_reason(&why);
        return;
    }
    ASSERT(strlen(text_time(ms, shown)) < sizeof(shown));
    ASSERT(strlen(text_elapsed(ms, shown)) < sizeof(shown));
}

static void address(const char *s) {
    struct errtext why = {""};
    char host[256], out[300], again[256];
    uint16_t port = 0, port_again = 0;
    int rc = config_split_address(s, host, &port, &why);

    if (rc != 0) {
        fuzz_reason(&why);
        return;
    }
    (void) snprintf(out, sizeof(out), strchr(host, ':') ? "[%s]:%u" : "%s:%u", host, port);
    rc = config_split_address(out, again, &port_again, &why);
    ASSERT(rc == 0 && port == port_again && strcmp(host, again) == 0);
}

/* In two pieces and whole: the same, well-formed, and without a control character. */
static void terminal(struct slice in, bool one_line) {
    size_t cut = in.len / 2;
    struct text_escape e = {0}, f = {0};
    struct buf whole, pieces;

    buf_init(&whole, SIZE_MAX / 2);
    buf_init(&pieces, SIZE_MAX / 2);
    ASSERT(text_escape(&e, in.data, in.len, one_line, &whole) == 0);
    ASSERT(text_escape_end(&e, &whole) == 0);
    ASSERT(text_escape(&f, in.data, cut, one_line, &pieces) == 0);
    ASSERT(text_escape(&f, in.data + cut, in.len - cut, one_line, &pieces) == 0);
    ASSERT(text_escape_end(&f, &pieces) == 0);
    ASSERT(whole.len == pieces.len);
    ASSERT(whole.len == 0 || memcmp(whole.data, pieces.data, whole.len) == 0);
    for (size_t i = 0; i < whole.len; i++)
        ASSERT((whole.data[i] >= 0x20 && whole.data[i] != 0x7f) ||
               (!one_line && (whole.data[i] == '\n' || whole.data[i] == '\t')));
    ASSERT(message_check_text(slice_of(whole.data, whole.len)));
    buf_done(&whole);
    buf_done(&pieces);
}

/* Days and seconds of any date, there and back. */
static void date(struct slice in) {
    int64_t s = (int64_t) (fuzz_u64(&in) % 600000000000ULL) - 300000000000LL;
    struct civil c = civil_of(s);

    ASSERT(civil_seconds(&c) == s);
    ASSERT(c.month >= 1 && c.month <= 12 && c.day >= 1 && c.day <= 31 && c.hour < 24);
    ASSERT(c.minute < 60 && c.second < 60 && c.weekday < 7);
    ASSERT(c.day <= civil_month_days(c.year, c.month));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct slice in = slice_of(data, size);
    uint8_t which = fuzz_u8(&in);
    char *s = malloc(in.len + 1);

    ASSERT(s);
    if (in.len > 0)
        memcpy(s, in.data, in.len);
    s[in.len] = '\0';
    switch (which % 9) {
    case 0:
        duration(s);
        break;
    case 1:
        bytes(s);
        break;
    case 2:
        number(s);
        break;
    case 3:
        job_id(s);
        break;
    case 4:
        instant(s);
        break;
    case 5:
        address(s);
        break;
    case 6:
    case 7:
        terminal(in, which % 9 == 6);
        break;
    case 8:
        date(in);
        break;
    }
    free(s);
    return 0;
}
