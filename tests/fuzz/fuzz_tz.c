/* Fuzzes the reader of time zones: the input is a TZif file, or with an odd first byte a POSIX rule
 * within one. What is read must be a list of ascending changes with bounded offsets, and every
 * instant must have a period. */
#include "fuzz.h"

#include "sched/cron.h"
#include "sched/zones.h"

#include <string.h>

static void check(const struct tz *z) {
    ASSERT(z->count > 0 && z->changes[0].at == INT64_MIN);
    for (size_t i = 0; i < z->count; i++) {
        const struct tz_change *c = &z->changes[i];

        ASSERT(i == 0 || c->at > c[-1].at);
        ASSERT(c->offset >= -200000 && c->offset <= 200000);
        ASSERT(memchr(c->abbrev, 0, sizeof(c->abbrev)));
        ASSERT(i == 0 || tz_find(z, c->at) == i);
        ASSERT(i == 0 || tz_find(z, c->at - 1) == i - 1);
    }
}

/* Whatever the zone: instants ascend and end. */
static void check_next(const struct tz *z) {
    struct cron c;
    int64_t after = 0;
    int rc = cron_parse("30 2 * * *", "", false, &c, NULL);

    ASSERT(rc == 0);
    for (int i = 0; i < 50; i++) {
        int64_t at = cron_next(&c.times, z, CRON_DST_ONCE, after, NULL);

        ASSERT(at > after);
        if (at == CRON_NEVER)
            return;
        after = at + 40LL * 86400;
    }
}

static struct bytes *rule_file(const uint8_t *data, size_t size) {
    char rule[256];

    size = MIN(size, sizeof(rule) - 1);
    memcpy(rule, data, size);
    rule[size] = '\0';
    return zones_synthetic(rule);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct errtext why = {0};
    struct bytes *file;
    struct tz *z = NULL;
    int rc;

    if (size < 1)
        return 0;
    file = data[0] & 1 ? rule_file(data + 1, size - 1) : bytes_copy(data + 1, size - 1);
    if (!file)
        return 0;
    rc = tz_parse(bytes_slice(file), &z, &why);
    if (rc == 0) {
        check(z);
        check_next(z);
    } else {
        ASSERT(why.s[0]);
    }
    (void) tz_free(z);
    (void) bytes_unref(file);
    return 0;
}
