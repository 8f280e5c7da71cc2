/* The configuration: defaults, file, flags, refusals, and printing that parses back. */
#include "cli/config.h"

#include <stdarg.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static int read_text(struct config *c, const char *text, struct errtext *why) {
    int r;

    config_init(c);
    c->file = "t.yaml";
    r = config_read(c, "t.yaml", text, strlen(text), why);
    return r != 0 ? r : config_finish(c, why);
}

static char *print_text(const struct config *c) {
    char *text = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);

    assert_non_null(f);
    config_print(c, f);
    assert_int_equal(fclose(f), 0);
    return text;
}

/* Goal: the defaults of design.md section 4. */
static void test_defaults(void **state) {
    struct config c;
    struct errtext why = {""};

    (void) state;
    assert_int_equal(read_text(&c, "", &why), 0);
    assert_int_equal(c.node.id, 1);
    assert_string_equal(c.node.listen, "127.0.0.1:7400");
    assert_string_equal(c.node.peer_listen, "127.0.0.1:7402");
    assert_string_equal(c.node.advertise, "127.0.0.1:7400");
    assert_int_equal(c.cluster.heartbeat_timeout_ms, 50);
    assert_int_equal(c.cluster.election_timeout_ms, 150);
    assert_int_equal(c.cluster.snapshot_threshold, 1000);
    assert_int_equal(c.cluster.snapshot_interval_ms, 30000);
    assert_int_equal(c.cluster.liveness_window_ms, 3000);
    assert_int_equal(c.cluster.members_count, 1);
    assert_int_equal(c.limits.pending_proposals, 256);
    assert_int_equal(c.limits.commit_timeout_ms, 5000);
    assert_int_equal(c.worker.lease_ms, 15000);
    assert_string_equal(c.worker.data_dir, "./chronos-data/worker");
    config_done(&c);
}

static const char *const whole_file =
    "# a cluster of three\n"
    "node:\n"
    "  id: 2\n"
    "  data_dir: \"/var/lib/chronos \\\"x\\\"\"\n"
    "cluster:\n"
    "  name: prod-1\n"
    "  members:\n"
    "    - {id: 1, address: 127.0.0.1:7402, client_address: 127.0.0.1:7400}\n"
    "    - id: 2\n"
    "      address: \"127.0.0.1:7412\"\n"
    "      client_address: \"127.0.0.1:7410\"\n"
    "    - {id: 3, address: \"[::1]:7422\"}\n"
    "  raft:\n"
    "    profile: wan\n"
    "    election_timeout: 1s500ms\n"
    "limits: {message_bytes: 10MB, watch_events: 2048}\n"
    "worker:\n"
    "  enabled: false\n"
    "  slots: 7\n"
    "  labels: {zone: a, \"g p u\": \"yes: 1\"}\n"
    "log: {level: debug, format: json}\n";

/* Goal: a whole file is understood, and the node takes its addresses from its own member. */
static void test_file(void **state) {
    struct config c;
    struct errtext why = {""};

    (void) state;
    if (read_text(&c, whole_file, &why) != 0)
        fail_msg("%s", why.s);
    assert_int_equal(c.node.id, 2);
    assert_string_equal(c.node.data_dir, "/var/lib/chronos \"x\"");
    assert_string_equal(c.node.listen, "127.0.0.1:7410");
    assert_string_equal(c.node.peer_listen, "127.0.0.1:7412");
    assert_int_equal(c.cluster.members_count, 3);
    assert_string_equal(c.cluster.members[2].address, "[::1]:7422");
    assert_string_equal(c.cluster.members[2].client_address, "");
    assert_int_equal(c.cluster.heartbeat_timeout_ms, 500);
    assert_int_equal(c.cluster.election_timeout_ms, 1500);
    assert_int_equal(c.limits.message_bytes, 10000000);
    assert_false(c.worker.enabled);
    assert_int_equal(c.worker.labels_count, 2);
    assert_string_equal(c.worker.labels[1].key, "g p u");
    assert_string_equal(c.worker.labels[1].value, "yes: 1");
    assert_int_equal(c.log.format, 1);
    config_done(&c);
}

/* Goal: print(parse(print(c))) == print(c), field for field. Method: every setting of the table is
 * compared by its printed text, which is exact (test_units). */
