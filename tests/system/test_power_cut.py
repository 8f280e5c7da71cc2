#!/usr/bin/python3
"""The power of a whole cluster is cut, again and again.

Goal: whatever instant it is, the three disks as they were then hold every job acknowledged before,
and three nodes started on them agree. Method: each node writes to an ext4 of its own, whose image
lies on one XFS; under load all nodes are frozen for a moment and the images are cloned (FICLONE),
which keeps what reached the disk and loses what was only in the page cache of the nodes' files.
Afterwards a cluster is started on each set of clones (reliability A2).
"""
import os
import pathlib
import random
import signal
import sys
import threading
import time
import types

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))

import mounts  # noqa: E402

mounts.own_namespace()

import grpc  # noqa: E402

import checks  # noqa: E402
import rpc  # noqa: E402
from cluster import Cluster, temporary_directory  # noqa: E402

CUTS = 8
FLAGS = ["--wal.segment_bytes", "1MiB", "--cluster.raft.snapshot_interval", "1s",
         "--cluster.raft.snapshot_threshold", "50", "--storage.reserve_bytes", "1MiB",
         "--cluster.raft.log_bytes_kept", "1MiB", "--cluster.raft.log_bytes_max", "4MiB"]
SEED = int(os.environ.get("SEED", random.randrange(1 << 30)))


class Disks:
    def __init__(self):
        self.directory = temporary_directory()
        image = self.directory + "/xfs.image"
        mounts.formatted(image, 2048, "mkfs.xfs", "-m", "reflink=1")
        self.xfs = self.directory + "/xfs"
        mounts.loop(image, self.xfs)

    def image(self, number, cut=None):
        return f"{self.xfs}/disk{number}" + (f".cut{cut}" if cut is not None else "")

    def make(self, node):
        mounts.formatted(self.image(node.id), 96, "mkfs.ext4", "-F", "-J", "size=4")
        mounts.loop(self.image(node.id), node.data_dir)

    def clone(self, number, cut):
        mounts.clone(self.image(number), self.image(number, cut))


class Load:
    def __init__(self, cluster, threads=8):
        self.acknowledged = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(cluster, i))
                         for i in range(threads)]
        for t in self._threads:
            t.start()

    def _run(self, cluster, i):
        client = rpc.Client(cluster.nodes[i % 3].address)
        rng = random.Random(f"{SEED} {i}")
        while not self._stop.is_set():
            try:
                spec = rpc.noop(name="load", env={"P": rng.randbytes(rng.choice((10, 2000))).hex()})
                self.acknowledged.append(client.submit(spec, timeout=5).job_id)
            except grpc.RpcError:
                pass
        client.close()

    def end(self):
        self._stop.set()
        for t in self._threads:
            t.join()


def cut(cluster, disks, load, number):
    """Clones of one instant; the jobs acknowledged before it."""
    for n in cluster.nodes:
        n.freeze()
    before = list(load.acknowledged)  # a frozen node acknowledges nothing
    for n in cluster.nodes:
        disks.clone(n.id, number)
    for n in cluster.nodes:
        n.thaw()
    return before


def after_the_cut(c, cluster, disks, number, acknowledged):
    for n in cluster.nodes:
        mounts.loop(disks.image(n.id, number), n.data_dir)
        n.start()
    up = cluster.wait_ready(15)
    c.check(f"cut {number}: the cluster comes back", up, "\n".join(
        n.log()[-400:] for n in cluster.nodes))
    if up:
        # Linearizable: the log's tail counts only once a leader of the new term has committed.
        have = {j.id for j in cluster.leader().client.list(timeout=30)}
        lost = len(set(acknowledged) - have)
        c.check(f"cut {number}: all {len(acknowledged)} acknowledged jobs are there", lost == 0,
                lost)
        same, text = cluster.digests_equal()
        c.check(f"cut {number}: equal digests", same, text)
    for n in cluster.nodes:
        if n.running():
            n.kill(signal.SIGKILL)
        n.forget_client()
        c.require(f"cut {number}: disk {n.id} is released",
                  checks.wait_for(lambda n=n: mounts.unmount(n.data_dir), 5, 0.2))


def test_cuts_lose_what_is_not_synced(c):
    """Or the rest would hold without meaning anything."""
    disks = Disks()
    place = disks.directory + "/node"
    node = types.SimpleNamespace(id=9, data_dir=place)
    disks.make(node)
    with open(place + "/synced", "wb") as f:
        f.write(b"x" * 5000)
        f.flush()
        os.fsync(f.fileno())
    pathlib.Path(place, "unsynced").write_bytes(b"x" * 5000)
    disks.clone(9, 0)
    mounts.unmount(place)
    mounts.loop(disks.image(9, 0), place)
    c.equal("of two files the synced one is there after a cut",
            [n for n in sorted(os.listdir(place)) if "synced" in n], ["synced"])
    mounts.unmount(place)
    mounts.unmount(disks.xfs)


def test_power_cuts(c):
    print(f"#       seed {SEED}")
    disks = Disks()
    cluster = Cluster(3, flags=FLAGS, start=False, workers=False)
    for n in cluster.nodes:
        disks.make(n)
    cluster.start()
    load = Load(cluster)
    rng = random.Random(SEED)
    sets = []
    try:
        for number in range(CUTS):
            pause = time.monotonic() + rng.uniform(0.1, 1.2)
            checks.wait_for(lambda until=pause: time.monotonic() >= until, 5, 0.001)
            sets.append(cut(cluster, disks, load, number))
    finally:
        load.end()
    for n in cluster.nodes:
        n.kill(signal.SIGKILL)
        n.forget_client()
        c.require(f"disk {n.id} is released",
                  checks.wait_for(lambda n=n: mounts.unmount(n.data_dir), 5, 0.2))
    c.check("each cut had new jobs before it", all(
        len(a) < len(b) for a, b in zip(sets, sets[1:])), [len(s) for s in sets])
    for number, acknowledged in enumerate(sets):
        after_the_cut(c, cluster, disks, number, acknowledged)
    mounts.unmount(disks.xfs)


if __name__ == "__main__":
    checks.run(test_cuts_lose_what_is_not_synced, test_power_cuts)
