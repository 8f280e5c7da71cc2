/* The configuration of a node: every setting, its default, its flag and its check.
 *
 * What it is: one structure filled from defaults, then a YAML file, then flags (the later wins),
 * completed (what follows from other settings) and checked as a whole.
 * What it is not: it opens no socket and creates no directory.
 * Invariants: after config_finish every pointer is set, every number is within its bounds and the
 * combination is one a node can start with. Printing and parsing again gives the same structure.
 * Thread: any; strings are borrowed from argv or owned by the structure's arena. */
#pragma once

#include "base/arena.h"
#include "cli/args.h"

#define CONFIG_MEMBERS_MAX 15
#define CONFIG_NODE_ID_MAX 65535 /* 16 bits of it tell whose proposal an entry is */
#define CONFIG_LABELS_MAX 32
#define CONFIG_SETTINGS_MAX 64
#define CONFIG_FILE_BYTES_MAX ((size_t) 1024 * 1024)

enum config_profile { CONFIG_PROFILE_LAN, CONFIG_PROFILE_WAN };

struct config_member {
    uint64_t id;
    const char *address;        /* host:port for peers */
    const char *client_address; /* host:port for gRPC clients; "" = not known */
    uint32_t line;              /* in the file; 0 = from a flag */
};

struct config_label {
    const char *key;
    const char *value;
};

/* Where a setting's value came from. */
struct config_origin {
    uint32_t line; /* > 0: that line of the file */
    bool flag;     /* the last word was a flag's */
};

struct config {
    struct {
        uint64_t id;
        const char *data_dir;
        const char *listen;         /* gRPC */
        const char *peer_listen;    /* Raft */
        const char *advertise;      /* the client address told to others */
        const char *advertise_peer; /* the peer address told to others */
    } node;
    struct {
        const char *name;
        uint32_t profile;              /* enum config_profile */
        uint64_t heartbeat_timeout_ms; /* the leader's heartbeat interval */
        uint64_t election_timeout_ms;  /* the minimum; the maximum is twice it */
        uint64_t snapshot_interval_ms;
        uint64_t snapshot_threshold; /* applied entries kept in memory, and between snapshots */
        uint64_t log_bytes_max;      /* a snapshot is taken early above it */
        uint64_t log_bytes_kept;     /* behind a snapshot, for slow followers */
        bool lease_reads;
        uint64_t lease_drift_ppm;
        uint64_t liveness_window_ms; /* is_alive in the cluster status */
        struct config_member members[CONFIG_MEMBERS_MAX];
        size_t members_count;
    } cluster;
    struct {
        uint64_t pending_proposals;
        uint64_t commit_timeout_ms;
        uint64_t uncommitted_bytes;
        uint64_t uncommitted_entries;
        uint64_t message_bytes;
        uint64_t jobs_per_call;
        uint64_t watch_events;
        uint64_t watches;
        uint64_t log_streams;
        uint64_t lists;
        uint64_t worker_streams;
        uint64_t connections;
        uint64_t peer_connections;
    } limits;
    struct {
        uint64_t segment_bytes;
    } wal;
    struct {
        uint64_t reserve_bytes;
        uint64_t scrub_interval_ms; /* 0 = never */
    } storage;
    struct {
        bool enabled;
        uint64_t slots; /* 0 = four per processor (the worker decides) */
        struct config_label labels[CONFIG_LABELS_MAX];
        size_t labels_count;
        uint64_t heartbeat_interval_ms;
        uint64_t lease_ms;
        uint64_t drain_timeout_ms;
        const char *data_dir;
    } worker;
    struct {
        bool insecure_bind;
    } security;
    struct {
        uint32_t level;  /* enum log_level */
        uint32_t format; /* enum log_format */
    } log;

    /* How it was loaded. */
    const char *file; /* --config; NULL = none */
    bool print;       /* --print-config */
    bool die_with_parent;
    bool bootstrap;   /* --bootstrap: form a cluster of the members when the directory is empty */
    const char *join; /* --join: client addresses of any members; NULL = not given */
    struct arg_list member_flags;
    struct arg_list label_flags;
    uint32_t members_line;
    uint32_t labels_line;
    struct config_origin origins[CONFIG_SETTINGS_MAX];
    struct arena arena; /* owns what the file's strings need */
};

/* All settings, then the options that only the command line has. */
extern const struct arg_option config_options[];
extern const size_t config_options_count;

/* The `server` command for help and completion: options without a function. */
extern const struct arg_command config_server_command;

void config_init(struct config *c); /* defaults */
void config_done(struct config *c);

/* Read YAML text over what @c holds. @name is for messages. Returns 0; 1 = refused, *reterr has
 * file, line, key and what would be right; -ENOMEM. */
int config_read(struct config *c, const char *name, const char *text, size_t len,
                struct errtext *reterr) _must_check_;

/* Fill what follows from other settings and check the whole. Call once, after all sources.
 * Results as config_read. */
int config_finish(struct config *c, struct errtext *reterr) _must_check_;

/* The whole of `server`'s command line: --config, flags over it, --print-config, --help.
 * @argv[0] is the subcommand's name. @c is initialised here; call config_done in every case.
 * Returns 0 = start with @c; 1 = done, exit with *ret_exit (everything was printed). */
int config_load(struct config *c, int argc, char **argv, int *ret_exit) _must_check_;

/* Complete YAML that config_read turns into the same configuration. */
void config_print(const struct config *c, FILE *out);

/* Why an even number of members is a poor choice, or "" for an odd one. @out: 512 bytes. */
const char *config_even_size_warning(size_t members_count, char out[512]);

/* Split "host:port" or "[v6]:port". 0, or 1 = *reterr says what would be right.
 * @ret_host 256 bytes, without brackets. */
int config_split_address(const char *address, char *ret_host, uint16_t *ret_port,
                         struct errtext *reterr) _must_check_;
