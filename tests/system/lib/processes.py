"""Processes that a test starts, and everything they leave behind.

The test makes itself the reaper of its descendants' orphans, so whatever a killed server or worker
leaves is still below it and is ended, by id, when the script ends, whichever way it ends.
"""
import atexit
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time

PR_SET_CHILD_SUBREAPER = 36

_own = {}  # pid -> Popen: these are waited for by their owner, not by the reaper
_lock = threading.Lock()


def stat(pid):
    """(parent, state, start time, clock ticks used, session) or None when there is no such one."""
    try:
        with open(f"/proc/{pid}/stat", encoding="latin-1") as f:
            fields = f.read().rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return None
    return {"parent": int(fields[1]), "state": fields[0], "start": int(fields[19]),
            "ticks": int(fields[11]) + int(fields[12]), "session": int(fields[3])}


def alive(pid):
    s = stat(pid)
    return s is not None and s["state"] not in "ZX"


def command_line(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as f:
            return f.read().replace(b"\0", b" ").decode("utf-8", "replace").strip()
    except OSError:
        return ""


def rss_kib(pid):
    try:
        with open(f"/proc/{pid}/status", encoding="latin-1") as f:
            for line in f:
                if line.startswith("VmRSS:"):
                    return int(line.split()[1])
    except OSError:
        pass
    return 0


def cpu_seconds(pid):
    s = stat(pid)
    return s["ticks"] / os.sysconf("SC_CLK_TCK") if s else 0.0


def descendants(root):
    """Ids of everything below root, zombies included."""
    children = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            s = stat(name)
            if s:
                children.setdefault(s["parent"], []).append(int(name))
    out, todo = [], [root]
    while todo:
        for pid in children.get(todo.pop(), []):
            out.append(pid)
            todo.append(pid)
    return out


def with_environment(text):
    """Ids of living processes below this one whose environment contains the text."""
    found = []
    for pid in descendants(os.getpid()):
        try:
            with open(f"/proc/{pid}/environ", "rb") as f:
                if text.encode() in f.read() and alive(pid):
                    found.append(pid)
        except OSError:
            pass
    return found


def _reap():
    while True:
        time.sleep(0.05)
        for pid in descendants(os.getpid()):
            s = stat(pid)
            with _lock:
                if not s or s["state"] != "Z" or s["parent"] != os.getpid() or pid in _own:
                    continue
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                pass


def start(argv, **options):
    """A process in a session of its own; standard input is empty unless given."""
    options.setdefault("stdin", subprocess.DEVNULL)
    with _lock:  # the reaper must not see a child before it is known here
        p = subprocess.Popen(argv, start_new_session=True, **options)
        _own[p.pid] = p
    return p


def run(argv, seconds=30, stdin=None, **options):
    """Run to the end. Returns (exit code, stdout, stderr) as text; -99 when it took too long."""
    p = start(argv, stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
              stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
    try:
        out, err = p.communicate(stdin, timeout=seconds)
        code = p.returncode
    except subprocess.TimeoutExpired:
        p.kill()
        out, err = p.communicate()
        code = -99
    return code, out.decode("utf-8", "replace"), err.decode("utf-8", "replace")


def signal_pid(pid, number):
    try:
        os.kill(pid, number)
        return True
    except ProcessLookupError:
        return False


def end_all():
    """SIGKILL to everything below this process, until nothing is left."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        left = [p for p in descendants(os.getpid()) if alive(p)]
        if not left:
            break
        for pid in left:
            signal_pid(pid, signal.SIGCONT)
            signal_pid(pid, signal.SIGKILL)
        time.sleep(0.02)
    for p in list(_own.values()):
        p.poll()


def _on_signal(number, _frame):
    sys.exit(128 + number)


ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
atexit.register(end_all)
for _number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
    signal.signal(_number, _on_signal)
threading.Thread(target=_reap, daemon=True).start()
