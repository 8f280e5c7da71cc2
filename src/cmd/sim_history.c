/* Histories from files. See sim_history.h. */
#include "cmd/sim_history.h"

#include "sim/linear.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* 0, or the negative error with its reason. */
static int read_all(FILE *f, struct history *h, struct errtext *why) {
    char line[HISTORY_LINE_BYTES_MAX + 2];
    uint32_t number = 0;
    int r = 0;

    while (r == 0 && fgets(line, sizeof(line), f))
        r = history_parse_line(h, line, ++number, why);
    if (r == 0 && ferror(f)) {
        errtext_set(why, "line %" PRIu32 ": %s", number, strerror(errno));
        return -EIO;
    }
    return r;
}

static int judge(const struct history *h, const char *path) {
    struct linear_report report;

    if (h->count == 0) {
        fprintf(stderr, "%s: no operation: there is nothing to judge\n", path);
        return 2;
    }
    if (linear_check_history(h, NULL, &report) < 0) {
        fprintf(stderr, "%s: out of memory\n", path);
        return 2;
    }
    if (report.verdict == LINEAR_UNDECIDED) {
        fprintf(stderr, "%s: cannot be judged: %s\n", path, report.why);
        return 2;
    }
    if (report.verdict == LINEAR_BROKEN) {
        printf("%s: NOT linearizable: %s\n", path, report.why);
        return 1;
    }
    printf("%s: holds: %zu operations in %" PRIu64 " parts of at most %" PRIu64 ", %" PRIu64
           " of them by search\n",
           path, h->count, report.parts, report.largest, report.searched);
    return 0;
}

int sim_history_check(const char *path) {
    bool given = strcmp(path, "-") != 0;
    FILE *f = given ? fopen(path, "re") : stdin;
    struct errtext why = {0};
    struct history h;
    int r;

    if (!f) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        return 2;
    }
    history_init(&h);
    r = read_all(f, &h, &why);
    if (given)
        (void) fclose(f);
    if (r < 0)
        fprintf(stderr, "%s: %s\n", path, why.s[0] ? why.s : err_name(r));
    r = r < 0 ? 2 : judge(&h, path);
    history_done(&h);
    return r;
}
