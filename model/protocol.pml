/* The steps of a server, and a server that takes them in any order.
 *
 * Each `inline` that begins with a capital letter is a step; model/steps.def lists them, and the
 * simulator's src/sim/conformance_steps.c has a guard of the same name for each. A word in capitals
 * in an #ifdef is a mutation: the model with one rule broken (model/run.sh, list of mutations). */
#ifndef TERMS
#define TERMS 3
#endif
#ifndef LOG
#define LOG 3
#endif
#ifndef CRASHES
#define CRASHES 1
#endif
#ifndef COMMANDS
#define COMMANDS 1 /* clients write */
#endif
#ifndef SNAPSHOTS
#define SNAPSHOTS 0
#endif
#ifndef CHANGES
#define CHANGES 0
#endif
#ifndef SYMMETRIC
#define SYMMETRIC 1
#endif
#include "state.pml"

/* ---- elections ---- */

/* 5.2: "a follower increments its current term and transitions to candidate state. It then votes for
 * itself". At any time: timers, PreVote, stickiness and TimeoutNow only forbid or suggest it. */
#define MAY_BecomeCandidate(i) (role[i] != LEADER && term[i] < TERMS && (VOTERS(conf[i]) >> i & 1))
inline BecomeCandidate(i) {
    term[i]++;
    vote[i] = i + 1;
    role[i] = CANDIDATE;
    known[i] = 0;
    forget(i);
    retire();
#ifdef VOTE_BEFORE_DISK
    ballots[i] = 1 << i;
    spoken = (spoken < term[i] -> term[i] : spoken);
#endif
#if SYMMETRIC
    campaigned = (i == campaigned -> campaigned + 1 : campaigned)
#endif
}

/* Figure 2: "If RPC request or response contains term T > currentTerm: set currentTerm = T, convert
 * to follower". */
#define MAY_UpdateTerm(i, t) (term[i] < (t) && (t) <= spoken)
inline UpdateTerm(i, t) {
    term[i] = t;
    vote[i] = 0;
    role[i] = FOLLOWER;
    known[i] = 0;
    forget(i);
    retire()
}

/* Figure 2: "If votedFor is null or candidateId, and candidate's log is at least as up-to-date as
 * receiver's log, grant vote". */
#ifdef VOTE_WITHOUT_LOG_CHECK
#define UP_TO_DATE(i, c) true
#else
#define UP_TO_DATE(i, c) (NEWEST(c) >= NEWEST(i))
#endif
#ifdef VOTE_TWICE
#define HAS_NO_VOTE(i) (role[i] == FOLLOWER)
#else
#define HAS_NO_VOTE(i) (vote[i] == 0)
#endif
/* (A vote for a candidate that no longer waits for it is as good as lost.) */
#define MAY_GrantVote(i, c) \
    ((c) != i && ASKS(c) && term[c] == term[i] && HAS_NO_VOTE(i) && UP_TO_DATE(i, c))
inline GrantVote(i, c) {
    vote[i] = c + 1;
#ifdef VOTE_BEFORE_DISK
    ballots[c] = ballots[c] | 1 << i
#endif
}

/* Votes of a majority of its configuration, its own one from its disk; "commit a blank no-op entry
 * into the log at the start of its term". */
#define MAY_BecomeLeader(i) (ASKS(i) && last[i] < LOG && QUORUM(conf[i], ballots[i]))
inline BecomeLeader(i) {
    assert(leads[term[i] - 1] == 0 || leads[term[i] - 1] == i + 1); /* election safety */
    role[i] = LEADER;
    ballots[i] = 0;
    leads[term[i] - 1] = i + 1;
    told_commit[term[i] - 1] = commit[i]; /* of older terms, as it has learned it */
    x = 1;
    do
    :: x <= last[i] -> TOLD(term[i], x) = AT(i, x); x++
    :: else -> break
    od;
    x = 0;
    append(i, OLD);
    leader_completeness()
}

inline append(i, kind) {
    last[i]++;
    AT(i, last[i]) = ENTRY(term[i], kind);
    TOLD(term[i], last[i]) = AT(i, last[i]);
    told_last[term[i] - 1] = last[i];
    log_matching(i)
}

