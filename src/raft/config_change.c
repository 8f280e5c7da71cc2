/* Configuration changes as values: what may follow what.
 *
 * Section 6: "the cluster first switches to a transitional configuration we call joint consensus;
 * once the joint consensus has been committed, the system then transitions to the new
 * configuration." Sets of voters change in no other way here, also for one server at a time; what
 * does not touch a majority (learners, wishes, addresses) changes at once.
 * Pure: no struct raft. Errors: ERR_CONFIG with the reason for a person. */
#include <string.h>

#include "raft/raft_internal.h"

#define ULL(x) ((unsigned long long) (x))

static struct raft_member *find(struct raft_config *c, uint64_t id) {
    for (size_t i = 0; i < c->count; i++) {
        if (c->members[i].id == id)
            return &c->members[i];
    }
    return NULL;
}

static int refuse_joint(const struct raft_config *c, struct errtext *reterr) {
    ASSERT(c);
    ASSERT(c->count <= RAFT_NODES_MAX);
    if (!c->joint)
        return 0;
    errtext_set(reterr, "another change of the voters is under way; only one may be open");
    return ERR_CONFIG;
}

/* A copy of @address with zeros behind it; 0 or ERR_CONFIG. */
static int address_set(struct raft_member *m, const char *address, struct errtext *reterr) {
    size_t len;

    ASSERT(address);
    len = strlen(address);
    if (len >= RAFT_ADDRESS_BYTES_MAX) {
        errtext_set(reterr, "address of node %llu has %zu bytes, at most %d allowed", ULL(m->id),
                    len, RAFT_ADDRESS_BYTES_MAX - 1);
        return ERR_CONFIG;
    }
    memset(m->address, 0, sizeof(m->address));
    memcpy(m->address, address, len);
    return 0;
}

static int learner_of(struct raft_config *c, uint64_t id, struct raft_member **ret,
                      struct errtext *reterr) {
    struct raft_member *m = find(c, id);

    ASSERT(ret);
    if (!m) {
        errtext_set(reterr, "node %llu is no member", ULL(id));
        return ERR_CONFIG;
    }
    if (raft_member_votes(m)) {
        errtext_set(reterr, "node %llu is a voter, not a learner", ULL(id));
        return ERR_CONFIG;
    }
    *ret = m;
    return 0;
}

static int promote_set(struct raft_config *c, struct raft_member *m, bool promote,
                       uint64_t replaces, struct errtext *reterr) {
    const struct raft_member *old = replaces ? raft_config_find(c, replaces) : NULL;

    ASSERT(m);
    ASSERT(promote || replaces == 0);
    if (replaces && (!old || !(old->flags & RAFT_MEMBER_VOTER))) {
        errtext_set(reterr, "node %llu cannot replace node %llu, which is no voter", ULL(m->id),
                    ULL(replaces));
        return ERR_CONFIG;
    }
    m->flags = RAFT_MEMBER_LEARNER | (promote ? RAFT_MEMBER_PROMOTE : 0);
    m->replaces = replaces;
    return 0;
}

int raft_config_add_learner(const struct raft_config *c, uint64_t id, const char *address,
                            bool promote, uint64_t replaces, struct raft_config *ret,
                            struct errtext *reterr) {
    struct raft_config to = *c;
    size_t at = to.count;
    int rc = refuse_joint(c, reterr);

    ASSERT(ret);
    if (rc < 0)
        return rc;
    if (id == 0) {
        errtext_set(reterr, "node ids begin at 1");
        return ERR_CONFIG;
    }
    if (find(&to, id)) {
        errtext_set(reterr, "node %llu is a member already", ULL(id));
        return ERR_CONFIG;
    }
    if (to.count == RAFT_NODES_MAX) {
        errtext_set(reterr, "a cluster has at most %d members", RAFT_NODES_MAX);
        return ERR_CONFIG;
    }
    for (; at > 0 && to.members[at - 1].id > id; at--)
        to.members[at] = to.members[at - 1];
    to.members[at] = (struct raft_member){.id = id, .flags = RAFT_MEMBER_LEARNER};
    to.count++;
    rc = address_set(&to.members[at], address, reterr);
    if (rc == 0)
        rc = promote_set(&to, &to.members[at], promote, replaces, reterr);
    if (rc == 0)
        *ret = to;
    return rc;
}

