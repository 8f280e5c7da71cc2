/* `chronos schedule apply`, `export` and `import`: definitions in files. */
#include "cli/cli_schedule.h"

#include "cli/crontab.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EXPORT_BYTES_MAX ((size_t) 1024 * 1024 * 1024)
#define NOTES_BYTES_MAX ((size_t) 16 * 1024 * 1024)
#define FILES_MAX 1000

/* ---- apply ------------------------------------------------------------------------------------
 */

struct apply_values {
    struct cli_common common;
    struct arg_list files;
    bool dry_run, prune;
    struct arg_list labels;
};

/* Append the schedules of one file. 0, an exit code, -ENOMEM. */
static int read_yaml(const char *path, struct arena *arena, struct schedule_list *io) {
    _cleanup_(freep) char *text = NULL;
    struct schedule_list one = {0};
    struct errtext why = {""};
    Chronos__V1__ScheduleSpec **all;
    size_t len = 0;
    int r = schedule_read_file(path, SCHEDULE_YAML_BYTES_MAX, &text, &len);

    if (r == 0)
        r = schedule_yaml_read(strcmp(path, "-") == 0 ? "standard input" : path, text, len, arena,
                               &one, &why);
    if (r == 1 && why.s[0])
        return cli_usage("%s", why.s);
    if (r != 0)
        return r;
    all = arena_alloc(arena, (io->count + one.count + 1) * sizeof(*all));
    if (!all)
        return -ENOMEM;
    if (io->count > 0)
        memcpy(all, io->items, io->count * sizeof(*all));
    if (one.count > 0)
        memcpy(all + io->count, one.items, one.count * sizeof(*all));
    *io = (struct schedule_list){.items = all, .count = io->count + one.count};
    return 0;
}

static int compare_items(const void *a, const void *b) {
    const Chronos__V1__ScheduleSpec *const *sa = a, *const *sb = b;

    return strcmp((*sa)->name, (*sb)->name);
}

static int check_unique(struct schedule_list *l) {
    if (l->count > 0)
        qsort(l->items, l->count, sizeof(*l->items), compare_items);
    for (size_t i = 1; i < l->count; i++) {
        if (strcmp(l->items[i - 1]->name, l->items[i]->name) == 0)
            return cli_usage("%.128s: two of the files have a schedule of this name",
                             l->items[i]->name);
    }
    return 0;
}

static int run_apply(void *values, char **rest, size_t rest_count) {
    const struct apply_values *v = values;
    const struct schedule_plan_options o = {
        .common = &v->common, .dry_run = v->dry_run, .prune = v->prune, .labels = &v->labels};
    struct schedule_list l = {0};
    struct arena arena;
    int r = 0;

    (void) rest;
    ASSERT(rest_count == 0);
    if (v->files.count == 0)
        return cli_usage("which file? chronos schedule apply -f FILE.yaml");
    if (v->labels.count > 0 && !v->prune)
        return cli_usage("--label says what --prune may delete; give it with --prune");
    arena_init(&arena, SCHEDULE_ARENA_BYTES);
    for (size_t i = 0; r == 0 && i < v->files.count; i++)
        r = read_yaml(v->files.items[i], &arena, &l);
    if (r == 0)
        r = check_unique(&l);
    if (r == 0)
        r = schedule_carry_out(&o, &l, &arena);
    arena_done(&arena);
    return r < 0 ? cli_fail_errno(r) : r;
}

static const struct arg_option apply_options[] = {
    {"file", 'f', ARG_LIST, "FILE", "YAML with schedules; - is standard input", NULL, NULL,
     offsetof(struct apply_values, files), 0, 0},
    {"dry-run", 0, ARG_FLAG, NULL, "show the plan and change nothing", NULL, NULL,
     offsetof(struct apply_values, dry_run), 0, 0},
    {"prune", 0, ARG_FLAG, NULL, "delete the schedules that are not in the files", NULL, NULL,
     offsetof(struct apply_values, prune), 0, 0},
    {"label", 'l', ARG_LIST, "KEY=VALUE", "with --prune: only those with this label", NULL, NULL,
     offsetof(struct apply_values, labels), 0, 0},
    CLI_COMMON_OPTIONS,
};

const struct arg_command cmd_schedule_apply = {
    .name = "apply",
    .summary = "make the cluster's schedules those of a file",
    .details =
        "Shows what is created (+), changed (~) and deleted (-), and the next runs that move, "
        "then\n"
        "does it. A schedule that someone else changes meanwhile is left alone (exit code 1).\n"
        "`chronos schedule export` writes such files; docs/cli.md has the keys.",
    .examples =
        "  chronos schedule apply -f schedules.yaml --dry-run\n"
        "  chronos schedule apply -f team.yaml --prune -l team=billing",
    .options = apply_options,
    .options_count = ARRAY_LEN(apply_options),
    .values_bytes = sizeof(struct apply_values),
    .run = run_apply,
};

