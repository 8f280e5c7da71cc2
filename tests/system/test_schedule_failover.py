#!/usr/bin/python3
"""Schedules while the leader is killed again and again: no tick without an outcome, none twice.

Goal: of hundreds of schedules each nominal tick has exactly one outcome, whatever happens to the
leaders: one run, that began and ended as its process saw it, or a line of the missed ledger that
says why there was none. Method: three nodes, the leader killed with kill -9 every few seconds and
started again a while later, at any moment and in the middle of many ticks; half way all three for
longer than an interval, so that ticks are missed. The oracle
knows the start, end and interval of each schedule and computes the ticks by itself; of the cluster
it sees two things only: what the runs append to a file (schedule, tick, job, attempt, at their
beginning and at their end) and the history. Both must name every tick, and agree.
The policies are mixed: missed once, skip and all; overlap allow, skip and buffer.

CHRONOS_SCHEDULES, CHRONOS_EVERY_S, CHRONOS_KILL_S, CHRONOS_FAILOVER_S, CHRONOS_SEED: see
tools/soak.sh for the long run.
"""
import calendar
import collections
import os
import pathlib
import random
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))

import checks  # noqa: E402
import processes  # noqa: E402
import rpc  # noqa: E402
import schedules  # noqa: E402
from cluster import Cluster  # noqa: E402

