/* A range of seeds, shared by forked processes. */
#include "cmd/sim_range.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define REPEAT_ONE_IN 20      /* seeds run twice, to see that they are the same run (R23) */
#define PROGRESS_SECONDS 5    /* between two lines, when stdout is a terminal */
#define SEED_SECONDS_MAX 300  /* then it hangs: under sanitizers one takes about a second */
#define SAID_BYTES_MAX 65536L /* of stderr that is shown */
#define SEEDS_NOTED_MAX (1UL << 24)

/* What one process has done; written by it alone, read by its parent. */
struct slot {
    struct sim_totals totals;
    _Atomic uint64_t seed;     /* it is at; 0 = none yet */
    _Atomic uint64_t begun_at; /* ns of the monotonic clock */
    uint64_t failed_seed;      /* 0 = none */
    uint64_t seed_events;      /* of the seed that ended last */
    char why[1024];
    pid_t pid; /* 0 = over; this and what follows: the parent's */
    int stderr_fd;
};

struct shared {
    _Atomic uint64_t next;   /* seed that nobody has */
    _Atomic uint64_t lowest; /* failing seed, UINT64_MAX = none: nothing above it matters */
    uint64_t *events;        /* of each seed of the first SEEDS_NOTED_MAX */
    struct slot slots[];
};

static volatile sig_atomic_t interrupted;

static void on_interrupt(int sig) {
    (void) sig;
    interrupted = 1;
}

static uint64_t mono_ns(void) {
    struct timespec t = {0};

    (void) clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t) t.tv_sec * 1000000000ULL + (uint64_t) t.tv_nsec;
}

bool sim_seed_run(const struct sim_arguments *a, uint64_t seed, struct sim_totals *totals,
                  char *why, size_t why_size, uint64_t *ret_events) {
    struct sim_options o = sim_arguments_world(a, seed);
    struct sim_result r = {0}, again = {0};
    const char *problem = NULL;

    if (sim_run(&o, &r) < 0)
        problem = "out of memory";
    else if (!r.ok)
        problem = r.failure;
    else if (seed % REPEAT_ONE_IN == 0 && !a->trace && sim_run(&o, &again) < 0)
        problem = "out of memory";
    else if (again.events != 0 && (again.trace_hash != r.trace_hash || again.events != r.events))
        problem = "not deterministic: a second run took another course";
    *ret_events = r.events;
    if (problem) {
        (void) snprintf(why, why_size, "%s", problem);
        return false;
    }
    if (a->trace)
        printf("trace hash %016llx\n", (unsigned long long) r.trace_hash);
    totals->seeds++;
    totals->events += r.events;
    for (unsigned i = 0; i < SIM_STATS; i++)
        totals->stats[i] += r.stats[i];
    return true;
}

/* ---- a process of its own -------------------------------------------------------------------- */

static void note_failure(struct shared *sh, uint64_t seed) {
    uint64_t lowest = atomic_load(&sh->lowest);

    while (seed < lowest && !atomic_compare_exchange_weak(&sh->lowest, &lowest, seed))
        ;
}

_noreturn_ static void work(const struct sim_arguments *a, struct shared *sh, struct slot *s) {
    while (!interrupted && s->failed_seed == 0) {
        uint64_t seed = atomic_fetch_add(&sh->next, 1);

        if (seed > a->last || seed > atomic_load(&sh->lowest))
            break;
        atomic_store(&s->begun_at, mono_ns());
        atomic_store(&s->seed, seed);
        if (!sim_seed_run(a, seed, &s->totals, s->why, sizeof(s->why), &s->seed_events)) {
            s->failed_seed = seed;
            note_failure(sh, seed);
        }
        if (seed - a->first < SEEDS_NOTED_MAX)
            sh->events[seed - a->first] = s->seed_events;
    }
    exit(0); /* not _exit(): what the compiler counts for coverage is written at an exit */
}

static int start(const struct sim_arguments *a, struct shared *sh, struct slot *s) {
    pid_t parent = getpid(), pid; /* the slot's is the parent's to write: it is shared */

    s->stderr_fd = memfd_create("stderr", MFD_CLOEXEC);
    if (s->stderr_fd < 0)
        return -errno;
    pid = fork();
    if (pid < 0)
        return -errno;
    if (pid > 0) {
        s->pid = pid;
        return 0;
    }
    (void) prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent || dup2(s->stderr_fd, STDERR_FILENO) < 0)
        _exit(1);
    work(a, sh, s);
}

/* ---- its parent ------------------------------------------------------------------------------ */

static void on_death(const struct sim_arguments *a, struct shared *sh, struct slot *s, int status) {
    s->pid = 0;
    if (s->failed_seed != 0 || (WIFEXITED(status) && WEXITSTATUS(status) == 0))
        return;
    s->failed_seed = MAX(atomic_load(&s->seed), a->first); /* the first: it had not yet begun */
    s->seed_events = 0;
    if (s->why[0] == '\0' && WIFSIGNALED(status))
        (void) snprintf(s->why, sizeof(s->why), "the code under test ended the process: %s",
                        strsignal(WTERMSIG(status)));
    else if (s->why[0] == '\0')
        (void) snprintf(s->why, sizeof(s->why),
                        "the code under test ended the process with exit code %d",
                        WEXITSTATUS(status));
    note_failure(sh, s->failed_seed);
}

