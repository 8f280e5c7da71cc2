#!/usr/bin/python3
"""What a release left on disk is opened by this program, and holds what it held.

Goal: data directories and a backup of each release - one stopped in order, one killed while it worked
- are inspected, started, verified and restored: the same jobs, keys and workers by digest, and they
go on. Method: the files in tests/golden/node/RELEASE, made by real processes of that release and
never changed; a copy is used. With CHRONOS_GOLDEN_REWRITE=1 the files of this release are written
instead; what exists is never overwritten.
"""
import json
import lzma
import os
import pathlib
import signal
import sys
import tarfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))

import checks  # noqa: E402
import rpc  # noqa: E402
from cluster import Cluster, cli, temporary_directory  # noqa: E402

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden/node"
# The lease keeps the golden worker from being declared lost, which would change its record.
FLAGS = ["--wal.segment_bytes", "1MiB", "--cluster.raft.snapshot_interval", "1s",
         "--cluster.raft.snapshot_threshold", "16", "--cluster.raft.log_bytes_kept", "0",
         "--worker.lease", "1h"]
NAME = "golden"


def look(what, path):
    code, out, err = cli("inspect", what, path, "-o", "json", "--limit", "1000") if what == "wal" \
        else cli("inspect", what, path, "-o", "json")
    if code != 0:
        raise checks.Abort(f"inspect {what} {path}: {code}: {err}")
    return json.loads(out)


def backup_of(path):
    code, out, err = cli("backup", "inspect", path, "-o", "json")
    if code != 0:
        raise checks.Abort(f"backup inspect {path}: {code}: {err}")
    return json.loads(out)


def jobs_of(client):
    return {j.id: [j.state, j.spec.name, j.attempt] for j in client.list(consistency=1)}


def keys_of(client, keys):
    """What each key names: a repeated submit answers with the job of the first one."""
    return {k: client.submit(rpc.noop(name=f"keyed {k}"), key=k).job_id for k in keys}


def facts(directory):
    """All that must be read from a stopped node's directory as it was."""
    meta = next(s for s in look("meta", directory)["slots"] if s["state"] == "in force")
    wal = look("wal", directory)
    state = look("state", directory)
    return {
        "meta": {k: meta[k] for k in ("cluster_id", "node_id", "disk", "term", "vote")},
        "wal": {"last_index": wal["last_index"], "entries": wal["entries"], "bad": wal["bad"],
                "kinds": [[r["index"], r["term"], r["kind"], r["bytes"]] for r in wal["records"]]},
        "state": {k: state[k] for k in ("applied_index", "applied_term", "jobs", "workers",
                                        "idempotency_keys", "nodes", "feature_level", "members",
                                        "data_digest", "whole")},
    }


# ---- reading -----------------------------------------------------------------------------------

def unpack(directory, name, target):
    with tarfile.open(directory / name) as t:
        t.extractall(target, filter="data") if hasattr(tarfile, "data_filter") else \
            t.extractall(target)


def start_copy(directory, name):
    w = Cluster(1, flags=FLAGS, name=NAME, start=False, workers=False)
    os.makedirs(w.nodes[0].data_dir, mode=0o700)
    unpack(directory, name, w.nodes[0].data_dir)
    return w


def check_node(c, directory, want):
    name = want["file"]
    w = start_copy(directory, name)
    node = w.nodes[0]
    found = facts(node.data_dir)
    for part in ("meta", "wal", "state"):
        c.equal(f"{name}: {part} is read as it was", found[part], want["facts"][part])
    node.start()
    c.require(f"{name}: the node starts", w.wait_ready(), node.log()[-800:])
    c.equal(f"{name}: the jobs", jobs_of(node.client), want["jobs"])
    c.equal(f"{name}: the keys", keys_of(node.client, want["keys"]), want["keys"])
    path = f"{w.directory}/now.backup"
    c.equal(f"{name}: a backup", w.cli("backup", "create", path)[0], 0)
    c.equal(f"{name}: the same data by digest", backup_of(path)["data_digest"], want["data_digest"])
    c.check(f"{name}: it takes a new job",
            node.client.submit(rpc.noop(name="new")).job_id not in want["jobs"])
    c.equal(f"{name}: it stops well", node.kill(signal.SIGTERM), 0)
    node.start()
    c.check(f"{name}: and starts again", w.wait_ready() and
            len(jobs_of(node.client)) == len(want["jobs"]) + 1, node.log()[-800:])
    w.stop()


