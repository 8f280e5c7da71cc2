#include "worker/launch.h"

#include "sched/civil.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BASE_VARIABLES 3 /* PATH, HOME, LANG */
#define OWN_VARIABLES 7  /* CHRONOS_* */
#define ENV_START "CHRONOS_STARTED_AT="
#define RFC3339_BYTES_MAX 64
/* The end of the year 9999: what four digits can say. */
#define LAUNCH_TIME_MS_MAX 253402300799999LL
#define ARGV_COUNT_MAX 65536
#define ENV_COUNT_MAX 4096

struct launch *launch_free(struct launch *l) {
    if (!l)
        return NULL;
    arena_done(&l->arena);
    free(l);
    return NULL;
}

static bool refused_name(const char *name) {
    return name[0] == '\0' || strchr(name, '=') != NULL || strncmp(name, "LD_", 3) == 0 ||
           strncmp(name, "CHRONOS_", 8) == 0;
}

struct env_list {
    struct arena *arena;
    char **items;
    size_t count;
    bool failed;
};

static void env_set(struct env_list *e, const char *name, const char *value) {
    size_t n = strlen(name);
    char *item = arena_printf(e->arena, "%s=%s", name, value);

    if (!item) {
        e->failed = true;
        return;
    }
    for (size_t i = 0; i < e->count; i++) {
        if (strncmp(e->items[i], item, n + 1) == 0) {
            e->items[i] = item;
            return;
        }
    }
    e->items[e->count++] = item;
}

/* "2026-03-08T07:00:00.000Z", whatever the process's own zone is. */
static void format_utc(int64_t ms, char out[RFC3339_BYTES_MAX]) {
    int64_t ms_of_second = (ms % 1000 + 1000) % 1000;
    struct civil c = civil_of((ms - ms_of_second) / 1000);

    (void) snprintf(out, RFC3339_BYTES_MAX, "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ", c.year, c.month,
                    c.day, c.hour, c.minute, c.second, (int) ms_of_second);
}

/* Which run of which schedule this is (C30). */
static void set_schedule(struct env_list *e, const Chronos__V1__Assignment *a) {
    char text[RFC3339_BYTES_MAX];

    if (a->schedule_id[0] == '\0')
        return;
    format_utc(MIN(MAX(a->tick_ms, 0), LAUNCH_TIME_MS_MAX), text);
    env_set(e, "CHRONOS_SCHEDULE_ID", a->schedule_id);
    env_set(e, "CHRONOS_SCHEDULED_AT", text);
}

void launch_set_start(struct launch *l, struct wall now) {
    char text[RFC3339_BYTES_MAX];

    format_utc(MIN(MAX(now.ms, 0), LAUNCH_TIME_MS_MAX), text);
    (void) snprintf(l->start, sizeof(ENV_START) + RFC3339_BYTES_MAX, ENV_START "%s", text);
}

static int build_env(struct launch *l, const struct launch_base *base, const struct ref *ref,
                     const Chronos__V1__Assignment *a) {
    const Chronos__V1__JobSpec *spec = a->spec;
    struct env_list e = {.arena = &l->arena};
    char mark[LAUNCH_MARK_BYTES_MAX], key[REF_KEY_TEXT_BYTES_MAX], number[24];

    e.items = arena_alloc(&l->arena,
                          (BASE_VARIABLES + OWN_VARIABLES + 1 + spec->n_env) * sizeof(*e.items));
    l->start = arena_zalloc(&l->arena, sizeof(ENV_START) + RFC3339_BYTES_MAX);
    if (!e.items || !l->start)
        return -ENOMEM;
    env_set(&e, "PATH", LAUNCH_PATH);
    env_set(&e, "HOME", base->home);
    env_set(&e, "LANG", "C.UTF-8");
    for (size_t i = 0; i < spec->n_env; i++)
        if (!refused_name(spec->env[i]->key))
            env_set(&e, spec->env[i]->key, spec->env[i]->value);
    env_set(&e, "CHRONOS_JOB_ID", ref->job_id);
    (void) snprintf(number, sizeof(number), "%" PRIu32, ref->attempt);
    env_set(&e, "CHRONOS_ATTEMPT", number);
    (void) snprintf(number, sizeof(number), "%" PRIu64, ref->token);
    env_set(&e, "CHRONOS_FENCING_TOKEN", number);
    ref_key_text(ref, key);
    (void) snprintf(mark, sizeof(mark), "%s/%s", base->instance, key);
    env_set(&e, LAUNCH_ENV_MARK, mark);
    l->mark = e.count > 0 ? e.items[e.count - 1] : NULL;
    set_schedule(&e, a);
    launch_set_start(l, (struct wall){0});
    e.items[e.count++] = l->start;
    e.items[e.count] = NULL;
    l->envp = e.items;
    return e.failed ? -ENOMEM : 0;
}

