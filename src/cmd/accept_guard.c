/* accept4() with a bound. See accept_guard.h.
 *
 * Counting without being told of the end: a connection is known by its descriptor and its inode.
 * The kernel gives the lowest free descriptor, so a slot that is used again was a connection that
 * ended; the rest of those that ended are found by looking at all when the bound is reached. */
#include "cmd/accept_guard.h"

#include "os/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* What a node itself may have open at a time: 128 tables of the state store and what it writes,
 * about 60 connections of peers and strangers there, files of the log, handles of the libraries. */
#define FILES_OWN 224U
#define CONNECTIONS_MIN 32U
#define SWEEP_NS (100 * NS_PER_MS)
#define LOG_NS NS_PER_S

struct accept_guard {
    struct accept_guard_options o;
    pthread_mutex_t lock;
    ino_t *inodes; /* by descriptor; 0 = none of ours */
    size_t slots;
    size_t open; /* at most so many are open */
    size_t top;  /* slots above are 0 */
    int spare;   /* given up for a moment when no descriptor is left; -1 = lost */
    uint64_t turned_away;
    struct mono swept_at, logged_at;
};

static struct accept_guard guard = {.lock = PTHREAD_MUTEX_INITIALIZER, .spare = -1};

static int system_accept(int fd, struct sockaddr *addr, socklen_t *len, int flags) {
    return (int) syscall(SYS_accept4, fd, addr, len, flags);
}

static bool is_guarded(int fd) {
    struct sockaddr_storage a = {0};
    socklen_t len = sizeof(a);

    if (guard.o.port == 0 || getsockname(fd, (struct sockaddr *) &a, &len) < 0)
        return false;
    if (a.ss_family == AF_INET)
        return ntohs(((struct sockaddr_in *) &a)->sin_port) == guard.o.port;
    return a.ss_family == AF_INET6 &&
           ntohs(((struct sockaddr_in6 *) &a)->sin6_port) == guard.o.port;
}

static ino_t inode_of(int fd) {
    struct stat st;

    return fstat(fd, &st) == 0 ? st.st_ino : 0;
}

/* Forget the connections that ended. */
static void sweep(void) {
    size_t top = 0;

    for (size_t i = 0; i < guard.top; i++) {
        if (guard.inodes[i] == 0)
            continue;
        if (inode_of((int) i) == guard.inodes[i]) {
            top = i + 1;
            continue;
        }
        guard.inodes[i] = 0;
        guard.open--;
    }
    guard.top = top;
}

/* Count it, or say that there is no room. */
static bool admit(int fd) {
    size_t slot = (size_t) fd;
    bool again;

    if (slot >= guard.slots)
        return false;
    again = guard.inodes[slot] != 0; /* what had this descriptor has ended */
    if (!again && guard.open >= guard.o.connections_max &&
        mono_diff_ns(clock_mono(), guard.swept_at) >= SWEEP_NS) {
        guard.swept_at = clock_mono();
        sweep();
    }
    if (!again && guard.open >= guard.o.connections_max)
        return false;
    guard.open += !again;
    guard.inodes[slot] = inode_of(fd);
    guard.top = MAX(guard.top, slot + 1);
    return true;
}

/* Without a word: to a client of gRPC every answer that is good HTTP/2 means that the connection
 * was made, and it comes again at once, thousands of times a second; on anything else it fails with
 * UNAVAILABLE and waits longer each time. Why is in the log. */
static void turn_away(int fd) {
    (void) close(fd);
    guard.turned_away++;
}

static void log_turned_away(void) {
    struct mono now = clock_mono();

    if (guard.turned_away == 0 || mono_diff_ns(now, guard.logged_at) < LOG_NS)
        return;
    log_warn(guard.o.log, "too many client connections, closed new ones",
             "closed=%llu open=%zu limits.connections=%u", (unsigned long long) guard.turned_away,
             guard.open, guard.o.connections_max);
    guard.turned_away = 0;
    guard.logged_at = now;
}

