#!/usr/bin/python3
"""A restart of all nodes keeps everything.

Goal: after SIGTERM to all nodes, and after SIGKILL of all servers and workers at once, every job is
there as it was, digests are equal, keys are still known and new jobs run. Method: note what is
acknowledged, end all, start with the same command lines, compare. The SIGKILL comes in the middle
of a stream of submits: what was acknowledged by then is the set that must be back.
"""
import pathlib
import signal
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))

import grpc  # noqa: E402

import checks  # noqa: E402
import processes  # noqa: E402
import rpc  # noqa: E402
from cluster import Cluster  # noqa: E402


def summary(job):
    """All of a job but what only concerns the answer."""
    return job.SerializeToString(deterministic=True)


def wait_all_terminal(client, seconds=30):
    def done():
        try:
            jobs = client.list(with_output=True)
        except grpc.RpcError:
            return None
        return jobs if jobs and all(j.state in rpc.TERMINAL for j in jobs) else None
    return checks.wait_for(done, seconds, 0.05)


def submit_mixture(cluster):
    """Jobs of all kinds and ends; ids in order."""
    ids = []
    for i in range(60):
        client = cluster.nodes[i % 3].client
        kind = i % 6
        if kind == 0:
            spec = rpc.noop(name=f"noop {i}", labels={"n": str(i)})
        elif kind == 1:
            spec = rpc.shell(f"echo out {i}; echo err {i} >&2", env={"A": "1"}, queue="other")
        elif kind == 2:
            spec = rpc.shell(f"exit {i % 7 + 1}")
        elif kind == 3:
            spec = rpc.shell("kill -9 $$")
        elif kind == 4:
            spec = rpc.job_pb.JobSpec(command=rpc.job_pb.Command(argv=["/no/such/program"]))
        else:
            spec = rpc.shell("head -c 100000 /dev/zero | tr '\\0' x", output_limit_bytes=50000)
        ids.append(client.submit(spec, f"mix-{i}").job_id)
    long_job = cluster.nodes[0].client.submit(rpc.shell("sleep 300", kill_grace_ms=500)).job_id
    cluster.nodes[1].client.cancel(long_job)
    return ids + [long_job]


def check_same(c, cluster, before, what):
    for n in cluster.nodes:
        try:
            after = {j.id: summary(j) for j in n.client.list(with_output=True)}
        except grpc.RpcError as e:
            c.check(f"{what}: node {n.id} lists the jobs", False, e.details())
            continue
        different = [i for i in before if after.get(i) != before[i]]
        c.check(f"{what}: node {n.id} shows all {len(before)} jobs as they were",
                not different and len(after) >= len(before), different[:5])


def check_works(c, cluster, what):
    ended = []
    for n in cluster.nodes:
        job_id = n.client.submit(rpc.shell("echo again")).job_id
        job = checks.wait_for(lambda n=n, i=job_id: (
            lambda j: j if j.state in rpc.TERMINAL else None)(n.client.get(i)), 15)
        ended.append(job and job.output_tail)
    c.equal(f"{what}: new jobs run through every node", ended, [b"again\n"] * 3)
    same, text = cluster.digests_equal()
    c.check(f"{what}: digests are equal", same, text)


def restart(c, cluster, what):
    begun = time.monotonic()
    for n in cluster.nodes:
        n.start()
    c.require(f"{what}: the cluster is back", cluster.wait_ready(15))
    seconds = time.monotonic() - begun
    c.check(f"{what}: within 5 s", seconds < 5, f"{seconds:.1f} s")


def test_terminate_all(c):
    cluster = Cluster(3)
    ids = submit_mixture(cluster)
    jobs = wait_all_terminal(cluster.nodes[0].client)
    c.require("all jobs ended", jobs)
    c.equal("all jobs are listed", sorted(j.id for j in jobs), sorted(ids))
    before = {j.id: summary(j) for j in jobs}
    workers = [n.worker_pid for n in cluster.nodes]
    begun = time.monotonic()
    for n in cluster.nodes:
        n.process.send_signal(signal.SIGTERM)
    codes = [n.wait(12) for n in cluster.nodes]
    c.equal("SIGTERM: every server ends with 0", codes, [0, 0, 0])
    c.check("SIGTERM: all nodes end within 10 s", time.monotonic() - begun < 10)
    c.check("SIGTERM: the workers are gone too", not [p for p in workers if processes.alive(p)],
            workers)
    restart(c, cluster, "after SIGTERM")
    check_same(c, cluster, before, "after SIGTERM")
    again = cluster.nodes[2].client.submit(rpc.noop(name="noop 0", labels={"n": "0"}), "mix-0")
    c.check("after SIGTERM: an old key gives the old job", again.existing and again.job_id == ids[0],
            again)
    check_works(c, cluster, "after SIGTERM")
    cluster.stop()


