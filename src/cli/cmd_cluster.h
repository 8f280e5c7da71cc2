/* Shared by the parts of `chronos cluster`. Thread: the caller's. */
#pragma once

#include "cli/args.h"
#include "cli/common.h"

extern const struct arg_command cmd_cluster_add;
extern const struct arg_command cmd_cluster_remove;
extern const struct arg_command cmd_cluster_promote;
extern const struct arg_command cmd_cluster_demote;
extern const struct arg_command cmd_cluster_replace;
extern const struct arg_command cmd_cluster_transfer;
extern const struct arg_command cmd_cluster_drain;
extern const struct arg_command cmd_cluster_undrain;

/* A node id from the command line. Returns 0, or the exit code after printing why. */
int cluster_parse_node(const char *text, uint64_t *ret) _must_check_;
/* One call of ClusterService, on a connection of its own. @what is the command, for messages.
 * Returns 0 with *ret owned by the caller, or the exit code after printing why. */
int cluster_call(const struct cli_common *common, const char *what, const char *method,
                 const ProtobufCMessage *request, const ProtobufCMessageDescriptor *reply,
                 bool repeatable, ProtobufCMessage **ret) _must_check_;
