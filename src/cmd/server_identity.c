/* Whose directory this is: found in it, formed by --bootstrap, or given by the cluster joined.
 *
 * Invariant: an identity is written down durably before anybody is told of it, and never changed
 * after. An empty directory gets one only on an operator's word (W15): a disk that was lost must
 * not come back as a node that has forgotten its votes. */
#include "cmd/server_internal.h"

#include "cli/new_cluster.h"

#include <xxhash.h>

#include <errno.h>
#include <inttypes.h>
#include <string.h>

static void fill_random(struct server *s, uint8_t out[16]) {
    uint64_t words[2] = {random_os_next(&s->random), random_os_next(&s->random)};

    STATIC_ASSERT(sizeof(words) == 16, "an identity's size");
    memcpy(out, words, sizeof(words));
}

/* The same on every node that forms the cluster with the same name and members. A lone node has
 * nobody to agree with, and two of them are likely to be configured alike: it adds chance. */
static void new_cluster_id(struct server *s, uint8_t ret[16]) {
    const struct raft_config *members = &s->members;
    XXH3_state_t *h = XXH3_createState();
    XXH128_canonical_t canonical;

    ASSERT(h);
    (void) XXH3_128bits_reset(h);
    (void) XXH3_128bits_update(h, s->config.cluster.name, strlen(s->config.cluster.name) + 1);
    for (size_t i = 0; i < members->count; i++) {
        char text[RAFT_ADDRESS_BYTES_MAX + 32];
        int n = snprintf(text, sizeof(text), "%" PRIu64 "=%s,", members->members[i].id,
                         members->members[i].address);

        (void) XXH3_128bits_update(h, text, (size_t) n);
    }
    if (members->count == 1) {
        uint8_t chance[16];

        fill_random(s, chance);
        (void) XXH3_128bits_update(h, chance, sizeof(chance));
    }
    XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(h));
    memcpy(ret, canonical.digest, sizeof(canonical.digest));
    (void) XXH3_freeState(h);
}

/* What the directory's file names tell. */
struct file_kinds {
    bool log;
    bool unfinished; /* a restore or a recovery did not get to its end */
};

static int note_file(void *arg, const char *name) {
    struct file_kinds *found = arg;

    if (strncmp(name, "wal-", 4) == 0)
        found->log = true;
    if (strcmp(name, NEW_CLUSTER_MARKER) == 0)
        found->unfinished = true;
    return 0;
}

static int look_at_files(const struct disk *disk, struct file_kinds *found, struct errtext *why) {
    int rc = disk->ops->list(disk->ctx, note_file, found);

    if (rc < 0 || !found->unfinished)
        return rc;
    errtext_set(why,
                "a restore or a recovery of this data directory did not get to its end (the "
                "file " NEW_CLUSTER_MARKER
                "): restore into an empty directory, or run "
                "\"chronos recover\" again");
    return ERR_CORRUPT;
}

/* Files of a log without the meta file: the term and the vote are lost, not new. */
static int check_empty(const struct file_kinds *files, struct errtext *why) {
    if (!files->log)
        return 0;
    errtext_set(why,
                "the data directory holds a log but its meta file is missing: the node's vote "
                "is lost. Put the file back, or replace this node: move the directory away, "
                "then \"chronos cluster replace OLD_ID NEW_ID PEER_ADDRESS\" and start it "
                "with --node.id NEW_ID --join");
    return ERR_CORRUPT;
}

static int refuse_empty(const struct server *s, struct errtext *why) {
    const struct config *c = &s->config;

    errtext_set(why,
                "the data directory %.160s is empty. To form a new cluster: chronos server "
                "--node.id %" PRIu64
                " --node.data_dir %.160s --bootstrap. To join one: the same "
                "with --join HOST:PORT (client address of any member) instead of --bootstrap",
                c->node.data_dir, c->node.id, c->node.data_dir);
    return ERR_CONFIG;
}

/* ---- joining --------------------------------------------------------------------------------- */

/* A refused node keeps nothing: the directory is as empty as it was. The copy first: without the
 * file it would be taken for what is left of a lost one. */
static void forget_meta(const struct disk *disk) {
    if (disk->ops->unlink(disk->ctx, "meta-copy") == 0 && disk->ops->unlink(disk->ctx, "meta") == 0)
        (void) disk->ops->sync_dir(disk->ctx);
}

