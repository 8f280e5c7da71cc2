#include "cli/dev.h"

#include "cli/client.h"
#include "cli/config.h"
#include "cli/dev_node.h"
#include "cli/exit_code.h"
#include "cli/json.h"

#include "chronos/v1/cluster_service.pb-c.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#define DEV_POLL_MS 40
#define DEV_STATUS_TIMEOUT_MS 500
#define DEV_STOP_MS 10000
#define DEV_MESSAGE_BYTES_MAX ((size_t) 4 * 1024 * 1024)

/* STARTING --ready--> READY --signal--> STOPPING --all gone--> DONE
 * STARTING --signal, node lost, too late--> STOPPING */
enum dev_state { DEV_STARTING, DEV_READY, DEV_STOPPING, DEV_DONE };

struct dev {
    const struct dev_options *o;
    enum dev_state state;
    int exit_code;
    uv_loop_t loop;
    uv_timer_t poll;
    uv_signal_t signals[3];
    struct rpc_client *rpc; /* owned */
    struct rpc_channel *channels[DEV_NODES_MAX];
    struct dev_node nodes[DEV_NODES_MAX];
    struct bytes *request; /* owned: an empty GetClusterStatusRequest */
    size_t asked;          /* index of the node asked last */
    bool asking;
    uint64_t started_ns;
    uint64_t stop_ns; /* when STOPPING began */
    bool forced;      /* SIGKILL was sent */
};

static const int caught[] = {SIGINT, SIGTERM, SIGHUP};

STATIC_ASSERT(ARRAY_LEN(caught) == 3, "one handle for each signal");

static void set_state(struct dev *d, enum dev_state to) {
    ASSERT(to > d->state);
    d->state = to;
}

static uint64_t since_ms(uint64_t ns) {
    return (uv_hrtime() - ns) / NS_PER_MS;
}

static void on_poll(uv_timer_t *t);

/* ---- stopping ------------------------------------------------------------------------------ */

static void kill_all(struct dev *d, int signal) {
    for (size_t i = 0; i < d->o->nodes; i++) {
        struct dev_node *n = &d->nodes[i];

        if (n->running)
            (void) uv_process_kill(&n->process, signal);
    }
}

static void stop(struct dev *d, int exit_code) {
    if (d->state >= DEV_STOPPING)
        return;
    set_state(d, DEV_STOPPING);
    d->exit_code = exit_code;
    d->stop_ns = uv_hrtime();
    kill_all(d, SIGTERM);
    (void) uv_timer_start(&d->poll, on_poll, DEV_POLL_MS, DEV_POLL_MS);
}

/* A worker outlives a server that was killed; at the end it must go too. True when none is left. */
static bool stop_orphan(const struct dev *d, struct dev_node *n) {
    int pid;

    if (!n->started)
        return true;
    if (n->running)
        return false;
    pid = dev_node_worker_pid(n);
    if (pid == 0)
        return true;
    if (d->forced)
        (void) kill(pid, SIGKILL);
    else if (!n->term_sent)
        (void) kill(pid, SIGTERM);
    n->term_sent = true;
    return false;
}

static void close_handles(struct dev *d) {
    uv_close((uv_handle_t *) &d->poll, NULL);
    for (size_t i = 0; i < ARRAY_LEN(caught); i++)
        uv_close((uv_handle_t *) &d->signals[i], NULL);
    for (size_t i = 0; i < d->o->nodes; i++) {
        if (d->nodes[i].started)
            uv_close((uv_handle_t *) &d->nodes[i].process, NULL);
        d->channels[i] = d->channels[i] ? rpc_channel_free(d->channels[i]) : NULL;
    }
    if (d->rpc)
        (void) rpc_client_free(d->rpc);
    d->rpc = NULL;
}

static void poll_stop(struct dev *d) {
    bool gone = true;

    if (!d->forced && since_ms(d->stop_ns) > DEV_STOP_MS) {
        fprintf(stderr, "chronos dev: not stopped after 10 s; killing what is left\n");
        d->forced = true;
        kill_all(d, SIGKILL);
    }
    for (size_t i = 0; i < d->o->nodes; i++)
        gone = stop_orphan(d, &d->nodes[i]) && gone;
    if (!gone)
        return;
    set_state(d, DEV_DONE);
    close_handles(d);
}

/* ---- events -------------------------------------------------------------------------------- */

