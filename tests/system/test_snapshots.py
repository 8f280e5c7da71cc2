#!/usr/bin/python3
"""The log stays small, and a node behind it gets the state.

Goal: under load the log on disk stays near its limit while everything acknowledged survives; a
follower that was away for longer than the log reaches is put right by a snapshot, over and over, also
when it or the leader is killed in the middle; a whole cluster killed at once comes back.
Method: snapshots every second, 1 MiB kept behind them, jobs of 20 kB; digests are compared.
"""
import os
import pathlib
import random
import signal
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))

import grpc  # noqa: E402

import checks  # noqa: E402
import rpc  # noqa: E402
from cluster import Cluster  # noqa: E402

FLAGS = ["--cluster.raft.snapshot_interval", "1s", "--cluster.raft.snapshot_threshold", "100",
         "--cluster.raft.log_bytes_kept", "1MiB", "--cluster.raft.log_bytes_max", "32MiB"]
LOG_BYTES_MAX = 64 << 20
SEED = int(os.environ.get("SEED", random.randrange(1 << 30)))


def submit_many(cluster, count, tag, size=20000, threads=4):
    """Acknowledged jobs; each submit is repeated under its key until some node takes it."""
    done = []

    def run(thread):
        clients = {}
        for i in range(thread, count, threads):
            until = time.monotonic() + 20
            while time.monotonic() < until:
                live = cluster.live()
                node = live[i % len(live)]
                client = clients.setdefault(node.id, rpc.Client(node.address))
                try:
                    spec = rpc.noop(name=f"{tag}-{i}", env={"PAYLOAD": "x" * size})
                    done.append(client.submit(spec, key=f"{tag}-{i}", timeout=5).job_id)
                    break
                except grpc.RpcError:
                    client.close()
                    del clients[node.id]
                    time.sleep(0.02)
        for c in clients.values():
            c.close()

    workers = [threading.Thread(target=run, args=(t,)) for t in range(threads)]
    for t in workers:
        t.start()
    for t in workers:
        t.join()
    return done


def first_index(node):
    status = node.status()
    return status.log_first_index if status else 0


def log_is_cut(cluster, index):
    """All live nodes have cut their logs behind @index."""
    return checks.wait_for(lambda: all(first_index(n) > index for n in cluster.live()), 20)


def installed(node):
    return node.log().count("snapshot installed")


def small_log(c, cluster):
    acked = submit_many(cluster, 2000, "fill")
    c.equal("all submits are acknowledged", len(acked), 2000)
    c.check("every node cuts its log", log_is_cut(cluster, 1000))
    for n in cluster.nodes:
        s = n.status()
        c.check(f"node {n.id}: the log is small", s.log_bytes < LOG_BYTES_MAX, s.log_bytes)
        c.check(f"node {n.id}: its state is durable beyond",
                s.snapshot_index >= s.log_first_index - 1)
    entries = cluster.nodes[0].client.log_entries(first=1, limit=5).entries
    c.check("the log is listed from where it begins", entries and entries[0].index > 1000)


def behind_the_log(c, cluster):
    """Away while the log is cut; back, killed at a random moment of the transfer, back again."""
    rng = random.Random(SEED)
    for turn in range(3):
        node = next(n for n in cluster.nodes if n is not cluster.leader())
        before, times = node.status().applied_index, installed(node)
        node.kill(signal.SIGKILL)
        submit_many(cluster, 1000, f"away-{turn}")
        c.require(f"turn {turn}: the log is cut without it", log_is_cut(cluster, before))
        node.start()
        time.sleep(rng.random() * 0.6)
        victim = node if turn == 1 else cluster.leader() if turn == 2 else None
        if victim:
            victim.kill(signal.SIGKILL)
            time.sleep(0.3)
            victim.start()
        c.check(f"turn {turn}: equal digests", cluster.digests_equal(40))
        c.check(f"turn {turn}: it was given a snapshot", installed(node) > times)


def all_at_once(c, cluster):
    acked = submit_many(cluster, 300, "last")
    for n in cluster.nodes:
        n.process.send_signal(signal.SIGKILL)
    for n in cluster.nodes:
        n.wait(10)
    for n in cluster.nodes:
        n.start()
    cluster.wait_ready()
    c.check("equal digests", cluster.digests_equal(20))
    c.equal("all jobs are back", len(set(acked) & {j.id for j in cluster.nodes[0].client.list()}),
            len(acked))
    for n in cluster.nodes:
        c.equal(f"node {n.id} stops in order", n.kill(signal.SIGTERM), 0)
    for n in cluster.nodes:
        n.start()
    cluster.wait_ready()
    c.check("equal digests again", cluster.digests_equal(20))


if __name__ == "__main__":
    print(f"seed {SEED}", flush=True)
    world = Cluster(3, FLAGS, workers=False)
    world.wait_ready()
    checks.run(*checks.bind(world, small_log, behind_the_log, all_at_once),
               on_failure=world.print_logs)
