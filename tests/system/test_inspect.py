#!/usr/bin/python3
"""`chronos inspect` shows what is there and leaves it so.

Goal: meta, log and state of a stopped node are shown and agree with what the node said while it ran;
no file is changed, created or locked, not even beside a running node; damage is named with its
offset and exit code 1; wrong directories are refused.
"""
import json
import os
import pathlib
import shutil
import signal
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))

import checks  # noqa: E402
import rpc  # noqa: E402
from cluster import Cluster, cli, temporary_directory  # noqa: E402


def look(what, directory, *more):
    code, out, err = cli("inspect", what, directory, "-o", "json", *more)
    return code, json.loads(out) if out.startswith("{") else out, err


def snapshot_of(directory):
    """Name -> content and times of everything in it."""
    out = {}
    for p in sorted(pathlib.Path(directory).rglob("*")):
        st = p.stat()
        out[str(p)] = (st.st_mtime_ns, st.st_ctime_ns, st.st_size, st.st_mode)
    return out


def test_show(c):
    w = Cluster(3, workers=False)
    for i in range(120):
        w.nodes[i % 3].client.submit(rpc.noop(name=f"j{i}"), key=f"k{i}")
    w.digests_equal()
    status = w.leader().status(local=False)
    node = w.leader()
    code, running, _ = look("meta", node.data_dir)
    c.equal("beside a running node: exit code", code, 0)
    c.check("node id and term", {s.get("node_id") for s in running["slots"] if "term" in s} ==
            {node.id}, running)
    node.kill(signal.SIGTERM)
    before = snapshot_of(node.data_dir)
    code, meta, err = look("meta", node.data_dir)
    c.equal("meta: exit code", code, 0)
    force = [s for s in meta["slots"] if s["state"] == "in force"]
    c.check("meta: one slot is in force, of this cluster", len(force) == 1 and
            force[0]["cluster_id"] == status.cluster_id and force[0]["term"] >= status.term, meta)
    code, wal, err = look("wal", node.data_dir, "--limit", "1000")
    c.equal("wal: exit code", (code, err), (0, ""))
    c.check("wal: everything up to the last entry", wal["last_index"] >= status.log_last_index and
            wal["entries"] >= 120 and not wal["bad"], (wal["last_index"], status.log_last_index))
    c.check("wal: its segments are this node's", all(
        s["spare"] or (s["node_id"] == node.id and s["cluster_id"] == status.cluster_id)
        for s in wal["segments"]), wal["segments"])
    c.check("wal: commands are described, payloads are not shown",
            any("SubmitJob" in r["summary"] for r in wal["records"]) and
            "j77" not in json.dumps(wal))
    code, few, _ = look("wal", node.data_dir, "--first", "10", "--limit", "3")
    c.equal("wal: from an entry on", [r["index"] for r in few["records"]], [10, 11, 12])
    code, state, _ = look("state", node.data_dir)
    c.equal("state: exit code", code, 0)
    c.check("state: all of it is durable after an orderly stop",
            state["jobs"] == 120 and state["idempotency_keys"] == 120 and state["whole"] and
            status.applied_index <= state["applied_index"] <= wal["last_index"], state)
    # (The next leader's first entry may have come in on the way out, not yet committed.)
    c.equal("state: members", [m["id"] for m in state["members"]], [1, 2, 3])
    for what in ("meta", "wal", "state"):
        code, out, err = cli("inspect", what, node.data_dir)
        c.check(f"{what} for people", code == 0 and len(out.splitlines()) >= 4 and not err, out)
    c.check("no file was changed, created or touched", snapshot_of(node.data_dir) == before)
    test_damage(c, node)
    w.stop()


def test_damage(c, node):
    copy = temporary_directory() + "/copy"
    shutil.copytree(node.data_dir, copy)
    segment = sorted(pathlib.Path(copy).glob("wal-*.log"))[0]
    data = bytearray(segment.read_bytes())
    data[data.index(b"j60")] ^= 4
    segment.write_bytes(data)
    code, wal, _ = look("wal", copy)
    c.check("a damaged record: exit code 1, its place", code == 1 and
            any(not b["torn"] and b["offset"] > 0 and b["segment"] == segment.name
                for b in wal["bad"]), wal if isinstance(wal, str) else wal["bad"])
    meta = pathlib.Path(copy, "meta")
    meta.write_bytes(bytes(8192))
    code, got, _ = look("meta", copy)
    c.check("both slots damaged: exit code 1", code == 1 and
            all("damaged" in s["state"] for s in got["slots"]), got)
    tables = sorted(pathlib.Path(copy, "state").rglob("*.sst"))
    c.check("the state has tables", tables)
    body = bytearray(tables[0].read_bytes())
    body[len(body) // 4] ^= 1
    tables[0].write_bytes(body)
    code, out, err = look("state", copy)
    c.check("a damaged state: exit code 1", code == 1, (out, err))


def test_refusals(c):
    empty = temporary_directory()
    for what in ("meta", "wal", "state"):
        code, out, err = look(what, empty + "/none")
        c.check(f"{what}: no such directory", code == 3 and "none" in err, (code, out, err))
        code, out, err = look(what, empty)
        c.check(f"{what}: an empty one", code in (1, 3) and err.strip(), (code, out, err))
    c.equal("nothing was made there", os.listdir(empty), [])
    c.equal("no argument", cli("inspect", "wal")[0], 2)
    c.equal("limit 0", cli("inspect", "wal", empty, "--limit", "0")[0], 2)


if __name__ == "__main__":
    checks.run(test_show, test_refusals)
