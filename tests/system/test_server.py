#!/usr/bin/python3
"""Starting, refusing, reloading and stopping one node.

Goal: each wrong flag and each wrong line of a configuration file is refused with exit code 2 and a
text that says what would be right; taken ports and directories are refused; even sizes warn; files
are private; SIGHUP reloads the log level; SIGTERM stops within 10 s, whatever runs, and what ran is
tried again. Method: the real binary, its exit code, its standard error, its files.
"""
import json
import os
import pathlib
import re
import shutil
import signal
import stat
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))

import checks  # noqa: E402
import processes  # noqa: E402
import rpc  # noqa: E402
from cluster import BIN, Cluster, free_base_port, temporary_directory  # noqa: E402

TWO = ("--member", "1=127.0.0.1:7402,127.0.0.1:7400", "--member",
       "2=127.0.0.1:7412,127.0.0.1:7410")


def server(*args, seconds=8):
    return processes.run([BIN, "server", *args], seconds=seconds)


def test_flags(c):
    """--print-config ends a run that should have been refused."""
    for flags, words in (
            (("--node.id", "0"), "node.id"),
            (("--node.id", "x"), "node.id"),
            (("--node.id", "3", *TWO, "--bootstrap"), "not among the members"),
            (("--join", "nonsense"), "--join"),
            (("--join", "127.0.0.1:7400", "--bootstrap"), "--join"),
            (("--node.advertise_peer", "x"), "node.advertise_peer"),
            (("--cluster.raft.log_bytes_max", "4MiB"), "log_bytes_kept"),
            (("--node.listen", "127.0.0.1"), "HOST:PORT"),
            (("--node.listen", "127.0.0.1:0"), "HOST:PORT"),
            (("--node.listen", "127.0.0.1:70000"), "HOST:PORT"),
            (("--node.listen", "0.0.0.0:7400"), "insecure_bind"),
            (("--node.peer_listen", "127.0.0.1:7400"), "peer"),
            (("--member", "nonsense"), "ID=PEER"),
            (("--member", "1=127.0.0.1:1", "--member", "1=127.0.0.1:2"), "twice"),
            (("--member", "1=127.0.0.1:1", "--member", "2=127.0.0.1:1"), "127.0.0.1:1"),
            (("--cluster.name", "has space"), "cluster.name"),
            (("--cluster.raft.profile", "moon"), "lan"),
            (("--cluster.raft.heartbeat_timeout", "50"), "heartbeat_timeout"),
            (("--cluster.raft.election_timeout", "60ms"), "100ms"),
            (("--cluster.raft.election_timeout", "-5s"), "election_timeout"),
            (("--limits.pending_proposals", "0"), "pending_proposals"),
            (("--limits.commit_timeout", "forever"), "commit_timeout"),
            (("--limits.uncommitted_bytes", "1MiB"), "message_bytes"),
            (("--limits.message_bytes", "12 parsecs"), "message_bytes"),
            (("--wal.segment_bytes", "1KiB"), "segment_bytes"),
            (("--worker.slots", "10001"), "10000"),
            (("--worker.lease", "6s"), "10s"),
            (("--worker.labels", "nokey"), "KEY=VALUE"),
            (("--log.level", "loud"), "debug"),
            (("--log.format", "xml"), "json"),
            (("--no.such.flag",), "--no.such.flag"),
            (("--node.idd", "1"), "--node.id"),
            (("stray",), "stray"),
            (("--config",), "config"),
            (("--config", "/no/such/file"), "/no/such/file")):
        code, out, err = server(*flags, "--print-config")
        c.check(f"{' '.join(flags)}: refused", code == 2 and out == "" and words in err,
                (code, out[:100], err))


