/* Shared by the parts of `chronos inspect`. Thread: the caller's. */
#pragma once

#include "base/disk.h"
#include "cli/args.h"
#include "cli/common.h"

struct disk_posix;

struct inspect_values {
    uint32_t output;
    uint64_t limit;
    uint64_t first;
};

/* clang-format off */
#define INSPECT_OUTPUT_OPTION                                                                      \
    {"output", 'o', ARG_CHOICE, NULL, "form of the output", "table", cli_output_names,             \
     offsetof(struct inspect_values, output), 0, 0}
/* clang-format on */

extern const struct arg_command cmd_inspect_wal;
extern const struct arg_command cmd_inspect_state;

/* Open a data directory to look at. Returns 0, or the exit code after printing why. */
int inspect_open(const char *dir, struct disk_posix **ret, struct disk *ret_disk) _must_check_;
/* Print the reason; returns the exit code. */
int inspect_fail(const char *dir, int rc, const struct errtext *why) _must_check_;
const char *inspect_hex16(const uint8_t id[16], char out[33]);
/* Print and release; NULL is no memory. Returns the exit code. */
int inspect_print(json_t *j) _must_check_;
