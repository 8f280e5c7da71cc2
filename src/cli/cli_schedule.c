/* Calls of ScheduleService. */
#include "cli/cli_schedule.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define PAGE_SIZE 500
#define FILTER_LABELS_MAX 32

int schedule_try(struct client *c, const char *method, const ProtobufCMessage *request,
                 const ProtobufCMessageDescriptor *reply, bool repeatable, ProtobufCMessage **ret,
                 struct client_error *reterr) {
    char path[128];

    (void) snprintf(path, sizeof(path), "/chronos.v1.ScheduleService/%s", method);
    return client_call(c, path, request, reply, repeatable, ret, reterr);
}

int schedule_call(struct client *c, const char *what, const char *method,
                  const ProtobufCMessage *request, const ProtobufCMessageDescriptor *reply,
                  bool repeatable, ProtobufCMessage **ret) {
    struct client_error e;

    if (schedule_try(c, method, request, reply, repeatable, ret, &e) != 0)
        return cli_fail(what, &e);
    return EXIT_CODE_OK;
}

/* An answer without the schedule that it is about is none. */
static int check_response(Chronos__V1__ScheduleResponse **io, struct client_error *reterr) {
    if ((*io)->schedule && (*io)->schedule->spec)
        return 0;
    chronos__v1__schedule_response__free_unpacked(*io, NULL);
    *io = NULL;
    *reterr = (struct client_error){.code = RPC_INTERNAL,
                                    .message = "the node's answer holds no schedule"};
    return RPC_INTERNAL;
}

int schedule_try_get(struct client *c, const char *name, Chronos__V1__ScheduleResponse **ret,
                     struct client_error *reterr) {
    Chronos__V1__GetScheduleRequest req = CHRONOS__V1__GET_SCHEDULE_REQUEST__INIT;
    ProtobufCMessage *reply = NULL;
    int r;

    req.name = (char *) (uintptr_t) name;
    r = schedule_try(c, "GetSchedule", &req.base, &chronos__v1__schedule_response__descriptor,
                     /* repeatable= */ true, &reply, reterr);
    if (r != 0)
        return r;
    *ret = (Chronos__V1__ScheduleResponse *) reply;
    return check_response(ret, reterr);
}

int schedule_try_create(struct client *c, Chronos__V1__ScheduleSpec *spec, bool paused,
                        const char *key, Chronos__V1__ScheduleResponse **ret,
                        struct client_error *reterr) {
    Chronos__V1__CreateScheduleRequest req = CHRONOS__V1__CREATE_SCHEDULE_REQUEST__INIT;
    ProtobufCMessage *reply = NULL;
    int r;

    req.spec = spec;
    req.paused = paused;
    req.idempotency_key = (char *) (uintptr_t) key;
    r = schedule_try(c, "CreateSchedule", &req.base, &chronos__v1__schedule_response__descriptor,
                     /* repeatable= */ true, &reply, reterr);
    if (r != 0)
        return r;
    *ret = (Chronos__V1__ScheduleResponse *) reply;
    return check_response(ret, reterr);
}

/* Whether the stored definition is what an update with a lost answer wanted. */
static bool is_updated(struct client *c, const Chronos__V1__ScheduleSpec *spec, uint64_t version,
                       Chronos__V1__ScheduleResponse **ret) {
    struct client_error ignored;
    struct arena arena;
    struct buf differences;
    bool same;

    if (schedule_try_get(c, spec->name, ret, &ignored) != 0)
        return false;
    arena_init(&arena, SCHEDULE_ARENA_BYTES);
    buf_init(&differences, 64 * 1024);
    same = (*ret)->schedule->version == version + 1 &&
           schedule_spec_differences((*ret)->schedule->spec, spec, &arena, &differences) == 0 &&
           differences.len == 0;
    buf_done(&differences);
    arena_done(&arena);
    if (same)
        return true;
    chronos__v1__schedule_response__free_unpacked(*ret, NULL);
    *ret = NULL;
    return false;
}

int schedule_try_update(struct client *c, Chronos__V1__ScheduleSpec *spec, uint64_t version,
                        Chronos__V1__ScheduleResponse **ret, struct client_error *reterr) {
    Chronos__V1__UpdateScheduleRequest req = CHRONOS__V1__UPDATE_SCHEDULE_REQUEST__INIT;
    ProtobufCMessage *reply = NULL;
    int r;

    req.spec = spec;
    req.version = version;
    r = schedule_try(c, "UpdateSchedule", &req.base, &chronos__v1__schedule_response__descriptor,
                     /* repeatable= */ true, &reply, reterr);
    if (reterr->code == RPC_ABORTED && r != 0 && client_attempts(c) > 1 && version > 0 &&
        is_updated(c, spec, version, ret))
        return 0;
    if (r != 0)
        return r;
    *ret = (Chronos__V1__ScheduleResponse *) reply;
    return check_response(ret, reterr);
}

int schedule_try_delete(struct client *c, const char *name, uint64_t version, bool cancel_open_runs,
                        struct client_error *reterr) {
    Chronos__V1__DeleteScheduleRequest req = CHRONOS__V1__DELETE_SCHEDULE_REQUEST__INIT;
    ProtobufCMessage *reply = NULL;
    int r;

    req.name = (char *) (uintptr_t) name;
    req.version = version;
    req.cancel_open_runs = cancel_open_runs;
    r = schedule_try(c, "DeleteSchedule", &req.base,
                     &chronos__v1__delete_schedule_response__descriptor, /* repeatable= */ true,
                     &reply, reterr);
    if (r == 0)
        protobuf_c_message_free_unpacked(reply, NULL);
    /* The second try did not find it because the first had worked. */
    return r == RPC_NOT_FOUND && client_attempts(c) > 1 ? 0 : r;
}

