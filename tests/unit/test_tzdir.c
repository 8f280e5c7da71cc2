#include "os/tzdir.h"

#include "os_test.h"

#include <errno.h>
#include <fcntl.h>

static void put_file(const char *dir, const char *name, const char *text) {
    char path[256], tmp[300];
    FILE *f;

    (void) snprintf(path, sizeof(path), "%s/%s", dir, name);
    (void) snprintf(tmp, sizeof(tmp), "%s.new", path);
    f = fopen(tmp, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, strlen(text), f), strlen(text));
    assert_int_equal(fclose(f), 0);
    assert_int_equal(rename(tmp, path), 0);
}

static int load(const struct env_zones *z, const char *name, struct bytes **ret, uint64_t *stamp,
                struct errtext *e) {
    e->s[0] = 0;
    *ret = NULL;
    return z->load(z->ctx, name, ret, stamp, e);
}

/* Goal: the bytes of a file by its name, another stamp when it is replaced, 0 when it is gone.
 * Method: a directory of our own. */
static void test_load_and_stamp(void **state) {
    struct tzdir d;
    struct env_zones z;
    struct errtext e;
    struct bytes *b = NULL;
    uint64_t stamp = 0, other = 0;
    char dir[64], sub[128];

    (void) state;
    os_test_dir(dir);
    (void) snprintf(sub, sizeof(sub), "%s/Europe", dir);
    assert_int_equal(mkdir(sub, 0700), 0);
    put_file(sub, "Berlin", "one");
    assert_int_equal(tzdir_init(&d, dir, &e), 0);
    z = tzdir_env(&d);
    assert_int_equal(load(&z, "Europe/Berlin", &b, &stamp, &e), 0);
    assert_int_equal(b->len, 3);
    assert_memory_equal(b->data, "one", 3);
    b = bytes_unref(b);
    assert_true(stamp != 0);
    assert_true(z.stamp(z.ctx, "Europe/Berlin") == stamp);

    put_file(sub, "Berlin", "two");
    other = z.stamp(z.ctx, "Europe/Berlin");
    assert_true(other != 0 && other != stamp);
    assert_int_equal(load(&z, "Europe/Berlin", &b, &stamp, &e), 0);
    assert_memory_equal(b->data, "two", 3);
    assert_true(stamp == other);
    b = bytes_unref(b);

    (void) snprintf(sub, sizeof(sub), "%s/Europe/Berlin", dir);
    assert_int_equal(unlink(sub), 0);
    assert_true(z.stamp(z.ctx, "Europe/Berlin") == 0);
    assert_int_equal(load(&z, "Europe/Berlin", &b, &stamp, &e), -ENOENT);
    assert_non_null(strstr(e.s, "Europe/Berlin"));
    os_test_rmdir(dir);
}

/* Goal: only regular files of a zone's size, below the directory; the reason names the file.
 * Method: what is none, one by one; an empty file must not pass, for no bytes mean UTC. */
static void test_refused(void **state) {
    static const char *const names[] = {"../etc/passwd", "/etc/passwd", "", "a/../../b"};
    struct tzdir d;
    struct env_zones z;
    struct errtext e;
    struct bytes *b = NULL;
    uint64_t stamp = 0;
    char dir[64], path[128], longer[600];

    (void) state;
    os_test_dir(dir);
    assert_int_equal(tzdir_init(&d, dir, &e), 0);
    z = tzdir_env(&d);
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        assert_int_equal(load(&z, names[i], &b, &stamp, &e), -EINVAL);
        assert_true(z.stamp(z.ctx, names[i]) == 0);
    }
    put_file(dir, "Empty", "");
    assert_int_equal(load(&z, "Empty", &b, &stamp, &e), ERR_LIMIT);
    assert_non_null(strstr(e.s, "Empty"));
    (void) snprintf(path, sizeof(path), "%s/Dir", dir);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(load(&z, "Dir", &b, &stamp, &e), ERR_LIMIT);
    (void) snprintf(path, sizeof(path), "%s/Pipe", dir);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(load(&z, "Pipe", &b, &stamp, &e), ERR_LIMIT); /* and does not wait */
    put_file(dir, "Big", "x");
    (void) snprintf(path, sizeof(path), "%s/Big", dir);
    assert_int_equal(truncate(path, TZDIR_FILE_BYTES_MAX + 1), 0);
    assert_int_equal(load(&z, "Big", &b, &stamp, &e), ERR_LIMIT);
    assert_null(b);
    memset(longer, 'a', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = 0;
    assert_int_equal(tzdir_init(&d, longer, &e), ERR_CONFIG);
    os_test_rmdir(dir);
}

/* Goal: CHRONOS_TZDIR says where; the version of the data is found, and found again when it
 * changed. */
static void test_directory_and_version(void **state) {
    struct tzdir d;
    struct env_zones z;
    struct errtext e;
    char dir[64];

    (void) state;
    os_test_dir(dir);
    assert_int_equal(setenv("CHRONOS_TZDIR", dir, 1), 0);
    assert_int_equal(tzdir_init(&d, NULL, &e), 0);
    assert_string_equal(d.path, dir);
    assert_int_equal(unsetenv("CHRONOS_TZDIR"), 0);
    z = tzdir_env(&d);
    assert_string_equal(z.version(z.ctx), "");
    put_file(dir, "+VERSION", "2025c\n");
    assert_string_equal(z.version(z.ctx), "2025c");
    put_file(dir, "tzdata.zi", "# version 2026b\n# more\n");
    assert_string_equal(z.version(z.ctx), "2026b");
    put_file(dir, "tzdata.zi", "# version 2027a\n");
    assert_string_equal(z.version(z.ctx), "2027a");
    assert_int_equal(tzdir_init(&d, NULL, &e), 0);
    assert_string_equal(d.path, TZDIR_DEFAULT);
    os_test_rmdir(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_load_and_stamp),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_directory_and_version),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
