/* Golden scripts for raft/: commands in, the whole trace out.
 *
 * Goal: that every message, persist batch and answer of the situations in tests/golden/raft/ stays
 * what a person has read and found right. Method: a script is a list of commands ("> propose 1 x"),
 * each followed by its trace; the runner replays the commands in raft_world.c (whose checkers run
 * too) and compares. CHRONOS_GOLDEN_REWRITE=1 writes the new traces into the file: read the
 * difference before you keep it.
 *
 * Commands:
 *   option NAME VALUE             before nodes: a number of struct raft_options
 *   log N T1 T2 ..                before nodes: node N's disk holds entries of these terms
 *   term N T V                    before nodes: and this term and vote
 *   nodes N                       start voters 1..N
 *   node                          start one more: empty, without a configuration
 *   timeout N, campaign N         N's timer fires (the clock moves there); elect at once
 *   tick MS                       move the clock; no timer fires
 *   deliver A B [K]               the oldest K (default: all) messages from A to B; 0 = any node
 *   drop|dup|hold|release A B [K] the same messages get lost, doubled, kept back, freed
 *   partition A B, isolate N, heal
 *   persist N [K]                 N's disk confirms K (default: all) batches
 *   load N                        N's disk answers a load
 *   stabilize                     persist, load, send snapshots and deliver until nothing moves
 *   propose N TEXT.., read N, transfer N TO, unreachable N PEER, reachable N PEER
 *   crash N, restart N, erase N   the last: N starts with an empty disk
 *   forget N INDEX                N is down; its disk has lost the entries above
 *   compact N INDEX               N's log loses its beginning
 *   snapshots hold|flow           stabilize leaves them alone, or not
 *   snapshot N [fail]             N streams the oldest snapshot wanted, or cannot
 *   failed N PEER                 a transfer that was begun breaks
 *   install N [K]                 the K-th (0 is the oldest) snapshot on its way to N is complete
 *   learner N ID [promote], remove N ID, joint N keep|drop ID.., leave N
 *                                 N proposes what raft_config_*() makes of its configuration
 *   voters N ID..                 N proposes just these voters, legal or not
 *   members                       the configuration of each node: in force, (committed)
 *   status                        one line per node */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "raft_world.h"

#define ARGS_MAX 32

struct runner {
    struct world world;
    bool started;
};

static uint64_t number(const char *s) {
    return s ? strtoull(s, NULL, 10) : 0;
}

static void cmd_option(struct raft_options *o, const char *name, uint64_t value) {
    if (strcmp(name, "append_bytes_max") == 0)
        o->append_bytes_max = value;
    else if (strcmp(name, "inflight_messages_max") == 0)
        o->inflight_messages_max = value;
    else if (strcmp(name, "applied_entries_kept") == 0)
        o->applied_entries_kept = value;
    else if (strcmp(name, "applied_bytes_kept") == 0)
        o->applied_bytes_kept = value;
    else if (strcmp(name, "uncommitted_entries_max") == 0)
        o->uncommitted_entries_max = value;
    else if (strcmp(name, "disk_stall_ms") == 0)
        o->disk_stall_ns = value * NS_PER_MS;
    else if (strcmp(name, "lease_reads") == 0)
        o->lease_reads = value != 0;
    else
        fail_msg("no option %s", name);
}

static bool between(const struct world_message *m, uint64_t from, uint64_t to) {
    return (from == 0 || m->m.from == from) && (to == 0 || m->m.to == to);
}

/* deliver, drop, dup, hold, release: on what is queued now, not on what that causes. */
static void cmd_network(struct world *w, const char *verb, uint64_t from, uint64_t to, size_t k) {
    size_t left = w->net_count;
    size_t i = 0;

    while (left-- > 0 && k > 0) {
        if (!between(&w->net[i], from, to) || (w->net[i].held && strcmp(verb, "release") != 0)) {
            i++;
            continue;
        }
        k--;
        if (strcmp(verb, "deliver") == 0) {
            world_deliver(w, i);
        } else if (strcmp(verb, "drop") == 0) {
            world_drop(w, i);
        } else if (strcmp(verb, "dup") == 0) {
            world_dup(w, i++);
        } else {
            w->net[i++].held = strcmp(verb, "hold") == 0;
        }
    }
}

