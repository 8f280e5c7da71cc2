/* `chronos inspect wal`: segments and records of a log, damaged or not. */
#include "cli/cmd_inspect.h"

#include "fsm/fsm.h"
#include "os/disk_posix.h"
#include "raft/raft.h"
#include "storage/wal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define NAME_BYTES 64
#define SUMMARY_BYTES 128
/* In front of a COMMAND entry's LogCommand stands the header of docs/formats.md. */
#define ENTRY_HEADER_BYTES 16

struct shown {
    char segment[NAME_BYTES];
    uint32_t offset;
    const char *kind; /* "noop", "config", "command", or what is no entry */
    uint64_t index, term, bytes;
    char summary[SUMMARY_BYTES];
};

/* The last `limit` records, or the first so many from an index on. */
struct wal_view {
    const struct inspect_values *v;
    struct table segments;
    json_t *segments_json, *bad_json; /* owned */
    struct shown *records;            /* owned ring of v->limit */
    size_t next, count;
    uint64_t entries, last_index, last_term;
    uint64_t damaged;
};

static int on_segment(void *arg, const struct wal_inspect_segment *s) {
    struct wal_view *w = arg;
    char cluster[33];
    json_t *j;
    int r;

    j = json_pack("{s:s, s:I, s:I, s:b, s:s, s:I, s:I, s:I}", "name", s->name, "bytes",
                  (json_int_t) s->bytes, "sequence", (json_int_t) s->seq, "spare", (int) s->spare,
                  "cluster_id", inspect_hex16(s->identity.cluster_id, cluster), "node_id",
                  (json_int_t) s->identity.node_id, "before_index", (json_int_t) s->prev_index,
                  "before_term", (json_int_t) s->prev_term);
    if (!j || json_array_append_new(w->segments_json, j) != 0)
        return -ENOMEM;
    /* A log begun anew after a snapshot may hold no entry yet. */
    if (!s->spare && s->prev_index >= w->last_index) {
        w->last_index = s->prev_index;
        w->last_term = s->prev_term;
    }
    r = table_add(&w->segments, NULL, "%s", s->name);
    if (r == 0)
        r = table_add(&w->segments, NULL, "%u", s->bytes);
    if (r == 0)
        r = s->spare ? table_add(&w->segments, NULL, "spare")
                     : table_add(&w->segments, NULL, "%" PRIu64, s->prev_index + 1);
    if (r == 0)
        r = s->spare ? table_add(&w->segments, NULL, "-")
                     : table_add(&w->segments, NULL, "%" PRIu64, s->identity.node_id);
    if (r == 0)
        r = table_add(&w->segments, NULL, "%s", s->spare ? "-" : cluster);
    return r;
}

static void describe(struct shown *s, const struct wal_inspect_record *r) {
    int64_t at_ms = 0;

    s->kind = r->record.type == RAFT_ENTRY_NOOP     ? "noop"
              : r->record.type == RAFT_ENTRY_CONFIG ? "config"
                                                    : "command";
    if (r->record.type == RAFT_ENTRY_COMMAND && r->record.data.len > ENTRY_HEADER_BYTES)
        fsm_command_describe(slice_of(r->record.data.data + ENTRY_HEADER_BYTES,
                                      r->record.data.len - ENTRY_HEADER_BYTES),
                             s->summary, sizeof(s->summary), &at_ms);
}

static int on_record(void *arg, const struct wal_inspect_record *r) {
    bool entry = strcmp(r->kind, "entry") == 0;
    struct wal_view *w = arg;
    struct shown *s;

    if (entry || strcmp(r->kind, "truncate") == 0) {
        w->last_index = r->record.index;
        w->last_term = r->record.term;
    }
    w->entries += entry;
    if (w->v->first > 0 && (r->record.index < w->v->first || w->count == w->v->limit))
        return 0;
    s = &w->records[w->next];
    *s = (struct shown){.offset = r->offset,
                        .kind = r->kind,
                        .index = r->record.index,
                        .term = r->record.term,
                        .bytes = r->record.data.len};
    (void) snprintf(s->segment, sizeof(s->segment), "%s", r->segment);
    if (entry)
        describe(s, r);
    w->next = (w->next + 1) % w->v->limit;
    w->count = MIN(w->count + 1, (size_t) w->v->limit);
    return 0;
}

static int on_bad(void *arg, const char *segment, uint32_t offset, bool torn, const char *why) {
    struct wal_view *w = arg;
    json_t *j = json_pack("{s:s, s:I, s:b, s:s}", "segment", segment, "offset", (json_int_t) offset,
                          "torn", (int) torn, "reason", why);

    if (!j || json_array_append_new(w->bad_json, j) != 0)
        return -ENOMEM;
    w->damaged += !torn;
    return 0;
}

/* ---- printing -------------------------------------------------------------------------------- */

static const struct shown *shown_at(const struct wal_view *w, size_t i) {
    size_t limit = (size_t) w->v->limit;

    return &w->records[(w->next + limit - w->count + i) % limit];
}

static json_t *records_json(const struct wal_view *w) {
    json_t *all = json_array();

    for (size_t i = 0; all && i < w->count; i++) {
        const struct shown *s = shown_at(w, i);
        json_t *j =
            json_pack("{s:s, s:I, s:s, s:I, s:I, s:I, s:o}", "segment", s->segment, "offset",
                      (json_int_t) s->offset, "kind", s->kind, "index", (json_int_t) s->index,
                      "term", (json_int_t) s->term, "bytes", (json_int_t) s->bytes, "summary",
                      json_text((const uint8_t *) s->summary, strlen(s->summary)));

        if (!j || json_array_append_new(all, j) != 0) {
            json_decref(all);
            return NULL;
        }
    }
    return all;
}

