/* Cluster configurations: their bytes, their majorities, and which one is in force.
 *
 * Section 6: "a server always uses the latest configuration in its log, regardless of whether the
 * entry is committed." So a truncation must bring the former one back (mutant M23), and a restart
 * must not take an uncommitted one for committed (M46): both are a short stack here. */
#include "raft/raft_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "chronos/internal/v1/raft.pb-c.h"

#define CONFIG_VERSION 1

struct bytes *raft_config_encode(const struct raft_config *c) {
    Chronos__Internal__V1__RaftMember members[RAFT_NODES_MAX];
    Chronos__Internal__V1__RaftMember *pointers[RAFT_NODES_MAX];
    Chronos__Internal__V1__RaftConfig pb = CHRONOS__INTERNAL__V1__RAFT_CONFIG__INIT;
    char addresses[RAFT_NODES_MAX][RAFT_ADDRESS_BYTES_MAX];
    struct bytes *b;
    size_t len;

    ASSERT(c);
    ASSERT(c->count <= RAFT_NODES_MAX);

    for (size_t i = 0; i < c->count; i++) {
        ASSERT(strnlen(c->members[i].address, RAFT_ADDRESS_BYTES_MAX) < RAFT_ADDRESS_BYTES_MAX);
        memcpy(addresses[i], c->members[i].address, RAFT_ADDRESS_BYTES_MAX);
        chronos__internal__v1__raft_member__init(&members[i]);
        members[i].id = c->members[i].id;
        members[i].flags = c->members[i].flags;
        members[i].address = addresses[i];
        members[i].replaces = c->members[i].replaces;
        pointers[i] = &members[i];
    }
    pb.version = CONFIG_VERSION;
    pb.n_members = c->count;
    pb.members = pointers;
    len = chronos__internal__v1__raft_config__get_packed_size(&pb);
    b = bytes_new(len);
    if (!b)
        return NULL;
    (void) chronos__internal__v1__raft_config__pack(&pb, b->data);
    return b;
}

static int member_decode(const Chronos__Internal__V1__RaftMember *m, size_t i, uint64_t id_before,
                         struct raft_member *ret, struct errtext *reterr) {
    size_t len;

    ASSERT(m);
    ASSERT(ret);

    len = strlen(m->address);
    if (m->id <= id_before) {
        errtext_set(reterr, "config member %zu: ids must be > 0, sorted and unique", i);
        return ERR_PROTO;
    }
    if (len >= RAFT_ADDRESS_BYTES_MAX) {
        errtext_set(reterr, "config member %zu: address of %zu bytes, at most %d allowed", i, len,
                    RAFT_ADDRESS_BYTES_MAX - 1);
        return ERR_PROTO;
    }
    if (!raft_config_flags_valid(m->flags)) {
        errtext_set(reterr, "config member %zu: flags 0x%x are no valid role", i, m->flags);
        return ERR_PROTO;
    }
    if (m->replaces != 0 && !(m->flags & RAFT_MEMBER_PROMOTE)) {
        errtext_set(reterr, "config member %zu: replaces %llu without being about to be promoted",
                    i, (unsigned long long) m->replaces);
        return ERR_PROTO;
    }
    *ret = (struct raft_member){.id = m->id, .flags = m->flags, .replaces = m->replaces};
    memcpy(ret->address, m->address, len);
    return 0;
}

static int config_decode(const Chronos__Internal__V1__RaftConfig *pb, struct raft_config *ret,
                         struct errtext *reterr) {
    struct raft_config c = {0};
    bool voter = false;

    ASSERT(pb);
    ASSERT(ret);

    if (pb->version != CONFIG_VERSION) {
        errtext_set(reterr, "config version %u, this program knows %d", pb->version,
                    CONFIG_VERSION);
        return ERR_PROTO;
    }
    if (pb->n_members == 0 || pb->n_members > RAFT_NODES_MAX) {
        errtext_set(reterr, "config of %zu members, 1 to %d allowed", pb->n_members,
                    RAFT_NODES_MAX);
        return ERR_PROTO;
    }
    for (size_t i = 0; i < pb->n_members; i++) {
        uint64_t before = i > 0 ? c.members[i - 1].id : 0;
        int rc = member_decode(pb->members[i], i, before, &c.members[i], reterr);

        if (rc < 0)
            return rc;
        voter = voter || (c.members[i].flags & RAFT_MEMBER_VOTER);
        c.joint = c.joint || (c.members[i].flags & RAFT_MEMBER_VOTER_OLD);
    }
    if (!voter) {
        errtext_set(reterr, "config without a voter");
        return ERR_PROTO;
    }
    c.count = pb->n_members;
    *ret = c;
    return 0;
}

/* protobuf-c answers NULL for bad bytes and for no memory alike; this allocator can tell. */
struct decode_memory {
    bool failed;
};