static void cmd_status(struct world *w) {
    for (uint64_t id = 1; id <= w->count; id++) {
        const struct raft *r = w->nodes[id].raft;

        if (!r) {
            (void) fprintf(w->trace, "%" PRIu64 " down\n", id);
            continue;
        }
        (void) fprintf(w->trace,
                       "%" PRIu64 " %s term=%" PRIu64 " leader=%" PRIu64 " commit=%" PRIu64
                       " durable=%" PRIu64 " log=[",
                       id, raft_role_to_string(raft_role(r)), raft_term(r), raft_leader(r),
                       raft_commit(r), raft_durable_index(r));
        for (uint64_t i = raft_first_in_memory(r); i <= raft_last_index(r); i++)
            (void) fprintf(w->trace, " %" PRIu64 ":%" PRIu64, i, raft_entry_at(r, i)->term);
        (void) fprintf(w->trace, " ]\n");
    }
}

static void print_config(FILE *f, const struct raft_config *c) {
    for (size_t i = 0; i < c->count; i++)
        (void) fprintf(f, " %" PRIu64 "%s%s%s%s", c->members[i].id,
                       c->members[i].flags & RAFT_MEMBER_VOTER ? "v" : "",
                       c->members[i].flags & RAFT_MEMBER_VOTER_OLD ? "o" : "",
                       c->members[i].flags & RAFT_MEMBER_LEARNER ? "l" : "",
                       c->members[i].flags & RAFT_MEMBER_PROMOTE ? "p" : "");
}

static void cmd_members(struct world *w) {
    for (uint64_t id = 1; id <= w->count; id++) {
        const struct raft *r = w->nodes[id].raft;

        if (!r)
            continue;
        (void) fprintf(w->trace, "%" PRIu64 " at %" PRIu64 ":", id, raft_config_latest_index(r));
        print_config(w->trace, raft_config_latest(r));
        (void) fprintf(w->trace, " (at %" PRIu64 ":", raft_config_committed_index(r));
        print_config(w->trace, raft_config_committed(r));
        (void) fprintf(w->trace, ")\n");
    }
}

/* Proposals of configurations. A change that raft_config_*() itself refuses prints why. */
static bool cmd_change(struct world *w, uint64_t id, char **a, size_t n) {
    struct raft_config c = *raft_config_latest(w->nodes[id].raft);
    struct errtext err;
    uint64_t ids[ARGS_MAX];
    char address[16];
    int rc = 0;

    (void) snprintf(address, sizeof(address), "h%s:1", a[2] ? a[2] : "");
    if (strcmp(a[0], "learner") == 0) {
        rc = raft_config_add_learner(&c, number(a[2]), address, n > 3, 0, &c, &err);
    } else if (strcmp(a[0], "remove") == 0) {
        rc = raft_config_remove_learner(&c, number(a[2]), &c, &err);
    } else if (strcmp(a[0], "joint") == 0) {
        for (size_t i = 3; i < n; i++)
            ids[i - 3] = number(a[i]);
        rc = raft_config_enter_joint(&c, ids, n - 3, strcmp(a[2], "keep") == 0, &c, &err);
    } else if (strcmp(a[0], "leave") == 0) {
        rc = raft_config_leave_joint(&c, &c, &err);
    } else if (strcmp(a[0], "voters") == 0) {
        c = (struct raft_config){.count = n - 2};
        for (size_t i = 2; i < n; i++)
            c.members[i - 2] = (struct raft_member){.id = number(a[i]), .flags = RAFT_MEMBER_VOTER};
    } else {
        return false;
    }
    if (rc < 0)
        (void) fprintf(w->trace, "%" PRIu64 " refused: %s\n", id, err.s);
    else
        (void) world_propose_config(w, id, &c);
    return true;
}

static void cmd_install(struct world *w, uint64_t to, uint64_t k) {
    for (size_t i = 0; i < w->transfers_count; i++) {
        if (w->transfers[i].to != to || k-- > 0)
            continue;
        world_install(w, i);
        return;
    }
    fail_msg("no such snapshot on its way to %" PRIu64, to);
}

