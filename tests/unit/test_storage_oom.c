/* Every allocation of the storage folder fails once, and every disk call of the meta file with
 * every error. The log's own scenario is in test_wal_faults.c; here are the functions it does not
 * call. The simulated disk's allocations count as well: they are failures of a system call. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "nth_memory.h"
#include "sim/sim_disk.h"
#include "storage/io.h"
#include "storage/kv_table.h"
#include "storage/meta.h"
#include "storage/wal.h"
#include "storage/wal_format.h"

#define SEGMENT_BYTES WAL_SEGMENT_BYTES_MIN

/* ---- the meta file ----------------------------------------------------------------------------
 */

static const struct meta_state born = {.node_id = 3, .term = 1, .vote = 2, .synced_index = 7};

/* Made, written twice, closed, read, shown. The first error. */
static int meta_life(const struct disk *disk, struct errtext *why) {
    struct meta_inspect_slot slots[2];
    struct meta_state s = {0};
    struct meta *m = NULL;
    int rc = meta_open(disk, &m, &s, why);

    if (rc == META_MISSING)
        rc = meta_create(disk, &born, &m, why);
    if (rc == 0)
        rc = meta_save(m, 2, 3, 8, why);
    if (rc == 0)
        rc = meta_save(m, 3, 0, 9, why);
    m = meta_close(m);
    if (rc == 0)
        rc = meta_open(disk, &m, &s, why);
    if (rc == 0)
        assert_true(s.term == 3 && s.synced_index == 9);
    m = meta_close(m);
    if (rc == 0)
        rc = meta_inspect(disk, slots, why);
    return rc;
}

/* Whatever failed: a file that is there is whole, and nothing was invented. */
static void assert_meta_sane(const struct disk *disk) {
    struct meta_state s = {0};
    struct meta *m = NULL;
    int rc = meta_open(disk, &m, &s, NULL);

    assert_true(rc == 0 || rc == META_MISSING);
    if (rc == 0)
        assert_true(s.node_id == born.node_id && s.term >= 1 && s.term <= 3);
    (void) meta_close(m);
}

static int meta_scenario(void *arg) {
    struct sim_disk *d = NULL;
    long left = nth_memory_left;
    int rc;

    (void) arg;
    nth_memory_end();
    assert_int_equal(sim_disk_new(&d), 0);
    nth_memory_begin(left);
    rc = meta_life(sim_disk_interface(d), NULL);
    nth_memory_end();
    assert_int_equal(sim_disk_open_handles(d), 0);
    assert_meta_sane(sim_disk_interface(d));
    (void) sim_disk_free(d);
    return rc;
}

static void test_meta_memory(void **state) {
    (void) state;
    assert_true(nth_memory_loop(meta_scenario, NULL) >= 4);
}

/* One call kind fails at one place with one error (0: does only part of its work). False: it was
 * never reached. */
static bool meta_fails(enum sim_disk_op op, uint64_t nth, int err) {
    struct errtext why = {""};
    struct sim_disk *d = NULL;
    bool hit;
    int rc;

    assert_int_equal(sim_disk_new(&d), 0);
    sim_disk_set_fault(
        d, (struct sim_disk_fault){
               .op = op, .nth = nth, .effect = err ? SIM_DISK_FAIL : SIM_DISK_SHORT, .err = err});
    rc = meta_life(sim_disk_interface(d), &why);
    hit = sim_disk_fault_hit(d);
    assert_int_equal(rc, hit ? err : 0);
    assert_true(rc == 0 || why.s[0] != '\0');
    assert_int_equal(sim_disk_open_handles(d), 0);
    sim_disk_clear_fault(d);
    assert_meta_sane(sim_disk_interface(d));
    (void) sim_disk_free(d);
    return hit;
}

/* Goal: W4 for the meta file: call kind x error x place. */
static void test_meta_disk(void **state) {
    static const int errors[] = {-EIO,    -ENOSPC, -EDQUOT, -EFBIG, -EROFS,
                                 -EMFILE, -EAGAIN, -EINTR,  0};
    unsigned hits = 0;

    (void) state;
    for (int op = 0; op < SIM_DISK_OPS; op++)
        for (size_t e = 0; e < ARRAY_LEN(errors); e++)
            for (uint64_t n = 1;
                 (errors[e] != 0 || op == SIM_DISK_PREAD || op == SIM_DISK_PWRITE) &&
                 meta_fails((enum sim_disk_op) op, n, errors[e]);
                 n++)
                hits++;
    print_message("%u combinations\n", hits);
    assert_true(hits > 100);
}

/* ---- whole reads and writes --------------------------------------------------------------------
 */

static int io_scenario(void *arg) {
    const struct disk *disk = arg;
    struct disk_file *f = NULL;
    char got[8] = "";
    size_t n = 0;
    int rc = disk->ops->open(disk->ctx, "io", DISK_CREATE, &f);

    if (rc == 0)
        rc = io_write_full(disk, f, 0, "content", 8);
    if (rc == 0)
        rc = io_write_zeros(disk, f, 8, 20000);
    if (rc == 0)
        rc = io_read_full(disk, f, 0, got, sizeof(got), &n);
    if (rc == 0)
        assert_true(n == 8 && strcmp(got, "content") == 0);
    f = io_close(disk, f);
    return rc;
}

static void test_io(void **state) {
    struct sim_disk *d = NULL;

    (void) state;
    assert_int_equal(sim_disk_new(&d), 0);
    (void) nth_memory_loop(io_scenario, (void *) (uintptr_t) sim_disk_interface(d));
    assert_int_equal(sim_disk_open_handles(d), 0);
    (void) sim_disk_free(d);
}

/* ---- the table under the memory store ----------------------------------------------------------
 */

