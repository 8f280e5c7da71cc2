/* `chronos inspect state`: what the state store of a stopped node holds. */
#include "cli/backup_file.h"
#include "cli/cmd_inspect.h"

#include "os/kv_rocks.h"
#include "raft/raft.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

#define HEAD_BYTES_MAX (1024U * 1024)

struct state_view {
    struct backup_counts counts;
    Chronos__Internal__V1__StateMeta *head; /* owned; NULL in an empty store */
    struct raft_config config;
    bool whole; /* the digest over the records is the one in the head */
};

static int count_records(struct kv *kv, struct backup_counts *c) {
    struct kv_iter *it = NULL;
    int rc = kv->ops->iter_open(kv, &it);

    if (rc < 0)
        return rc;
    for (it->ops->seek(it, slice_of("", 0)); it->ops->valid(it); it->ops->next(it))
        backup_count(c, it->ops->key(it), it->ops->value(it), +1);
    rc = it->ops->status(it);
    it->ops->close(it);
    return rc;
}

static int read_head(struct kv *kv, struct state_view *s, struct errtext *why) {
    struct buf b;
    int rc;

    buf_init(&b, HEAD_BYTES_MAX);
    rc = kv->ops->get(kv, slice_of("m", 1), &b);
    if (rc == 0) {
        s->head = chronos__internal__v1__state_meta__unpack(NULL, b.len, b.data);
        if (!s->head) {
            errtext_set(why, "state: the head of the state cannot be decoded");
            rc = ERR_CORRUPT;
        }
    }
    buf_done(&b);
    if (rc == 0 && s->head->config.len > 0)
        rc = raft_config_decode(slice_of(s->head->config.data, s->head->config.len), &s->config,
                                why);
    return rc == KV_NOT_FOUND ? 0 : rc;
}

static int look(const char *path, struct state_view *s, struct errtext *why) {
    struct kv *kv = NULL;
    struct stat st;
    int rc;

    if (stat(path, &st) < 0) {
        errtext_set(why, "holds no state/: no data directory of a node");
        return -ENOENT;
    }
    rc = kv_rocks_open_read_only(path, &kv, why);
    if (rc == 0)
        rc = read_head(kv, s, why);
    if (rc == 0)
        rc = count_records(kv, &s->counts);
    if (kv)
        kv->ops->close(kv);
    s->whole = s->head ? s->counts.state.low == s->head->digest_low &&
                             s->counts.state.high == s->head->digest_high
                       : s->counts.records == 0;
    return rc;
}

static json_t *members_json(const struct raft_config *c) {
    json_t *all = json_array();

    for (size_t i = 0; all && i < c->count; i++) {
        const struct raft_member *m = &c->members[i];
        json_t *j = json_pack("{s:I, s:s, s:b}", "id", (json_int_t) m->id, "address", m->address,
                              "voter", (m->flags & RAFT_MEMBER_VOTER) != 0);

        if (!j || json_array_append_new(all, j) != 0) {
            json_decref(all);
            return NULL;
        }
    }
    return all;
}

static int print_json(const struct state_view *s) {
    const Chronos__Internal__V1__StateMeta none = CHRONOS__INTERNAL__V1__STATE_META__INIT;
    const Chronos__Internal__V1__StateMeta *h = s->head ? s->head : &none;
    char data[33];

    return inspect_print(json_pack(
        "{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:i, s:o, s:s, s:b}", "applied_index",
        (json_int_t) h->applied_index, "applied_term", (json_int_t) h->applied_term, "records",
        (json_int_t) s->counts.records, "jobs", (json_int_t) s->counts.jobs, "workers",
        (json_int_t) s->counts.workers, "idempotency_keys", (json_int_t) s->counts.keys, "nodes",
        (json_int_t) s->counts.nodes, "next_job_seq", (json_int_t) h->next_job_seq, "feature_level",
        (int) h->feature_level, "members", members_json(&s->config), "data_digest",
        digest128_text(s->counts.data, data), "whole", (int) s->whole));
}

static void print_text(const struct state_view *s) {
    char data[33], when[32];

    if (!s->head) {
        printf("The state is empty: no entry is durable in it yet.\n");
        return;
    }
    printf("Applied   entry %" PRIu64 " of term %" PRIu64 ", at %s\n", s->head->applied_index,
           s->head->applied_term, text_time(s->head->last_now_ms, when));
    printf("Records   %" PRIu64 " jobs, %" PRIu64 " workers, %" PRIu64 " idempotency keys, %" PRIu64
           " nodes, %" PRIu64 " others\n",
           s->counts.jobs, s->counts.workers, s->counts.keys, s->counts.nodes, s->counts.others);
    printf("Members   of entry %" PRIu64 ":\n", s->head->config_index);
    for (size_t i = 0; i < s->config.count; i++)
        printf("  node %" PRIu64 " at %s%s\n", s->config.members[i].id,
               s->config.members[i].address,
               s->config.members[i].flags & RAFT_MEMBER_VOTER ? "" : ", a learner");
    printf("Data      digest %s (jobs, workers and keys)\n", digest128_text(s->counts.data, data));
    printf("Whole     %s\n", s->whole ? "yes: the records' digest is the one the state carries"
                                      : "NO: the records' digest is not the one the state carries");
}

static int run_state(void *values, char **rest, size_t rest_count) {
    const struct inspect_values *v = values;
    struct state_view s = {0};
    struct errtext why = {""};
    char path[PATH_MAX];
    int rc, code = EXIT_CODE_OK;

    ASSERT(rest_count == 1);
    (void) snprintf(path, sizeof(path), "%.4000s/state", rest[0]);
    rc = look(path, &s, &why);
    if (rc < 0)
        code = inspect_fail(rest[0], rc, &why);
    else if (v->output == CLI_JSON)
        code = print_json(&s);
    else
        print_text(&s);
    if (code == EXIT_CODE_OK && !s.whole)
        code = EXIT_CODE_FAILED;
    if (s.head)
        chronos__internal__v1__state_meta__free_unpacked(s.head, NULL);
    return code;
}

static const struct arg_option state_options[] = {INSPECT_OUTPUT_OPTION};

const struct arg_command cmd_inspect_state = {
    .name = "state",
    .summary = "show what the state store holds, every record read",
    .positional = "DIR",
    .details =
        "What is durable in it: the entries after it are in the log (\"chronos inspect wal\").\n"
        "Exit code 1 when the records are not what the state says.",
    .examples = "  chronos inspect state /var/lib/chronos -o json",
    .options = state_options,
    .options_count = ARRAY_LEN(state_options),
    .values_bytes = sizeof(struct inspect_values),
    .rest_min = 1,
    .rest_max = 1,
    .run = run_state,
};