static void test_print_parses_back(void **state) {
    static const char *const files[] = {"", "node: {data_dir: \"/a\\tb\\\\c \\u00e9\"}\n"};

    (void) state;
    for (size_t i = 0; i < ARRAY_LEN(files) + 1; i++) {
        struct config a, b;
        struct errtext why = {""};
        char *first, *second;

        assert_int_equal(read_text(&a, i < ARRAY_LEN(files) ? files[i] : whole_file, &why), 0);
        first = print_text(&a);
        if (read_text(&b, first, &why) != 0)
            fail_msg("%s\n%s", why.s, first);
        second = print_text(&b);
        assert_string_equal(first, second);
        assert_int_equal(a.cluster.members_count, b.cluster.members_count);
        assert_int_equal(a.worker.labels_count, b.worker.labels_count);
        assert_string_equal(a.node.data_dir, b.node.data_dir);
        free(first);
        free(second);
        config_done(&a);
        config_done(&b);
    }
}

/* Goal: each wrong file is refused with file, line, key and what would be right. */
static void test_refusals(void **state) {
    static const struct {
        const char *text;
        const char *says;
    } cases[] = {
        {"node:\n  idd: 1\n", "t.yaml:2: node.idd: unknown key; did you mean node.id?"},
        {"nod:\n  id: 1\n", "t.yaml:1: nod: unknown key"},
        {"node:\n  id: one\n", "t.yaml:2: node.id: \"one\" is not a whole number"},
        {"node:\n  id: 0\n", "t.yaml:2: node.id: 0 is out of range"},
        {"node:\n  id: 1\n  id: 2\n", "t.yaml:3: node.id: given twice, first in line 2"},
        {"node:\n  id: 1\nlog: {}\nnode:\n  id: 2\n", "t.yaml:4: node: given twice"},
        {"node: 5\n", "t.yaml:1: node: must be a mapping"},
        {"node:\n", "t.yaml:"},
        {"- a\n", "t.yaml:1: the file: must be a mapping of sections, not a list"},
        {"hello\n", "t.yaml:1: the file: must be a mapping"},
        {"node: {id: [1]}\n", "t.yaml:1: node.id: must be one value, not a list"},
        {"node: {id: {a: 1}}\n", "t.yaml:1: node.id: must be one value, not a mapping"},
        {"node: {data_dir: }\n", "node.data_dir: has no value"},
        {"node: {id: &x 1}\n", "anchors"},
        {"node: {id: *x}\n", "t.yaml:1:"},
        {"node: {id: 1\n", "not YAML"},
        {"node: {id: 1}\n---\nnode: {id: 2}\n", "second document"},
        {"worker: {enabled: yes}\n", "\"yes\" is neither true nor false"},
        {"worker: {slots: 100000}\n", "0 to 10000 is allowed"},
        {"cluster:\n  raft:\n    heartbeat_timeout: 100ms\n",
         "cluster.raft.election_timeout: 150ms is less than twice the heartbeat interval of 100ms; "
         "use at least 200ms"},
        {"cluster:\n  raft:\n    heartbeat_timeout: 50\n",
         "t.yaml:3: cluster.raft.heartbeat_timeout"},
        {"cluster:\n  raft:\n    profile: moon\n", "is not one of: lan, wan"},
        {"worker: {lease: 6s}\n", "t.yaml:1: worker.lease: 6s is less than twice"},
        {"cluster:\n  members:\n    - {id: 1, address: 127.0.0.1:1}\n    - {id: 1, address: "
         "127.0.0.1:2}\n",
         "t.yaml:4: cluster.members: member 1: this id is given twice"},
        {"cluster:\n  members:\n    - {id: 1, address: 127.0.0.1:1}\n    - {id: 2, address: "
         "127.0.0.1:1}\n",
         "t.yaml:4: cluster.members: member 2: has the address 127.0.0.1:1 of member 1"},
        {"cluster:\n  members: [{id: 1}]\n", "a member needs id and address"},
        {"cluster:\n  members: [{id: 1, addr: x}]\n", "a member has id, address"},
        {"cluster: {members: []}\n", "cluster.members: is empty"},
        {"cluster: {members: 3}\n", "cluster.members: must be a list"},
        {"cluster: {members: [3]}\n", "each member is a mapping"},
        {"cluster: {members: {id: 3}}\n", "must be a list"},
        {"node: {listen: 7400}\n", "\"7400\" is not HOST:PORT"},
        {"node: {listen: \"a;b:7400\"}\n", "is not HOST:PORT"},
        {"node: {listen: \"a\\nb:7400\"}\n", "is not HOST:PORT"},
        {"node: {listen: \"h\\u00e4:7400\"}\n", "is not HOST:PORT"},
        {"node: {listen: \"::1:7400\"}\n", "is not HOST:PORT"},
        {"node: {listen: \"127.0.0.1:70000\"}\n", "a port from 1 to 65535"},
        {"node: {listen: \"0.0.0.0:7400\"}\n", "t.yaml:1: node.listen: 0.0.0.0:7400 is not a loop"},
        {"node: {peer_listen: \"10.1.1.1:7402\"}\n", "set security.insecure_bind"},
        {"node: {listen: \"127.0.0.1:7402\"}\n", "clients and peers need one port each"},
        {"limits: {uncommitted_bytes: 1MiB}\n", "could not hold one message"},
        {"cluster: {name: \"a b\"}\n", "cluster.name: must be 1 to 64"},
        {"worker: {labels: {a: 1, a: 2}}\n", "this label is given twice"},
        {"worker: {labels: [a]}\n", "worker.labels: must be one value, not a list"},
        {"{a: 1}: 2\n", "t.yaml:1:"},
        {"\x01\n", "t.yaml:1"},
    };

    (void) state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct config c;
        struct errtext why = {""};

        assert_int_equal(read_text(&c, cases[i].text, &why), 1);
        if (!strstr(why.s, cases[i].says))
            fail_msg("%s\nsays \"%s\"\nnot  \"%s\"", cases[i].text, why.s, cases[i].says);
        config_done(&c);
    }
}

