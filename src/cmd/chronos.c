/* main(): the tree of commands. Each command lives in its own folder; this file only names them. */
#include "bench/bench_main.h"
#include "cli/args.h"
#include "cli/args_help.h"
#include "cli/cmd_backup.h"
#include "cli/commands.h"
#include "cli/config.h"
#include "cmd/cmd_server.h"
#include "os/standard_files.h"
#include "worker/worker_main.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int run_completion(void *values, char **rest, size_t rest_count);

static const struct arg_command completion_command = {
    .name = "completion",
    .summary = "print the shell completion script",
    .positional = "bash",
    .examples = "  source <(chronos completion bash)",
    .rest_min = 1,
    .rest_max = 1,
    .run = run_completion,
};

static const struct arg_command worker_command = {
    .name = "worker",
    .summary = "run jobs for a cluster",
    .main = worker_main,
};

static const struct arg_command bench_command = {
    .name = "bench",
    .summary = "measure a cluster beside what its disk allows",
    .main = bench_main,
};

/* The table lives in cli/; the function is here, where the layers meet. */
static const struct arg_command *server_command(struct arg_command *out) {
    *out = config_server_command;
    out->main = cmd_server;
    return out;
}

#define ROOT_DETAILS                                                                               \
    "Chronos runs commands on a cluster of nodes that agree through Raft. Any node takes any\n"    \
    "call; what was acknowledged survives the loss of a minority.\n\n"                             \
    "Exit codes: 0 ok, 1 failed, 2 usage, 3 not found, 4 unavailable."

static int dispatch(int argc, char **argv) {
    char version[] = "version";
    struct arg_command server;
    const struct arg_command *const children[] = {server_command(&server),
                                                  &worker_command,
                                                  &cmd_dev,
                                                  &cmd_job,
                                                  &cmd_schedule,
                                                  &cmd_why,
                                                  &cmd_cluster,
                                                  &cmd_backup,
                                                  &cmd_restore,
                                                  &cmd_recover,
                                                  &cmd_inspect,
                                                  &bench_command,
                                                  &cmd_version,
                                                  &completion_command,
                                                  NULL};
    const struct arg_command root = {
        .name = "chronos",
        .summary = "a distributed job scheduler",
        .details = ROOT_DETAILS,
        .examples =
            "  chronos dev\n"
            "  chronos job submit --wait -- echo hello\n"
            "  chronos cluster status",
        .children = children,
    };

    /* `completion` describes the very tree it stands in, so it cannot go through a constant. */
    if (argc == 3 && strcmp(argv[1], "completion") == 0 && strcmp(argv[2], "bash") == 0) {
        args_completion_bash(&root, stdout);
        return EXIT_CODE_OK;
    }
    if (argc == 2 && strcmp(argv[1], "--version") == 0)
        argv[1] = version;
    return args_dispatch(&root, argc, argv);
}

/* Reached only with another word than bash. */
static int run_completion(void *values, char **rest, size_t rest_count) {
    (void) values;
    ASSERT(rest_count == 1);
    fprintf(stderr, "chronos completion: \"%.32s\" is not supported; bash is\n", rest[0]);
    return EXIT_CODE_USAGE;
}

/* Before the constructors of the libraries, some of which open descriptors of their own: only the
 * functions of .preinit_array run earlier (System V ABI, initialization functions). */
static void before_libraries(int argc, char **argv, char **envp) {
    (void) argc, (void) argv, (void) envp;
    if (standard_files_open() < 0)
        _exit(EXIT_CODE_FAILED);
}
__attribute__((section(".preinit_array"),
               used)) static void (*const preinit)(int, char **, char **) = before_libraries;

/* Output that is lost is a failure: whoever redirects it to a full disk would take it for whole. Of
 * a reader that has gone nobody wants to be told (chronos job list | head -1). */
static int end_output(int code) {
    int r = standard_output_end();

    if (r == 0)
        return code;
    if (r != -EPIPE && code == EXIT_CODE_OK)
        (void) fprintf(stderr, "chronos: standard output: %s\n", strerror(-r));
    return code == EXIT_CODE_OK ? EXIT_CODE_FAILED : code;
}

int main(int argc, char **argv) {
    /* A closed pipe is an error of write(2), not the end of the process. */
    (void) signal(SIGPIPE, SIG_IGN);
    if (argc < 1)
        return EXIT_CODE_USAGE;
    return end_output(dispatch(argc, argv));
}
