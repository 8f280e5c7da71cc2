"""Namespaces of a run's own: mounts, processes and networks that end with it, however it ends.

Each run is a process below unshare(1), the first one of its process namespace: when it ends, be it
by SIGKILL of the run or of what started it, all nodes and jobs end, and with them their network
namespaces, mounts and loop devices. Files are below one directory that the starter removes.
"""
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile

PROGRAMS = ("unshare", "nsenter", "ip", "iptables", "iptables-restore", "mount", "mkfs.ext4",
            "mkfs.xfs", "e2fsck", "protoc", "cc")
_PR_SET_PDEATHSIG = 1


def missing():
    """What this machine lacks for any run, in words; empty: nothing."""
    names = [name for name in PROGRAMS if not shutil.which(name)]
    if names:
        return f"these programs are missing: {', '.join(names)} (tools/packages.sh)"
    if os.geteuid() != 0:
        return "faults of the network and of disks need root"
    p = subprocess.run(["unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", "true"],
                       capture_output=True, text=True, check=False)
    return p.stderr.strip()


def run(argv, seconds):
    """Run a script inside of its own namespaces: its exit code, -9 when it took too long."""
    directory = tempfile.mkdtemp(prefix="chronos-chaos-")
    env = dict(os.environ, TMPDIR=directory, CHRONOS_TEST_MOUNTS="yes")  # lib/mounts.py: made here
    libc = ctypes.CDLL(None)
    try:
        with subprocess.Popen(["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child",
                               "--mount-proc", sys.executable, *argv], env=env,
                              stdin=subprocess.DEVNULL, preexec_fn=lambda: libc.prctl(
                                  _PR_SET_PDEATHSIG, signal.SIGKILL)) as p:
            try:
                return p.wait(timeout=seconds)
            except BaseException as e:
                p.kill()
                if isinstance(e, subprocess.TimeoutExpired):
                    return -9
                raise
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def enter():
    """Inside: names of network namespaces are this run's own."""
    command("mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", "/run")
    os.makedirs("/run/netns")


def command(*argv, stdin=None):
    """Must succeed; an error says what the program said."""
    p = subprocess.run(argv, input=stdin, text=True, capture_output=True, check=False)
    if p.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)}: {p.stderr.strip() or p.returncode}")
    return p.stdout