class Stream(threading.Thread):
    """Submits through one node until told to stop; keeps what was acknowledged."""

    def __init__(self, node, round_number):
        super().__init__(daemon=True)
        self.node = node
        self.round = round_number
        self.acked = []
        self.client = rpc.Client(node.address)

    def run(self):
        i = 0
        try:
            while True:
                spec = rpc.noop(name=f"stream {self.round} {self.node.id} {i}")
                self.acked.append(self.client.submit(spec, timeout=5).job_id)
                i += 1
        except grpc.RpcError:
            pass


def test_kill_all(c):
    cluster = Cluster(3)
    for round_number in (1, 2):
        what = f"kill -9 of all, round {round_number}"
        jobs = wait_all_terminal(cluster.nodes[0].client) if round_number > 1 else []
        before = {j.id: summary(j) for j in jobs}
        streams = [Stream(n, round_number) for n in cluster.nodes]
        for s in streams:
            s.start()
        checks.wait_for(lambda s=streams: sum(len(x.acked) for x in s) > 400, 20, 0.005)
        workers = [n.worker_pid for n in cluster.nodes]
        for n in cluster.nodes:
            n.process.send_signal(signal.SIGKILL)
        for pid in workers:
            processes.signal_pid(pid, signal.SIGKILL)
        for n in cluster.nodes:
            n.wait(5)
        for s in streams:
            s.join(10)
        restart(c, cluster, what)
        acked = {i for s in streams for i in s.acked}
        jobs = wait_all_terminal(cluster.nodes[1].client)
        c.require(f"{what}: all jobs end", jobs)
        missing = acked - {j.id for j in jobs}
        c.check(f"{what}: all {len(acked)} acknowledged jobs are there", not missing,
                sorted(missing)[:5])
        names = [j.spec.name for j in jobs if j.spec.name]
        c.equal(f"{what}: no job is there twice", len(set(names)), len(names))
        bad = [(j.id, j.state, j.failure_message) for j in jobs if j.state != rpc.COMPLETED]
        c.check(f"{what}: all completed", not bad, bad[:3])
        check_same(c, cluster, before, what)
        check_works(c, cluster, what)
    cluster.stop()


def test_rolling(c):
    """One node after the other, while submits go on: no acknowledged job is lost, none fails."""
    cluster = Cluster(3)
    acked, failed = [], []
    stop = threading.Event()

    def submit():
        clients = [rpc.Client(n.address) for n in cluster.nodes]
        i = 0
        while not stop.is_set():
            i += 1
            for attempt in range(60):
                try:
                    acked.append(clients[(i + attempt) % 3].submit(
                        rpc.noop(), f"rolling-{i}", timeout=2).job_id)
                    break
                except grpc.RpcError as e:
                    last = f"{rpc.code_of(e)} {e.details()}"
                    time.sleep(0.05)
            else:
                failed.append(last)

    thread = threading.Thread(target=submit, daemon=True)
    thread.start()
    for n in cluster.nodes:
        code = n.kill(signal.SIGTERM)
        c.equal(f"rolling: node {n.id} stops with 0", code, 0)
        before = len(acked)
        c.check(f"rolling: submits go on without node {n.id}",
                checks.wait_for(lambda b=before: len(acked) > b + 20, 10))
        n.start()
        c.require(f"rolling: node {n.id} is back", cluster.wait_ready(10))
    stop.set()
    thread.join(70)
    c.check("rolling: no submit failed for good", not failed, failed[:3])
    jobs = wait_all_terminal(cluster.nodes[0].client)
    c.equal("rolling: exactly the acknowledged jobs are there",
            sorted(j.id for j in jobs or []), sorted(acked))
    same, text = cluster.digests_equal()
    c.check("rolling: digests are equal", same, text)
    cluster.stop()


if __name__ == "__main__":
    checks.run(test_terminate_all, test_kill_all, test_rolling)
