/* `chronos cluster add, remove, promote, demote, replace, transfer-leader`: who is a member, and
 * who leads. Each is one call that any node passes on to the leader. */
#include "cli/cmd_cluster.h"

#include "base/units.h"
#include "cli/common.h"
#include "cli/config.h"

#include "chronos/v1/cluster_service.pb-c.h"

#include <inttypes.h>
#include <string.h>

struct change_values {
    struct cli_common common;
    const char *client;
    bool learner;
};

struct plain_values {
    struct cli_common common;
};

struct transfer_values {
    struct cli_common common;
    uint64_t to;
};

int cluster_parse_node(const char *text, uint64_t *ret) {
    struct errtext ignored;

    if (units_parse_uint(text, ret, &ignored) != 0 || *ret < 1 || *ret > CONFIG_NODE_ID_MAX)
        return cli_usage("\"%.64s\" is no node id; ids are whole numbers from 1 to %d", text,
                         CONFIG_NODE_ID_MAX);
    return EXIT_CODE_OK;
}

static int check_address(const char *what, const char *text) {
    char host[CLIENT_ADDRESS_BYTES_MAX];
    struct errtext why;
    uint16_t port;

    if (config_split_address(text, host, &port, &why) != 0)
        return cli_usage("%s: %s", what, why.s);
    return EXIT_CODE_OK;
}

int cluster_call(const struct cli_common *common, const char *what, const char *method,
                 const ProtobufCMessage *request, const ProtobufCMessageDescriptor *reply,
                 bool repeatable, ProtobufCMessage **ret) {
    _cleanup_(client_freep) struct client *c = NULL;
    struct client_error e;
    char path[96];
    int r = cli_connect(common, &c);

    if (r != 0)
        return r;
    (void) snprintf(path, sizeof(path), "/chronos.v1.ClusterService/%s", method);
    if (client_call(c, path, request, reply, repeatable, ret, &e) != 0)
        return cli_fail(what, &e);
    return EXIT_CODE_OK;
}

/* @done and @already say what the answer means, each with the node's id. */
static int change(const struct cli_common *common, const char *what, const char *method,
                  const ProtobufCMessage *request, uint64_t id, const char *done,
                  const char *already) {
    Chronos__V1__ChangeMembershipResponse *res = NULL;
    /* Repeating is safe: a change that was done already changes nothing. */
    int r = cluster_call(common, what, method, request,
                         &chronos__v1__change_membership_response__descriptor,
                         /* repeatable= */ true, (ProtobufCMessage **) &res);

    if (r != EXIT_CODE_OK)
        return r;
    if (common->output == CLI_JSON)
        r = cli_print_message(&res->base);
    else
        printf("Node %" PRIu64 " %s (entry %" PRIu64 ").\n", id, res->changed ? done : already,
               res->index);
    protobuf_c_message_free_unpacked(&res->base, NULL);
    return r;
}

/* ---- add ----------------------------------------------------------------------------------- */

static int run_add(void *values, char **rest, size_t rest_count) {
    const struct change_values *v = values;
    Chronos__V1__AddNodeRequest req = CHRONOS__V1__ADD_NODE_REQUEST__INIT;
    int r = cluster_parse_node(rest[0], &req.id);

    ASSERT(rest_count == 2);
    if (r == EXIT_CODE_OK)
        r = check_address("PEER_ADDRESS", rest[1]);
    if (r == EXIT_CODE_OK && v->client)
        r = check_address("--client", v->client);
    if (r != EXIT_CODE_OK)
        return r;
    req.peer_address = rest[1];
    if (v->client)
        req.client_address = (char *) (uintptr_t) v->client;
    req.stay_learner = v->learner;
    return change(&v->common, "cluster add", "AddNode", &req.base, req.id,
                  v->learner ? "is a learner now; start it with --join"
                             : "is a learner now and becomes a voter once it has caught up; start "
                               "it with --join",
                  "is a member already");
}

