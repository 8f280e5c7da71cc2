/* Whose id is whose: a node is its id together with the disk that it keeps its promises on.
 *
 * A node that comes with a known id and another disk has forgotten what it acknowledged; were it
 * let in, a committed entry could be lost (W15). So the binding of id and disk is a replicated fact
 * (NodeRecord), proposed by the leader when it first hears of a disk, and every node refuses the
 * hello of who does not match it. Addresses are facts of the same record and may change.
 * Thread: the loop. */
#include "node/replica_internal.h"

#include "fsm/command.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static bool is_zero(const uint8_t disk[16]) {
    static const uint8_t zero[16];

    return memcmp(disk, zero, sizeof(zero)) == 0;
}

const uint8_t *replica_disk(const struct replica *r) {
    return r->disk;
}

const uint8_t *replica_cluster_id(const struct replica *r) {
    return r->o.cluster_id;
}

static struct node_note *note_find(struct replica *r, uint64_t id) {
    for (size_t i = 0; i < ARRAY_LEN(r->membership.notes); i++)
        if (r->membership.notes[i].id == id)
            return &r->membership.notes[i];
    return NULL;
}

static struct node_note *note_of(struct replica *r, uint64_t id) {
    struct node_note *n = note_find(r, id);

    if (n)
        return n;
    n = &r->membership.notes[r->membership.notes_next];
    r->membership.notes_next = (r->membership.notes_next + 1) % ARRAY_LEN(r->membership.notes);
    *n = (struct node_note){.id = id};
    return n;
}

/* ---- hello ----------------------------------------------------------------------------------- */

static void other_disk_text(uint64_t id, struct errtext *reterr) {
    errtext_set(reterr,
                "node %llu is known with another disk: its log may be missing entries it "
                "acknowledged; use a new id (\"chronos cluster replace %llu NEW_ID ADDRESS\" then "
                "start it with --join)",
                (unsigned long long) id, (unsigned long long) id);
}

/* The newest entry that is in the log, but not applied, and that binds @id to a disk. A leader that
 * has just been elected, or has just started, has every binding that was committed, but perhaps
 * here only; what it would send to an erased disk could then win an election against what is
 * committed. */
static bool bound_in_log(struct replica *r, uint64_t id, uint8_t ret_disk[16]) {
    for (uint64_t i = raft_last_index(r->raft); i > fsm_applied_index(r->fsm); i--) {
        const struct raft_entry *e = raft_entry_at(r->raft, i);
        Chronos__Internal__V1__LogCommand *cmd;
        bool found;

        if (!e || e->type != RAFT_ENTRY_COMMAND || !e->data || e->data->len <= ENTRY_HEADER_BYTES)
            continue;
        cmd = chronos__internal__v1__log_command__unpack(NULL, e->data->len - ENTRY_HEADER_BYTES,
                                                         e->data->data + ENTRY_HEADER_BYTES);
        found = cmd && cmd->body_case == CHRONOS__INTERNAL__V1__LOG_COMMAND__BODY_SET_NODE &&
                cmd->set_node->node_id == id && cmd->set_node->disk.len == 16;
        if (found)
            memcpy(ret_disk, cmd->set_node->disk.data, 16);
        if (cmd)
            chronos__internal__v1__log_command__free_unpacked(cmd, NULL);
        if (found)
            return true;
    }
    return false;
}

/* Said on the way in by a disk that the log knows better; not for good: it is not committed yet. */
bool identity_is_stranger(struct replica *r, uint64_t id) {
    const struct fsm_node *n = fsm_node_find(r->fsm, id);
    const struct node_note *note = note_find(r, id);
    uint8_t disk[16];

    if ((n && n->bound) || !note || !note->disk_known)
        return false;
    return bound_in_log(r, id, disk) && memcmp(disk, note->disk, sizeof(disk)) != 0;
}