static int table_put(struct kv_table *t, const char *key) {
    struct kv_node *before[KV_TABLE_LEVELS_MAX], *n;
    struct bytes *k = bytes_copy(key, strlen(key)), *v = bytes_copy("value", 5);

    n = k && v ? kv_table_node(t, k, v) : NULL;
    if (n) {
        (void) kv_table_find(t, bytes_slice(k), before);
        kv_table_link(t, n, before);
    }
    (void) bytes_unref(k);
    (void) bytes_unref(v);
    return n ? 0 : -ENOMEM;
}

static int table_scenario(void *arg) {
    struct kv_table *t = kv_table_new(), *copy = NULL;
    uint64_t nth = 0;
    int rc = t ? 0 : -ENOMEM;

    (void) arg;
    for (char key[] = "a"; rc == 0 && key[0] <= 't'; key[0]++)
        rc = table_put(t, key);
    if (rc == 0) {
        copy = kv_table_copy(t);
        rc = copy ? 0 : -ENOMEM;
    }
    if (t)
        assert_true(kv_table_check(t, &nth));
    if (copy)
        assert_true(kv_table_check(copy, &nth) && copy->bytes == t->bytes);
    (void) kv_table_unref(t);
    (void) kv_table_unref(copy);
    return rc;
}

static void test_table(void **state) {
    (void) state;
    assert_true(nth_memory_loop(table_scenario, NULL) > 80);
}

/* ---- the log: truncating, looking up, verifying, showing ---------------------------------------
 */

static int see_record(void *arg, const struct wal_record *rec) {
    (void) rec;
    (*(unsigned *) arg)++;
    return 0;
}

static int show_segment(void *arg, const struct wal_inspect_segment *s) {
    (void) s;
    (*(unsigned *) arg)++;
    return 0;
}

static int show_record(void *arg, const struct wal_inspect_record *r) {
    (void) r;
    (*(unsigned *) arg)++;
    return 0;
}

static int show_bad(void *arg, const char *segment, uint32_t offset, bool torn, const char *why) {
    (void) arg;
    (void) torn;
    fail_msg("%s, offset %u: %s", segment, offset, why);
    return 0;
}

static int log_append(struct wal *w, uint64_t count, uint64_t term) {
    static const uint8_t data[300];
    int rc = 0;

    for (uint64_t i = 0; rc == 0 && i < count; i++) {
        struct wal_record rec = {.index = wal_last_index(w) + 1,
                                 .term = term,
                                 .type = 1,
                                 .data = slice_of(data, sizeof(data))};

        rc = wal_append(w, &rec, 1, NULL);
    }
    return rc == 0 ? wal_sync(w, NULL) : rc;
}

static int log_life(const struct disk *disk, unsigned *seen) {
    const struct wal_options o = {.segment_bytes = SEGMENT_BYTES, .spare_segments = 1};
    const struct wal_inspect_visitor v = {show_segment, show_record, show_bad, seen};
    struct wal_scrub cursor = {0};
    struct wal *w = NULL;
    uint64_t term = 0, index = 0;
    int rc = wal_open(disk, &o, see_record, seen, &w, NULL);

    if (rc == 0)
        rc = log_append(w, 40, 1);
    if (rc == 0)
        rc = wal_truncate(w, 31, NULL);
    if (rc == 0)
        rc = wal_sync(w, NULL);
    if (rc == 0)
        rc = log_append(w, 5, 2);
    if (rc == 0)
        rc = wal_term(w, 33, &term, NULL);
    if (rc == 0)
        assert_int_equal(term, 2);
    if (rc == 0)
        rc = wal_scrub(w, &cursor, UINT32_MAX, &index, NULL);
    w = wal_close(w);
    return rc == 0 ? wal_inspect(disk, &v, NULL) : rc;
}

/* Nothing that was synced is damaged. */
static void assert_log_opens(const struct disk *disk) {
    const struct wal_options o = {.segment_bytes = SEGMENT_BYTES};
    struct wal *w = NULL;
    unsigned seen = 0;

    assert_int_equal(wal_open(disk, &o, see_record, &seen, &w, NULL), 0);
    assert_true(wal_last_index(w) <= 40);
    (void) wal_close(w);
}

static int log_scenario(void *arg) {
    long left = nth_memory_left;
    struct sim_disk *d = NULL;
    unsigned seen = 0;
    int rc;

    (void) arg;
    nth_memory_end();
    assert_int_equal(sim_disk_new(&d), 0);
    nth_memory_begin(left);
    rc = log_life(sim_disk_interface(d), &seen);
    nth_memory_end();
    assert_int_equal(sim_disk_open_handles(d), 0);
    sim_disk_kill(d);
    assert_log_opens(sim_disk_interface(d));
    (void) sim_disk_free(d);
    return rc;
}

static void test_log(void **state) {
    (void) state;
    assert_true(nth_memory_loop(log_scenario, NULL) > 30);
}

/* Decoding allocates nothing. */
static int decode_scenario(void *arg) {
    struct wal_segment_header h = {
        .seq = 1, .use = 1, .base_end = WAL_HEADER_BYTES, .segment_bytes = SEGMENT_BYTES};
    uint8_t *b = arg;

    wal_format_header_encode(&h, b);
    return wal_format_header_decode(b, &h);
}

static void test_decode(void **state) {
    static uint8_t b[WAL_HEADER_BYTES];

    (void) state;
    assert_int_equal(nth_memory_loop(decode_scenario, b), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_meta_memory), cmocka_unit_test(test_meta_disk),
        cmocka_unit_test(test_io),          cmocka_unit_test(test_table),
        cmocka_unit_test(test_log),         cmocka_unit_test(test_decode),
    };

    return cmocka_run_group_tests_name("storage_oom", tests, NULL, NULL);
}