static int print_json(const struct wal_view *w) {
    return inspect_print(json_pack(
        "{s:O, s:o, s:O, s:I, s:I, s:I}", "segments", w->segments_json, "records", records_json(w),
        "bad", w->bad_json, "entries", (json_int_t) w->entries, "last_index",
        (json_int_t) w->last_index, "last_term", (json_int_t) w->last_term));
}

static int print_records(const struct wal_view *w) {
    static const struct table_column columns[] = {
        {"SEGMENT", TABLE_LEFT, false}, {"OFFSET", TABLE_RIGHT, false},
        {"INDEX", TABLE_RIGHT, false},  {"TERM", TABLE_RIGHT, false},
        {"KIND", TABLE_LEFT, false},    {"BYTES", TABLE_RIGHT, false},
        {"SUMMARY", TABLE_LEFT, true},
    };
    struct table t;
    int r = 0;

    table_init(&t, columns, ARRAY_LEN(columns));
    for (size_t i = 0; r == 0 && i < w->count; i++) {
        const struct shown *s = shown_at(w, i);

        r = table_add(&t, NULL, "%s", s->segment);
        if (r == 0)
            r = table_add(&t, NULL, "%u", s->offset);
        if (r == 0)
            r = table_add(&t, NULL, "%" PRIu64, s->index);
        if (r == 0)
            r = table_add(&t, NULL, "%" PRIu64, s->term);
        if (r == 0)
            r = table_add(&t, NULL, "%s", s->kind);
        if (r == 0)
            r = table_add(&t, NULL, "%" PRIu64, s->bytes);
        if (r == 0)
            r = table_add(&t, NULL, "%s", s->summary);
    }
    if (r == 0)
        table_print(&t, stdout);
    table_done(&t);
    return r;
}

static int print_text(const struct wal_view *w) {
    size_t i;
    json_t *b;
    int r;

    table_print(&w->segments, stdout);
    putchar('\n');
    r = print_records(w);
    if (r < 0)
        return cli_fail_errno(r);
    printf("\n%" PRIu64 " entries, the last is %" PRIu64 " of term %" PRIu64 "\n", w->entries,
           w->last_index, w->last_term);
    json_array_foreach(w->bad_json, i, b) {
        printf("%s at %s, offset %lld: %s\n",
               json_is_true(json_object_get(b, "torn")) ? "Torn end" : "DAMAGE",
               json_string_value(json_object_get(b, "segment")),
               (long long) json_integer_value(json_object_get(b, "offset")),
               json_string_value(json_object_get(b, "reason")));
    }
    return EXIT_CODE_OK;
}

static int inspect(struct wal_view *w, const char *dir, const struct disk *disk) {
    const struct wal_inspect_visitor visitor = {
        .segment = on_segment, .record = on_record, .bad = on_bad, .arg = w};
    struct errtext why = {""};
    int code, rc = w->records && w->segments_json && w->bad_json ? 0 : -ENOMEM;

    if (rc == 0)
        rc = wal_inspect(disk, &visitor, &why);
    if (rc < 0)
        return inspect_fail(dir, rc, &why);
    code = w->v->output == CLI_JSON ? print_json(w) : print_text(w);
    /* A script learns of damage without reading. */
    return code == EXIT_CODE_OK && w->damaged > 0 ? EXIT_CODE_FAILED : code;
}

static int run_wal(void *values, char **rest, size_t rest_count) {
    static const struct table_column columns[] = {
        {"SEGMENT", TABLE_LEFT, false}, {"BYTES", TABLE_RIGHT, false}, {"FROM", TABLE_RIGHT, false},
        {"NODE", TABLE_RIGHT, false},   {"CLUSTER", TABLE_LEFT, true},
    };
    struct wal_view w = {.v = values};
    struct disk_posix *d = NULL;
    struct disk disk;
    int code = inspect_open(rest[0], &d, &disk);

    ASSERT(rest_count == 1);
    if (code != EXIT_CODE_OK)
        return code;
    table_init(&w.segments, columns, ARRAY_LEN(columns));
    w.segments_json = json_array();
    w.bad_json = json_array();
    w.records = calloc((size_t) w.v->limit, sizeof(*w.records));
    code = inspect(&w, rest[0], &disk);
    table_done(&w.segments);
    json_decref(w.segments_json);
    json_decref(w.bad_json);
    free(w.records);
    d = disk_posix_close(d);
    return code;
}

static const struct arg_option wal_options[] = {
    {"first", 0, ARG_UINT, "INDEX", "records from this entry on (default: the last ones)", NULL,
     NULL, offsetof(struct inspect_values, first), 0, INT64_MAX},
    {"limit", 'n', ARG_UINT, "N", "at most so many records", "50", NULL,
     offsetof(struct inspect_values, limit), 1, 100000},
    INSPECT_OUTPUT_OPTION,
};

const struct arg_command cmd_inspect_wal = {
    .name = "wal",
    .summary = "show segments and records of the log",
    .positional = "DIR",
    .details = "Exit code 1 when anything is damaged; a torn end is none. Payloads are not shown.",
    .examples =
        "  chronos inspect wal /var/lib/chronos\n"
        "  chronos inspect wal /var/lib/chronos --first 1000 --limit 20 -o json",
    .options = wal_options,
    .options_count = ARRAY_LEN(wal_options),
    .values_bytes = sizeof(struct inspect_values),
    .rest_min = 1,
    .rest_max = 1,
    .run = run_wal,
};
