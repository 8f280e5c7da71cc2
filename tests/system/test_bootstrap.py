#!/usr/bin/python3
"""A cluster begins once, on an operator's word, and never by accident.

Goal: an empty directory without --bootstrap or --join is refused with both commands; two clusters
never become one; a disk that was lost is refused by name and comes back by `cluster replace`.
Method: real processes; directories are emptied while their node is stopped.
"""
import os
import pathlib
import shutil
import signal
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))

import checks  # noqa: E402
import processes  # noqa: E402
import rpc  # noqa: E402
from cluster import BIN, Cluster, cli, free_base_port, temporary_directory  # noqa: E402

REFUSED = 78


def test_no_word(c):
    directory = temporary_directory() + "/data"
    base = free_base_port(1)
    argv = [BIN, "server", "--node.id", "7", "--node.data_dir", directory, "--node.listen",
            f"127.0.0.1:{base}", "--node.peer_listen", f"127.0.0.1:{base + 2}"]
    code, _, err = processes.run(argv, seconds=8)
    c.equal("an empty directory: exit code", code, REFUSED)
    for word in ("--bootstrap", "--join", directory, "--node.id 7"):
        c.check(f"it says {word}", word in err, err)
    c.equal("nothing was made of it", sorted(os.listdir(directory)), ["LOCK"])
    code, _, err = processes.run([*argv, "--bootstrap", "--join", "127.0.0.1:1"], seconds=8)
    c.equal("both at once: exit code", code, 2)


def test_join_refused(c):
    w = Cluster(1, workers=False, room=3)
    taken = w.new_node(1)
    taken.data_dir += "-other"
    os.makedirs(taken.data_dir)
    taken.start()
    c.equal("joining under a used id: exit code", taken.wait(15), REFUSED)
    c.check("it says what the cluster said", "does not take this node" in taken.log(),
            taken.log()[-500:])
    c.check("its directory is as empty as it was",
            not os.path.exists(taken.data_dir + "/meta"), os.listdir(taken.data_dir))
    w.nodes.remove(taken)
    nobody = w.new_node(5)
    nobody.join = f"127.0.0.1:{free_base_port(1)}"
    nobody.start()
    checks.wait_for(lambda: nobody.process.poll() is not None, 1)
    c.check("with nobody there it waits", nobody.running())
    c.equal("and a signal ends the waiting", nobody.kill(signal.SIGTERM), 0)
    w.stop()


def test_two_bootstraps(c):
    """Two lone nodes with one configuration, then nodes of one cluster told to look at the other."""
    a, b = Cluster(1, name="twin", workers=False), Cluster(1, name="twin", workers=False)
    ids = {w.nodes[0].status().cluster_id for w in (a, b)}
    c.equal("two bootstraps of one configuration are two clusters", len(ids), 2)
    a.stop()
    b.stop()
    a, b = Cluster(3, workers=False), Cluster(3, workers=False)
    for w in (a, b):
        w.nodes[0].client.submit(rpc.noop(name="x"))
    stray = next(n for n in a.nodes if n is not a.leader())
    for n in a.nodes:
        n.kill(signal.SIGTERM)
    argv = stray.argv()
    for mine, theirs in zip(a.nodes, b.nodes):
        if mine is not stray:
            argv = [x.replace(mine.peer_address, theirs.peer_address) for x in argv]
    with open(stray.log_path, "ab") as log:
        stray.process = processes.start(argv, stdout=log, stderr=log)
    # Its own peers are away, so it tries where the flags say they are.
    foreign = checks.wait_for(lambda: any("foreign" in n.log() for n in b.nodes), 10)
    views = [n.status() for n in b.nodes]
    c.check("the other cluster is as it was",
            all(v and len(v.nodes) == 3 and v.cluster_id == views[0].cluster_id for v in views))
    c.check("it is refused by its cluster id", foreign, stray.log()[-500:])
    for n in a.nodes:
        if n is not stray:
            n.start()
    c.require("its own cluster is back", a.wait_ready(), stray.log()[-800:])
    same, text = a.digests_equal()
    c.check("it is back in its own", same, text)
    c.check("no node of the one ever took the other's state",
            a.nodes[0].status().cluster_id != b.nodes[0].status().cluster_id)
    a.stop()
    b.stop()


def test_wiped_disk(c):
    w = Cluster(3, workers=False, room=1)
    ids = {w.nodes[i % 3].client.submit(rpc.noop(name=f"j{i}")).job_id for i in range(60)}
    victim = next(n for n in w.nodes if n is not w.leader())
    # The binding of id and disk is a replicated fact; until then the first disk seen counts.
    c.require("all are members", checks.wait_for(
        lambda: all(m.is_alive for m in w.leader().status(local=False).nodes), 10))
    victim.kill(signal.SIGKILL)
    shutil.rmtree(victim.data_dir)
    os.makedirs(victim.data_dir, mode=0o700)
    before = len(victim.log())
    victim.start()
    c.equal("an emptied disk under its old id: exit code", victim.wait(15), REFUSED)
    log = victim.log()[before:]
    c.check("it says the command that puts it right",
            f"chronos cluster replace {victim.id}" in log and "--join" in log, log[-700:])
    new = w.new_node(4)
    code, out, err = w.cli("cluster", "replace", str(victim.id), "4", new.peer_address)
    c.equal("cluster replace", code, 0)
    c.check("it says what comes next", "--join" in out, out + err)
    w.nodes.remove(victim)
    new.start()
    c.check("the new one takes the place", checks.wait_for(
        lambda: w.is_voter(4) and not w.member(victim.id), 20), str(w.member(4)))
    same, text = w.digests_equal()
    c.check("with the same state", same, text)
    c.check("and every acknowledged job", {j.id for j in new.client.list(consistency=1)} >= ids)
    w.stop()


def test_flags_later(c):
    """With data in the directory both flags say nothing any more."""
    w = Cluster(1, workers=False)
    node = w.nodes[0]
    before = node.status().cluster_id
    node.kill(signal.SIGTERM)
    node.start()
    c.check("--bootstrap again is ignored", w.wait_ready() and node.status().cluster_id == before)
    c.check("and said to be", "ignored=--bootstrap" in node.log(), node.log()[-400:])
    node.kill(signal.SIGTERM)
    node.join = "127.0.0.1:1"
    node.start()
    c.check("--join is ignored", w.wait_ready() and node.status().cluster_id == before)
    code, _, _ = cli("cluster", "status", address=node.address)
    c.equal("it serves", code, 0)
    w.stop()


if __name__ == "__main__":
    checks.run(test_no_word, test_join_refused, test_two_bootstraps, test_wiped_disk,
               test_flags_later)
