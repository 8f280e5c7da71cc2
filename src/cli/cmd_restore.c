/* `chronos restore`: a backup becomes the data directory of the only node of a new cluster. */
#include "cli/backup_file.h"
#include "cli/cmd_backup.h"
#include "cli/common.h"
#include "cli/config.h"
#include "cli/new_cluster.h"

#include "os/disk_posix.h"
#include "os/kv_rocks.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

struct restore_values {
    const char *data_dir;
    uint64_t node_id;
    const char *peer_address;
    const char *client_address;
    uint32_t output;
};

static int fail(const char *what, int rc, const struct errtext *why) {
    fprintf(stderr, "chronos: restore: %s: %s\n", what, why->s[0] ? why->s : err_name(rc));
    return EXIT_CODE_FAILED;
}

/* ---- refusals, before anything is written ------------------------------------------------------
 */

static int check_values(const struct restore_values *v) {
    const char *const addresses[] = {v->peer_address, v->client_address};
    const char *const names[] = {"--peer-address", "--client-address"};

    if (!v->data_dir || !v->data_dir[0])
        return cli_usage("restore needs --data-dir DIR, the directory of the new node");
    if (v->node_id == 0)
        return cli_usage("restore needs --node-id N, the id of the new cluster's first node");
    if (!v->peer_address)
        return cli_usage("restore needs --peer-address HOST:PORT, where other nodes will reach it");
    for (size_t i = 0; i < ARRAY_LEN(addresses); i++) {
        char host[CLIENT_ADDRESS_BYTES_MAX];
        struct errtext why;
        uint16_t port;

        if (addresses[i] && config_split_address(addresses[i], host, &port, &why) != 0)
            return cli_usage("%s: %s", names[i], why.s);
    }
    return EXIT_CODE_OK;
}

/* A missing directory is an empty one. */
static int check_empty(const char *dir) {
    DIR *d = opendir(dir);
    const struct dirent *e;
    int code = EXIT_CODE_OK;

    if (!d && errno == ENOENT)
        return EXIT_CODE_OK;
    if (!d) {
        fprintf(stderr, "chronos: restore: %s: %s\n", dir, strerror(errno));
        return EXIT_CODE_FAILED;
    }
    while (code == EXIT_CODE_OK && (e = readdir(d))) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 ||
            strcmp(e->d_name, "lost+found") == 0)
            continue;
        fprintf(stderr,
                "chronos: restore: %s is not empty (it holds \"%.64s\"); nothing was changed. "
                "Choose an empty directory\n",
                dir, e->d_name);
        code = EXIT_CODE_FAILED;
    }
    (void) closedir(d);
    return code;
}

/* ---- writing --------------------------------------------------------------------------------- */

static int put_records(void *arg, const struct kv_op *ops, size_t count) {
    struct kv *kv = arg;

    return kv->ops->write(kv, ops, count);
}

/* What is in the store now, read back. */
static int count_store(struct kv *kv, struct backup_counts *ret) {
    struct kv_iter *it = NULL;
    int rc = kv->ops->iter_open(kv, &it);

    *ret = (struct backup_counts){0};
    if (rc < 0)
        return rc;
    for (it->ops->seek(it, slice_of("", 0)); it->ops->valid(it); it->ops->next(it))
        backup_count(ret, it->ops->key(it), it->ops->value(it), +1);
    rc = it->ops->status(it);
    it->ops->close(it);
    return rc;
}

static int fill_state(struct kv *kv, const char *path, struct new_cluster *n,
                      struct backup_counts *ret, struct errtext *why) {
    struct backup_reader r = {.on_records = put_records, .arg = kv};
    int rc = backup_reader_begin(&r);

    if (rc == 0)
        rc = backup_read_file(&r, path, why);
    if (rc == 0)
        rc = new_cluster_state(kv, n, why);
    if (rc == 0)
        rc = count_store(kv, ret);
    if (rc == 0 && (ret->data.low != r.counts.data.low || ret->data.high != r.counts.data.high)) {
        errtext_set(why, "what was written reads back differently; look at the disk");
        rc = ERR_CORRUPT;
    }
    backup_reader_end(&r);
    return rc;
}

static int write_directory(const struct restore_values *v, const char *path, struct new_cluster *n,
                           struct backup_counts *ret, struct errtext *why) {
    struct disk_posix *lock = NULL;
    struct kv *kv = NULL;
    char state[PATH_MAX];
    struct disk disk;
    int rc = disk_posix_open(v->data_dir, &lock, &disk, why);

    if (rc < 0)
        return rc;
    rc = new_cluster_mark(&disk, why);
    if (rc == 0 &&
        (size_t) snprintf(state, sizeof(state), "%s/state", v->data_dir) >= sizeof(state))
        rc = -ENAMETOOLONG;
    if (rc == 0)
        rc = kv_rocks_open(state, &kv, why);
    if (rc == 0)
        rc = fill_state(kv, path, n, ret, why);
    if (kv)
        kv->ops->close(kv);
    if (rc == 0)
        rc = new_cluster_files(&disk, n, why);
    if (rc == 0)
        rc = new_cluster_unmark(&disk, why);
    lock = disk_posix_close(lock);
    return rc;
}