/* ---- export -----------------------------------------------------------------------------------
 */

struct export_values {
    struct cli_common common;
    struct arg_list labels;
    bool crontab, user_column;
};

struct export {
    struct arena arena;
    struct schedule_list list;
    size_t capacity;
};

static int export_one(void *arg, const Chronos__V1__Schedule *s) {
    struct export *x = arg;
    Chronos__V1__ScheduleSpec *spec = schedule_spec_copy(s->spec, &x->arena);

    if (spec && x->list.count == x->capacity) {
        size_t n = MAX(2 * x->capacity, (size_t) 64);
        void *grown = arena_alloc(&x->arena, n * sizeof(*x->list.items));

        if (grown && x->list.count > 0)
            memcpy(grown, x->list.items, x->list.count * sizeof(*x->list.items));
        if (!grown)
            return -ENOMEM;
        x->list.items = grown;
        x->capacity = n;
    }
    if (!spec)
        return -ENOMEM;
    schedule_spec_strip(spec);
    x->list.items[x->list.count++] = spec;
    return 0;
}

static int write_yaml(const struct schedule_list *l, struct buf *out) {
    int r = schedule_yaml_begin(out);

    for (size_t i = 0; r == 0 && i < l->count; i++)
        r = schedule_yaml_write(l->items[i], out);
    return r == 0 ? schedule_yaml_end(l->count, out) : r;
}

static int write_out(const struct export_values *v, struct export *x) {
    struct buf b;
    size_t left_out = 0;
    int r;

    buf_init(&b, EXPORT_BYTES_MAX);
    r = v->crontab ? crontab_write(&x->list, v->user_column, &x->arena, &b, &left_out)
                   : write_yaml(&x->list, &b);
    if (r == 0 && (fwrite(b.data, 1, b.len, stdout) != b.len || fflush(stdout) != 0))
        r = -EIO;
    buf_done(&b);
    if (r == 0 && left_out > 0)
        fprintf(stderr, "chronos: %zu of %zu schedules are left out: a crontab cannot say them\n",
                left_out, x->list.count);
    return r;
}

/* One by name. */
static int export_named(struct client *c, const char *name, struct export *x) {
    Chronos__V1__ScheduleResponse *res = NULL;
    struct client_error e;
    int r;

    if (schedule_try_get(c, name, &res, &e) != 0)
        return cli_fail(name, &e);
    r = export_one(x, res->schedule);
    chronos__v1__schedule_response__free_unpacked(res, NULL);
    return r;
}

static int run_export(void *values, char **rest, size_t rest_count) {
    const struct export_values *v = values;
    struct schedule_filter f = {.labels = &v->labels};
    _cleanup_(client_freep) struct client *c = NULL;
    struct export x = {0};
    int r = 0;

    if (v->common.output == CLI_JSON)
        return cli_usage("export writes YAML or a crontab; for JSON: schedule list --all -o json");
    if (v->user_column && !v->crontab)
        r = cli_usage("--user-column goes with --crontab");
    if (rest_count > 0 && v->labels.count > 0)
        r = cli_usage("give either names or --label, not both");
    if (r == 0)
        r = cli_connect(&v->common, &c);
    if (r != 0)
        return r;
    arena_init(&x.arena, SCHEDULE_ARENA_BYTES);
    for (size_t i = 0; r == 0 && i < rest_count; i++)
        r = export_named(c, rest[i], &x);
    if (r == 0 && rest_count == 0)
        r = schedule_each(c, &f, export_one, &x);
    if (r == 0)
        r = write_out(v, &x);
    arena_done(&x.arena);
    return r < 0 ? cli_fail_errno(r) : r;
}

static const struct arg_option export_options[] = {
    {"label", 'l', ARG_LIST, "KEY=VALUE", "only those with this label", NULL, NULL,
     offsetof(struct export_values, labels), 0, 0},
    {"crontab", 0, ARG_FLAG, NULL, "as a crontab instead of YAML", NULL, NULL,
     offsetof(struct export_values, crontab), 0, 0},
    {"user-column", 0, ARG_FLAG, NULL, "with --crontab: in the form of /etc/crontab", NULL, NULL,
     offsetof(struct export_values, user_column), 0, 0},
    CLI_COMMON_OPTIONS,
};

const struct arg_command cmd_schedule_export = {
    .name = "export",
    .summary = "write schedules as YAML that apply reads, or as a crontab",
    .positional = "[NAME...]",
    .details =
        "What is at its default is left out. A crontab cannot say everything: what is left out is\n"
        "named in a comment there and counted on standard error.",
    .examples =
        "  chronos schedule export > schedules.yaml\n"
        "  chronos schedule export --crontab -l team=billing",
    .options = export_options,
    .options_count = ARRAY_LEN(export_options),
    .values_bytes = sizeof(struct export_values),
    .rest_max = FILES_MAX,
    .run = run_export,
};

/* ---- import -----------------------------------------------------------------------------------
 */

