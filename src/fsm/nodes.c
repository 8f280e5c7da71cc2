/* What is agreed about the nodes: memory, sorted by id, and their records.
 *
 * Every id that ever was a member has a record, for ever: an id is used once (W15). There are as
 * many as members were ever added, so a list is enough.
 * Thread: the loop. */
#include "fsm/fsm_internal.h"

#include <stdlib.h>

/* A node with room for its texts: setting one cannot fail half way. */
struct node {
    struct fsm_node view; /* first: the list is of views */
    char peer_address[FSM_ADDRESS_BYTES_MAX + 1];
    char client_address[FSM_ADDRESS_BYTES_MAX + 1];
};
STATIC_ASSERT(offsetof(struct node, view) == 0, "a view is where its node is");
STATIC_ASSERT(RECORD_DISK_BYTES == sizeof(((struct fsm_node *) 0)->disk), "one size of a disk id");

struct fsm_node *nodes_find(const struct fsm *f, uint64_t id) {
    struct fsm_node *n = f->nodes_first;

    while (n && n->id < id)
        n = n->next;
    return n && n->id == id ? n : NULL;
}

struct fsm_node *nodes_new(struct fsm *f, uint64_t id) {
    struct node *n = calloc(1, sizeof(*n));
    struct fsm_node **at = &f->nodes_first;

    ASSERT(id > 0);
    if (!n)
        return NULL;
    n->view.id = id;
    n->view.peer_address = n->peer_address;
    n->view.client_address = n->client_address;
    while (*at && (*at)->id < id)
        at = &(*at)->next;
    ASSERT(!*at || (*at)->id != id);
    n->view.next = *at;
    *at = &n->view;
    f->nodes_count++;
    return &n->view;
}

void nodes_free_all(struct fsm *f) {
    ASSERT(f);
    while (f->nodes_first) {
        struct fsm_node *n = f->nodes_first;

        f->nodes_first = n->next;
        free(n);
    }
    f->nodes_count = 0;
}

bool nodes_address_ok(struct slice address) {
    return address.len <= FSM_ADDRESS_BYTES_MAX &&
           (address.len == 0 || !memchr(address.data, 0, address.len));
}

static void set_text(char out[FSM_ADDRESS_BYTES_MAX + 1], struct slice s) {
    ASSERT(nodes_address_ok(s));
    if (s.len > 0)
        memcpy(out, s.data, s.len);
    out[s.len] = '\0';
}

void nodes_set_peer_address(struct fsm_node *n, struct slice address) {
    set_text(((struct node *) (void *) n)->peer_address, address);
}

void nodes_set_client_address(struct fsm_node *n, struct slice address) {
    set_text(((struct node *) (void *) n)->client_address, address);
}

int nodes_put(struct fsm *f, const struct fsm_node *n) {
    struct record_node rec = {
        .node_id = n->id,
        .disk = slice_of(n->disk, n->bound ? sizeof(n->disk) : 0),
        .peer_address = slice_of(n->peer_address, strlen(n->peer_address)),
        .client_address = slice_of(n->client_address, strlen(n->client_address)),
        .feature_max = n->feature_max,
        .draining = n->draining,
        .drain_until_ms = n->drain_until_ms,
        .removed = n->removed,
    };
    uint8_t key[RECORD_NODE_KEY_BYTES];
    struct overlay_entry *e;
    int r;

    ASSERT(n->draining || n->drain_until_ms == 0);
    f->output.nodes_changed = true;
    r = record_encode(&record_shape_node, &rec, &f->encode);
    if (r == 0)
        r = store_open(f, record_node_key(n->id, key), &e);
    return r < 0 ? r : store_put(f, e, slice_of(f->encode.data, f->encode.len));
}
