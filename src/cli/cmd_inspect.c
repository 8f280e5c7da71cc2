/* `chronos inspect`: what is in a stopped node's files. Nothing is written, no lock is taken. */
#include "cli/cmd_inspect.h"

#include "cli/cmd_backup.h"

#include "os/disk_posix.h"
#include "storage/meta.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

int inspect_open(const char *dir, struct disk_posix **ret, struct disk *ret_disk) {
    struct errtext why = {""};
    int rc = disk_posix_open_read_only(dir, ret, ret_disk, &why);

    return rc < 0 ? inspect_fail(dir, rc, &why) : EXIT_CODE_OK;
}

int inspect_fail(const char *dir, int rc, const struct errtext *why) {
    fprintf(stderr, "chronos: inspect: %s: %s\n", dir, why->s[0] ? why->s : err_name(rc));
    return rc == -ENOENT ? EXIT_CODE_NOT_FOUND : EXIT_CODE_FAILED;
}

const char *inspect_hex16(const uint8_t id[16], char out[33]) {
    for (size_t i = 0; i < 16; i++)
        (void) snprintf(out + 2 * i, 3, "%02x", id[i]);
    return out;
}

int inspect_print(json_t *j) {
    int rc = j ? json_print(j, /* pretty= */ true, stdout) : -ENOMEM;

    json_decref(j);
    return rc < 0 ? cli_fail_errno(rc) : EXIT_CODE_OK;
}

/* ---- meta ---------------------------------------------------------------------------------- */

static const char *slot_word(const struct meta_inspect_slot *s, const struct meta_inspect_slot *o) {
    if (s->rc != 0)
        return s->rc == ERR_VERSION ? "newer version"
               : s->generation == 0 ? "damaged or unused"
                                    : "damaged";
    return o->rc != 0 || s->generation > o->generation ? "in force" : "older";
}

static json_t *slot_json(const struct meta_inspect_slot *s, size_t i, const char *word) {
    char cluster[33], disk[33];

    if (s->rc != 0)
        return json_pack("{s:i, s:s}", "offset", (int) (i * 4096), "state", word);
    return json_pack(
        "{s:i, s:s, s:I, s:s, s:I, s:s, s:I, s:I, s:I, s:I, s:I}", "offset", (int) (i * 4096),
        "state", word, "generation", (json_int_t) s->generation, "cluster_id",
        inspect_hex16(s->state.cluster_id, cluster), "node_id", (json_int_t) s->state.node_id,
        "disk", inspect_hex16(s->state.incarnation, disk), "term", (json_int_t) s->state.term,
        "vote", (json_int_t) s->state.vote, "synced_index", (json_int_t) s->state.synced_index,
        "log_segment", (json_int_t) s->state.log.seq, "log_offset", (json_int_t) s->state.log.end);
}

static void slot_text(const struct meta_inspect_slot *s, size_t i, const char *word) {
    char cluster[33], disk[33];

    printf("Slot %zu    offset %zu: %s\n", i, i * 4096, word);
    if (s->rc != 0)
        return;
    printf("  cluster %s\n  node    %" PRIu64 ", disk %s\n  term    %" PRIu64,
           inspect_hex16(s->state.cluster_id, cluster), s->state.node_id,
           inspect_hex16(s->state.incarnation, disk), s->state.term);
    if (s->state.vote > 0)
        printf(", vote for node %" PRIu64, s->state.vote);
    printf(", generation %" PRIu64 "\n  log known durable up to entry %" PRIu64 "\n", s->generation,
           s->state.synced_index);
    if (s->state.log.seq > 0)
        printf("  and in segment %016" PRIx64 " up to offset %" PRIu32 "\n", s->state.log.seq,
               s->state.log.end);
}

static int show_meta(const struct inspect_values *v, const struct meta_inspect_slot slots[2]) {
    json_t *j;

    if (v->output != CLI_JSON) {
        for (size_t i = 0; i < 2; i++)
            slot_text(&slots[i], i, slot_word(&slots[i], &slots[1 - i]));
        return EXIT_CODE_OK;
    }
    j = json_pack("{s:[o,o]}", "slots", slot_json(&slots[0], 0, slot_word(&slots[0], &slots[1])),
                  slot_json(&slots[1], 1, slot_word(&slots[1], &slots[0])));
    return inspect_print(j);
}

static int run_meta(void *values, char **rest, size_t rest_count) {
    const struct inspect_values *v = values;
    struct meta_inspect_slot slots[2];
    struct disk_posix *d = NULL;
    struct errtext why = {""};
    struct disk disk;
    int rc, code = inspect_open(rest[0], &d, &disk);

    ASSERT(rest_count == 1);
    if (code != EXIT_CODE_OK)
        return code;
    rc = meta_inspect(&disk, slots, &why);
    if (rc == META_MISSING) {
        errtext_set(&why, "holds no file meta: no data directory of a node, or one that lost it");
        rc = -ENOENT;
    }
    if (rc < 0)
        code = inspect_fail(rest[0], rc, &why);
    else
        code = show_meta(v, slots);
    if (code == EXIT_CODE_OK && slots[0].rc != 0 && slots[1].rc != 0)
        code = EXIT_CODE_FAILED;
    d = disk_posix_close(d);
    return code;
}

static const struct arg_option meta_options[] = {INSPECT_OUTPUT_OPTION};

static const struct arg_command cmd_meta = {
    .name = "meta",
    .summary = "show term, vote and identity",
    .positional = "DIR",
    .examples = "  chronos inspect meta /var/lib/chronos",
    .options = meta_options,
    .options_count = ARRAY_LEN(meta_options),
    .values_bytes = sizeof(struct inspect_values),
    .rest_min = 1,
    .rest_max = 1,
    .run = run_meta,
};

static const struct arg_command *const children[] = {&cmd_inspect_wal, &cmd_inspect_state,
                                                     &cmd_meta, NULL};

const struct arg_command cmd_inspect = {
    .name = "inspect",
    .summary = "read a stopped node's files, changing nothing",
    .examples = "  chronos inspect meta /var/lib/chronos\n  chronos inspect wal /var/lib/chronos",
    .children = children,
};
