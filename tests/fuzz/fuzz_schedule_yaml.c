/* The reader of schedules in YAML on any bytes: it refuses with a sentence or accepts, and what it
 * accepts is written as YAML that reads back to definitions without a difference. */
#include "fuzz.h"

#include "cli/schedule_yaml.h"

#include <string.h>

#define ARENA_BYTES ((size_t) 64 * 1024 * 1024)

static void write_and_read(const struct schedule_list *l, struct arena *arena) {
    struct schedule_list again = {0};
    struct errtext why = {""};
    struct buf b;
    int r;

    buf_init(&b, ARENA_BYTES);
    r = schedule_yaml_begin(&b);
    for (size_t i = 0; r == 0 && i < l->count; i++)
        r = schedule_yaml_write(l->items[i], &b);
    if (r == 0)
        r = schedule_yaml_end(l->count, &b);
    ASSERT(r == 0);
    r = schedule_yaml_read("again", (const char *) b.data, b.len, arena, &again, &why);
    ASSERT(r == 0);
    ASSERT(again.count == l->count);
    for (size_t i = 0; i < l->count; i++) {
        struct buf d;

        buf_init(&d, ARENA_BYTES);
        r = schedule_spec_differences(l->items[i], again.items[i], arena, &d);
        ASSERT(r == 0 && d.len == 0);
        buf_done(&d);
    }
    buf_done(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct schedule_list l = {0};
    struct errtext why = {""};
    struct arena arena;
    int r;

    if (size > 16384)
        return 0; /* aliases make much of little: memory is bounded by the arena only */
    arena_init(&arena, ARENA_BYTES);
    r = schedule_yaml_read("fuzz.yaml", (const char *) data, size, &arena, &l, &why);
    ASSERT(r <= 0 || why.s[0] != '\0');
    if (r == 0)
        write_and_read(&l, &arena);
    arena_done(&arena);
    return 0;
}