static const struct arg_option add_options[] = {
    {"client", 0, ARG_STRING, "HOST:PORT", "its client address (default: it tells it itself)", NULL,
     NULL, offsetof(struct change_values, client), 0, 0},
    {"learner", 0, ARG_FLAG, NULL, "keep it a learner: it has the state and no vote", NULL, NULL,
     offsetof(struct change_values, learner), 0, 0},
    CLI_COMMON_OPTIONS,
};

const struct arg_command cmd_cluster_add = {
    .name = "add",
    .summary = "add a node",
    .positional = "ID PEER_ADDRESS",
    .details =
        "The id must never have been used in this cluster. \"chronos server --join\" does the "
        "same\n"
        "for the node it starts; this command is for adding it beforehand, or as a learner.",
    .examples =
        "  chronos cluster add 4 10.0.0.4:7402\n"
        "  chronos cluster add 5 10.0.0.5:7402 --client 10.0.0.5:7400 --learner",
    .options = add_options,
    .options_count = ARRAY_LEN(add_options),
    .values_bytes = sizeof(struct change_values),
    .rest_min = 2,
    .rest_max = 2,
    .run = run_add,
};

/* ---- remove, promote, demote --------------------------------------------------------------- */

static const struct arg_option plain_options[] = {CLI_COMMON_OPTIONS};

static int run_remove(void *values, char **rest, size_t rest_count) {
    const struct plain_values *v = values;
    Chronos__V1__RemoveNodeRequest req = CHRONOS__V1__REMOVE_NODE_REQUEST__INIT;
    int r = cluster_parse_node(rest[0], &req.id);

    ASSERT(rest_count == 1);
    return r != EXIT_CODE_OK ? r
                             : change(&v->common, "cluster remove", "RemoveNode", &req.base, req.id,
                                      "is removed; it stops by itself", "was removed before");
}

const struct arg_command cmd_cluster_remove = {
    .name = "remove",
    .summary = "take a node out of the cluster for good",
    .positional = "ID",
    .details =
        "The node is told so and stops with exit code 78. Its id and its data directory can not "
        "be\n"
        "used in this cluster again.",
    .examples = "  chronos cluster remove 3",
    .options = plain_options,
    .options_count = ARRAY_LEN(plain_options),
    .values_bytes = sizeof(struct plain_values),
    .rest_min = 1,
    .rest_max = 1,
    .run = run_remove,
};

static int run_promote(void *values, char **rest, size_t rest_count) {
    const struct plain_values *v = values;
    Chronos__V1__PromoteNodeRequest req = CHRONOS__V1__PROMOTE_NODE_REQUEST__INIT;
    int r = cluster_parse_node(rest[0], &req.id);

    ASSERT(rest_count == 1);
    return r != EXIT_CODE_OK
               ? r
               : change(&v->common, "cluster promote", "PromoteNode", &req.base, req.id,
                        "becomes a voter once it has caught up", "is a voter already");
}

const struct arg_command cmd_cluster_promote = {
    .name = "promote",
    .summary = "make a learner a voter once it has caught up",
    .positional = "ID",
    .examples = "  chronos cluster promote 4",
    .options = plain_options,
    .options_count = ARRAY_LEN(plain_options),
    .values_bytes = sizeof(struct plain_values),
    .rest_min = 1,
    .rest_max = 1,
    .run = run_promote,
};

static int run_demote(void *values, char **rest, size_t rest_count) {
    const struct plain_values *v = values;
    Chronos__V1__DemoteNodeRequest req = CHRONOS__V1__DEMOTE_NODE_REQUEST__INIT;
    int r = cluster_parse_node(rest[0], &req.id);

    ASSERT(rest_count == 1);
    return r != EXIT_CODE_OK ? r
                             : change(&v->common, "cluster demote", "DemoteNode", &req.base, req.id,
                                      "is a learner now", "is a learner already");
}

const struct arg_command cmd_cluster_demote = {
    .name = "demote",
    .summary = "make a voter a learner: it keeps the state and loses its vote",
    .positional = "ID",
    .examples = "  chronos cluster demote 3",
    .options = plain_options,
    .options_count = ARRAY_LEN(plain_options),
    .values_bytes = sizeof(struct plain_values),
    .rest_min = 1,
    .rest_max = 1,
    .run = run_demote,
};

/* ---- replace ------------------------------------------------------------------------------- */

