#include "cli/common.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define DEFAULT_ADDRESS "127.0.0.1:7400"

const char *const cli_output_names[] = {"table", "json", NULL};

int cli_connect(const struct cli_common *common, struct client **ret) {
    const char *address = common->address, *from = "--address";
    struct errtext why = {""};
    int r;

    if (!address || !address[0]) {
        address = getenv("CHRONOS_ADDRESS");
        from = "CHRONOS_ADDRESS";
    }
    if (!address || !address[0])
        address = DEFAULT_ADDRESS;
    r = client_new(address, common->timeout_ms, ret, &why);
    if (r > 0)
        return cli_usage("%s: %s", from, why.s);
    if (r < 0) {
        fprintf(stderr, "chronos: %s\n", why.s[0] ? why.s : err_name(r));
        return EXIT_CODE_FAILED;
    }
    return EXIT_CODE_OK;
}

int cli_fail(const char *what, const struct client_error *e) {
    struct text_escape esc = {0};
    struct buf b;

    /* A node's message is not ours: it may repeat what another user wrote. */
    buf_init(&b, 64 * 1024);
    if (text_escape(&esc, e->message, strlen(e->message), true, &b) == 0 &&
        buf_append(&b, "", 1) == 0)
        fprintf(stderr, "chronos: %s: %s (%s)\n", what,
                b.len > 1 ? (const char *) b.data : "no message", client_code_name(e->code));
    buf_done(&b);
    return client_exit_code(e->code);
}

int cli_usage(const char *fmt, ...) {
    va_list ap;

    fputs("chronos: ", stderr);
    va_start(ap, fmt);
    (void) vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    return EXIT_CODE_USAGE;
}

int cli_fail_errno(int err) {
    fprintf(stderr, "chronos: %s%s\n", err == -EIO ? "standard output: " : "", err_name(err));
    return EXIT_CODE_FAILED;
}

int cli_print_message(const ProtobufCMessage *m) {
    json_t *j = json_from_message(m);
    int r = json_print(j, /* pretty= */ true, stdout);

    json_decref(j);
    return r < 0 ? cli_fail_errno(r) : EXIT_CODE_OK;
}

int cli_query(const struct cli_common *common, const char *what, const char *path,
              const ProtobufCMessage *req, const ProtobufCMessageDescriptor *reply,
              int (*print)(const ProtobufCMessage *m)) {
    _cleanup_(client_freep) struct client *c = NULL;
    ProtobufCMessage *res = NULL;
    struct client_error e;
    int r = cli_connect(common, &c);

    if (r != 0)
        return r;
    if (client_call(c, path, req, reply, /* repeatable= */ true, &res, &e) != 0)
        return cli_fail(what, &e);
    if (common->output == CLI_JSON) {
        r = cli_print_message(res);
    } else {
        r = print(res);
        r = r < 0 ? cli_fail_errno(r) : r;
    }
    protobuf_c_message_free_unpacked(res, NULL);
    return r;
}

int64_t cli_now_ms(void) {
    struct timespec ts;

    (void) clock_gettime(CLOCK_REALTIME, &ts);
    return (int64_t) ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}
