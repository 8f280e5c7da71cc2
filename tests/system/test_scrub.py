#!/usr/bin/python3
"""Damage in the files of nodes that run (reliability W8, W14).

Goal: a byte that changed in a log segment or in the state store of a running node is found within a
round of scrubbing and shown in the cluster's status; damage in the log that the state has is put
right by giving those segments back; a damaged state store ends the node with words, after which
`chronos cluster replace` brings the cluster back to strength; nobody ever reads anything but what
was acknowledged. Method: bytes are flipped, in places drawn from a printed seed, in the files of
the leader and of a follower, under load, with rounds of seconds instead of a day.
"""
import os
import pathlib
import random
import shutil
import signal
import struct
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))

import grpc  # noqa: E402

import checks  # noqa: E402
import rpc  # noqa: E402
from cluster import Cluster  # noqa: E402

FLAGS = ["--wal.segment_bytes", "1MiB", "--cluster.raft.snapshot_interval", "1s",
         "--cluster.raft.snapshot_threshold", "16"]
SCRUB_S = 4
FOUND_S = 3 * SCRUB_S + 5
SEED = int(os.environ.get("SEED", random.randrange(1 << 30)))
SEGMENT_HEADER = 4096


def submit(cluster, count, tag):
    """Names by id of acknowledged jobs, some of a size that fills segments."""
    leader = cluster.leader()
    rng = random.Random(f"{SEED} {tag}")
    out = {}
    for i in range(count):
        name = f"{tag}-{i}"
        spec = rpc.noop(name=name, env={"PAYLOAD": rng.randbytes(6000).hex()})
        out[leader.client.submit(spec, key=name).job_id] = name
    return out


def flip(path, offset):
    with open(path, "r+b", buffering=0) as f:
        f.seek(offset)
        byte = f.read(1)[0]
        f.seek(offset)
        f.write(bytes([byte ^ 0x10]))


def segments(node):
    return sorted(pathlib.Path(node.data_dir).glob("wal-*.log"))


def records(path):
    """(offset, bytes) of each record (docs/formats.md: 40 bytes of header, data, padded to 8)."""
    data = path.read_bytes()
    at, found = SEGMENT_HEADER, []
    while at + 40 <= len(data) and any(data[at:at + 40]):
        size = 40 + struct.unpack_from("<I", data, at)[0]
        found.append((at, size))
        at = (at + size + 7) & ~7
    return found


def alarms(cluster):
    """As an operator sees them."""
    code, out, _ = cluster.cli("cluster", "status")
    return [line for line in out.splitlines() if line.startswith("ALARM")] if code == 0 else []


def check_same(c, what, node, jobs):
    """The node tells the acknowledged truth, or says that it cannot."""
    def told():
        got = {j.id: j.spec.name for j in node.client.list(consistency=1, timeout=20)}
        return all(got.get(i) == name for i, name in jobs.items())

    try:
        same = checks.wait_for(told, 5)  # its own view, which may be a moment behind
    except grpc.RpcError as e:
        c.check(f"{what}: it refuses to read what is damaged", e.code().name in
                ("DATA_LOSS", "UNAVAILABLE"), e)
        return
    c.check(f"{what}: what it reads is what was acknowledged", same, len(jobs))


def damage_log(c, cluster, node, what, rng, jobs):
    used = [s for s in segments(node)[:-1] if len(records(s)) > 2]
    c.require(f"{what}: there is an old segment", used, segments(node))
    path = rng.choice(used)
    at, size = rng.choice(records(path))
    before = len(node.log())
    flip(path, at + rng.randrange(size))
    name = path.name
    c.check(f"{what}: the alarm names node and file", checks.wait_for(
        lambda: any(f"node {node.id}" in a and "scrub" in a for a in alarms(cluster)), FOUND_S),
        alarms(cluster))
    c.check(f"{what}: the node's log names file and offset", checks.wait_for(
        lambda: name in node.log()[before:] and "offset" in node.log()[before:], 2),
        node.log()[-500:])
    jobs.update(submit(cluster, 40, what))  # entries for the snapshot that covers the damage
    c.check(f"{what}: the damaged segment is given back", checks.wait_for(
        lambda: "damaged log segments released" in node.log()[before:], FOUND_S),
        node.log()[-500:])
    c.check(f"{what}: it is no part of the log any more", not path.exists())
    c.check(f"{what}: the alarm says so", any("found and released" in a for a in alarms(cluster)),
            alarms(cluster))
    check_same(c, what, node, jobs)
    c.check(f"{what}: after a whole round without a find the alarm ends", checks.wait_for(
        lambda: not alarms(cluster), FOUND_S), alarms(cluster))
    c.check(f"{what}: the node still runs", node.running())


