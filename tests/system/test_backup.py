#!/usr/bin/python3
"""A backup is whole or it is refused, and what is restored from it is what was there.

Goal: a backup from any node of a loaded cluster verifies; a flipped byte anywhere and a missing end
are found with their offset; a restored cluster holds the same jobs, workers and keys by digest, is
another cluster, and goes on. Method: real processes; every block of the file is damaged in places
drawn from a printed seed.
"""
import json
import os
import pathlib
import random
import re
import signal
import stat
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))

import checks  # noqa: E402
import rpc  # noqa: E402
from cluster import Cluster, cli  # noqa: E402

SEED = random.SystemRandom().randrange(1 << 32)


def inspect(path):
    code, out, err = cli("backup", "inspect", path, "-o", "json")
    return json.loads(out) if code == 0 else err


def test_create(c, w):
    stop = threading.Event()

    def load():
        client = rpc.Client(w.nodes[0].address)
        count = 0
        while not stop.is_set():
            client.submit_many([rpc.shell("true", name=f"load-{count}-{i}") for i in range(20)])
            count += 1
        client.close()
    for i in range(50):
        w.nodes[i % 3].client.submit(rpc.noop(name=f"keyed-{i}"), key=f"key-{i}")
    thread = threading.Thread(target=load)
    thread.start()
    try:
        for n in w.nodes:
            path = f"{w.directory}/node{n.id}.backup"
            code, out, err = cli("backup", "create", path, address=n.address)
            c.check(f"created on node {n.id} under load", code == 0 and "jobs" in out, out + err)
            c.equal("its mode", stat.S_IMODE(os.stat(path).st_mode), 0o600)
            code, out, err = cli("backup", "verify", path)
            c.check("it verifies", code == 0, out + err)
            got = inspect(path)
            c.check("it holds jobs and keys", got["jobs"] >= 50 and got["idempotency_keys"] >= 50,
                    got)
            c.check("nothing partial is left", not os.path.exists(path + ".partial"))
    finally:
        stop.set()
        thread.join()
    code, _, err = cli("backup", "create", path, address=w.nodes[0].address)
    c.check("an existing file is not replaced unasked", code == 2 and "--force" in err, err)
    c.equal("unless it is asked", cli("backup", "create", path, "--force",
                                      address=w.nodes[0].address)[0], 0)
    code, _, err = cli("backup", "create", w.directory + "/none/x", address=w.nodes[0].address)
    c.check("a directory that is not there", code == 1 and "none" in err, err)
    code, _, err = cli("backup", "create", w.directory + "/y", "--timeout", "1s",
                       address="127.0.0.1:1")
    c.equal("nobody there: exit code", code, 4)
    c.check("and no file", not os.path.exists(w.directory + "/y"), os.listdir(w.directory))


