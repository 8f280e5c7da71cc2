/* `chronos backup`: the whole replicated state in one file, from any node of a live cluster. */
#include "cli/cmd_backup.h"

#include "cli/backup_file.h"
#include "cli/common.h"

#include "os/files.h"

#include "chronos/v1/cluster_service.pb-c.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- showing ------------------------------------------------------------------------------- */

static const char *hex16(const ProtobufCBinaryData *id, char out[33]) {
    out[0] = '\0';
    for (size_t i = 0; i < id->len && i < 16; i++)
        (void) snprintf(out + 2 * i, 3, "%02x", id->data[i]);
    return out;
}

static int print_text(const struct backup_reader *r) {
    const Chronos__Internal__V1__SnapshotHeader *h = r->header;
    char id[33], state[33], data[33], when[32];
    struct text_escape e = {0};
    struct buf software;
    int rc;

    buf_init(&software, 4096);
    rc = text_escape(&e, h->software, strlen(h->software), /* one_line= */ true, &software);
    if (rc == 0) {
        printf("Cluster   %s\n", hex16(&h->cluster_id, id));
        printf("Written   %s by node %" PRIu64 ", chronos %.*s, feature level %u\n",
               text_time(h->created_at_ms, when), h->node_id, (int) software.len,
               (const char *) software.data, h->feature_level);
        printf("State     entry %" PRIu64 " of term %" PRIu64 ", digest %s\n", h->index, h->term,
               backup_digest_text(h, state));
        printf("Records   %" PRIu64 " jobs, %" PRIu64 " workers, %" PRIu64
               " idempotency keys, %" PRIu64 " nodes, %" PRIu64 " others\n",
               r->counts.jobs, r->counts.workers, r->counts.keys, r->counts.nodes,
               r->counts.others);
        printf("Data      digest %s (jobs, workers and keys: the same after a restore)\n",
               digest128_text(r->counts.data, data));
        printf("Size      %" PRIu64 " bytes, every byte checked\n", r->offset);
    }
    buf_done(&software);
    return rc;
}

static json_t *to_json(const struct backup_reader *r) {
    const Chronos__Internal__V1__SnapshotHeader *h = r->header;
    char id[33], state[33], data[33];

    return json_pack(
        "{s:i, s:s, s:I, s:I, s:s, s:s, s:I, s:I, s:i, s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:I}",
        "version", (int) h->version, "cluster_id", hex16(&h->cluster_id, id), "index",
        (json_int_t) h->index, "term", (json_int_t) h->term, "digest", backup_digest_text(h, state),
        "data_digest", digest128_text(r->counts.data, data), "node_id", (json_int_t) h->node_id,
        "created_at_ms", (json_int_t) h->created_at_ms, "feature_level", (int) h->feature_level,
        "software", json_text((const uint8_t *) h->software, strlen(h->software)), "records",
        (json_int_t) r->counts.records, "jobs", (json_int_t) r->counts.jobs, "workers",
        (json_int_t) r->counts.workers, "idempotency_keys", (json_int_t) r->counts.keys, "nodes",
        (json_int_t) r->counts.nodes, "others", (json_int_t) r->counts.others, "bytes",
        (json_int_t) r->offset);
}

static int print_backup(const struct backup_reader *r, bool json) {
    json_t *j;
    int rc;

    if (!json) {
        rc = print_text(r);
        return rc < 0 ? cli_fail_errno(rc) : EXIT_CODE_OK;
    }
    j = to_json(r);
    rc = j ? json_print(j, /* pretty= */ true, stdout) : -ENOMEM;
    json_decref(j);
    return rc < 0 ? cli_fail_errno(rc) : EXIT_CODE_OK;
}

/* ---- create -------------------------------------------------------------------------------- */

struct create_values {
    struct cli_common common;
    bool force;
};

struct creation {
    struct backup_reader reader;
    struct errtext why;
    int fd;
    int rc; /* of writing or checking */
};

