#!/usr/bin/python3
"""One client process: its threads call the cluster and write down each call.

Usage: load.py NAME SEED HISTORY-FILE MARKS-FILE OPTIONS-JSON ADDRESS... A line on standard input
ends the calls ("quiet" answers it), the input's end also the watches. The history has one JSON
array a line, written when the call is over:

  [client, operation, outcome, begun_ns, ended_ns, node, {details}]

outcome: ok; fail (certainly without effect); unknown (may have had, may still have). Times are of
CLOCK_MONOTONIC. Each client (a thread) has one call open at a time. `node` is the number of the one
asked, from 1. Lines of watches: [client, "event", "ok", at, at, node, {event}].
"""
import json
import pathlib
import random
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "system/lib"))

import grpc  # noqa: E402

import rpc  # noqa: E402

# Begin, some signs of life, end; each with the machine's uptime, which no faked clock changes.
LINE = ('m() { read u x </proc/uptime; echo "$1 $CHRONOS_JOB_ID $CHRONOS_ATTEMPT '
        '$CHRONOS_FENCING_TOKEN $u" >>%s; }; m b; for i in %s; do sleep 0.05; m l; done; m e')
NO_EFFECT = ("RESOURCE_EXHAUSTED", "INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS",
             "FAILED_PRECONDITION", "OUT_OF_RANGE")


def outcome_of(error, write):
    """A read never has an effect; of a write the server's words say it, and nothing else does."""
    code, text = rpc.code_of(error), error.details() or ""
    if not write or code in NO_EFFECT or "not submitted" in text:
        return "fail", code, text
    return "unknown", code, text


class History:
    def __init__(self, path):
        self.file = open(path, "a", encoding="ascii", buffering=1)
        self.lock = threading.Lock()

    def add(self, *line):
        text = json.dumps(line, separators=(",", ":")) + "\n"
        with self.lock:
            self.file.write(text)


