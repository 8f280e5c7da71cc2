#!/usr/bin/python3
"""A node needs the memory that docs/ARCHITECTURE.md states, not more.

Goal: resident memory of a real server stays below the stated sum at 0, 10,000 and 100,000 pending
jobs, right after they were submitted and again after a restart, when nothing is left but what a job
costs; so do idempotency keys and connections. Method: the figures are read from the document's
table, so that document and test cannot disagree; the slope between the two sizes is the cost of one
job, free of everything that is constant.
"""
import pathlib
import re
import signal
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))

import checks  # noqa: E402
import processes  # noqa: E402
import rpc  # noqa: E402
from cluster import ROOT, Cluster  # noqa: E402

MIB = 1 << 20
FEW, MANY, KEYED = 10000, 100000, 50000
CONNECTIONS = 300
EVENTS = 65536  # limits.watch_events
UNITS = {"B": 1, "KiB": 1 << 10, "MiB": MIB}
ROW = re.compile(r"^\| `(\w+)` \| (\d+) (B|KiB|MiB) \|", re.M)


def stated():
    text = (ROOT / "docs/ARCHITECTURE.md").read_text(encoding="utf-8")
    return {name: int(number) * UNITS[unit] for name, number, unit in ROW.findall(text)}


def resident(node):
    return processes.rss_kib(node.pid) * 1024


def fill(node, count, key=""):
    for first in range(0, count, 500):
        node.client._job(  # pylint: disable=protected-access
            "SubmitJobs", 60, jobs=[rpc.service_pb.SubmitJobRequest(
                spec=rpc.noop(), idempotency_key=f"{key}{first + i}" if key else "")
                for i in range(min(500, count - first))])


def restart(w):
    """Resident memory of the node when it has just begun: only what the state costs."""
    node = w.nodes[0]
    if node.kill(signal.SIGTERM) != 0:
        raise checks.Abort("the node did not stop well")
    node.start()
    if not w.wait_ready(30):
        raise checks.Abort("the node did not come back: " + node.log()[-500:])
    return resident(node)


def show(what, got, bound):
    print(f"#       {what}: {got / MIB:.1f} MiB, stated {bound / MIB:.1f} MiB")


def test_jobs(c, w, cost):
    node = w.nodes[0]
    sizes = {0: restart(w)}
    c.check("an empty node is below its base", sizes[0] <= cost["base"], sizes[0])
    show("empty", sizes[0], cost["base"])
    for count in (FEW, MANY):
        have = 0 if count == FEW else FEW
        fill(node, count - have)
        c.equal(f"{count} jobs: all are pending", node.status().jobs_pending, count)
        bound = cost["base"] + cost["store"] + cost["unwritten"] + count * cost["job"] + \
            min(count, EVENTS) * cost["event"]
        got = resident(node)
        show(f"{count} jobs, just submitted", got, bound)
        c.check(f"{count} jobs, just submitted", got <= bound, got)
        sizes[count] = restart(w)
        bound = cost["base"] + cost["store"] + count * cost["job"]
        show(f"{count} jobs, after a restart", sizes[count], bound)
        c.check(f"{count} jobs, after a restart", sizes[count] <= bound, sizes[count])
    each = (sizes[MANY] - sizes[FEW]) / (MANY - FEW)
    print(f"#       each job: {each:.0f} bytes, stated {cost['job']}")
    c.check("what one more job costs is what is stated", each <= cost["job"], each)
    # Otherwise the test would not have seen the jobs.
    c.check("and more than half of it", each > cost["job"] / 2, each)


def test_keys(c, w, cost):
    before = resident(w.nodes[0])
    fill(w.nodes[0], KEYED, "a key of usual length ")
    each = (restart(w) - before) / KEYED
    bound = cost["job"] + cost["key"]
    print(f"#       each job with a key: {each:.0f} bytes, stated {bound}")
    c.check("a job with a key", each <= bound, each)


def test_connections(c, w, cost):
    node = w.nodes[0]
    before = resident(node)
    clients = [rpc.Client(node.address) for _ in range(CONNECTIONS)]
    for client in clients:
        client.status(local=True)
    each = (resident(node) - before) / CONNECTIONS
    print(f"#       each connection: {each / 1024:.1f} KiB, stated {cost['connection'] / 1024}")
    c.check("a connection", each <= cost["connection"], each)
    for client in clients:
        client.close()


def test_memory(c):
    cost = stated()
    c.require("the document states the figures", {
        "base", "store", "unwritten", "event", "job", "key", "connection"} <= set(cost), cost)
    w = Cluster(1, workers=False)
    test_jobs(c, w, cost)
    test_keys(c, w, cost)
    test_connections(c, w, cost)
    w.stop()


if __name__ == "__main__":
    checks.run(test_memory)
