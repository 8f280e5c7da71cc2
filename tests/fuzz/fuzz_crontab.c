/* The reader of crontabs on any bytes, with and without a user column: it refuses with a sentence
 * or accepts, and what it accepts is written as a crontab that is accepted again, with as many
 * schedules as were not left out. */
#include "fuzz.h"

#include "cli/crontab.h"

#include <string.h>

#define ARENA_BYTES ((size_t) 64 * 1024 * 1024)

static int read_tab(const char *text, size_t len, bool user_column, struct arena *arena,
                    struct schedule_list *ret) {
    const struct crontab_options o = {
        .name = "fuzz", .time_zone = "UTC", .prefix = "p-", .user_column = user_column};
    struct errtext why = {""};
    struct buf notes;
    int r;

    buf_init(&notes, ARENA_BYTES);
    r = crontab_read(text, len, &o, arena, ret, &notes, &why);
    ASSERT(r <= 0 || why.s[0] != '\0');
    buf_done(&notes);
    return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct schedule_list l = {0}, again = {0};
    struct arena arena;
    struct buf b;
    bool user_column;
    size_t left_out = 0;

    if (size < 1 || size > 16384)
        return 0;
    user_column = data[0] & 1;
    arena_init(&arena, ARENA_BYTES);
    buf_init(&b, ARENA_BYTES);
    if (read_tab((const char *) data + 1, size - 1, user_column, &arena, &l) == 0) {
        int r = crontab_write(&l, user_column, &arena, &b, &left_out);

        ASSERT(r == 0);
        r = read_tab((const char *) b.data, b.len, user_column, &arena, &again);
        ASSERT(r == 0);
        ASSERT(again.count + left_out == l.count);
    }
    buf_done(&b);
    arena_done(&arena);
    return 0;
}
