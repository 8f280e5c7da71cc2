#!/usr/bin/python3
"""Disks that fill up (reliability W5).

Goal: before a node's disk is full it refuses new jobs with RESOURCE_EXHAUSTED and says why, and
still answers reads, takes cancels and completes what runs; it goes on by itself within 10 s of
there being room, without anybody touching its files; no acknowledged job is lost, even when the
disk had not one byte left. Method: each node's directory is a tmpfs of its own; a stranger's file
fills that of the leader, of a follower or of all nodes, to below the reserve or to the last byte,
while jobs come in and, in one of two worlds, a snapshot is made every second. A node that ends with
exit code 1 is started again a second later, as a service manager does.
"""
import os
import pathlib
import random
import subprocess
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))

import mounts  # noqa: E402

mounts.own_namespace()

import grpc  # noqa: E402

import checks  # noqa: E402
import processes  # noqa: E402
import rpc  # noqa: E402
from cluster import Cluster  # noqa: E402

DISK_MIB = 64
RESERVE_MIB = 8
HEALED_S = 10
COMMON = ["--wal.segment_bytes", "1MiB", "--storage.reserve_bytes", f"{RESERVE_MIB}MiB",
          "--cluster.raft.log_bytes_kept", "1MiB"]
APPENDING = ["--cluster.raft.snapshot_interval", "1h", "--cluster.raft.log_bytes_max", "24MiB"]
SNAPSHOTS = ["--cluster.raft.snapshot_interval", "1s", "--cluster.raft.snapshot_threshold", "50",
             "--cluster.raft.log_bytes_max", "4MiB"]
SEED = int(os.environ.get("SEED", random.randrange(1 << 30)))


class World:
    """A cluster on small disks, a load, and a service manager."""

    def __init__(self, flags):
        self.cluster = Cluster(3, flags=COMMON + flags, start=False)
        for n in self.cluster.nodes:
            mounts.tmpfs(n.data_dir, DISK_MIB)
        self.cluster.start()
        self.acknowledged = []
        self.refused = {n.id: "" for n in self.cluster.nodes}
        self.alarmed = {n.id: "" for n in self.cluster.nodes}
        self.unclear = 0
        self.restarts = 0
        self.exit_codes = set()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=t) for t in (self._load, self._tend, self._watch)]
        for t in self._threads:
            t.start()

    def _load(self):
        clients = {n.id: rpc.Client(n.address) for n in self.cluster.nodes}
        while not self._stop.is_set():
            for n in self.cluster.nodes:
                spec = rpc.noop(name="load", env={"PAYLOAD": "x" * 20000})
                try:
                    self.acknowledged.append(clients[n.id].submit(spec, timeout=3).job_id)
                except grpc.RpcError as e:
                    if e.code() == grpc.StatusCode.RESOURCE_EXHAUSTED:
                        self.refused[n.id] = e.details()
                    else:
                        self.unclear += 1
                self._stop.wait(0.02)
        for c in clients.values():
            c.close()

    def _watch(self):
        """A node that gives back log when it is short of room may have enough a second later."""
        clients = {n.id: rpc.Client(n.address) for n in self.cluster.nodes}
        while not self._stop.wait(0.1):
            for i, client in clients.items():
                try:
                    for a in client.status(local=True, timeout=1).alarms:
                        if a.startswith(f"node {i}: disk_full") and "MiB free" in a:
                            self.alarmed[i] = a
                except grpc.RpcError:
                    pass
        for client in clients.values():
            client.close()

    def _tend(self):
        while not self._stop.wait(1):
            for n in self.cluster.nodes:
                if not n.running():
                    self.exit_codes.add(n.process.returncode)
                    self.restarts += 1
                    n.start()

    def end(self):
        self._stop.set()
        for t in self._threads:
            t.join()


def patient(call, seconds=10):
    """The answer of a call that may meet an election or a restart."""
    last = None
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            return call()
        except grpc.RpcError as e:
            last = e
        time.sleep(0.05)
    return f"{last.code().name}: {last.details()}" if last else None


