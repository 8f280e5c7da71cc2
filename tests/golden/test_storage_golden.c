/* Golden files of the formats on disk: logs, a meta file and a snapshot as a release wrote them. A
 * program that reads them otherwise than that release did would lose what was acknowledged, so they
 * are never changed (docs/formats.md).
 *
 *   test_storage_golden DIR     DIR/wal, wal-torn, wal-truncated, wal-reset: log directories
 *                               DIR/meta: a directory with a meta file
 *                               DIR/snapshot/state.backup: a snapshot, as in a backup file
 *                               DIR/expected.txt: what the release read from them
 *
 * Everything is read from a copy in memory: opening a log writes. With CHRONOS_GOLDEN_REWRITE=1 it
 * writes a new DIR for a new release instead, and overwrites nothing; a second argument names the
 * records of the state to write the snapshot from (golden/state/RELEASE/records.bin). */
#include "fsm_fixture.h"

#include "base/codec.h"
#include "base/crc32c.h"
#include "base/rand.h"
#include "sim/sim_disk.h"
#include "storage/meta.h"
#include "storage/snapshot_format.h"
#include "storage/wal.h"

#include <dirent.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "records.h"

#include "chronos/internal/v1/snapshot.pb-c.h"

#define PATH_BYTES 1024
#define SEGMENT_BYTES (8U * 1024)
#define ENTRY_COMMAND 3 /* the type byte that the log's caller gives to commands */
#define CHUNK_BYTES 256 /* small, so that the stream has several chunks */

static const char *dir; /* cmocka's tests take no argument of ours */
static const char *records_path;

static const struct wal_options wal_options = {
    .identity = {.cluster_id = {0xc1, 0x05, [15] = 0x0e}, .node_id = 258},
    .segment_bytes = SEGMENT_BYTES,
    .spare_segments = 1,
};

static const char *const logs[] = {"wal", "wal-torn", "wal-truncated", "wal-reset"};

/* ---- files -------------------- */

static void path_of(char out[PATH_BYTES], const char *folder, const char *name) {
    int n = snprintf(out, PATH_BYTES, "%s/%s%s%s", dir, folder, name ? "/" : "", name ? name : "");

    assert_true(n > 0 && n < PATH_BYTES);
}

static void file_write(const char *path, const uint8_t *data, size_t len) {
    FILE *f = fopen(path, "wbx");

    if (!f)
        fail_msg("%s: cannot be written; golden files are never overwritten", path);
    assert_int_equal(fwrite(data, 1, len, f), len);
    assert_int_equal(fclose(f), 0);
}

static void disk_put(struct sim_disk *d, const char *name, const struct bytes *b) {
    const struct disk *disk = sim_disk_interface(d);
    struct disk_file *f = NULL;

    assert_int_equal(disk->ops->open(disk->ctx, name, DISK_CREATE | DISK_EXCL, &f), 0);
    for (size_t at = 0; at < b->len;) {
        size_t n = 0;

        assert_int_equal(disk->ops->pwrite(disk->ctx, f, at, b->data + at, b->len - at, &n), 0);
        at += n;
    }
    assert_int_equal(disk->ops->datasync(disk->ctx, f), 0);
    disk->ops->close(disk->ctx, f);
}

/* A copy of the golden folder on a disk in memory. */
static struct sim_disk *disk_load(const char *folder) {
    struct sim_disk *d = NULL;
    char path[PATH_BYTES];
    struct dirent *e;
    size_t files = 0;
    DIR *entries;

    assert_int_equal(sim_disk_new(&d), 0);
    path_of(path, folder, NULL);
    entries = opendir(path);
    if (!entries)
        fail_msg("%s: no such directory", path);
    while ((e = readdir(entries))) {
        struct bytes *b;

        if (e->d_name[0] == '.')
            continue;
        path_of(path, folder, e->d_name);
        b = file_read(path);
        disk_put(d, e->d_name, b);
        (void) bytes_unref(b);
        files++;
    }
    (void) closedir(entries);
    assert_true(files > 0);
    assert_int_equal(sim_disk_interface(d)->ops->sync_dir(sim_disk_interface(d)->ctx), 0);
    return d;
}

