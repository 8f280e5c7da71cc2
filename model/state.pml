/* The state of three servers, of the network and of what must hold. Included by protocol.pml.
 *
 * The network is what was ever said. Nothing is taken out of it, so every message may be lost (never
 * read), doubled (read again) and overtaken (read late). What a leader of a term could have sent is
 * its log, which only grows: one copy of it a term stands for all its AppendEntries and snapshots.
 * Terms and log places count from 1; an id in a variable is the server's number + 1, 0 = nobody. */

#define N 3
#define FOLLOWER 0
#define CANDIDATE 1
#define LEADER 2

/* An entry: its term, and above it what configuration it brings. */
#define OLD 0   /* none; before any: the first configuration */
#define JOINT 1 /* both sets must agree */
#define NEW 2
#define ENTRY(t, kind) ((t) | (kind) << 4)
#define TERM_OF(e) ((e) & 15)
#define KIND_OF(e) ((e) >> 4)

/* Sets of voters, bit i for server i. */
#ifndef OLD_SET
#define OLD_SET 7
#endif
#ifndef NEW_SET
#define NEW_SET 7
#endif
#define COUNT(s) (((s) & 1) + ((s) >> 1 & 1) + ((s) >> 2 & 1))
#define MAJORITY(s, of) (2 * COUNT((s) & (of)) > COUNT(of))
/* "Agreement requires separate majorities from both the old and new configurations." */
#ifdef JOINT_COUNTS_NEW_ONLY
#define QUORUM(c, s) ((c) == OLD -> MAJORITY(s, OLD_SET) : MAJORITY(s, NEW_SET))
#elif defined(JOINT_COUNTS_OLD_ONLY)
#define QUORUM(c, s) ((c) == NEW -> MAJORITY(s, NEW_SET) : MAJORITY(s, OLD_SET))
#else
#define QUORUM(c, s) (((c) == NEW || MAJORITY(s, OLD_SET)) && ((c) == OLD || MAJORITY(s, NEW_SET)))
#endif
#define VOTERS(c) ((c) == OLD -> OLD_SET : ((c) == NEW -> NEW_SET : OLD_SET | NEW_SET))

/* ---- a server, in memory ---- */
byte term[N], vote[N], role[N];
byte last[N], log[N * LOG];
byte conf[N];   /* of its log's newest configuration entry, committed or not */
byte commit[N];
byte known[N];  /* up to here its log was compared with the log of its term's leader */
/* ---- a server, on its disk: what a crash leaves ---- */
byte d_term[N], d_vote[N], d_last[N], d_log[N * LOG];
#if SNAPSHOTS
byte snap[N], d_snap[N]; /* the log's beginning is gone up to here */
#define SNAP(i) snap[i]
#else
#define SNAP(i) 0
#endif
/* ---- the network ---- */
/* Votes that were sent to a candidate for the term it is in, and acknowledgements that were sent to
 * a leader: of no use to anybody once it is no longer that, so forgotten then. */
byte ballots[N];
byte acked[N * N];
byte spoken; /* the highest term of a vote request that has left */
/* By term, until all servers are past it: who was elected, its log, its commit index. */
byte leads[TERMS], told_last[TERMS], told_log[TERMS * LOG], told_commit[TERMS];
/* ---- what was ever committed, and in which term first ---- */
byte done, done_log[LOG], done_in[LOG];
/* ---- bounds ---- */
byte crashes;
byte mortal; /* servers that may crash; the others' disks are always up to date */
#if SYMMETRIC
byte campaigned; /* servers are numbered in the order of their first campaign */
#endif
#if CHANGES
byte changes;
#endif

#define AT(i, k) log[(i) * LOG + (k) - 1]
#define D_AT(i, k) d_log[(i) * LOG + (k) - 1]
#define TOLD(t, k) told_log[((t) - 1) * LOG + (k) - 1]
#define NEWEST_TERM(i) (last[i] == 0 -> 0 : TERM_OF(AT(i, last[i])))
/* 5.4.1: the later term, then the longer log. */
#define NEWEST(i) (NEWEST_TERM(i) * 8 + last[i])
/* Its request has left: term, own vote and log are durable, and do not change while it waits. */
#define ASKS(c) (role[c] == CANDIDATE && (ballots[c] >> c & 1))
/* Who has place k, as leader i may know. Itself it counts by its disk. */
#ifdef LEADER_COUNTS_MEMORY
#define SELF_HAS(i, k) (last[i] >= (k))
#else
#define SELF_HAS(i, k) (d_last[i] >= (k) && D_AT(i, k) == AT(i, k))
#endif
#define HAS(i, j, k) ((j) == (i) -> SELF_HAS(i, k) : acked[(i) * N + (j)] >= (k))
#define HOLDERS(i, k) (HAS(i, 0, k) + HAS(i, 1, k) * 2 + HAS(i, 2, k) * 4)