/* CheckQuorum, a hung disk, a leader that has left the cluster; a candidate that gives up. */
#define MAY_StepDown(i) (role[i] != FOLLOWER)
inline StepDown(i) {
    role[i] = FOLLOWER;
    forget(i)
}

/* ---- replication ---- */

#define MAY_ClientAppend(i) (COMMANDS && role[i] == LEADER && last[i] < LOG)
inline ClientAppend(i) {
    append(i, OLD)
}

/* Figure 2, AppendEntries with at most one entry: a longer one is several of these in a row.
 * A place up to the commit index is equal to the leader's, whether it is still known or not. */
#define FOLLOWS(i) (term[i] > 0 && leads[term[i] - 1] && leads[term[i] - 1] != i + 1)
#ifdef APPEND_WITHOUT_PREV_CHECK
#define PREV_FITS(i, prev) ((prev) <= last[i])
#else
#define PREV_FITS(i, prev) \
    ((prev) <= commit[i] || ((prev) <= last[i] && TERM_OF(AT(i, prev)) == TERM_OF(TOLD(term[i], prev))))
#endif
#define MAY_AppendEntries(i, prev) \
    (FOLLOWS(i) && (prev) < told_last[term[i] - 1] && PREV_FITS(i, prev) && \
     (known[i] <= (prev) || role[i] != FOLLOWER || REPEATED))
#ifdef TRUNCATE_ALWAYS
#define REPEATED true
#define CONFLICT(i, k) (last[i] >= (k))
#else
#define REPEATED false /* read again it changes nothing */
#define CONFLICT(i, k) \
    (last[i] >= (k) && (k) > SNAP(i) && TERM_OF(AT(i, k)) != TERM_OF(TOLD(term[i], k)))
#endif
inline AppendEntries(i, prev) {
    role[i] = FOLLOWER;
    ballots[i] = 0;
    if
    :: CONFLICT(i, prev + 1) -> TruncateConflict(i, prev + 1)
    :: else
    fi;
    if
    :: last[i] == prev ->
        last[i]++;
        AT(i, last[i]) = TOLD(term[i], last[i]);
        conf[i] = (KIND_OF(AT(i, last[i])) == OLD -> conf[i] : KIND_OF(AT(i, last[i])))
    :: else
    fi;
#ifdef ACK_OWN_LAST
    known[i] = last[i];
#else
    known[i] = prev + 1;
#endif
#ifdef ACK_BEFORE_DISK
    acknowledge(i);
#endif
    log_matching(i);
    state_machine_safety(i)
}

inline acknowledge(i) {
    x = leads[term[i] - 1] - 1;
    acked[x * N + i] = known[i];
    x = 0
}

inline TruncateConflict(i, from) {
    assert(from > commit[i]);
    x = from;
    do
    :: x <= last[i] -> AT(i, x) = 0; x++
    :: else -> break
    od;
    x = 0;
    last[i] = from - 1;
#ifndef CONF_NOT_ROLLED_BACK
    find_conf(i)
#endif
}

/* "set commitIndex = min(leaderCommit, index of last new entry)", by one at a time. A heartbeat
 * carries no more than was acknowledged in this term. */
#ifdef COMMIT_BEYOND_CHECKED
#define CHECKED(i) last[i]
#else
#define CHECKED(i) known[i]
#endif
#define MAY_LearnCommit(i) \
    (FOLLOWS(i) && role[i] == FOLLOWER && commit[i] < told_commit[term[i] - 1] && \
     commit[i] < CHECKED(i))
inline LearnCommit(i) {
    commit[i]++;
    state_machine_safety(i)
}

/* "If there exists an N such that N > commitIndex, a majority of matchIndex[i] >= N, and log[N].term
 * == currentTerm: set commitIndex = N". */
#ifdef COMMIT_OLD_TERM
#define OWN_TERM(i, k) true
#else
#define OWN_TERM(i, k) (TERM_OF(AT(i, k)) == term[i])
#endif
#define MAY_AdvanceCommit(i, k) \
    (role[i] == LEADER && commit[i] < (k) && (k) <= last[i] && OWN_TERM(i, k) && \
     QUORUM(conf[i], HOLDERS(i, k)))