static void on_signal(uv_signal_t *s, int signal) {
    struct dev *d = s->data;

    (void) signal;
    if (d->state == DEV_STOPPING && !d->forced) {
        fprintf(stderr, "chronos dev: killing at once\n");
        d->forced = true;
        kill_all(d, SIGKILL);
        return;
    }
    if (!d->o->json)
        fprintf(stderr, "\nStopping the cluster...\n");
    stop(d, d->state == DEV_READY ? EXIT_CODE_OK : EXIT_CODE_FAILED);
}

static void on_node_exit(uv_process_t *p, int64_t exit_status, int term_signal) {
    struct dev_node *n = CONTAINER_OF(p, struct dev_node, process);
    struct dev *d = p->data;

    n->running = false;
    n->exit_code = exit_status;
    n->exit_signal = term_signal;
    if (d->state >= DEV_STOPPING)
        return;
    if (term_signal != 0)
        fprintf(stderr, "chronos dev: node %" PRIu64 " (pid %d) was killed by signal %d\n", n->id,
                p->pid, term_signal);
    else
        fprintf(stderr, "chronos dev: node %" PRIu64 " (pid %d) ended with exit code %" PRId64 "\n",
                n->id, p->pid, exit_status);
    if (d->state != DEV_STARTING)
        return; /* the rest goes on: a minority may be missing */
    dev_node_print_log(n);
    stop(d, EXIT_CODE_FAILED);
}

/* ---- readiness ----------------------------------------------------------------------------- */

static bool has_live_worker(const Chronos__V1__GetClusterStatusResponse *s, uint64_t node_id) {
    for (size_t i = 0; i < s->n_workers; i++) {
        if (s->workers[i]->node_id == node_id && s->workers[i]->is_alive)
            return true;
    }
    return false;
}

static bool is_ready(const struct dev *d, const Chronos__V1__GetClusterStatusResponse *s) {
    if (s->leader_id == 0 || s->n_workers < d->o->nodes)
        return false;
    for (size_t i = 0; i < d->o->nodes; i++) {
        if (!has_live_worker(s, d->nodes[i].id) || dev_node_worker_pid(&d->nodes[i]) == 0)
            return false;
    }
    return true;
}

static int print_node_json(const struct dev_node *n) {
    json_t *o = json_pack("{s:I, s:s, s:s, s:i, s:i, s:s}", "id", (json_int_t) n->id, "address",
                          n->address, "peer_address", n->peer_address, "server_pid", n->process.pid,
                          "worker_pid", dev_node_worker_pid(n), "data_dir", n->data_dir);
    int r = json_print(o, /* pretty= */ false, stdout);

    json_decref(o);
    return r;
}

static void print_ready_json(const struct dev *d) {
    int r = 0;

    for (size_t i = 0; r == 0 && i < d->o->nodes; i++)
        r = print_node_json(&d->nodes[i]);
    if (r == 0)
        r = printf("{\"ready\": true}\n") < 0 || fflush(stdout) != 0 ? -EIO : 0;
    if (r < 0)
        fprintf(stderr, "chronos dev: standard output: %s\n", err_name(r));
}

static void print_ready(const struct dev *d, uint64_t leader_id) {
    printf("A cluster of %zu node%s is ready after %.1f s.\n\n", d->o->nodes,
           d->o->nodes == 1 ? "" : "s", (double) since_ms(d->started_ns) / 1000);
    printf("  NODE  CLIENTS          PEERS            SERVER   WORKER   DATA\n");
    for (size_t i = 0; i < d->o->nodes; i++) {
        const struct dev_node *n = &d->nodes[i];

        printf("  %-4" PRIu64 "  %-15s  %-15s  %-7d  %-7d  %s%s\n", n->id, n->address,
               n->peer_address, n->process.pid, dev_node_worker_pid(n), n->data_dir,
               n->id == leader_id ? "  (leader)" : "");
    }
    printf("\nIn another terminal, for example:\n\n");
    if (d->o->base_port != 7400)
        printf("  export CHRONOS_ADDRESS=%s\n", d->nodes[0].address);
    printf(
        "  chronos job submit --wait -- echo hello\n"
        "  chronos job submit --follow --shell 'for i in 1 2 3; do date; sleep 1; done'\n"
        "  chronos job list\n"
        "  chronos cluster status\n"
        "  kill -9 %d        # the leader: nothing that was acknowledged is lost\n"
        "\nCtrl-C stops everything.\n",
        d->nodes[leader_id >= 1 && leader_id <= d->o->nodes ? leader_id - 1 : 0].process.pid);
    (void) fflush(stdout);
}

