#!/usr/bin/python3
"""The command line against a cluster that `chronos dev` runs.

Goal: dev is ready in under 3 s and leaves nothing behind; exit codes, streams and JSON shapes of
the client commands are those of docs/cli.md; a command outlives the loss of the leader. Method: run
the binary, read its streams, look at processes and directories afterwards. What needs no cluster is
in tests/tools/check_cli.sh.
"""
import base64
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))

import checks  # noqa: E402
import processes  # noqa: E402
from cluster import BIN, cli, free_base_port, temporary_directory  # noqa: E402


class Dev:
    """`chronos dev -o json`: its lines, and how long it took to say that it is ready."""

    def __init__(self, *args, nodes=3, base=None):
        self.base = base or free_base_port(nodes)
        begun = time.monotonic()
        self.process = processes.start(
            [BIN, "dev", "-o", "json", "--base-port", str(self.base), "--nodes", str(nodes), *args],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.lines = []
        for line in self.process.stdout:
            self.lines.append(json.loads(line))
            if "ready" in self.lines[-1]:
                break
        self.seconds = time.monotonic() - begun
        self.nodes = [x for x in self.lines if "id" in x]
        self.addresses = ",".join(n["address"] for n in self.nodes)

    def cli(self, *args, **options):
        return cli(*args, address=self.addresses, **options)

    def json(self, *args):
        code, out, err = self.cli(*args[:2], "-o", "json", *args[2:])
        if code != 0:
            raise checks.Abort(f"{args}: {code} {err}")
        return json.loads(out)

    def pids(self):
        return [p for n in self.nodes for p in (n["server_pid"], n["worker_pid"])]

    def end(self, number=signal.SIGINT):
        """(exit code, stdout, stderr, seconds)"""
        begun = time.monotonic()
        self.process.send_signal(number)
        try:
            out, err = self.process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            out, err = self.process.communicate()
        return self.process.returncode, out, err.decode(), time.monotonic() - begun


def test_dev(c):
    dev = Dev()
    c.require("dev: ready", dev.lines and dev.lines[-1] == {"ready": True}, dev.lines)
    c.check("dev: in under 3 s", dev.seconds < 3, f"{dev.seconds:.2f} s")
    print(f"#       ready after {dev.seconds:.2f} s")
    c.check("dev: one line a node", [n["id"] for n in dev.nodes] == [1, 2, 3] and
            [n["address"] for n in dev.nodes] == [f"127.0.0.1:{dev.base + 10 * i}" for i in (0, 1, 2)]
            and [n["peer_address"] for n in dev.nodes] ==
            [f"127.0.0.1:{dev.base + 10 * i + 2}" for i in (0, 1, 2)] and
            all(os.path.isdir(n["data_dir"]) for n in dev.nodes), dev.nodes)
    c.check("dev: server and worker processes live", all(map(processes.alive, dev.pids())))
    code, _, err = processes.run([BIN, "dev", "--base-port", str(dev.base)], seconds=10)
    c.check("dev: a second one on its ports is refused, with a way out",
            code == 1 and "--base-port" in err and str(dev.base) in err, (code, err))
    c.equal("dev: jobs run", dev.cli("job", "submit", "--wait", "--", "true")[0], 0)
    dev.cli("job", "submit", "--shell", "trap '' TERM; sleep 300 & sleep 301")
    checks.wait_for(lambda: processes.with_environment("CHRONOS_JOB_ID="), 5)
    before = processes.descendants(os.getpid())
    code, out, err, seconds = dev.end()
    c.check("dev: Ctrl-C ends it with 0", code == 0 and out == b"", (code, out, err))
    c.check("dev: within 10 s", seconds < 10, f"{seconds:.1f} s")
    left = {p: processes.command_line(p) for p in before if processes.alive(p)}
    c.check("dev: no process is left, jobs included", not left, left)
    c.check("dev: its temporary directory is gone",
            not any(os.path.exists(n["data_dir"]) for n in dev.nodes))


def test_dev_killed(c):
    """kill -9 of dev itself: its nodes stop in order, and nothing of it goes on."""
    dev = Dev()
    pids = dev.pids()
    dev.process.kill()
    dev.process.wait()
    c.check("dev killed: its nodes and workers end within 10 s", checks.wait_for(
        lambda: not any(map(processes.alive, pids)), 10), [p for p in pids if processes.alive(p)])


def test_dev_data(c):
    """With --data everything is there again; a killed node's worker is ended too."""
    directory = temporary_directory()
    dev = Dev("--data", directory)
    code, out, _ = dev.cli("job", "submit", "--wait", "-o", "json", "--", "echo", "kept")
    c.require("data: a job ran", code == 0)
    job_id = json.loads(out)["id"]
    os.kill(dev.nodes[1]["server_pid"], signal.SIGKILL)
    c.check("data: the rest goes on without a node", checks.wait_for(
        lambda: dev.cli("job", "submit", "--wait", "--", "true")[0] == 0, 15))
    pids = dev.pids()
    code, _, err, _ = dev.end(signal.SIGTERM)
    c.check("data: SIGTERM ends it; it told of the dead node", code == 0 and "node 2" in err,
            (code, err))
    left = [p for p in pids if processes.alive(p)]
    c.check("data: no process is left", not left, left)
    dev = Dev("--data", directory)
    c.require("data: ready again", dev.lines[-1:] == [{"ready": True}], dev.lines)
    job = dev.json("job", "get", job_id)
    c.equal("data: the job is there", job.get("output_text"), "kept\n")
    dev.end()


def test_dev_sizes(c):
    dev = Dev(nodes=1)
    c.equal("one node: ready", dev.lines[-1:], [{"ready": True}])
    c.equal("one node: runs jobs", dev.cli("job", "submit", "--wait", "--", "true")[0], 0)
    dev.end()
    dev = Dev(nodes=2)
    c.equal("two nodes: ready", dev.lines[-1:], [{"ready": True}])
    _, _, err, _ = dev.end()
    c.check("two nodes: warned, with the reason", "odd" in err and "majority of 2" in err, err)


def fields(c, what, value, **wanted):
    wrong = {k: value.get(k) for k, v in wanted.items() if value.get(k) != v}
    c.check(what, not wrong, wrong)


def test_client(c, dev):
    code, out, err = dev.cli("job", "submit", "--", "echo", "hi")
    job_id = out.strip()
    c.check("submit prints the id and nothing else", code == 0 and out == f"{job_id}\n" and
            job_id[:1] == "j" and err == "", (code, out, err))
    code, out, err = dev.cli("job", "submit", "--wait", "--shell", "echo a; exit 3")
    c.check("submit --wait of a failing job: 1", code == 1, (code, out, err))
    code, out, err = dev.cli("job", "submit", "--wait", "-o", "json", "-n", "nm", "-q", "q1",
                             "-e", "A=b=c", "-l", "k=v", "--cwd", "/tmp", "-t", "1m",
                             "--kill-grace", "2s", "--output-limit", "64KiB", "--max-attempts", "2",
                             "--", "sh", "-c", "echo $A; pwd")
    job = json.loads(out)
    c.check("submit --wait -o json: one document, nothing on standard error",
            code == 0 and err == "", (code, err))
    fields(c, "its fields are those of the .proto", job, state="JOB_STATE_COMPLETED", attempt=1,
           output_text="b=c\n/tmp\n", output_tail=base64.b64encode(b"b=c\n/tmp\n").decode(),
           failure_reason="FAILURE_REASON_UNSPECIFIED", cancel_requested=False)
    fields(c, "and what was asked for", job["spec"], name="nm", queue="q1", env={"A": "b=c"},
           labels={"k": "v"}, working_dir="/tmp", run_timeout_ms=60000, kill_grace_ms=2000,
           output_limit_bytes=65536, max_attempts=2,
           command={"argv": ["sh", "-c", "echo $A; pwd"]})
    got = dev.json("job", "get", job["id"])
    c.equal("get -o json is the same document", got, job)
    submitted = dev.json("job", "submit", "--idempotency-key", "k1", "--", "true")
    again = dev.json("job", "submit", "--idempotency-key", "k1", "--", "true")
    c.check("an idempotency key gives one job", submitted["job_id"] == again["job_id"] and
            not submitted["existing"] and again["existing"], (submitted, again))
    code, out, err = dev.cli("job", "submit", "--idempotency-key", "k1", "--", "false")
    c.check("the same key for another job: refused", code == 1 and out == "" and
            submitted["job_id"] in err, (code, err))
    listed = dev.json("job", "list", "-q", "q1")
    c.check("list -o json", [j["id"] for j in listed["jobs"]] == [job["id"]] if
            isinstance(listed, dict) else [j["id"] for j in listed] == [job["id"]], listed)
    code, out, err = dev.cli("job", "list", "--state", "failed")
    c.check("list as a table, no colour into a pipe", code == 0 and "exit code 3" in out and
            "\x1b" not in out, out)
    code, out, err = dev.cli("job", "logs", job["id"])
    c.equal("logs", (code, out, err), (0, "b=c\n/tmp\n", ""))
    status = dev.json("cluster", "status")
    c.check("cluster status -o json", len(status["nodes"]) == 3 and len(status["workers"]) == 3 and
            status["leader_id"] in (1, 2, 3) and len(status["digest"]) == 32, status)
    code, out, _ = dev.cli("cluster", "status")
    c.check("cluster status as a table", code == 0 and out.count("follower") == 2 and
            "leader" in out, out)
    entries = dev.json("cluster", "log")
    c.check("cluster log -o json", entries["entries"] and "index" in entries["entries"][0], entries)


def test_errors(c, dev):
    for what, want, args in (
            ("an unknown job", 3, ("job", "get", "jczzzzzzzzzzzz")),
            ("an id that is none", 3, ("job", "get", "nonsense!")),
            ("logs of an unknown job", 3, ("job", "logs", "jczzzzzzzzzzzz")),
            ("cancel of an unknown job", 3, ("job", "cancel", "jczzzzzzzzzzzz")),
            ("a bad queue name", 2, ("job", "submit", "-q", "no spaces", "--", "true")),
            ("a reserved variable", 2, ("job", "submit", "-e", "CHRONOS_X=1", "--", "true")),
            ("an unknown option", 2, ("job", "list", "--nope")),
            ("an unknown command", 2, ("job", "frobnicate"))):
        code, out, err = dev.cli(*args)
        # What only a node can judge may also count as a failure of the call.
        allowed = (1, 2) if what.startswith(("a bad", "a reserved")) else (want,)
        c.check(f"{what}: {want}, nothing on standard output, a word on standard error",
                code in allowed and out == "" and len(err) > 10, (code, out, err))
    begun = time.monotonic()
    code, out, err = cli("job", "list", "--timeout", "1s", address="127.0.0.1:1")
    c.check("no node: 4, in its time", code == 4 and out == "" and
            time.monotonic() - begun < 3, (code, err))
    code, out, err = cli("job", "get", dev.cli("job", "submit", "--", "true")[1].strip(),
                         address=f"127.0.0.1:1,{dev.addresses}")
    c.check("a dead address before live ones does not matter", code == 0 and out, (code, err))
    code, out, err = cli("job", "list", "-a", dev.nodes[1]["address"], address="127.0.0.1:1")
    c.check("--address wins over CHRONOS_ADDRESS", code == 0, (code, err))
    code, _, err = cli("job", "list", address="h;h:1")
    c.check("a bad CHRONOS_ADDRESS is named", code == 2 and "CHRONOS_ADDRESS: " in err, (code, err))
    for args in ((), ("job",), ("cluster",), ("dev",), ("server",), ("worker",), ("version",),
                 ("job", "submit"), ("job", "list"), ("job", "get"), ("job", "cancel"),
                 ("job", "logs"), ("job", "watch"), ("cluster", "status"), ("cluster", "log"),
                 ("bench",)):
        code, out, err = cli(*args, "--help")
        c.check(f"chronos {' '.join(args)} --help: usage and examples on standard output",
                code == 0 and "sage" in out and "xample" in out and err == "", (code, err))


def without(descriptors, *args, address=None, out=subprocess.PIPE):
    """(exit code, standard output, standard error) of a command that starts with these closed."""
    def close():
        for fd in descriptors:
            os.close(fd)
    p = processes.start([BIN, *args], stdout=out, stderr=subprocess.PIPE, preexec_fn=close,
                        env={**os.environ, **({"CHRONOS_ADDRESS": address} if address else {})})
    out, err = p.communicate(timeout=30)
    return p.returncode, (out or b"").decode(), err.decode()


def test_standard_files(c, dev):
    a = dev.addresses
    for args in (("job", "list"), ("job", "list", "-o", "json"), ("cluster", "status"),
                 ("job", "submit", "--", "true"), ("job", "submit", "--wait", "--", "true"),
                 ("schedule", "preview", "--cron", "0 9 * * *"), ("version",), ("job", "--help"),
                 ("worker", "--help"), ("bench", "--help"), ("completion", "bash")):
        what = " ".join(args)
        with open("/dev/full", "wb") as full:
            code, _, err = without((), *args, address=a, out=full)
        c.check(f"{what}: output that a full disk does not take is a failure, with words",
                code == 1 and "standard output: " in err, (code, err))
        code, _, err = without((1,), *args, address=a)
        c.check(f"{what}: so is a standard output that is closed",
                code == 1 and "standard output: " in err, (code, err))
        code, out, _ = without((0, 2), *args, address=a)
        c.check(f"{what}: with the other two closed it works", code == 0 and out, (code, out))
    code, _, err = without((0,), "schedule", "apply", "-f", "-", address=a)
    c.check("a standard input that is closed is named", code == 2 and "standard input: " in err,
            (code, err))
    said = processes.run(["sh", "-c", f"{BIN} completion bash | head -c 1"])
    c.equal("a reader that has gone is nothing to speak of", said, (0, "#", ""))


def test_server_without_files(c):
    """Nothing that a node opens becomes its standard error, where its log would go."""
    base = free_base_port(1)
    address = f"127.0.0.1:{base}"
    data = temporary_directory() + "/data"
    p = processes.start([BIN, "server", "--node.id", "1", "--node.data_dir", data, "--bootstrap",
                         "--node.listen", address, "--node.peer_listen", f"127.0.0.1:{base + 2}",
                         "--cluster.name", "closed", "--wal.segment_bytes", "4MiB"],
                        preexec_fn=lambda: [os.close(fd) for fd in range(3)])

    def ran():
        code, out, _ = cli("job", "submit", "--follow", "--", "echo", "here", address=address)
        return (code, out) == (0, "here\n")
    c.check("a node without standard files runs jobs", checks.wait_for(ran, 10, 0.1), p.poll())
    p.send_signal(signal.SIGTERM)
    c.equal("and stops well", p.wait(20), 0)
    code, out, err = cli("inspect", "wal", data)
    c.check("its files are whole", code == 0, (code, out[-300:], err))


def test_watch_ends(c, dev):
    job_id = dev.cli("job", "submit", "--", "sleep", "1")[1].strip()
    code, out, err = dev.cli("job", "watch", job_id)
    c.check("watch ID: ends with 0 when the job has", code == 0 and "Completed" in out, (code, out, err))
    begun = time.monotonic()
    code, out, err = dev.cli("job", "watch", job_id)
    c.check("watch ID: of a job that has ended, at once", code == 0 and out == "" and
            time.monotonic() - begun < 2, (code, out, err))
    code, out, err = dev.cli("job", "watch", "--from-start", job_id)
    c.check("watch --from-start ID: the whole life, then 0", code == 0 and "Pending" in out and
            "Completed" in out, (code, out, err))
    code, out, err = dev.cli("job", "watch", "j5zzzzz")
    c.check("watch ID: a job that is not there is said so", code == 3 and "no job" in err, (code, err))
    more = processes.start([BIN, "job", "watch", "-f", job_id, "-a", dev.addresses],
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    c.check("watch -f ID: goes on", not checks.wait_for(lambda: more.poll() is not None, 1))
    more.kill()
    cancelled = dev.cli("job", "submit", "--", "sleep", "300")[1].strip()
    codes = [dev.cli("job", "cancel", cancelled)[0]]
    c.equal("watch ID: ends after a cancel", dev.cli("job", "watch", cancelled)[0], 0)
    codes.append(dev.cli("job", "cancel", cancelled)[0])
    c.equal("cancelling a cancelled job is answered as it stands", codes, [0, 0])


def test_cancel_and_watch(c, dev):
    watch = processes.start([BIN, "job", "watch", "-o", "json", "-a", dev.addresses],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    # The watch begins "now": wait until its stream is there, by a job that it shows.
    ids = []

    def shown():
        ids.append(dev.cli("job", "submit", "--", "true")[1].strip())
        os.set_blocking(watch.stdout.fileno(), False)
        return watch.stdout.read()
    c.check("watch: shows jobs as they happen", checks.wait_for(shown, 10, 0.2))
    os.set_blocking(watch.stdout.fileno(), True)
    job_id = dev.cli("job", "submit", "--kill-grace", "1s", "--", "sleep", "300")[1].strip()
    checks.wait_for(lambda: dev.json("job", "get", job_id)["state"] == "JOB_STATE_RUNNING", 5)
    code, out, err = dev.cli("job", "cancel", job_id)
    c.check("cancel: 0", code == 0, (code, out, err))
    states = []
    for line in watch.stdout:
        event = json.loads(line)
        if event["job_id"] == job_id:
            states.append((event["from"], event["to"], event["cancel_requested"]))
            if event["to"] == "JOB_STATE_CANCELLED":
                break
    c.check("watch: one line each transition", states[0][:2] ==
            ("JOB_STATE_UNSPECIFIED", "JOB_STATE_PENDING") and
            states[1][:2] == ("JOB_STATE_PENDING", "JOB_STATE_RUNNING"), states)
    watch.send_signal(signal.SIGINT)
    _, err = watch.communicate(timeout=5)
    c.check("watch: Ctrl-C ends it quietly", watch.returncode in (0, 130, -signal.SIGINT) and
            b"rror" not in err, (watch.returncode, err))
    code, _, err = dev.cli("job", "cancel", ids[0])
    c.check("cancel of an ended job: 1", code == 1 and err, (code, err))


def test_leader_lost(c, dev):
    """`submit --wait` and `watch` go on when the leader is killed under them."""
    waiting = [processes.start([BIN, "job", "submit", "--follow", "-a", dev.addresses, "--shell",
                                "echo one; sleep 2; echo two"], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE) for _ in range(3)]
    checks.wait_for(lambda: dev.json("cluster", "status")["jobs_running"] >= 3, 5)
    leader = dev.json("cluster", "status")["leader_id"]
    os.kill(dev.nodes[leader - 1]["server_pid"], signal.SIGKILL)
    code, out, err = dev.cli("job", "submit", "--wait", "-o", "json", "--", "echo", "after")
    c.check("a submit right after the leader's death succeeds", code == 0 and
            json.loads(out)["output_text"] == "after\n", (code, err))
    for i, p in enumerate(waiting):
        try:
            out, err = p.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            p.kill()
            out, err = p.communicate()
        c.check(f"submit --follow {i + 1} of 3 outlives the leader", p.returncode == 0 and
                out == b"one\ntwo\n", (p.returncode, out, err[-300:]))


def test_end(c, dev):
    code, _, err, _ = dev.end()
    c.check("dev ends with 0 although a node was killed", code == 0, (code, err))
    left = [p for p in dev.pids() if processes.alive(p)]
    c.check("and no process is left", not left, left)


if __name__ == "__main__":
    checks.run(*checks.bind(Dev(), test_client, test_errors, test_standard_files, test_watch_ends,
                            test_cancel_and_watch,
                            test_leader_lost, test_end),
               test_dev, test_dev_killed, test_dev_data, test_dev_sizes, test_server_without_files)
