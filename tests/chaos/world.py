"""A cluster, its clients and the books of one run; what every run begins and ends with."""
import collections
import json
import os
import pathlib
import random
import subprocess
import sys
import time

import grpc

import history
import judges
import network
import processes
import rpc
import schedules
import wgl
from checks import Abort, wait_for

# The fault menu's limits.
PROGRESS_S = 5.0    # the majority's side acknowledges again
HEAL_S = 10.0       # all nodes acknowledge again
LEADER_S = 3.0      # another node leads
SERVE_S = 5.0       # a started node answers
RATE = 100          # calls a second below which a run says nothing
WARM_S = 2.0


class TooSlow(Exception):
    """The run does not count."""


class Book(schedules.Book):
    """As there; a run may be tried as often as its workers are killed."""

    def spec(self, i):
        s = super().spec(i)
        s.job.max_attempts = 100
        return s


class World:
    def __init__(self, cluster, seed, seconds, schedule_count=4):
        self.cluster = cluster
        self.seed, self.seconds = seed, seconds
        self.begun = time.monotonic()
        self.rng = random.Random(seed)
        self.bad = []
        self.faults = collections.Counter()
        self.took = collections.defaultdict(list)  # what is limited -> seconds
        self.excused = []  # uptimes at which a stopped worker could not end its processes
        self.rate = 0.0
        self.once = []
        self.book = Book(cluster, schedule_count, self.rng.choice((1, 2, 3, 5))) \
            if schedule_count else None
        self.loads = []
        self.history = history.History([])
        self.marks = f"{cluster.directory}/marks"
        self.notes = []
        self.expected_codes = set()  # exit codes that a node may end with by itself
        self.codes = collections.Counter()
        self.gaps_allowed = False

    # what a run says

    def fail(self, text):
        self.bad.append(text)
        print(f"#       {time.strftime('%H:%M:%S')} BROKEN {text}"[:1000], flush=True)

    def say(self, text):
        """With CHRONOS_CHAOS_TRACE: what happens, as it happens."""
        if os.environ.get("CHRONOS_CHAOS_TRACE"):
            print(f"#       {time.monotonic() - self.begun:6.2f} {text}", flush=True)

    def fault(self, name):
        self.faults[name] += 1
        self.say(name)

    def check(self, condition, text):
        if not condition:
            self.fail(text)
        return bool(condition)

    def limit(self, name, took, seconds):
        """@took: seconds, or None when it did not come about."""
        if self.check(took is not None and took <= seconds,
                      f"{name}: {'not' if took is None else f'{took:.2f} s, not'} within "
                      f"{seconds} s"):
            self.took[name].append(took)
            self.say(f"  {name} after {took:.2f} s")
        return took is not None

    # begin

    def load(self, name, **options):
        c = self.cluster
        path = f"{c.directory}/history-{name}"
        self.history.paths.append(path)
        addresses = [f"{network.host(i)}:{network.CLIENT_PORT}" for i in c.network.numbers]
        with open(f"{c.directory}/load-{name}.log", "wb") as log:
            p = processes.start([sys.executable, str(pathlib.Path(__file__).with_name("load.py")),
                                 name, str(self.seed), path, self.marks, json.dumps(options),
                                 *addresses], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                stderr=log)
        self.loads.append(p)

    def open(self, **options):
        """Clients and schedules, then a time without faults. Raises TooSlow."""
        if not self.cluster.workers:
            options["shell"] = 0
        for name in ("a", "b"):
            self.load(name, **options)
        if self.book:
            self.open_book()
        if not wait_for(lambda: self.history.rate(1) > 0, 15):
            raise Abort("no call succeeded within 15 s")
        begun = time.monotonic()
        wait_for(lambda: time.monotonic() - begun >= WARM_S, WARM_S + 1)
        self.rate = self.history.rate(WARM_S)
        self.say(f"{self.rate:.0f} calls/s")
        if self.rate < RATE:
            raise TooSlow(f"{self.rate:.0f} successful calls/s before the fault, not {RATE}")

    def open_book(self):
        b = self.book
        b.start_s = int(time.time()) + 2
        # A schedule's history has 100 lines.
        b.end_s = b.start_s + min(int(self.seconds) + 4, 95 * b.every_s)
        b.calls.create([b.spec(i) for i in range(len(b.names))])

    # in between

    @property
    def numbers(self):
        return [n.id for n in self.cluster.live()]

    def pause(self, seconds):
        until = time.monotonic() + seconds
        wait_for(lambda: time.monotonic() >= until, seconds + 1)

    def leader(self, other_than=None):
        n = self.cluster.leader(seconds=10, other_than=other_than)
        if not n:
            raise Abort("no leader within 10 s")
        return n

    def healed(self, since=None, nodes=None):
        """Every node acknowledges again."""
        since = since or time.monotonic_ns()
        took = self.history.wait_written(nodes or self.numbers, since, HEAL_S, True)
        return self.limit("healed", took, HEAL_S)

    def progress(self, nodes, since, seconds=PROGRESS_S):
        took = self.history.wait_written(nodes or self.numbers, since, seconds, False)
        return self.limit("progress", took, seconds)

    def start(self, nodes, limit=SERVE_S):
        for n in nodes:
            n.start()
        if not self.limit("serving", self.cluster.serving(nodes, limit + 1), limit):
            raise Abort(f"nodes {[n.id for n in nodes if not n.running()]} have ended")

    # end

    def quiet(self):
        """The clients end, then the jobs do."""
        self.history.refresh()
        for p in self.loads:
            p.stdin.write(b"\n")
            p.stdin.flush()
        for p in self.loads:
            p.stdout.readline()
        self.check(self.cluster.wait_ready(15), "the cluster is not whole 15 s after the faults")

    def _jobs(self):
        def listed():
            try:
                return self.leader().client.list(timeout=30)
            except grpc.RpcError:
                return None
        jobs = wait_for(listed, 20, 0.1)
        if jobs is None:
            raise Abort("the jobs cannot be listed")
        return jobs

    def _count_open(self):
        leader = self.cluster.leader()
        s = leader.status(local=False) if leader else None
        return s.jobs_pending + s.jobs_running if s else -1

    def _final_calls(self):
        """The last word of an operation that works is that it works."""
        for n in self.cluster.live():
            def try_it(n=n):
                try:
                    job = n.client.submit(rpc.noop(name="final"), f"final-{n.id}", timeout=5).job_id
                    return n.client.get(job, timeout=5).id == job
                except grpc.RpcError:
                    return False
            self.check(wait_for(try_it, 10, 0.1), f"the final calls through node {n.id} fail")

    def _tick_books(self):
        class Checks:  # what schedules.Book wants
            @staticmethod
            def check(name, condition, detail=""):
                return self.check(condition, f"schedules: not so: {name}: {detail}")
        printed = sys.stdout
        try:
            sys.stdout = open(f"{self.cluster.directory}/book.log", "w", encoding="utf-8")
            self.book.check_history(Checks)
            early = [(n, t.tick_ms, t.decided_at_ms) for n, ts in self.book.ticks.items()
                     for t in ts if t.decided_at_ms < t.tick_ms]
            if os.path.exists(self.book.path):
                self.book.check_records(Checks)
        finally:
            sys.stdout.close()
            sys.stdout = printed
        self.check(not early, f"schedules: ticks decided before their time: {early[:5]}")
        return len(self.book.all_expected())

    def close(self):
        """All judges."""
        self.say("the faults are over")
        self.quiet()
        self.say("the clients have ended")
        self._final_calls()
        self.check(wait_for(lambda: self._count_open() == 0, 40, 0.1),
                   f"{self._count_open()} jobs have not ended 40 s after the faults")
        self.say("all jobs have ended")
        ticks = self._tick_books() if self.book else 0
        self.say("the ticks are judged")
        same, text = self.cluster.digests_equal(15)
        self.check(same, f"digests differ: {text}")
        self._catch_up()
        self.say("the watches are at the end")
        self._judge(self._jobs())
        self.say("all is judged")
        for n in self.cluster.nodes:
            for word in ("assertion failed", "Sanitizer", "invariant"):
                self.check(word not in n.log(), f"node {n.id}'s log speaks of: {word}")
        left = processes.with_environment("CHRONOS_JOB_ID=")
        self.check(not left, f"processes of ended jobs are left: {left[:5]}")
        return ticks

    def _catch_up(self):
        """The watches have seen all there is."""
        jobs = self._jobs()
        last = max((j.updated_index for j in jobs), default=0)
        wait_for(lambda: (self.history.refresh(), all(
            e and e[-1].d["index"] >= last for e in self.history.events.values()))[1], 10, 0.1)
        for p in self.loads:
            p.stdin.close()
        for p in self.loads:
            if wait_for(lambda p=p: p.poll() is not None, 15) is None:
                p.kill()
        self.history.refresh()

    def _judge(self, jobs):
        h = self.history
        ops = h.ops
        jobs = [j for j in jobs if not j.spec.name.startswith("final")]
        once = {o.d["job"] for o in ops if o.kind == "submit" and o.outcome == "ok" and
                o.d["once"]}
        found = judges.sets(ops, jobs) + judges.real_time(ops) + judges.sessions(ops) + \
            judges.ends(jobs, ops)
        chain_bad, chains, gaps = judges.watches(h.events)
        found += chain_bad + judges.reads(ops, chains, gaps)
        if gaps and not self.gaps_allowed:
            found.append(f"watches could not be resumed: {gaps}")
        lines = judges.read_marks(self.marks)
        found += judges.marks(lines, jobs, once, self.excused)
        bad, keys, unknown = wgl.judge(ops)
        found += bad
        second = self._second_judge()
        self.notes.append(f"{keys} keys searched ({unknown} unknown calls), "
                          f"{sum(map(len, chains.values()))} transitions, {len(lines)} marks"
                          f"{f', {len(gaps)} watch gaps' if gaps else ''}{second}")
        for text in found:
            self.fail(text)
        h.export(f"{self.cluster.directory}/history.txt")

    def _second_judge(self):
        """chronos-sim --check-history, when that is built beside the binary."""
        import cluster as lib  # pylint: disable=import-outside-toplevel
        sim = pathlib.Path(lib.BIN).with_name("chronos-sim")
        if not sim.exists():
            return ""
        path = f"{self.cluster.directory}/history.txt"
        count = self.history.export(path)
        code, out, err = processes.run([str(sim), "--check-history", path], seconds=90)
        self.check(code == 0, f"chronos-sim --check-history: {code}: {(out + err)[-600:]}")
        return f", {count} calls judged twice"

    def end(self):
        """Everything stops, whatever happened."""
        for p in self.loads:
            if p.poll() is None:
                p.kill()
                p.wait()
        self.cluster.stop()
        for book in [self.book] if self.book else []:
            for client in book.calls.clients.values():
                client.close()

    def summary(self):
        self.history.refresh()
        ok = sum(o.outcome == "ok" for o in self.history.ops)
        unknown = sum(o.outcome == "unknown" for o in self.history.ops)
        slow = ", ".join(f"{k} {max(v):.1f} s" for k, v in self.took.items())
        faults = ", ".join(f"{k} {v}" for k, v in sorted(self.faults.items()))
        return (f"{self.rate:.0f} calls/s before the faults, {len(self.history.ops)} calls "
                f"({ok} ok, {unknown} unknown), faults: {faults or 'none'}; slowest: {slow or '-'}")
