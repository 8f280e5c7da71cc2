"""Many schedules at a time, and the books of what became of their ticks."""
import calendar
import collections
import os
import pathlib
import time

import grpc

import rpc
from checks import Abort, wait_for

S = rpc.schedule_pb
CALLS = 64  # under way at a time
LINE = ('echo "{what} $CHRONOS_SCHEDULE_ID $CHRONOS_SCHEDULED_AT $CHRONOS_JOB_ID $CHRONOS_ATTEMPT"'
        ' >> {path}')
MISSED = (S.MISSED_POLICY_ONCE, S.MISSED_POLICY_ALL, S.MISSED_POLICY_ONCE, S.MISSED_POLICY_SKIP)
OVERLAP = (S.OVERLAP_POLICY_ALLOW, S.OVERLAP_POLICY_SKIP, S.OVERLAP_POLICY_BUFFER_ALL)


class Calls:
    """Calls of the ScheduleService to all nodes in turn, many at a time, repeated when no node
    leads."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.clients = {}

    def _client(self, i):
        nodes = self.cluster.live()
        node = nodes[i % len(nodes)]
        # A node that was started again listens where it did: connections come back by themselves.
        if node.address not in self.clients:
            self.clients[node.address] = rpc.Client(node.address)
        return self.clients[node.address]

    def _start(self, i, method, request, response):
        call = self._client(i).channel.unary_unary(
            f"/chronos.v1.ScheduleService/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=response.FromString)
        return call.future(request, timeout=10)

    def many(self, method, requests, response, seconds=60):
        """All answers, in the order of the requests."""
        until = time.monotonic() + seconds
        answers = [None] * len(requests)
        todo = list(range(len(requests)))
        while todo:
            again = []
            for first in range(0, len(todo), CALLS):
                part = todo[first:first + CALLS]
                futures = [(i, self._start(i, method, requests[i], response)) for i in part]
                for i, f in futures:
                    try:
                        answers[i] = f.result()
                    except grpc.RpcError as e:
                        if rpc.code_of(e) not in ("UNAVAILABLE", "DEADLINE_EXCEEDED",
                                                  "RESOURCE_EXHAUSTED"):
                            raise
                        if time.monotonic() > until:
                            raise Abort(f"{method}: {len(todo)} calls are left: {e.details()}")
                        again.append(i)
            todo = again
        return answers

    def create(self, specs, seconds=60):
        pb = rpc.schedules_pb
        self.many("CreateSchedule", [pb.CreateScheduleRequest(spec=s, idempotency_key=s.name)
                                     for s in specs], pb.ScheduleResponse, seconds)

    def ticks(self, names, seconds=60, **fields):
        """{name: its outcomes, oldest first}"""
        pb = rpc.schedules_pb
        answers = self.many("ListTicks", [pb.ListTicksRequest(name=n, page_size=1000, **fields)
                                          for n in names], pb.ListTicksResponse, seconds)
        return {n: list(reversed(a.ticks)) for n, a in zip(names, answers)}

    def get(self, names, seconds=60):
        pb = rpc.schedules_pb
        answers = self.many("GetSchedule", [pb.GetScheduleRequest(name=n) for n in names],
                            pb.ScheduleResponse, seconds)
        return {n: a.schedule for n, a in zip(names, answers)}


def percentile(values, share):
    """The smallest value that @share of all do not exceed; 0 of none."""
    values = sorted(values)
    return values[max(0, -(-int(len(values) * share * 1000) // 1000) - 1)] if values else 0


def lateness(ticks):
    """Milliseconds from tick to decision of each that ran, of all schedules given."""
    return [t.decided_at_ms - t.tick_ms for outcomes in ticks.values() for t in outcomes if t.fired]


def describe(values):
    return (f"{len(values)} ticks, late by {percentile(values, 0.5)} ms (median), "
            f"{percentile(values, 0.99)} ms (p99), {max(values, default=0)} ms (most)")


class Book:
    """Each nominal tick has exactly one outcome: one run, that began and ended as its process saw
    it, or a line of the missed ledger that says why there was none.

    The book knows the start, end and interval of each schedule and computes the ticks by itself; of
    the cluster it sees two things only: what the runs append to a file (schedule, tick, job,
    attempt, at their beginning and at their end) and the history. Both must name every tick, and
    agree. The policies are mixed: missed once, skip and all; overlap allow, skip and buffer. No
    schedule may have more than 100 lines of history: that is all that is kept."""

    def __init__(self, cluster, count, every_s):
        self.calls = Calls(cluster)
        self.path = os.path.join(cluster.directory, "lines")
        self.every_s = every_s
        self.names = [f"s{i:04d}" for i in range(count)]
        self.start_s = self.end_s = 0
        self.ticks = {}  # name -> outcomes
        self.ran, self.not_run = {}, set()  # (name, second) -> job; (name, second)

    def phase(self, i):
        """Half of them tick in the same second, the others are spread over all seconds."""
        return 0 if i % 2 == 0 else i // 2 % self.every_s

    def spec(self, i):
        phase = self.phase(i)
        job = rpc.shell("; ".join(LINE.format(what=w, path=self.path) for w in "be"))
        return S.ScheduleSpec(
            name=self.names[i], job=job, missed=MISSED[i % len(MISSED)],
            cron=[f"@every {self.every_s}s" + (f"/{phase}s" if phase else "")],
            overlap=OVERLAP[i % len(OVERLAP)], start_ms=self.start_s * 1000,
            end_ms=self.end_s * 1000)

    def expected(self, i):
        """Its nominal ticks, in seconds."""
        first = self.start_s + (self.phase(i) - self.start_s) % self.every_s
        return range(first, self.end_s, self.every_s)

    def open(self, c, seconds):
        """Create them; their ticks begin soon after and go on so long."""
        self.start_s = int(time.time()) + 4 + len(self.names) // 200
        self.end_s = self.start_s + seconds
        self.calls.create([self.spec(i) for i in range(len(self.names))])
        c.require("they are created before the first tick", time.time() < self.start_s,
                  time.time() - self.start_s)

    def wait_decided(self, c, seconds=60):
        last_ms = {n: self.expected(i)[-1] * 1000 for i, n in enumerate(self.names)
                   if self.expected(i)}
        state = {}

        def decided():
            state.update(self.calls.get(self.names))
            return all(state[n].watermark_ms >= ms and not state[n].open_job_ids and
                       not state[n].buffered for n, ms in last_ms.items())
        c.check("all ticks are decided and all runs over", wait_for(decided, seconds, 0.3),
                [(n, s.watermark_ms, len(s.open_job_ids), s.buffered) for n, s in state.items()
                 if s.watermark_ms < last_ms[n] or s.open_job_ids or s.buffered][:5])
        return state

    def _read(self, i, outcomes, reasons, strange):
        """The history of one schedule."""
        name = self.names[i]
        for t in self.ticks[name]:
            covered = [s for s in range(t.tick_ms // 1000, t.last_tick_ms // 1000 + 1)
                       if (s - self.phase(i)) % self.every_s == 0]
            if len(covered) != t.count:
                strange.append((name, t))
            outcomes.update((name, s) for s in covered)
            reasons[S.TickReason.Name(t.reason)[12:].lower()] += t.count
            if t.fired:
                self.ran[(name, t.tick_ms // 1000)] = t.job_id
            else:
                self.not_run.update((name, s) for s in covered)

    def all_expected(self):
        return {(n, s) for i, n in enumerate(self.names) for s in self.expected(i)}

    def check_history(self, c):
        """Every nominal tick has one outcome in the history, and no other instant has any."""
        state = self.wait_decided(c)
        self.ticks = self.calls.ticks(self.names)
        strange, outcomes, reasons = [], collections.Counter(), collections.Counter()
        for i, n in enumerate(self.names):
            self._read(i, outcomes, reasons, strange)
            if state[n].fired != sum(t.fired for t in self.ticks[n]):
                strange.append((n, state[n].fired, "fired"))
        expected = self.all_expected()
        lost = sorted(expected - set(outcomes))
        doubled = [(k, v) for k, v in outcomes.items() if v > 1]
        strange += [k for k in outcomes if k not in expected]
        print(f"#       {len(expected)} ticks: {len(self.ran)} ran, {len(self.not_run)} did not; "
              f"without an outcome {len(lost)}, doubled {len(doubled)}; " +
              ", ".join(f"{r} {k}" for r, k in sorted(reasons.items())))
        c.check(f"each of {len(expected)} ticks has an outcome", not lost, (len(lost), lost[:5]))
        c.check("none has two", not doubled, (len(doubled), doubled[:5]))
        c.check("and nothing else has any", not strange, strange[:5])

    def check_records(self, c):
        """What the runs wrote down, against the ticks of the book."""
        begun, ended = collections.defaultdict(list), collections.defaultdict(list)
        for line in pathlib.Path(self.path).read_text(encoding="ascii").splitlines():
            what, name, tick, job, attempt = line.split()
            second = calendar.timegm(time.strptime(tick, "%Y-%m-%dT%H:%M:%S.000Z"))
            (begun if what == "b" else ended)[(name, second)].append((job, int(attempt)))
        expected = self.all_expected()
        lost = sorted(expected - set(ended) - self.not_run)
        c.check("each tick has a run that ended, or is in the missed ledger", not lost,
                (len(lost), lost[:5], [self.ran.get(x) for x in lost[:5]]))
        both = sorted((set(begun) | set(ended)) & self.not_run)
        c.check("none has both", not both, both[:5])
        doubled = [(k, v) for k, v in begun.items() if len({j for j, _ in v}) > 1]
        c.check("none has runs of two jobs", not doubled, doubled[:5])
        twice = [(k, v) for lines in (begun, ended) for k, v in lines.items()
                 if len(set(v)) < len(v)]
        c.check("no attempt began or ended twice", not twice, twice[:5])
        other = [(k, v, self.ran.get(k)) for k, v in begun.items() if self.ran.get(k) != v[0][0]]
        c.check("it is the job that the history names", not other, other[:5])
        strange = sorted(set(begun) - expected)
        c.check("nothing ran for another instant", not strange, strange[:5])
        again = sum(len(v) > 1 for v in begun.values())
        print(f"#       {len(begun)} began, {len(ended)} ended, {again} needed another attempt")
