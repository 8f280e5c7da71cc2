#!/usr/bin/python3
"""Losing the leader loses nothing.

Goal: every acknowledged job reaches a terminal state exactly once and none is missing, although the
leader is killed five times while the jobs are submitted. Method: six clients submit 500 jobs
through all three nodes with idempotency keys and repeat what is unclear; a killer ends the leader
with SIGKILL at given numbers of acknowledged jobs and starts it again with the same command line.
Each attempt writes one line to a file, a watch that moves from node to node records each
transition. At the end keys, list, lines, transitions and the nodes' digests must tell the same
story.
"""
import os
import pathlib
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))

import grpc  # noqa: E402

import checks  # noqa: E402
import rpc  # noqa: E402
from cluster import Cluster  # noqa: E402

JOBS = 500
CLIENTS = 6
KILLS = 5
# What a client may try again with the same key, whatever the outcome was.
REPEAT = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "CANCELLED")


class Submitter(threading.Thread):
    """Submits its share one after the other, each first through another node."""

    def __init__(self, world, share):
        super().__init__(daemon=True)
        self.world = world
        self.share = share
        self.clients = [rpc.Client(n.address) for n in world.cluster.nodes]

    def run(self):
        for i in self.share:
            # Every fifth one still runs when its leader dies.
            pause = "sleep 0.3; " if i % 5 == 0 else ""
            spec = rpc.shell(f'{pause}echo "{i} $CHRONOS_JOB_ID $CHRONOS_ATTEMPT $CHRONOS_FENCING_TOKEN"'
                             f' >> {self.world.lines_path}', name=f"job {i}")
            if not self.submit(i, spec):
                return

    def submit(self, i, spec):
        tries = i
        until = time.monotonic() + 40
        while time.monotonic() < until:
            node = tries % len(self.clients)
            tries += 1
            try:
                answer = self.clients[node].submit(spec, f"key-{i}", timeout=3)
            except grpc.RpcError as e:
                if rpc.code_of(e) not in REPEAT:
                    self.world.problems.append(f"job {i}: {rpc.code_of(e)} {e.details()}")
                    return False
                if rpc.code_of(e) == "UNAVAILABLE":
                    self.clients[node].close()
                    self.clients[node] = rpc.Client(self.world.cluster.nodes[node].address)
                time.sleep(0.03)
                continue
            self.world.acknowledge(i, answer)
            return True
        self.world.problems.append(f"job {i}: not acknowledged within 40 s")
        return False


class Watcher(threading.Thread):
    """Every transition, over whichever node can be reached."""

    def __init__(self, world, after):
        super().__init__(daemon=True)
        self.world = world
        self.index = after
        self.events = []
        self.resumed = 0
        self.stop = False
        self.too_old = 0

    def run(self):
        at = 0
        while not self.stop:
            client = rpc.Client(self.world.cluster.nodes[at].address)
            try:
                for message in client.watch(after_index=self.index, timeout=60):
                    if message.index < self.index:
                        self.world.problems.append("the watch ran backwards")
                    self.events += message.events
                    self.index = message.index
                    if self.stop:
                        return
            except grpc.RpcError as e:
                self.too_old += rpc.code_of(e) == "OUT_OF_RANGE"
            finally:
                client.close()
            self.resumed += 1
            at = (at + 1) % len(self.world.cluster.nodes)
            time.sleep(0.02)


class World:
    def __init__(self):
        self.cluster = Cluster(3)
        self.lines_path = os.path.join(self.cluster.directory, "lines")
        self.lock = threading.Lock()
        self.acked = {}  # number -> id
        self.times = []
        self.problems = []

    def acknowledge(self, i, answer):
        with self.lock:
            self.acked[i] = answer.job_id
            self.times.append(time.monotonic())

    def any_client(self):
        return (self.cluster.leader() or self.cluster.nodes[0]).client


def kill_leaders(c, w):
    """KILLS times: when the next share is acknowledged, kill the leader, start it again."""
    killed = []
    for k in range(KILLS):
        goal = 40 + k * (JOBS - 80) // KILLS
        if not checks.wait_for(lambda g=goal: len(w.acked) >= g or w.problems, 40, 0.002):
            break
        leader = w.cluster.leader()
        if not leader:
            break
        leader.kill()
        killed.append(leader.id)
        successor = w.cluster.leader(seconds=10, other_than=leader)
        if not c.check(f"kill {k + 1}: another leader follows node {leader.id}", successor):
            w.cluster.print_logs()
        leader.start()
        # The next kill must find a majority.
        checks.wait_for(lambda n=leader: n.status(), 10)
    c.equal("the leader was killed five times", len(killed), KILLS)