/* ---- lists ------------------------------------------------------------------------------------
 */

struct label_filter {
    Chronos__V1__ListSchedulesRequest__LabelsEntry entries[FILTER_LABELS_MAX];
    Chronos__V1__ListSchedulesRequest__LabelsEntry *pointers[FILTER_LABELS_MAX];
    struct arena texts;
};

static int fill_labels(struct label_filter *l, const struct arg_list *labels,
                       Chronos__V1__ListSchedulesRequest *req) {
    if (labels && labels->count > FILTER_LABELS_MAX)
        return cli_usage("--label: at most %d", FILTER_LABELS_MAX);
    for (size_t i = 0; labels && i < labels->count; i++) {
        const char *equals = strchr(labels->items[i], '=');
        char *key;

        if (!equals || equals == labels->items[i])
            return cli_usage("--label %.64s: write KEY=VALUE", labels->items[i]);
        key = arena_strdup(&l->texts, labels->items[i]);
        if (!key)
            return -ENOMEM;
        key[equals - labels->items[i]] = '\0';
        chronos__v1__list_schedules_request__labels_entry__init(&l->entries[i]);
        l->entries[i].key = key;
        l->entries[i].value = (char *) (uintptr_t) (equals + 1);
        l->pointers[i] = &l->entries[i];
        req->n_labels = i + 1;
    }
    req->labels = l->pointers;
    return 0;
}

static int each_page(struct client *c, Chronos__V1__ListSchedulesRequest *req,
                     int (*each)(void *arg, const Chronos__V1__Schedule *s), void *arg,
                     char **ret_token) {
    Chronos__V1__ListSchedulesResponse *res;
    ProtobufCMessage *reply = NULL;
    int r = schedule_call(c, "list", "ListSchedules", &req->base,
                          &chronos__v1__list_schedules_response__descriptor,
                          /* repeatable= */ true, &reply);

    *ret_token = NULL;
    if (r != 0)
        return r;
    res = (Chronos__V1__ListSchedulesResponse *) reply;
    for (size_t i = 0; r == 0 && i < res->n_schedules; i++) {
        if (res->schedules[i]->spec)
            r = each(arg, res->schedules[i]);
    }
    if (r == 0 && res->next_page_token[0]) {
        *ret_token = strdup(res->next_page_token);
        r = *ret_token ? 0 : -ENOMEM;
    }
    chronos__v1__list_schedules_response__free_unpacked(res, NULL);
    return r;
}

int schedule_each(struct client *c, const struct schedule_filter *f,
                  int (*each)(void *arg, const Chronos__V1__Schedule *s), void *arg) {
    Chronos__V1__ListSchedulesRequest req = CHRONOS__V1__LIST_SCHEDULES_REQUEST__INIT;
    struct label_filter labels = {0};
    char *token = NULL, *next;
    int r;

    arena_init(&labels.texts, 1024 * 1024);
    r = fill_labels(&labels, f->labels, &req);
    req.page_size = PAGE_SIZE;
    req.name_prefix = (char *) (uintptr_t) (f->prefix ? f->prefix : "");
    req.only_paused = f->only_paused;
    req.only_alarmed = f->only_alarmed;
    req.next_before_ms = f->next_before_ms;
    req.consistency = f->stale ? CHRONOS__V1__CONSISTENCY__CONSISTENCY_STALE
                               : CHRONOS__V1__CONSISTENCY__CONSISTENCY_LINEARIZABLE;
    while (r == 0) {
        req.page_token = token ? token : (char *) (uintptr_t) "";
        r = each_page(c, &req, each, arg, &next);
        free(token);
        token = next;
        if (!token)
            break;
    }
    free(token);
    arena_done(&labels.texts);
    return r;
}

/* ---- small things -----------------------------------------------------------------------------
 */

int schedule_random_key(char out[SCHEDULE_KEY_BYTES]) {
    uint8_t raw[(SCHEDULE_KEY_BYTES - 1) / 2];

    if (getrandom(raw, sizeof(raw), 0) != (ssize_t) sizeof(raw))
        return -errno;
    for (size_t i = 0; i < sizeof(raw); i++)
        (void) snprintf(out + 2 * i, 3, "%02x", raw[i]);
    return 0;
}

int schedule_read_file(const char *path, size_t bytes_max, char **ret, size_t *ret_len) {
    bool is_input = strcmp(path, "-") == 0;
    FILE *f = is_input ? stdin : fopen(path, "re");
    struct buf b;
    char chunk[65536];
    size_t n;
    int r = 0;

    if (!f)
        return cli_usage("%s: %s", path, strerror(errno));
    buf_init(&b, bytes_max + 2);
    while (r == 0 && (n = fread(chunk, 1, sizeof(chunk), f)) > 0)
        r = buf_append(&b, chunk, n);
    if (r == 0 && ferror(f))
        r = -errno;
    if (!is_input)
        (void) fclose(f);
    if (r == 0)
        r = buf_append(&b, "", 1);
    if (r < 0) {
        buf_done(&b);
        return cli_usage("%s: %s", is_input ? "standard input" : path,
                         r == ERR_LIMIT ? "the file is too large" : err_name(r));
    }
    *ret_len = b.len - 1;
    *ret = (char *) TAKE_PTR(b.data);
    return 0;
}