/* Without the member, and without anybody's wish to replace it. */
static void forget(struct raft_config *c, uint64_t id) {
    size_t n = 0;

    ASSERT(c->count <= RAFT_NODES_MAX);
    for (size_t i = 0; i < c->count; i++) {
        if (c->members[i].id == id)
            continue;
        c->members[n] = c->members[i];
        if (c->members[n].replaces == id)
            c->members[n].replaces = 0;
        n++;
    }
    memset(&c->members[n], 0, (c->count - n) * sizeof(c->members[0]));
    c->count = n;
}

int raft_config_remove_learner(const struct raft_config *c, uint64_t id, struct raft_config *ret,
                               struct errtext *reterr) {
    struct raft_config to = *c;
    struct raft_member *m;
    int rc = refuse_joint(c, reterr);

    ASSERT(ret);
    if (rc == 0)
        rc = learner_of(&to, id, &m, reterr);
    if (rc < 0)
        return rc;
    forget(&to, id);
    *ret = to;
    return 0;
}

int raft_config_set_address(const struct raft_config *c, uint64_t id, const char *address,
                            struct raft_config *ret, struct errtext *reterr) {
    struct raft_config to = *c;
    struct raft_member *m = find(&to, id);
    int rc;

    ASSERT(ret);
    if (!m) {
        errtext_set(reterr, "node %llu is no member", ULL(id));
        return ERR_CONFIG;
    }
    rc = address_set(m, address, reterr);
    if (rc == 0)
        *ret = to;
    return rc;
}

int raft_config_set_promote(const struct raft_config *c, uint64_t id, bool promote,
                            uint64_t replaces, struct raft_config *ret, struct errtext *reterr) {
    struct raft_config to = *c;
    struct raft_member *m;
    int rc = refuse_joint(c, reterr);

    ASSERT(ret);
    if (rc == 0)
        rc = learner_of(&to, id, &m, reterr);
    if (rc == 0)
        rc = promote_set(&to, m, promote, replaces, reterr);
    if (rc == 0)
        *ret = to;
    return rc;
}

static int voters_check(const struct raft_config *c, const uint64_t *voters, size_t count,
                        struct errtext *reterr) {
    ASSERT(voters || count == 0);
    if (count == 0) {
        errtext_set(reterr, "a cluster needs at least one voter");
        return ERR_CONFIG;
    }
    for (size_t i = 0; i < count; i++) {
        for (size_t j = 0; j < i; j++) {
            if (voters[j] == voters[i]) {
                errtext_set(reterr, "node %llu is named twice as a voter", ULL(voters[i]));
                return ERR_CONFIG;
            }
        }
        if (!raft_config_find(c, voters[i])) {
            errtext_set(reterr, "node %llu is no member: add it as a learner first",
                        ULL(voters[i]));
            return ERR_CONFIG;
        }
    }
    return 0;
}

static bool contains(const uint64_t *ids, size_t count, uint64_t id) {
    for (size_t i = 0; i < count; i++) {
        if (ids[i] == id)
            return true;
    }
    return false;
}

int raft_config_enter_joint(const struct raft_config *c, const uint64_t *voters, size_t count,
                            bool keep, struct raft_config *ret, struct errtext *reterr) {
    struct raft_config to = *c;
    bool changes = false;
    int rc = refuse_joint(c, reterr);

    ASSERT(ret);
    if (rc == 0)
        rc = voters_check(c, voters, count, reterr);
    if (rc < 0)
        return rc;
    to.joint = true;
    for (size_t i = 0; i < to.count; i++) {
        struct raft_member *m = &to.members[i];
        bool was = (m->flags & RAFT_MEMBER_VOTER) != 0;
        bool is = contains(voters, count, m->id);

        changes = changes || was != is;
        if (is) {
            m->flags = RAFT_MEMBER_VOTER | (was ? RAFT_MEMBER_VOTER_OLD : 0);
            m->replaces = 0;
        } else if (was) {
            m->flags = RAFT_MEMBER_VOTER_OLD | (keep ? RAFT_MEMBER_LEARNER : 0);
        }
    }
    if (!changes) {
        errtext_set(reterr, "these are the voters already");
        return ERR_CONFIG;
    }
    *ret = to;
    return 0;
}

