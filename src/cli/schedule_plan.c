/* What `schedule apply` and `import` do: compare the definitions they have read with the stored
 * ones, show what would change and which next runs move, and carry it out. */
#include "cli/cli_schedule.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define DIFFERENCES_BYTES_MAX ((size_t) 64 * 1024)

enum action { ACTION_NONE, ACTION_CREATE, ACTION_UPDATE, ACTION_DELETE };

static const char *const action_names[] = {"unchanged", "create", "update", "delete"};
static const char *const action_marks[] = {"=", "+", "~", "-"};
static const char *const action_colours[] = {NULL, "32", "33", "31"};

struct step {
    enum action action;
    const char *name;
    Chronos__V1__ScheduleSpec *spec;     /* NULL: DELETE */
    uint64_t version;                    /* of the stored one */
    const char *differences;             /* "cron, job.command" */
    int64_t run_before_ms, run_after_ms; /* next runs; 0 = none */
    bool failed;
};

struct plan {
    const struct schedule_plan_options *o;
    struct client *client;
    struct arena *arena;
    const struct schedule_list *wanted; /* by name */
    struct step *steps;                 /* in the arena */
    size_t count, capacity;
    int worst; /* exit code of what failed */
};

static struct step *add_step(struct plan *p, enum action a, const char *name) {
    struct step *s;

    if (p->count == p->capacity) {
        size_t n = MAX(2 * p->capacity, (size_t) 64);
        struct step *grown = arena_zalloc(p->arena, n * sizeof(*grown));

        if (!grown)
            return NULL;
        if (p->count > 0)
            memcpy(grown, p->steps, p->count * sizeof(*grown));
        p->steps = grown;
        p->capacity = n;
    }
    s = &p->steps[p->count++];
    s->action = a;
    s->name = arena_strdup(p->arena, name);
    return s->name ? s : NULL;
}

/* ---- planning ---------------------------------------------------------------------------------
 */

/* When the definition would run next; the node refuses one that it does not understand. */
static int preview(struct plan *p, struct step *s) {
    Chronos__V1__PreviewScheduleRequest req = CHRONOS__V1__PREVIEW_SCHEDULE_REQUEST__INIT;
    Chronos__V1__PreviewScheduleResponse *res;
    ProtobufCMessage *reply = NULL;
    int r;

    req.spec = s->spec;
    req.count = 1;
    r = schedule_call(p->client, s->name, "PreviewSchedule", &req.base,
                      &chronos__v1__preview_schedule_response__descriptor, /* repeatable= */ true,
                      &reply);
    if (r != 0)
        return r;
    res = (Chronos__V1__PreviewScheduleResponse *) reply;
    for (size_t i = 0; s->run_after_ms == 0 && i < res->n_instants; i++) {
        if (res->instants[i]->fires)
            s->run_after_ms = res->instants[i]->start_ms;
    }
    chronos__v1__preview_schedule_response__free_unpacked(res, NULL);
    return 0;
}

static int compare(struct plan *p, struct step *s, const Chronos__V1__Schedule *stored) {
    struct buf b;
    int r;

    buf_init(&b, DIFFERENCES_BYTES_MAX);
    r = schedule_spec_differences(stored->spec, s->spec, p->arena, &b);
    if (r == 0 && b.len > 0) {
        s->action = ACTION_UPDATE;
        s->differences = arena_printf(p->arena, "%.*s", (int) b.len, (const char *) b.data);
        r = s->differences ? 0 : -ENOMEM;
    }
    buf_done(&b);
    s->version = stored->version;
    s->run_before_ms = stored->next_run_ms;
    s->run_after_ms = s->action == ACTION_UPDATE ? 0 : stored->next_run_ms;
    return r;
}

static int plan_one(struct plan *p, Chronos__V1__ScheduleSpec *spec) {
    struct step *s = add_step(p, ACTION_NONE, spec->name);
    Chronos__V1__ScheduleResponse *res = NULL;
    struct client_error e;
    int r;

    if (!s)
        return -ENOMEM;
    s->spec = spec;
    r = schedule_try_get(p->client, spec->name, &res, &e);
    if (r == RPC_NOT_FOUND) {
        s->action = ACTION_CREATE;
    } else if (r != 0) {
        return cli_fail(spec->name, &e);
    } else {
        r = compare(p, s, res->schedule);
        chronos__v1__schedule_response__free_unpacked(res, NULL);
        if (r < 0)
            return r;
    }
    return s->action == ACTION_NONE ? 0 : preview(p, s);
}

static int compare_names(const void *name, const void *item) {
    const Chronos__V1__ScheduleSpec *const *spec = item;

    return strcmp(name, (*spec)->name);
}

static int plan_prune(void *arg, const Chronos__V1__Schedule *stored) {
    struct plan *p = arg;
    struct step *s;

    if (bsearch(stored->spec->name, p->wanted->items, p->wanted->count, sizeof(*p->wanted->items),
                compare_names))
        return 0;
    s = add_step(p, ACTION_DELETE, stored->spec->name);
    if (!s)
        return -ENOMEM;
    s->version = stored->version;
    s->run_before_ms = stored->next_run_ms;
    return 0;
}

static int make_plan(struct plan *p) {
    struct schedule_filter f = {.labels = p->o->labels};
    int r = 0;

    for (size_t i = 0; r == 0 && i < p->wanted->count; i++)
        r = plan_one(p, p->wanted->items[i]);
    if (r == 0 && p->o->prune)
        r = schedule_each(p->client, &f, plan_prune, p);
    return r;
}