/* No descriptor is left. With the spare one the waiting client gets its answer; left alone, it
 * would wait for ever. */
static bool turn_away_with_spare(int listener) {
    int fd;

    if (guard.spare >= 0)
        (void) close(guard.spare);
    fd = system_accept(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0)
        turn_away(fd);
    guard.spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
    return fd >= 0;
}

/* Only EAGAIN makes gRPC wait for the next connection; what it does with anything else is to stop
 * listening. */
static int accept_guarded(int fd, struct sockaddr *addr, socklen_t *len, int flags) {
    const socklen_t room = len ? *len : 0;

    for (;;) {
        int got;

        if (len)
            *len = room;
        got = system_accept(fd, addr, len, flags);
        if (got >= 0) {
            if (admit(got))
                return got;
            turn_away(got);
            continue;
        }
        if (errno == EBADF || errno == EINVAL || errno == ENOTSOCK || errno == EFAULT)
            return -1; /* closed: the server stops */
        if ((errno == EMFILE || errno == ENFILE) && turn_away_with_spare(fd))
            continue;
        /* The network's errors belong to the connection that is gone (accept(2)). */
        if (errno == ECONNABORTED || errno == EPROTO || errno == EPERM || errno == EINTR ||
            errno == ENETDOWN || errno == ENOPROTOOPT || errno == EHOSTDOWN || errno == ENONET ||
            errno == EHOSTUNREACH || errno == EOPNOTSUPP || errno == ENETUNREACH)
            continue;
        errno = EAGAIN;
        return -1;
    }
}

/* Instead of the C library's. */
int accept4(int fd, __SOCKADDR_ARG addr, socklen_t *restrict addr_len, int flags) {
    int got, why;

    if (!is_guarded(fd))
        return system_accept(fd, addr.__sockaddr__, addr_len, flags);
    (void) pthread_mutex_lock(&guard.lock);
    got = accept_guarded(fd, addr.__sockaddr__, addr_len, flags);
    why = errno;
    log_turned_away();
    (void) pthread_mutex_unlock(&guard.lock);
    errno = why;
    return got;
}

int accept_guard_start(const struct accept_guard_options *o) {
    struct rlimit files;

    ASSERT(o && o->port > 0 && o->connections_max > 0 && o->log);
    ASSERT(!guard.inodes);
    if (getrlimit(RLIMIT_NOFILE, &files) < 0)
        return -errno;
    guard.slots = (size_t) MIN(files.rlim_cur, (rlim_t) 1 << 20);
    guard.inodes = (ino_t *) calloc(guard.slots, sizeof(*guard.inodes));
    if (!guard.inodes)
        return -ENOMEM;
    guard.spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (guard.spare < 0)
        return -errno;
    guard.o = *o;
    return 0;
}

int accept_guard_raise_files(uint32_t connections, uint32_t *ret_connections,
                             struct errtext *reterr) {
    const rlim_t want = (rlim_t) connections + FILES_OWN;
    struct rlimit files;

    if (getrlimit(RLIMIT_NOFILE, &files) < 0)
        return -errno;
    if (files.rlim_cur < want && files.rlim_cur < files.rlim_max) {
        files.rlim_cur = MIN(want, files.rlim_max);
        (void) setrlimit(RLIMIT_NOFILE, &files); /* what then counts is read again */
        if (getrlimit(RLIMIT_NOFILE, &files) < 0)
            return -errno;
    }
    if (files.rlim_cur < FILES_OWN + CONNECTIONS_MIN) {
        errtext_set(reterr,
                    "at most %llu open files are allowed; a node needs %u, of which %u are for "
                    "clients (ulimit -n, LimitNOFILE of systemd)",
                    (unsigned long long) files.rlim_cur, FILES_OWN + CONNECTIONS_MIN,
                    CONNECTIONS_MIN);
        return ERR_LIMIT;
    }
    *ret_connections = (uint32_t) MIN((rlim_t) connections, files.rlim_cur - FILES_OWN);
    return 0;
}
