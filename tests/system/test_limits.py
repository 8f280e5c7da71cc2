#!/usr/bin/python3
"""Every bound of a node is met: with words, without spinning, and it is over when the cause is.

Goal: too few open files, too many connections, streams, lists and workers, requests and lists that
are too large: each is refused with what was too much and where it is set; the node works on with
what it has, uses no processor time over it, and takes new ones when there is room again.
"""
import os
import pathlib
import resource
import signal
import socket
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))

import grpc  # noqa: E402

import checks  # noqa: E402
import processes  # noqa: E402
import rpc  # noqa: E402
from cluster import BIN, Cluster, cli, free_base_port, temporary_directory  # noqa: E402

CODE = grpc.StatusCode


def refusal(call):
    """(code, words) of a call that must fail; None when it does not."""
    try:
        call()
    except grpc.RpcError as e:
        return e.code(), e.details()
    return None, ""


def start_with_files(count, flags=()):
    """A cluster of one node that may have so many open files, and no more."""
    w = Cluster(1, start=False, workers=False, flags=flags)
    node = w.nodes[0]
    os.makedirs(node.data_dir, mode=0o700)
    with open(node.log_path, "ab") as log:
        node.process = processes.start(
            node.argv(), stdout=log, stderr=log,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (count, count)))
    return w, node


def hold(port, count):
    """Idle connections. Those that are not taken at once are kept all the same."""
    out = []
    for _ in range(count):
        s = socket.socket()
        s.settimeout(5)
        s.connect(("127.0.0.1", port))
        out.append(s)
    return out


def nobody_connected(port):
    """Whether the node holds no connection there, not even one whose other side is closed."""
    mine = f":{port:04X}"
    return not any(
        line.split()[1].endswith(mine) and line.split()[3] in ("01", "08")  # ESTABLISHED, CLOSE_WAIT
        for table in ("/proc/net/tcp", "/proc/net/tcp6")
        for line in pathlib.Path(table).read_text(encoding="ascii").splitlines()[1:])


def closed_with(s):
    """What the other side says before it closes; None while it does not."""
    said = b""
    try:
        s.settimeout(0)
        while True:
            got = s.recv(4096)
            if not got:
                return said
            said += got
    except BlockingIOError:
        return None
    except OSError:
        return said


def submits(node, key):
    """A job on a new connection, or None."""
    client = rpc.Client(node.address)
    try:
        return client.submit(rpc.noop(name=key), timeout=3).job_id
    except grpc.RpcError:
        return None
    finally:
        client.close()


def cpu_over(pid, seconds):
    """Processor time that it uses meanwhile."""
    begun = processes.cpu_seconds(pid)
    checks.wait_for(lambda: False, seconds)
    return processes.cpu_seconds(pid) - begun


def test_few_files(c):
    w, node = start_with_files(64)
    c.equal("64 open files: exit code", node.wait(10), 1)
    c.check("it says what is too few, how many it needs and where that is set",
            all(x in node.log() for x in ("64 open files", "256", "ulimit", "LimitNOFILE")),
            node.log())
    c.equal("nothing was created", os.listdir(node.data_dir), [])
    w.stop()


def test_files_run_out(c):
    w, node = start_with_files(256)
    c.require("256 open files: the node starts", w.wait_ready(), node.log())
    c.check("and warns how many clients there can be", "possible=32" in node.log(), node.log())
    c.check("it takes a job", submits(node, "first"))
    idle = hold(node.port, 400)
    c.check("with 400 idle connections it runs", node.running() and cpu_over(node.pid, 2) < 0.4)
    c.check("nobody is left waiting: the others are closed", checks.wait_for(
        lambda: sum(closed_with(s) is not None for s in idle) >= 368, 10),
        sum(closed_with(s) is not None for s in idle))
    c.check("and it says so", "too many client connections" in node.log(), node.log()[-500:])
    for s in idle:
        s.close()
    c.check("with room again it takes new ones",
            checks.wait_for(lambda: submits(node, "second"), 10, 0.2), node.log()[-500:])
    c.equal("it stops well", node.kill(signal.SIGTERM), 0)
    w.stop()


def test_connections(c):
    w = Cluster(1, workers=False, flags=("--limits.connections", "40"))
    node = w.nodes[0]
    node.forget_client()
    c.require("the node has no connection left of before",
              checks.wait_for(lambda: nobody_connected(node.port), 10))
    idle = hold(node.port, 60)
    c.check("more than 40 are closed", checks.wait_for(
        lambda: sum(closed_with(s) is not None for s in idle) >= 20, 5),
        sum(closed_with(s) is not None for s in idle))
    left = [s for s in idle if closed_with(s) is None]
    c.equal("40 stay", len(left), 40)
    c.check("the log says why", "too many client connections" in node.log() and
            "limits.connections=40" in node.log(), node.log()[-500:])
    client = rpc.Client(node.address)
    begun = time.monotonic()
    said = refusal(lambda: client.submit(rpc.noop(name="x"), timeout=5))
    c.check("a client of gRPC fails at once, with words", said[0] == CODE.UNAVAILABLE and
            said[1] and time.monotonic() - begun < 2, said)
    code, _, err = cli("job", "list", "--timeout", "1s", address=node.address)
    c.check("the command line fails with words", code == 4 and err.strip(), (code, err))
    for s in idle:
        s.close()
    c.check("room again: the same client goes on", checks.wait_for(
        lambda: refusal(lambda: client.submit(rpc.noop(name="y"), timeout=2))[0] is None, 10, 0.1))
    client.close()
    for i in range(200):
        if not submits(node, f"one after the other {i}"):
            c.check(f"connection {i} of those that come and go", False, node.log()[-300:])
            break
    else:
        c.check("200 connections that come and go are no problem", True)
    w.stop()