static void disk_save(struct sim_disk *d, const char *folder) {
    char path[PATH_BYTES];
    const char *name;

    path_of(path, folder, NULL);
    assert_int_equal(mkdir(path, 0777), 0);
    for (size_t i = 0; (name = sim_disk_name(d, i)); i++) {
        uint64_t len = 0;
        const uint8_t *data = sim_disk_bytes(d, name, &len);

        path_of(path, folder, name);
        file_write(path, data, len);
    }
}

/* ---- what is in a log -------------------- */

struct log_check {
    FILE *out;
    uint64_t records;
    uint64_t last;
};

static int show_record(void *arg, const struct wal_record *r) {
    struct log_check *c = (struct log_check *) arg;

    (void) fprintf(c->out, "  %" PRIu64 " term %" PRIu64 " type %u, %zu bytes %08x\n", r->index,
                   r->term, r->type, r->data.len, crc32c(r->data.data, r->data.len));
    c->records++;
    c->last = r->index;
    return 0;
}

static int show_segment(void *arg, const struct wal_inspect_segment *s) {
    FILE *out = ((struct log_check *) arg)->out;

    if (s->spare) {
        (void) fprintf(out, "  file %s, %u bytes\n", s->name, s->bytes);
        return 0;
    }
    (void) fprintf(out,
                   "  file %s, %u bytes, node %" PRIu64 ", cluster %02x%02x..%02x, after %" PRIu64
                   " at entry %" PRIu64 " of term %" PRIu64 ", oldest %" PRIu64 "\n",
                   s->name, s->bytes, s->identity.node_id, s->identity.cluster_id[0],
                   s->identity.cluster_id[1], s->identity.cluster_id[15], s->prev_seq,
                   s->prev_index, s->prev_term, s->oldest_seq);
    return 0;
}

static int show_inspected(void *arg, const struct wal_inspect_record *r) {
    FILE *out = ((struct log_check *) arg)->out;

    (void) fprintf(out, "  %s at %u of %s, index %" PRIu64 " term %" PRIu64 "\n", r->kind,
                   r->offset, r->segment, r->record.index, r->record.term);
    return 0;
}

static int show_bad(void *arg, const char *segment, uint32_t offset, bool torn, const char *why) {
    FILE *out = ((struct log_check *) arg)->out;

    /* The words may be said better one day. */
    (void) why;
    (void) fprintf(out, "  %s at %u of %s\n", torn ? "torn" : "damaged", offset, segment);
    return 0;
}

/* What the files say without being opened, then what an opened log gives back. */
static void show_log(FILE *out, const char *name, struct sim_disk *d) {
    struct log_check c = {.out = out};
    const struct wal_inspect_visitor v = {
        .segment = show_segment, .record = show_inspected, .bad = show_bad, .arg = &c};
    struct errtext e = {""};
    struct wal *w = NULL;
    int r;

    (void) fprintf(out, "%s: files\n", name);
    r = wal_inspect(sim_disk_interface(d), &v, &e);
    if (r != 0)
        fail_msg("%s: not inspected: %s: %s", name, err_name(r), e.s);
    (void) fprintf(out, "%s: entries\n", name);
    r = wal_open(sim_disk_interface(d), &wal_options, show_record, &c, &w, &e);
    if (r != 0)
        fail_msg("%s: not opened: %s: %s", name, err_name(r), e.s);
    (void) fprintf(
        out, "%s: base %" PRIu64 " of term %" PRIu64 ", first %" PRIu64 ", last %" PRIu64 "\n",
        name, wal_base_index(w), wal_base_term(w), wal_first_index(w), wal_last_index(w));
    w = wal_close(w);
}

