/* What follows from other settings, and what may not stand together. */
#include "cli/config_internal.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define DEFAULT_LISTEN "127.0.0.1:7400"
#define DEFAULT_PEER_LISTEN "127.0.0.1:7402"
#define HOST_BYTES_MAX 256
#define WAL_BLOCK_BYTES 4096 /* the log writes whole blocks (docs/formats.md) */

/* "chronos.yaml:12: node.id" or "--node.id" or "node.id (default)", then what is wrong. */
static int refuse(const struct config *c, const char *setting, struct errtext *reterr,
                  const char *why) {
    size_t i = config_find(setting);
    struct config_origin from = {0};

    if (i < config_settings_count)
        from = c->origins[i];
    else if (strcmp(setting, "cluster.members") == 0)
        from.line = c->members_line;
    else if (strcmp(setting, "worker.labels") == 0)
        from.line = c->labels_line;
    if (from.flag)
        errtext_set(reterr, "--%s: %s", setting, why);
    else if (from.line > 0)
        errtext_set(reterr, "%.128s:%u: %s: %s", c->file ? c->file : "config", from.line, setting,
                    why);
    else
        errtext_set(reterr, "%s: %s", setting, why);
    return 1;
}

/* ---- addresses ----------------------------------------------------------------------------- */

/* Letters of names and of both kinds of addresses, with a zone: fe80::1%eth0. */
static bool is_host(const char *host, size_t len) {
    for (size_t i = 0; i < len; i++)
        if (!isalnum((unsigned char) host[i]) && !strchr(".-_:%", host[i]))
            return false;
    return len > 0 && len < HOST_BYTES_MAX;
}

int config_split_address(const char *address, char *ret_host, uint16_t *ret_port,
                         struct errtext *reterr) {
    const char *colon = strrchr(address, ':');
    const char *host = address;
    size_t len = colon ? (size_t) (colon - address) : 0;
    uint64_t port = 0;
    struct errtext ignored;

    if (len >= 2 && host[0] == '[' && host[len - 1] == ']') {
        host++;
        len -= 2;
    } else if (memchr(host, ':', len)) {
        len = 0; /* an IPv6 address without brackets: where it ends is a guess */
    }
    if (!colon || !is_host(host, len) || units_parse_uint(colon + 1, &port, &ignored) != 0 ||
        port == 0 || port > UINT16_MAX) {
        errtext_set(reterr,
                    "\"%.128s\" is not HOST:PORT; write it like 127.0.0.1:7400 or [::1]:7400 "
                    "with a port from 1 to 65535",
                    address);
        return 1;
    }
    memcpy(ret_host, host, len);
    ret_host[len] = '\0';
    *ret_port = (uint16_t) port;
    return 0;
}