/* Before the state machine has bound the id: the first disk heard of in this life has it. */
static int check_unbound(struct replica *r, const struct replica_hello *h, struct errtext *reterr) {
    struct node_note *n = note_of(r, h->node_id);
    uint8_t disk[16];

    if (is_zero(h->disk))
        return 0;
    if (bound_in_log(r, h->node_id, disk) && memcmp(disk, h->disk, sizeof(disk)) != 0) {
        other_disk_text(h->node_id, reterr);
        return ERR_FOREIGN;
    }
    if (n->disk_known && memcmp(n->disk, h->disk, sizeof(n->disk)) != 0) {
        other_disk_text(h->node_id, reterr);
        return ERR_FOREIGN;
    }
    memcpy(n->disk, h->disk, sizeof(n->disk));
    n->disk_known = true;
    return 0;
}

int replica_check_hello(struct replica *r, const struct replica_hello *h, bool *ret_final,
                        struct errtext *reterr) {
    const struct fsm_node *n = fsm_node_find(r->fsm, h->node_id);
    int rc;

    *ret_final = false;
    r->now = r->env.clock.mono(r->env.clock.ctx);
    if (h->node_id == r->o.id || h->node_id == 0 || h->node_id > NODE_ID_MAX) {
        errtext_set(reterr, "node id %llu is %s", (unsigned long long) h->node_id,
                    h->node_id == r->o.id ? "this node's own" : "none: 1 to 65535 expected");
        return ERR_FOREIGN;
    }
    if (n && n->removed) {
        *ret_final = true;
        errtext_set(reterr,
                    "node %llu was removed from this cluster and its id is used up; to come back "
                    "it needs an empty data directory and a new id (\"chronos cluster add NEW_ID "
                    "ADDRESS\" then start it with --join)",
                    (unsigned long long) h->node_id);
        return ERR_FOREIGN;
    }
    if (n && n->bound && memcmp(n->disk, h->disk, sizeof(n->disk)) != 0) {
        *ret_final = true;
        other_disk_text(h->node_id, reterr);
        return ERR_FOREIGN;
    }
    if (!n || !n->bound) {
        rc = check_unbound(r, h, reterr);
        if (rc < 0)
            return rc;
    }
    peers_welcome(r, h->node_id, h->peer_address ? h->peer_address : "");
    return 0;
}

void replica_on_refused(struct replica *r, uint64_t by, const char *reason) {
    r->wants_turn = true;
    replica_fail(r, ERR_FOREIGN, "node %llu refuses this node: %s", (unsigned long long) by,
                 reason);
}

int identity_check_self(struct replica *r, struct errtext *reterr) {
    const struct fsm_node *n = fsm_node_find(r->fsm, r->o.id);
    uint64_t index = 0;

    if (!n || !n->removed)
        return 0;
    (void) fsm_config(r->fsm, &index);
    errtext_set(reterr,
                "node %llu was removed from the cluster at index %llu or before; its id "
                "is used up: start on an empty data directory with a new id",
                (unsigned long long) r->o.id, (unsigned long long) index);
    return ERR_FOREIGN;
}

/* ---- the leader's part ------------------------------------------------------------------------
 */

struct set_node_arg {
    struct replica *replica;
    uint64_t id;
    uint8_t disk[16];
};

static void set_node_done(void *arg, const struct replica_proposed *res) {
    struct set_node_arg *a = arg;
    struct replica *r = a->replica;
    struct node_note *n = note_find(r, a->id);

    if (n) {
        n->in_flight = false;
        if (res->status == REPLICA_OK && res->output->results_count > 0 &&
            res->output->results[0].code != FSM_OK) {
            n->refused = true;
            memcpy(n->refused_disk, a->disk, sizeof(n->refused_disk));
            log_warn(r->env.log, "a node's disk or address was refused by the state machine",
                     "peer=%llu", (unsigned long long) a->id);
        }
    }
    if (res->status != REPLICA_STOPPING) {
        r->membership.facts_changed = true;
        r->wants_turn = true;
    }
    free(a);
}