def takes_jobs(node):
    try:
        return node.client.submit(rpc.noop(name="probe"), timeout=2).job_id
    except (grpc.RpcError, ValueError):
        node.forget_client()
        return ""


def alarms(cluster):
    leader = cluster.leader()
    status = leader.status(local=False) if leader else None
    return list(status.alarms) if status else []


def check_refusal(c, w, case, victims, leave_bytes):
    def refused():
        for n in victims:  # a node short of room gives back log: the stranger takes that, too
            if not w.refused[n.id]:
                mounts.fill(n.data_dir, leave_bytes)
        return all(w.refused[n.id] for n in victims)

    words = checks.wait_for(refused, 5)
    c.check(f"{case}: new jobs are refused within 5 s", words, w.refused)
    text = w.refused[victims[0].id]
    c.check(f"{case}: with words", "not submitted" in text and "disk" in text, text)
    for n in victims:
        seen = checks.wait_for(lambda n=n: w.alarmed[n.id], 5)
        c.check(f"{case}: node {n.id}'s alarm is in the status", seen, alarms(w.cluster))


def check_service(c, w, case, victim, running, gate):
    """What does not need new room goes on, also through the node without any."""
    ended = [j for j in w.acknowledged[:1]]
    got = patient(lambda: victim.client.get(ended[0]))
    c.check(f"{case}: a linearizable read", getattr(got, "id", None) == ended[0], got)
    got = patient(lambda: victim.client.cancel(running[0]))
    c.check(f"{case}: a cancel is taken", getattr(got, "id", None) == running[0], got)
    c.check(f"{case}: and ends the job", checks.wait_for(
        lambda: getattr(patient(lambda: victim.client.get(running[0])), "state", 0) ==
        rpc.CANCELLED, 10))
    pathlib.Path(gate).touch()
    for job in running[1:]:
        c.check(f"{case}: a running job completes", checks.wait_for(
            lambda job=job: getattr(patient(lambda: victim.client.get(job)), "state", 0) ==
            rpc.COMPLETED, 15), patient(lambda job=job: victim.client.get(job)))


def one_case(c, w, mode, who, leave_mib):
    cluster = w.cluster
    case = f"{mode}, {who}, {leave_mib} MiB left"
    gate = f"{cluster.directory}/gate-{mode}-{who}-{leave_mib}"
    leader = cluster.leader()
    victims = {"leader": [leader], "all": cluster.nodes,
               "follower": [n for n in cluster.nodes if n is not leader][:1]}[who]
    wait = rpc.shell(f"while ! [ -e {gate} ]; do sleep 0.05; done", name="waits")
    running = [leader.client.submit(wait).job_id for _ in range(4)]
    c.require(f"{case}: the jobs run", checks.wait_for(
        lambda: all(leader.client.get(j).state == rpc.RUNNING for j in running), 10))
    for n in cluster.nodes:
        w.refused[n.id] = w.alarmed[n.id] = ""
    for n in victims:
        mounts.fill(n.data_dir, leave_mib << 20)
    check_refusal(c, w, case, victims, leave_mib << 20)
    check_service(c, w, case, victims[0], running, gate)
    for n in victims:
        os.unlink(f"{n.data_dir}/stranger")
    begun = time.monotonic()
    for n in victims:
        c.check(f"{case}: node {n.id} takes jobs again within {HEALED_S} s",
                checks.wait_for(lambda n=n: takes_jobs(n), HEALED_S), n.log()[-600:])
    c.check(f"{case}: and has no alarm", checks.wait_for(
        lambda: not alarms(cluster), 10), alarms(cluster))
    print(f"#       {case}: healed in {time.monotonic() - begun:.1f} s, "
          f"{len(w.acknowledged)} acknowledged, {w.restarts} restarts so far")


