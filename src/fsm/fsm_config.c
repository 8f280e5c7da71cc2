/* CONFIG entries: who the members are, and that an id once used stays used.
 *
 * Raft decides which configuration is in force; here the applied ones leave what must outlive the
 * log: the last configuration's bytes and a record of every member there ever was. They travel in
 * snapshots (W15, M34). Whether a configuration may follow another was decided before it was
 * appended; here it is recorded.
 * Thread: the loop. */
#include "fsm/fsm_internal.h"

#include <errno.h>
#include <inttypes.h>

#define CONFIG_VERSION 1

static int check_members(const Chronos__Internal__V1__RaftConfig *c, struct errtext *reterr) {
    uint64_t before = 0;

    for (size_t i = 0; i < c->n_members; i++) {
        const Chronos__Internal__V1__RaftMember *m = c->members[i];

        if (m->id <= before) {
            errtext_set(reterr, "configuration: member %zu: ids must be > 0, sorted and unique", i);
            return ERR_PROTO;
        }
        if (strlen(m->address) > FSM_ADDRESS_BYTES_MAX) {
            errtext_set(reterr, "configuration: member %" PRIu64 ": address longer than %d bytes",
                        m->id, FSM_ADDRESS_BYTES_MAX);
            return ERR_PROTO;
        }
        before = m->id;
    }
    return 0;
}

int config_unpack(struct slice bytes, struct arena *arena, Chronos__Internal__V1__RaftConfig **ret,
                  struct errtext *reterr) {
    Chronos__Internal__V1__RaftConfig *c;
    ProtobufCMessage *m;
    int r;

    ASSERT(ret);
    r = store_unpack(&chronos__internal__v1__raft_config__descriptor, bytes, arena, &m);
    if (r == ERR_CORRUPT) {
        errtext_set(reterr, "configuration of %zu bytes: malformed", bytes.len);
        return ERR_PROTO;
    }
    if (r < 0)
        return r;
    c = (Chronos__Internal__V1__RaftConfig *) (void *) m;
    if (c->version != CONFIG_VERSION) {
        errtext_set(reterr, "configuration of version %" PRIu32 ": this program knows %d",
                    c->version, CONFIG_VERSION);
        return ERR_VERSION;
    }
    *ret = c;
    return check_members(c, reterr);
}

/* The member of that id, or NULL. */
static const Chronos__Internal__V1__RaftMember *
member_of(const Chronos__Internal__V1__RaftConfig *c, uint64_t id) {
    for (size_t i = 0; c && i < c->n_members; i++)
        if (c->members[i]->id == id)
            return c->members[i];
    return NULL;
}

static int take_member(struct fsm *f, const Chronos__Internal__V1__RaftMember *m,
                       const Chronos__Internal__V1__RaftMember *before) {
    struct fsm_node *n = nodes_find(f, m->id);
    bool known = n && !n->removed;

    if (known && before && strcmp(before->address, m->address) == 0)
        return 0;
    if (!n)
        n = nodes_new(f, m->id);
    if (!n)
        return -ENOMEM;
    n->removed = false;
    nodes_set_peer_address(n, slice_of(m->address, strlen(m->address)));
    return nodes_put(f, n);
}

static int take_config(struct fsm *f, struct apply *a, struct slice bytes) {
    Chronos__Internal__V1__RaftConfig *now, *before = NULL;
    int r;

    r = config_unpack(bytes, &f->arena, &now, a->err);
    if (r == 0 && f->config.len > 0)
        r = config_unpack(slice_of(f->config.data, f->config.len), &f->arena, &before, a->err);
    for (size_t i = 0; r == 0 && i < now->n_members; i++)
        r = take_member(f, now->members[i], member_of(before, now->members[i]->id));
    for (struct fsm_node *n = f->nodes_first; r == 0 && n; n = n->next) {
        if (n->removed || member_of(now, n->id))
            continue;
        n->removed = true;
        r = nodes_put(f, n);
    }
    if (r < 0)
        return r;
    buf_clear(&f->config);
    return buf_append(&f->config, bytes.data, bytes.len);
}

int fsm_apply_config(struct fsm *f, uint64_t index, uint64_t term, struct slice config,
                     const struct fsm_output **ret, struct errtext *reterr) {
    struct apply a = {.index = index, .err = reterr, .now_ms = f->last_now_ms};
    int r;

    apply_begin(f, index, term);
    r = take_config(f, &a, config);
    if (r == 0) {
        f->config_index = index;
        f->output.nodes_changed = true;
    }
    return apply_end(f, &a, term, r, ret);
}
