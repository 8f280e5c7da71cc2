#include "os_test.h"

#include "os/disk_posix.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/statvfs.h>
#include <sys/wait.h>

static int count_name(void *arg, const char *name) {
    int *n = (int *) arg;

    (*n)++;
    return strcmp(name, "stop") == 0 ? 77 : 0;
}

/* Goal: every operation of the table does what disk.h says. Method: one file through its life in a
 * fresh directory, looking at the result through the kernel where the table cannot show it. */
static void test_operations(void **state) {
    char dir[64], path[128], data[16];
    struct disk_posix *d = NULL;
    struct disk disk;
    struct disk_file *f = NULL, *g = NULL;
    struct stat st;
    uint64_t size = 0;
    size_t n = 0;
    int names = 0;

    (void) state;
    os_test_dir(dir);
    (void) snprintf(path, sizeof(path), "%s/a/b", dir);
    assert_int_equal(disk_posix_open(path, &d, &disk, NULL), 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    assert_int_equal(disk.ops->open(disk.ctx, "x", 0, &f), -ENOENT);
    assert_int_equal(disk.ops->open(disk.ctx, "x", DISK_CREATE | DISK_EXCL, &f), 0);
    assert_int_equal(disk.ops->open(disk.ctx, "x", DISK_CREATE | DISK_EXCL, &g), -EEXIST);
    assert_int_equal(disk.ops->pwrite(disk.ctx, f, 4, "chronos", 7, &n), 0);
    assert_int_equal(n, 7);
    assert_int_equal(disk.ops->datasync(disk.ctx, f), 0);
    assert_int_equal(disk.ops->size(disk.ctx, f, &size), 0);
    assert_int_equal(size, 11);
    assert_int_equal(disk.ops->pread(disk.ctx, f, 2, data, sizeof(data), &n), 0);
    assert_int_equal(n, 9);
    assert_memory_equal(data, "\0\0chronos", 9);
    assert_int_equal(disk.ops->pread(disk.ctx, f, 11, data, sizeof(data), &n), 0);
    assert_int_equal(n, 0);
    assert_int_equal(disk.ops->truncate(disk.ctx, f, 5), 0);
    assert_int_equal(disk.ops->size(disk.ctx, f, &size), 0);
    assert_int_equal(size, 5);
    disk.ops->close(disk.ctx, f);
    (void) snprintf(path, sizeof(path), "%s/a/b/x", dir);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);

    assert_int_equal(disk.ops->open(disk.ctx, "y", DISK_CREATE, &f), 0);
    disk.ops->close(disk.ctx, f);
    assert_int_equal(disk.ops->rename(disk.ctx, "x", "y"), 0);
    assert_int_equal(disk.ops->sync_dir(disk.ctx), 0);
    assert_int_equal(disk.ops->open(disk.ctx, "y", DISK_RDONLY, &f), 0);
    assert_int_equal(disk.ops->size(disk.ctx, f, &size), 0);
    assert_int_equal(size, 5);
    assert_int_equal(disk.ops->pwrite(disk.ctx, f, 0, "z", 1, &n), -EBADF);
    disk.ops->close(disk.ctx, f);
    (void) snprintf(path, sizeof(path), "%s/a/b/sub", dir);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(disk.ops->list(disk.ctx, count_name, &names), 0);
    assert_int_equal(names, 1); /* y: neither LOCK nor the directory */
    assert_int_equal(disk.ops->rename(disk.ctx, "y", "stop"), 0);
    assert_int_equal(disk.ops->list(disk.ctx, count_name, &names), 77);
    assert_int_equal(disk.ops->unlink(disk.ctx, "stop"), 0);
    assert_int_equal(disk.ops->unlink(disk.ctx, "stop"), -ENOENT);
    d = disk_posix_close(d);
    os_test_rmdir(dir);
}

/* Goal: one process per directory, at once and with the directory's name. Method: open it twice
 * here, then from a forked child; close and open again. */
static void test_lock(void **state) {
    char dir[64];
    struct disk_posix *d = NULL, *second = NULL;
    struct disk disk, disk2;
    struct errtext err = {0};
    int status = 0;
    pid_t pid;

    (void) state;
    os_test_dir(dir);
    assert_int_equal(disk_posix_open(dir, &d, &disk, &err), 0);
    assert_int_equal(disk_posix_open(dir, &second, &disk2, &err), -EWOULDBLOCK);
    assert_null(second);
    assert_non_null(strstr(err.s, dir));
    assert_non_null(strstr(err.s, "in use"));
    pid = fork();
    if (pid == 0)
        _exit(disk_posix_open(dir, &second, &disk2, NULL) == -EWOULDBLOCK ? 42 : 1);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 42);
    d = disk_posix_close(d);
    assert_int_equal(disk_posix_open(dir, &d, &disk, NULL), 0);
    d = disk_posix_close(d);
    os_test_rmdir(dir);
}

/* Goal: refusals name the directory. Method: a file in its place, a world-writable directory. */
static void test_refusals(void **state) {
    char dir[64], path[128];
    struct disk_posix *d = NULL;
    struct disk disk;
    struct errtext err = {0};
    int fd;

    (void) state;
    os_test_dir(dir);
    (void) snprintf(path, sizeof(path), "%s/file", dir);
    fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(close(fd), 0);
    assert_int_equal(disk_posix_open(path, &d, &disk, &err), -ENOTDIR);
    assert_non_null(strstr(err.s, path));
    assert_int_equal(chmod(dir, 0777), 0);
    assert_int_equal(disk_posix_open(dir, &d, &disk, &err), -EACCES);
    assert_non_null(strstr(err.s, "0777"));
    assert_int_equal(disk_posix_open("", &d, &disk, &err), -ENOENT);
    assert_null(d);
    os_test_rmdir(dir);
}

