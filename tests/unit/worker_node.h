/* A node for the worker's tests: a real gRPC server on this process's loop that speaks
 * WorkerService.Session, and a real worker process (this binary, started with "worker" as its first
 * argument). Conditions are awaited with a deadline; nothing sleeps. */
#pragma once

#include "base/map.h"
#include "os/rpc_server.h"

#include "chronos/v1/worker_service.pb-c.h"

#include <signal.h>
#include <sys/types.h>
#include <uv.h>

#define NODE_REPORTS_MAX 32768
#define NODE_WAIT_MS 20000

struct node_report {
    char job[40];
    uint32_t attempt;
    uint64_t token;
    unsigned seen; /* how often it came */
    int outcome;
    int reason;
    int exit_code;
    int term_signal;
    char message[512];
    size_t tail_bytes;
    char *tail; /* owned, NUL-terminated */
    uint64_t output_bytes;
    bool truncated;
    bool started;
};

struct node {
    uv_loop_t *loop;
    struct rpc_server *server;
    int port;
    struct rpc_call *call; /* the worker's stream; NULL when there is none */
    bool stopped;
    /* behaviour */
    bool ack_reports;
    bool ack_heartbeats;
    uint32_t lease_ms;
    uint32_t heartbeat_ms;
    const char *other_address; /* told in the welcome */
    unsigned refuse;           /* so many hellos: the id is in use */
    const char *schedule_id;   /* of what is assigned; NULL = none */
    int64_t tick_ms;
    /* what was heard */
    unsigned hellos, heartbeats, calls;
    unsigned draining; /* heartbeats that said so */
    bool hello_draining;
    uint64_t hello; /* the number of the last one */
    uint64_t incarnation;
    uint32_t slots;
    char worker_id[80];
    char running[4096]; /* of the last hello: "job/attempt " each */
    char finished[4096];
    size_t reports_total;
    size_t messages_with_reports;
    struct node_report *reports; /* owned */
    size_t reports_count;
    struct bytesmap by_job;
    char *log; /* owned: bytes of the log request, in order */
    size_t log_bytes;
    bool log_end;
    char log_error[200];
};

struct worker_process {
    pid_t pid;
    char dir[64];
    int parent_fd; /* write end of its stdin */
};

void node_start(struct node *n, uv_loop_t *loop);
void node_stop(struct node *n); /* kills its stream; frees everything */

/* Start the worker with a comma list of ports; @dir NULL: a fresh directory. @more: NULL-terminated
 * extra arguments, or NULL. */
void worker_start(struct worker_process *p, const char *dir, const int *ports, size_t ports_count,
                  const char *const *more);
/* SIGTERM, wait, check that it exited with 0, remove the directory. */
void worker_end(struct worker_process *p);
/* Wait for its end with a deadline; returns the wait status. */
int worker_wait(struct worker_process *p);

/* Run the loop until @cond; fails the test after NODE_WAIT_MS. */
void node_wait(uv_loop_t *loop, bool (*cond)(void *arg), void *arg, const char *what);
void node_wait_active(struct node *n);
struct node_report *node_report_of(struct node *n, const char *job);
struct node_report *node_wait_report(struct node *n, const char *job);

void node_spec_shell(Chronos__V1__JobSpec *spec, const char *line);
void node_assign(struct node *n, const char *job, uint32_t attempt, uint64_t token,
                 Chronos__V1__JobSpec *spec);
void node_assign_shell(struct node *n, const char *job, const char *line);
void node_kill(struct node *n, const char *job, bool cancelled, bool now);
void node_ask_log(struct node *n, uint64_t id, const char *job, uint64_t offset, bool follow);
void node_send(struct node *n, const Chronos__V1__NodeMessage *m);

/* A node and a worker that has registered with it; and their end. */
void node_begin(struct node *n, struct worker_process *p, const char *const *more);
void node_finish(struct node *n, struct worker_process *p);

/* Processes of the test's jobs, found by an argument that nothing else has. */
unsigned worker_count_processes(const char *needle);
void worker_wait_processes(const char *needle, unsigned want); /* 0: none; else at least */

/* What main() of such a test does: "worker" as the first argument makes it the worker, any other
 * one names the tests to run. */
struct CMUnitTest;
int worker_tests_main(int argc, char **argv, const struct CMUnitTest *tests, size_t count);