static bool is_loopback(const char *host) {
    struct in_addr v4;
    struct in6_addr v6;

    if (strcmp(host, "localhost") == 0)
        return true;
    if (inet_pton(AF_INET, host, &v4) == 1)
        return (ntohl(v4.s_addr) >> 24) == 127;
    return inet_pton(AF_INET6, host, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

/* An address to listen at that nobody can connect to. */
static bool is_wildcard(const char *address) {
    char host[HOST_BYTES_MAX];
    struct errtext ignored;
    struct in6_addr v6;
    uint16_t port;

    if (config_split_address(address, host, &port, &ignored) != 0)
        return false;
    return strcmp(host, "0.0.0.0") == 0 ||
           (inet_pton(AF_INET6, host, &v6) == 1 && IN6_IS_ADDR_UNSPECIFIED(&v6));
}

static int check_join(const struct config *c, struct errtext *reterr) {
    const char *p = c->join;
    struct errtext why;

    if (!p)
        return 0;
    if (c->bootstrap) {
        errtext_set(reterr,
                    "--bootstrap and --join: give one; a node either forms a cluster or "
                    "joins one that exists");
        return 1;
    }
    for (;;) {
        char one[HOST_BYTES_MAX + 16], host[HOST_BYTES_MAX];
        size_t len = strcspn(p, ",");
        uint16_t port;

        (void) snprintf(one, sizeof(one), "%.*s", (int) MIN(len, sizeof(one) - 1), p);
        if (config_split_address(one, host, &port, &why) != 0) {
            errtext_set(reterr, "--join: %s", why.s);
            return 1;
        }
        if (p[len] == '\0')
            break;
        p += len + 1;
    }
    if (is_wildcard(c->node.advertise_peer) || is_wildcard(c->node.advertise)) {
        errtext_set(reterr,
                    "--join: the others cannot reach this node at %.128s; set "
                    "node.advertise_peer and node.advertise to addresses they can reach",
                    is_wildcard(c->node.advertise_peer) ? c->node.advertise_peer
                                                        : c->node.advertise);
        return 1;
    }
    return 0;
}

static int check_listen(const struct config *c, const char *setting, const char *address,
                        struct errtext *reterr) {
    char host[HOST_BYTES_MAX];
    struct errtext why;
    uint16_t port;

    if (config_split_address(address, host, &port, &why) != 0)
        return refuse(c, setting, reterr, why.s);
    if (is_loopback(host) || c->security.insecure_bind)
        return 0;
    /* S2 of the security rules: there is no TLS and no authentication yet on these ports. */
    errtext_set(&why,
                "%.128s is not a loopback address, and without TLS and authentication anyone who "
                "reaches it can run commands here; listen on 127.0.0.1, or set "
                "security.insecure_bind to true if the network is closed",
                address);
    return refuse(c, setting, reterr, why.s);
}

static int check_ports(const struct config *c, struct errtext *reterr) {
    char host[HOST_BYTES_MAX], peer_host[HOST_BYTES_MAX];
    uint16_t port, peer_port;
    struct errtext why;
    int r = check_listen(c, "node.listen", c->node.listen, reterr);

    if (r == 0)
        r = check_listen(c, "node.peer_listen", c->node.peer_listen, reterr);
    if (r != 0)
        return r;
    if (config_split_address(c->node.advertise, host, &port, &why) != 0)
        return refuse(c, "node.advertise", reterr, why.s);
    if (config_split_address(c->node.advertise_peer, host, &port, &why) != 0)
        return refuse(c, "node.advertise_peer", reterr, why.s);
    if (config_split_address(c->node.listen, host, &port, &why) != 0 ||
        config_split_address(c->node.peer_listen, peer_host, &peer_port, &why) != 0)
        return refuse(c, "node.listen", reterr, why.s);
    if (port == peer_port && strcmp(host, peer_host) == 0) {
        errtext_set(&why,
                    "%.128s is node.listen's address already; clients and peers need one "
                    "port each, for example 7400 and 7402",
                    c->node.peer_listen);
        return refuse(c, "node.peer_listen", reterr, why.s);
    }
    return 0;
}

/* ---- members ------------------------------------------------------------------------------- */

static int refuse_member(const struct config *c, const struct config_member *m,
                         struct errtext *reterr, const char *why) {
    if (m->line > 0)
        errtext_set(reterr, "%.128s:%u: cluster.members: member %" PRIu64 ": %s",
                    c->file ? c->file : "config", m->line, m->id, why);
    else
        errtext_set(reterr, "--member: member %" PRIu64 ": %s", m->id, why);
    return 1;
}

static int check_pair(const struct config *c, const struct config_member *a,
                      const struct config_member *b, struct errtext *reterr) {
    struct errtext why;

    if (a->id == b->id)
        return refuse_member(c, b, reterr, "this id is given twice; each member has its own");
    if (strcmp(a->address, b->client_address) == 0 || strcmp(a->client_address, b->address) == 0)
        return refuse_member(c, b, reterr,
                             "one of its addresses is used for another purpose by an earlier "
                             "member; each port is used once");
    if (strcmp(a->address, b->address) == 0) {
        errtext_set(&why, "has the address %.128s of member %" PRIu64 "; each has its own",
                    b->address, a->id);
        return refuse_member(c, b, reterr, why.s);
    }
    if (b->client_address[0] && strcmp(a->client_address, b->client_address) == 0) {
        errtext_set(&why, "has the client address %.128s of member %" PRIu64 "; each has its own",
                    b->client_address, a->id);
        return refuse_member(c, b, reterr, why.s);
    }
    return 0;
}

static int check_members(const struct config *c, struct errtext *reterr) {
    for (size_t i = 0; i < c->cluster.members_count; i++) {
        const struct config_member *m = &c->cluster.members[i];
        char host[HOST_BYTES_MAX];
        struct errtext why;
        uint16_t port;
        int r = config_split_address(m->address, host, &port, &why);

        if (r == 0 && m->client_address[0])
            r = config_split_address(m->client_address, host, &port, &why);
        if (r == 0 && strcmp(m->address, m->client_address) == 0) {
            errtext_set(&why, "address and client_address are the same; they are two ports");
            r = 1;
        }
        if (r != 0)
            return refuse_member(c, m, reterr, why.s);
        for (size_t j = 0; j < i; j++) {
            r = check_pair(c, &c->cluster.members[j], m, reterr);
            if (r != 0)
                return r;
        }
    }
    return 0;
}

/* ---- completion ---------------------------------------------------------------------------- */

static const char *or_default(const char *s, const char *def) {
    return s && s[0] ? s : def;
}

static void fill_timing(struct config *c) {
    bool wan = c->cluster.profile == CONFIG_PROFILE_WAN;

    if (c->cluster.heartbeat_timeout_ms == 0)
        c->cluster.heartbeat_timeout_ms = wan ? 500 : 50;
    if (c->cluster.election_timeout_ms == 0)
        c->cluster.election_timeout_ms = wan ? 1000 : 150;
}

static struct config_member *find_self(struct config *c) {
    for (size_t i = 0; i < c->cluster.members_count; i++) {
        if (c->cluster.members[i].id == c->node.id)
            return &c->cluster.members[i];
    }
    return NULL;
}

static int fill_addresses(struct config *c, struct errtext *reterr) {
    struct config_member *self = find_self(c);
    struct errtext why;

    /* Elsewhere the members are only where to look first: a node that joined later is not there. */
    if (!self && c->cluster.members_count > 0 && c->bootstrap) {
        errtext_set(&why, "%" PRIu64 " is not among the members; use one of their ids, or add it",
                    c->node.id);
        return refuse(c, "node.id", reterr, why.s);
    }
    c->node.listen =
        or_default(c->node.listen, or_default(self ? self->client_address : NULL, DEFAULT_LISTEN));
    c->node.peer_listen =
        or_default(c->node.peer_listen, self ? self->address : DEFAULT_PEER_LISTEN);
    c->node.advertise = or_default(c->node.advertise,
                                   or_default(self ? self->client_address : NULL, c->node.listen));
    c->node.advertise_peer =
        or_default(c->node.advertise_peer,
                   self && is_wildcard(c->node.peer_listen) ? self->address : c->node.peer_listen);
    if (!self && c->cluster.members_count == 0) {
        self = &c->cluster.members[c->cluster.members_count++];
        *self = (struct config_member){.id = c->node.id, .address = c->node.advertise_peer};
    }
    if (self)
        self->client_address = or_default(self->client_address, c->node.advertise);
    return 0;
}

/* ---- combinations -------------------------------------------------------------------------- */

static int check_timing(const struct config *c, struct errtext *reterr) {
    char a[UNITS_TEXT_BYTES_MAX], b[UNITS_TEXT_BYTES_MAX], want[UNITS_TEXT_BYTES_MAX];
    struct errtext why;

    /* Two heartbeats must fit, or one delayed packet starts an election. */
    if (c->cluster.election_timeout_ms < 2 * c->cluster.heartbeat_timeout_ms) {
        errtext_set(&why, "%s is less than twice the heartbeat interval of %s; use at least %s",
                    units_print_duration(c->cluster.election_timeout_ms, a),
                    units_print_duration(c->cluster.heartbeat_timeout_ms, b),
                    units_print_duration(2 * c->cluster.heartbeat_timeout_ms, want));
        return refuse(c, "cluster.raft.election_timeout", reterr, why.s);
    }
    if (c->cluster.liveness_window_ms < c->cluster.heartbeat_timeout_ms) {
        errtext_set(&why, "%s is less than the heartbeat interval of %s; use at least that",
                    units_print_duration(c->cluster.liveness_window_ms, a),
                    units_print_duration(c->cluster.heartbeat_timeout_ms, b));
        return refuse(c, "cluster.raft.liveness_window", reterr, why.s);
    }
    if (c->worker.lease_ms < 2 * c->worker.heartbeat_interval_ms) {
        errtext_set(&why, "%s is less than twice worker.heartbeat_interval of %s; use at least %s",
                    units_print_duration(c->worker.lease_ms, a),
                    units_print_duration(c->worker.heartbeat_interval_ms, b),
                    units_print_duration(2 * c->worker.heartbeat_interval_ms, want));
        return refuse(c, "worker.lease", reterr, why.s);
    }
    return 0;
}

static int check_sizes(const struct config *c, struct errtext *reterr) {
    char a[UNITS_TEXT_BYTES_MAX], b[UNITS_TEXT_BYTES_MAX];
    struct errtext why;

    if (c->wal.segment_bytes % WAL_BLOCK_BYTES != 0) {
        errtext_set(&why, "must be a multiple of 4KiB; use %s",
                    units_print_size(c->wal.segment_bytes / WAL_BLOCK_BYTES * WAL_BLOCK_BYTES, a));
        return refuse(c, "wal.segment_bytes", reterr, why.s);
    }
    if (c->limits.uncommitted_bytes < c->limits.message_bytes) {
        errtext_set(&why, "%s could not hold one message of limits.message_bytes %s; use more",
                    units_print_size(c->limits.uncommitted_bytes, a),
                    units_print_size(c->limits.message_bytes, b));
        return refuse(c, "limits.uncommitted_bytes", reterr, why.s);
    }
    if (c->cluster.log_bytes_max < c->cluster.log_bytes_kept + 2 * c->wal.segment_bytes) {
        /* Else every entry would be a reason for the next snapshot. */
        errtext_set(&why,
                    "%s leaves no room above cluster.raft.log_bytes_kept and two segments; use at "
                    "least %s",
                    units_print_size(c->cluster.log_bytes_max, a),
                    units_print_size(c->cluster.log_bytes_kept + 2 * c->wal.segment_bytes, b));
        return refuse(c, "cluster.raft.log_bytes_max", reterr, why.s);
    }
    return 0;
}

static int check_words(const struct config *c, struct errtext *reterr) {
    size_t len = strlen(c->cluster.name);

    if (c->node.data_dir[0] == '\0')
        return refuse(c, "node.data_dir", reterr, "is empty; name a directory");
    if (len == 0 || len > 64 ||
        strspn(c->cluster.name,
               "abcdefghijklmnopqrstuvwxyz"
               "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
               "0123456789._-") != len)
        return refuse(c, "cluster.name", reterr, "must be 1 to 64 of the characters A-Za-z0-9._-");
    for (size_t i = 0; i < c->worker.labels_count; i++) {
        const struct config_label *l = &c->worker.labels[i];

        if (l->key[0] == '\0' || strlen(l->key) > 63 || strlen(l->value) > 255)
            return refuse(c, "worker.labels", reterr,
                          "a key has 1 to 63 bytes, a value at most 255");
        for (size_t j = 0; j < i; j++) {
            if (strcmp(c->worker.labels[j].key, l->key) == 0)
                return refuse(c, "worker.labels", reterr, "a label is given twice; keep one");
        }
    }
    return 0;
}

int config_finish(struct config *c, struct errtext *reterr) {
    int r;

    ASSERT(c);
    fill_timing(c);
    r = check_words(c, reterr);
    if (r == 0)
        r = fill_addresses(c, reterr);
    if (r == 0 && !(c->worker.data_dir && c->worker.data_dir[0])) {
        c->worker.data_dir = arena_printf(&c->arena, "%s/worker", c->node.data_dir);
        if (!c->worker.data_dir)
            return -ENOMEM;
    }
    /* Ports first: a lone node's member is made of them, and the setting is what the user wrote. */
    if (r == 0)
        r = check_ports(c, reterr);
    if (r == 0)
        r = check_members(c, reterr);
    if (r == 0)
        r = check_join(c, reterr);
    if (r == 0)
        r = check_timing(c, reterr);
    if (r == 0)
        r = check_sizes(c, reterr);
    return r;
}

const char *config_even_size_warning(size_t members_count, char out[512]) {
    size_t majority = members_count / 2 + 1;

    out[0] = '\0';
    if (members_count % 2 == 0)
        (void) snprintf(out, 512,
                        "%zu members need a majority of %zu and survive the loss of %zu, no more "
                        "than %zu members do; the extra node adds cost and one more way to lose "
                        "the majority. Use an odd number: 1, 3, 5 or 7.",
                        members_count, majority, members_count - majority, members_count - 1);
    return out;
}
