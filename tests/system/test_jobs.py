#!/usr/bin/python3
"""What jobs may count on, end to end.

Goal: output, environment, working directory, limits, timeouts, cancel, logs and placement as the
.proto files say. Method: real jobs on a three-node cluster with few slots; process trees are looked
up in /proc, not believed.
"""
import collections
import pathlib
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))

import grpc  # noqa: E402

import checks  # noqa: E402
import processes  # noqa: E402
import rpc  # noqa: E402
from cluster import BIN, Cluster, cli  # noqa: E402

SLOTS = 4
REASON = rpc.job_pb


def command(*argv, **fields):
    return rpc.job_pb.JobSpec(command=rpc.job_pb.Command(argv=argv), **fields)


class World:
    def __init__(self):
        self.cluster = Cluster(3, flags=("--worker.slots", str(SLOTS)))
        self.client = self.cluster.nodes[0].client

    def submit(self, spec):
        return self.client.submit(spec).job_id

    def wait(self, job_id, seconds=15, states=rpc.TERMINAL):
        return checks.wait_for(lambda: (lambda j: j if j.state in states else None)(
            self.client.get(job_id)), seconds, 0.01) or self.client.get(job_id)

    def run(self, spec, seconds=15):
        return self.wait(self.submit(spec), seconds)

    def idle(self):
        def none():
            s = self.client.status()
            return s.jobs_running == 0 and s.jobs_pending == 0
        return checks.wait_for(none, 20)


def processes_of(job_id):
    return processes.with_environment(f"CHRONOS_JOB_ID={job_id}\0")


def test_output(c, w):
    job = w.run(command("echo", "hello", "a  b", "$HOME;|"))
    c.check("argv is not touched by a shell", job.state == rpc.COMPLETED and
            job.output_tail == b"hello a  b $HOME;|\n", job)
    job = w.run(rpc.shell("echo out; echo err >&2; printf '\\000\\377' | cat; echo a | tr a b"))
    c.equal("standard output and error together, any bytes", job.output_tail,
            b"out\nerr\n\x00\xffb\n")
    job = w.run(rpc.shell("exit 7"))
    c.check("exit code", job.state == rpc.FAILED and job.exit_code == 7 and
            job.failure_reason == REASON.FAILURE_REASON_EXIT_CODE, job)
    job = w.run(rpc.shell("kill -USR1 $$"))
    c.check("signal", job.state == rpc.FAILED and job.term_signal == 10 and
            job.failure_reason == REASON.FAILURE_REASON_SIGNAL, job)
    job = w.run(command("/no/such/program"))
    c.check("a program that does not exist", job.state == rpc.FAILED and
            job.failure_reason == REASON.FAILURE_REASON_START and
            "/no/such/program" in job.failure_message and job.attempt == 1, job)
    job = w.run(rpc.shell("cat; echo end"))
    c.equal("standard input is empty", job.output_tail, b"end\n")
    c.equal("times are in order", sorted((job.created_at_ms, job.started_at_ms,
                                          job.finished_at_ms)),
            [job.created_at_ms, job.started_at_ms, job.finished_at_ms])


def test_large_output(c, w):
    job = w.run(rpc.shell("seq 1 200000", output_limit_bytes=100000))
    full = b"".join(b"%d\n" % i for i in range(1, 200001))
    c.check("beyond the limit: counted, marked, the last 64 KiB in the result",
            job.state == rpc.COMPLETED and job.output_bytes == len(full) and job.output_truncated
            and len(job.output_tail) == 65536 and full.endswith(job.output_tail),
            (job.state, job.output_bytes, job.output_truncated, len(job.output_tail)))
    data, last = w.client.logs(job.id)
    c.check("beyond the limit: what is kept is no more than the limit", last.end and
            len(data) <= 100000 + 1000 and data.startswith(b"1\n2\n"), (len(data), data[:50]))
    job = w.run(rpc.shell("head -c 3000000 /dev/zero | tr '\\0' z", output_limit_bytes=4 << 20))
    data, last = w.client.logs(job.id)
    c.check("within the limit: all of it", data == b"z" * 3000000 and not job.output_truncated,
            (len(data), job.output_truncated))
    for n in w.cluster.nodes:
        data, last = n.client.logs(job.id, offset=2999990)
        c.equal(f"node {n.id} gives it from an offset", data, b"z" * 10)