YAML_ERRORS = (
    ("node: {id: 1\n", 2, "YAML"),
    ("node:\n  id: one\n", 2, "node.id"),
    ("node:\n  id: 1\n  id: 2\n", 3, "twice"),
    ("node:\n  idd: 1\n", 2, "node.id"),
    ("nodes:\n  id: 1\n", 1, "node"),
    ("node: 7\n", 1, "node"),
    ("node:\n  id: [1]\n", 2, "node.id"),
    ("cluster:\n  raft:\n    election_timeout: 150\n", 3, "election_timeout"),
    ("cluster:\n  raft:\n    heartbeat_timeout: 200ms\n    election_timeout: 300ms\n", 4, "400ms"),
    ("cluster:\n  members:\n    - {id: 1, address: '127.0.0.1:1'}\n    - {id: 1, address: "
     "'127.0.0.1:2'}\n", 4, "twice"),
    ("cluster:\n  members:\n    - {id: 1, adress: '127.0.0.1:1'}\n", 3, "address"),
    ("worker:\n  enabled: maybe\n", 2, "worker.enabled"),
    ("worker:\n  slots: -1\n", 2, "worker.slots"),
    ("log:\n  level: loud\n", 2, "debug"),
    ("log:\n\tlevel: info\n", 2, ""),
    ("security:\n  insecure_bind: false\nnode:\n  listen: 0.0.0.0:1\n", 4, "loopback"),
)


def test_yaml(c):
    path = os.path.join(temporary_directory(), "chronos.yaml")
    for text, line, words in YAML_ERRORS:
        pathlib.Path(path).write_text(text, encoding="utf-8")
        code, out, err = server("--config", path, "--print-config")
        c.check(f"{text!r}: refused with file and line", code == 2 and out == "" and
                f"{path}:{line}" in err and words in err, (code, err))
    pathlib.Path(path).write_text("node: {id: 2}\nlog: {level: warn}\n", encoding="utf-8")
    code, out, _ = server("--config", path, "--node.id", "3", "--print-config")
    c.check("a flag wins over the file, the file over the default", code == 0 and
            re.search(r"id: 3\b", out) and re.search(r"level: \"?warn", out), out)


def test_print_config(c):
    path = os.path.join(temporary_directory(), "chronos.yaml")
    flags = ("--node.id", "2", *TWO, "--cluster.name", "rt", "--cluster.raft.profile", "wan",
             "--cluster.raft.election_timeout", "3s", "--limits.pending_proposals", "17",
             "--limits.message_bytes", "1MiB", "--worker.enabled=false", "--worker.labels", "a=b",
             "--log.format", "json", "--node.data_dir", "/tmp/x y")
    code, first, err = server(*flags, "--print-config")
    c.equal("--print-config: exit code", (code, err), (0, ""))
    pathlib.Path(path).write_text(first, encoding="utf-8")
    code, second, err = server("--config", path, "--print-config")
    c.equal("--print-config round trip", (code, err, second), (0, "", first))
    code, third, _ = server("--print-config")
    documented = {"heartbeat_timeout: 50ms", "election_timeout: 150ms", "snapshot_interval: 30s",
                  "snapshot_threshold: 1000", "pending_proposals: 256", "commit_timeout: 5s",
                  "lease: 15s", "heartbeat_interval: 5s", "profile: lan", "liveness_window: 3s"}
    plain = third.replace('"', "")
    missing = [d for d in documented if d not in plain]
    c.check("the defaults are the documented ones", code == 0 and not missing, missing)


def test_taken(c):
    cluster = Cluster(1, workers=False)
    node = cluster.nodes[0]
    begun = time.monotonic()
    base = free_base_port(1)
    argv = [a.replace(node.address, f"127.0.0.1:{base}").replace(
        node.peer_address, f"127.0.0.1:{base + 2}") for a in node.argv()]
    code, _, err = processes.run(argv, seconds=8)
    c.check("a second server on one data directory is refused within a second", code not in
            (0, -99) and time.monotonic() - begun < 1.5, (code, err))
    c.check("and says whose it is", node.data_dir in err or "another" in err or "lock" in err, err)
    for what, option, address in (("client", "--node.listen", node.address),
                                  ("peer", "--node.peer_listen", node.peer_address)):
        taken = argv[:]
        taken[taken.index("--node.data_dir") + 1] = temporary_directory()
        taken[taken.index(option) + 1] = address
        code, _, err = processes.run(taken, seconds=8)
        c.check(f"a taken {what} port is refused with the address", code == 1 and address in err,
                (code, err))
    c.check("the first one is untouched", node.running() and node.client.submit(rpc.noop()).job_id)
    code, _, err = server("--node.data_dir", "/proc/nowhere", "--node.listen", f"127.0.0.1:{base}",
                          "--node.peer_listen", f"127.0.0.1:{base + 2}")
    c.check("a directory that cannot be made is refused with its name", code == 1 and
            "/proc/nowhere" in err, (code, err))
    cluster.stop()