inline AdvanceCommit(i, k) {
    x = commit[i] + 1;
    do
    :: x <= k ->
        if
        :: x > done ->
            done = x;
            done_log[x - 1] = AT(i, x);
            done_in[x - 1] = term[i]
        :: else ->
            done_in[x - 1] = (done_in[x - 1] > term[i] -> term[i] : done_in[x - 1])
        fi;
        x++
    :: else -> break
    od;
    x = 0;
    commit[i] = k;
    told_commit[term[i] - 1] = k;
    state_machine_safety(i);
    leader_completeness();
    never_lost()
}

/* ---- membership (section 6) ---- */

#if CHANGES
/* One change at a time, after an entry of the own term is committed. */
#define CONF_COMMITTED(i) \
    ((LOG < 1 || last[i] < 1 || commit[i] >= 1 || KIND_OF(AT(i, 1)) == OLD) && \
     (LOG < 2 || last[i] < 2 || commit[i] >= 2 || KIND_OF(AT(i, 2)) == OLD) && \
     (LOG < 3 || last[i] < 3 || commit[i] >= 3 || KIND_OF(AT(i, 3)) == OLD) && \
     (LOG < 4 || last[i] < 4 || commit[i] >= 4 || KIND_OF(AT(i, 4)) == OLD) && \
     (LOG < 5 || last[i] < 5 || commit[i] >= 5 || KIND_OF(AT(i, 5)) == OLD))
#define OWN_COMMITTED(i) (commit[i] > 0 && TERM_OF(AT(i, commit[i])) == term[i])

#define MAY_EnterJoint(i) \
    (role[i] == LEADER && last[i] < LOG && changes < CHANGES && conf[i] == OLD && \
     CONF_COMMITTED(i) && OWN_COMMITTED(i))
inline EnterJoint(i) {
    changes++;
#ifdef CHANGE_AT_ONCE
    append(i, NEW);
#else
    append(i, JOINT);
#endif
    find_conf(i)
}

#ifdef LEAVE_JOINT_EARLY
#define MAY_LeaveJoint(i) (role[i] == LEADER && last[i] < LOG && conf[i] == JOINT)
#else
#define MAY_LeaveJoint(i) \
    (role[i] == LEADER && last[i] < LOG && conf[i] == JOINT && CONF_COMMITTED(i) && OWN_COMMITTED(i))
#endif
inline LeaveJoint(i) {
    /* one uncommitted configuration: nobody has two that no leader has committed */
    append(i, NEW);
    find_conf(i);
    one_open_change(i)
}

inline one_open_change(i) {
    a = done + 1; b = 0;
    do
    :: a <= last[i] ->
        if
        :: KIND_OF(AT(i, a)) != OLD -> b++
        :: else
        fi;
        a++
    :: else -> break
    od;
    assert(b <= 1);
    a = 0; b = 0
}
#endif

/* ---- snapshots (section 7) ---- */

#if SNAPSHOTS
#ifdef SNAPSHOT_BEYOND_COMMIT
#define COVERED(i) last[i]
#define SENT_STATE(t) told_last[(t) - 1]
#else
#define COVERED(i) commit[i]
#define SENT_STATE(t) told_commit[(t) - 1]
#endif
/* The state up to k is durable by itself; the log before may go. */
#define MAY_Snapshot(i, k) (snap[i] < (k) && (k) <= COVERED(i) && (k) <= d_last[i] && D_AT(i, k) == AT(i, k))
inline Snapshot(i, k) {
    snap[i] = k;
    d_snap[i] = k;
    state_machine_safety(i)
}

/* Figure 13: "If existing log entry has same index and term as snapshot's last included entry,
 * retain log entries following it". */
#ifdef INSTALL_DROPS_TAIL
#define RETAINS(i, k) false
#else
#define RETAINS(i, k) (last[i] >= (k) && TERM_OF(AT(i, k)) == TERM_OF(TOLD(term[i], k)))
#endif
#define MAY_InstallSnapshot(i, k) (FOLLOWS(i) && commit[i] < (k) && (k) <= SENT_STATE(term[i]))
inline InstallSnapshot(i, k) {
    role[i] = FOLLOWER;
    ballots[i] = 0;
    if
    :: RETAINS(i, k)
    :: else ->
        x = 1;
        do
        :: x <= LOG ->
            if
            :: x <= k -> AT(i, x) = TOLD(term[i], x)
            :: else ->
#ifndef INSTALL_KEEPS_TAIL
                AT(i, x) = 0
#else
                skip
#endif
            fi;
            x++
        :: else -> break
        od;
        x = 0;
#ifdef INSTALL_KEEPS_TAIL
        if
        :: last[i] < k -> last[i] = k
        :: else
        fi;
#else
        last[i] = k;
#endif
        snap[i] = k
    fi;
    find_conf(i);
    commit[i] = k;
    if
    :: known[i] < k -> known[i] = k
    :: else
    fi;
    log_matching(i);
    state_machine_safety(i)
}
#endif