static int run_replace(void *values, char **rest, size_t rest_count) {
    const struct change_values *v = values;
    Chronos__V1__ReplaceNodeRequest req = CHRONOS__V1__REPLACE_NODE_REQUEST__INIT;
    int r = cluster_parse_node(rest[0], &req.old_id);

    ASSERT(rest_count == 3);
    if (r == EXIT_CODE_OK)
        r = cluster_parse_node(rest[1], &req.new_id);
    if (r == EXIT_CODE_OK)
        r = check_address("PEER_ADDRESS", rest[2]);
    if (r == EXIT_CODE_OK && v->client)
        r = check_address("--client", v->client);
    if (r == EXIT_CODE_OK && req.old_id == req.new_id)
        r = cli_usage("the new node needs an id of its own: %" PRIu64 " was used before",
                      req.old_id);
    if (r != EXIT_CODE_OK)
        return r;
    req.peer_address = rest[2];
    if (v->client)
        req.client_address = (char *) (uintptr_t) v->client;
    return change(&v->common, "cluster replace", "ReplaceNode", &req.base, req.new_id,
                  "is a learner now and takes the old one's place once it has caught up; start it "
                  "with --join",
                  "is taking that place already");
}

static const struct arg_option replace_options[] = {
    {"client", 0, ARG_STRING, "HOST:PORT", "its client address (default: it tells it itself)", NULL,
     NULL, offsetof(struct change_values, client), 0, 0},
    CLI_COMMON_OPTIONS,
};

const struct arg_command cmd_cluster_replace = {
    .name = "replace",
    .summary = "put a new node in the place of another, dead or alive",
    .positional = "OLD_ID NEW_ID PEER_ADDRESS",
    .details =
        "For a node whose disk is lost: it comes back under a new id and an empty directory. The\n"
        "old one leaves in the same step in which the new one gets its vote.",
    .examples =
        "  chronos cluster replace 2 4 10.0.0.2:7402\n"
        "  chronos server --node.id 4 --node.data_dir /var/lib/chronos --join 10.0.0.1:7400",
    .options = replace_options,
    .options_count = ARRAY_LEN(replace_options),
    .values_bytes = sizeof(struct change_values),
    .rest_min = 3,
    .rest_max = 3,
    .run = run_replace,
};

/* ---- transfer-leader ----------------------------------------------------------------------- */

static int run_transfer(void *values, char **rest, size_t rest_count) {
    const struct transfer_values *v = values;
    Chronos__V1__TransferLeaderRequest req = CHRONOS__V1__TRANSFER_LEADER_REQUEST__INIT;
    Chronos__V1__TransferLeaderResponse *res = NULL;
    int r;

    (void) rest;
    ASSERT(rest_count == 0);
    req.to = v->to;
    /* To a named node a second time changes nothing; to any node it would move once more. */
    r = cluster_call(&v->common, "cluster transfer-leader", "TransferLeader", &req.base,
                     &chronos__v1__transfer_leader_response__descriptor,
                     /* repeatable= */ v->to > 0, (ProtobufCMessage **) &res);
    if (r != EXIT_CODE_OK)
        return r;
    if (v->common.output == CLI_JSON)
        r = cli_print_message(&res->base);
    else
        printf("Node %" PRIu64 " leads in term %" PRIu64 ".\n", res->leader_id, res->term);
    protobuf_c_message_free_unpacked(&res->base, NULL);
    return r;
}

static const struct arg_option transfer_options[] = {
    {"to", 0, ARG_UINT, "ID", "this voter (default: the most caught-up one)", NULL, NULL,
     offsetof(struct transfer_values, to), 1, CONFIG_NODE_ID_MAX},
    CLI_COMMON_OPTIONS,
};

const struct arg_command cmd_cluster_transfer = {
    .name = "transfer-leader",
    .summary = "hand leadership to another voter",
    .examples = "  chronos cluster transfer-leader\n  chronos cluster transfer-leader --to 2",
    .options = transfer_options,
    .options_count = ARRAY_LEN(transfer_options),
    .values_bytes = sizeof(struct transfer_values),
    .run = run_transfer,
};