/* The log can be continued, and then holds what it held and the new entry. */
static void go_on(const char *name, struct sim_disk *d) {
    static const uint8_t data[] = "of this release";
    struct log_check before = {.out = fopen("/dev/null", "w")};
    struct log_check after = {.out = before.out};
    struct wal_record rec = {
        .term = 1000, .type = ENTRY_COMMAND, .data = slice_of(data, sizeof(data))};
    struct errtext e = {""};
    struct wal *w = NULL;

    assert_non_null(before.out);
    assert_int_equal(wal_open(sim_disk_interface(d), &wal_options, show_record, &before, &w, &e),
                     0);
    rec.index = wal_last_index(w) + 1;
    assert_int_equal(wal_append(w, &rec, 1, &e), 0);
    assert_int_equal(wal_sync(w, &e), 0);
    w = wal_close(w);
    assert_int_equal(wal_open(sim_disk_interface(d), &wal_options, show_record, &after, &w, &e), 0);
    w = wal_close(w);
    if (after.records != before.records + 1 || after.last != rec.index)
        fail_msg("%s: %" PRIu64 " entries up to %" PRIu64 " after one was added to %" PRIu64, name,
                 after.records, after.last, before.records);
    (void) fclose(before.out);
}

/* ---- what is in the others -------------------- */

static void show_meta(FILE *out, struct sim_disk *d) {
    struct meta_inspect_slot slots[2];
    struct meta_state s = {0};
    struct meta *m = NULL;
    struct errtext e = {""};

    assert_int_equal(meta_inspect(sim_disk_interface(d), slots, &e), 0);
    for (size_t i = 0; i < ARRAY_LEN(slots); i++)
        (void) fprintf(out, "meta: slot %zu result %d generation %" PRIu64 " term %" PRIu64 "\n", i,
                       slots[i].rc, slots[i].generation, slots[i].state.term);
    assert_int_equal(meta_open(sim_disk_interface(d), &m, &s, &e), 0);
    (void) fprintf(out,
                   "meta: cluster %02x%02x..%02x node %" PRIu64 " term %" PRIu64 " vote %" PRIu64
                   " synced %" PRIu64 " disk %02x%02x..%02x\n",
                   s.cluster_id[0], s.cluster_id[1], s.cluster_id[15], s.node_id, s.term, s.vote,
                   s.synced_index, s.incarnation[0], s.incarnation[1], s.incarnation[15]);
    assert_int_equal(meta_save(m, s.term + 1, 0, s.synced_index + 1, &e), 0);
    m = meta_close(m);
    assert_int_equal(meta_open(sim_disk_interface(d), &m, &s, &e), 0);
    assert_int_equal(s.vote, 0);
    m = meta_close(m);
}

static void digest_print(FILE *out, const char *what, uint64_t low, uint64_t high) {
    (void) fprintf(out, "snapshot: %s %016" PRIx64 "%016" PRIx64 "\n", what, high, low);
}

static void show_header(FILE *out, const Chronos__Internal__V1__SnapshotHeader *h) {
    assert_int_equal(h->cluster_id.len, 16);
    (void) fprintf(out,
                   "snapshot: version %u cluster %02x..%02x entry %" PRIu64 " of term %" PRIu64
                   ", configuration %zu bytes %08x at %" PRIu64 ", node %" PRIu64 " at %" PRId64
                   ", feature level %u, program %s, jobs %" PRIu64 "\n",
                   h->version, h->cluster_id.data[0], h->cluster_id.data[15], h->index, h->term,
                   h->config.len, crc32c(h->config.data, h->config.len), h->config_index,
                   h->node_id, h->created_at_ms, h->feature_level, h->software, h->jobs);
    digest_print(out, "digest in the header", h->digest_low, h->digest_high);
}

static void take_records(FILE *out, struct snapshot_reader *r, const struct snapshot_block *b,
                         struct kv *kv) {
    struct kv_op *ops = NULL;
    struct errtext e = {""};
    size_t count = 0;

    assert_int_equal(snapshot_reader_take(r, b, &ops, &count, &e), 0);
    (void) fprintf(out, "snapshot: chunk %" PRIu64 ", kind %d, %zu records\n", b->sequence, b->kind,
                   count);
    if (count > 0)
        assert_int_equal(kv->ops->write(kv, ops, count), 0);
    free(ops);
}