int identity_propose(struct replica *r, uint64_t id, const uint8_t *disk, const char *peer_address,
                     const char *client_address, uint32_t feature_max) {
    Chronos__Internal__V1__LogCommand cmd = CHRONOS__INTERNAL__V1__LOG_COMMAND__INIT;
    Chronos__Internal__V1__SetNode body = CHRONOS__INTERNAL__V1__SET_NODE__INIT;
    const struct fsm_node *rec = fsm_node_find(r->fsm, id);
    struct set_node_arg *a = calloc(1, sizeof(*a));
    struct bytes *command = NULL;
    int rc;

    if (!a)
        return -ENOMEM;
    a->replica = r;
    a->id = id;
    if (!disk && rec && rec->bound)
        disk = rec->disk;
    if (!peer_address)
        peer_address = rec ? rec->peer_address : "";
    if (!client_address)
        client_address = rec ? rec->client_address : "";
    if (disk)
        memcpy(a->disk, disk, sizeof(a->disk));
    body.node_id = id;
    body.disk.data = a->disk;
    body.disk.len = disk ? sizeof(a->disk) : 0;
    body.peer_address = (char *) (uintptr_t) peer_address; /* packing reads only */
    body.client_address = (char *) (uintptr_t) client_address;
    body.feature_max = feature_max ? feature_max : rec ? rec->feature_max : 0;
    cmd.body_case = CHRONOS__INTERNAL__V1__LOG_COMMAND__BODY_SET_NODE;
    cmd.set_node = &body;
    rc = command_encode(&cmd, &command);
    if (rc == 0)
        rc = replica_propose(r, command, REPLICA_INTERNAL, MONO_NEVER, set_node_done, a);
    if (rc != 0) {
        free(a);
        return rc;
    }
    note_of(r, id)->in_flight = true;
    return 0;
}

static bool address_news(const char *heard, const char *known) {
    return heard[0] && strcmp(heard, known ? known : "") != 0;
}

static void look_at(struct replica *r, uint64_t id, const uint8_t *disk, const char *peer_address,
                    const char *client_address, uint32_t feature_max) {
    const struct fsm_node *rec = fsm_node_find(r->fsm, id);
    const struct node_note *note = note_find(r, id);
    bool heard_disk = !is_zero(disk);
    int rc;

    if (!rec || rec->removed || (note && note->in_flight))
        return;
    if (!heard_disk && !rec->bound)
        return; /* facts without a disk belong to nobody yet */
    if (note && note->refused && memcmp(note->refused_disk, disk, sizeof(note->refused_disk)) == 0)
        return;
    if (!(heard_disk && (!rec->bound || memcmp(rec->disk, disk, sizeof(rec->disk)) != 0)) &&
        !address_news(peer_address, rec->peer_address) &&
        !address_news(client_address, rec->client_address) &&
        (feature_max == 0 || feature_max == rec->feature_max))
        return;
    rc = identity_propose(r, id, heard_disk ? disk : NULL, peer_address[0] ? peer_address : NULL,
                          client_address[0] ? client_address : NULL, feature_max);
    if (rc < 0)
        log_warn(r->env.log, "a node's facts could not be proposed", "peer=%llu error=\"%s\"",
                 (unsigned long long) id, err_name(rc));
}

void identity_run(struct replica *r) {
    const struct raft_config *config = raft_config_latest(r->raft);

    if (!r->membership.facts_changed || !replica_leads(r) || !config)
        return;
    r->membership.facts_changed = false;
    for (size_t i = 0; i < config->count; i++) {
        uint64_t id = config->members[i].id;
        const struct peer *p = peer_find(r, id);

        if (id == r->o.id)
            look_at(r, id, r->disk, r->peer_address, r->client_address, features_max(r));
        else if (p && p->facts_known)
            look_at(r, id, p->disk, p->peer_address, p->client_address, p->feature_max);
    }
}
