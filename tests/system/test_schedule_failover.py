#!/usr/bin/python3
"""Schedules while the leader is killed again and again: no tick without an outcome, none twice.

Goal: of hundreds of schedules each nominal tick has exactly one outcome, whatever happens to the
leaders (lib/schedules.py, Book). Method: three nodes, the leader killed with kill -9 every few
seconds and started again a while later, at any moment and in the middle of many ticks; half way all
three for longer than an interval, so that ticks are missed.

CHRONOS_SCHEDULES, CHRONOS_EVERY_S, CHRONOS_KILL_S, CHRONOS_FAILOVER_S, CHRONOS_SEED: see
tools/soak.sh for the long run.
"""
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
SLACK_MS = 1000  # of a tick behind its time, or behind the election


class World:
    def __init__(self):
        self.cluster = Cluster(3, flags=("--worker.slots", "16"))
        self.kills = []  # (killed, a leader seen) in ms of the wall clock
        self.blackout = (0, 0)
        self.book = schedules.Book(self.cluster, COUNT, EVERY_S)


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
    b = w.book
    b.open(c, int(SECONDS))
    at_ms = b.start_s * 1000 + rng.randrange(1000)
    half_ms = (b.start_s + b.end_s) * 500
    while at_ms < b.end_s * 1000:
        if rng.random() < 0.5:  # while the ticks of a second are under way
            at_ms += rng.randrange(0, 40) - at_ms % 1000
        sleep_until(at_ms)
        kill_leader(c, w)
        if w.blackout[1] == 0 and at_ms >= half_ms - KILL_S * 1000:  # once, about the middle
            kill_all(c, w)
        at_ms = max(at_ms + KILL_S * 1000, now_ms()) + rng.randrange(-400, 400)
    sleep_until(b.end_s * 1000)
    took = [b - a for a, b in w.kills]
    print(f"#       {len(took)} leaders killed; the next one was seen after "
          f"{schedules.percentile(took, 0.5)} ms (median), {max(took)} ms (most)")
    c.check("as many leaders were killed as planned",
            len(took) >= int((SECONDS - EVERY_S * 1.5 - 4) / (KILL_S + 1)), took)


def test_books(c, w):
    c.require("the cluster is whole again", w.cluster.wait_ready(30))
    w.book.check_history(c)
    c.check("and of those of the time without any node some did not run", w.book.not_run)
    w.book.check_records(c)


def test_lateness(c, w):
    """Late by at most the time without a leader and a second."""
    late = schedules.lateness(w.book.ticks)
    print(f"#       {schedules.describe(late)}, with those of the time without any node")
    fell = [t.decided_at_ms - t.tick_ms for outcomes in w.book.ticks.values() for t in outcomes
            if t.fired and any(killed <= t.tick_ms <= seen for killed, seen in w.kills)]
    print(f"#       due between a kill and the next leader: {schedules.describe(fell)}")
    bad, away = [], [*w.kills, w.blackout]
    for n, outcomes in w.book.ticks.items():
        for t in outcomes:
            if not t.fired or t.reason == S.TICK_REASON_CATCH_UP or \
                    t.reason == S.TICK_REASON_BUFFERED:
                continue
            due = max([seen for killed, seen in away if killed - 50 <= t.tick_ms <= seen],
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
    checks.run(*checks.bind(world, test_kill_leaders, test_books, test_lateness,
                            test_state), on_failure=world.cluster.print_logs)
