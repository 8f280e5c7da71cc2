/* ReadIndex between nodes (dissertation 6.4: "followers [...] issue a request to the leader just
 * asking for its current readIndex (the leader would execute steps 1-3)"). */
#include "raft/raft_internal.h"

void raft_recv_read_index_req(struct raft *r, const struct raft_message *m) {
    ASSERT(m->type == RAFT_MSG_READ_INDEX_REQ);
    ASSERT(m->term == r->term);

    if (m->context == 0)
        return;
    if (r->role != RAFT_LEADER) {
        raft_effects_send(r, (struct raft_message){.type = RAFT_MSG_READ_INDEX_RESP,
                                                   .to = m->from,
                                                   .context = m->context,
                                                   .reject = true});
        return;
    }
    if (raft_progress_find(r, m->from))
        raft_read_index_add(r, m->from, m->context);
}

void raft_recv_read_index_resp(struct raft *r, const struct raft_message *m) {
    ASSERT(m->type == RAFT_MSG_READ_INDEX_RESP);
    ASSERT(m->term == r->term);

    /* An answer counts only for the request that is outstanding in this term (M14, M30). */
    if (r->role != RAFT_FOLLOWER || m->from != r->leader || r->read_request == 0 ||
        m->context != r->read_request)
        return;
    raft_read_index_answered(r, !m->reject, m->log_index);
}
