/* Node-to-node messages over TCP: env_peers for real.
 *
 * Each node listens, and keeps one connection of its own to every peer for what it sends; so a pair
 * of nodes has two connections and neither side needs to agree who dials. A message arrives whole
 * and unaltered or not at all; what is queued when a link breaks is lost (Raft repeats it).
 * What was sent during one loop turn leaves in one write.
 * Bulk data has a connection of its own, made at the first use and closed after 30 s without: its
 * queue, its socket and a share of each loop turn, so that it never stands in front of heartbeats.
 *
 * Refused without effect: foreign cluster ids, wrong node ids, disjoint protocol ranges (answered
 * with a reason that the other side logs), whatever the owner's on_hello refuses, malformed frames,
 * handshakes that take longer than 5 s, more incoming connections than the limit.
 * Thread: every function and callback on the loop's thread. */
#pragma once

#include "base/env.h"
#include "base/err.h"
#include "base/peer_frame.h"

#include <uv.h>

struct peer_net;

#define PEER_NET_ADDRESS_BYTES_MAX 300U
/* The message protocol of this program (proto/chronos/internal): oldest and newest it speaks. */
#define PEER_NET_PROTOCOL_MIN 1U
#define PEER_NET_PROTOCOL_MAX 1U

/* What the node at the other end says of itself; texts are "" and @disk all zero where it does not.
 * It has proved nothing but that it knows the cluster id. */
struct peer_net_hello {
    uint64_t node_id;
    uint8_t disk[PEER_FRAME_DISK_BYTES]; /* of its data directory (W15) */
    const char *peer_address;            /* where it says to listen; borrowed for the call */
    const char *client_address;
    const char *software;
    bool incoming; /* it connected to us; otherwise we to it */
    bool bulk;     /* the connection is for bulk data */
};

struct peer_net_callbacks {
    /* A message of node @from, ordinary or bulk; messages of one kind come in order. @payload is
     * borrowed for the call. May call any function below. */
    void (*on_message)(void *ctx, uint64_t from, struct slice payload);
    /* Our sending link to @node became usable (@up) or broke. Never from inside a call of the
     * owner's; down always follows up before the next up. May be NULL. */
    void (*on_link)(void *ctx, uint64_t node, bool up);
    /* May this node talk to us? Asked at every handshake, in both directions, after what is checked
     * here. 0 = yes; else it is refused with @reason, for good when *ret_final (false before).
     * An accepted node that connects to us may be at a new address: peer_net_set_peer() may be
     * called from inside. May be NULL = yes. */
    int (*on_hello)(void *ctx, const struct peer_net_hello *h, bool *ret_final,
                    struct errtext *reason);
    /* @node refused our connection. Not @final: it is tried again. @reason is borrowed. May be
     * NULL.
     */
    void (*on_refused)(void *ctx, uint64_t node, bool final, const char *reason);
    /* Bulk messages for @node are taken (again): the connection came up, or a full queue is half
     * empty. From the loop, never from inside a call of the owner's. May be NULL. */
    void (*on_bulk_ready)(void *ctx, uint64_t node);
    void *ctx;
};

/* Zero in a number means its default. */
struct peer_net_options {
    uint64_t self_id; /* > 0 */
    /* Connections of another one are refused. All zero: not known yet; then nobody is dialled and
     * everybody is told to come again, until peer_net_set_cluster_id(). */
    uint8_t cluster_id[PEER_FRAME_CLUSTER_ID_BYTES];
    uint8_t disk[PEER_FRAME_DISK_BYTES];     /* told to peers; zero = none yet */
    const char *peer_address;                /* told to peers; NULL = "" */
    const char *client_address;              /* told to peers; NULL = "" */
    const char *listen_address;              /* "host:port", port 0 = any free one */
    const char *software;                    /* version text told to peers */
    const struct logger *log;                /* borrowed until closed; may be NULL */
    uint64_t seed;                           /* of the reconnect jitter */
    uint32_t message_bytes_max;              /* default 64 MiB */
    size_t queue_bytes_max;                  /* per peer, default 64 MiB */
    size_t bulk_queue_bytes_max;             /* per peer, default 4 MiB */
    uint64_t bulk_idle_ms;                   /* default 30,000: then bulk is closed */
    unsigned incoming_max;                   /* default 64 */
    uint16_t protocol_min, protocol_max;     /* defaults PEER_NET_PROTOCOL_* */
    uint64_t handshake_ms;                   /* default 5,000 */
    uint64_t connect_ms;                     /* default 2,000 */
    uint64_t backoff_min_ms, backoff_max_ms; /* defaults 20 and 500 */
    uint64_t stall_ms;                       /* default 5,000: the peer reads nothing */
    uint64_t reject_retry_ms;                /* default 5,000, after a refusal */
    struct peer_net_callbacks callbacks;
};

