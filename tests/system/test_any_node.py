#!/usr/bin/python3
"""Any node takes any call.

Goal: submits, reads, lists, cancels, watches, logs and the cluster's status work the same through
the leader and through followers; a linearizable read through any node sees every write acknowledged
before it began. Method: three nodes, one connection to each, every call through each.
"""
import pathlib
import random
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))

import grpc  # noqa: E402

import checks  # noqa: E402
import rpc  # noqa: E402
from cluster import Cluster  # noqa: E402

WRITES = 200


def outcome(function, *args, **fields):
    try:
        return function(*args, **fields)
    except grpc.RpcError as e:
        return rpc.code_of(e)


def test_calls(c, cluster):
    for writer in cluster.nodes:
        name = f"through node {writer.id}"
        answer = writer.client.submit(rpc.shell(f"echo {name}", name=name, labels={"a": "b"}))
        c.check(f"submit {name}: id and index", answer.job_id and answer.index > 0, answer)
        ends = [checks.wait_for(lambda n=n, i=answer.job_id: (
            lambda j: j if j.state in rpc.TERMINAL else None)(n.client.get(i)), 10)
                for n in cluster.nodes]
        same = {j.SerializeToString(deterministic=True) for j in ends if j}
        c.check(f"submit {name}: every node shows the same end", len(same) == 1 and
                ends[0].state == rpc.COMPLETED, ends)
        outputs = {n.client.logs(answer.job_id)[0] for n in cluster.nodes}
        c.equal(f"submit {name}: every node gives its output", outputs, {f"{name}\n".encode()})
        lists = {tuple(j.id for j in n.client.list()) for n in cluster.nodes}
        c.equal(f"submit {name}: every node gives the same list", len(lists), 1)
        batch = writer.client.submit_many([rpc.noop()] * 50)
        c.check(f"submit of 50 {name}", len({r.job_id for r in batch.results}) == 50 and
                all(r.code == 0 for r in batch.results))
        again = outcome(writer.client.get, "jczzzzzzzzzzzz")
        c.equal(f"an unknown id {name}", again, "NOT_FOUND")
        long_job = writer.client.submit(rpc.shell("sleep 300", kill_grace_ms=500)).job_id
        other = cluster.nodes[writer.id % 3]
        other.client.cancel(long_job)
        end = checks.wait_for(lambda i=long_job, n=other: (
            lambda j: j if j.state in rpc.TERMINAL else None)(n.client.get(i)), 10)
        c.check(f"submitted {name}, cancelled through node {other.id}",
                end and end.state == rpc.CANCELLED, end)


def test_read_your_writes(c, cluster):
    """Linearizable: a read that begins after the acknowledgement sees the write, on any node."""
    rng = random.Random(7)
    missing, listed = [], []
    begun = time.monotonic()
    for i in range(WRITES):
        writer, reader = rng.choice(cluster.nodes), rng.choice(cluster.nodes)
        answer = writer.client.submit(rpc.noop(name=f"rw{i}"))
        job = outcome(reader.client.get, answer.job_id)
        if isinstance(job, str) or job.spec.name != f"rw{i}":
            missing.append((writer.id, reader.id, answer.job_id, job))
        if i % 10 == 0:
            page = reader.client.list_page(page_size=5)
            if answer.job_id not in [j.id for j in page.jobs] or page.index < answer.index:
                listed.append((writer.id, reader.id, answer.job_id))
    c.check(f"{WRITES} reads after writes across nodes see them", not missing, missing[:3])
    c.check("lists see them too", not listed, listed[:3])
    print(f"#       {1000 * (time.monotonic() - begun) / WRITES:.2f} ms for a write and a read")


def test_monotonic_reads(c, cluster):
    """While jobs go through their states, what was read once is never un-read on another node."""
    order = {rpc.PENDING: 0, rpc.RUNNING: 1}
    ids = [cluster.nodes[0].client.submit(rpc.shell("sleep 0.2")).job_id for _ in range(10)]
    backwards = []
    seen = dict.fromkeys(ids, 0)
    until = time.monotonic() + 10
    while any(v < 2 for v in seen.values()) and time.monotonic() < until:
        for n in cluster.nodes:
            for i in ids:
                state = order.get(n.client.get(i).state, 2)
                if state < seen[i]:
                    backwards.append((n.id, i, seen[i], state))
                seen[i] = max(seen[i], state)
    c.check("reads of all nodes never go back", not backwards, backwards[:3])
    c.check("all of them ended", all(v == 2 for v in seen.values()))