def run_world(c, mode, flags):
    w = World(flags)
    cluster = w.cluster
    try:
        c.require(f"{mode}: under load", checks.wait_for(lambda: len(w.acknowledged) > 50, 10))
        cases = [(who, left) for who in ("leader", "follower", "all") for left in (3, 0)]
        random.Random(SEED).shuffle(cases)
        for who, left in cases:
            one_case(c, w, mode, who, left)
    finally:
        w.end()
    c.check(f"{mode}: a node that stopped said why with exit code 1", w.exit_codes <= {1},
            w.exit_codes)
    c.check(f"{mode}: all nodes run", checks.wait_for(
        lambda: len(cluster.live()) == 3 and cluster.wait_ready(1), 15))
    same, text = cluster.digests_equal(20)
    c.check(f"{mode}: equal digests", same, text)
    # The store of a node that had no byte left takes writes again some seconds later.
    begun = time.monotonic()
    have = patient(lambda: cluster.leader().client.list(consistency=1, timeout=30), HEALED_S)
    c.require(f"{mode}: jobs are listed within {HEALED_S} s", isinstance(have, list), have)
    print(f"#       {mode}: listed after {time.monotonic() - begun:.1f} s")
    lost = set(w.acknowledged) - {j.id for j in have}
    c.check(f"{mode}: all {len(w.acknowledged)} acknowledged jobs are there", not lost, len(lost))
    cluster.stop()


def test_while_appending(c):
    print(f"#       seed {SEED}")
    run_world(c, "append", APPENDING)


def test_while_snapshots_are_made(c):
    run_world(c, "snapshots", SNAPSHOTS)


def test_no_room_for_a_snapshot(c):
    """A follower that needs the whole state, and whose disk does not have the room for it."""
    cluster = Cluster(3, flags=COMMON + SNAPSHOTS, start=False, workers=False)
    for n in cluster.nodes:
        mounts.tmpfs(n.data_dir, DISK_MIB)
    cluster.start()
    leader = cluster.leader()
    behind = next(n for n in cluster.nodes if n is not leader)
    behind.kill()
    ids = set()
    for i in range(600):
        ids.add(leader.client.submit(rpc.noop(name=f"j{i}",
                                              env={"P": random.Random(SEED + i).randbytes(
                                                  8000).hex()})).job_id)
    last = behind.log().count("\n")
    c.require("the log no longer reaches back", checks.wait_for(
        lambda: leader.status().log_first_index > 200, 15), leader.status().log_first_index)
    mounts.fill(behind.data_dir, 5 << 20)
    behind.start()
    c.check("it says that the state has no room", checks.wait_for(
        lambda: "space" in "\n".join(behind.log().splitlines()[last:]), 20), behind.log()[-800:])
    c.check("the others go on", leader.client.submit(rpc.noop(name="x")).job_id)
    os.unlink(f"{behind.data_dir}/stranger")
    # What a service manager does, if it had to stop.
    begun = time.monotonic()
    if not behind.running():
        c.equal("it stopped with", behind.process.returncode, 1)
        behind.start()
    same, text = cluster.digests_equal(HEALED_S)
    c.check(f"with room it has the state {time.monotonic() - begun:.1f} s later, below "
            f"{HEALED_S} s", same, text + behind.log()[-800:])
    c.check("every job is there",
            ids <= {j.id for j in behind.client.list(consistency=1, timeout=30)})
    cluster.stop()


def test_no_room_for_the_log(c):
    """The others go on for so long that a full follower cannot even write the log any more."""
    w = World(SNAPSHOTS)
    cluster = w.cluster
    try:
        leader = cluster.leader()
        full = next(n for n in cluster.nodes if n is not leader)
        mounts.fill(full.data_dir, 0)
        c.require("the full node stops", checks.wait_for(lambda: w.restarts, 30))
        c.check("and names the segment that has no room",
                "no space for a log segment" in full.log(), full.log()[-600:])
        before = len(w.acknowledged)
        c.check("the others take jobs", checks.wait_for(lambda: len(w.acknowledged) > before + 50,
                                                        10), w.refused)
        os.unlink(f"{full.data_dir}/stranger")
        begun = time.monotonic()
        back = checks.wait_for(lambda: takes_jobs(full), HEALED_S)
        c.check(f"with room it is back in {time.monotonic() - begun:.1f} s", back,
                full.log()[-600:])
    finally:
        w.end()
    c.equal("it ended each time with", w.exit_codes, {1})
    same, text = cluster.digests_equal(HEALED_S)
    c.check("equal digests", same, text)
    have = {j.id for j in full.client.list(consistency=1, timeout=30)}
    c.check(f"all {len(w.acknowledged)} acknowledged jobs are there",
            set(w.acknowledged) <= have, len(set(w.acknowledged) - have))
    cluster.stop()


