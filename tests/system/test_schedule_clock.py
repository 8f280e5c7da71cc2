#!/usr/bin/python3
"""The leader's clock is set forward and back by 100 s while hundreds of ticks are under way.

Goal: no tick twice and none without an outcome, however the clock of the one that decides is set
(lib/schedules.py, Book), and an alarm that says so. Method: three nodes under libfaketime, each
with a clock of its own that a file sets; the monotonic clock is left alone, as it is when a real
clock is set. The leader's clock goes back by 100 s (nothing is due for a while), to the right time
again (what was due meanwhile is late), 100 s ahead (ticks of the future are decided), back, and
ahead again until the schedules end; then the leader is killed, and the next one's clock is right.
"""
import os
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))

import checks  # noqa: E402
import schedules  # noqa: E402
from cluster import Cluster  # noqa: E402

LIBRARIES = sorted(pathlib.Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
COUNT, EVERY_S, STEP_S = 60, 4, 100
RIGHT_S, STEPPED_S = 6, 6


class World:
    def __init__(self):
        self.cluster = Cluster(3, flags=("--worker.slots", "64"), start=False)
        self.book = schedules.Book(self.cluster, COUNT, EVERY_S)

    def clock_file(self, node):
        return f"{self.cluster.directory}/clock{node.id}"

    def set_clock(self, node, by_s):
        """At once, not in two steps: the file is read at any moment."""
        temporary = self.clock_file(node) + ".new"
        pathlib.Path(temporary).write_text(f"{by_s:+d}\n", encoding="ascii")
        os.replace(temporary, self.clock_file(node))

    def start(self, node):
        """Its worker and its jobs have the same clock."""
        fake = {"LD_PRELOAD": str(LIBRARIES[0]), "FAKETIME_TIMESTAMP_FILE": self.clock_file(node),
                "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                "FAKETIME_DONT_RESET": "1"}
        os.environ.update(fake)
        try:
            node.start()
        finally:
            for name in fake:
                del os.environ[name]

    def alarms(self, seconds=5):
        def find():
            s = next((n for n in self.cluster.live()), None).status(local=False)
            return [a for a in s.alarms if "clock_suspect" in a] if s else []
        return checks.wait_for(find, seconds, 0.1)


def sleep(seconds):
    until = time.monotonic() + seconds
    checks.wait_for(lambda: time.monotonic() >= until, seconds + 1, 0.05)


def test_start(c, w):
    c.require("libfaketime is here", LIBRARIES)
    for n in w.cluster.nodes:
        os.makedirs(n.data_dir, mode=0o700, exist_ok=True)
        w.set_clock(n, 0)
        w.start(n)
    c.require("the cluster is ready", w.cluster.wait_ready(20))
    c.check("nobody suspects a clock", not w.alarms(1), w.alarms(0))


def fired(w):
    return sum(s.fired for s in w.book.calls.get(w.book.names).values())


def test_steps(c, w):
    b = w.book
    b.open(c, RIGHT_S + STEPPED_S + RIGHT_S + STEP_S + 2 * STEPPED_S)
    leader = w.cluster.leader()
    sleep(b.start_s - time.time() + RIGHT_S)
    w.set_clock(leader, -STEP_S)
    sleep(1.5)
    before = fired(w)
    c.check("ticks fired before", before > COUNT, before)
    alarms = w.alarms()
    c.check("clock_suspect, and of which node", any(f"node {leader.id}" in a for a in alarms),
            alarms)
    print(f"#       {alarms}")
    sleep(STEPPED_S - 1.5)
    c.equal("behind the watermark nothing is due", fired(w), before)
    w.set_clock(leader, 0)
    sleep(RIGHT_S)
    c.check("with the right time it goes on", fired(w) > before, fired(w))
    w.set_clock(leader, STEP_S)
    sleep(STEPPED_S)
    ahead = fired(w)
    w.set_clock(leader, 0)
    sleep(STEPPED_S)
    c.equal("set back: what is decided is not decided again", fired(w), ahead)
    w.set_clock(leader, STEP_S)
    sleep(STEPPED_S)
    c.check("nobody else was made the leader by a clock", w.cluster.leader() is leader)
    sleep(STEPPED_S)


def test_books(c, w):
    b = w.book
    b.wait_decided(c)
    leader = w.cluster.leader()
    w.set_clock(leader, 0)
    leader.kill()
    c.require("another one leads", w.cluster.leader(seconds=10, other_than=leader) is not None)
    w.start(leader)
    c.require("the cluster is whole again", w.cluster.wait_ready(30))
    b.check_history(c)
    c.check("some ticks were missed", b.not_run)
    b.check_records(c)
    same, text = w.cluster.digests_equal()
    c.check("digests are equal on all nodes", same, text)
    w.cluster.stop()


if __name__ == "__main__":
    world = World()
    checks.run(*checks.bind(world, test_start, test_steps, test_books),
               on_failure=world.cluster.print_logs)
