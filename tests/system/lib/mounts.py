"""File systems of a test's own, in a mount namespace that ends with it.

Call own_namespace() first of all: it starts the script once more below unshare(1), so that nothing
that is mounted is seen outside or stays.
"""
import fcntl
import os
import subprocess
import sys

_MARK = "CHRONOS_TEST_MOUNTS"
_FICLONE = 0x40049409  # of linux/fs.h


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


def formatted(image, mebibytes, *mkfs):
    """A new sparse file with a file system in it, made by such a command."""
    with open(image, "wb") as f:
        f.truncate(mebibytes << 20)
    subprocess.run([*mkfs, "-q", image], check=True, stdout=subprocess.DEVNULL)


def unmount(path):
    """True when it went: nothing below may be open."""
    return subprocess.run(["umount", path], check=False).returncode == 0


def free_bytes(path):
    s = os.statvfs(path)
    return s.f_bavail * s.f_frsize


def fill(directory, leave_bytes):
    """A stranger's file there, growing until so much of the file system is left."""
    with open(f"{directory}/stranger", "ab", buffering=0) as f:
        try:
            while (left := free_bytes(directory)) > leave_bytes:
                f.write(bytes(min(65536, max(4096, left - leave_bytes))))
        except OSError:
            pass  # to the last byte


def clone(path, copy):
    """A second file with the same blocks, as they are at this moment: XFS, below one mount."""
    with open(path, "rb") as source, open(copy, "wb") as target:
        fcntl.ioctl(target.fileno(), _FICLONE, source.fileno())