/* ---- telling --------------------------------------------------------------------------------- */

static const char *hex16(const uint8_t id[16], char out[33]) {
    for (size_t i = 0; i < 16; i++)
        (void) snprintf(out + 2 * i, 3, "%02x", id[i]);
    return out;
}

static int tell(const struct restore_values *v, const struct new_cluster *n,
                const struct backup_counts *was, const struct backup_counts *is) {
    char id[33], a[33], b[33];
    json_t *j;
    int rc;

    if (v->output == CLI_JSON) {
        j = json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:s, s:s}", "cluster_id",
                      hex16(n->cluster_id, id), "node_id", (json_int_t) n->node_id, "index",
                      (json_int_t) n->index, "jobs", (json_int_t) is->jobs, "workers",
                      (json_int_t) is->workers, "idempotency_keys", (json_int_t) is->keys,
                      "data_digest", digest128_text(is->data, a), "backup_data_digest",
                      digest128_text(was->data, b));
        rc = j ? json_print(j, /* pretty= */ true, stdout) : -ENOMEM;
        json_decref(j);
        return rc < 0 ? cli_fail_errno(rc) : EXIT_CODE_OK;
    }
    printf("Restored  %" PRIu64 " jobs, %" PRIu64 " workers, %" PRIu64
           " idempotency keys, up to entry %" PRIu64 "\n",
           is->jobs, is->workers, is->keys, n->index);
    printf("Data      digest %s in the backup\n", digest128_text(was->data, a));
    printf("          digest %s in %s\n", digest128_text(is->data, b), v->data_dir);
    printf("Cluster   %s, new: nodes of the old one and this one refuse each other\n",
           hex16(n->cluster_id, id));
    printf(
        "\nStart it with\n"
        "  chronos server --node.id %" PRIu64
        " --node.data_dir %s --node.peer_listen %s\n"
        "and grow it with \"chronos server --join\" on the other machines.\n",
        n->node_id, v->data_dir, n->peer_address);
    return EXIT_CODE_OK;
}

static int run_restore(void *values, char **rest, size_t rest_count) {
    const struct restore_values *v = values;
    struct new_cluster n = {.node_id = v->node_id,
                            .peer_address = v->peer_address,
                            .client_address = v->client_address ? v->client_address : ""};
    struct backup_reader backup = {0};
    struct backup_counts now;
    struct errtext why = {""};
    int rc, code = check_values(v);

    ASSERT(rest_count == 1);
    if (code == EXIT_CODE_OK)
        code = check_empty(v->data_dir);
    if (code == EXIT_CODE_OK)
        code = cmd_backup_check("restore", rest[0], &backup);
    if (code == EXIT_CODE_OK) {
        rc = new_cluster_ids(&n);
        if (rc == 0)
            rc = write_directory(v, rest[0], &n, &now, &why);
        if (rc < 0)
            code = fail(v->data_dir, rc, &why);
        else
            code = tell(v, &n, &backup.counts, &now);
    }
    backup_reader_end(&backup);
    return code;
}

static const struct arg_option restore_options[] = {
    {"data-dir", 0, ARG_STRING, "DIR", "of the new node; must be empty or not exist", NULL, NULL,
     offsetof(struct restore_values, data_dir), 0, 0},
    {"node-id", 0, ARG_UINT, "N", "of the new node; ids of the old cluster are free again", NULL,
     NULL, offsetof(struct restore_values, node_id), 1, CONFIG_NODE_ID_MAX},
    {"peer-address", 0, ARG_STRING, "HOST:PORT", "where other nodes will reach it", NULL, NULL,
     offsetof(struct restore_values, peer_address), 0, 0},
    {"client-address", 0, ARG_STRING, "HOST:PORT",
     "where clients will reach it (default: it tells it itself)", NULL, NULL,
     offsetof(struct restore_values, client_address), 0, 0},
    {"output", 'o', ARG_CHOICE, NULL, "form of the output", "table", cli_output_names,
     offsetof(struct restore_values, output), 0, 0},
};

const struct arg_command cmd_restore = {
    .name = "restore",
    .summary = "make a new cluster from a backup",
    .positional = "FILE",
    .details =
        "The backup is checked whole before anything is written. The new cluster has one node and\n"
        "an id of its own; jobs, workers and idempotency keys are as they were. Attempts that ran\n"
        "when the backup was written count as on a worker that is lost: their jobs go on by their\n"
        "retry rules once the workers' leases are over.",
    .examples =
        "  chronos restore chronos.backup --data-dir /var/lib/chronos --node-id 1 \\\n"
        "      --peer-address 10.0.0.1:7402",
    .options = restore_options,
    .options_count = ARRAY_LEN(restore_options),
    .values_bytes = sizeof(struct restore_values),
    .rest_min = 1,
    .rest_max = 1,
    .run = run_restore,
};
