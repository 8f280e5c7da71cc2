/* What a job's process is started with: program, arguments, environment, directory.
 *
 * What it is: a job specification turned into what execve(2) takes (security S10, S12; semantics
 * C30). The environment is clean: a fixed base, then the job's own variables, then CHRONOS_*. LD_*
 * and CHRONOS_* of the job are dropped here too, although the API refuses them.
 * What it is not: the starting itself.
 * Thread: any; no state. */
#pragma once

#include "base/arena.h"
#include "base/err.h"
#include "base/time.h"
#include "worker/ref.h"

#include "chronos/v1/worker_service.pb-c.h"

#define LAUNCH_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#define LAUNCH_ENV_MARK "CHRONOS_ATTEMPT_KEY"
#define LAUNCH_BYTES_MAX (8U << 20)

#define LAUNCH_RUN_TIMEOUT_MS_DEFAULT (5 * 60 * 1000)
#define LAUNCH_KILL_GRACE_MS_DEFAULT 10000
#define LAUNCH_NO_TIMEOUT UINT64_MAX

struct launch {
    struct arena arena;      /* owns everything below */
    const char *mark;        /* the entry of envp that only this attempt has */
    char *start;             /* the entry of envp that launch_set_start writes */
    char **argv;             /* NULL-terminated */
    char **envp;             /* NULL-terminated */
    const char *cwd;         /* absolute */
    bool own_cwd;            /* cwd is the attempt's private directory, to be made and removed */
    uint64_t run_timeout_ms; /* LAUNCH_NO_TIMEOUT: none */
    uint64_t kill_grace_ms;
    uint64_t output_limit_bytes;
};

struct launch_base {
    const char *home;      /* HOME of the job */
    const char *work_path; /* absolute; private directories are made in it */
    const char *instance;  /* names the data directory, so that the marks of two workers on one host
                            * do not mix: job ids repeat from cluster to cluster */
};

#define LAUNCH_E_INVALID 1 /* reterr is the sentence for the report: FAILED, reason START */

/* @a has a spec. Copies what it needs. 0, LAUNCH_E_INVALID, -ENOMEM. */
int launch_new(const struct launch_base *base, const struct ref *ref,
               const Chronos__V1__Assignment *a, struct launch **ret,
               struct errtext *reterr) _must_check_;
/* The process starts now: an attempt may have waited in the worker's own line since launch_new. */
void launch_set_start(struct launch *l, struct wall now);
struct launch *launch_free(struct launch *l);
DEFINE_CLEANUP(struct launch *, launch_free);

/* "CHRONOS_ATTEMPT_KEY=<instance>/<job>-<attempt>-<token>", the entry by which the processes of an
 * attempt are found wherever they went. */
#define LAUNCH_INSTANCE_BYTES_MAX 40
#define LAUNCH_MARK_BYTES_MAX                                                                      \
    (sizeof(LAUNCH_ENV_MARK "=") + LAUNCH_INSTANCE_BYTES_MAX + REF_KEY_TEXT_BYTES_MAX)