static void read_stream(FILE *out, struct slice in, struct kv *kv) {
    Chronos__Internal__V1__SnapshotHeader *h = NULL;
    struct snapshot_reader r;
    struct errtext e = {""};

    snapshot_reader_begin(&r);
    while (in.len > 0) {
        struct snapshot_block b;
        size_t bytes = 0;

        assert_int_equal(snapshot_block_parse(in, &b, &bytes, &e), 0);
        in = slice_of(in.data + bytes, in.len - bytes);
        if (h) {
            take_records(out, &r, &b, kv);
            continue;
        }
        assert_int_equal(b.kind, SNAPSHOT_BLOCK_HEADER);
        h = chronos__internal__v1__snapshot_header__unpack(NULL, b.payload.len, b.payload.data);
        assert_non_null(h);
        show_header(out, h);
        chronos__internal__v1__snapshot_header__free_unpacked(h, NULL);
    }
    assert_true(r.done);
    (void) fprintf(out, "snapshot: %" PRIu64 " records\n", r.records);
    digest_print(out, "hash of the stream", r.hash[0], r.hash[1]);
    snapshot_reader_end(&r);
}

/* The records make a state, with a digest, that goes on. */
static void show_snapshot(FILE *out) {
    struct fixture x = {.now_ms = 1800000000000, .term = 100};
    char path[PATH_BYTES];
    uint8_t digest[16];
    struct bytes *b;

    path_of(path, "snapshot", "state.backup");
    b = file_read(path);
    assert_int_equal(kv_mem_new(0, &x.kv), 0);
    read_stream(out, bytes_slice(b), x.kv);
    (void) bytes_unref(b);
    fixture_reopen(&x);
    fsm_check_invariants(x.f);
    fsm_digest(x.f, digest);
    digest_print(out, "digest of its state", get_le64(digest), get_le64(digest + 8));
    assert_int_equal(fixture_submit(&x, 1), FSM_OK);
    fixture_done(&x);
}

/* ---- reading -------------------- */

static char *show_all(void) {
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    struct sim_disk *d;

    assert_non_null(out);
    for (size_t i = 0; i < ARRAY_LEN(logs); i++) {
        d = disk_load(logs[i]);
        show_log(out, logs[i], d);
        d = sim_disk_free(d);
    }
    d = disk_load("meta");
    show_meta(out, d);
    d = sim_disk_free(d);
    show_snapshot(out);
    assert_int_equal(fclose(out), 0);
    return text;
}

/* Goal: everything is read as it was when it was written. */
static void test_read(void **state) {
    char path[PATH_BYTES];
    struct bytes *want;
    char *got = show_all();
    size_t line = 1, same = 0;

    (void) state;
    path_of(path, "expected.txt", NULL);
    want = file_read(path);
    while (same < want->len && got[same] == (char) want->data[same])
        line += got[same++] == '\n';
    if (same != want->len || got[same] != '\0')
        fail_msg("%s: line %zu differs; read now:\n%s", path, line, got);
    (void) bytes_unref(want);
    free(got);
}

/* Goal: a node of this release goes on with each log. */
static void test_go_on(void **state) {
    (void) state;
    for (size_t i = 0; i < ARRAY_LEN(logs); i++) {
        struct sim_disk *d = disk_load(logs[i]);

        go_on(logs[i], d);
        d = sim_disk_free(d);
    }
}

/* Goal: files of another node are told apart from damage. */
static void test_foreign(void **state) {
    struct wal_options o = wal_options;
    struct sim_disk *d = disk_load("wal");
    struct log_check c = {.out = stdout};
    struct errtext e = {""};
    struct wal *w = NULL;

    (void) state;
    o.identity.node_id++;
    assert_int_equal(wal_open(sim_disk_interface(d), &o, show_record, &c, &w, &e), ERR_FOREIGN);
    d = sim_disk_free(d);
}

/* ---- writing -------------------- */