/* Listen and be ready; peers are added with peer_net_set_peer().
 *
 * @loop    borrowed; must run until on_closed of peer_net_close()
 * @o       borrowed for the call, except log
 * @ret     owned by the caller on 0; end with peer_net_close()
 * @reterr  names the address and what is wrong with it
 *
 * Returns 0; UV_EADDRINUSE (-errno) when the address is taken; ERR_CONFIG for an address that is
 * none; other -errno. */
int peer_net_new(uv_loop_t *loop, const struct peer_net_options *o, struct peer_net **ret,
                 struct errtext *reterr) _must_check_;

/* The cluster this node belongs to, when it was not known at the start: connections begin. Not all
 * zero; once set it never changes (asserted). */
void peer_net_set_cluster_id(struct peer_net *n, const uint8_t id[PEER_FRAME_CLUSTER_ID_BYTES]);
/* What later handshakes say of this node's data directory. */
void peer_net_set_disk(struct peer_net *n, const uint8_t disk[PEER_FRAME_DISK_BYTES]);

/* Add the peer or change its addresses ("host:port", a name is resolved at each connect).
 *
 * @other_address  a second guess, tried in turn with @address while connecting fails; NULL or "" =
 *                 none
 *
 * A connection to either of them stays as it is; one to neither is made anew.
 * 0; ERR_CONFIG for a malformed address or the own id; -ENOMEM. */
int peer_net_set_peer(struct peer_net *n, uint64_t node_id, const char *address,
                      const char *other_address) _must_check_;
/* Close everything with the node, both directions and bulk, without an on_link callback. Unknown
 * ids are ignored. A node that is no peer may still connect and send: membership is the owner's to
 * judge. */
void peer_net_remove_peer(struct peer_net *n, uint64_t node_id);

/* Takes one reference of @payload always, also when it drops the message: no such peer, link down,
 * queue full, or larger than message_bytes_max. */
void peer_net_send(struct peer_net *n, uint64_t node_id, struct bytes *payload);
/* As peer_net_send over the bulk connection, which the first call begins to make. False: not taken
 * (no such peer, not connected yet, queue full); the reference is dropped as well. A message larger
 * than the whole queue is taken when the queue is empty. */
bool peer_net_send_bulk(struct peer_net *n, uint64_t node_id, struct bytes *payload) _must_check_;
/* Hand everything queued to the kernel now; otherwise it happens before the loop waits. */
void peer_net_flush(struct peer_net *n);
/* The table for struct env. */
struct env_peers peer_net_env(struct peer_net *n);

struct peer_net_status {
    bool connected;                                   /* our sending link is up */
    char software[PEER_FRAME_SOFTWARE_BYTES_MAX + 1]; /* of the last handshake, "" before */
    uint16_t protocol;                                /* spoken on the link; 0 before */
    size_t queued_bytes;
    uint64_t connects; /* links that came up */
    uint64_t rejects;  /* REJECT answers received */
    uint64_t dropped;  /* messages not sent */
    uint64_t sent;     /* messages handed to the kernel */
    uint64_t sent_bytes;
    bool bulk_connected;
    size_t bulk_queued_bytes;
    uint64_t bulk_sent_bytes; /* of all bulk connections so far */
};
/* 0, or 1 when there is no such peer. */
int peer_net_status(const struct peer_net *n, uint64_t node_id,
                    struct peer_net_status *ret) _must_check_;

struct peer_net_counters {
    uint64_t received, received_bytes; /* messages delivered to on_message */
    uint64_t malformed;                /* connections closed for bad bytes */
    uint64_t refused;                  /* REJECT answers given */
    uint64_t timed_out;                /* handshakes that took too long */
    uint64_t over_limit;               /* incoming connections closed for the limit */
    unsigned incoming;                 /* open now */
};
struct peer_net_counters peer_net_counters(const struct peer_net *n);

/* The port listened on. */
uint16_t peer_net_port(const struct peer_net *n);

/* Stop: no callback of the options follows. @on_closed (may be NULL) is called from the loop when
 * everything is closed and @n is freed. NULL allowed. */
void peer_net_close(struct peer_net *n, void (*on_closed)(void *arg), void *arg);