static void *decode_alloc(void *ctx, size_t bytes) {
    struct decode_memory *m = ctx;
    void *p = malloc(bytes);

    if (!p)
        m->failed = true;
    return p;
}

static void decode_free(void *ctx, void *p) {
    (void) ctx;
    free(p);
}

int raft_config_decode(struct slice data, struct raft_config *ret, struct errtext *reterr) {
    struct decode_memory memory = {0};
    ProtobufCAllocator allocator = {
        .alloc = decode_alloc, .free = decode_free, .allocator_data = &memory};
    Chronos__Internal__V1__RaftConfig *pb;
    int rc;

    ASSERT(ret);
    ASSERT(data.data || data.len == 0);

    pb = chronos__internal__v1__raft_config__unpack(&allocator, data.len, data.data);
    if (!pb && memory.failed)
        return -ENOMEM;
    if (!pb) {
        errtext_set(reterr, "config entry of %zu bytes is no protobuf RaftConfig", data.len);
        return ERR_PROTO;
    }
    rc = config_decode(pb, ret, reterr);
    chronos__internal__v1__raft_config__free_unpacked(pb, &allocator);
    return rc;
}

const struct raft_member *raft_config_find(const struct raft_config *c, uint64_t id) {
    ASSERT(c);
    ASSERT(c->count <= RAFT_NODES_MAX);
    for (size_t i = 0; i < c->count; i++) {
        if (c->members[i].id == id)
            return &c->members[i];
    }
    return NULL;
}

bool raft_config_is_voter(const struct raft_config *c, uint64_t id) {
    const struct raft_member *m = raft_config_find(c, id);

    return m && raft_member_votes(m);
}

/* The value that a majority of the members with @flag has reached: sort descending, take the one at
 * position n/2. Two of four are no majority: position 2 is the third largest. */
static uint64_t majority_value(const struct raft_config *c, const uint64_t *values, uint32_t flag) {
    uint64_t sorted[RAFT_NODES_MAX];
    size_t n = 0;

    ASSERT(c->count <= RAFT_NODES_MAX);
    ASSERT(values);

    for (size_t i = 0; i < c->count; i++) {
        size_t at = n;

        if (!(c->members[i].flags & flag))
            continue;
        while (at > 0 && sorted[at - 1] < values[i]) {
            sorted[at] = sorted[at - 1];
            at--;
        }
        sorted[at] = values[i];
        n++;
    }
    return n == 0 ? UINT64_MAX : sorted[n / 2];
}

uint64_t raft_config_quorum_value(const struct raft_config *c, const uint64_t *values) {
    uint64_t incoming = majority_value(c, values, RAFT_MEMBER_VOTER);

    ASSERT(c);
    if (!c->joint)
        return incoming;
    /* "Agreement (for elections and entry commitment) requires separate majorities from both the
     * old and new configurations." */
    return MIN(incoming, majority_value(c, values, RAFT_MEMBER_VOTER_OLD));
}

const struct raft_config *raft_config_current(const struct raft *r) {
    ASSERT(r->configs);
    ASSERT(r->configs_count > 0);
    return &r->configs[r->configs_count - 1].config;
}

bool raft_config_may_campaign(const struct raft *r) {
    ASSERT(r->configs_count > 0);
    /* The first is committed, those behind it are not. */
    for (size_t i = 0; i < r->configs_count; i++)
        if (raft_config_is_voter(&r->configs[i].config, r->options.id))
            return true;
    return false;
}

void raft_config_push(struct raft *r, uint64_t index, const struct raft_config *c) {
    ASSERT(c);
    ASSERT(r->configs_count == 0 || index > r->configs[r->configs_count - 1].index);

    if (!raft_effects_grow(r, (void **) &r->configs, &r->configs_cap, r->configs_count,
                           sizeof(*r->configs)))
        return;
    r->configs[r->configs_count].index = index;
    r->configs[r->configs_count].config = *c;
    r->configs_count++;
    if (r->role == RAFT_LEADER) {
        raft_progress_rebuild(r);
        raft_lease_void(r);
    }
}

void raft_config_replace(struct raft *r, uint64_t index, const struct raft_config *c) {
    ASSERT(r->role != RAFT_LEADER);
    ASSERT(index <= r->commit);
    r->configs_count = 0;
    raft_config_push(r, index, c);
}

void raft_config_rollback(struct raft *r, uint64_t from) {
    ASSERT(from > r->commit);
    ASSERT(r->configs_count > 0);
    while (r->configs_count > 1 && r->configs[r->configs_count - 1].index >= from)
        r->configs_count--;
}

void raft_config_settle(struct raft *r) {
    size_t drop = 0;

    ASSERT(r->configs_count > 0);
    while (drop + 1 < r->configs_count && r->configs[drop + 1].index <= r->commit)
        drop++;
    if (drop == 0)
        return;
    r->configs_count -= drop;
    memmove(r->configs, r->configs + drop, r->configs_count * sizeof(*r->configs));
}
