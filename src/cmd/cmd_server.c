/* `chronos server`: configuration in, one replica on a libuv loop, until a signal.
 *
 * The order of starting is the order of trust: lock the directory, see whose it is, recover, listen
 * to peers, serve clients, start the worker. Stopping goes the other way round, so that a running
 * attempt can still report while its node can still commit.
 * Thread: the loop's, which is the main thread. */
#include "cmd/cmd_server.h"

#include "cli/exit_code.h"
#include "cmd/server_internal.h"
#include "os/clock.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

void server_set_state(struct server *s, enum server_state to) {
    ASSERT(to > s->state); /* it only ever goes on */
    s->state = to;
}

/* ---- the turn -------------------------------------------------------------------------------- */

static void arm_timer(struct server *s);

/* A replica that failed must not send another byte: no drain, no flush (reliability.md W3). */
static void die_if_failed(struct server *s) {
    struct errtext why = {0};
    int rc = replica_failed(s->replica, &why);

    if (rc != 0)
        server_die(s, rc, &why);
}

static void turn(struct server *s) {
    if (!s->replica || s->state == SERVER_CLOSING)
        return;
    if (replica_wants_turn(s->replica) ||
        mono_reached(clock_mono(), replica_deadline(s->replica))) {
        replica_turn(s->replica);
        die_if_failed(s);
    }
    arm_timer(s);
}

static void on_timer(uv_timer_t *t) {
    struct server *s = t->data;

    s->timer_at = MONO_NEVER;
    turn(s);
}

static void arm_timer(struct server *s) {
    struct mono at = replica_deadline(s->replica), now;
    uint64_t ms;

    if (at.ns == s->timer_at.ns)
        return;
    s->timer_at = at;
    if (at.ns == MONO_NEVER.ns) {
        (void) uv_timer_stop(&s->timer);
        return;
    }
    now = clock_mono();
    ms = (mono_diff_ns(at, now) + NS_PER_MS - 1) / NS_PER_MS;
    uv_update_time(&s->loop);
    (void) uv_timer_start(&s->timer, on_timer, ms, 0);
}

static void on_check(uv_check_t *c) {
    turn(c->data);
}

static void on_prepare(uv_prepare_t *p) {
    turn(p->data);
}

/* ---- signals --------------------------------------------------------------------------------- */

/* What can change without a restart: how much is logged, and how. A file that is refused changes
 * nothing. */
static void reload(struct server *s) {
    struct config *fresh = calloc(1, sizeof(*fresh));
    int code = 0;

    if (!fresh)
        return;
    if (config_load(fresh, s->argc, s->argv, &code) == 0) {
        s->config.log.level = fresh->log.level;
        s->config.log.format = fresh->log.format;
        s->log.level = (enum log_level) fresh->log.level;
        s->sink.format = (enum log_format) fresh->log.format;
        log_info(&s->log, "configuration reloaded",
                 "log.level=%s note=\"other settings need a restart\"",
                 log_level_to_string(s->log.level));
    } else {
        log_error(&s->log, "configuration not reloaded", "file=\"%s\"",
                  s->config.file ? s->config.file : "");
    }
    config_done(fresh);
    free(fresh);
}

static void on_signal(uv_signal_t *h, int signum) {
    struct server *s = h->data;

    if (signum == SIGHUP)
        reload(s);
    else
        server_stop(s);
}

/* ---- main ------------------------------------------------------------------------------------ */

static int init_loop(struct server *s) {
    static const int signums[] = {SIGTERM, SIGINT, SIGHUP};
    int rc = uv_loop_init(&s->loop);

    if (rc < 0)
        return rc;
    (void) uv_prepare_init(&s->loop, &s->prepare);
    (void) uv_check_init(&s->loop, &s->check);
    (void) uv_timer_init(&s->loop, &s->timer);
    (void) uv_timer_init(&s->loop, &s->stop_timer);
    s->prepare.data = s->check.data = s->timer.data = s->stop_timer.data = s;
    s->timer_at = MONO_NEVER;
    for (size_t i = 0; i < ARRAY_LEN(signums); i++) {
        (void) uv_signal_init(&s->loop, &s->signals[i]);
        s->signals[i].data = s;
        (void) uv_signal_start(&s->signals[i], on_signal, signums[i]);
    }
    (void) uv_prepare_start(&s->prepare, on_prepare);
    (void) uv_check_start(&s->check, on_check);
    return 0;
}

static void warn_even(struct server *s) {
    char warning[512];

    if (config_even_size_warning(s->config.cluster.members_count, warning)[0])
        log_warn(&s->log, "even cluster size", "why=\"%s\"", warning);
}

static int run(struct server *s) {
    if (init_loop(s) < 0)
        return EXIT_FAILURE;
    /* The handlers are installed, so the signal stops us in order. */
    if (s->config.die_with_parent)
        (void) prctl(PR_SET_PDEATHSIG, SIGTERM);
    log_sink_init(&s->sink, STDERR_FILENO, (enum log_format) s->config.log.format,
                  (enum log_level) s->config.log.level, &s->log);
    warn_even(s);
    /* What was begun is left to the end of the process: threads may still use it, and no destructor
     * of a library may run beside them. */
    if (server_start(s) < 0)
        _exit(s->stop_wanted ? EXIT_SUCCESS : s->exit_code ? s->exit_code : EXIT_FAILURE);
    server_set_state(s, SERVER_SERVING);
    log_info(&s->log, "serving", "node=%llu clients=%s peers=%s version=%s",
             (unsigned long long) s->config.node.id, s->config.node.listen,
             s->config.node.peer_listen, CHRONOS_VERSION);
    if (s->stop_wanted)
        server_stop(s);
    (void) uv_run(&s->loop, UV_RUN_DEFAULT);
    (void) uv_loop_close(&s->loop);
    return s->exit_code;
}

int cmd_server(int argc, char **argv) {
    struct rlimit no_core = {0, 0};
    struct server *s = calloc(1, sizeof(*s));
    int code = EXIT_FAILURE;

    if (!s) {
        fputs("chronos: out of memory\n", stderr);
        return EXIT_FAILURE;
    }
    s->argc = argc;
    s->argv = argv;
    arena_init(&s->arena, 1024 * 1024);
    (void) signal(SIGPIPE, SIG_IGN);
    (void) umask(077);
    (void) setrlimit(RLIMIT_CORE, &no_core);
    if (config_load(&s->config, argc, argv, &code) == 0)
        code = run(s);
    config_done(&s->config);
    arena_done(&s->arena);
    free(s);
    return code;
}