/* A seed that takes for ever: its process is ended, and dies of it like any other. */
static void end_hung(struct slot *s) {
    uint64_t begun = atomic_load(&s->begun_at);

    if (s->pid == 0 || begun == 0 || mono_ns() - begun < SEED_SECONDS_MAX * 1000000000ULL)
        return;
    (void) snprintf(s->why, sizeof(s->why), "the seed ran for more than %d s and was ended",
                    SEED_SECONDS_MAX);
    (void) kill(s->pid, SIGKILL);
}

static void print_progress(const struct sim_arguments *a, const struct shared *sh, double seconds) {
    uint64_t next = MIN(atomic_load(&sh->next), a->last + 1);

    printf("%llu of %llu seeds begun, %.0f s\n", (unsigned long long) (next - a->first),
           (unsigned long long) (a->last - a->first + 1), seconds);
}

/* SIGCHLD is blocked, so that none comes between the look and the wait. */
static void supervise(const struct sim_arguments *a, struct shared *sh, unsigned count,
                      uint64_t begun) {
    const struct timespec second = {.tv_sec = 1};
    uint64_t told = begun;
    unsigned alive = count;
    sigset_t child;

    (void) sigemptyset(&child);
    (void) sigaddset(&child, SIGCHLD);
    while (alive > 0) {
        (void) sigtimedwait(&child, NULL, &second);
        for (unsigned i = 0; i < count; i++) {
            int status = 0;

            end_hung(&sh->slots[i]);
            if (sh->slots[i].pid == 0 || waitpid(sh->slots[i].pid, &status, WNOHANG) <= 0)
                continue;
            on_death(a, sh, &sh->slots[i], status);
            alive--;
        }
        if (isatty(STDOUT_FILENO) && mono_ns() - told > PROGRESS_SECONDS * 1000000000ULL) {
            told = mono_ns();
            print_progress(a, sh, (double) (told - begun) / 1e9);
        }
    }
}

static char *read_said(int fd) {
    off_t size = lseek(fd, 0, SEEK_END);
    size_t len = (size_t) MIN(MAX(size, 0), SAID_BYTES_MAX);
    char *text = len > 0 ? calloc(1, len + 1) : NULL;

    if (text && pread(fd, text, len, 0) < 0)
        text[0] = '\0';
    return text;
}

/* Of all seeds below the one that failed: each was run. */
static uint64_t events_before(const struct sim_arguments *a, const struct shared *sh,
                              uint64_t seed) {
    uint64_t sum = 0;

    for (uint64_t i = 0; i < MIN(seed - a->first, SEEDS_NOTED_MAX); i++)
        sum += sh->events[i];
    return sum;
}

static void merge(const struct sim_arguments *a, struct shared *sh, unsigned count,
                  struct sim_range *ret) {
    uint64_t lowest = atomic_load(&sh->lowest);

    for (unsigned i = 0; i < count; i++) {
        struct slot *s = &sh->slots[i];

        ret->totals.seeds += s->totals.seeds;
        ret->totals.events += s->totals.events;
        for (unsigned k = 0; k < SIM_STATS; k++)
            ret->totals.stats[k] += s->totals.stats[k];
        if (s->failed_seed == 0 || s->failed_seed != lowest)
            continue;
        ret->failed = true;
        ret->seed = s->failed_seed;
        ret->events = s->seed_events;
        ret->events_before = events_before(a, sh, lowest);
        (void) snprintf(ret->why, sizeof(ret->why), "%s", s->why);
        ret->said = read_said(s->stderr_fd);
    }
}

/* Ctrl-C goes to all of the foreground: each process ends the seed it is at. */
static void catch_signals(void) {
    struct sigaction stop = {.sa_handler = on_interrupt};
    sigset_t child;

    (void) sigaction(SIGINT, &stop, NULL);
    (void) sigemptyset(&child);
    (void) sigaddset(&child, SIGCHLD);
    (void) sigprocmask(SIG_BLOCK, &child, NULL);
}

/* Memory that the processes share; the part that notes seeds is touched as far as it is used. */
static struct shared *share(const struct sim_arguments *a, size_t slots_size, size_t *ret_size) {
    size_t noted = MIN(a->last - a->first + 1, SEEDS_NOTED_MAX) * sizeof(uint64_t);
    void *memory;

    *ret_size = slots_size + noted;
    memory = mmap(NULL, *ret_size, PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        return NULL;
    ((struct shared *) memory)->events = (uint64_t *) (void *) ((char *) memory + slots_size);
    return memory;
}

int sim_range_run(const struct sim_arguments *a, struct sim_range *ret) {
    unsigned count = (unsigned) MIN(a->jobs, a->last - a->first + 1);
    size_t size = 0;
    struct shared *sh = share(a, sizeof(*sh) + count * sizeof(sh->slots[0]), &size);
    uint64_t begun = mono_ns();
    unsigned started = 0;
    int rc = 0;

    *ret = (struct sim_range){0};
    if (!sh)
        return -errno;
    atomic_store(&sh->next, a->first);
    atomic_store(&sh->lowest, UINT64_MAX);
    catch_signals();
    (void) fflush(NULL); /* or each process writes what was not yet written */
    for (; started < count && rc == 0; started++)
        rc = start(a, sh, &sh->slots[started]);
    if (rc < 0) /* those that run end on their own */
        atomic_store(&sh->lowest, 0);
    supervise(a, sh, started - (rc < 0), begun);
    merge(a, sh, started, ret);
    for (unsigned i = 0; i < started; i++)
        if (sh->slots[i].stderr_fd >= 0)
            (void) close(sh->slots[i].stderr_fd);
    ret->interrupted = interrupted != 0;
    ret->seconds = (double) (mono_ns() - begun) / 1e9;
    (void) munmap(sh, size);
    return rc;
}
