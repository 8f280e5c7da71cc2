/* AppendEntries, receiver (figure 2):
 *
 * "2. Reply false if log doesn't contain an entry at prevLogIndex whose term matches prevLogTerm.
 *  3. If an existing entry conflicts with a new one (same index but different terms), delete the
 *     existing entry and all that follow it.
 *  4. Append any new entries not already in the log.
 *  5. If leaderCommit > commitIndex, set commitIndex = min(leaderCommit, index of last new entry)."
 *
 * The acknowledgement says prev + number of entries, whatever else this log holds (M41): only that
 * much is known to equal the leader's. Entries behind the request are left alone (M12). */
#include "raft/raft_internal.h"

/* The content of the message in itself. */
static bool entries_are_sane(const struct raft_message *m) {
    uint64_t term = m->log_term;

    ASSERT(m->entries || m->entries_count == 0);
    if ((m->log_index == 0) != (m->log_term == 0) || m->log_term > m->term)
        return false;
    for (size_t i = 0; i < m->entries_count; i++) {
        const struct raft_entry *e = &m->entries[i];

        if (e->index != m->log_index + 1 + i || e->term < term || e->term == 0 || e->term > m->term)
            return false;
        if (e->type != RAFT_ENTRY_NOOP && e->type != RAFT_ENTRY_CONFIG &&
            e->type != RAFT_ENTRY_COMMAND)
            return false;
        if ((e->type == RAFT_ENTRY_NOOP) != (e->data == NULL) && e->type != RAFT_ENTRY_COMMAND)
            return false;
        term = e->term;
    }
    return true;
}

/* 5.3: "the follower can include the term of the conflicting entry and the first index it stores
 * for that term". The newest entry of ours whose term is not above the leader's at that place; both
 * sides skip whole terms. What is committed here matches for sure, so the hint never points below
 * it, and memory always reaches that far. */
static void reject_prev(struct raft *r, const struct raft_message *m) {
    uint64_t last = raft_log_last_index(&r->log);
    uint64_t hint = raft_log_find_term(&r->log, MIN(m->log_index, last), m->log_term);
    uint64_t hint_term;
    bool known;

    ASSERT(m->log_index > r->commit);
    hint = MAX(hint, r->commit);
    known = raft_log_term(&r->log, hint, &hint_term);
    ASSERT(known);
    raft_effects_send(r, (struct raft_message){.type = RAFT_MSG_APPEND_RESP,
                                               .to = m->from,
                                               .reject = true,
                                               .log_index = m->log_index,
                                               .hint_index = hint,
                                               .hint_term = hint_term,
                                               .session = m->session});
}

/* Rules 3 and 4. False after raft_fail(). */
static bool store_entries(struct raft *r, const struct raft_message *m) {
    size_t i = 0;
    uint64_t term;

    ASSERT(r->role == RAFT_FOLLOWER);

    /* Skip what is here already: committed (maybe no longer in memory), or of the same term. */
    for (; i < m->entries_count; i++) {
        const struct raft_entry *e = &m->entries[i];

        if (e->index > raft_log_last_index(&r->log))
            break;
        if (raft_log_term(&r->log, e->index, &term) && term != e->term)
            break;
        ASSERT(raft_log_at(&r->log, e->index) || e->index <= r->commit);
    }
    if (i == m->entries_count)
        return true;
    if (m->entries[i].index <= r->commit) {
        raft_fail(r, ERR_CORRUPT); /* a leader lacks a committed entry: stop, do not cut (R14) */
        return false;
    }
    if (m->entries[i].index <= raft_log_last_index(&r->log))
        raft_effects_truncate(r, m->entries[i].index);
    r->append_first = m->entries[i].index;
    for (; i < m->entries_count; i++) {
        const struct raft_entry *e = &m->entries[i];
        int rc = raft_log_append(&r->log, e);

        if (rc == 0 && e->type == RAFT_ENTRY_CONFIG) {
            struct raft_config c;

            rc = raft_config_decode(bytes_slice(e->data), &c, NULL);
            if (rc == 0)
                raft_config_push(r, e->index, &c);
            else if (rc == ERR_PROTO)
                rc = ERR_CORRUPT;
        }
        if (rc < 0) {
            raft_fail(r, rc);
            return false;
        }
    }
    return true;
}

void raft_recv_append_req(struct raft *r, const struct raft_message *m) {
    uint64_t match = m->log_index + m->entries_count;
    uint64_t term;
    bool known;

    ASSERT(m->type == RAFT_MSG_APPEND_REQ);
    ASSERT(m->term == r->term);

    if (!entries_are_sane(m) || !raft_recv_follow(r, m))
        return;

    /* Rule 2. Below memory everything is committed, hence equal to the leader's. */
    known = raft_log_term(&r->log, m->log_index, &term);
    if (m->log_index > r->commit && (!known || term != m->log_term)) {
        reject_prev(r, m);
        return;
    }
    if (known && term != m->log_term) {
        raft_fail(r, ERR_CORRUPT);
        return;
    }
    if (!store_entries(r, m))
        return;
    /* Rule 5, capped by what this message has checked (M44). */
    raft_replication_set_commit(r, MIN(m->commit, match));
    raft_effects_send(r, (struct raft_message){.type = RAFT_MSG_APPEND_RESP,
                                               .to = m->from,
                                               .match = match,
                                               .session = m->session,
                                               .after_seq = RAFT_AFTER_NEWEST});
}