def streams(c, name, words, opened, is_open):
    """The first two are served, the third is refused, and room is made by one that leaves."""
    held = [opened() for _ in range(2)]
    for h in held:
        c.check(f"{name}: two are served", checks.wait_for(lambda h=h: is_open(h), 5))
    third = opened()
    c.check(f"{name}: the third is refused with words",
            checks.wait_for(lambda: not third.is_active(), 5) and
            third.code() == CODE.RESOURCE_EXHAUSTED and words in third.details(),
            (third.code() if not third.is_active() else None))
    held[0].cancel()

    def again():
        h = opened()
        ok = checks.wait_for(lambda: is_open(h), 0.3)
        h.cancel()
        return ok
    c.check(f"{name}: with room again it is", checks.wait_for(again, 5))
    held[1].cancel()


def test_streams(c):
    w = Cluster(1, flags=("--limits.watches", "2", "--limits.log_streams", "2",
                          "--limits.worker_streams", "1"))
    node = w.nodes[0]
    client = node.client
    job = client.submit(rpc.shell("echo begun; sleep 60", run_timeout_ms=60000)).job_id
    c.require("a job runs", checks.wait_for(lambda: client.get(job).state == rpc.RUNNING, 10))
    first = {}

    def read_one(stream):
        # A stream that is served gives its first message; one that is not ends.
        if stream not in first and stream.is_active():
            first[stream] = next(stream, None)
        return first.get(stream) is not None
    streams(c, "watches", "2 watches", lambda: client.watch(after_index=1), read_one)
    streams(c, "log streams", "2 log streams", lambda: client._job(  # pylint: disable=W0212
        "GetJobLogs", 60, "unary_stream", job_id=job, follow=True), read_one)
    other = processes.start([BIN, "worker", "--node", node.address, "--id", "one-too-many",
                             "--data-dir", temporary_directory() + "/w"],
                            stderr=open(w.directory + "/worker.log", "wb"))
    log = pathlib.Path(w.directory, "worker.log")
    c.check("a second worker is refused with words", checks.wait_for(
        lambda: "at most 1 workers" in log.read_text(encoding="utf-8"), 10),
        log.read_text(encoding="utf-8")[-500:])
    begun = processes.cpu_seconds(other.pid)
    checks.wait_for(lambda: False, 2)
    c.check("it tries again without spinning", other.poll() is None and
            processes.cpu_seconds(other.pid) - begun < 0.4)
    other.terminate()
    other.wait()
    client.cancel(job)
    w.stop()


def test_requests(c):
    w = Cluster(1, workers=False, flags=("--limits.message_bytes", "64KiB",
                                         "--limits.jobs_per_call", "5"))
    client = w.nodes[0].client
    for name, call, code, words in (
            ("a request larger than limits.message_bytes",
             lambda: client.submit(rpc.shell("x" * 70000)), CODE.RESOURCE_EXHAUSTED, "65536"),
            ("six jobs in one call of five",
             lambda: client.submit_many([rpc.noop()] * 6), CODE.INVALID_ARGUMENT, "5"),
            ("no job in a call", lambda: client.submit_many([]), CODE.INVALID_ARGUMENT, "jobs"),
            ("33 labels", lambda: client.submit(rpc.noop(
                labels={f"k{i}": "v" for i in range(33)})), CODE.INVALID_ARGUMENT, "32"),
            ("a label's value of 256 bytes", lambda: client.submit(rpc.noop(
                labels={"k": "v" * 256})), CODE.INVALID_ARGUMENT, "255"),
            ("a key of 129 bytes", lambda: client.submit(rpc.noop(), key="k" * 129),
             CODE.INVALID_ARGUMENT, "128"),
            ("a page of a million jobs", lambda: client.list_page(page_size=1000000),
             CODE.INVALID_ARGUMENT, "page_size"),
            ("a page token of 10 KiB", lambda: client.list_page(page_token="x" * 10000),
             CODE.INVALID_ARGUMENT, "page_token"),
            ("a job id of 10 KiB", lambda: client.get("j" * 10000), CODE.INVALID_ARGUMENT,
             "job_id")):
        said = refusal(call)
        c.check(f"{name}: refused with words", said[0] == code and words in (said[1] or ""), said)
        if said[0] == CODE.RESOURCE_EXHAUSTED:
            w.nodes[0].forget_client()
            client = w.nodes[0].client
    c.equal("nothing was made of them", client.list(consistency=1), [])
    c.check("and what is right is taken", client.submit_many([rpc.noop()] * 5))
    w.stop()


def test_peer_connections(c):
    w = Cluster(3, workers=False, flags=("--limits.peer_connections", "8"))
    node = w.leader()
    before = cpu_over(node.pid, 1)
    held = hold(node.peer_port, 100)
    c.check("100 strangers at the peer port: most are closed at once", checks.wait_for(
        lambda: sum(closed_with(s) is not None for s in held) >= 90, 5),
        sum(closed_with(s) is not None for s in held))
    c.check("the cluster works on", submits(node, "x") and w.leader() is node)
    used = cpu_over(node.pid, 2)
    c.check("without spinning", used < 2 * before + 0.4, used)
    other = next(n for n in w.nodes if n is not node)
    other.kill(signal.SIGKILL)
    other.start()
    c.check("and a member comes in between them", w.wait_ready(), node.log()[-500:])
    for s in held:
        s.close()
    w.stop()


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    free_base_port()
    checks.run(test_few_files, test_files_run_out, test_connections, test_streams, test_requests,
               test_peer_connections)