/* ---- showing ----------------------------------------------------------------------------------
 */

static void print_step(const struct step *s, bool colour) {
    char before[32], after[32];
    const char *c = colour ? action_colours[s->action] : NULL;

    (void) text_time(s->run_before_ms, before);
    (void) text_time(s->run_after_ms, after);
    printf("%s%s%s%s %s%s", c ? "\x1b[" : "", c ? c : "", c ? "m" : "", action_marks[s->action],
           s->name, c ? "\x1b[0m" : "");
    switch (s->action) {
    case ACTION_NONE:
        break;
    case ACTION_CREATE:
        printf("  next run %s", after);
        break;
    case ACTION_UPDATE:
        printf("  %s", s->differences);
        if (s->run_before_ms != s->run_after_ms)
            printf("; next run %s -> %s", before, after);
        break;
    case ACTION_DELETE:
        printf("  next run %s -> none", before);
        break;
    }
    putchar('\n');
}

static size_t count_action(const struct plan *p, enum action a) {
    size_t n = 0;

    for (size_t i = 0; i < p->count; i++)
        n += p->steps[i].action == a;
    return n;
}

static void print_plan(const struct plan *p) {
    bool colour = text_colour_wanted(stdout);

    for (size_t i = 0; i < p->count; i++) {
        if (p->steps[i].action != ACTION_NONE)
            print_step(&p->steps[i], colour);
    }
    printf("%zu to create, %zu to change, %zu to delete, %zu unchanged%s\n",
           count_action(p, ACTION_CREATE), count_action(p, ACTION_UPDATE),
           count_action(p, ACTION_DELETE), count_action(p, ACTION_NONE),
           p->o->dry_run ? " (dry run: nothing was done)" : "");
    (void) fflush(stdout);
}

static int print_json(const struct plan *p) {
    json_t *steps = json_array(), *o;
    int r = steps ? 0 : -ENOMEM;

    for (size_t i = 0; r == 0 && i < p->count; i++) {
        const struct step *s = &p->steps[i];

        r = json_array_append_new(
            steps,
            json_pack("{s:s, s:s, s:s, s:I, s:I, s:b}", "name", s->name, "action",
                      action_names[s->action], "changes", s->differences ? s->differences : "",
                      "next_run_before_ms", (json_int_t) s->run_before_ms, "next_run_after_ms",
                      (json_int_t) s->run_after_ms, "failed", (int) s->failed));
        r = r == 0 ? 0 : -ENOMEM;
    }
    o = json_pack("{s:O, s:b}", "plan", steps, "dry_run", (int) p->o->dry_run);
    if (r == 0)
        r = json_print(o, /* pretty= */ true, stdout);
    json_decref(o);
    json_decref(steps);
    return r;
}

/* ---- carrying out -----------------------------------------------------------------------------
 */

/* The gRPC code. */
static int take_step(struct plan *p, const struct step *s, struct client_error *e) {
    Chronos__V1__ScheduleResponse *res = NULL;
    char key[SCHEDULE_KEY_BYTES];
    int r = 0;

    switch (s->action) {
    case ACTION_NONE:
        break;
    case ACTION_CREATE:
        if (schedule_random_key(key) < 0) {
            *e = (struct client_error){.code = RPC_INTERNAL, .message = "no random numbers"};
            return RPC_INTERNAL;
        }
        r = schedule_try_create(p->client, s->spec, /* paused= */ false, key, &res, e);
        break;
    case ACTION_UPDATE:
        r = schedule_try_update(p->client, s->spec, s->version, &res, e);
        break;
    case ACTION_DELETE:
        r = schedule_try_delete(p->client, s->name, s->version, /* cancel_open_runs= */ false, e);
        break;
    }
    if (r == 0 && res)
        chronos__v1__schedule_response__free_unpacked(res, NULL);
    return r;
}

static void take_steps(struct plan *p) {
    size_t failed = 0;

    for (size_t i = 0; i < p->count; i++) {
        struct step *s = &p->steps[i];
        struct client_error e;
        int r = take_step(p, s, &e);

        if (r == 0)
            continue;
        s->failed = true;
        failed++;
        r = cli_fail(s->name, &e);
        p->worst = p->worst == EXIT_CODE_OK ? r : p->worst;
    }
    if (failed > 0)
        fprintf(stderr, "chronos: %zu of the changes failed; the others are done\n", failed);
}

static int compare_items(const void *a, const void *b) {
    const Chronos__V1__ScheduleSpec *const *sa = a, *const *sb = b;

    return strcmp((*sa)->name, (*sb)->name);
}

int schedule_carry_out(const struct schedule_plan_options *o, const struct schedule_list *l,
                       struct arena *arena) {
    _cleanup_(client_freep) struct client *c = NULL;
    struct plan p = {.o = o, .arena = arena, .wanted = l};
    int r = cli_connect(o->common, &c);

    if (r != 0)
        return r;
    p.client = c;
    if (l->count > 0)
        qsort(l->items, l->count, sizeof(*l->items), compare_items);
    r = make_plan(&p);
    if (r == 0 && o->common->output == CLI_TABLE)
        print_plan(&p);
    if (r == 0 && !o->dry_run)
        take_steps(&p);
    if (r == 0 && o->common->output == CLI_JSON)
        r = print_json(&p);
    return r != 0 ? (r < 0 ? cli_fail_errno(r) : r) : p.worst;
}