struct import_values {
    struct cli_common common;
    const char *time_zone, *prefix;
    bool user_column, dry_run, yaml;
};

/* The machine's zone, which cron uses when nothing else is said: what /etc/localtime points to. */
static const char *local_zone(char *out, size_t bytes) {
    static const char mark[] = "/zoneinfo/";
    ssize_t n = readlink("/etc/localtime", out, bytes - 1);
    const char *at;

    if (n <= 0)
        return "UTC";
    out[n] = '\0';
    at = strstr(out, mark);
    return at ? at + sizeof(mark) - 1 : "UTC";
}

static bool has_user_column(const char *path) {
    return strcmp(path, "/etc/crontab") == 0 ||
           strncmp(path, "/etc/cron.d/", strlen("/etc/cron.d/")) == 0;
}

static int read_crontab(const struct import_values *v, const char *path, struct arena *arena,
                        struct schedule_list *ret) {
    char zone[PATH_MAX];
    const struct crontab_options o = {
        .name = strcmp(path, "-") == 0 ? "standard input" : path,
        .time_zone = v->time_zone ? v->time_zone : local_zone(zone, sizeof(zone)),
        .prefix = v->prefix ? v->prefix : "",
        .user_column = v->user_column || has_user_column(path),
    };
    _cleanup_(freep) char *text = NULL;
    struct errtext why = {""};
    struct buf notes;
    size_t len = 0;
    int r = schedule_read_file(path, CRONTAB_BYTES_MAX, &text, &len);

    if (r != 0)
        return r;
    buf_init(&notes, NOTES_BYTES_MAX);
    r = crontab_read(text, len, &o, arena, ret, &notes, &why);
    if (r == 0 && notes.len > 0)
        (void) fwrite(notes.data, 1, notes.len, stderr);
    buf_done(&notes);
    return r == 1 ? cli_usage("%s", why.s) : r;
}

static int print_specs(struct schedule_list *l) {
    struct buf b;
    int r;

    buf_init(&b, EXPORT_BYTES_MAX);
    for (size_t i = 0; i < l->count; i++)
        schedule_spec_strip(l->items[i]);
    r = write_yaml(l, &b);
    if (r == 0 && (fwrite(b.data, 1, b.len, stdout) != b.len || fflush(stdout) != 0))
        r = -EIO;
    buf_done(&b);
    return r;
}

static int run_import(void *values, char **rest, size_t rest_count) {
    const struct import_values *v = values;
    const struct schedule_plan_options o = {.common = &v->common, .dry_run = v->dry_run};
    struct schedule_list l = {0};
    struct arena arena;
    int r;

    ASSERT(rest_count == 1);
    arena_init(&arena, SCHEDULE_ARENA_BYTES);
    r = read_crontab(v, rest[0], &arena, &l);
    if (r == 0)
        r = v->yaml ? print_specs(&l) : schedule_carry_out(&o, &l, &arena);
    arena_done(&arena);
    return r < 0 ? cli_fail_errno(r) : r;
}

static const struct arg_option import_options[] = {
    {"tz", 'z', ARG_STRING, "ZONE", "time zone until a CRON_TZ (default: this machine's)", NULL,
     NULL, offsetof(struct import_values, time_zone), 0, 0},
    {"user-column", 0, ARG_FLAG, NULL, "entries name a user (so in /etc/crontab and /etc/cron.d)",
     NULL, NULL, offsetof(struct import_values, user_column), 0, 0},
    {"prefix", 0, ARG_STRING, "TEXT", "begin the names with this", NULL, NULL,
     offsetof(struct import_values, prefix), 0, 0},
    {"dry-run", 0, ARG_FLAG, NULL, "show the plan and change nothing", NULL, NULL,
     offsetof(struct import_values, dry_run), 0, 0},
    {"yaml", 0, ARG_FLAG, NULL, "print YAML for apply instead; needs no cluster", NULL, NULL,
     offsetof(struct import_values, yaml), 0, 0},
    CLI_COMMON_OPTIONS,
};

const struct arg_command cmd_schedule_import = {
    .name = "import",
    .summary = "create schedules from a crontab",
    .positional = "FILE",
    .details =
        "Reads CRON_TZ, SHELL, HOME, MAILTO, other variables, % as standard input, and the user\n"
        "column. The schedules do as cron does: runs beside each other, nothing caught up, no "
        "time\n"
        "limit, one attempt. Names are made of the command, so importing again changes what has\n"
        "changed; a line `# chronos: NAME` above an entry names it. Notes tell what differs.",
    .examples =
        "  chronos schedule import /etc/crontab --dry-run\n"
        "  crontab -l | chronos schedule import - --prefix web1- --yaml",
    .options = import_options,
    .options_count = ARRAY_LEN(import_options),
    .values_bytes = sizeof(struct import_values),
    .rest_min = 1,
    .rest_max = 1,
    .run = run_import,
};