def check_backup(c, directory, want):
    path = temporary_directory() + "/backup"
    pathlib.Path(path).write_bytes(lzma.decompress((directory / want["file"]).read_bytes()))
    code, _, err = cli("backup", "verify", path)
    c.check(f"{want['file']}: it verifies", code == 0, err)
    c.equal(f"{want['file']}: is read as it was", backup_of(path), want["facts"])
    w = Cluster(1, flags=FLAGS, name=NAME, start=False, workers=False)
    node = w.nodes[0]
    code, out, err = cli("restore", path, "--data-dir", node.data_dir, "--node-id", "1",
                         "--peer-address", node.peer_address)
    c.require(f"{want['file']}: it is restored", code == 0, err)
    node.start()
    c.require(f"{want['file']}: the new cluster starts", w.wait_ready(), node.log()[-800:])
    c.equal(f"{want['file']}: the jobs", jobs_of(node.client), want["jobs"])
    c.equal(f"{want['file']}: the keys", keys_of(node.client, want["keys"]), want["keys"])
    w.stop()


def test_releases(c):
    releases = sorted(p for p in GOLDEN.iterdir() if p.is_dir())
    c.require("there are releases", releases)
    for directory in releases:
        want = json.loads((directory / "expected.json").read_text(encoding="utf-8"))
        for node in want["nodes"]:
            check_node(c, directory, node)
        check_backup(c, directory, want["backup"])


# ---- writing -----------------------------------------------------------------------------------

def load(w, count):
    """Jobs of every kind and end."""
    client = w.nodes[0].client
    for i in range(count):
        client.submit(rpc.shell("true", name=f"filler {i}", env={"TEXT": "x" * 30000}))
    ends = [client.submit(rpc.shell("echo good", name="completes")).job_id,
            client.submit(rpc.shell("echo bad; exit 3", name="fails")).job_id]
    checks.wait_for(lambda: all(client.get(j).state in rpc.TERMINAL for j in ends), 20)
    # No worker takes these: they stay pending, or are cancelled.
    w.cli("cluster", "drain", "--worker", "node1")
    checks.wait_for(lambda: client.status().workers[0].state == "draining", 5)
    stay = [client.submit(rpc.shell("true", name=f"pending {i}")).job_id for i in range(3)]
    client.cancel(stay[0])


def await_log_cut(node):
    def cut():
        s = node.status()
        return s and s.log_first_index > 1
    return checks.wait_for(cut, 10)


def pack(directory, target):
    skip = {"LOCK", "LOG", "server.pid", "worker.pid"}
    with tarfile.open(target, "x:xz") as t:
        for p in sorted(pathlib.Path(directory).rglob("*")):
            inside = p.relative_to(directory)
            if p.is_file() and p.name not in skip and inside.parts[0] != "worker":
                t.add(p, arcname=str(inside), recursive=False)


def node_entry(w, name, keys, jobs, end):
    """End the node, keep its directory, and what must be found in it."""
    node = w.nodes[0]
    path = f"{w.directory}/last-{name}.backup"
    if w.cli("backup", "create", path)[0] != 0:
        raise checks.Abort("no backup")
    node.kill(end)
    return {"file": name + ".tar.xz", "facts": facts(node.data_dir), "keys": keys, "jobs": jobs,
            "data_digest": backup_of(path)["data_digest"]}


def make_node(target, name, end):
    w = Cluster(1, flags=FLAGS, name=NAME)
    node = w.nodes[0]
    keys = keys_of(node.client, ["key a", "key b"])
    load(w, 60)
    if not await_log_cut(node):
        raise checks.Abort("the log was not cut")
    for i in range(5):
        node.client.submit(rpc.noop(name=f"after the snapshot {i}"))
    entry = node_entry(w, name, keys, jobs_of(node.client), end)
    if end == signal.SIGKILL and \
            entry["facts"]["state"]["applied_index"] >= entry["facts"]["wal"]["last_index"]:
        raise checks.Abort("the state is not behind the log: run it again")
    pack(node.data_dir, target / entry["file"])
    return w, entry


def rewrite(c):
    version = cli("version", "-o", "json")
    release = json.loads(version[1])["version"]
    target = GOLDEN / release
    target.mkdir(parents=True)
    nodes, backup = [], None
    for name, end in (("stopped", signal.SIGTERM), ("killed", signal.SIGKILL)):
        w, entry = make_node(target, name, end)
        nodes.append(entry)
        if not backup:
            path = pathlib.Path(f"{w.directory}/last-{name}.backup")
            (target / "state.backup.xz").write_bytes(lzma.compress(path.read_bytes()))
            backup = {"file": "state.backup.xz", "facts": backup_of(path), "jobs": entry["jobs"],
                      "keys": entry["keys"]}
        w.stop()
    (target / "expected.json").write_text(
        json.dumps({"nodes": nodes, "backup": backup}, indent=1, sort_keys=True) + "\n",
        encoding="utf-8")
    c.check(f"written: {target.name}", True)


if __name__ == "__main__":
    temporary_directory()
    checks.run(rewrite if os.environ.get("CHRONOS_GOLDEN_REWRITE") == "1" else test_releases)