/* ---- disks and crashes ---- */

/* Term and vote go to the disk first; the log may follow later or never. */
#define META_DIFFERS(i) (d_term[i] != term[i] || d_vote[i] != vote[i])
#define MAY_PersistMeta(i) (!EAGER(i) && LOG_DIFFERS(i) && META_DIFFERS(i))
inline PersistMeta(i) {
    d_term[i] = term[i];
    d_vote[i] = vote[i]
}

#define DIFFERS_AT(i, k) (LOG >= (k) && log[i * LOG + (k) - 1] != d_log[i * LOG + (k) - 1])
#if LOG == 2
#define LOG_DIFFERS(i) (DIFFERS_AT(i, 1) || DIFFERS_AT(i, 2))
#elif LOG == 3
#define LOG_DIFFERS(i) (DIFFERS_AT(i, 1) || DIFFERS_AT(i, 2) || DIFFERS_AT(i, 3))
#elif LOG == 4
#define LOG_DIFFERS(i) (DIFFERS_AT(i, 1) || DIFFERS_AT(i, 2) || DIFFERS_AT(i, 3) || DIFFERS_AT(i, 4))
#else
#define LOG_DIFFERS(i) \
    (DIFFERS_AT(i, 1) || DIFFERS_AT(i, 2) || DIFFERS_AT(i, 3) || DIFFERS_AT(i, 4) || DIFFERS_AT(i, 5))
#endif
/* Everything is durable, and what was promised on the strength of it leaves: persist before send. */
#define CANDIDATE_OF(i) (vote[i] - 1)
#define OWES_VOTE(i) \
    (vote[i] && role[CANDIDATE_OF(i)] == CANDIDATE && term[CANDIDATE_OF(i)] == term[i] && \
     !(ballots[CANDIDATE_OF(i)] >> i & 1))
#define OWES_ACK(i) \
    (FOLLOWS(i) && role[leads[term[i] - 1] - 1] == LEADER && term[leads[term[i] - 1] - 1] == term[i] && \
     known[i] > acked[(leads[term[i] - 1] - 1) * N + i])
/* Who cannot crash any more may as well always write at once. */
#define EAGER(i) (crashes >= CRASHES || !(mortal >> i & 1))
#define MAY_Persist(i) (LOG_DIFFERS(i) || META_DIFFERS(i) || OWES_ACK(i) || OWES_VOTE(i))
inline Persist(i) {
    d_term[i] = term[i];
    d_vote[i] = vote[i];
    d_last[i] = last[i];
    x = 1;
    do
    :: x <= LOG -> D_AT(i, x) = AT(i, x); x++
    :: else -> break
    od;
    x = 0;
#if SNAPSHOTS
    d_snap[i] = snap[i];
#endif
    if
    :: OWES_VOTE(i) ->
        ballots[CANDIDATE_OF(i)] = ballots[CANDIDATE_OF(i)] | 1 << i;
        spoken = (spoken < term[i] -> term[i] : spoken)
    :: else
    fi;
    if
    :: OWES_ACK(i) -> acknowledge(i)
    :: else
    fi;
    retire();
    never_lost()
}

/* The process dies and comes back with its disk. How far the log is committed it has to hear again. */
#define MAY_Restart(i) (crashes < CRASHES && (mortal >> i & 1))
inline Restart(i) {
    crashes++;
#ifdef TERM_NOT_DURABLE
    term[i] = 0;
    vote[i] = 0;
#else
    term[i] = d_term[i];
#ifdef VOTE_NOT_DURABLE
    vote[i] = 0;
#else
    vote[i] = d_vote[i];
#endif
#endif
    role[i] = FOLLOWER;
    known[i] = 0;
    last[i] = d_last[i];
    x = 1;
    do
    :: x <= LOG -> AT(i, x) = D_AT(i, x); x++
    :: else -> break
    od;
    x = 0;
    find_conf(i);
#if SNAPSHOTS
    snap[i] = d_snap[i];
#endif
    commit[i] = SNAP(i);
    forget(i);
    state_machine_safety(i);
    never_lost()
}