/* What is not whole on arrival need not be written. */
static int on_piece(void *arg, const ProtobufCMessage *message) {
    const Chronos__V1__CreateBackupResponse *m =
        (const Chronos__V1__CreateBackupResponse *) message;
    struct creation *c = arg;

    c->rc = backup_reader_feed(&c->reader, slice_of(m->data.data, m->data.len), &c->why);
    if (c->rc == 0)
        c->rc = files_write_all(c->fd, m->data.data, m->data.len);
    return c->rc;
}

/* 0, or the exit code after printing why. */
static int receive(const struct cli_common *common, struct creation *c, const char *path) {
    const struct client_stream_handler handler = {.on_message = on_piece, .arg = c};
    Chronos__V1__CreateBackupRequest req = CHRONOS__V1__CREATE_BACKUP_REQUEST__INIT;
    _cleanup_(client_freep) struct client *client = NULL;
    struct client_error e = {0};
    int r = cli_connect(common, &client);

    if (r != EXIT_CODE_OK)
        return r;
    client_stream_start(client);
    /* A stream that broke cannot go on elsewhere: another node's view is of another index. Before
     * the first byte it can. */
    while (client_stream(client, "/chronos.v1.ClusterService/CreateBackup", &req.base,
                         &chronos__v1__create_backup_response__descriptor, &handler, &e) != 0) {
        if (c->reader.offset > 0 || c->reader.rest.len > 0 ||
            !client_stream_retry(client, &e, /* progress= */ false, &handler))
            return cli_fail("backup create", &e);
    }
    if (c->rc == 0)
        c->rc = backup_reader_finish(&c->reader, &c->why);
    if (c->rc < 0) {
        fprintf(stderr, "chronos: backup create: %s: %s\n", path,
                c->why.s[0] ? c->why.s : err_name(c->rc));
        return EXIT_CODE_FAILED;
    }
    return EXIT_CODE_OK;
}

static int sync_directory(const char *path) {
    char copy[PATH_MAX];
    int fd, rc;

    (void) snprintf(copy, sizeof(copy), "%s", path);
    fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    rc = fsync(fd) < 0 ? -errno : 0;
    (void) close(fd);
    return rc;
}

/* Durable before it has its name: a file of that name is a whole backup. */
static int publish(int fd, const char *partial, const char *path) {
    if (fsync(fd) < 0 || rename(partial, path) < 0)
        return -errno;
    return sync_directory(path);
}

static int create_into(const struct create_values *v, const char *partial, const char *path) {
    struct creation c = {.fd = open(partial, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600)};
    int r, rc;

    if (c.fd < 0) {
        fprintf(stderr, "chronos: backup create: %s: %s\n", partial, strerror(errno));
        return EXIT_CODE_FAILED;
    }
    rc = fchmod(c.fd, 0600) < 0 ? -errno : backup_reader_begin(&c.reader);
    r = rc < 0 ? cli_fail_errno(rc) : receive(&v->common, &c, path);
    if (r == EXIT_CODE_OK) {
        rc = publish(c.fd, partial, path);
        if (rc < 0) {
            fprintf(stderr, "chronos: backup create: %s: %s\n", path, strerror(-rc));
            r = EXIT_CODE_FAILED;
        }
    }
    (void) close(c.fd);
    if (r == EXIT_CODE_OK)
        r = print_backup(&c.reader, v->common.output == CLI_JSON);
    else
        (void) unlink(partial);
    backup_reader_end(&c.reader);
    return r;
}

static int run_create(void *values, char **rest, size_t rest_count) {
    const struct create_values *v = values;
    char partial[PATH_MAX];

    ASSERT(rest_count == 1);
    if ((size_t) snprintf(partial, sizeof(partial), "%s.partial", rest[0]) >= sizeof(partial))
        return cli_usage("FILE: the path is too long");
    if (!v->force && access(rest[0], F_OK) == 0)
        return cli_usage("%s exists already; choose another name, or --force to replace it",
                         rest[0]);
    return create_into(v, partial, rest[0]);
}

