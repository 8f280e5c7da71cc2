/* Any words as a command line, for every command there is but without running it: refused with a
 * sentence, or every value lies within its bounds; `server` also goes through the checks of the
 * whole configuration. Words are separated by NUL bytes; those of the command come first. */
#include "fuzz.h"

#include "cli/args_help.h"
#include "cli/cmd_backup.h"
#include "cli/commands.h"
#include "cli/config.h"

#include <stdio.h>
#include <stdlib.h>

#define WORDS_MAX 64
#define TEXT_BYTES_MAX 4096U

static const struct arg_command *const top[] = {
    &cmd_job,     &cmd_schedule, &cmd_why,     &cmd_cluster, &cmd_backup,           &cmd_restore,
    &cmd_recover, &cmd_inspect,  &cmd_version, &cmd_dev,     &config_server_command};

/* Down the tree by the first words; the rest is parsed by the leaf. */
static const struct arg_command *leaf_of(int *argc, char ***argv) {
    const struct arg_command *const *list = top;
    size_t count = ARRAY_LEN(top);

    while (*argc > 0) {
        const struct arg_command *found = NULL;

        for (size_t i = 0; i < count && list[i]; i++)
            if (strcmp(list[i]->name, (*argv)[0]) == 0)
                found = list[i];
        if (!found)
            return NULL;
        if (!found->children)
            return found;
        list = found->children;
        count = SIZE_MAX;
        (*argc)--;
        (*argv)++;
    }
    return NULL;
}

static uint64_t number_at(const struct arg_option *o, const char *values) {
    uint64_t v;

    memcpy(&v, values + o->offset, sizeof(v));
    return v;
}

static void check_values(const struct arg_command *c, const char *values) {
    for (size_t i = 0; i < c->options_count; i++) {
        const struct arg_option *o = &c->options[i];
        uint32_t choice;

        switch (o->kind) {
        case ARG_UINT:
        case ARG_DURATION:
        case ARG_SIZE:
            ASSERT(o->max == 0 || number_at(o, values) <= o->max);
            ASSERT(number_at(o, values) >= o->min || (!o->def && number_at(o, values) == 0));
            break;
        case ARG_CHOICE:
            memcpy(&choice, values + o->offset, sizeof(choice));
            for (uint32_t k = 0; k <= choice; k++)
                ASSERT(o->choices[k]);
            break;
        case ARG_FLAG:
            ASSERT(values[o->offset] == 0 || values[o->offset] == 1);
            break;
        case ARG_STRING:
        case ARG_LIST:
            break;
        }
    }
}

static void help(const struct arg_command *c) {
    char *text = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);

    ASSERT(f);
    args_help(c, c->name, f);
    ASSERT(fclose(f) == 0 && len > 0);
    free(text);
}

static void parse(const struct arg_command *c, int argc, char **argv) {
    char *values = calloc(1, MAX(c->values_bytes, (size_t) 1));
    struct errtext why = {""};
    size_t rest_count = 0;
    char **rest = NULL;
    int rc;

    ASSERT(values);
    args_defaults(c->options, c->options_count, values, MAX(c->values_bytes, (size_t) 1));
    rc = args_parse(c, argc, argv, values, &rest, &rest_count, &why);
    ASSERT(rc >= 0 && rc <= 2);
    if (rc == 2)
        fuzz_reason(&why);
    if (rc == 1)
        help(c);
    if (rc == 0) {
        ASSERT(rest_count >= c->rest_min && rest_count <= c->rest_max);
        check_values(c, values);
    }
    free(rest);
    args_values_done(c->options, c->options_count, values);
    free(values);
}

/* Flags over the defaults, and the configuration as a whole. No file: its bytes are not ours. */
static void server(int argc, char **argv) {
    struct errtext why = {""};
    size_t rest_count = 0;
    char **rest = NULL;
    struct config c;
    int rc;

    config_init(&c);
    rc = args_parse(&config_server_command, argc, argv, &c, &rest, &rest_count, &why);
    if (rc == 0) {
        rc = config_finish(&c, &why);
        ASSERT(rc >= 0);
        if (rc > 0)
            fuzz_reason(&why);
    }
    free(rest);
    config_done(&c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char text[TEXT_BYTES_MAX + 1], *words[WORDS_MAX + 1], **argv = words;
    const struct arg_command *c;
    int argc = 0;

    size = MIN(size, (size_t) TEXT_BYTES_MAX);
    memcpy(text, data, size);
    text[size] = '\0';
    for (size_t at = 0; at < size && argc < WORDS_MAX; at += strlen(text + at) + 1)
        words[argc++] = text + at;
    words[argc] = NULL;
    c = leaf_of(&argc, &argv);
    if (!c)
        return 0;
    if (c == &config_server_command)
        server(argc, argv);
    else
        parse(c, argc, argv);
    return 0;
}