def test_log(c):
    print(f"#       seed {SEED}")
    rng = random.Random(SEED)
    cluster = Cluster(3, flags=FLAGS + ["--storage.scrub_interval", f"{SCRUB_S}s"], workers=False)
    jobs = submit(cluster, 300, "first")
    leader = cluster.leader()
    damage_log(c, cluster, leader, "leader", rng, jobs)
    jobs.update(submit(cluster, 300, "second"))
    follower = next(n for n in cluster.nodes if n is not cluster.leader())
    damage_log(c, cluster, follower, "follower", rng, jobs)
    for node in (leader, follower):
        node.kill()
        node.start()
        c.check(f"node {node.id} starts again after kill -9", cluster.wait_ready(),
                node.log()[-500:])
    same, text = cluster.digests_equal()
    c.check("equal digests", same, text)
    for node in cluster.nodes:
        check_same(c, f"at the end, node {node.id}", node, jobs)
    cluster.stop()


def tables(node):
    return sorted(p for p in pathlib.Path(node.data_dir, "state").rglob("*.sst"))


def state_on_disk(c, node):
    c.require("its state is in files", checks.wait_for(
        lambda: sum(p.stat().st_size for p in tables(node)) > 500_000, 15), tables(node))


def test_state(c):
    rng = random.Random(SEED + 1)
    cluster = Cluster(3, flags=FLAGS + ["--storage.scrub_interval", f"{SCRUB_S}s"], workers=False,
                      room=1)
    jobs = submit(cluster, 300, "first")
    victim = next(n for n in cluster.nodes if n is not cluster.leader())
    state_on_disk(c, victim)
    path = max(tables(victim), key=lambda p: p.stat().st_size)
    flip(path, rng.randrange(path.stat().st_size // 2))
    c.check("the node stops by itself", checks.wait_for(lambda: not victim.running(), FOUND_S))
    c.equal("with exit code", victim.process.returncode, 78)
    words = victim.log()[-1500:]
    c.check("and says what is damaged and what to do",
            "state store is damaged" in words and "cluster replace" in words, words)
    jobs.update(submit(cluster, 20, "meanwhile"))
    victim.start()
    code = victim.wait(FOUND_S)
    c.check("started again it does not serve for long", code == 78, (code, victim.log()[-500:]))
    new = cluster.new_node(4)
    code, out, err = cluster.cli("cluster", "replace", str(victim.id), "4", new.peer_address)
    c.equal("cluster replace", code, 0)
    if code:
        print(out, err)
    new.start()
    c.check("the new node is a voter in its place", checks.wait_for(
        lambda: cluster.is_voter(4) and not cluster.member(victim.id), 20),
        str(cluster.member(4)) + new.log()[-500:])
    cluster.nodes.remove(victim)
    same, text = cluster.digests_equal()
    c.check("equal digests", same, text)
    check_same(c, "the new node", new, jobs)
    cluster.stop()


def damaged_start(c, cluster, victim, jobs):
    """Start on damaged files, and read. What came of it."""
    victim.start()
    up = checks.wait_for(lambda: not victim.running() or victim.status(), 8)
    if not (up and victim.running()):
        c.equal("a start refused: exit code", victim.wait(5), 78)
        return "did not start"
    # The log's tail comes first: the answer must not be of an older index than the jobs.
    checks.wait_for(lambda: not victim.running() or cluster.digests_equal(1)[0], 8)
    try:
        got = {j.id: j.spec.name for j in victim.client.list(consistency=1, timeout=20)}
    except grpc.RpcError as e:
        c.check("a read refused: with words", e.code().name == "UNAVAILABLE", e)
        c.equal("and the node ends, for others to answer: exit code", victim.wait(5), 78)
        c.check("with words", "read: the state store is damaged" in victim.log()[-1500:],
                victim.log()[-500:])
        return "did not read"
    c.equal("what it served is what was acknowledged",
            [i for i, name in jobs.items() if got.get(i) != name], [])
    return "served the truth"


def test_state_without_scrub(c):
    """Before a round comes by: a start or a read meets the damage. It may fail; it may not lie."""
    rng = random.Random(SEED + 2)
    # Jobs that have ended are read only when somebody asks for them.
    cluster = Cluster(3, flags=FLAGS + ["--storage.scrub_interval", "0"])
    jobs = submit(cluster, 300, "first")
    victim = next(n for n in cluster.nodes if n is not cluster.leader())
    c.require("all jobs have ended", checks.wait_for(
        lambda: (s := cluster.leader().status(local=False)) and
        s.jobs_completed == len(jobs), 20))
    state_on_disk(c, victim)
    victim.kill(signal.SIGTERM)  # everything is in the files
    state, saved = pathlib.Path(victim.data_dir, "state"), cluster.directory + "/saved"
    shutil.copytree(state, saved)
    outcomes = {}
    for _ in range(4):
        shutil.rmtree(state)
        shutil.copytree(saved, state)
        path = max(tables(victim), key=lambda p: p.stat().st_size)
        flip(path, rng.randrange(path.stat().st_size))
        outcome = damaged_start(c, cluster, victim, jobs)
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
        if victim.running():
            victim.kill()
    print(f"#       {outcomes}")
    c.check("damage was met", outcomes.get("served the truth", 0) < 4, outcomes)
    c.check("the others never noticed", submit(cluster, 5, "others"))
    cluster.stop()


if __name__ == "__main__":
    checks.run(test_log, test_state, test_state_without_scrub)