/* ---- a server ---- */

#define STEP(guard, step) \
    :: d_step { \
        guard -> \
        step; \
        if \
        :: EAGER(i) && MAY_Persist(i) -> Persist(i) \
        :: else \
        fi \
    }
#if SYMMETRIC
#define IN_ORDER(i) (i <= campaigned)
#else
#define IN_ORDER(i) true
#endif

proctype Server(byte i) {
end:
    do
    STEP(MAY_BecomeCandidate(i) && IN_ORDER(i), BecomeCandidate(i))
    STEP(MAY_UpdateTerm(i, 1), UpdateTerm(i, 1))
#if TERMS >= 2
    STEP(MAY_UpdateTerm(i, 2), UpdateTerm(i, 2))
#endif
#if TERMS >= 3
    STEP(MAY_UpdateTerm(i, 3), UpdateTerm(i, 3))
#endif
#if TERMS >= 4
    STEP(MAY_UpdateTerm(i, 4), UpdateTerm(i, 4))
#endif
    STEP(MAY_GrantVote(i, 0), GrantVote(i, 0))
    STEP(MAY_GrantVote(i, 1), GrantVote(i, 1))
    STEP(MAY_GrantVote(i, 2), GrantVote(i, 2))
    STEP(MAY_BecomeLeader(i), BecomeLeader(i))
#if STEP_DOWN
    STEP(MAY_StepDown(i), StepDown(i))
#endif
#if COMMANDS
    STEP(MAY_ClientAppend(i), ClientAppend(i))
#endif
    STEP(MAY_AppendEntries(i, 0), AppendEntries(i, 0))
    STEP(MAY_AppendEntries(i, 1), AppendEntries(i, 1))
#if LOG >= 3
    STEP(MAY_AppendEntries(i, 2), AppendEntries(i, 2))
#endif
#if LOG >= 4
    STEP(MAY_AppendEntries(i, 3), AppendEntries(i, 3))
#endif
#if LOG >= 5
    STEP(MAY_AppendEntries(i, 4), AppendEntries(i, 4))
#endif
    STEP(MAY_LearnCommit(i), LearnCommit(i))
    STEP(MAY_AdvanceCommit(i, 1), AdvanceCommit(i, 1))
    STEP(MAY_AdvanceCommit(i, 2), AdvanceCommit(i, 2))
#if LOG >= 3
    STEP(MAY_AdvanceCommit(i, 3), AdvanceCommit(i, 3))
#endif
#if LOG >= 4
    STEP(MAY_AdvanceCommit(i, 4), AdvanceCommit(i, 4))
#endif
#if LOG >= 5
    STEP(MAY_AdvanceCommit(i, 5), AdvanceCommit(i, 5))
#endif
#if CHANGES
    STEP(MAY_EnterJoint(i), EnterJoint(i))
    STEP(MAY_LeaveJoint(i), LeaveJoint(i))
#endif
#if SNAPSHOTS
    STEP(MAY_Snapshot(i, 1), Snapshot(i, 1))
    STEP(MAY_Snapshot(i, 2), Snapshot(i, 2))
    STEP(MAY_InstallSnapshot(i, 1), InstallSnapshot(i, 1))
    STEP(MAY_InstallSnapshot(i, 2), InstallSnapshot(i, 2))
#endif
#if CRASHES
    :: d_step { MAY_PersistMeta(i) -> PersistMeta(i) }
    STEP(MAY_Restart(i), Restart(i))
#endif
    :: d_step { MAY_Persist(i) -> Persist(i) }
    od
}

#ifndef MORTAL
#define MORTAL 7
#endif
init {
    atomic {
#if CRASHES == 1
        if
        :: MORTAL & 1 -> mortal = 1
        :: MORTAL & 2 -> mortal = 2
        :: MORTAL & 4 -> mortal = 4
        fi;
#elif CRASHES
        mortal = MORTAL;
#endif
        run Server(0);
        run Server(1);
        run Server(2)
    }
}
