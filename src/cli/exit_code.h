/* What the process's exit status means, the same for every subcommand. */
#pragma once

enum exit_code {
    EXIT_CODE_OK = 0,
    EXIT_CODE_FAILED = 1,      /* it was tried and did not succeed; a waited-for job failed */
    EXIT_CODE_USAGE = 2,       /* the command line or the configuration is wrong */
    EXIT_CODE_NOT_FOUND = 3,   /* the named thing does not exist */
    EXIT_CODE_UNAVAILABLE = 4, /* no node, no leader, no room or no time: trying again may help */
};
