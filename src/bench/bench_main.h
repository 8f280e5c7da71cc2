/* `chronos bench`. Returns the process's exit status (cli/exit_code.h has the meanings). */
#pragma once

int bench_main(int argc, char **argv);