def test_damage(c, w):
    print(f"#       seed {SEED}")
    rng = random.Random(SEED)
    path = f"{w.directory}/node1.backup"
    data = pathlib.Path(path).read_bytes()
    bad = w.directory + "/bad.backup"
    # The places of the format that are few, and many of the rest.
    offsets = [*range(0, 40), len(data) - 1, len(data) - 33, *rng.sample(range(len(data)), 60)]
    found, named = 0, 0
    for offset in offsets:
        damaged = bytearray(data)
        damaged[offset] ^= 1 << rng.randrange(8)
        pathlib.Path(bad).write_bytes(damaged)
        code, _, err = cli("backup", "verify", bad)
        found += code == 1
        named += bool(re.search(r"offset \d+|version", err))
        if code != 1:
            print(f"#       not found: offset {offset}: {code} {err}")
    c.equal("flipped bits found", found, len(offsets))
    c.equal("with the offset or the version", named, len(offsets))
    cuts = [0, 1, 31, 32, 33, len(data) // 2, len(data) - 1]
    for length in cuts:
        pathlib.Path(bad).write_bytes(data[:length])
        code, _, err = cli("backup", "verify", bad)
        c.check(f"cut off after {length} bytes", code == 1 and "offset" in err, (code, err))
    pathlib.Path(bad).write_bytes(data + b"x")
    c.equal("one byte more", cli("backup", "verify", bad)[0], 1)
    pathlib.Path(bad).write_bytes(b"not a backup at all, but long enough to look like a header....")
    code, _, err = cli("backup", "inspect", bad)
    c.check("another file", code == 1 and "bad.backup" in err, err)
    c.equal("no file", cli("backup", "verify", w.directory + "/none")[0], 3)
    code, _, err = cli("restore", bad, "--data-dir", w.directory + "/r0", "--node-id", "1",
                       "--peer-address", "127.0.0.1:19999")
    c.check("a damaged backup is not restored", code == 1 and
            not os.path.exists(w.directory + "/r0"), err)


def test_restore(c, w):
    path = w.directory + "/last.backup"
    c.equal("a last backup", w.cli("backup", "create", path)[0], 0)
    was = inspect(path)
    listed = {j.id: j.state for j in w.nodes[0].client.list(consistency=1)}
    target = Cluster(1, start=False, workers=False, room=1)
    node = target.nodes[0]
    args = ["restore", path, "--data-dir", node.data_dir, "--node-id", "1", "--peer-address",
            node.peer_address]
    for missing in (2, 4, 6):
        code, _, err = cli(*args[:missing], *args[missing + 2:])
        c.check(f"without {args[missing]}: refused", code == 2 and args[missing] in err, err)
    code, out, err = cli(*args, "-o", "json")
    c.require("restore", code == 0, err)
    got = json.loads(out)
    c.equal("the same data by digest", got["data_digest"], was["data_digest"])
    c.check("another cluster", got["cluster_id"] != was["cluster_id"])
    code, _, err = cli(*args)
    c.check("a second time into the same directory: refused", code == 1 and "empty" in err, err)
    node.start()
    c.require("it starts", target.wait_ready(), node.log()[-800:])
    have = {j.id: j.state for j in node.client.list(consistency=1)}
    c.check("every job is there, in its state", have == listed, (len(have), len(listed)))
    again = node.client.submit(rpc.noop(name="keyed-7"), key="key-7")
    c.check("a key of before still names its job", again.job_id in listed, again)
    c.check("and it takes new ones", node.client.submit(rpc.noop(name="new")).job_id not in listed)
    other, voter = target.grow(2)
    c.check("it grows", voter, other.log()[-500:])
    same, text = target.digests_equal()
    c.check("the new node has the same state", same, text)
    # Told to look at the old cluster, a restored node is a stranger there.
    node.kill(signal.SIGTERM)
    node.flags = ["--member", f"2={w.nodes[1].peer_address}", "--member",
                  f"3={w.nodes[2].peer_address}"]
    other.kill(signal.SIGTERM)
    node.start()
    c.check("the old cluster refuses it", checks.wait_for(
        lambda: any("foreign" in n.log() for n in w.nodes), 10), node.log()[-500:])
    c.equal("and is as it was", [m.id for m in w.leader().status(local=False).nodes], [1, 2, 3])
    target.stop()


def test_million(c, _):
    """1,000,000 jobs are restored in under 60 s."""
    w = Cluster(1, workers=False)
    specs = [rpc.noop(name=f"job-{i}") for i in range(1000)]
    for _ in range(1000):
        w.nodes[0].client.submit_many(specs, timeout=30)
    path = w.directory + "/million.backup"
    begun = time.monotonic()
    code, _, err = w.cli("backup", "create", path, seconds=120)
    c.require("backup create", code == 0, err)
    created = time.monotonic()
    code, out, err = cli("restore", path, "--data-dir", w.directory + "/restored", "--node-id", "1",
                         "--peer-address", "127.0.0.1:19999", "-o", "json", seconds=120)
    restored = time.monotonic()
    c.require("restore", code == 0, err)
    c.equal("all of them", json.loads(out)["jobs"], 1000000)
    print(f"#       created in {created - begun:.2f} s, {os.path.getsize(path) >> 20} MiB, "
          f"restored in {restored - created:.2f} s")
    c.check("in under 60 s", restored - created < 60)
    w.stop()


if __name__ == "__main__":
    world = Cluster(3, workers=False)
    checks.run(*checks.bind(world, test_create, test_damage, test_restore, test_million))
