#!/usr/bin/python3
"""A leader that stops for two seconds and wakes up believing that it still leads.

Goal: another node leads meanwhile, nothing acknowledged is lost, the old leader steps down when it
wakes and answers no read from its past. Method: SIGSTOP and SIGCONT of the leader's process under a
stream of submits; a write through the new leader while the old one sleeps, and linearizable reads
of it from the old one in the moment it wakes, several times.
"""
import pathlib
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))

import grpc  # noqa: E402

import checks  # noqa: E402
import rpc  # noqa: E402
from cluster import Cluster  # noqa: E402

ROUNDS = 3
FREEZE_S = 2


class Stream(threading.Thread):
    """Submits with keys through changing nodes; keeps what was acknowledged."""

    def __init__(self, cluster):
        super().__init__(daemon=True)
        self.cluster = cluster
        self.acked = {}
        self.stop = False
        self.gave_up = []

    def run(self):
        clients = [rpc.Client(n.address) for n in self.cluster.nodes]
        i = 0
        while not self.stop:
            i += 1
            for attempt in range(100):
                try:
                    answer = clients[(i + attempt) % 3].submit(rpc.noop(name=f"s{i}"), f"s{i}",
                                                               timeout=1)
                    self.acked[i] = answer.job_id
                    break
                except grpc.RpcError:
                    time.sleep(0.02)
            else:
                self.gave_up.append(i)
            time.sleep(0.005)


def reads_when_waking(old, job_id, results):
    """Linearizable reads sent while the node sleeps: answered when it wakes, and never with the
    past. All sent before, so that the very first thing it does is to look at them."""
    def read():
        client = rpc.Client(old.address)
        try:
            results.append(client.get(job_id, timeout=FREEZE_S + 5).id)
        except grpc.RpcError as e:
            results.append(rpc.code_of(e))
    threads = [threading.Thread(target=read, daemon=True) for _ in range(8)]
    for t in threads:
        t.start()
    return threads


def freeze_once(c, cluster, number):
    what = f"round {number}"
    old = cluster.leader()
    term = old.status().term
    # The connections must exist before: a frozen process accepts none.
    old.client.status()
    old.freeze()
    frozen_at = time.monotonic()
    new = cluster.leader(seconds=FREEZE_S, other_than=old)
    c.require(f"{what}: another node leads while node {old.id} sleeps", new and new is not old)
    seconds = time.monotonic() - frozen_at
    c.check(f"{what}: within a second", seconds < 1, f"{seconds:.2f} s")
    c.check(f"{what}: in a newer term", new.status().term > term)
    written = new.client.submit(rpc.noop(name="while asleep"))
    results = []
    threads = reads_when_waking(old, written.job_id, results)
    checks.wait_for(lambda: time.monotonic() - frozen_at >= FREEZE_S, FREEZE_S + 1)
    old.thaw()
    woke_at = time.monotonic()

    def stepped_down():
        v = old.status(timeout=1)
        return v and v.leader_id != old.id and v.term > term
    c.check(f"{what}: it steps down when it wakes", checks.wait_for(stepped_down, 2, 0.005))
    print(f"#       stepped down {1000 * (time.monotonic() - woke_at):.0f} ms after it woke")
    for t in threads:
        t.join(FREEZE_S + 6)
    allowed = {written.job_id, "UNAVAILABLE", "DEADLINE_EXCEEDED"}
    c.check(f"{what}: no read from its past", len(results) == 8 and set(results) <= allowed, results)
    try:
        seen = old.client.get(written.job_id).id
    except grpc.RpcError as e:
        seen = f"{rpc.code_of(e)} {e.details()}"
    c.equal(f"{what}: it serves what was written while it slept", seen, written.job_id)


def test_freeze_leader(c):
    cluster = Cluster(3)
    stream = Stream(cluster)
    stream.start()
    checks.wait_for(lambda: len(stream.acked) > 50, 10)
    for number in range(1, ROUNDS + 1):
        before = len(stream.acked)
        freeze_once(c, cluster, number)
        c.check(f"round {number}: submits go on", checks.wait_for(
            lambda b=before: len(stream.acked) > b + 50, 10), len(stream.acked) - before)
    stream.stop = True
    stream.join(120)
    c.check("every submit was acknowledged in the end", not stream.gave_up, stream.gave_up[:5])
    ended = checks.wait_for(lambda: all(
        j.state in rpc.TERMINAL for j in cluster.leader().client.list()), 20, 0.1)
    c.check("all jobs end", ended)
    jobs = [j for j in cluster.leader().client.list() if j.spec.name != "while asleep"]
    c.equal("exactly the acknowledged jobs are there", sorted(j.id for j in jobs),
            sorted(stream.acked.values()))
    c.check("each was tried once", all(j.attempt == 1 and j.state == rpc.COMPLETED for j in jobs))
    same, text = cluster.digests_equal()
    c.check("digests are equal", same, text)
    cluster.stop()


def test_freeze_follower(c):
    """A sleeping follower disturbs nobody, and does not disturb when it wakes."""
    cluster = Cluster(3)
    leader = cluster.leader()
    term = leader.status().term
    follower = next(n for n in cluster.nodes if n is not leader)
    follower.freeze()
    begun = time.monotonic()
    answers = [leader.client.submit(rpc.noop()).job_id for _ in range(100)]
    c.check("follower asleep: submits go on", len(set(answers)) == 100 and
            time.monotonic() - begun < 3, f"{time.monotonic() - begun:.2f} s")
    checks.wait_for(lambda: time.monotonic() - begun >= FREEZE_S, FREEZE_S + 1)
    follower.thaw()
    same, text = cluster.digests_equal()
    c.check("follower asleep: it catches up", same, text)
    now = leader.status()
    c.check("follower asleep: no election when it wakes",
            now.term == term and now.leader_id == leader.id, (term, now.term, now.leader_id))
    c.check("follower asleep: it sees all jobs",
            {j.id for j in follower.client.list()} >= set(answers))
    cluster.stop()


if __name__ == "__main__":
    checks.run(test_freeze_leader, test_freeze_follower)