static void cmd_cut(struct world *w, uint64_t a, uint64_t b) {
    for (uint64_t id = 1; id <= w->count; id++) {
        if (b != 0 && id != b)
            continue;
        w->cut[a][id] = true;
        w->cut[id][a] = true;
    }
}

static bool run_setup(struct runner *r, char **a, size_t n) {
    struct world *w = &r->world;
    uint64_t terms[ARGS_MAX];

    if (strcmp(a[0], "option") == 0) {
        cmd_option(&w->options, a[1], number(a[2]));
    } else if (strcmp(a[0], "log") == 0) {
        for (size_t i = 2; i < n; i++)
            terms[i - 2] = number(a[i]);
        world_set_log(w, number(a[1]), terms, n - 2);
    } else if (strcmp(a[0], "term") == 0) {
        w->nodes[number(a[1])].hard_state =
            (struct raft_hard_state){.term = number(a[2]), .vote = number(a[3])};
    } else if (strcmp(a[0], "nodes") == 0) {
        world_start(w, number(a[1]));
        r->started = true;
    } else {
        return false;
    }
    return true;
}

static bool run_world(struct world *w, char **a, size_t n) {
    if (strcmp(a[0], "tick") == 0) {
        w->now.ns += number(a[1]) * NS_PER_MS;
    } else if (strcmp(a[0], "deliver") == 0 || strcmp(a[0], "drop") == 0 ||
               strcmp(a[0], "dup") == 0 || strcmp(a[0], "hold") == 0 ||
               strcmp(a[0], "release") == 0) {
        cmd_network(w, a[0], number(a[1]), number(a[2]), n > 3 ? number(a[3]) : SIZE_MAX);
    } else if (strcmp(a[0], "partition") == 0) {
        cmd_cut(w, number(a[1]), number(a[2]));
    } else if (strcmp(a[0], "isolate") == 0) {
        cmd_cut(w, number(a[1]), 0);
    } else if (strcmp(a[0], "heal") == 0) {
        memset(w->cut, 0, sizeof(w->cut));
    } else if (strcmp(a[0], "stabilize") == 0) {
        world_stabilize(w);
    } else if (strcmp(a[0], "status") == 0) {
        cmd_status(w);
    } else if (strcmp(a[0], "members") == 0) {
        cmd_members(w);
    } else if (strcmp(a[0], "node") == 0) {
        world_add_node(w);
    } else if (strcmp(a[0], "snapshots") == 0) {
        w->hold_snapshots = strcmp(a[1], "hold") == 0;
    } else {
        return false;
    }
    return true;
}

static bool run_node(struct world *w, char **a, size_t n) {
    uint64_t id = number(a[1]);
    struct raft_event lost = {.type = RAFT_EV_UNREACHABLE}, up = {.type = RAFT_EV_REACHABLE};

    if (strcmp(a[0], "timeout") == 0) {
        w->now.ns = MAX(w->now.ns, raft_deadline(w->nodes[id].raft).ns);
        world_timeout(w, id);
    } else if (strcmp(a[0], "campaign") == 0) {
        world_campaign(w, id);
    } else if (strcmp(a[0], "persist") == 0) {
        world_persist(w, id, n > 2 ? number(a[2]) : SIZE_MAX);
    } else if (strcmp(a[0], "load") == 0) {
        world_serve_load(w, id, true);
    } else if (strcmp(a[0], "propose") == 0) {
        for (size_t i = 2; i < n; i++)
            (void) world_propose(w, id, a[i]);
    } else if (strcmp(a[0], "read") == 0) {
        (void) world_read(w, id);
    } else if (strcmp(a[0], "transfer") == 0) {
        world_transfer(w, id, number(a[2]));
    } else if (strcmp(a[0], "unreachable") == 0) {
        lost.unreachable = number(a[2]);
        world_step(w, id, &lost);
    } else if (strcmp(a[0], "reachable") == 0) {
        up.reachable = number(a[2]);
        world_step(w, id, &up);
    } else if (strcmp(a[0], "crash") == 0) {
        world_crash(w, id, 0);
    } else if (strcmp(a[0], "restart") == 0) {
        world_restart(w, id, w->nodes[id].base_index, w->nodes[id].store_applied);
    } else if (strcmp(a[0], "erase") == 0) {
        world_erase(w, id);
    } else if (strcmp(a[0], "forget") == 0) {
        world_forget(w, id, number(a[2]));
    } else if (strcmp(a[0], "compact") == 0) {
        world_compact(w, id, number(a[2]));
    } else if (strcmp(a[0], "snapshot") == 0) {
        world_serve_snapshot(w, id, n < 3);
    } else if (strcmp(a[0], "failed") == 0) {
        world_snapshot_failed(w, id, number(a[2]));
    } else if (strcmp(a[0], "install") == 0) {
        cmd_install(w, id, number(a[2]));
    } else {
        return cmd_change(w, id, a, n);
    }
    return true;
}