/* Goal: an address that is not loopback is allowed only with security.insecure_bind. */
static void test_insecure_bind(void **state) {
    struct config c;
    struct errtext why = {""};

    (void) state;
    assert_int_equal(read_text(&c,
                               "node: {listen: \"0.0.0.0:7400\", advertise: \"host:7400\"}\n"
                               "security: {insecure_bind: true}\n",
                               &why),
                     0);
    assert_string_equal(c.cluster.members[0].client_address, "host:7400");
    config_done(&c);
}

/* Goal: flags win over the file, in any order, and members given as flags replace the file's. */
static void test_flags(void **state) {
    char path[] = "/tmp/chronos-config-XXXXXX";
    int fd = mkstemp(path);
    char *argv[] = {(char *) "server",
                    (char *) "--node.id=3",
                    (char *) "--config",
                    path,
                    (char *) "--cluster.raft.election_timeout",
                    (char *) "400ms",
                    (char *) "--member",
                    (char *) "3=127.0.0.1:7432,127.0.0.1:7430",
                    (char *) "--member=4=127.0.0.1:7442",
                    (char *) "--worker.labels",
                    (char *) "a=b=c",
                    NULL};
    FILE *f = fdopen(fd, "w");
    struct config c;
    int code = -1;

    (void) state;
    assert_non_null(f);
    assert_true(fputs("node: {id: 2}\ncluster:\n  members: [{id: 2, address: 127.0.0.1:1}]\n"
                      "  raft: {heartbeat_timeout: 100ms}\nworker: {labels: {x: y}}\n",
                      f) >= 0);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(config_load(&c, (int) ARRAY_LEN(argv) - 1, argv, &code), 0);
    assert_int_equal(c.node.id, 3);
    assert_int_equal(c.cluster.heartbeat_timeout_ms, 100);
    assert_int_equal(c.cluster.election_timeout_ms, 400);
    assert_int_equal(c.cluster.members_count, 2);
    assert_string_equal(c.node.listen, "127.0.0.1:7430");
    assert_string_equal(c.node.peer_listen, "127.0.0.1:7432");
    assert_string_equal(c.cluster.members[1].client_address, "");
    assert_int_equal(c.worker.labels_count, 1);
    assert_string_equal(c.worker.labels[0].value, "b=c");
    config_done(&c);

    /* Only who forms a cluster must be in it: elsewhere the members are where to look first. */
    argv[1] = (char *) "--node.id=8";
    assert_int_equal(config_load(&c, (int) ARRAY_LEN(argv) - 1, argv, &code), 0);
    assert_int_equal(c.cluster.members_count, 2);
    assert_string_equal(c.node.peer_listen, "127.0.0.1:7402");
    config_done(&c);
    argv[9] = argv[10] = (char *) "--bootstrap";
    assert_int_equal(config_load(&c, (int) ARRAY_LEN(argv) - 1, argv, &code), 1);
    assert_int_equal(code, EXIT_CODE_USAGE);
    config_done(&c);
    assert_int_equal(remove(path), 0);
    assert_int_equal(config_load(&c, (int) ARRAY_LEN(argv) - 1, argv, &code), 1);
    assert_int_equal(code, EXIT_CODE_USAGE);
    config_done(&c);
}