def code_of_submit(client, specs):
    try:
        return f"{len(client.submit_many(specs).results)} results"
    except rpc.grpc.RpcError as e:
        return rpc.code_of(e)


def test_limits(c):
    """Limits given by flags are those that count."""
    cluster = Cluster(1, workers=False, flags=("--limits.jobs_per_call", "5",
                                               "--limits.message_bytes", "64KiB"))
    client = cluster.nodes[0].client
    c.equal("five jobs in a call", code_of_submit(client, [rpc.noop()] * 5), "5 results")
    c.equal("six are too many", code_of_submit(client, [rpc.noop()] * 6), "INVALID_ARGUMENT")
    big = rpc.shell("true " + "x" * 70000)
    c.equal("a message above the limit", code_of_submit(client, [big]), "RESOURCE_EXHAUSTED")
    big = rpc.shell("true " + "x" * 60000)
    c.equal("a message below it", code_of_submit(client, [big]), "1 results")
    cluster.stop()


def test_files_and_log(c):
    path = os.path.join(temporary_directory(), "chronos.yaml")
    pathlib.Path(path).write_text("log: {level: info, format: json}\n", encoding="utf-8")
    cluster = Cluster(2, flags=("--config", path))
    node = cluster.nodes[0]
    node.client.submit(rpc.shell("echo private"))
    c.check("an even size starts with a warning that says why", "even" in node.log() and
            "odd" in node.log(), node.log()[:500])
    wrong = []
    for directory, _, names in os.walk(node.data_dir):
        for name in names + ["."]:
            mode = os.lstat(os.path.join(directory, name)).st_mode
            if stat.S_IMODE(mode) & 0o077:
                wrong.append((os.path.join(directory, name), oct(mode)))
    c.check("its files are nobody else's", not wrong, wrong[:5])
    before = len(node.log())
    pathlib.Path(path).write_text("log: {level: debug, format: json}\n", encoding="utf-8")
    node.process.send_signal(signal.SIGHUP)
    c.check("SIGHUP: the log says what was reloaded", checks.wait_for(
        lambda: "SIGHUP" in node.log()[before:] or "reload" in node.log()[before:], 5),
        node.log()[before:])
    bad = []
    for line in node.log().splitlines():
        try:
            json.loads(line)
        except ValueError:
            bad.append(line)
    c.check("every line of the log is JSON", not bad, bad[:3])
    before = len(node.log())
    pathlib.Path(path).write_text("log: {level: nonsense}\n", encoding="utf-8")
    node.process.send_signal(signal.SIGHUP)
    c.check("SIGHUP with a broken file: said, and the node goes on", checks.wait_for(
        lambda: "nonsense" in node.log()[before:] or "debug" in node.log()[before:], 5) and
        node.running() and node.client.submit(rpc.noop()).job_id, node.log()[before:])
    cluster.stop()


