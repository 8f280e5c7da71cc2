/* `chronos recover`: the last resort when a majority of the voters is lost for good. */
#include "cli/cmd_backup.h"
#include "cli/common.h"
#include "cli/config.h"
#include "cli/new_cluster.h"

#include "fsm/fsm.h"
#include "os/disk_posix.h"
#include "os/kv_rocks.h"
#include "raft/raft.h"
#include "storage/meta.h"
#include "storage/wal.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* In front of a COMMAND entry's LogCommand stands the header of docs/formats.md. */
#define ENTRY_HEADER_BYTES 16

struct recover_values {
    const char *data_dir;
    const char *peer_address;
    bool force;
    bool yes;
};

struct recovery {
    const struct recover_values *v;
    struct disk_posix *lock;
    struct disk disk;
    struct kv *kv;
    struct fsm *fsm;
    struct meta_state meta;
    bool meta_found;
    uint64_t applied;               /* when opened: all up to it was committed */
    uint64_t last_index, last_term; /* of the log */
    struct new_cluster n;
    char log_address[RAFT_ADDRESS_BYTES_MAX]; /* of this node in the log's last configuration */
    char address[RAFT_ADDRESS_BYTES_MAX];
    char client_address[RAFT_ADDRESS_BYTES_MAX];
    struct errtext why;
};

/* ---- looking, nothing is changed ------------------------------------------------------------- */

static int open_directory(struct recovery *r) {
    const char *dir = r->v->data_dir;
    struct stat st;
    int rc;

    if (stat(dir, &st) < 0) {
        rc = -errno;
        errtext_set(&r->why, "%s", strerror(-rc));
        return rc;
    }
    return disk_posix_open(dir, &r->lock, &r->disk, &r->why);
}

static int open_meta(struct recovery *r) {
    struct meta_inspect_slot slots[2];
    int rc = meta_inspect(&r->disk, slots, &r->why);
    uint64_t best = 0;

    if (rc == META_MISSING)
        return 0; /* an interrupted recovery got so far */
    for (size_t i = 0; rc == 0 && i < 2; i++) {
        if (slots[i].rc == 0 && slots[i].generation > best) {
            best = slots[i].generation;
            r->meta = slots[i].state;
            r->meta_found = true;
        }
    }
    if (rc == 0 && !r->meta_found) {
        errtext_set(&r->why, "the file meta cannot be read (offset 0 and offset 4096)");
        rc = ERR_CORRUPT;
    }
    return rc;
}

static int open_state(struct recovery *r) {
    const struct fsm_options fo = {0};
    char path[PATH_MAX];
    struct stat st;
    int rc;

    (void) snprintf(path, sizeof(path), "%.4000s/state", r->v->data_dir);
    if (stat(path, &st) < 0) {
        errtext_set(&r->why, "it holds no state/: this is no data directory of a node");
        return -ENOENT;
    }
    rc = kv_rocks_open(path, &r->kv, &r->why);
    if (rc == 0)
        rc = fsm_open(r->kv, &fo, &r->fsm, &r->why);
    if (rc == 0)
        r->applied = fsm_applied_index(r->fsm);
    return rc;
}

/* The state may be older than the log: its addresses come second. */
static int see_config(struct recovery *r, struct slice data) {
    struct raft_config config = {0};
    const struct raft_member *self;
    int rc = raft_config_decode(data, &config, &r->why);

    self = rc == 0 ? raft_config_find(&config, r->meta.node_id) : NULL;
    if (self)
        (void) snprintf(r->log_address, sizeof(r->log_address), "%s", self->address);
    return rc;
}

static int see_record(void *arg, const struct wal_inspect_record *rec) {
    struct recovery *r = arg;

    if (strcmp(rec->kind, "entry") == 0 || strcmp(rec->kind, "truncate") == 0) {
        r->last_index = rec->record.index;
        r->last_term = rec->record.term;
    }
    if (strcmp(rec->kind, "entry") == 0 && rec->record.type == RAFT_ENTRY_CONFIG)
        return see_config(r, rec->record.data);
    return 0;
}

static int see_segment(void *arg, const struct wal_inspect_segment *s) {
    struct recovery *r = arg;

    /* A log begun anew after a snapshot may hold no entry yet. */
    if (!s->spare && s->prev_index >= r->last_index) {
        r->last_index = s->prev_index;
        r->last_term = s->prev_term;
    }
    return 0;
}

static int see_bad(void *arg, const char *segment, uint32_t offset, bool torn, const char *why) {
    struct recovery *r = arg;

    if (torn)
        return 0;
    errtext_set(&r->why, "%.64s: offset %u: %.200s: the log is damaged; recover from another node",
                segment, offset, why);
    return ERR_CORRUPT;
}