hidden byte a, b, p, s, x;

inline find_conf(i) {
    conf[i] = OLD;
    a = 1;
    do
    :: a <= last[i] ->
        if
        :: KIND_OF(AT(i, a)) != OLD -> conf[i] = KIND_OF(AT(i, a))
        :: else
        fi;
        a++
    :: else -> break
    od;
    a = 0
}

/* ---- what must hold ---- */

/* "If two logs contain an entry with the same index and term, then the logs are identical in all
 * entries up through the given index." With all places looked at, the one before is enough. */
inline log_matching(i) {
    a = 1; /* and the terms of a log never fall */
    do
    :: a < last[i] -> assert(TERM_OF(AT(i, a)) <= TERM_OF(AT(i, a + 1))); a++
    :: else -> break
    od;
    a = 0;
    do
    :: a < N ->
        b = 1;
        do
        :: a != i && b <= last[i] && b <= last[a] ->
            if
            :: TERM_OF(AT(i, b)) == TERM_OF(AT(a, b)) ->
                assert(AT(i, b) == AT(a, b));
                assert(b == 1 || AT(i, b - 1) == AT(a, b - 1))
            :: else
            fi;
            b++
        :: else -> break
        od;
        a++
    :: else -> break
    od;
    a = 0; b = 0
}

/* Whatever a server takes for committed is what a leader has committed there. */
inline state_machine_safety(i) {
    assert(SNAP(i) <= commit[i] && commit[i] <= last[i] && commit[i] <= done);
    a = 1;
    do
    :: a <= commit[i] -> assert(AT(i, a) == done_log[a - 1]); a++
    :: else -> break
    od;
    a = 0
}

/* "If a log entry is committed in a given term, then that entry will be present in the logs of the
 * leaders for all higher-numbered terms." */
inline leader_completeness() {
    a = 1;
    do
    :: a <= TERMS ->
        b = 1;
        do
        :: leads[a - 1] && b <= done ->
            assert(done_in[b - 1] >= a || (told_last[a - 1] >= b && TOLD(a, b) == done_log[b - 1]));
            b++
        :: else -> break
        od;
        a++
    :: else -> break
    od;
    a = 0; b = 0
}

/* What is committed is on the disks of a majority, and stays there. */
inline never_lost() {
    b = 1;
    do
    :: b <= done ->
        s = 0; p = 0;
        do
        :: p < N ->
            if
            :: d_last[p] >= b && D_AT(p, b) == done_log[b - 1] -> s = s | (1 << p)
            :: else
            fi;
            p++
        :: else -> break
        od;
        assert(MAJORITY(s, OLD_SET) || MAJORITY(s, NEW_SET));
        b++
    :: else -> break
    od;
    b = 0; p = 0; s = 0
}

/* ---- what nobody can use any more is forgotten, so that equal futures are equal states ---- */

inline forget(i) {
#ifndef STALE_VOTES_COUNT
    ballots[i] = 0;
#endif
    acked[(i) * N] = 0; acked[(i) * N + 1] = 0; acked[(i) * N + 2] = 0
}

inline retire() {
    a = 1;
    do
    :: a <= TERMS ->
        if
        :: leads[a - 1] && term[0] > a && term[1] > a && term[2] > a && d_term[0] > a &&
           d_term[1] > a && d_term[2] > a ->
            leads[a - 1] = 0; told_last[a - 1] = 0; told_commit[a - 1] = 0;
            b = 1;
            do
            :: b <= LOG -> TOLD(a, b) = 0; b++
            :: else -> break
            od
        :: else
        fi;
        a++
    :: else -> break
    od;
    a = 0; b = 0
}
