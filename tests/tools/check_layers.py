#!/usr/bin/env python3
"""Includes point only down, and the pure folders have no effects.

Method: read every #include "folder/..." of src/ and compare levels; search the sources of the pure
folders for tokens of clock, random, socket, file and thread functions; then look at the undefined
symbols of their built libraries, which no macro can hide.
Usage: check_layers.py [BUILD_DIR]   (without a build the symbols cannot be checked: an error)
"""
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LEVELS = {
    "base": 0, "proto": 0,
    "raft": 1, "storage": 1, "os": 1,
    "fsm": 2,
    "sched": 3,
    "node": 4,
    "api": 5, "worker": 5, "sim": 5, "cli": 5, "bench": 5,
    "cmd": 6,
}
PURE = ("raft", "fsm", "sched")
# The simulator must be able to run all of these over its fakes.
NO_OS = ("base", "raft", "storage", "fsm", "sched", "node", "sim")

# Written by the build, into no folder.
GENERATED = {"proto_descriptors.h"}

EFFECTS = {
    # clock
    "time", "clock_gettime", "clock", "gettimeofday", "timespec_get", "localtime", "localtime_r",
    "gmtime", "mktime", "uv_hrtime", "uv_now",
    # random
    "rand", "random", "srand", "srandom", "rand_r", "drand48", "getrandom", "getentropy",
    "arc4random",
    # sockets
    "socket", "connect", "bind", "listen", "accept", "send", "recv", "sendto", "recvfrom",
    "sendmsg", "recvmsg", "getaddrinfo", "poll", "select", "epoll_wait",
    # files and processes
    "open", "openat", "creat", "fopen", "fdopen", "read", "write", "pread", "pwrite", "close",
    "fsync", "fdatasync", "rename", "unlink", "mkdir", "stat", "fstat", "mmap", "printf", "fprintf",
    "puts", "fputs", "fwrite", "fread", "getenv", "setenv", "fork", "execve", "system", "popen",
    "kill", "signal", "sigaction", "exit", "_exit",
    # threads
    "pthread_create", "pthread_mutex_lock", "pthread_mutex_unlock", "pthread_cond_wait",
    "thrd_create", "sem_wait", "sem_post", "usleep", "nanosleep", "sleep",
}
EFFECT_PREFIXES = ("uv_", "grpc_", "rocksdb_", "pthread_", "SSL_", "curl_")


def strip(text):
    """Blank comments and string literals, keeping line numbers."""
    def blank(match):
        return re.sub(r"[^\n]", " ", match.group(0))
    return re.sub(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', blank, text,
                  flags=re.S)


def sources(folder):
    top = os.path.join(ROOT, "src", folder)
    for dirpath, _, names in sorted(os.walk(top)):
        for name in sorted(names):
            if name.endswith((".c", ".h")):
                yield os.path.join(dirpath, name)


def check_includes(problems):
    seen = 0
    for folder in sorted(os.listdir(os.path.join(ROOT, "src"))):
        if not os.path.isdir(os.path.join(ROOT, "src", folder)):
            continue
        if folder not in LEVELS:
            problems.append("src/%s: a folder without a level; give it one in check_layers.py" % folder)
            continue
        for path in sources(folder):
            for number, line in enumerate(open(path, encoding="utf-8"), 1):
                match = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
                if not match:
                    continue
                seen += 1
                where = "%s:%d" % (os.path.relpath(path, ROOT), number)
                target = match.group(1).split("/")[0]
                if match.group(1) in GENERATED:
                    continue
                if "/" not in match.group(1) or ".." in match.group(1):
                    problems.append("%s: includes name their folder: \"folder/file.h\"" % where)
                elif target in ("chronos", "grpc"):  # generated from proto/
                    continue
                elif target not in LEVELS:
                    problems.append("%s: unknown folder %s" % (where, target))
                elif target != folder and LEVELS[target] >= LEVELS[folder]:
                    problems.append("%s: %s (level %d) includes %s (level %d)" %
                                    (where, folder, LEVELS[folder], target, LEVELS[target]))
                elif target == "os" and folder in NO_OS:
                    problems.append("%s: %s must not know os/" % (where, folder))
    return seen


def check_tokens(problems):
    seen = 0
    call = re.compile(r"(?<![\w.>])([A-Za-z_]\w*)\s*\(")
    for folder in PURE:
        for path in sources(folder):
            seen += 1
            for number, line in enumerate(strip(open(path, encoding="utf-8").read()).split("\n"), 1):
                for match in call.finditer(line):
                    name = match.group(1)
                    if name in EFFECTS or name.startswith(EFFECT_PREFIXES):
                        problems.append("%s:%d: calls %s; %s/ is pure" %
                                        (os.path.relpath(path, ROOT), number, name, folder))
    return seen


def check_symbols(build, problems):
    seen = 0
    for folder in PURE:
        library = os.path.join(build, "src", "libchronos_%s.a" % folder)
        if not os.path.exists(library):
            problems.append("%s is not built: its symbols cannot be checked" % library)
            continue
        out = subprocess.run(["nm", "-u", library], capture_output=True, text=True, check=True).stdout
        for line in out.split("\n"):
            parts = line.split()
            if len(parts) != 2 or parts[0] != "U":
                continue
            seen += 1
            name = parts[1].split("@")[0]
            base = re.sub(r"^__(\w+)_chk$", r"\1", name)
            if base in EFFECTS or base.startswith(EFFECT_PREFIXES):
                problems.append("%s needs %s; %s/ is pure" % (os.path.relpath(library, ROOT), name,
                                                            folder))
    return seen


def check_duplicates(build, problems):
    """Every library ends up in one program: a public name may be defined once."""
    owners = {}
    for folder in sorted(LEVELS):
        library = os.path.join(build, "src", "libchronos_%s.a" % folder)
        if not os.path.exists(library):
            continue
        out = subprocess.run(["nm", "-g", "--defined-only", library], capture_output=True, text=True,
                             check=True).stdout
        for line in out.split("\n"):
            parts = line.split()
            if len(parts) != 3 or parts[2].startswith("__odr_asan"):
                continue
            if parts[2] in owners:
                problems.append("%s is defined in %s/ and in %s/" % (parts[2], owners[parts[2]],
                                                                  folder))
            owners[parts[2]] = folder


def main():
    build = sys.argv[1] if len(sys.argv) > 1 else os.path.join(ROOT, "build", "release")
    problems = []
    includes = check_includes(problems)
    files = check_tokens(problems)
    symbols = check_symbols(build, problems)
    check_duplicates(build, problems)
    for problem in problems:
        print(problem)
    if includes < 10 or files < 3:
        print("only %d includes and %d pure files seen: this check looks at nothing" %
              (includes, files))
        return 1
    print("%d includes, %d pure files, %d symbols: %d problems" %
          (includes, files, symbols, len(problems)))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