/* Written before the cluster hears of it: a crash in between repeats the same request. */
static int join_empty(struct server *s, const struct disk *disk, struct errtext *why) {
    struct meta_state st = {.node_id = s->config.node.id};
    struct meta *meta = NULL;
    int rc = server_join_cluster_id(s, s->config.join, st.cluster_id, why);

    if (rc < 0)
        return rc;
    fill_random(s, st.incarnation);
    rc = meta_create(disk, &st, &meta, why);
    if (rc < 0)
        return rc;
    meta = meta_close(meta);
    memcpy(s->cluster_id, st.cluster_id, sizeof(s->cluster_id));
    rc = server_join_add(s, s->config.join, st.incarnation, why);
    if (rc == ERR_FOREIGN)
        forget_meta(disk);
    return rc;
}

/* The directory was prepared by a start that did not get to its end, or by one whose cluster has
 * not spoken to it yet. */
static int join_again(struct server *s, const struct meta_state *st, struct errtext *why) {
    uint8_t id[16];
    int rc = server_join_cluster_id(s, s->config.join, id, why);

    if (rc < 0)
        return rc;
    if (memcmp(id, st->cluster_id, sizeof(id)) != 0) {
        errtext_set(why,
                    "the data directory %.200s was prepared for another cluster than the one "
                    "at %.128s; use an empty directory, or the addresses given first",
                    s->config.node.data_dir, s->config.join);
        return ERR_FOREIGN;
    }
    return server_join_add(s, s->config.join, st->incarnation, why);
}

/* ---- all ------------------------------------------------------------------------------------- */

static int identity_found(struct server *s, const struct meta_state *st,
                          const struct file_kinds *files, struct errtext *why) {
    const struct config *c = &s->config;
    /* Nobody has led it and it never formed anything: it was told to join and waits. */
    bool waiting = st->term == 0;

    memcpy(s->cluster_id, st->cluster_id, sizeof(s->cluster_id));
    if (st->node_id != c->node.id) {
        errtext_set(why,
                    "the data directory %.200s belongs to node %" PRIu64 ", not to node %" PRIu64,
                    c->node.data_dir, st->node_id, c->node.id);
        return ERR_FOREIGN;
    }
    if (waiting && c->join)
        return join_again(s, st, why);
    if (waiting)
        log_warn(&s->log, "not yet a member",
                 "node=%" PRIu64
                 " note=\"waits until the cluster it was "
                 "made for adds it; --join ADDRESS asks for it\"",
                 c->node.id);
    if (c->bootstrap || c->join)
        log_info(&s->log, "the data directory has its cluster already",
                 "node=%" PRIu64 " ignored=%s", c->node.id,
                 c->bootstrap ? "--bootstrap" : "--join");
    /* A crash between the meta file and the log's first entry: the bootstrap goes on. */
    s->forming = c->bootstrap && st->term == 1 && st->vote == 0;
    /* Its log may be empty, but it must be there: a node that joins makes one before it hears a
     * term from anybody. */
    s->waiting = !s->forming && (waiting || files->log);
    return 0;
}

static int identity_new(struct server *s, const struct disk *disk, const struct file_kinds *files,
                        struct errtext *why) {
    int rc = check_empty(files, why);

    if (rc < 0)
        return rc;
    s->waiting = s->config.join;
    if (s->config.join)
        return join_empty(s, disk, why);
    if (!s->config.bootstrap)
        return refuse_empty(s, why);
    new_cluster_id(s, s->cluster_id);
    s->forming = true;
    return 0;
}

int server_identity(struct server *s, const struct disk *disk) {
    struct errtext why = {0};
    struct meta_state st = {0};
    struct file_kinds files = {0};
    struct meta *meta = NULL;
    int rc = look_at_files(disk, &files, &why);

    if (rc == 0)
        rc = meta_open(disk, &meta, &st, &why);
    meta = meta_close(meta);
    if (rc == 0)
        rc = identity_found(s, &st, &files, &why);
    else if (rc == META_MISSING)
        rc = identity_new(s, disk, &files, &why);
    if (rc < 0)
        server_fail(s, "the node refuses to start", rc, &why);
    return rc;
}