static const struct arg_option create_options[] = {
    {"force", 0, ARG_FLAG, NULL, "replace FILE when it exists", NULL, NULL,
     offsetof(struct create_values, force), 0, 0},
    CLI_COMMON_OPTIONS,
};

static const struct arg_command cmd_create = {
    .name = "create",
    .summary = "write the cluster's state to a file, while it runs",
    .positional = "FILE",
    .details =
        "The state as it is at one entry of the log, from any node. It is checked while it comes;\n"
        "FILE appears only when it is whole and durable. It holds specifications and outputs of\n"
        "jobs: its mode is 0600. Outputs in the workers' own files are not part of it.",
    .examples = "  chronos backup create /backups/chronos-$(date +%F).backup",
    .options = create_options,
    .options_count = ARRAY_LEN(create_options),
    .values_bytes = sizeof(struct create_values),
    .rest_min = 1,
    .rest_max = 1,
    .run = run_create,
};

/* ---- verify, inspect ----------------------------------------------------------------------- */

struct file_values {
    uint32_t output;
};

int cmd_backup_check(const char *what, const char *path, struct backup_reader *r) {
    struct errtext why = {""};
    int rc = backup_reader_begin(r);

    if (rc == 0)
        rc = backup_read_file(r, path, &why);
    if (rc == 0)
        return EXIT_CODE_OK;
    fprintf(stderr, "chronos: %s: %s: %s\n", what, path, why.s[0] ? why.s : err_name(rc));
    return rc == -ENOENT ? EXIT_CODE_NOT_FOUND : EXIT_CODE_FAILED;
}

static int run_verify(void *values, char **rest, size_t rest_count) {
    const struct file_values *v = values;
    struct backup_reader r = {0};
    int code;

    ASSERT(rest_count == 1);
    code = cmd_backup_check("backup verify", rest[0], &r);
    if (code == EXIT_CODE_OK && v->output == CLI_JSON)
        code = print_backup(&r, /* json= */ true);
    else if (code == EXIT_CODE_OK)
        printf("%s is whole: %" PRIu64 " records, %" PRIu64 " bytes.\n", rest[0], r.counts.records,
               r.offset);
    backup_reader_end(&r);
    return code;
}

static int run_inspect(void *values, char **rest, size_t rest_count) {
    const struct file_values *v = values;
    struct backup_reader r = {0};
    int code;

    ASSERT(rest_count == 1);
    code = cmd_backup_check("backup inspect", rest[0], &r);
    if (code == EXIT_CODE_OK)
        code = print_backup(&r, v->output == CLI_JSON);
    backup_reader_end(&r);
    return code;
}

static const struct arg_option file_options[] = {
    {"output", 'o', ARG_CHOICE, NULL, "form of the output", "table", cli_output_names,
     offsetof(struct file_values, output), 0, 0},
};

static const struct arg_command cmd_verify = {
    .name = "verify",
    .summary = "check every byte of a backup",
    .positional = "FILE",
    .details = "Exit code 0 when the file is whole, 1 with the offset of what is not.",
    .examples = "  chronos backup verify /backups/chronos.backup",
    .options = file_options,
    .options_count = ARRAY_LEN(file_options),
    .values_bytes = sizeof(struct file_values),
    .rest_min = 1,
    .rest_max = 1,
    .run = run_verify,
};

static const struct arg_command cmd_inspect_backup = {
    .name = "inspect",
    .summary = "show where a backup is from and what it holds",
    .positional = "FILE",
    .examples = "  chronos backup inspect /backups/chronos.backup -o json",
    .options = file_options,
    .options_count = ARRAY_LEN(file_options),
    .values_bytes = sizeof(struct file_values),
    .rest_min = 1,
    .rest_max = 1,
    .run = run_inspect,
};

static const struct arg_command *const children[] = {&cmd_create, &cmd_verify, &cmd_inspect_backup,
                                                     NULL};

const struct arg_command cmd_backup = {
    .name = "backup",
    .summary = "write, check and look at backups",
    .examples = "  chronos backup create FILE\n  chronos backup verify FILE",
    .children = children,
};