/* Goal: what others are told is an address they can connect to, and --join is checked before the
 * node starts. */
static void test_join(void **state) {
    static const struct {
        const char *file, *join, *says;
        bool bootstrap;
    } cases[] = {
        {"", "127.0.0.1:7400,[::1]:7410", NULL, false},
        {"", "nonsense", "--join: \"nonsense\" is not HOST:PORT", false},
        {"", "127.0.0.1:7400,", "--join: \"\" is not HOST:PORT", false},
        {"", "127.0.0.1:7400", "--bootstrap and --join: give one", true},
        {"node: {peer_listen: \"0.0.0.0:7402\"}\nsecurity: {insecure_bind: true}\n",
         "127.0.0.1:7400", "cannot reach this node at 0.0.0.0:7402", false},
        {"node: {peer_listen: \"0.0.0.0:7402\", advertise_peer: \"a:1\"}\n"
         "security: {insecure_bind: true}\n",
         "127.0.0.1:7400", NULL, false},
    };

    (void) state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct errtext why = {""};
        struct config c;
        int r;

        config_init(&c);
        c.join = cases[i].join;
        c.bootstrap = cases[i].bootstrap;
        r = config_read(&c, "t.yaml", cases[i].file, strlen(cases[i].file), &why);
        if (r == 0)
            r = config_finish(&c, &why);
        assert_int_equal(r, cases[i].says ? 1 : 0);
        if (cases[i].says && !strstr(why.s, cases[i].says))
            fail_msg("case %zu says \"%s\"", i, why.s);
        config_done(&c);
    }
}

/* Goal: the address told to peers is the one listened at, or the member's when that is a wildcard.
 */
static void test_advertise_peer(void **state) {
    struct config c;
    struct errtext why = {""};

    (void) state;
    assert_int_equal(read_text(&c,
                               "node: {peer_listen: \"127.0.0.1:9\"}\ncluster:\n"
                               "  members: [{id: 1, address: \"127.0.0.1:8\"}]\n",
                               &why),
                     0);
    assert_string_equal(c.node.advertise_peer, "127.0.0.1:9");
    config_done(&c);
    assert_int_equal(read_text(&c,
                               "node: {peer_listen: \"[::]:9\"}\ncluster:\n"
                               "  members: [{id: 1, address: \"a:8\"}]\n"
                               "security: {insecure_bind: true}\n",
                               &why),
                     0);
    assert_string_equal(c.node.advertise_peer, "a:8");
    config_done(&c);
}

/* Goal: only even sizes are warned about, with the numbers that say why. */
static void test_even_sizes(void **state) {
    char text[512];

    (void) state;
    assert_string_equal(config_even_size_warning(3, text), "");
    assert_string_equal(config_even_size_warning(1, text), "");
    assert_non_null(strstr(config_even_size_warning(4, text), "majority of 3"));
    assert_non_null(strstr(text, "loss of 1"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),          cmocka_unit_test(test_file),
        cmocka_unit_test(test_print_parses_back), cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_insecure_bind),     cmocka_unit_test(test_flags),
        cmocka_unit_test(test_even_sizes),        cmocka_unit_test(test_join),
        cmocka_unit_test(test_advertise_peer),
    };

    return cmocka_run_group_tests_name("config", tests, NULL, NULL);
}
