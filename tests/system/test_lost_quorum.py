#!/usr/bin/python3
"""Without a majority: the two errors, within their times, and a return without help.

Goal: a submit gets DEADLINE_EXCEEDED after 5 s and its text says whether the job may exist; when
the channel of pending proposals is full the next one gets RESOURCE_EXHAUSTED at once with a hint
when to retry; with the majority back everything continues by itself, and an unknown outcome is 0 or
1 job, never 2. Method: SIGSTOP (and SIGKILL) of two nodes of three; limits by flags and the default
ones.
"""
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))

import grpc  # noqa: E402

import checks  # noqa: E402
import rpc  # noqa: E402
from cluster import Cluster  # noqa: E402

COMMIT_S = 5
SLACK_S = 0.7
CODE = grpc.StatusCode


class Call:
    """One submit under way; knows how it ended and after how long."""

    def __init__(self, client, name, timeout=30):
        self.name = name
        self.begun = time.monotonic()
        self.ended = None
        self.future = client.submit_future(rpc.noop(name=name), key=name, timeout=timeout)
        self.future.add_done_callback(self.on_done)

    def on_done(self, _future):
        self.ended = time.monotonic()

    def wait(self):
        checks.wait_for(lambda: self.ended is not None, 40)
        return self.future.code() if self.ended else None

    @property
    def seconds(self):
        return (self.ended or time.monotonic()) - self.begun


def lose_majority(cluster, keep):
    for n in cluster.nodes:
        if n is not keep:
            n.freeze()


def get_majority(cluster, keep):
    for n in cluster.nodes:
        if n is not keep:
            n.thaw()


def no_leader(node):
    v = node.status()
    return v and v.leader_id == 0


def check_timeout(c, what, calls, texts):
    codes = {call.wait() for call in calls}
    c.equal(f"{what}: DEADLINE_EXCEEDED", codes, {CODE.DEADLINE_EXCEEDED})
    worst = [call.seconds for call in calls if not COMMIT_S - SLACK_S < call.seconds <
             COMMIT_S + SLACK_S]
    c.check(f"{what}: after 5 s", not worst, worst[:5])
    said = {call.future.details() for call in calls}
    c.check(f"{what}: the text says the outcome",
            said and all(any(t in s for t in texts) for s in said), said)


def test_timeouts(c):
    cluster = Cluster(3)
    leader = cluster.leader()
    done = leader.client.submit(rpc.noop(name="before")).job_id
    lose_majority(cluster, leader)
    # At once: the node still leads and appends, so the outcome is unknown.
    early = [Call(leader.client, f"early{i}") for i in range(5)]
    c.check("the leader alone steps down", checks.wait_for(lambda: no_leader(leader), 3))
    # Later: nobody could have taken it.
    late = [Call(leader.client, f"late{i}") for i in range(5)]
    short = Call(leader.client, "short", timeout=1)
    c.equal("the client's own deadline is honoured", short.wait(), CODE.DEADLINE_EXCEEDED)
    c.check("it is shorter", 0.8 < short.seconds < 1.7, short.seconds)
    short = [Call(leader.client, f"brief{i}", timeout=2) for i in range(3)]
    codes = {call.wait() for call in short}
    said = {call.future.details() for call in short}
    c.check("with a deadline of 2 s the text still arrives", codes == {CODE.DEADLINE_EXCEEDED} and
            all("not submitted" in s or "outcome unknown" in s for s in said), (codes, said))
    begun = time.monotonic()
    try:
        leader.client.get(done, timeout=10)
        answer = "OK"
    except grpc.RpcError as e:
        answer = rpc.code_of(e)
    c.check("a linearizable read fails in bounded time", answer == "UNAVAILABLE" and
            time.monotonic() - begun < COMMIT_S + SLACK_S, (answer, time.monotonic() - begun))
    c.equal("a stale read is served", leader.client.get(done, stale=True).id, done)
    check_timeout(c, "appended, not committed", early, ("outcome unknown", "not submitted"))
    check_timeout(c, "no leader", late, ("not submitted",))
    code, out, err = cluster.cli("job", "submit", "--call-timeout", "2s", "-a", leader.address,
                                 "--", "true")
    c.check("the command line ends with 4 and says why on standard error",
            code == 4 and out == "" and ("not submitted" in err or "outcome unknown" in err),
            (code, out, err))
    get_majority(cluster, leader)
    c.require("the majority is back: a leader", cluster.wait_ready())
    again = [leader.client.submit(rpc.noop(name=call.name), call.name).job_id
             for call in early + late]
    c.equal("a repetition with the same keys gives one job each", len(set(again)), 10)
    jobs = [j.spec.name for j in leader.client.list()]
    c.equal("no job is there twice", sorted(n for n in jobs if n.startswith(("early", "late"))),
            sorted(call.name for call in early + late))
    c.check("the job with the short deadline is there at most once", jobs.count("short") <= 1, jobs)
    same, text = cluster.digests_equal()
    c.check("digests are equal", same, text)
    cluster.stop()


def split(calls):
    """(pending, refused): what got RESOURCE_EXHAUSTED within half a second is refused."""
    checks.wait_for(lambda: all(call.ended for call in calls[-1:]), 0.5)
    time_left = [call for call in calls if call.ended]
    refused = [x for x in time_left if x.future.code() == CODE.RESOURCE_EXHAUSTED]
    return [x for x in calls if x not in refused], refused