static int look_at_log(struct recovery *r) {
    const struct wal_inspect_visitor visitor = {
        .segment = see_segment, .record = see_record, .bad = see_bad, .arg = r};

    if (!r->meta_found)
        return 0; /* the state has everything already */
    return wal_inspect(&r->disk, &visitor, &r->why);
}

/* As the cluster knew them. */
static void find_addresses(struct recovery *r) {
    const struct fsm_node *n = fsm_node_find(r->fsm, r->n.node_id);

    (void) snprintf(r->address, sizeof(r->address), "%s",
                    r->v->peer_address        ? r->v->peer_address
                    : n && n->peer_address[0] ? n->peer_address
                                              : r->log_address);
    (void) snprintf(r->client_address, sizeof(r->client_address), "%s", n ? n->client_address : "");
    r->n.peer_address = r->address;
    r->n.client_address = r->client_address;
}

static int find_self(struct recovery *r) {
    r->n.node_id = r->meta.node_id;
    if (!r->meta_found) {
        struct raft_config c = {0};
        uint64_t index = 0;
        struct slice bytes = fsm_config(r->fsm, &index);
        int rc = raft_config_decode(bytes, &c, &r->why);

        if (rc < 0 || c.count != 1) {
            errtext_set(&r->why, "the file meta is missing and the state does not say whose it is");
            return ERR_CORRUPT;
        }
        r->n.node_id = c.members[0].id;
    }
    find_addresses(r);
    if (!r->address[0]) {
        errtext_set(&r->why,
                    "the state knows no peer address of node %" PRIu64
                    "; give it with --peer-address HOST:PORT",
                    r->n.node_id);
        return ERR_CONFIG;
    }
    return 0;
}

static void print_statement(const struct recovery *r) {
    uint64_t last = MAX(r->last_index, r->applied);

    printf("Node %" PRIu64 " in %s\n\n", r->n.node_id, r->v->data_dir);
    printf("  known committed    up to entry %" PRIu64 "\n", r->applied);
    printf("  last entry         %" PRIu64 " of term %" PRIu64 "\n", last,
           r->last_index > 0 ? r->last_term : fsm_applied_term(r->fsm));
    printf("  not known to be committed: %" PRIu64
           " entries; they are kept, also when nobody was told so\n\n",
           last - r->applied);
    printf(
        "What may be LOST: everything that was acknowledged after entry %" PRIu64
        " by a majority\n"
        "without this node. Choose the node with the highest term, then index, of its last\n"
        "entry (\"chronos inspect wal\" shows it on every node that still has its disk).\n\n"
        "The node becomes the only member of a NEW cluster. All other nodes of the old one stay\n"
        "outside for good: never start them beside it; empty their disks and let them join.\n\n",
        last);
}

static bool is_confirmed(const struct recovery *r) {
    char line[16];

    if (r->v->yes)
        return true;
    if (!isatty(STDIN_FILENO)) {
        fprintf(stderr, "chronos: recover: nothing was changed; add --yes to do it\n");
        return false;
    }
    printf("Type yes to do it: ");
    (void) fflush(stdout);
    if (fgets(line, sizeof(line), stdin) && strcmp(line, "yes\n") == 0)
        return true;
    fprintf(stderr, "chronos: recover: nothing was changed\n");
    return false;
}

/* ---- doing it -------------------------------------------------------------------------------- */

/* Every entry of the log counts from here on: what was acknowledged is among them. */
static int apply_record(void *arg, const struct wal_record *rec) {
    struct recovery *r = arg;
    const struct fsm_output *out;
    struct slice command = {0};
    int rc;

    if (rec->index <= fsm_applied_index(r->fsm))
        return 0;
    if (rec->type == RAFT_ENTRY_COMMAND && rec->data.len < ENTRY_HEADER_BYTES) {
        errtext_set(&r->why, "entry %" PRIu64 " has no header", rec->index);
        return ERR_CORRUPT;
    }
    if (rec->type == RAFT_ENTRY_CONFIG) {
        rc = fsm_apply_config(r->fsm, rec->index, rec->term, rec->data, &out, &r->why);
    } else {
        if (rec->type == RAFT_ENTRY_COMMAND)
            command =
                slice_of(rec->data.data + ENTRY_HEADER_BYTES, rec->data.len - ENTRY_HEADER_BYTES);
        rc = fsm_apply(r->fsm, rec->index, rec->term, command, &out, &r->why);
    }
    if (rc == 0 && fsm_wants_write_back(r->fsm))
        rc = fsm_write_back(r->fsm);
    return rc;
}

