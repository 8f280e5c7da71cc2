#!/usr/bin/python3
"""The last resort: a new cluster from one node of a lost one.

Goal: with two of three disks gone for good, the third becomes a cluster of its own with everything
that it knew; it says before what may be lost, changes nothing unless it is told to, refuses a
directory in use, and is a stranger to what remains of the old cluster.
"""
import os
import pathlib
import shutil
import signal
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))

import checks  # noqa: E402
import rpc  # noqa: E402
from cluster import Cluster, cli  # noqa: E402


def tree(directory):
    """Contents by name; the lock is held while somebody looks, and is no content."""
    return {p.relative_to(directory): p.read_bytes() for p in pathlib.Path(directory).rglob("*")
            if p.is_file() and p.name == "meta" or p.name.startswith("wal-")}


def recover(node, *more, stdin=None):
    return cli("recover", "--force-new-cluster", "--data-dir", node.data_dir, *more, stdin=stdin)


def test_recover(c):
    w = Cluster(3, workers=False, room=1)
    ids = {w.nodes[i % 3].client.submit(rpc.noop(name=f"j{i}"), key=f"k{i}").job_id
           for i in range(300)}
    old_id = w.nodes[0].status().cluster_id
    last = w.nodes[2]
    code, _, err = recover(last, "--yes")
    c.check("a directory in use is refused", code == 1 and "in use" in err, err)
    w.digests_equal()
    for n in w.nodes[:2]:
        n.kill(signal.SIGKILL)
        shutil.rmtree(n.data_dir)
    last.kill(signal.SIGKILL)
    before = tree(last.data_dir)
    code, out, err = recover(last)
    c.check("without a word it changes nothing", code == 2 and "--yes" in err, (code, err))
    for word in ("LOST", "known committed", "last entry", "NEW cluster"):
        c.check(f"but says: {word}", word in out, out)
    c.check("the files are as they were", tree(last.data_dir) == before)
    code, out, err = cli("recover", "--data-dir", last.data_dir)
    c.equal("without --force-new-cluster: exit code", code, 2)
    code, out, err = recover(last, "--yes")
    c.require("recover", code == 0, out + err)
    last.start()
    w.nodes = [last]
    c.require("it starts", w.wait_ready(), last.log()[-800:])
    c.check("under a new cluster id", last.status().cluster_id != old_id)
    have = {j.id for j in last.client.list(consistency=1)}
    c.check("with every acknowledged job", ids <= have, len(ids - have))
    c.check("a key of before still names its job",
            last.client.submit(rpc.noop(name="j5"), key="k5").job_id in ids)
    new, voter = w.grow(4)
    c.check("it grows again", voter, new.log()[-500:])
    same, text = w.digests_equal()
    c.check("with the same state", same, text)
    w.stop()


def test_unfinished(c):
    """A recovery that was interrupted: no server starts on it, and it can be done again."""
    w = Cluster(1, workers=False)
    node = w.nodes[0]
    ids = {node.client.submit(rpc.noop(name=f"j{i}")).job_id for i in range(20)}
    node.kill(signal.SIGTERM)
    pathlib.Path(node.data_dir, "unfinished").touch(0o600)
    node.start()
    c.equal("the server refuses: exit code", node.wait(8), 78)
    c.check("and says why", "chronos recover" in node.log(), node.log()[-400:])
    # As far as it may have got: the state is rewritten, vote and log are gone.
    code, out, err = recover(node, "--yes")
    c.check("again, from the beginning", code == 0, out + err)
    for name in list(os.listdir(node.data_dir)):
        if name == "meta" or name.startswith("wal-"):
            os.unlink(f"{node.data_dir}/{name}")
    pathlib.Path(node.data_dir, "unfinished").touch(0o600)
    code, out, err = recover(node, "--yes")
    c.check("again, without vote and log", code == 0, out + err)
    node.start()
    c.require("it starts", w.wait_ready(), node.log()[-600:])
    c.check("with every job", ids <= {j.id for j in node.client.list(consistency=1)})
    w.stop()


def test_refusals(c):
    w = Cluster(1, workers=False)
    node = w.nodes[0]
    node.client.submit(rpc.noop(name="x"))
    node.kill(signal.SIGKILL)
    code, _, err = cli("recover", "--force-new-cluster", "--data-dir", w.directory + "/none")
    c.equal("no such directory", code, 3)
    empty = w.directory + "/empty"
    os.mkdir(empty)
    code, _, err = cli("recover", "--force-new-cluster", "--data-dir", empty, "--yes")
    c.check("no data directory", code == 3 and "state" in err, err)
    meta = pathlib.Path(node.data_dir, "meta")
    saved = meta.read_bytes()
    meta.write_bytes(bytes(len(saved)))
    code, _, err = recover(node, "--yes")
    c.check("a meta file that is damaged", code == 1 and "meta" in err and "offset" in err, err)
    c.check("and it was left as it is", meta.read_bytes() == bytes(len(saved)))
    meta.write_bytes(saved)
    c.check("whole again it recovers", recover(node, "--yes")[0] == 0)
    w.stop()


if __name__ == "__main__":
    checks.run(test_recover, test_unfinished, test_refusals)