def lying_disk(directory, path):
    """An ext4 that shows free space while the tmpfs below it is about to be full: the kernel takes
    writes, fails the sync with EIO - and lets a second try succeed (reliability A1)."""
    below = directory + "/below"
    mounts.tmpfs(below, 40)
    image = below + "/image"
    with open(image, "wb") as f:
        f.truncate(512 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-E", "nodiscard,lazy_itable_init=1,"
                    "lazy_journal_init=1", "-J", "size=4", image], check=True)
    mounts.loop(image, path, "loop,errors=continue")
    return below


def test_failed_sync(c):
    """The kernel says EIO once: the node believes it, stops, and nothing acknowledged is lost."""
    cluster = Cluster(3, flags=["--wal.segment_bytes", "4MiB", "--storage.reserve_bytes", "1MiB",
                                "--cluster.raft.snapshot_interval", "1h"],
                      start=False, workers=False)
    bad = cluster.nodes[0]
    below = lying_disk(cluster.directory, bad.data_dir)
    cluster.start()
    if cluster.leader() is not bad:
        cluster.cli("cluster", "transfer-leader", "--to", str(bad.id))
    c.require("the node with the bad disk leads", checks.wait_for(
        lambda: cluster.leader() is bad, 10))
    acknowledged = set()
    payload = random.Random(SEED)
    until = time.monotonic() + 60
    while bad.running() and time.monotonic() < until:
        spec = rpc.noop(name="j", env={"PAYLOAD": payload.randbytes(50000).hex()})
        for n in cluster.live():
            try:
                acknowledged.add(n.client.submit(spec, timeout=3).job_id)
                break
            except grpc.RpcError:
                n.forget_client()
    c.require("the node stopped", checks.wait_for(lambda: not bad.running(), 5),
              mounts.free_bytes(below))
    c.equal("with exit code", bad.process.returncode, 1)
    last = [line for line in bad.log().splitlines() if "the node stops" in line][-1:]
    print(f"#       {len(acknowledged)} acknowledged; {last}")
    c.check("because a write or sync failed with EIO", last and "Input/output error" in last[0],
            bad.log()[-600:])
    c.check("the disk showed free space meanwhile", mounts.free_bytes(bad.data_dir) > 64 << 20)
    leader = cluster.leader(10, other_than=bad)
    c.require("another one leads", leader)
    have = {j.id for j in leader.client.list(consistency=1, timeout=30)}
    c.check("every acknowledged job is there", acknowledged <= have, len(acknowledged - have))
    c.check("and more are taken", takes_jobs(leader))
    # Room below, and a boot: it starts on what the disk has, or refuses; it never lies.
    mounts.resize(below, 600)
    mounts.unmount(bad.data_dir)
    checked = processes.run(["e2fsck", "-fy", below + "/image"])[0]
    c.require("the file system is repaired", checked <= 1, checked)
    mounts.loop(below + "/image", bad.data_dir)
    bad.start()
    up = checks.wait_for(lambda: not bad.running() or cluster.digests_equal(1)[0], 20)
    if bad.running():
        c.check("started again it comes to the same state", up, bad.log()[-600:])
    else:
        c.check("started again it refuses, with words", bad.process.returncode == 78 and
                "the node refuses to start" in bad.log(), bad.log()[-600:])
    print(f"#       afterwards it {'came back' if bad.running() else 'refused to start'}")
    cluster.stop()
    mounts.unmount(bad.data_dir)


if __name__ == "__main__":
    checks.run(test_while_appending, test_while_snapshots_are_made, test_no_room_for_a_snapshot,
               test_no_room_for_the_log, test_failed_sync)
