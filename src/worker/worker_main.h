/* The entry of `chronos worker`. Exit codes: 0 stopped as asked, 1 failed, 2 wrong usage. */
#pragma once

/* @argv[0] is the subcommand's name. Runs until SIGTERM or SIGINT (a second one skips the drain).
 */
int worker_main(int argc, char **argv);
