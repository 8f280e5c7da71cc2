#include "cli/commands.h"
#include "cli/common.h"

#include <errno.h>

struct version_values {
    struct cli_common common;
};

static const struct arg_option options[] = {CLI_OUTPUT_OPTION};

static int run(void *values, char **rest, size_t rest_count) {
    const struct version_values *v = values;

    (void) rest;
    ASSERT(rest_count == 0);
    if (v->common.output == CLI_JSON) {
        json_t *o = json_pack("{s:s}", "version", CHRONOS_VERSION);
        int r = json_print(o, /* pretty= */ true, stdout);

        json_decref(o);
        return r < 0 ? cli_fail_errno(r) : EXIT_CODE_OK;
    }
    return printf("chronos %s\n", CHRONOS_VERSION) < 0 ? cli_fail_errno(-EIO) : EXIT_CODE_OK;
}

const struct arg_command cmd_version = {
    .name = "version",
    .summary = "print the version",
    .examples = "  chronos version\n  chronos version -o json",
    .options = options,
    .options_count = ARRAY_LEN(options),
    .values_bytes = sizeof(struct version_values),
    .run = run,
};