def test_environment(c, w):
    spec = rpc.shell("env; ls /proc/self/fd | tr '\\n' ' '; echo; umask",
                     env={"A": "x y", "EMPTY": ""})
    job = w.run(spec)
    lines = job.output_tail.decode().splitlines()
    env = dict(line.split("=", 1) for line in lines if "=" in line)
    c.check("the given variables are there", env.get("A") == "x y" and env.get("EMPTY") == "")
    c.equal("id, attempt and token are there",
            (env.get("CHRONOS_JOB_ID"), env.get("CHRONOS_ATTEMPT"),
             env.get("CHRONOS_FENCING_TOKEN")), (job.id, "1", str(job.fencing_token)))
    known = {"A", "EMPTY", "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "TMPDIR", "TZ",
             "PWD", "OLDPWD", "SHLVL", "_"}
    strange = [k for k in env if k not in known and not k.startswith("CHRONOS_")]
    c.check("nothing of the server's environment is there", not strange, strange)
    c.check("no open file but the three (and ls's own)", "0 1 2 3 " in job.output_tail.decode(),
            lines[-2:])
    c.equal("umask 077", lines[-1], "0077")
    job = w.run(rpc.shell("pwd; ls -a | wc -l", working_dir=""))
    private = job.output_tail.decode().split()
    c.check("a fresh private directory", job.id in private[0] and private[1] == "2", private)
    c.check("it is removed afterwards",
            checks.wait_for(lambda: not pathlib.Path(private[0]).exists(), 5))
    job = w.run(rpc.shell("pwd", working_dir="/usr/lib"))
    c.equal("a given directory", job.output_tail, b"/usr/lib\n")
    job = w.run(rpc.shell("pwd", working_dir="/no/such/dir"))
    c.check("a directory that does not exist", job.state == rpc.FAILED and
            job.failure_reason == REASON.FAILURE_REASON_START and
            "directory" in job.failure_message, job)


TREE = ("trap '' TERM; setsid sh -c 'trap \"\" TERM HUP; (sh -c \"trap \\\"\\\" TERM; sleep 301\" &) "
        "; sleep 302' & echo started; while :; do sleep 1; done")


def test_timeout(c, w):
    begun = time.monotonic()
    job_id = w.submit(rpc.shell(TREE, run_timeout_ms=800, kill_grace_ms=500))
    c.check("timeout: the tree runs", checks.wait_for(lambda: len(processes_of(job_id)) >= 4, 5))
    job = w.wait(job_id)
    seconds = time.monotonic() - begun
    c.check("timeout: failed with that reason", job.state == rpc.FAILED and
            job.failure_reason == REASON.FAILURE_REASON_TIMEOUT and job.attempt == 1, job)
    c.check("timeout: after it and the grace", 1.2 < seconds < 4, f"{seconds:.2f} s")
    c.check("timeout: the whole tree is dead", not processes_of(job_id), processes_of(job_id))
    c.equal("timeout: the output until then is kept", job.output_tail, b"started\n")
    job = w.run(rpc.shell("trap 'echo asked; exit 3' TERM; while :; do sleep 0.05; done",
                          run_timeout_ms=500, kill_grace_ms=5000))
    c.check("timeout: a job that obeys SIGTERM is not waited for",
            job.failure_reason == REASON.FAILURE_REASON_TIMEOUT and
            job.output_tail.endswith(b"asked\n") and
            job.finished_at_ms - job.started_at_ms < 3000, job)
    job_id = w.submit(rpc.shell("sleep 303 & sleep 304 & echo gone"))
    job = w.wait(job_id)
    c.check("an ended job leaves nothing behind", job.state == rpc.COMPLETED and
            checks.wait_for(lambda: not processes_of(job_id), 5), processes_of(job_id))


def test_cancel(c, w):
    job_id = w.submit(rpc.shell(TREE, kill_grace_ms=500))
    checks.wait_for(lambda: len(processes_of(job_id)) >= 4, 5)
    asked = w.client.cancel(job_id)
    c.check("cancel of a running job: it is asked to stop", asked.cancel_requested or
            asked.state == rpc.CANCELLED, asked)
    job = w.wait(job_id)
    c.check("cancel of a running job: cancelled, the tree is dead", job.state == rpc.CANCELLED and
            not processes_of(job_id), (job, processes_of(job_id)))
    c.equal("cancel twice is the same", w.client.cancel(job_id).state, rpc.CANCELLED)
    blockers = [w.submit(rpc.shell("sleep 300", kill_grace_ms=300)) for _ in range(3 * SLOTS)]
    pending = w.submit(rpc.shell("echo never > /dev/null"))
    c.check("with all slots taken it waits", checks.wait_for(
        lambda: w.client.status().jobs_running == 3 * SLOTS, 5) and
        w.client.get(pending).state == rpc.PENDING)
    w.client.cancel(pending)
    job = w.client.get(pending)
    c.check("cancel of a pending job: at once, never started", job.state == rpc.CANCELLED and
            job.attempt == 0, job)
    for b in blockers:
        w.client.cancel(b)
    c.check("all blockers are cancelled", all(w.wait(b).state == rpc.CANCELLED for b in blockers))
    job = w.run(rpc.noop())
    try:
        w.client.cancel(job.id)
        code = "OK"
    except grpc.RpcError as e:
        code = rpc.code_of(e)
    c.equal("cancel of an ended job", code, "FAILED_PRECONDITION")