S = rpc.schedule_pb
COUNT = int(os.environ.get("CHRONOS_SCHEDULES", "200"))
EVERY_S = int(os.environ.get("CHRONOS_EVERY_S", "4"))
KILL_S = float(os.environ.get("CHRONOS_KILL_S", "5"))
SECONDS = float(os.environ.get("CHRONOS_FAILOVER_S", "30"))
SEED = int(os.environ.get("CHRONOS_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
AWAY_S = 2  # from the kill to the next start
SLACK_MS = 1000  # of a tick behind its time, or behind the election: issue's bound
LINE = ('echo "{what} $CHRONOS_SCHEDULE_ID $CHRONOS_SCHEDULED_AT $CHRONOS_JOB_ID $CHRONOS_ATTEMPT"'
        ' >> {path}')
MISSED = (S.MISSED_POLICY_ONCE, S.MISSED_POLICY_ALL, S.MISSED_POLICY_ONCE, S.MISSED_POLICY_SKIP)
OVERLAP = (S.OVERLAP_POLICY_ALLOW, S.OVERLAP_POLICY_SKIP, S.OVERLAP_POLICY_BUFFER_ALL)


class World:
    def __init__(self):
        self.cluster = Cluster(3, flags=("--worker.slots", "16"))
        self.path = os.path.join(self.cluster.directory, "lines")
        self.calls = schedules.Calls(self.cluster)
        self.kills = []  # (killed, a leader seen) in ms of the wall clock
        self.blackout = (0, 0)
        self.start_s = self.end_s = 0
        self.names = [f"s{i:04d}" for i in range(COUNT)]

    def phase(self, i):
        """Half of them tick in the same second, the others are spread over all seconds."""
        return 0 if i % 2 == 0 else i // 2 % EVERY_S

    def spec(self, i):
        phase = self.phase(i)
        job = rpc.shell("; ".join(LINE.format(what=w, path=self.path) for w in "be"))
        return S.ScheduleSpec(
            name=self.names[i], job=job, missed=MISSED[i % len(MISSED)],
            cron=[f"@every {EVERY_S}s" + (f"/{phase}s" if phase else "")],
            overlap=OVERLAP[i % len(OVERLAP)], start_ms=self.start_s * 1000,
            end_ms=self.end_s * 1000)

    def expected(self, i):
        """Its nominal ticks, in seconds."""
        first = self.start_s + (self.phase(i) - self.start_s) % EVERY_S
        return range(first, self.end_s, EVERY_S)


def now_ms():
    return time.time_ns() // 1000000


def sleep_until(ms):
    checks.wait_for(lambda: now_ms() >= ms, max(0, ms - now_ms()) / 1000 + 1, 0.02)


def kill_leader(c, w):
    leader = w.cluster.leader(seconds=10)
    c.require("there is a leader to kill", leader is not None)
    killed_ms = now_ms()
    leader.kill()
    other = w.cluster.leader(seconds=10, other_than=leader)
    w.kills.append((killed_ms, now_ms()))
    c.require("another one leads", other is not None)
    sleep_until(killed_ms + AWAY_S * 1000)
    leader.start()


def kill_all(c, w):
    killed_ms = now_ms()
    for n in w.cluster.nodes:
        n.process.kill()
    for n in w.cluster.nodes:
        n.wait(5)
    sleep_until(killed_ms + EVERY_S * 1500 + 2500)
    for n in w.cluster.nodes:
        n.start()
    c.require("a leader after all were away", w.cluster.leader(seconds=15) is not None)
    w.blackout = (killed_ms, now_ms())


def test_kill_leaders(c, w):
    print(f"#       seed {SEED}; {COUNT} schedules every {EVERY_S} s; the leader is killed every "
          f"{KILL_S:g} s for {SECONDS:g} s", flush=True)
    rng = random.Random(SEED)
    w.start_s = int(time.time()) + 5 + COUNT // 200
    w.end_s = w.start_s + int(SECONDS)
    w.calls.create([w.spec(i) for i in range(COUNT)])
    c.require("they are created before the first tick", now_ms() < w.start_s * 1000,
              now_ms() - w.start_s * 1000)
    at_ms = w.start_s * 1000 + rng.randrange(1000)
    half_ms = (w.start_s + w.end_s) * 500
    while at_ms < w.end_s * 1000:
        if rng.random() < 0.5:  # while the ticks of a second are under way
            at_ms += rng.randrange(0, 40) - at_ms % 1000
        sleep_until(at_ms)
        kill_leader(c, w)
        if at_ms < half_ms <= at_ms + KILL_S * 1000:
            kill_all(c, w)
        at_ms = max(at_ms + KILL_S * 1000, now_ms()) + rng.randrange(-400, 400)
    sleep_until(w.end_s * 1000)
    took = [b - a for a, b in w.kills]
    print(f"#       {len(took)} leaders killed; the next one was seen after "
          f"{schedules.percentile(took, 0.5)} ms (median), {max(took)} ms (most)")
    c.check("as many leaders were killed as planned",
            len(took) >= int((SECONDS - EVERY_S * 1.5 - 4) / (KILL_S + 1)), took)


def test_history(c, w):
    """Every nominal tick has one outcome in the history, and no other instant has any."""
    c.require("the cluster is whole again", w.cluster.wait_ready(30))
    last_ms = {n: w.expected(i)[-1] * 1000 for i, n in enumerate(w.names) if w.expected(i)}
    state = {}

    def decided():
        state.update(w.calls.get(w.names))
        return all(state[n].watermark_ms >= ms and not state[n].open_job_ids and
                   not state[n].buffered for n, ms in last_ms.items())
    c.check("all ticks are decided and all runs over", checks.wait_for(decided, 60, 0.3),
            [(n, s.watermark_ms, len(s.open_job_ids), s.buffered) for n, s in state.items()
             if s.watermark_ms < last_ms[n] or s.open_job_ids or s.buffered][:5])
    w.ticks = w.calls.ticks(w.names)
    lost, doubled, strange = [], [], []
    w.ran, w.not_run, reasons = {}, set(), collections.Counter()
    for i, n in enumerate(w.names):
        outcomes = collections.Counter()
        for t in w.ticks[n]:
            covered = [s for s in range(t.tick_ms // 1000, t.last_tick_ms // 1000 + 1)
                       if (s - w.phase(i)) % EVERY_S == 0]
            if len(covered) != t.count:
                strange.append((n, t))
            outcomes.update(covered)
            reasons[(S.TickReason.Name(t.reason)[12:], t.fired)] += t.count
            if t.fired:
                w.ran[(n, t.tick_ms // 1000)] = t.job_id
            else:
                w.not_run.update((n, s) for s in covered)
        lost += [(n, s) for s in w.expected(i) if s not in outcomes]
        doubled += [(n, s) for s, k in outcomes.items() if k > 1]
        strange += [(n, s) for s in outcomes if s not in w.expected(i)]
        if state[n].fired != sum(t.fired for t in w.ticks[n]):
            strange.append((n, state[n].fired, "fired"))
    total = sum(len(w.expected(i)) for i in range(COUNT))
    print(f"#       {total} ticks: {len(w.ran)} ran, {len(w.not_run)} did not; "
          f"without an outcome {len(lost)}, doubled {len(doubled)}; " +
          ", ".join(f"{r.lower()} {k}" for (r, _), k in sorted(reasons.items())))
    c.check(f"each of {total} ticks has an outcome", not lost, (len(lost), lost[:5]))
    c.check("none has two", not doubled, (len(doubled), doubled[:5]))
    c.check("and nothing else has any", not strange, strange[:5])
    c.check("most of them ran", len(w.ran) > total * 0.6, (len(w.ran), total))
    c.check("and of those of the time without any node some did not", w.not_run)


def test_records(c, w):
    """What the runs wrote down, against the ticks of the oracle."""
    begun, ended = collections.defaultdict(list), collections.defaultdict(list)
    for line in pathlib.Path(w.path).read_text(encoding="ascii").splitlines():
        what, name, tick, job, attempt = line.split()
        second = calendar.timegm(time.strptime(tick, "%Y-%m-%dT%H:%M:%S.000Z"))
        (begun if what == "b" else ended)[(name, second)].append((job, int(attempt)))
    expected = {(n, s) for i, n in enumerate(w.names) for s in w.expected(i)}
    lost = sorted(expected - set(ended) - w.not_run)
    c.check("each tick has a run that ended, or is in the missed ledger", not lost,
            (len(lost), lost[:5], [w.ran.get(x) for x in lost[:5]]))
    both = sorted((set(begun) | set(ended)) & w.not_run)
    c.check("none has both", not both, both[:5])
    doubled = [(k, v) for k, v in begun.items() if len({j for j, _ in v}) > 1]
    c.check("none has runs of two jobs", not doubled, doubled[:5])
    twice = [(k, v) for lines in (begun, ended) for k, v in lines.items() if len(set(v)) < len(v)]
    c.check("no attempt began or ended twice", not twice, twice[:5])
    other = [(k, v, w.ran.get(k)) for k, v in begun.items() if w.ran.get(k) != v[0][0]]
    c.check("it is the job that the history names", not other, other[:5])
    strange = sorted(set(begun) - expected)
    c.check("nothing ran for another instant", not strange, strange[:5])
    again = [(k, v) for k, v in begun.items() if len(v) > 1]
    print(f"#       {len(begun)} began, {len(ended)} ended, {len(again)} needed another attempt")


def test_lateness(c, w):
    """Late by at most the time without a leader and a second."""
    late = schedules.lateness(w.ticks)
    print(f"#       {schedules.describe(late)}")
    bad = []
    for n, outcomes in w.ticks.items():
        for t in outcomes:
            if not t.fired or t.reason == S.TICK_REASON_CATCH_UP or \
                    t.reason == S.TICK_REASON_BUFFERED:
                continue
            due = max([seen for killed, seen in [*w.kills, w.blackout] if killed - 50 <= t.tick_ms <= seen],
                      default=t.tick_ms)
            if t.decided_at_ms - due > SLACK_MS:
                bad.append((n, t.tick_ms, t.decided_at_ms - due))
    c.check(f"all but a few ran within {SLACK_MS} ms of their time, or of the election",
            len(bad) <= len(late) // 100, (len(bad), len(late), bad[:5]))


def test_state(c, w):
    same, text = w.cluster.digests_equal()
    c.check("digests are equal on all nodes", same, text)
    crashed = [n.id for n in w.cluster.nodes if "assertion failed" in n.log()]
    c.check("no assertion failed", not crashed, crashed)
    left = processes.with_environment("CHRONOS_JOB_ID=")
    c.check("no process of a run is left", not left, left[:5])
    w.cluster.stop()


if __name__ == "__main__":
    world = World()
    checks.run(*checks.bind(world, test_kill_leaders, test_history, test_records, test_lateness,
                            test_state), on_failure=world.cluster.print_logs)