static int apply_log(struct recovery *r) {
    struct wal_options o = {.segment_bytes = 4U * 1024 * 1024, .spare_segments = 0};
    struct wal *wal = NULL;
    int rc;

    memcpy(o.identity.cluster_id, r->meta.cluster_id, sizeof(o.identity.cluster_id));
    o.identity.node_id = r->meta.node_id;
    o.synced_hint = r->meta.synced_index;
    o.synced_at = r->meta.log;
    rc = wal_open(&r->disk, &o, apply_record, r, &wal, &r->why);
    (void) wal_close(wal);
    if (rc == 0)
        rc = fsm_write_back(r->fsm);
    if (rc == 0)
        rc = r->kv->ops->flush(r->kv);
    return rc;
}

static int make_new_cluster(struct recovery *r) {
    int rc = new_cluster_ids(&r->n);

    /* An unfinished recovery has put the log into the state before anything else. */
    if (rc == 0 && r->meta_found)
        rc = apply_log(r);
    find_addresses(r); /* the log may know newer ones than the state did */
    r->fsm = fsm_free(r->fsm);
    if (rc == 0)
        rc = new_cluster_mark(&r->disk, &r->why);
    if (rc == 0)
        rc = new_cluster_state(r->kv, &r->n, &r->why);
    if (rc == 0)
        rc = new_cluster_files(&r->disk, &r->n, &r->why);
    if (rc == 0)
        rc = new_cluster_unmark(&r->disk, &r->why);
    return rc;
}

static int look(struct recovery *r) {
    int rc = open_directory(r);

    if (rc == 0)
        rc = open_meta(r);
    if (rc == 0)
        rc = open_state(r);
    if (rc == 0)
        rc = look_at_log(r);
    if (rc == 0)
        rc = find_self(r);
    return rc;
}

static void close_all(struct recovery *r) {
    (void) fsm_free(r->fsm);
    if (r->kv)
        r->kv->ops->close(r->kv);
    (void) disk_posix_close(r->lock);
}

static void tell(const struct recovery *r) {
    printf("Done: node %" PRIu64 " is the only member of cluster ", r->n.node_id);
    for (size_t i = 0; i < sizeof(r->n.cluster_id); i++)
        printf("%02x", r->n.cluster_id[i]);
    printf(", with everything up to entry %" PRIu64
           ".\n"
           "Start it as before. Grow it again with \"chronos server --join\" on empty disks.\n",
           r->n.index);
}

static int run_recover(void *values, char **rest, size_t rest_count) {
    const struct recover_values *v = values;
    struct recovery r = {.v = v};
    int rc, code = EXIT_CODE_OK;

    (void) rest;
    ASSERT(rest_count == 0);
    if (!v->force)
        return cli_usage("recover needs --force-new-cluster, to say what is meant by it");
    if (!v->data_dir || !v->data_dir[0])
        return cli_usage("recover needs --data-dir DIR of a stopped node");
    rc = look(&r);
    if (rc == 0) {
        print_statement(&r);
        if (!is_confirmed(&r)) {
            code = EXIT_CODE_USAGE;
        } else {
            rc = make_new_cluster(&r);
            if (rc == 0)
                tell(&r);
        }
    }
    if (rc < 0) {
        fprintf(stderr, "chronos: recover: %s: %s\n", v->data_dir,
                r.why.s[0] ? r.why.s : err_name(rc));
        code = rc == -ENOENT ? EXIT_CODE_NOT_FOUND : EXIT_CODE_FAILED;
    }
    close_all(&r);
    return code;
}

static const struct arg_option recover_options[] = {
    {"force-new-cluster", 0, ARG_FLAG, NULL, "make this node the only member of a new cluster",
     NULL, NULL, offsetof(struct recover_values, force), 0, 0},
    {"data-dir", 0, ARG_STRING, "DIR", "of the stopped node", NULL, NULL,
     offsetof(struct recover_values, data_dir), 0, 0},
    {"peer-address", 0, ARG_STRING, "HOST:PORT",
     "where other nodes will reach it (default: as the old cluster knew it)", NULL, NULL,
     offsetof(struct recover_values, peer_address), 0, 0},
    {"yes", 0, ARG_FLAG, NULL, "do not ask", NULL, NULL, offsetof(struct recover_values, yes), 0,
     0},
};

const struct arg_command cmd_recover = {
    .name = "recover",
    .summary = "last resort: a new cluster from one node of a lost one",
    .details =
        "Only when a majority of the voters is lost for good. Says what may be lost and asks\n"
        "first. A node whose disk is lost while a majority lives is \"cluster replace\"d instead.",
    .examples = "  chronos recover --force-new-cluster --data-dir /var/lib/chronos",
    .options = recover_options,
    .options_count = ARRAY_LEN(recover_options),
    .values_bytes = sizeof(struct recover_values),
    .run = run_recover,
};