def test_logs(c, w):
    """Follow from every node, one of which is the worker's own, while the job writes."""
    job_id = w.submit(rpc.shell("for i in 1 2 3 4 5; do echo line $i; sleep 0.2; done"))
    w.wait(job_id, states=(rpc.RUNNING,))
    want = b"".join(b"line %d\n" % i for i in range(1, 6))
    p = [processes.start(
        [BIN, "job", "logs", "-f", "-a", n.address, job_id], stdout=subprocess.PIPE)
         for n in w.cluster.nodes]
    first = p[0].stdout.read(7)
    running = w.client.get(job_id).state
    c.check("logs -f prints while the job runs", first == b"line 1\n" and running == rpc.RUNNING,
            (first, running))
    texts = [first + p[0].communicate()[0]] + [x.communicate()[0] for x in p[1:]]
    c.equal("logs -f at every node gives all of it and ends", texts, [want] * 3)
    c.equal("with exit code 0", [x.returncode for x in p], [0, 0, 0])
    for n in w.cluster.nodes:
        code, out, _ = cli("job", "logs", "-a", n.address, job_id)
        c.equal(f"logs at node {n.id} afterwards", (code, out.encode()), (0, want))
    code, out, err = w.cluster.cli("job", "submit", "--follow", "--shell", "echo o; exit 5")
    c.check("submit --follow prints the output and tells how it ended",
            code == 1 and out == "o\n" and err, (code, out, err))


def test_placement(c, w):
    w.idle()
    ids = [w.submit(rpc.shell("sleep 1")) for _ in range(3 * SLOTS)]
    full = checks.wait_for(lambda: w.client.status().jobs_running == 3 * SLOTS, 5)
    running = {x.id: x.running for x in w.client.status().workers}
    c.check("twelve jobs fill three workers of four slots evenly", full and
            set(running.values()) == {SLOTS}, running)
    more = [w.submit(rpc.shell("sleep 0.3")) for _ in range(2 * SLOTS)]
    peak, order = 0, []
    until = time.monotonic() + 15
    while time.monotonic() < until:
        s = w.client.status()
        peak = max([peak] + [x.running for x in s.workers])
        if s.jobs_running == 0 and s.jobs_pending == 0:
            break
    c.equal("never more than its slots on a worker", peak, SLOTS)
    jobs = {j.id: j for j in w.client.list()}
    order = [jobs[i].fencing_token for i in ids + more]
    c.equal("first in, first out", order, sorted(order))
    spread = collections.Counter(jobs[i].worker_id for i in ids)
    c.equal("four for each", sorted(spread.values()), [SLOTS] * 3)
    # One at a time on idle workers: any is least loaded, but two at once never share one.
    pair = [w.submit(rpc.shell("sleep 0.2")) for _ in range(3)]
    ended = [w.wait(i).worker_id for i in pair]
    c.equal("three jobs on idle workers run on three", len(set(ended)), 3)


def test_fields(c, w):
    spec = rpc.shell("true", queue="nightly.1", labels={"team": "a", "x": ""}, name="näme",
                     run_timeout_ms=-1, kill_grace_ms=1234, max_attempts=7,
                     output_limit_bytes=5000, env={"K": "v=1"})
    job = w.run(spec)
    c.check("queue, labels, name and limits come back as given", job.spec == spec, job.spec)
    c.equal("and in a list by queue", [j.id for j in w.client.list(queue="nightly.1")], [job.id])
    c.equal("and by text", [j.id for j in w.client.list(command_contains="näme")], [job.id])
    defaults = w.run(rpc.shell("true")).spec
    c.equal("defaults are filled in", (defaults.queue, defaults.run_timeout_ms,
                                       defaults.kill_grace_ms, defaults.output_limit_bytes,
                                       defaults.max_attempts),
            ("default", 300000, 10000, 1 << 20, 3))
    ids = [w.submit(rpc.noop()) for _ in range(30)]
    c.check("ids ascend with creation", ids == sorted(ids, key=lambda i: (len(i), i)) and
            len(set(ids)) == 30, ids[:5])
    states = {j.state for j in w.client.list(states=[rpc.FAILED, rpc.CANCELLED])}
    c.equal("a list by states", states, {rpc.FAILED, rpc.CANCELLED})


def test_many(c, w):
    """A thousand short commands: all of them, once each."""
    begun = time.monotonic()
    ids = []
    for _ in range(10):
        ids += [r.job_id for r in w.client.submit_many([command("/bin/true")] * 100).results]
    c.check("1,000 jobs end", w.idle())
    seconds = time.monotonic() - begun
    jobs = {j.id: j for j in w.client.list()}
    c.check("all completed in the first attempt", all(
        jobs[i].state == rpc.COMPLETED and jobs[i].attempt == 1 for i in ids))
    print(f"#       {len(ids) / seconds:.0f} jobs/s with {3 * SLOTS} slots")
    same, text = w.cluster.digests_equal()
    c.check("digests are equal", same, text)


if __name__ == "__main__":
    checks.run(*checks.bind(World(), test_output, test_large_output, test_environment,
                            test_timeout, test_cancel, test_logs, test_placement, test_fields,
                            test_many))