def test_terminate(c):
    """A job that ignores SIGTERM does not keep the node; it is released and runs elsewhere."""
    cluster = Cluster(3)
    leader = cluster.leader()
    notes = os.path.join(cluster.directory, "notes")
    line = (f"echo $CHRONOS_ATTEMPT >> {notes}; [ $CHRONOS_ATTEMPT != 1 ] && exit 0; "
            "trap '' TERM; sleep 300 & while :; do sleep 1; done")
    # One job for each worker: one of them is the leader's.
    ids = [leader.client.submit(rpc.shell(line, kill_grace_ms=500)).job_id for _ in range(3)]
    checks.wait_for(lambda: leader.client.status().jobs_running == 3, 5)
    job_id = next(i for i in ids if leader.client.get(i).worker_id == leader.worker_id)
    worker = leader.worker_pid
    others = [n for n in cluster.nodes if n is not leader]
    begun = time.monotonic()
    code = leader.kill(signal.SIGTERM)
    seconds = time.monotonic() - begun
    c.equal("SIGTERM with a stubborn job: exit code", code, 0)
    c.check("within 10 s", seconds < 10, f"{seconds:.1f} s")
    print(f"#       stopped after {seconds:.1f} s")
    left = processes.with_environment(f"CHRONOS_JOB_ID={job_id}\0")
    left = [p for p in left if p in processes.with_environment("CHRONOS_ATTEMPT=1\0")]
    c.check("its worker and the attempt's tree are gone", not processes.alive(worker) and not left,
            left)
    job = checks.wait_for(lambda: (lambda j: j if j.state in rpc.TERMINAL else None)(
        others[0].client.get(job_id)), 10)
    c.check("the job was tried again elsewhere", job and job.state == rpc.COMPLETED and
            job.attempt == 2 and job.worker_id != leader.worker_id, job)
    for i in ids:
        if i != job_id:
            others[0].client.cancel(i)
    leader.start()
    c.check("it comes back", cluster.wait_ready())
    idle = others[0]
    begun = time.monotonic()
    checks.wait_for(lambda: idle.client.status().jobs_running == 0, 15)
    begun = time.monotonic()
    code = idle.kill(signal.SIGTERM)
    seconds = time.monotonic() - begun
    c.check("an idle node stops within 2 s", code == 0 and seconds < 2, (code, seconds))
    cluster.stop()


def test_handover(c):
    """A leader that is told to stop hands over first: hardly a pause for clients."""
    cluster = Cluster(3, workers=False)
    pauses = []
    for _ in range(3):
        leader = cluster.leader()
        other = next(n for n in cluster.nodes if n is not leader)
        other.client.submit(rpc.noop())
        leader.process.send_signal(signal.SIGTERM)
        worst, last = 0.0, time.monotonic()
        until = last + 1.5
        while time.monotonic() < until:
            other.client.submit(rpc.noop(), key=f"h{time.monotonic_ns()}", timeout=6)
            now = time.monotonic()
            worst, last = max(worst, now - last), now
        pauses.append(worst)
        c.equal("a stopped leader ends with 0", leader.wait(12), 0)
        leader.start()
        c.require("and comes back", cluster.wait_ready())
    print("#       longest pauses: " + ", ".join(f"{p * 1000:.0f} ms" for p in pauses))
    c.check("no call fails, no pause is as long as 1.5 s", max(pauses) < 1.5, pauses)
    cluster.stop()


def test_no_files(c):
    """A pipe or a directory where a file should be is an error with words or made good; nobody waits
    for its other end. (LOCK is only locked, and a pipe can be.)"""
    cluster = Cluster(1)
    node = cluster.nodes[0]
    node.client.submit(rpc.noop())
    c.equal("a node with some state stops", node.kill(signal.SIGTERM), 0)
    directory = pathlib.Path(node.data_dir)
    saved = pathlib.Path(cluster.directory, "saved")
    shutil.copytree(directory, saved)
    names = ["meta", "meta-copy", "state/current", "server.pid", "worker.pid", "worker/lock",
             "worker/journal", next(p.name for p in saved.glob("wal-*.log")),
             next(p.name for p in saved.glob("spare-*.wal"))]
    for name in names:
        for kind, make in (("a pipe", os.mkfifo), ("a directory", os.mkdir)):
            shutil.rmtree(directory)
            shutil.copytree(saved, directory)
            path = directory / name
            path.unlink(missing_ok=True)
            make(path)
            for what in ("meta", "wal", "state"):
                code, out, err = processes.run([BIN, "inspect", what, node.data_dir], seconds=5)
                c.check(f"{kind} for {name}: inspect {what} shows or refuses",
                        code == 0 and out or code in (1, 3) and len(err) > 10, (code, err))
            before = len(node.log())
            node.start()
            checks.wait_for(lambda: not node.running() or node.status(), 10)
            if node.running():
                c.equal(f"{kind} for {name}: it serves, and stops", node.kill(signal.SIGTERM), 0)
            else:
                c.check(f"{kind} for {name}: refused with words",
                        node.wait(1) in (1, 78) and "ERROR" in node.log()[before:],
                        (node.wait(1), node.log()[before:]))
    cluster.stop()


if __name__ == "__main__":
    checks.run(test_flags, test_yaml, test_print_config, test_taken, test_limits,
               test_files_and_log,
               test_terminate, test_handover, test_no_files)