/* One command; its trace goes to @out. */
static void run_command(struct runner *r, const char *line, FILE *out) {
    char copy[512];
    char *args[ARGS_MAX] = {NULL};
    char *save = NULL;
    size_t n = 0;

    assert_true(strlen(line) < sizeof(copy));
    memcpy(copy, line, strlen(line) + 1);
    for (char *t = strtok_r(copy, " \n", &save); t && n < ARGS_MAX;
         t = strtok_r(NULL, " \n", &save))
        args[n++] = t;
    assert_true(n > 0);
    r->world.trace = out;
    r->world.what = line;
    if (!(run_setup(r, args, n) || run_world(&r->world, args, n) ||
          (n > 1 && run_node(&r->world, args, n))))
        fail_msg("unknown command: %s", line);
    r->world.trace = NULL;
}

/* Replay @in: copy commands, comments and empty lines, replace traces. */
static void replay(FILE *in, FILE *out) {
    static char line[8192];
    struct runner r = {0};

    world_init(&r.world, 1);
    while (fgets(line, sizeof(line), in)) {
        line[strcspn(line, "\n")] = '\0';
        if (line[0] != '\0' && line[0] != '#' && line[0] != '>')
            continue; /* the trace as it was */
        (void) fprintf(out, "%s\n", line);
        if (line[0] == '>')
            run_command(&r, line + 1, out);
    }
    world_done(&r.world);
}

static void test_script(void **state) {
    const char *path = *state;
    FILE *in = fopen(path, "r");
    char *was = NULL;
    char *is = NULL;
    size_t was_len = 0;
    size_t is_len = 0;
    FILE *out = open_memstream(&is, &is_len);
    FILE *copy = open_memstream(&was, &was_len);
    size_t line = 1;
    int c;

    assert_non_null(in);
    assert_non_null(out);
    assert_non_null(copy);
    while ((c = fgetc(in)) != EOF)
        (void) fputc(c, copy);
    (void) fclose(copy);
    rewind(in);
    replay(in, out);
    (void) fclose(in);
    (void) fclose(out);
    if (getenv("CHRONOS_GOLDEN_REWRITE")) {
        FILE *f = fopen(path, "w");

        assert_non_null(f);
        assert_int_equal(fwrite(is, 1, is_len, f), is_len);
        (void) fclose(f);
    } else if (strcmp(was, is) != 0) {
        size_t i = 0;

        for (; was[i] == is[i]; i++)
            line += was[i] == '\n' ? 1 : 0;
        while (i > 0 && is[i - 1] != '\n')
            i--;
        fail_msg("%s:%zu: expected '%.*s', got '%.*s' (CHRONOS_GOLDEN_REWRITE=1 rewrites)", path,
                 line, (int) strcspn(was + i, "\n"), was + i, (int) strcspn(is + i, "\n"), is + i);
    }
    free(was);
    free(is);
}

int main(int argc, char **argv) {
    struct CMUnitTest test;

    if (argc != 2) {
        (void) fprintf(stderr, "usage: test_raft_golden SCRIPT\n");
        return 2;
    }
    test = (struct CMUnitTest){.name = argv[1], .test_func = test_script, .initial_state = argv[1]};
    return _cmocka_run_group_tests("raft_golden", &test, 1, NULL, NULL) == 0 ? 0 : 1;
}
