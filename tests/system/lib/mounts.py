"""File systems of a test's own, in a mount namespace that ends with it.

Call own_namespace() first of all: it starts the script once more below unshare(1), so that nothing
that is mounted is seen outside or stays.
"""
import os
import subprocess
import sys

_MARK = "CHRONOS_TEST_MOUNTS"


def own_namespace():
    if os.environ.get(_MARK) == "yes":
        return
    os.environ[_MARK] = "yes"
    more = [] if os.geteuid() == 0 else ["--map-root-user"]
    os.execvp("unshare", ["unshare", "--mount", *more, sys.executable, *sys.argv])


def tmpfs(path, mebibytes):
    os.makedirs(path, mode=0o700, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m,mode=0700", "tmpfs", path],
                   check=True)


def resize(path, mebibytes):
    subprocess.run(["mount", "-o", f"remount,size={mebibytes}m", path], check=True)


def loop(image, path, options="loop"):
    os.makedirs(path, mode=0o700, exist_ok=True)
    subprocess.run(["mount", "-o", options, image, path], check=True)


def unmount(path):
    """True when it went: nothing below may be open."""
    return subprocess.run(["umount", path], check=False).returncode == 0


def free_bytes(path):
    s = os.statvfs(path)
    return s.f_bavail * s.f_frsize