def test_status(c, cluster):
    def comparable(s):
        """Without what changes from one call to the next."""
        for n in s.nodes:
            n.last_contact_ms = 0
            n.applied_index = n.digest_index = 0
            n.digest = ""
        for w in s.workers:
            w.last_heartbeat_ms = 0
        return s.SerializeToString(deterministic=True)

    checks.wait_for(lambda: cluster.leader().client.status().jobs_running == 0, 10)
    same, text = cluster.digests_equal()
    c.check("digests are equal", same, text)
    views = [n.client.status() for n in cluster.nodes]
    c.equal("the status is the same from every node", len({comparable(v) for v in views}), 1)
    v = views[0]
    c.check("it is the leader's", v.answered_by == v.leader_id)
    c.check("three nodes are alive, one leads", len(v.nodes) == 3 and
            all(n.is_alive for n in v.nodes) and
            sorted(n.role for n in v.nodes) == ["follower", "follower", "leader"], v)
    c.check("addresses, match and version are there", all(
        n.client_address == m.address and n.peer_address == m.peer_address and n.version and
        n.match_index == v.log_last_index for n, m in zip(v.nodes, cluster.nodes)), v)
    c.check("three live workers with slots", len(v.workers) == 3 and
            all(w.is_alive and w.slots > 0 and w.running == 0 for w in v.workers), v)
    c.equal("the counters add up to the list", v.jobs_pending + v.jobs_running +
            v.jobs_completed + v.jobs_failed + v.jobs_cancelled,
            len(cluster.nodes[1].client.list()))
    local = [n.client.status(local=True) for n in cluster.nodes]
    c.equal("a local status is the asked node's own", [x.answered_by for x in local], [1, 2, 3])


def test_log_entries(c, cluster):
    answers = [n.client.log_entries(first=1, limit=200) for n in cluster.nodes]
    c.equal("every node lists the same log entries", len({
        tuple((e.index, e.term, e.type, e.bytes, e.at_ms) for e in a.entries) for a in answers}), 1)
    types = {e.type for e in answers[0].entries}
    c.check("their types name the commands", {"SubmitJob", "AssignJob"} <= types, types)


def test_is_alive(c, cluster):
    """A dead node is shown as such after 3 s, and as alive again when it is back."""
    leader = cluster.leader()
    gone = next(n for n in cluster.nodes if n is not leader)
    gone.kill()
    died = time.monotonic()

    def shown(alive):
        return lambda: leader.client.status().nodes[gone.id - 1].is_alive == alive
    c.check("a dead node is shown as not alive", checks.wait_for(shown(False), 6))
    seconds = time.monotonic() - died
    c.check("after 3 s without an answer", 2.5 < seconds < 4, f"{seconds:.2f} s")
    gone.start()
    c.check("and as alive when it is back", checks.wait_for(shown(True), 5))


def test_watch_everywhere(c, cluster):
    """One watch on each node while jobs run: the same events in the same order."""
    start = cluster.leader().client.status().applied_index
    c.require("all nodes are at the same index", cluster.digests_equal()[0])
    seen = {n.id: [] for n in cluster.nodes}
    done = threading.Event()

    def watch(n):
        client = rpc.Client(n.address)
        try:
            for message in client.watch(after_index=start, timeout=30):
                seen[n.id] += [(e.index, e.job_id, e.to) for e in message.events]
                if done.is_set():
                    return
        except grpc.RpcError:
            pass  # the cluster is stopped before the next message
    threads = [threading.Thread(target=watch, args=(n,), daemon=True) for n in cluster.nodes]
    for t in threads:
        t.start()
    ids = {n.client.submit(rpc.shell("true")).job_id for n in cluster.nodes for _ in range(10)}
    checks.wait_for(lambda: all(sum(i in ids and to in rpc.TERMINAL for _, i, to in events) ==
                                len(ids) for events in seen.values()), 20)
    done.set()
    c.equal("all nodes' watches show the same events", len({tuple(v) for v in seen.values()}), 1)
    c.check("every job went through its three states", all(
        [to for _, i, to in seen[1] if i == j] == [rpc.PENDING, rpc.RUNNING, rpc.COMPLETED]
        for j in ids))


def main():
    cluster = Cluster(3)
    checks.run(*checks.bind(cluster, test_calls, test_read_your_writes, test_monotonic_reads,
                            test_status, test_log_entries, test_watch_everywhere, test_is_alive))


if __name__ == "__main__":
    main()