/* Goal: nothing of the directory leaks into a child that is executed. Method: each descriptor above
 * 2 that opening added has FD_CLOEXEC. */
static void test_cloexec(void **state) {
    char dir[64];
    struct disk_posix *d = NULL;
    struct disk disk;
    struct disk_file *f = NULL;
    int seen = 0;
    bool before[256];

    (void) state;
    os_test_dir(dir);
    for (int fd = 0; fd < 256; fd++)
        before[fd] = fcntl(fd, F_GETFD) >= 0;
    assert_int_equal(disk_posix_open(dir, &d, &disk, NULL), 0);
    assert_int_equal(disk.ops->open(disk.ctx, "f", DISK_CREATE, &f), 0);
    for (int fd = 0; fd < 256; fd++) {
        int flags = fcntl(fd, F_GETFD);

        if (flags < 0 || before[fd])
            continue;
        seen++;
        assert_true(flags & FD_CLOEXEC);
    }
    assert_int_equal(seen, 3);
    disk.ops->close(disk.ctx, f);
    d = disk_posix_close(d);
    os_test_rmdir(dir);
}

/* Goal: the space of the right file system as an unprivileged writer sees it. Method: two answers
 * around a file of 16 MiB: less is free with it; the total is that of statvfs and does not move. */
static void test_space(void **state) {
    static const uint8_t block[1 << 20] = {1};
    uint64_t before = 0, after = 0, total = 0, total_after = 0;
    char dir[64];
    struct disk_posix *d = NULL;
    struct disk disk;
    struct disk_file *f = NULL;
    struct statvfs st;
    size_t n = 0;

    (void) state;
    os_test_dir(dir);
    assert_int_equal(disk_posix_open(dir, &d, &disk, NULL), 0);
    assert_int_equal(disk.ops->open(disk.ctx, "f", DISK_CREATE, &f), 0);
    assert_int_equal(disk.ops->space(disk.ctx, &before, &total), 0);
    for (unsigned i = 0; i < 16; i++) {
        assert_int_equal(
            disk.ops->pwrite(disk.ctx, f, (uint64_t) i << 20, block, sizeof(block), &n), 0);
        assert_int_equal(n, sizeof(block));
    }
    assert_int_equal(disk.ops->datasync(disk.ctx, f), 0);
    assert_int_equal(disk.ops->space(disk.ctx, &after, &total_after), 0);
    assert_int_equal(statvfs(dir, &st), 0);
    assert_true(total == (uint64_t) st.f_blocks * st.f_frsize);
    assert_true(total == total_after);
    assert_true(before > 0 && before <= total);
    /* Others use the disk as well: half of it is left to their deletions. */
    assert_true(after < before - ((uint64_t) 8 << 20));
    disk.ops->close(disk.ctx, f);
    d = disk_posix_close(d);
    os_test_rmdir(dir);
}

/* Goal: a directory can be looked at without touching it, also while its owner holds the lock.
 * Method: open both ways; every change through the read-only one is refused and nothing appears. */
static void test_read_only(void **state) {
    char dir[64], path[96];
    struct disk_posix *owner = NULL, *d = NULL;
    struct disk disk, own;
    struct disk_file *f = NULL;
    struct errtext err = {0};
    uint8_t byte = 0;
    size_t n = 0;

    (void) state;
    os_test_dir(dir);
    (void) snprintf(path, sizeof(path), "%s/none", dir);
    assert_int_equal(disk_posix_open_read_only(path, &d, &disk, &err), -ENOENT);
    assert_non_null(strstr(err.s, path));
    assert_int_equal(disk_posix_open_read_only(dir, &d, &disk, NULL), 0);
    (void) snprintf(path, sizeof(path), "%s/" DISK_POSIX_LOCK_NAME, dir);
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(disk_posix_open(dir, &owner, &own, NULL), 0);
    assert_int_equal(own.ops->open(own.ctx, "f", DISK_CREATE, &f), 0);
    assert_int_equal(own.ops->pwrite(own.ctx, f, 0, "x", 1, &n), 0);
    own.ops->close(own.ctx, f);
    assert_int_equal(disk.ops->open(disk.ctx, "f", 0, &f), -EROFS);
    assert_int_equal(disk.ops->open(disk.ctx, "g", DISK_CREATE, &f), -EROFS);
    assert_int_equal(disk.ops->rename(disk.ctx, "f", "g"), -EROFS);
    assert_int_equal(disk.ops->unlink(disk.ctx, "f"), -EROFS);
    assert_int_equal(disk.ops->open(disk.ctx, "f", DISK_RDONLY, &f), 0);
    assert_int_equal(disk.ops->pread(disk.ctx, f, 0, &byte, 1, &n), 0);
    assert_int_equal(byte, 'x');
    assert_int_equal(disk.ops->pwrite(disk.ctx, f, 0, "y", 1, &n), -EBADF);
    disk.ops->close(disk.ctx, f);
    d = disk_posix_close(d);
    owner = disk_posix_close(owner);
    os_test_rmdir(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_operations), cmocka_unit_test(test_lock),
        cmocka_unit_test(test_refusals),   cmocka_unit_test(test_cloexec),
        cmocka_unit_test(test_space),      cmocka_unit_test(test_read_only),
    };

    return cmocka_run_group_tests_name("disk_posix", tests, NULL, NULL);
}
