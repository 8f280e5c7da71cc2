/* A disk that neither works nor fails (W17).
 *
 * A leader can go on committing with its followers' disks alone, but what waits for its own (its
 * answers to clients, which come from its applied state) hangs with it. So it hands over, and when
 * that does not help it steps down and leaves the choice to the others; it does not campaign until
 * the disk has answered. A lone voter has nobody to hand over to. */
#include "raft/raft_internal.h"

static struct mono oldest(const struct raft *r) {
    ASSERT(r->batches_count > 0);
    return r->batches[r->batches_head].at;
}

bool raft_disk_stalled(const struct raft *r) {
    ASSERT(r->batches_head + r->batches_count <= r->batches_cap);
    return r->options.disk_stall_ns > 0 && r->batches_count > 0 &&
           mono_diff_ns(r->now, oldest(r)) >= r->options.disk_stall_ns;
}

static bool other_voters(const struct raft *r) {
    const struct raft_config *c = raft_config_current(r);

    ASSERT(c->count <= RAFT_NODES_MAX);
    for (size_t i = 0; i < c->count; i++) {
        if ((c->members[i].flags & RAFT_MEMBER_VOTER) && c->members[i].id != r->options.id)
            return true;
    }
    return false;
}

void raft_disk_stall_timeout(struct raft *r) {
    ASSERT(r->role == RAFT_LEADER);
    if (!raft_disk_stalled(r) || !other_voters(r))
        return;
    if (mono_diff_ns(r->now, oldest(r)) / 2 >= r->options.disk_stall_ns)
        raft_become_follower(r, r->term, 0);
    else if (r->transfer_to == 0)
        raft_transfer_start(r, 0); /* nobody near: the next heartbeat looks again */
}

struct mono raft_disk_stall_deadline(const struct raft *r) {
    struct mono first;

    ASSERT(r->role == RAFT_LEADER);
    if (r->options.disk_stall_ns == 0 || r->batches_count == 0 || !other_voters(r))
        return MONO_NEVER;
    first = mono_add_ns(oldest(r), r->options.disk_stall_ns);
    return mono_reached(r->now, first) ? mono_add_ns(first, r->options.disk_stall_ns) : first;
}
