/* Our next instants for whoever wants to compare them: reads lines of
 *   EXPRESSION <tab> ZONE <tab> SECONDS <tab> COUNT
 * and answers each with the instants after SECONDS, in seconds since 1970, then <tab> and 1 when
 * the zone's clock changes from a day before the first to a day after the last of them, else 0; or
 * with "error: REASON". Policy of clock changes: once. Used by tests/system/cron_js. */
#include "os/tzdir.h"
#include "sched/cron.h"
#include "sched/zones.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DAY_S 86400

static bool changes_between(const struct tz *tz, int64_t from, int64_t to) {
    return tz && tz_find(tz, from - DAY_S) != tz_find(tz, to + DAY_S);
}

static void answer(struct zones *zones, const char *expression, const char *zone, int64_t from,
                   long count) {
    const struct tz *tz = NULL;
    struct errtext why = {""};
    struct cron c;
    int64_t at = from;

    if (zones_find(zones, zone, &tz, &why) != 0 ||
        cron_parse(expression, "", /* and_days= */ false, &c, &why) != 0) {
        printf("error: %s\n", why.s);
        return;
    }
    for (long i = 0; i < count; i++) {
        int64_t next = cron_next(&c.times, tz, CRON_DST_ONCE, at, NULL);

        if (next == CRON_NEVER)
            break;
        printf("%s%" PRId64, i > 0 ? " " : "", next);
        at = next;
    }
    printf("\t%d\n", changes_between(tz, from, at));
}

int main(void) {
    struct zones *zones = NULL;
    struct env_zones env;
    struct tzdir dir;
    char line[2048];

    if (tzdir_init(&dir, NULL, NULL) != 0)
        return 1;
    env = tzdir_env(&dir);
    if (zones_new(&env, &zones) != 0)
        return 1;
    while (fgets(line, sizeof(line), stdin)) {
        char *rest = line, *field[4];

        for (size_t i = 0; i < ARRAY_LEN(field); i++)
            field[i] = strsep(&rest, "\t\n");
        if (!field[3])
            return 1;
        answer(zones, field[0], field[1], strtoll(field[2], NULL, 10), strtol(field[3], NULL, 10));
    }
    (void) zones_free(zones);
    return 0;
}
