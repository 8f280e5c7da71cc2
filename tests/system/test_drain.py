#!/usr/bin/python3
"""Planned work disturbs nobody.

Goal: a drained node or worker gets no new work, its attempts finish within the drain's time and are
then released without counting as an attempt, and leadership has moved; SIGTERM does the same; three
nodes restarted one after the other fail no call of a client with one retry, nor of the command line;
the median pause of 50 leadership transfers under load is under 100 ms.
"""
import pathlib
import signal
import statistics
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))

import grpc  # noqa: E402

import checks  # noqa: E402
import rpc  # noqa: E402
from cluster import Cluster  # noqa: E402


def worker_of(w, name):
    s = w.leader().status(local=False)
    return next((x for x in s.workers if x.id == name), None) if s else None


def test_node(c):
    w = Cluster(3)
    leader = w.leader()
    client = next(n for n in w.nodes if n is not leader).client
    # One job for each slot of the cluster and more: all workers have some.
    short = [client.submit(rpc.shell("sleep 1")).job_id for _ in range(24)]
    c.require("the leader's worker has work", checks.wait_for(
        lambda: (x := worker_of(w, leader.worker_id)) and x.running > 0, 10))
    code, out, err = w.cli("cluster", "drain", str(leader.id), "--wait", seconds=60)
    c.equal("drain --wait: exit code", code, 0)
    if code != 0:
        print(out, err)
    s = w.leader().status(local=False)
    c.check("it does not lead any more", s.leader_id != leader.id)
    c.check("it is shown as draining", next(n for n in s.nodes if n.id == leader.id).draining)
    c.equal("nothing runs there", worker_of(w, leader.worker_id).running, 0)
    more = [client.submit(rpc.shell("true")).job_id for _ in range(30)]
    done = checks.wait_for(lambda: all(client.get(j).state == rpc.COMPLETED
                                       for j in short + more), 30, 0.1)
    c.check("all jobs end, on the others", done)
    ran = {client.get(j).worker_id for j in more}
    c.check("the drained one got none", leader.worker_id not in ran, ran)
    c.check("none was tried twice", all(client.get(j).attempt == 1 for j in short + more))
    leader.kill(signal.SIGTERM)
    leader.start()
    c.require("restarted", w.wait_ready())
    c.check("the drain holds over a restart", w.member(leader.id).draining)
    c.equal("undrain: exit code", w.cli("cluster", "undrain", str(leader.id))[0], 0)
    back = [client.submit(rpc.shell("sleep 0.2")).job_id for _ in range(24)]
    c.check("it works again", checks.wait_for(
        lambda: (x := worker_of(w, leader.worker_id)) and x.running > 0, 10))
    c.check("and all is done", checks.wait_for(
        lambda: all(client.get(j).state == rpc.COMPLETED for j in back), 20, 0.1))
    w.stop()


def test_release(c):
    """What does not end in time is run elsewhere, and the attempt does not count: released twice, a
    job of two attempts still has one."""
    w = Cluster(3)
    client = w.nodes[0].client
    job = client.submit(rpc.shell("sleep 6", max_attempts=2)).job_id
    drained = []
    for _ in range(2):
        c.require("it runs", checks.wait_for(
            lambda: (j := client.get(job)).state == rpc.RUNNING and j.worker_id not in drained, 15),
            client.get(job))
        drained.append(client.get(job).worker_id)
        begun = time.monotonic()
        code, _, err = w.cli("cluster", "drain", "--worker", drained[-1], "--timeout", "1s",
                             "--wait", seconds=60)
        c.check("drain --worker --wait", code == 0, err)
        c.check("it lasts about its timeout", time.monotonic() - begun < 8,
                time.monotonic() - begun)
    c.check("the job completes on the third", checks.wait_for(
        lambda: client.get(job).state == rpc.COMPLETED, 25, 0.1), client.get(job))
    c.check("which was not drained", client.get(job).worker_id not in drained)
    # One that may begin only once is not begun again; it fails and says so.
    for name in drained:
        c.equal("undrain", w.cli("cluster", "undrain", "--worker", name)[0], 0)
    once = client.submit(rpc.shell("sleep 6", max_attempts=1)).job_id
    c.require("it runs", checks.wait_for(lambda: client.get(once).state == rpc.RUNNING, 15))
    name = client.get(once).worker_id
    c.equal("drain", w.cli("cluster", "drain", "--worker", name, "--timeout", "1s")[0], 0)
    c.check("a job of one attempt fails", checks.wait_for(
        lambda: client.get(once).state == rpc.FAILED, 15), client.get(once))
    w.stop()


