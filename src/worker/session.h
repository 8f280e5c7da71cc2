/* The worker's one stream to a node, and moving on when that node is gone.
 *
 * What it is: the connection's life: which node, when to give up on it, heartbeats, the lease.
 * What it is not: it knows no attempt and no report; the owner builds the hello and reads messages.
 *
 *                     start                opened             welcome
 *     DISCONNECTED ---------> CONNECTING ---------> HELLO_SENT --------> ACTIVE
 *                              ^   |                  |                   |
 *                              |   | cannot open      | ended, or no      | ended, silent for
 *                     delay    |   v                  | answer in time    | 1.5 heartbeats,
 *                     over, and|  BACKOFF <-----------+<------------------+ or abandoned
 *                     may_connect
 *     any state -- stop --> STOPPING (last)
 *
 * Each ended stream moves on to the next address, so that a dead node costs 50 ms; but one that
 * ended because another process uses the worker's id comes back to the same node, after a long
 * delay: a node that does not know of the other one would let them evict each other in turns.
 * Addresses are those of the options and then those of the last welcome. Invariants: a stream
 * exists only in HELLO_SENT and ACTIVE; lease_check is asked through before_event before any
 * message is looked at. Thread: the loop. */
#pragma once

#include "base/lease.h"
#include "base/log.h"
#include "base/rand.h"
#include "os/rpc_client.h"
#include "worker/ref.h"

enum session_state {
    SESSION_DISCONNECTED,
    SESSION_CONNECTING,
    SESSION_HELLO_SENT,
    SESSION_ACTIVE,
    SESSION_BACKOFF,
    SESSION_STOPPING,
};
#define SESSION_STATES 6

#define SESSION_ADDRESSES_MAX 64
#define SESSION_ADDRESS_BYTES_MAX 256
#define SESSION_BACKOFF_MS_MIN 50
#define SESSION_BACKOFF_MS_MAX 1000
/* Somebody else is connected under this worker's id: knocking changes nothing. */
#define SESSION_TAKEN_MS_MIN 5000
#define SESSION_TAKEN_MS_MAX 10000
#define SESSION_WELCOME_TIMEOUT_MS 3000
#define SESSION_HEARTBEAT_MS_DEFAULT 5000

struct session_callbacks {
    /* A packed WorkerMessage with the hello, as a new reference; NULL when memory is out. */
    struct bytes *(*hello)(void *arg);
    /* False: attempts of a lease that was given up still die; ask again soon. */
    bool (*may_connect)(void *arg);
    uint32_t (*running)(void *arg);
    /* The owner is stopping and takes no more work: said in every heartbeat. */
    bool (*draining)(void *arg);
    /* Before each event of the stream: look at the lease first. */
    void (*before_event)(void *arg);
    void (*on_welcome)(void *arg, const Chronos__V1__NodeWelcome *m);
    /* Any other message, heartbeat acknowledgements too; borrowed for the call. */
    void (*on_message)(void *arg, const Chronos__V1__NodeMessage *m);
    void (*on_writable)(void *arg);
    /* An ACTIVE session is over. */
    void (*on_lost)(void *arg);
    /* @node refused or ended the session because another process uses this worker's id. */
    void (*on_taken)(void *arg, const char *node);
};

struct session;

/* @addresses are copied. 0, -errno, -ENOMEM, ERR_LIMIT (more than SESSION_ADDRESSES_MAX). */
int session_new(uv_loop_t *loop, const struct logger *log, const char *const *addresses,
                size_t addresses_count, uint64_t seed, const struct session_callbacks *cb,
                void *arg, struct session **ret, struct errtext *reterr) _must_check_;
/* STOPPING first when it is not yet. Handles close asynchronously: run the loop once more. */
struct session *session_free(struct session *s);

void session_start(struct session *s);
/* Half-close and cancel the stream; nothing is called back afterwards. */
void session_stop(struct session *s);
/* End the stream and move on: after a lease was given up, or a node broke the protocol. */
void session_abandon(struct session *s, const char *why);

/* The owner is draining, or was just given work in spite of it: say so with a heartbeat now. */
void session_drain(struct session *s);
/* The leader has acknowledged a heartbeat that said so; also true when no session is ACTIVE, since
 * then nobody will. */
bool session_drain_known(const struct session *s);

/* How long to wait after a session's end; for session.c and its tests. @taken: how often in a row
 * the id was in use; once may be the stream of this worker's own dead predecessor. */
uint64_t session_delay_ms(struct rng *rng, uint64_t backoff_ms, unsigned taken);

enum session_state session_state(const struct session *s);
const char *session_state_to_string(enum session_state state);
/* Whether the table has the edge; for tests. */
bool session_edge(enum session_state from, enum session_state to);
struct lease *session_lease(struct session *s);

/* Send one message (takes a reference). 0; 1 = sent, but hold back until on_writable, or not ACTIVE
 * (dropped: the next stream repeats what matters). Errors end the stream by themselves. */
int session_send(struct session *s, struct bytes *message);
/* Pack and send. The same results. */
int session_send_pb(struct session *s, const Chronos__V1__WorkerMessage *m);
struct bytes *session_pack(const Chronos__V1__WorkerMessage *m) _must_check_;