class Client(threading.Thread):
    """home: the node it always asks; None: any."""

    def __init__(self, process, name, home):
        super().__init__(daemon=True)
        self.p, self.name_, self.home = process, name, home
        self.rng = random.Random(f"{process.seed} {name}")
        self.connections = {}
        self.mine = []
        self.count = 0

    def call(self, op, node, write, function, **asked):
        """(answer or None); the line is written either way."""
        begun = time.monotonic_ns()
        try:
            if node not in self.connections:
                self.connections[node] = rpc.Client(self.p.addresses[node - 1])
            answer, details = function(self.connections[node])
            outcome = "ok"
            asked.update(details)
        except grpc.RpcError as e:
            answer = None
            outcome, code, text = outcome_of(e, write)
            asked.update(code=code, text=text[:200])
            if code == "NOT_FOUND":
                outcome = "ok"
                asked["missing"] = True
            elif code == "FAILED_PRECONDITION" and op == "cancel":
                outcome = "ok"
                asked["ended"] = True
            elif code == "UNAVAILABLE":
                self.connections.pop(node).close()
        except ValueError:  # closed under our feet
            return None
        self.p.history.add(self.name_, op, outcome, begun, time.monotonic_ns(), node, asked)
        if outcome != "ok" and asked.get("code") != "DEADLINE_EXCEEDED":
            self.p.end.wait(0.02 + 0.05 * self.rng.random())
        return answer

    def payload(self):
        most = self.p.options["bytes"]
        size = most if self.p.options["always"] else self.rng.choice((0, 10, 300, most))
        return self.rng.randbytes(size // 2).hex()

    def spec(self, key, once):
        if self.rng.random() >= self.p.options["shell"]:
            return rpc.noop(name=key, max_attempts=100,
                            env={"P": self.payload()})
        # A long one outlives the drain of its worker; one that may be tried once must not be tried
        # again then.
        long = self.rng.random() < self.p.options["long"] * (5 if once else 1)
        signs = " ".join("1" * (30 if long else self.rng.choice((0, 0, 1, 4, 8))))
        return rpc.shell(LINE % (self.p.marks, signs), name=key, max_attempts=1 if once else 100,
                         kill_grace_ms=300)

    def submit(self, node):
        self.count += 1
        once = self.rng.random() < 0.2
        shared = self.rng.random() < 0.03
        if shared:  # the same request under the same key by several clients
            key = f"shared-{self.p.seed}-{int(time.monotonic() * 4)}"
            spec = rpc.noop(name=key)
        else:
            key = f"{self.name_}-{self.count}"
            spec = self.spec(key, once)
        repeat = self.rng.random() < 0.7
        for _ in range(12):
            def send(c):
                a = c.submit(spec, key, timeout=3)
                return a, {"job": a.job_id, "index": a.index, "existing": a.existing}
            answer = self.call("submit", node, True, send, key=key, once=once and not shared)
            if answer:
                self.mine.append(answer.job_id)
                del self.mine[:-200]
                with self.p.lock:
                    self.p.known.append(answer.job_id)
                    del self.p.known[:-400]
                return
            if not repeat or self.p.end.is_set():
                return
            if not self.home:
                node = self.rng.choice(self.p.nodes)

    def read(self, node, stale):
        with self.p.lock:
            pool = self.mine if self.mine and self.rng.random() < 0.5 else self.p.known
            if not pool:
                return
            # Mostly jobs that still change.
            job = pool[-1 - min(int(self.rng.expovariate(0.15)), len(pool) - 1)]

        def get(c):
            a = c.call("JobService", "GetJob",
                       rpc.service_pb.GetJobRequest(job_id=job, consistency=1 if stale else 0),
                       rpc.service_pb.GetJobResponse, 3)
            j = a.job
            return a, {"index": a.index, "state": j.state, "attempt": j.attempt,
                       "token": j.fencing_token, "asked": j.cancel_requested, "key": j.spec.name,
                       "changed": j.updated_index, "created": j.created_index}
        self.call("stale" if stale else "get", node, False, get, job=job)

    def cancel(self, node):
        if not self.mine:
            return
        job = self.mine[-1 - min(int(self.rng.expovariate(0.3)), len(self.mine) - 1)]

        def send(c):
            a = c.call("JobService", "CancelJob", rpc.service_pb.CancelJobRequest(job_id=job),
                       rpc.service_pb.CancelJobResponse, 3)
            return a, {"index": a.index, "state": a.job.state}
        self.call("cancel", node, True, send, job=job)

    def run(self):
        while not self.p.end.is_set():
            node = self.home or self.rng.choice(self.p.nodes)
            what = self.rng.random()
            if what < 0.55:
                self.submit(node)
            elif what < 0.85:
                self.read(node, False)
            elif what < 0.96:
                self.read(node, True)
            else:
                self.cancel(node)
            self.p.end.wait(self.rng.random() * self.p.options["pause"])


class Watcher(threading.Thread):
    """Every transition, from node to node when one is lost."""

    def __init__(self, process, name, node):
        super().__init__(daemon=True)
        self.p, self.name_, self.node = process, name, node
        self.after, self.stream, self.refused = 0, None, 0
        self.end = threading.Event()

    def note(self, what, **details):
        now = time.monotonic_ns()
        self.p.history.add(self.name_, what, "ok", now, now, self.node, details)

    def follow(self, client):
        request = {"after_index": self.after} if self.after else {"from_start": True}
        self.stream = client.watch(timeout=3600, **request)
        for m in self.stream:
            self.refused = 0
            for e in m.events:
                self.note("event", index=e.index, job=e.job_id, attempt=e.attempt, to=e.to,
                          token=e.fencing_token, worker=e.worker_id, asked=e.cancel_requested,
                          **{"from": getattr(e, "from")})
            if m.index < self.after:
                self.note("backwards", after=self.after, index=m.index)
            self.after = m.index

    def run(self):
        while not self.end.is_set():
            client = rpc.Client(self.p.addresses[self.node - 1])
            try:
                self.follow(client)
            except grpc.RpcError as e:
                if rpc.code_of(e) == "OUT_OF_RANGE":
                    self.refused += 1
                    if self.refused >= 2 * len(self.p.nodes):  # no node remembers: said, not hidden
                        self.gap(client)
            client.close()
            self.node = self.node % len(self.p.nodes) + 1
            self.end.wait(0.05)

    def gap(self, client):
        try:
            index = client.list_page(page_size=1, timeout=2).index
        except grpc.RpcError:
            return
        self.note("gap", after=self.after, index=index)
        self.after, self.refused = index, 0


def seed_of(name):
    return sum(name.encode())


class Process:
    def __init__(self, name, seed, history, marks, options, *addresses):
        self.seed, self.marks, self.addresses = seed, marks, addresses
        self.options = {"shell": 0.12, "long": 0, "bytes": 300, "pause": 0.03, "watch": True,
                        "always": False, **json.loads(options)}
        self.nodes = list(range(1, self.options.get("nodes", len(addresses)) + 1))
        self.history = History(history)
        self.end = threading.Event()
        self.lock = threading.Lock()
        self.known = []
        self.threads = [Client(self, f"{name}{k}", home) for k, home in
                        enumerate(self.nodes + [None] * 2)]
        self.watchers = [Watcher(self, f"{name}w", 1 + seed_of(name) % len(self.nodes))] \
            if self.options["watch"] else []

    def main(self):
        for t in self.threads + self.watchers:
            t.start()
        sys.stdin.buffer.readline()
        self.end.set()
        for t in self.threads:
            t.join(40)
        print("quiet", flush=True)
        # What the jobs still do is of interest: the watches go on for now.
        sys.stdin.buffer.read()
        for t in self.watchers:
            t.end.set()
            if t.stream:
                t.stream.cancel()
            t.join(10)


if __name__ == "__main__":
    Process(*sys.argv[1:]).main()
