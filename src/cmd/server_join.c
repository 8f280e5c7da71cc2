/* Asking a running cluster to take this node: a client's two calls, before the node itself runs.
 *
 * Blocking and with pauses: without an answer there is nothing else to do. Signals are looked at
 * between tries. */
#include "cmd/server_internal.h"

#include "cli/client.h"

#include "chronos/v1/cluster_service.pb-c.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>

#define JOIN_DEADLINE_MS 60000
#define JOIN_TRY_MS                                                                                \
    2000 /* one call with the client's own repetitions; then signals are looked at */
#define JOIN_PAUSE_MS 200

struct join {
    struct server *server;
    struct client *client;
    uint64_t deadline_ns;
    struct client_error last;
};

static int join_begin(struct join *j, struct server *s, const char *addresses,
                      struct errtext *reterr) {
    int rc;

    *j = (struct join){.server = s, .deadline_ns = uv_hrtime() + JOIN_DEADLINE_MS * NS_PER_MS};
    rc = client_new(addresses, JOIN_TRY_MS, &j->client, reterr);
    return rc > 0 ? ERR_CONFIG : rc;
}

/* True while another try makes sense; false with the reason. */
static bool join_again_allowed(struct join *j, const char *addresses, int *ret_rc,
                               struct errtext *reterr) {
    const struct timespec pause = {.tv_nsec = JOIN_PAUSE_MS * 1000000L};

    (void) uv_run(&j->server->loop, UV_RUN_NOWAIT); /* signals */
    if (j->server->stop_wanted) {
        errtext_set(reterr, "stopped while waiting for the cluster at %.200s", addresses);
        *ret_rc = -ECANCELED;
        return false;
    }
    if (uv_hrtime() >= j->deadline_ns) {
        errtext_set(reterr, "no answer from the cluster at %.128s within %d s; last: %.300s",
                    addresses, JOIN_DEADLINE_MS / 1000, j->last.message);
        *ret_rc = -ETIMEDOUT;
        return false;
    }
    (void) nanosleep(&pause, NULL);
    return true;
}

static int status(struct join *j, Chronos__V1__GetClusterStatusResponse **ret) {
    Chronos__V1__GetClusterStatusRequest req = CHRONOS__V1__GET_CLUSTER_STATUS_REQUEST__INIT;

    return client_call(j->client, "/chronos.v1.ClusterService/GetClusterStatus", &req.base,
                       &chronos__v1__get_cluster_status_response__descriptor,
                       /* repeatable= */ true, (ProtobufCMessage **) ret, &j->last);
}

static bool parse_hex(const char *text, uint8_t ret[16]) {
    static const char digits[] = "0123456789abcdef";

    if (strlen(text) != 32)
        return false;
    for (size_t i = 0; i < 32; i++) {
        const char *d = strchr(digits, text[i]);

        if (!d)
            return false;
        ret[i / 2] = (uint8_t) (i % 2 == 0 ? (d - digits) << 4 : ret[i / 2] | (d - digits));
    }
    return true;
}

int server_join_cluster_id(struct server *s, const char *addresses, uint8_t ret[16],
                           struct errtext *reterr) {
    Chronos__V1__GetClusterStatusResponse *res = NULL;
    struct join j;
    int rc = join_begin(&j, s, addresses, reterr);

    while (rc == 0 && status(&j, &res) != 0) {
        if (!join_again_allowed(&j, addresses, &rc, reterr))
            break;
    }
    if (rc == 0 && !parse_hex(res->cluster_id, ret)) {
        errtext_set(reterr, "the node at %.200s tells no cluster id; is it of this version?",
                    addresses);
        rc = ERR_PROTO;
    }
    if (res)
        protobuf_c_message_free_unpacked(&res->base, NULL);
    (void) client_free(j.client);
    return rc;
}

/* A change is open: ours must wait. Any other precondition is a refusal. */
static bool change_open(struct join *j) {
    Chronos__V1__GetClusterStatusResponse *res = NULL;
    struct client_error refusal = j->last;
    bool open;

    if (status(j, &res) != 0)
        return true;
    open = res->open_change[0] != '\0';
    j->last = refusal;
    protobuf_c_message_free_unpacked(&res->base, NULL);
    return open;
}

static bool is_refusal(struct join *j, int code) {
    if (code == RPC_FAILED_PRECONDITION)
        return !change_open(j);
    return code == RPC_INVALID_ARGUMENT || code == RPC_ALREADY_EXISTS ||
           code == RPC_UNIMPLEMENTED || code == RPC_PERMISSION_DENIED || code == RPC_NOT_FOUND;
}

/* Added beforehand as a learner: it is to stay one, whoever starts it. */
static bool is_learner(struct join *j, uint64_t id) {
    Chronos__V1__GetClusterStatusResponse *res = NULL;
    bool found = false;

    if (status(j, &res) != 0)
        return false;
    for (size_t i = 0; i < res->n_nodes; i++)
        found |= res->nodes[i]->id == id && strcmp(res->nodes[i]->membership, "learner") == 0;
    protobuf_c_message_free_unpacked(&res->base, NULL);
    return found;
}

int server_join_add(struct server *s, const char *addresses, const uint8_t disk[16],
                    struct errtext *reterr) {
    const struct config *c = &s->config;
    Chronos__V1__AddNodeRequest req = CHRONOS__V1__ADD_NODE_REQUEST__INIT;
    ProtobufCMessage *res = NULL;
    struct join j;
    int code, rc = join_begin(&j, s, addresses, reterr);

    req.id = c->node.id;
    req.peer_address = (char *) (uintptr_t) c->node.advertise_peer;
    req.client_address = (char *) (uintptr_t) c->node.advertise;
    req.disk = (ProtobufCBinaryData){.len = 16, .data = (uint8_t *) (uintptr_t) disk};
    while (rc == 0) {
        req.stay_learner = is_learner(&j, c->node.id);
        code = client_call(j.client, "/chronos.v1.ClusterService/AddNode", &req.base,
                           &chronos__v1__change_membership_response__descriptor,
                           /* repeatable= */ true, &res, &j.last);
        if (code == 0)
            break;
        if (is_refusal(&j, code)) {
            errtext_set(reterr, "the cluster at %.128s does not take this node: %.360s", addresses,
                        j.last.message);
            rc = ERR_FOREIGN;
        } else if (!join_again_allowed(&j, addresses, &rc, reterr)) {
            break;
        }
    }
    if (res) {
        log_info(&s->log, "a member of the cluster", "node=%" PRIu64 " peers=%s", c->node.id,
                 c->node.advertise_peer);
        protobuf_c_message_free_unpacked(res, NULL);
    }
    (void) client_free(j.client);
    return rc;
}
