#!/usr/bin/python3
"""Random faults for half a minute, then the books must balance.

Goal: no acknowledged job is lost, none is there twice, each ends exactly once, attempts and fencing
tokens only grow, at most one attempt of a job is live at a time as its worker sees it, jobs that
may be tried once are started once, and all nodes hold the same state. Method: three nodes with a
short lease; a seeded sequence of kill -9, SIGSTOP and SIGTERM on servers and workers, at most a
minority of servers away at a time (sometimes all are killed at once), under a stream of submits and
cancels. Seed and length: CHRONOS_SEED, CHRONOS_CHAOS_S.
"""
import collections
import os
import pathlib
import random
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

SECONDS = float(os.environ.get("CHRONOS_CHAOS_S", "25"))
SEED = int(os.environ.get("CHRONOS_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
FLAGS = ("--worker.lease", "2s", "--worker.heartbeat_interval", "300ms", "--worker.slots", "6")
# Begin, pause, end: a line each, so that an attempt that was killed shows only its beginning.
LINE = ('echo "b $CHRONOS_JOB_ID $CHRONOS_ATTEMPT $CHRONOS_FENCING_TOKEN" >> {path}; sleep {pause}; '
        'echo "e $CHRONOS_JOB_ID $CHRONOS_ATTEMPT $CHRONOS_FENCING_TOKEN" >> {path}')


class Client(threading.Thread):
    """Submits with keys, repeats what is unclear at another node, cancels a few."""

    def __init__(self, world, number):
        super().__init__(daemon=True)
        self.world = world
        self.number = number
        self.rng = random.Random(SEED + number)
        self.acked = {}  # key -> (id, max attempts)
        self.tried = set()
        self.cancelled = set()
        self.refused = []
        self.stop = False

    def run(self):
        nodes = self.world.cluster.nodes
        clients = [rpc.Client(n.address) for n in nodes]
        i = 0
        while not self.stop:
            i += 1
            key = f"c{self.number}-{i}"
            once = self.rng.random() < 0.2
            spec = rpc.shell(LINE.format(path=self.world.path, pause=self.rng.choice(
                (0, 0, 0, 0, 0.05, 0.3, 0.6))), name=key, max_attempts=1 if once else 50,
                kill_grace_ms=300)
            self.tried.add(key)
            for attempt in range(400):
                at = (i + attempt) % len(clients)
                try:
                    answer = clients[at].submit(spec, key, timeout=2)
                    self.acked[key] = (answer.job_id, once)
                    break
                except grpc.RpcError as e:
                    if rpc.code_of(e) not in ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED",
                                              "RESOURCE_EXHAUSTED"):
                        self.refused.append((key, rpc.code_of(e), e.details()))
                        break
                    if rpc.code_of(e) == "UNAVAILABLE":
                        clients[at].close()
                        clients[at] = rpc.Client(nodes[at].address)
                    time.sleep(0.02)
            if key in self.acked and self.rng.random() < 0.05:
                try:
                    clients[i % 3].cancel(self.acked[key][0], timeout=2)
                    self.cancelled.add(self.acked[key][0])
                except grpc.RpcError:
                    pass
            time.sleep(self.rng.random() * 0.04)


class World:
    def __init__(self):
        self.cluster = Cluster(3, flags=FLAGS)
        self.path = os.path.join(self.cluster.directory, "lines")
        self.done = collections.Counter()
        self.frozen = []


def pause(seconds):
    until = time.monotonic() + seconds
    checks.wait_for(lambda: time.monotonic() >= until, seconds + 1)


def start_again(w, nodes):
    for n in nodes:
        n.start()
    checks.wait_for(lambda: all(n.status(timeout=0.5) for n in nodes), 10)


def fault(w, rng):
    """One fault and its end. Servers away at a time: one, or all."""
    nodes = w.cluster.nodes
    leader = w.cluster.leader(seconds=3)
    node = leader if leader and rng.random() < 0.5 else rng.choice(nodes)
    kind = rng.choice(("kill", "kill", "term", "freeze", "worker kill", "worker kill",
                       "worker freeze", "host kill", "kill all", "worker term"))
    w.done[kind] += 1
    worker = node.worker_pid
    if kind == "kill":
        node.kill()
        pause(rng.random() * 0.5)
        start_again(w, [node])
    elif kind == "term":
        node.process.send_signal(signal.SIGTERM)
        pause(rng.random() * 0.3)
        if node.wait(12) is None:
            node.kill()
        start_again(w, [node])
    elif kind == "freeze":
        node.freeze()
        pause(rng.choice((0.1, 0.4, 1.5, 2.5)))
        node.thaw()
    elif kind == "worker kill":
        processes.signal_pid(worker, signal.SIGKILL) if worker else None
    elif kind == "worker term":
        processes.signal_pid(worker, signal.SIGTERM) if worker else None
    elif kind == "worker freeze":
        if worker and processes.signal_pid(worker, signal.SIGSTOP):
            pause(rng.choice((0.5, 1.8, 2.2, 3.0)))
            processes.signal_pid(worker, signal.SIGCONT)
    elif kind == "host kill":
        node.process.send_signal(signal.SIGKILL)
        if worker:
            processes.signal_pid(worker, signal.SIGKILL)
        node.wait(5)
        pause(rng.choice((0.1, 1.0, 2.5)))
        start_again(w, [node])
    else:
        pids = [n.worker_pid for n in nodes] if rng.random() < 0.5 else []
        for n in nodes:
            n.process.send_signal(signal.SIGKILL)
        for pid in filter(None, pids):
            processes.signal_pid(pid, signal.SIGKILL)
        for n in nodes:
            n.wait(5)
        start_again(w, nodes)
    pause(rng.random() * 0.4)


def check_jobs(c, jobs, clients):
    acked = {job_id: once for x in clients for job_id, once in x.acked.values()}
    tried = set().union(*(x.tried for x in clients))
    by_id = {j.id: j for j in jobs}
    lost = sorted(set(acked) - set(by_id))
    c.check(f"none of {len(acked)} acknowledged jobs is lost", not lost, lost[:5])
    c.equal("each key has its own job", len(acked), sum(len(x.acked) for x in clients))
    names = collections.Counter(j.spec.name for j in jobs)
    c.check("no submit made two jobs, and none that nobody sent is there",
            max(names.values()) == 1 and set(names) <= tried, names.most_common(3))
    open_jobs = [(j.id, j.state, j.attempt) for j in jobs if j.state not in rpc.TERMINAL]
    c.check("all of them ended", not open_jobs, (len(open_jobs), open_jobs[:5]))
    cancelled = set().union(*(x.cancelled for x in clients))
    bad = [(j.id, j.state, j.failure_reason) for j in jobs if j.state == rpc.FAILED and not (
        j.spec.max_attempts == 1 and
        j.failure_reason == rpc.job_pb.FAILURE_REASON_WORKER_LOST)]
    c.check("none failed but those that may be tried only once and lost their worker",
            not bad, bad[:5])
    bad = [j.id for j in jobs if j.state == rpc.CANCELLED and j.id not in cancelled and
           # A cancel that was sent and not answered may have been done.
           j.id in acked and not j.cancel_requested]
    c.check("none is cancelled that was not asked to be", len(bad) < 5, bad[:5])
    # An attempt that its worker gave back without starting it may be repeated: see check_lines.
    bad = [(j.id, j.attempt) for j in jobs if j.attempt > j.spec.max_attempts > 1]
    c.check("none has more attempts than it may", not bad, bad[:5])


def check_lines(c, jobs, path):
    """The side effects: what really ran."""
    begun, ended = collections.defaultdict(list), collections.defaultdict(list)
    for number, line in enumerate(pathlib.Path(path).read_text(encoding="ascii").splitlines()):
        kind, job_id, attempt, token = line.split()
        (begun if kind == "b" else ended)[job_id].append((int(attempt), int(token), number))
    twice = [j for j, lines in begun.items() if len({a for a, _, _ in lines}) != len(lines)]
    c.check("no attempt was started twice", not twice, [(j, begun[j]) for j in twice[:3]])
    order = [j for j, lines in begun.items()
             if [t for _, t, _ in sorted(lines)] != sorted(t for _, t, _ in lines) or
             len({t for _, t, _ in lines}) != len(lines)]
    c.check("tokens grow with attempts", not order, [(j, begun[j]) for j in order[:3]])
    wrong = [(j.id, j.attempt, begun.get(j.id), ended.get(j.id)) for j in jobs
             if j.state == rpc.COMPLETED and (j.attempt, j.fencing_token) not in
             [(a, t) for a, t, _ in ended.get(j.id, [])]]
    c.check("what is recorded as completed did complete, in that attempt", not wrong, wrong[:3])
    once = [(j.id, begun[j.id]) for j in jobs if j.spec.max_attempts == 1 and
            len(begun.get(j.id, [])) > 1]
    c.check("what may be tried once was started once at most", not once, once[:3])
    again = sum(len(lines) > 1 for lines in begun.values())
    print(f"#       {len(begun)} jobs ran, {again} of them more than once")


def test_chaos(c):
    print(f"#       seed {SEED}", flush=True)
    w = World()
    rng = random.Random(SEED)
    clients = [Client(w, k) for k in range(3)]
    for x in clients:
        x.start()
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        fault(w, rng)
    quiet = time.monotonic()
    for x in clients:
        x.stop = True
    for x in clients:
        x.join(30)
    print(f"#       clients ended after {time.monotonic() - quiet:.1f} s")
    print("#       faults: " + ", ".join(f"{k} {v}" for k, v in sorted(w.done.items())))
    c.check("no submit was refused", not any(x.refused for x in clients),
            [x.refused[:2] for x in clients])
    c.check("enough was acknowledged", sum(len(x.acked) for x in clients) > 20 * SECONDS,
            sum(len(x.acked) for x in clients))
    ready = c.check("the cluster is whole again", w.cluster.wait_ready(15))

    def all_jobs():
        try:
            return w.cluster.leader().client.list()
        except (grpc.RpcError, AttributeError):
            return []
    checks.wait_for(lambda: (lambda jobs: jobs and all(
        j.state in rpc.TERMINAL for j in jobs))(all_jobs()), 30, 0.2)
    print(f"#       all was quiet after {time.monotonic() - quiet:.1f} s")
    jobs = all_jobs()
    check_jobs(c, jobs, clients)
    check_lines(c, jobs, w.path)
    left = processes.with_environment("CHRONOS_JOB_ID=")
    c.check("no process of an ended job is left", not left, left[:5])
    same, text = w.cluster.digests_equal()
    c.check("digests are equal on all nodes", same, text)
    crashed = [n.id for n in w.cluster.nodes if "assertion failed" in n.log()]
    c.check("no assertion failed", not crashed, crashed)
    if c.failed or not ready:
        w.cluster.print_logs(15)
    w.cluster.stop()


if __name__ == "__main__":
    checks.run(test_chaos)
