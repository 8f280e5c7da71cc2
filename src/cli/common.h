/* What every client command shares: address, time, output form, and how failures are told.
 * Thread: the caller's. */
#pragma once

#include "cli/args.h"
#include "cli/client.h"
#include "cli/json.h"
#include "cli/text.h"

enum cli_output { CLI_TABLE, CLI_JSON };

/* First member of each client command's values. */
struct cli_common {
    const char *address; /* NULL = CHRONOS_ADDRESS or the default */
    uint64_t timeout_ms;
    uint32_t output; /* enum cli_output */
};

extern const char *const cli_output_names[];

/* clang-format off */
#define CLI_OUTPUT_OPTION                                                                          \
    {"output", 'o', ARG_CHOICE, NULL, "form of the output", "table", cli_output_names,             \
     offsetof(struct cli_common, output), 0, 0}

/* The options of struct cli_common, at offset 0 of the values structure. `job submit` calls the
 * time limit otherwise: there --timeout is the job's. */
#define CLI_COMMON_OPTIONS_TIMEOUT(name)                                                           \
    {"address", 'a', ARG_STRING, "HOST:PORT[,...]",                                                \
     "any nodes of the cluster (default: CHRONOS_ADDRESS or 127.0.0.1:7400)", NULL, NULL,          \
     offsetof(struct cli_common, address), 0, 0},                                                  \
    {name, 0, ARG_DURATION, "TIME", "give up after this long, repetitions included", "10s", NULL,  \
     offsetof(struct cli_common, timeout_ms), 1, 24ULL * 3600 * 1000},                             \
    CLI_OUTPUT_OPTION
#define CLI_COMMON_OPTIONS CLI_COMMON_OPTIONS_TIMEOUT("timeout")
/* clang-format on */

/* Connect as the options say. Returns 0, or the exit code after printing why. */
int cli_connect(const struct cli_common *common, struct client **ret) _must_check_;

/* Print "chronos: WHAT: message" for a failed call; returns the exit code. */
int cli_fail(const char *what, const struct client_error *e) _must_check_;
/* Print a usage error; returns EXIT_CODE_USAGE. */
int cli_usage(const char *fmt, ...) _must_check_ _printf_(1, 2);
/* Out of memory or a full disk behind standard output; returns EXIT_CODE_FAILED. */
int cli_fail_errno(int err) _must_check_;

/* Print @m as one JSON document and free nothing. Returns the exit code. */
int cli_print_message(const ProtobufCMessage *m) _must_check_;

/* A command that asks one thing: connect, call @path (an unary method without effects), print the
 * reply as JSON or by @print, which returns 0 or a negative errno. Returns the exit code. */
int cli_query(const struct cli_common *common, const char *what, const char *path,
              const ProtobufCMessage *req, const ProtobufCMessageDescriptor *reply,
              int (*print)(const ProtobufCMessage *m)) _must_check_;

/* Now, in milliseconds since 1970 UTC. */
int64_t cli_now_ms(void);