def test_sigterm(c):
    w = Cluster(3)
    leader = w.leader()
    client = next(n for n in w.nodes if n is not leader).client
    jobs = [client.submit(rpc.shell("sleep 1.5", max_attempts=1)).job_id for _ in range(12)]
    c.require("the leader's worker has work", checks.wait_for(
        lambda: (x := worker_of(w, leader.worker_id)) and x.running > 0, 10))
    c.equal("SIGTERM: exit code", leader.kill(signal.SIGTERM), 0)
    c.check("every attempt finished or was released", checks.wait_for(
        lambda: all(client.get(j).state == rpc.COMPLETED for j in jobs), 20, 0.1),
        [client.get(j).state for j in jobs])
    c.check("no attempt was lost", all(client.get(j).attempt == 1 for j in jobs),
            [client.get(j).attempt for j in jobs])
    w.stop()


class Caller:
    """Calls without a pause, each with one retry on another node."""

    def __init__(self, cluster, number):
        self.cluster, self.number = cluster, number
        self.calls, self.failed, self.retried, self.times = 0, [], 0, []
        self.stop = threading.Event()
        self.clients = [rpc.Client(n.address) for n in cluster.nodes]
        self.answered = [0] * len(self.clients)  # by each node, at the first try
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        while not self.stop.is_set():
            self.calls += 1
            key = f"c{self.number}-{self.calls}"
            first = (self.number + self.calls) % len(self.clients)
            try:
                self.clients[first].submit(rpc.noop(name=key), key=key, timeout=5)
                self.answered[first] += 1
            except grpc.RpcError as e:
                self.retried += 1
                try:
                    self.clients[(first + 1) % len(self.clients)].submit(
                        rpc.noop(name=key), key=key, timeout=10)
                except grpc.RpcError as again:
                    self.failed.append((key, rpc.code_of(e), e.details(), rpc.code_of(again),
                                        again.details()))
            self.times.append(time.monotonic())

    def end(self):
        self.stop.set()
        self.thread.join()
        for x in self.clients:
            x.close()


def test_rolling_restart(c):
    w = Cluster(3)
    callers = [Caller(w, i) for i in range(3)]
    codes, stop = [], threading.Event()

    def command_line():
        while not stop.is_set():
            codes.append(w.cli("job", "submit", "--", "true"))
    thread = threading.Thread(target=command_line)
    thread.start()
    try:
        for node in list(w.nodes):
            c.equal(f"node {node.id} stops with", node.kill(signal.SIGTERM), 0)
            node.start()
            c.require(f"node {node.id} is back", w.wait_ready(15), node.log()[-500:])
            # For its clients too, whose connections pause up to 0.2 s between two attempts: with two
            # nodes away no single retry helps.
            was = [list(x.answered) for x in callers]
            at = w.nodes.index(node)
            c.require(f"node {node.id} answers everybody again", checks.wait_for(
                lambda was=was, at=at: all(x.answered[at] > a[at]
                                           for x, a in zip(callers, was)), 5))
    finally:
        stop.set()
        thread.join()
        for x in callers:
            x.end()
    calls = sum(x.calls for x in callers)
    failed = [f for x in callers for f in x.failed]
    print(f"#       {calls} calls, {sum(x.retried for x in callers)} of them retried once; "
          f"{len(codes)} of the command line")
    c.check("no call of a client with one retry failed", calls > 100 and not failed, failed[:3])
    bad = [x for x in codes if x[0] != 0]
    c.check("no call of the command line failed", len(codes) > 5 and not bad, bad[:3])
    same, text = w.digests_equal()
    c.check("digests are equal", same, text)
    w.stop()


def test_transfer_pause(c):
    w = Cluster(3, workers=False)
    callers = [Caller(w, i) for i in range(4)]
    pauses = []
    try:
        for _ in range(50):
            leader = w.leader()
            to = next(n.id for n in w.nodes if n is not leader)
            begun = time.monotonic()
            code, _, err = w.cli("cluster", "transfer-leader", "--to", str(to))
            c.require("transfer-leader", code == 0, err)
            # Until acknowledgements have flowed for a while again.
            until = time.monotonic() + 0.25
            checks.wait_for(lambda u=until: all(x.times and x.times[-1] > u for x in callers), 5)
            acks = sorted(t for x in callers for t in list(x.times)[-4000:] if t >= begun - 0.1)
            pauses.append(max((b - a for a, b in zip(acks, acks[1:])), default=9))
    finally:
        for x in callers:
            x.end()
    pauses = [1000 * p for p in pauses]
    print(f"#       pause of acknowledgements in 50 transfers: median "
          f"{statistics.median(pauses):.1f} ms, largest {max(pauses):.1f} ms")
    c.check("the median is under 100 ms", statistics.median(pauses) < 100)
    c.equal("no call failed", [f for x in callers for f in x.failed][:3], [])
    for args, want in ((("--to", "9"), 3), (("--to", "x"), 2)):
        c.equal(f"transfer-leader {' '.join(args)}",
                w.cli("cluster", "transfer-leader", *args)[0], want)
    w.stop()


if __name__ == "__main__":
    checks.run(test_node, test_release, test_sigterm, test_rolling_restart, test_transfer_pause)