static int copy_argv(struct launch *l, const Chronos__V1__JobSpec *spec, struct errtext *reterr) {
    const char *shell[] = {"/bin/sh", "-c", NULL};
    size_t n = 0;
    char **from = NULL;

    if (spec->payload_case == CHRONOS__V1__JOB_SPEC__PAYLOAD_SHELL) {
        shell[2] = spec->shell;
        n = ARRAY_LEN(shell);
    } else if (spec->payload_case == CHRONOS__V1__JOB_SPEC__PAYLOAD_COMMAND) {
        n = spec->command->n_argv;
        from = spec->command->argv;
    }
    if (n == 0 || n > ARGV_COUNT_MAX || spec->n_env > ENV_COUNT_MAX) {
        errtext_set(reterr,
                    "this worker's version does not know the job's payload, or it is empty");
        return LAUNCH_E_INVALID;
    }
    l->argv = arena_zalloc(&l->arena, (n + 1) * sizeof(*l->argv));
    if (!l->argv)
        return -ENOMEM;
    ASSERT(from || n == ARRAY_LEN(shell));
    for (size_t i = 0; i < n; i++) {
        l->argv[i] = arena_strdup(&l->arena, from ? from[i] : shell[i]);
        if (!l->argv[i])
            return -ENOMEM;
    }
    if (l->argv[0][0] == '\0') {
        errtext_set(reterr, "argv[0] is empty; it must name a program");
        return LAUNCH_E_INVALID;
    }
    return 0;
}

static int set_cwd(struct launch *l, const struct launch_base *base, const struct ref *ref,
                   const Chronos__V1__JobSpec *spec, struct errtext *reterr) {
    char name[REF_NAME_BYTES_MAX];

    if (spec->working_dir[0] == '/') {
        l->cwd = arena_strdup(&l->arena, spec->working_dir);
    } else if (spec->working_dir[0] == '\0') {
        ref_name(ref, name);
        l->cwd = arena_printf(&l->arena, "%s/%s", base->work_path, name);
        l->own_cwd = true;
    } else {
        errtext_set(reterr, "working_dir \"%.200s\" is not absolute", spec->working_dir);
        return LAUNCH_E_INVALID;
    }
    return l->cwd ? 0 : -ENOMEM;
}

static void set_limits(struct launch *l, const Chronos__V1__JobSpec *spec) {
    l->run_timeout_ms = LAUNCH_RUN_TIMEOUT_MS_DEFAULT;
    if (spec->run_timeout_ms != 0)
        l->run_timeout_ms =
            spec->run_timeout_ms > 0 ? (uint64_t) spec->run_timeout_ms : LAUNCH_NO_TIMEOUT;
    l->kill_grace_ms =
        spec->kill_grace_ms > 0 ? (uint64_t) spec->kill_grace_ms : LAUNCH_KILL_GRACE_MS_DEFAULT;
    l->output_limit_bytes = spec->output_limit_bytes;
}

int launch_new(const struct launch_base *base, const struct ref *ref,
               const Chronos__V1__Assignment *a, struct launch **ret, struct errtext *reterr) {
    const Chronos__V1__JobSpec *spec = a->spec;
    _cleanup_(launch_freep) struct launch *l = calloc(1, sizeof(*l));
    int r;

    ASSERT(base->work_path[0] == '/');
    ASSERT(spec);
    if (!l)
        return -ENOMEM;
    arena_init(&l->arena, LAUNCH_BYTES_MAX);
    set_limits(l, spec);
    r = copy_argv(l, spec, reterr);
    if (r == 0)
        r = build_env(l, base, ref, a);
    if (r == 0)
        r = set_cwd(l, base, ref, spec, reterr);
    if (r != 0)
        return r;
    *ret = TAKE_PTR(l);
    return 0;
}
