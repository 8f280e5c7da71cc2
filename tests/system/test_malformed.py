#!/usr/bin/python3
"""Malformed bytes at each port change nothing.

Goal: random bytes, truncated and oversized frames, HTTP/2 garbage, garbage after a valid beginning,
a flood of connections and a foreign cluster's node leave term, leader, jobs and digests as they
were; no process ends, spins or grows. Method: raw sockets to the ports of the leader and of a
follower, from a printed seed; then process ids, CPU time, resident memory and the cluster's status
are compared with those before.
"""
import os
import pathlib
import random
import socket
import struct
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))

import grpc  # noqa: E402

import checks  # noqa: E402
import processes  # noqa: E402
import rpc  # noqa: E402
from cluster import Cluster, free_base_port, temporary_directory  # noqa: E402

STREAMS = 600  # per port and kind of node
GROWTH_KIB = 16 * 1024
SEED = random.SystemRandom().randrange(1 << 32)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\0\0\0\4\0\0\0\0\0"
HELLO, WELCOME, REJECT, MESSAGE = 1, 2, 3, 4


def _crc_table():
    table = []
    for i in range(256):
        for _ in range(8):
            i = (i >> 1) ^ (0x82F63B78 if i & 1 else 0)
        table.append(i)
    return table


_CRC = _crc_table()


def crc32c(data):
    crc = 0xFFFFFFFF
    for b in data:
        crc = (crc >> 8) ^ _CRC[(crc ^ b) & 0xFF]
    return crc ^ 0xFFFFFFFF


def frame(kind, payload, length=None, version=1, reserved=0):
    head = b"CHRP" + struct.pack("<BBHII", version, kind, reserved,
                                 len(payload) if length is None else length, crc32c(payload))
    return head + struct.pack("<I", crc32c(head)) + payload


def hello(cluster_id, sender, to, low=1, high=1):
    text = b"stranger"
    return frame(HELLO, cluster_id + struct.pack("<QQHHB", sender, to, low, high, len(text)) + text)


