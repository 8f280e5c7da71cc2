/* SetNode.
 *
 * "Node with lost log or meta must not vote with its old id" (W15): the first disk that is heard of
 * under an id has it for good, and what comes later under the same id from another disk is refused,
 * on every node alike. Addresses are facts that change. */
#include "fsm/fsm_internal.h"

/* NULL, or why the item says nothing that can be agreed on. */
static const char *unacceptable(const struct item_set_node *s) {
    static const uint8_t none[RECORD_DISK_BYTES];

    if (s->disk.len != RECORD_DISK_BYTES)
        return "disk: must be 16 bytes";
    if (memcmp(s->disk.data, none, sizeof(none)) == 0)
        return "disk: all zero is no disk";
    if (!nodes_address_ok(s->peer_address))
        return "peer_address: at most 127 bytes, none of them zero";
    if (!nodes_address_ok(s->client_address))
        return "client_address: at most 127 bytes, none of them zero";
    return NULL;
}

static bool differs(const char *have, struct slice want) {
    return strlen(have) != want.len || (want.len > 0 && memcmp(have, want.data, want.len) != 0);
}

/* An address that is not said stays as it is. */
static bool news(const struct fsm_node *n, const struct item_set_node *s) {
    return !n->bound || n->feature_max != s->feature_max ||
           (s->peer_address.len > 0 && differs(n->peer_address, s->peer_address)) ||
           (s->client_address.len > 0 && differs(n->client_address, s->client_address));
}

int apply_set_node(struct fsm *f, struct apply *a, const void *item, struct slice raw,
                   struct fsm_result *res) {
    const struct item_set_node *s = item;
    struct fsm_node *n = nodes_find(f, s->node_id);
    const char *why = unacceptable(s);

    (void) a;
    (void) raw;
    if (!n) {
        res->code = FSM_NOT_FOUND;
        return 0;
    }
    if (n->removed)
        why = "the node was removed from the cluster: its id is used up";
    else if (!why && n->bound && memcmp(n->disk, s->disk.data, sizeof(n->disk)) != 0)
        why = "the node's id belongs to another data directory";
    if (why) {
        refuse(res, why);
        return 0;
    }
    if (!news(n, s))
        return 0;
    memcpy(n->disk, s->disk.data, sizeof(n->disk));
    n->bound = true;
    n->feature_max = s->feature_max;
    if (s->peer_address.len > 0)
        nodes_set_peer_address(n, s->peer_address);
    if (s->client_address.len > 0)
        nodes_set_client_address(n, s->client_address);
    ASSERT(res->code == FSM_OK);
    return nodes_put(f, n);
}