static void append(struct wal *w, uint64_t term, size_t n, size_t len) {
    static uint8_t data[SEGMENT_BYTES];
    struct errtext e = {""};

    for (size_t i = 0; i < n; i++) {
        struct wal_record rec = {.index = wal_last_index(w) + 1,
                                 .term = term,
                                 .type = (uint8_t) (len == 0 ? 1 : ENTRY_COMMAND),
                                 .data = slice_of(data, len)};
        struct rng g = rng_seed(rec.index * 31 + term);

        for (size_t b = 0; b < len; b++)
            data[b] = (uint8_t) rng_next(&g);
        assert_int_equal(wal_append(w, &rec, 1, &e), 0);
    }
}

static void sync_log(struct wal *w) {
    struct errtext e = {""};

    assert_int_equal(wal_sync(w, &e), 0);
    while (wal_wants_prepare(w))
        assert_int_equal(wal_prepare(w, &e), 0);
}

static struct sim_disk *log_new(struct wal **ret) {
    struct log_check c = {.out = stdout};
    struct sim_disk *d = NULL;
    struct errtext e = {""};

    assert_int_equal(sim_disk_new(&d), 0);
    assert_int_equal(wal_open(sim_disk_interface(d), &wal_options, show_record, &c, ret, &e), 0);
    return d;
}

static void log_save(struct sim_disk *d, struct wal *w, const char *folder) {
    w = wal_close(w);
    disk_save(d, folder);
    d = sim_disk_free(d);
}

/* An orderly life: several segments, entries of all sizes, a conflict, a release, a seal. */
static void write_wal(void) {
    struct errtext e = {""};
    struct wal *w = NULL;
    struct sim_disk *d = log_new(&w);

    append(w, 1, 1, 0);
    append(w, 1, 20, 700);
    sync_log(w);
    append(w, 2, 1, 0);
    append(w, 2, 3, 1);
    sync_log(w);
    assert_int_equal(wal_truncate(w, 23, &e), 0);
    append(w, 5, 4, 41);
    sync_log(w);
    assert_int_equal(wal_release(w, 15, 0, &e), 0);
    append(w, 5, 2, 3000);
    append(w, 6, 1, 9000); /* larger than a segment usually is */
    sync_log(w);
    assert_int_equal(wal_seal(w, &e), 0);
    log_save(d, w, "wal");
}

/* The last entry was being written when the power went. */
static void write_torn(void) {
    struct wal *w = NULL;
    struct sim_disk *d = log_new(&w);
    uint64_t len = 0;
    uint8_t *data;

    append(w, 3, 10, 100);
    sync_log(w);
    append(w, 3, 1, 200);
    w = wal_close(w);
    data = sim_disk_bytes(d, "wal-0000000000000001.log", &len);
    assert_non_null(data);
    while (len > 0 && data[len - 1] == 0)
        len--;
    memset(data + len - 100, 0, 100);
    log_save(d, w, "wal-torn");
}

/* Everything behind a released part was cut off. */
static void write_truncated(void) {
    struct errtext e = {""};
    struct wal *w = NULL;
    struct sim_disk *d = log_new(&w);

    append(w, 7, 9, 1500);
    sync_log(w);
    assert_int_equal(wal_release(w, 4, 0, &e), 0);
    assert_true(wal_base_index(w) > 0);
    assert_int_equal(wal_truncate(w, wal_base_index(w) + 1, &e), 0);
    sync_log(w);
    log_save(d, w, "wal-truncated");
}

/* A snapshot was installed, and the log went on behind it. */
static void write_reset(void) {
    struct errtext e = {""};
    struct wal *w = NULL;
    struct sim_disk *d = log_new(&w);

    append(w, 1, 12, 900);
    sync_log(w);
    assert_int_equal(wal_reset(w, 5000, 9, &e), 0);
    append(w, 9, 3, 64);
    append(w, 10, 1, 0);
    sync_log(w);
    log_save(d, w, "wal-reset");
}

static void write_meta(void) {
    const struct meta_state first = {.cluster_id = {0xc1, 0x05, [15] = 0x0e},
                                     .node_id = 258,
                                     .incarnation = {0xd1, 0x5c, [15] = 0x01}};
    struct sim_disk *d = NULL;
    struct meta *m = NULL;
    struct errtext e = {""};

    assert_int_equal(sim_disk_new(&d), 0);
    assert_int_equal(meta_create(sim_disk_interface(d), &first, &m, &e), 0);
    for (uint64_t term = 1; term <= 4; term++)
        assert_int_equal(meta_save(m, term << 33, term == 4 ? 3 : 0, term * 1000, &e), 0);
    m = meta_close(m);
    disk_save(d, "meta");
    d = sim_disk_free(d);
}