def h2(kind, flags, stream, payload, length=None):
    n = len(payload) if length is None else length
    return struct.pack(">I", n)[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def literal(name, value):
    """One HPACK header field, not indexed, not Huffman coded."""
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


def call_headers(path=b"/chronos.v1.JobService/SubmitJob"):
    return (literal(b":method", b"POST") + literal(b":scheme", b"http") + literal(b":path", path) +
            literal(b":authority", b"x") + literal(b"te", b"trailers") +
            literal(b"content-type", b"application/grpc"))


def grpc_streams(rng):
    """One stream of bytes for a gRPC port."""
    begin = PREFACE + SETTINGS
    call = begin + h2(1, 4, 1, call_headers())
    which = rng.randrange(14)
    if which == 0:
        return rng.randbytes(rng.randrange(1, 2000))
    if which == 1:
        return b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * rng.randrange(1, 5)
    if which == 2:
        return PREFACE[:rng.randrange(len(PREFACE))]
    if which == 3:
        return PREFACE + rng.randbytes(rng.randrange(1, 3000))
    if which == 4:
        return begin + h2(rng.randrange(256), rng.randrange(256), rng.randrange(1 << 31),
                          rng.randbytes(rng.randrange(300)))
    if which == 5:
        return begin + h2(0, 0, 1, b"", length=(1 << 24) - 1) + rng.randbytes(500)
    if which == 6:
        return begin + h2(1, 4, 1, rng.randbytes(rng.randrange(1, 500)))
    if which == 7:  # a message that claims 4 GiB
        return call + h2(0, 0, 1, b"\0\xff\xff\xff\xff" + rng.randbytes(100))
    if which == 8:  # truncated
        return call + h2(0, 1, 1, b"\0" + struct.pack(">I", 500) + rng.randbytes(20))
    if which == 9:  # claims to be compressed
        body = rng.randbytes(50)
        return call + h2(0, 1, 1, b"\1" + struct.pack(">I", len(body)) + body)
    if which == 10:
        return begin + h2(6, 0, 0, rng.randbytes(8)) * 300
    if which == 11:  # headers that never end
        return begin + h2(1, 0, 1, call_headers()) + h2(9, 0, 1, literal(b"a", b"b" * 100)) * 50
    if which == 12:  # opened and reset
        return begin + b"".join(h2(1, 4, 2 * i + 1, call_headers()) +
                                h2(3, 0, 2 * i + 1, b"\0\0\0\x08") for i in range(100))
    whole = bytearray(call + h2(0, 1, 1, b"\0" + struct.pack(">I", 40) + rng.randbytes(40)))
    for _ in range(rng.randrange(1, 6)):
        whole[rng.randrange(len(whole))] = rng.randrange(256)
    return bytes(whole)


def peer_streams(rng, cluster_id, to):
    """One stream of bytes for a peer port. The insider's numbers are no member's."""
    insider = hello(cluster_id, rng.randrange(50, 60), to)
    which = rng.randrange(15)
    if which == 0:
        return rng.randbytes(rng.randrange(1, 2000))
    if which == 1:
        return insider[:rng.randrange(len(insider))]
    if which == 2:
        return frame(HELLO, b"", length=0xFFFFFFF0)
    if which == 3:
        return frame(HELLO, rng.randbytes(rng.randrange(100)))
    if which == 4:
        return hello(rng.randbytes(16), 1, to)
    if which == 5:
        return hello(cluster_id, 2, to + 77)
    if which == 6:
        return hello(cluster_id, 2, to, 40, 50)
    if which == 7:
        return hello(cluster_id, 0, to)
    if which == 8:
        return frame(MESSAGE, rng.randbytes(100))
    if which == 9:
        return insider + b"".join(frame(MESSAGE, rng.randbytes(rng.randrange(300)))
                                  for _ in range(20))
    if which == 10:
        return insider + frame(MESSAGE, b"", length=60 << 20) + rng.randbytes(1000)
    if which == 11:
        return insider + frame(MESSAGE, b"", length=0xFFFFFFFF) + rng.randbytes(1000)
    if which == 12:
        return insider + insider + frame(WELCOME, rng.randbytes(60)) + frame(REJECT, b"no")
    if which == 13:
        return insider + frame(MESSAGE, rng.randbytes(50), version=rng.randrange(256),
                               reserved=rng.randrange(3))
    whole = bytearray(insider + frame(MESSAGE, rng.randbytes(200)))
    whole[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
    return bytes(whole)


def send(port, data, read=True):
    """Send in one or two pieces, read what comes for a moment, close or reset."""
    with socket.socket() as s:
        s.settimeout(0.02)
        try:
            s.connect(("127.0.0.1", port))
            s.sendall(data[:len(data) // 2])
            s.sendall(data[len(data) // 2:])
            if read:
                return s.recv(4096)
        except OSError:
            pass
        if not read:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return b""


class World:
    def __init__(self):
        self.cluster = Cluster(3)
        self.leader = self.cluster.leader()
        self.follower = next(n for n in self.cluster.nodes if n is not self.leader)
        for n in self.cluster.nodes:
            for _ in range(20):
                n.client.submit(rpc.noop())
        self.cluster.digests_equal()
        self.cluster_id = bytes.fromhex(self.leader.client.status().cluster_id)
        # Bytes that make each listener's buffers once: growth is measured from here.
        rng = random.Random(1)
        for n in (self.leader, self.follower):
            for _ in range(60):
                send(n.port, grpc_streams(rng), read=False)
                send(n.peer_port, peer_streams(rng, self.cluster_id, n.id), read=False)
        self.jobs = 60
        self.pids = [n.pid for n in self.cluster.nodes]
        self.term = self.leader.client.status().term

    def check(self, c, what, rss):
        cluster = self.cluster
        c.check(f"{what}: the processes are the same",
                all(n.running() for n in cluster.nodes) and
                [n.pid for n in cluster.nodes] == self.pids,
                [n.process.returncode for n in cluster.nodes])
        v = self.leader.status(local=False)
        c.check(f"{what}: no election", v and v.term == self.term and
                v.leader_id == self.leader.id, v and (v.term, self.term, v.leader_id))
        same, text = cluster.digests_equal()
        c.check(f"{what}: digests are equal", same, text)
        c.equal(f"{what}: no job appeared", len(self.follower.client.list()), self.jobs)
        self.jobs += 1
        job_id = self.follower.client.submit(rpc.shell("true")).job_id
        c.check(f"{what}: jobs run", checks.wait_for(
            lambda: self.leader.client.get(job_id).state == rpc.COMPLETED, 5))
        growth = [processes.rss_kib(n.pid) - before for n, before in zip(cluster.nodes, rss)]
        c.check(f"{what}: memory does not grow", max(growth) < GROWTH_KIB, f"{growth} KiB")
        ticks = [processes.cpu_seconds(n.pid) for n in cluster.nodes]
        begun = time.monotonic()
        time.sleep(1)  # the length of a measurement, not a wait for a condition
        spent = time.monotonic() - begun
        used = [(processes.cpu_seconds(n.pid) - t) / spent for n, t in zip(cluster.nodes, ticks)]
        c.check(f"{what}: no process spins", max(used) < 0.3, used)

    def rss(self):
        return [processes.rss_kib(n.pid) for n in self.cluster.nodes]


def test_grpc_port(c, w):
    rng = random.Random(SEED)
    rss = w.rss()
    for n in (w.leader, w.follower):
        for i in range(STREAMS):
            send(n.port, grpc_streams(rng), read=i % 8 == 0)
    w.check(c, f"{2 * STREAMS} streams at the gRPC ports", rss)


def test_grpc_bodies(c, w):
    """Valid HTTP/2, garbage inside: every method says INVALID_ARGUMENT or the like."""
    rng = random.Random(SEED + 1)
    rss = w.rss()
    seen = {}
    channel = w.follower.client.channel
    for name in ("JobService/SubmitJob", "JobService/SubmitJobs", "JobService/GetJob",
                 "JobService/ListJobs", "JobService/CancelJob", "ClusterService/GetClusterStatus",
                 "ClusterService/ListLogEntries"):
        method = channel.unary_unary(f"/chronos.v1.{name}")
        for _ in range(60):
            # Field numbers beyond the known ones would be ignored: known ones, wrong inside.
            body = bytes([rng.choice((0x0A, 0x12, 0x1A, 0x08, 0x10))]) + rng.randbytes(
                rng.randrange(1, 60))
            try:
                method(body, timeout=5)
                seen.setdefault("OK", []).append((name, body))
            except grpc.RpcError as e:
                seen.setdefault(rpc.code_of(e), []).append(name)
    good = {"OK", "INVALID_ARGUMENT", "NOT_FOUND"}
    c.check("garbage in each method's message: no surprising answer", set(seen) <= good,
            {k: v[:3] for k, v in seen.items() if k not in good})
    written = [x for x in seen.get("OK", []) if "Submit" in x[0] or "Cancel" in x[0]]
    c.check("garbage in each method's message: nothing was written", not written, written[:3])
    session = channel.stream_stream("/chronos.v1.WorkerService/Session")
    for _ in range(50):
        try:
            for _ in session(iter([rng.randbytes(rng.randrange(1, 80))]), timeout=2):
                pass
        except grpc.RpcError:
            pass
    big = channel.unary_unary("/chronos.v1.JobService/SubmitJob")

    def send_big(mib):
        try:
            big(b"\x0a" + bytes(mib << 20), timeout=20)
            return "OK"
        except grpc.RpcError as e:
            return rpc.code_of(e)
    c.equal("a message of 5 MiB is refused", send_big(5), "RESOURCE_EXHAUSTED")
    w.check(c, "garbage in messages", rss)
    c.equal("a message of 600 MiB is refused", send_big(600), "RESOURCE_EXHAUSTED")
    # gRPC collects a message before it judges its length; the server's memory quota bounds it.
    now = processes.rss_kib(w.follower.pid)
    c.check("a message of 600 MiB: memory is bounded", now < 400 * 1024, f"{now} KiB")


def test_peer_port(c, w):
    rng = random.Random(SEED + 2)
    rss = w.rss()
    for n in (w.leader, w.follower):
        for i in range(STREAMS):
            send(n.peer_port, peer_streams(rng, w.cluster_id, n.id), read=i % 8 == 0)
    w.check(c, f"{2 * STREAMS} streams at the peer ports", rss)
    answer = send(w.leader.peer_port, hello(bytes(16), 2, w.leader.id))
    c.check("a stranger's handshake is rejected with a reason",
            answer[:4] == b"CHRP" and answer[5] == REJECT and len(answer) > 25, answer)


def test_held_connections(c, w):
    """Many connections that say nothing or stop in the middle."""
    rss = w.rss()
    held = []
    for i in range(200):
        for port, data in ((w.leader.port, PREFACE[:10]),
                           (w.leader.peer_port, hello(w.cluster_id, 2, 1)[:15])):
            s = socket.socket()
            s.settimeout(1)
            try:
                s.connect(("127.0.0.1", port))
                if i % 2:
                    s.send(data)
            except OSError:
                pass
            held.append(s)
    w.check(c, "400 idle connections", rss)
    for s in held:
        s.close()
    w.check(c, "and after they are gone", rss)


def test_foreign_node(c, w):
    """A node of another cluster that was given our members' addresses."""
    base = free_base_port(1)
    argv = [a for a in w.follower.argv()]
    for option, value in (("--node.data_dir", temporary_directory()),
                          ("--node.listen", f"127.0.0.1:{base}"),
                          ("--node.peer_listen", f"127.0.0.1:{base + 2}"),
                          ("--cluster.name", "foreign")):
        argv[argv.index(option) + 1] = value
    rss = w.rss()
    log_path = os.path.join(w.cluster.directory, "foreign.log")
    with open(log_path, "wb") as log:
        p = processes.start(argv + ["--worker.enabled=false"], stdout=log, stderr=log)

    def said():
        return [line for line in pathlib.Path(log_path).read_text(encoding="utf-8").splitlines()
                if "cluster" in line and ("reject" in line.lower() or "refuse" in line.lower() or
                                          "foreign" in line.lower() or "another" in line.lower())]
    c.check("a foreign node is refused and told why", checks.wait_for(said, 5),
            pathlib.Path(log_path).read_text(encoding="utf-8")[-500:])
    # Several of its election timeouts.
    client = rpc.Client(f"127.0.0.1:{base}")
    begun = time.monotonic()
    checks.wait_for(lambda: time.monotonic() - begun > 2, 3)
    view = client.status(local=True)
    c.check("a foreign node finds no leader", view.leader_id == 0 and view.commit_index == 0,
            view)
    client.close()
    w.check(c, "a foreign node", rss)
    p.kill()
    p.wait()


if __name__ == "__main__":
    print(f"#       seed {SEED}")
    world = World()
    checks.run(*checks.bind(world, test_grpc_port, test_grpc_bodies, test_peer_port,
                            test_held_connections, test_foreign_node),
               on_failure=world.cluster.print_logs)