def check_refused(c, what, refused):
    late = [x.seconds for x in refused if x.seconds > 0.5]
    c.check(f"{what}: refused at once", refused and not late, late[:5])
    hints = {rpc.trailer(x.future, "retry-after-ms") for x in refused}
    c.check(f"{what}: with a hint when to retry",
            hints and all(h and h.isdigit() and 0 < int(h) <= 10000 for h in hints), hints)
    said = {x.future.details() for x in refused}
    c.check(f"{what}: the text says that nothing was submitted",
            all("not submitted" in s for s in said), said)


def test_full_channel(c):
    """The default channel: exactly 256 wait, the others are refused."""
    cluster = Cluster(3)
    leader = cluster.leader()
    lose_majority(cluster, leader)
    c.require("no leader any more", checks.wait_for(lambda: no_leader(leader), 3))
    calls = [Call(leader.client, f"full{i}") for i in range(300)]
    c.check("44 of 300 are refused", checks.wait_for(
        lambda: sum(x.ended is not None for x in calls) == 44, 2),
        sum(x.ended is not None for x in calls))
    pending, refused = split(calls)
    c.equal("256 wait", len(pending), 256)
    check_refused(c, "full channel", refused)
    check_timeout(c, "full channel", pending, ("not submitted",))
    # All of it is answered: there is room again.
    one = Call(leader.client, "room", timeout=1)
    c.equal("after the timeouts there is room again", one.wait(), CODE.DEADLINE_EXCEEDED)
    # Full again, and now the majority returns while they wait.
    calls = [Call(leader.client, f"wait{i}") for i in range(300)]
    checks.wait_for(lambda: sum(x.ended is not None for x in calls) == 44, 2)
    get_majority(cluster, leader)
    codes = [x.wait() for x in calls]
    c.equal("the majority returns: what waited is committed",
            sorted((x.name, x.future.code()) for x in calls if x.future.code() == CODE.OK),
            sorted((x.name, CODE.OK) for x in calls if x.future.code() !=
                   CODE.RESOURCE_EXHAUSTED))
    c.equal("256 of them", codes.count(CODE.OK), 256)
    c.require("all nodes are back", cluster.wait_ready())
    names = [j.spec.name for j in leader.client.list()]
    c.equal("the list holds the committed ones, once each, and no refused one",
            sorted(n for n in names if n.startswith("wait")),
            sorted(x.name for x in calls if x.future.code() == CODE.OK))
    c.equal("and none of those that were not submitted",
            [n for n in names if n.startswith("full")], [])
    same, text = cluster.digests_equal()
    c.check("digests are equal", same, text)
    cluster.stop()


def test_uncommitted_bound(c):
    """Small limits: what a leader without majority accepts is bounded, then the channel fills. A
    long election timeout keeps it leading meanwhile."""
    cluster = Cluster(3, flags=(
        "--limits.pending_proposals", "10", "--limits.uncommitted_entries", "16",
        "--cluster.raft.heartbeat_timeout", "500ms", "--cluster.raft.election_timeout", "3s"),
        start=False)
    cluster.start()
    leader = cluster.leader()
    lose_majority(cluster, leader)
    calls = [Call(leader.client, f"bound{i}") for i in range(60)]
    checks.wait_for(lambda: sum(x.ended is not None for x in calls) >= 34, 1)
    pending, refused = split(calls)
    c.check("at most 16 are appended and 10 wait", 10 < len(pending) <= 26, len(pending))
    check_refused(c, "bounded log", refused)
    v = leader.status()
    c.check("the log holds no more than the bound allows", v and
            v.log_last_index - v.commit_index <= 16, v and (v.log_last_index, v.commit_index))
    check_timeout(c, "bounded log", pending, ("outcome unknown", "not submitted"))
    get_majority(cluster, leader)
    c.require("bounded log: all nodes are back", cluster.wait_ready(20))
    ids = [leader.client.submit(rpc.noop(name=x.name), x.name).job_id for x in calls]
    c.equal("bounded log: repeated with their keys, one job each", len(set(ids)), 60)
    names = [j.spec.name for j in leader.client.list()]
    c.equal("bounded log: no job is there twice", sorted(names), sorted(x.name for x in calls))
    cluster.stop()


def test_killed_majority(c):
    """Two nodes killed instead of frozen, and submits to a follower that is left alone."""
    cluster = Cluster(3)
    leader = cluster.leader()
    keep = next(n for n in cluster.nodes if n is not leader)
    ids = [keep.client.submit(rpc.noop()).job_id for _ in range(20)]
    for n in cluster.nodes:
        if n is not keep:
            n.kill()
    calls = [Call(keep.client, f"alone{i}") for i in range(3)]
    check_timeout(c, "two killed", calls, ("outcome unknown", "not submitted"))
    for n in cluster.nodes:
        if n is not keep:
            n.start()
    c.require("two killed: all are back by themselves", cluster.wait_ready(15))
    found = {j.id for j in keep.client.list()}
    c.check("two killed: nothing acknowledged is lost", found >= set(ids))
    same, text = cluster.digests_equal()
    c.check("two killed: digests are equal", same, text)
    cluster.stop()


if __name__ == "__main__":
    checks.run(test_timeouts, test_full_channel, test_uncommitted_bound, test_killed_majority)