static void encode_header(const struct fixture *x, struct buf *out) {
    Chronos__Internal__V1__SnapshotHeader h = CHRONOS__INTERNAL__V1__SNAPSHOT_HEADER__INIT;
    uint8_t cluster_id[16] = {0xc1, 0x05, [15] = 0x0e};
    uint8_t packed[512], digest[16];
    char software[] = "0.1.0";
    struct slice config = fsm_config(x->f, &h.config_index);

    fsm_digest(x->f, digest);
    h.version = 1;
    h.cluster_id.data = cluster_id;
    h.cluster_id.len = sizeof(cluster_id);
    h.index = fsm_applied_index(x->f);
    h.term = fsm_applied_term(x->f);
    h.config.data = (uint8_t *) (uintptr_t) config.data;
    h.config.len = config.len;
    h.digest_low = get_le64(digest);
    h.digest_high = get_le64(digest + 8);
    h.node_id = 258;
    h.created_at_ms = 1700000100000;
    h.feature_level = fsm_feature_level(x->f);
    h.software = software;
    h.jobs = 4;
    assert_true(chronos__internal__v1__snapshot_header__get_packed_size(&h) <= sizeof(packed));
    assert_int_equal(
        snapshot_header_encode(
            out, slice_of(packed, chronos__internal__v1__snapshot_header__pack(&h, packed))),
        0);
}

static void write_snapshot(void) {
    struct fixture x = {.now_ms = 1, .term = 1};
    struct buf out = {.max = FILE_BYTES_MAX};
    struct snapshot_writer w;
    struct kv_iter *it = NULL;
    char path[PATH_BYTES];

    assert_int_equal(kv_mem_new(0, &x.kv), 0);
    records_load(x.kv, records_path);
    fixture_reopen(&x);
    encode_header(&x, &out);
    assert_int_equal(x.kv->ops->iter_open(x.kv, &it), 0);
    snapshot_writer_begin(&w, it, FSM_LOCAL_KEY);
    w.chunk_bytes = CHUNK_BYTES;
    while (!w.done)
        assert_int_equal(snapshot_writer_next(&w, &out), 0);
    it->ops->close(it);
    path_of(path, "snapshot", NULL);
    assert_int_equal(mkdir(path, 0777), 0);
    path_of(path, "snapshot", "state.backup");
    file_write(path, out.data, out.len);
    buf_done(&out);
    fixture_done(&x);
}

static void write_all(void **state) {
    char path[PATH_BYTES];
    char *text;

    (void) state;
    write_wal();
    write_torn();
    write_truncated();
    write_reset();
    write_meta();
    write_snapshot();
    text = show_all();
    path_of(path, "expected.txt", NULL);
    file_write(path, (const uint8_t *) text, strlen(text));
    free(text);
}

int main(int argc, char **argv) {
    const struct CMUnitTest writing[] = {cmocka_unit_test(write_all)};
    const struct CMUnitTest reading[] = {
        cmocka_unit_test(test_read),
        cmocka_unit_test(test_go_on),
        cmocka_unit_test(test_foreign),
    };
    const char *rewrite = getenv("CHRONOS_GOLDEN_REWRITE");
    bool writes = rewrite && strcmp(rewrite, "1") == 0;

    if (argc != (writes ? 3 : 2)) {
        (void) fprintf(stderr, "usage: %s DIR\n       CHRONOS_GOLDEN_REWRITE=1 %s DIR RECORDS\n",
                       argv[0], argv[0]);
        return 2;
    }
    dir = argv[1];
    records_path = argv[2];
    if (writes)
        return cmocka_run_group_tests_name("storage golden, writing", writing, NULL, NULL);
    return cmocka_run_group_tests_name("storage golden", reading, NULL, NULL);
}
