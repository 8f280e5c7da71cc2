"""File systems below the nodes' data directories, and what can happen to them (lib/mounts.py)."""
import os
import pathlib
import subprocess
import sys

import grpc

import mounts
from checks import Abort, wait_for

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "system"))
from test_slow_disk import build_shim  # noqa: E402  pylint: disable=wrong-import-position


def slow(cluster):
    """Syncs that set_delay() slows."""
    cluster.slow_library = build_shim(cluster.directory)
    for n in cluster.nodes:
        cluster.set_delay(n, 0)


def release(node):
    if os.path.ismount(node.data_dir) and not wait_for(
            lambda: mounts.unmount(node.data_dir), 5, 0.1):
        raise Abort(f"the disk of node {node.id} is still in use")


class Lying:
    """An ext4 that shows free space while the tmpfs below it is about to be full: the kernel takes
    writes, fails the sync with EIO and lets a second try succeed."""

    def __init__(self, node):
        self.node = node
        self.below = f"{node.cluster.directory}/below"
        mounts.tmpfs(self.below, 40)
        self.image = self.below + "/image"
        mounts.formatted(self.image, 512, "mkfs.ext4", "-F", "-J", "size=4",
                         "-E", "nodiscard,lazy_itable_init=1,lazy_journal_init=1")
        mounts.loop(self.image, node.data_dir, "loop,errors=continue")

    def repair(self):
        mounts.resize(self.below, 600)
        release(self.node)
        code = subprocess.run(["e2fsck", "-fy", self.image], check=False,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode
        if code > 1:
            raise Abort(f"the file system is not repaired: {code}")
        mounts.loop(self.image, self.node.data_dir)

    def end(self):
        release(self.node)
        mounts.unmount(self.below)


class Cuttable:
    """Each node's ext4 is an image on one XFS; a clone of an image is what a power cut leaves."""

    def __init__(self, cluster):
        self.cluster = cluster
        image = cluster.directory + "/xfs.image"
        mounts.formatted(image, 4096, "mkfs.xfs", "-m", "reflink=1")
        self.xfs = cluster.directory + "/xfs"
        mounts.loop(image, self.xfs)
        self.cuts = 0
        for n in cluster.nodes:
            mounts.formatted(self._image(n), 128, "mkfs.ext4", "-F", "-J", "size=4")
            mounts.loop(self._image(n), n.data_dir)

    def _image(self, node, cut=None):
        return f"{self.xfs}/disk{node.id}.{self.cuts if cut is None else cut}"

    def clone_all(self):
        self.cuts += 1
        for n in self.cluster.nodes:
            mounts.clone(self._image(n, self.cuts - 1), self._image(n))

    def swap(self, _world):
        """The nodes' directories are those of the last clones."""
        for n in self.cluster.nodes:
            release(n)
            mounts.loop(self._image(n), n.data_dir)
            os.unlink(self._image(n, self.cuts - 1))

    def end(self):
        for n in self.cluster.nodes:
            release(n)
        wait_for(lambda: mounts.unmount(self.xfs), 5, 0.1)
        os.unlink(self.cluster.directory + "/xfs.image")


def _files(directory, where):
    return sorted(str(p) for p in pathlib.Path(directory).rglob("*") if p.is_file() and
                  p.stat().st_size and {
                      "wal": p.name.startswith("wal-"), "meta": p.name == "meta",
                      "state": "state" in p.parts and p.suffix in (".sst", ".log")}[where])


def read_state(w, node):
    """All that the node's state has of jobs is read: it answers, or ends for its damage."""
    try:
        node.client.list(consistency=1, timeout=20)
    except grpc.RpcError as e:
        w.check(node.wait(5) is not None,
                f"node {node.id} does not give its jobs, and goes on: {e.code().name}")


def copies(directory, what):
    """{path: bytes} of the files that spoil() may choose."""
    return {path: pathlib.Path(path).read_bytes() for path in _files(directory, what.split()[1])}


def spoil(directory, what, rng, old):
    """Damage one file of a stopped node: (path, its bytes before), or None when there is none.

    what: "flip" some bits, "cut" its end off or put an "old" copy back; of "wal", "meta" or "state"
    """
    kind, where = what.split()
    files = [p for p in _files(directory, where) if kind != "old" or
             (p in old and old[p] != pathlib.Path(p).read_bytes())]
    if not files:
        return None
    path = rng.choice(files)
    before = pathlib.Path(path).read_bytes()
    used = len(before.rstrip(b"\0"))
    data = bytearray(before)
    if kind == "flip":
        for _ in range(rng.choice((1, 1, 8))):
            data[rng.randrange(max(1, used))] ^= 1 << rng.randrange(8)
    elif kind == "cut":
        del data[rng.randrange(max(1, used)):]
    else:
        data = old[path]
    pathlib.Path(path).write_bytes(data)
    return path, before