def terminal_jobs(w):
    try:
        jobs = w.any_client().list()
    except grpc.RpcError:
        return None
    done = [j for j in jobs if j.state in rpc.TERMINAL]
    return jobs if len(done) == len(jobs) >= len(w.acked) else None


def check_transitions(c, w, watcher):
    """Each job's events form one chain into one terminal state, without a gap."""
    chains, bad = {}, []
    for e in watcher.events:
        chain = chains.setdefault(e.job_id, [])
        before = chain[-1].to if chain else rpc.job_pb.JOB_STATE_UNSPECIFIED
        if e.index in [x.index for x in chain] or getattr(e, "from") != before:
            bad.append((e.job_id, e.index, getattr(e, "from"), e.to))
        chain.append(e)
    ends = {i: sum(e.to in rpc.TERMINAL for e in chain) for i, chain in chains.items()}
    c.check("the watch over all nodes has no gap and no repetition", not bad, bad[:5])
    c.check("it saw each acknowledged job end exactly once",
            all(ends.get(i) == 1 for i in w.acked.values()),
            [(i, ends.get(i)) for i in w.acked.values() if ends.get(i) != 1][:5])
    print(f"#       the watch was resumed {watcher.resumed} times, "
          f"{watcher.too_old} times too far back", flush=True)


def check_lines(c, w, jobs):
    lines = [line.split() for line in
             pathlib.Path(w.lines_path).read_text(encoding="ascii").splitlines()]
    by_job = {}
    for number, job_id, attempt, token in lines:
        by_job.setdefault(job_id, []).append((int(number), int(attempt), int(token)))
    c.equal("every job left its line", sorted(by_job), sorted(w.acked.values()))
    wrong = [(j.id, by_job.get(j.id), j.attempt, j.fencing_token) for j in jobs
             if len(by_job.get(j.id, [])) != 1 or by_job[j.id][0][1:] != (j.attempt, j.fencing_token)]
    # No worker was lost, so nothing may have been run twice.
    c.check("each ran once, and its attempt and token are the recorded ones", not wrong, wrong[:5])
    c.check("no job is another one's", all(w.acked.get(v[0][0]) == k for k, v in by_job.items()))


def test_kill_leader(c):
    w = World()
    watcher = Watcher(w, w.cluster.nodes[0].client.status().applied_index)
    watcher.start()
    threads = [Submitter(w, range(k, JOBS, CLIENTS)) for k in range(CLIENTS)]
    for t in threads:
        t.start()
    kill_leaders(c, w)
    for t in threads:
        t.join(60)
    c.check("no call failed otherwise than by unreachable nodes", not w.problems, w.problems[:5])
    c.equal("all submits are acknowledged in the end", len(w.acked), JOBS)
    c.equal("each key has a job of its own", len(set(w.acked.values())), JOBS)
    jobs = checks.wait_for(lambda: terminal_jobs(w), 60, 0.2)
    if not jobs:
        jobs = w.any_client().list()
    c.equal("the list holds exactly the acknowledged jobs", sorted(j.id for j in jobs),
            sorted(w.acked.values()))
    c.check("all of them completed", all(j.state == rpc.COMPLETED for j in jobs),
            [(j.id, j.state, j.failure_message) for j in jobs if j.state != rpc.COMPLETED][:5])
    last = max(j.updated_index for j in jobs)
    checks.wait_for(lambda: watcher.index >= last, 10)
    watcher.stop = True
    check_lines(c, w, jobs)
    check_transitions(c, w, watcher)
    answer = w.any_client().submit(rpc.shell(
        f'echo "7 $CHRONOS_JOB_ID $CHRONOS_ATTEMPT $CHRONOS_FENCING_TOKEN" >> {w.lines_path}',
        name="job 7"), "key-7")
    c.check("a key used before the kills still gives the same job",
            answer.existing and answer.job_id == w.acked[7], answer)
    same, text = w.cluster.digests_equal()
    c.check("digests are equal at an equal index on all nodes", same, text)
    gaps = sorted(b - a for a, b in zip(w.times, w.times[1:]))[-KILLS:]
    print("#       longest pauses between acknowledgements: " +
          ", ".join(f"{g * 1000:.0f} ms" for g in gaps), flush=True)
    c.check("no pause between acknowledgements is longer than 5 s", gaps[-1] < 5, gaps[-1])
    w.cluster.stop()


if __name__ == "__main__":
    checks.run(test_kill_leader)
