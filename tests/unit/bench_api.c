/* Not a test: processor time of one submit's way from request bytes to log command, by part. */

#include "api/message_check.h"
#include "api/submit_encode.h"
#include "api/validate_job.h"
#include "base/arena.h"

#include "chronos/v1/job_service.pb-c.h"

#include <stdio.h>
#include <time.h>

#define ROUNDS 1000000

static double now_ns(void) {
    struct timespec t;

    (void) clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double) t.tv_sec * 1e9 + (double) t.tv_nsec;
}

static size_t make_request(uint8_t *out) {
    static char *argv[] = {(char *) (uintptr_t) "/bin/true", (char *) (uintptr_t) "argument"};
    Chronos__V1__SubmitJobRequest req = CHRONOS__V1__SUBMIT_JOB_REQUEST__INIT;
    Chronos__V1__JobSpec spec = CHRONOS__V1__JOB_SPEC__INIT;
    Chronos__V1__Command command = CHRONOS__V1__COMMAND__INIT;

    command.argv = argv;
    command.n_argv = ARRAY_LEN(argv);
    spec.payload_case = CHRONOS__V1__JOB_SPEC__PAYLOAD_COMMAND;
    spec.command = &command;
    req.spec = &spec;
    req.idempotency_key = (char *) (uintptr_t) "key-0123456789abcdef";
    return chronos__v1__submit_job_request__pack(&req, out);
}

/* Do the first @parts parts; returns ns per request. */
static double run(struct slice request, int parts) {
    struct arena arena;
    double begin;

    arena_init(&arena, 1024 * 1024);
    begin = now_ns();
    for (int i = 0; i < ROUNDS; i++) {
        Chronos__V1__SubmitJobRequest *req;
        struct submit_item item = {0};
        struct bytes *b = NULL;
        struct errtext e;

        arena_clear(&arena);
        if (message_check(&chronos__v1__submit_job_request__descriptor, request, &e) != 0)
            return -1;
        if (parts == 1)
            continue;
        req = chronos__v1__submit_job_request__unpack(arena_pb(&arena), request.len, request.data);
        if (parts == 2)
            continue;
        if (validate_job(req->spec, &arena, &item.spec_bytes, &e) != 0)
            return -1;
        item.spec = req->spec;
        item.key = req->idempotency_key;
        if (parts == 3)
            continue;
        if (submit_encode(&item, 1, &b) < 0)
            return -1;
        (void) bytes_unref(b);
    }
    arena_done(&arena);
    return (now_ns() - begin) / ROUNDS;
}

int main(void) {
    static const char *const names[] = {"check", "unpack", "validate", "encode"};
    uint8_t raw[512];
    struct slice request = slice_of(raw, make_request(raw));
    double before = 0;

    for (int parts = 1; parts <= 4; parts++) {
        double ns = run(request, parts);

        (void) printf("%-10s %6.0f ns\n", names[parts - 1], ns - before);
        before = ns;
    }
    (void) printf("%-10s %6.0f ns for %zu request bytes\n", "sum", before, request.len);
    return 0;
}