int raft_config_leave_joint(const struct raft_config *c, struct raft_config *ret,
                            struct errtext *reterr) {
    struct raft_config to = *c;

    ASSERT(ret);
    if (!c->joint) {
        errtext_set(reterr, "no change of the voters is under way");
        return ERR_CONFIG;
    }
    to.joint = false;
    for (size_t i = 0; i < c->count; i++) {
        struct raft_member *m = find(&to, c->members[i].id);

        m->flags &= ~(uint32_t) RAFT_MEMBER_VOTER_OLD;
        if (m->flags == 0)
            forget(&to, m->id);
    }
    /* A learner can only wait to replace a voter. */
    for (size_t i = 0; i < to.count; i++) {
        const struct raft_member *old = raft_config_find(&to, to.members[i].replaces);

        if (!old || !(old->flags & RAFT_MEMBER_VOTER))
            to.members[i].replaces = 0;
    }
    *ret = to;
    return 0;
}

/* ---- what may follow what ------------------------------------------------------------------- */

bool raft_config_valid(const struct raft_config *c, struct errtext *reterr) {
    uint64_t before = 0;
    bool voter = false;
    bool joint = false;

    ASSERT(c);
    if (c->count == 0 || c->count > RAFT_NODES_MAX) {
        errtext_set(reterr, "%zu members, 1 to %d allowed", c->count, RAFT_NODES_MAX);
        return false;
    }
    for (size_t i = 0; i < c->count; i++) {
        const struct raft_member *m = &c->members[i];

        if (m->id <= before || !raft_config_flags_valid(m->flags) ||
            (m->replaces != 0 && !(m->flags & RAFT_MEMBER_PROMOTE)) ||
            strnlen(m->address, RAFT_ADDRESS_BYTES_MAX) == RAFT_ADDRESS_BYTES_MAX) {
            errtext_set(reterr, "member %zu (node %llu, flags 0x%x) is not well-formed", i,
                        ULL(m->id), m->flags);
            return false;
        }
        before = m->id;
        voter = voter || (m->flags & RAFT_MEMBER_VOTER);
        joint = joint || (m->flags & RAFT_MEMBER_VOTER_OLD);
    }
    if (!voter || joint != c->joint) {
        errtext_set(reterr, "%s",
                    voter ? "joint without outgoing voters" : "no voter would be left");
        return false;
    }
    return true;
}

/* Everything but addresses is the same. */
static bool same_roles(const struct raft_config *a, const struct raft_config *b) {
    if (a->count != b->count || a->joint != b->joint)
        return false;
    for (size_t i = 0; i < a->count; i++) {
        if (a->members[i].id != b->members[i].id || a->members[i].flags != b->members[i].flags ||
            a->members[i].replaces != b->members[i].replaces)
            return false;
    }
    return true;
}

/* Who has @flag in one is exactly who has @other in the other. */
static bool same_set(const struct raft_config *a, uint32_t flag, const struct raft_config *b,
                     uint32_t other) {
    size_t in_a = 0;
    size_t in_b = 0;

    for (size_t i = 0; i < b->count; i++)
        in_b += (b->members[i].flags & other) ? 1 : 0;
    for (size_t i = 0; i < a->count; i++) {
        const struct raft_member *m;

        if (!(a->members[i].flags & flag))
            continue;
        in_a++;
        m = raft_config_find(b, a->members[i].id);
        if (!m || !(m->flags & other))
            return false;
    }
    return in_a == in_b;
}

int raft_config_check_change(const struct raft_config *from, const struct raft_config *to,
                             struct errtext *reterr) {
    struct raft_config final;

    ASSERT(from);
    ASSERT(to);
    if (!raft_config_valid(to, reterr))
        return ERR_CONFIG;
    if (same_roles(from, to))
        return 0;
    if (from->joint) {
        if (raft_config_leave_joint(from, &final, NULL) == 0 && same_roles(&final, to))
            return 0;
        errtext_set(reterr, "a joint configuration can only be left for the one it leads to");
        return ERR_CONFIG;
    }
    if (same_set(from, RAFT_MEMBER_VOTER, to,
                 to->joint ? RAFT_MEMBER_VOTER_OLD : RAFT_MEMBER_VOTER))
        return 0;
    errtext_set(reterr, "%s",
                to->joint ? "the outgoing half is not the present voters"
                          : "voters change only through a joint configuration");
    return ERR_CONFIG;
}