static void on_status(void *arg, const struct rpc_result *res) {
    struct dev *d = arg;
    Chronos__V1__GetClusterStatusResponse *s;

    d->asking = false;
    if (d->state != DEV_STARTING || res->code != RPC_OK)
        return;
    s = chronos__v1__get_cluster_status_response__unpack(NULL, res->reply.len, res->reply.data);
    if (!s)
        return; /* asked again with the next tick; the deadline bounds it */
    if (is_ready(d, s)) {
        set_state(d, DEV_READY);
        if (d->o->json)
            print_ready_json(d);
        else
            print_ready(d, s->leader_id);
        (void) uv_timer_stop(&d->poll); /* until stop() */
    }
    chronos__v1__get_cluster_status_response__free_unpacked(s, NULL);
}

static void ask(struct dev *d) {
    if (d->asking)
        return;
    d->asked = (d->asked + 1) % d->o->nodes;
    d->asking =
        rpc_unary(d->channels[d->asked], "/chronos.v1.ClusterService/GetClusterStatus", d->request,
                  DEV_STATUS_TIMEOUT_MS, /* wait_ready= */ true, on_status, d) == 0;
}

static void on_poll(uv_timer_t *t) {
    struct dev *d = t->data;

    if (d->state == DEV_STOPPING) {
        poll_stop(d);
    } else if (d->state == DEV_STARTING) {
        if (since_ms(d->started_ns) <= d->o->ready_ms) {
            ask(d);
            return;
        }
        fprintf(stderr, "chronos dev: not ready after %" PRIu64 " s\n", d->o->ready_ms / 1000);
        for (size_t i = 0; i < d->o->nodes; i++)
            dev_node_print_log(&d->nodes[i]);
        stop(d, EXIT_CODE_UNAVAILABLE);
    }
}

/* ---- start --------------------------------------------------------------------------------- */

static int start_nodes(struct dev *d, struct errtext *why) {
    for (size_t i = 0; i < d->o->nodes; i++) {
        int r = dev_node_check_ports(&d->nodes[i], why);

        if (r != 0)
            return r;
    }
    for (size_t i = 0; i < d->o->nodes; i++) {
        int r;

        d->nodes[i].process.data = d;
        r = dev_node_start(&d->nodes[i], &d->loop, d->o, d->nodes, on_node_exit, why);
        if (r == 0)
            r = rpc_channel_new(d->rpc, d->nodes[i].address, DEV_MESSAGE_BYTES_MAX,
                                &d->channels[i]);
        if (r != 0)
            return r;
    }
    return 0;
}

static void open_handles(struct dev *d) {
    (void) uv_timer_init(&d->loop, &d->poll);
    d->poll.data = d;
    (void) uv_timer_start(&d->poll, on_poll, DEV_POLL_MS, DEV_POLL_MS);
    for (size_t i = 0; i < ARRAY_LEN(caught); i++) {
        (void) uv_signal_init(&d->loop, &d->signals[i]);
        d->signals[i].data = d;
        (void) uv_signal_start(&d->signals[i], on_signal, caught[i]);
    }
}

int dev_run(const struct dev_options *o) {
    struct dev d = {.o = o, .started_ns = uv_hrtime()};
    struct errtext why = {""};
    char warning[512];
    int r;

    ASSERT(o->nodes >= 1);
    ASSERT(o->nodes <= DEV_NODES_MAX);
    if (config_even_size_warning(o->nodes, warning)[0])
        fprintf(stderr, "Warning: %s\n", warning);
    for (size_t i = 0; i < o->nodes; i++)
        dev_node_init(&d.nodes[i], i, o);
    if (uv_loop_init(&d.loop) < 0) {
        fprintf(stderr, "chronos dev: the event loop cannot be created\n");
        return EXIT_CODE_FAILED;
    }
    open_handles(&d);
    d.request = bytes_new(0);
    r = d.request ? rpc_client_new(&d.loop, &d.rpc, &why) : -ENOMEM;
    if (r == 0)
        r = start_nodes(&d, &why);
    if (r != 0) {
        fprintf(stderr, "chronos dev: %s\n", why.s[0] ? why.s : err_name(r));
        stop(&d, EXIT_CODE_FAILED);
    }
    (void) uv_run(&d.loop, UV_RUN_DEFAULT);
    (void) uv_loop_close(&d.loop);
    (void) bytes_unref(d.request);
    if (!o->json && d.exit_code == EXIT_CODE_OK)
        fprintf(stderr, "Stopped.\n");
    return d.exit_code;
}
