#!/usr/bin/python3
"""Workers that die or freeze in the middle of a job.

Goal: the attempt is lost through a log entry, the job runs again with the next attempt number and a
greater fencing token, what the lost attempt started is dead, and what its worker says later changes
nothing; with one attempt allowed the job fails as worker_lost. Method: jobs that note attempt,
token and process id in a file; SIGKILL and SIGSTOP to workers; a short lease by flags.
"""
import os
import pathlib
import signal
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))

import checks  # noqa: E402
import processes  # noqa: E402
import rpc  # noqa: E402
from cluster import BIN, Cluster  # noqa: E402

LEASE_S = 2
FLAGS = ("--worker.lease", f"{LEASE_S}s", "--worker.heartbeat_interval", "300ms")
NOTE = 'echo "$CHRONOS_ATTEMPT $CHRONOS_FENCING_TOKEN $$" >> '


class World:
    def __init__(self):
        self.cluster = Cluster(3, flags=FLAGS)
        self.count = 0

    def file(self):
        self.count += 1
        return os.path.join(self.cluster.directory, f"notes{self.count}")

    def job(self, job_id):
        return self.cluster.leader().client.get(job_id)

    def wait_state(self, job_id, states, seconds=20, attempt=0):
        def there():
            try:
                job = self.job(job_id)
            except (rpc.grpc.RpcError, AttributeError):
                return None
            return job if job.state in states and job.attempt >= attempt else None
        return checks.wait_for(there, seconds, 0.02)

    def node_of(self, job):
        return next(n for n in self.cluster.nodes if n.worker_id == job.worker_id)

    def follower_job(self, submit):
        """A job whose worker stands beside a follower, so that no election mixes in."""
        for _ in range(20):
            job_id, path = submit()
            job = self.wait_state(job_id, (rpc.RUNNING,))
            if job and self.node_of(job) is not self.cluster.leader() and \
                    checks.wait_for(lambda p=path: notes(p), 5):
                return job, path, self.node_of(job)
            self.cluster.leader().client.cancel(job_id)
            self.wait_state(job_id, rpc.TERMINAL)
        raise checks.Abort("no job on a follower's worker")


def notes(path):
    """[(attempt, token, process id)]"""
    try:
        text = pathlib.Path(path).read_text(encoding="ascii")
    except OSError:
        return []
    return [tuple(int(x) for x in line.split()[:3]) for line in text.splitlines()]


def of_attempt(job_id, attempt):
    """Living processes of that attempt, by the mark that every attempt's environment has."""
    return [p for p in processes.with_environment(f"CHRONOS_JOB_ID={job_id}\0")
            if p in processes.with_environment(f"CHRONOS_ATTEMPT={attempt}\0")]


def log_types(world, first):
    client = world.cluster.leader().client
    return [(e.index, e.type, e.summary) for e in client.log_entries(first=first).entries]


def check_retried(c, what, first, job, path):
    lines = notes(path)
    c.equal(f"{what}: completed", job.state, rpc.COMPLETED)
    c.equal(f"{what}: in attempt 2", job.attempt, 2)
    c.check(f"{what}: the token grew", job.fencing_token > first.fencing_token,
            (first.fencing_token, job.fencing_token))
    c.equal(f"{what}: both attempts saw their own number and token",
            [line[:2] for line in lines], [(1, first.fencing_token), (2, job.fencing_token)])


def test_worker_killed(c):
    """SIGKILL: its server starts it again, and the new process ends what the old one left."""
    w = World()

    def submit():
        path = w.file()
        # The tree: a shell, a child, and one that left the session and ignores SIGTERM.
        line = (f"{NOTE}{path}; if [ $CHRONOS_ATTEMPT = 1 ]; then "
                "setsid sh -c 'trap \"\" TERM; sleep 301' & sleep 300; fi; echo done")
        return w.cluster.nodes[0].client.submit(rpc.shell(line)).job_id, path

    first, path, node = w.follower_job(submit)
    c.check("killed: the attempt's tree runs",
            checks.wait_for(lambda: len(of_attempt(first.id, 1)) >= 4, 5), of_attempt(first.id, 1))
    old = node.worker_pid
    processes.signal_pid(old, signal.SIGKILL)
    job = w.wait_state(first.id, rpc.TERMINAL)
    c.require("killed: the job ends", job, w.job(first.id))
    check_retried(c, "killed", first, job, path)
    c.check("killed: nothing of attempt 1 lives",
            checks.wait_for(lambda: not of_attempt(first.id, 1), 5), of_attempt(first.id, 1))
    c.check("killed: the worker was started again",
            checks.wait_for(lambda: node.worker_pid not in (0, old), 5))
    data, last = node.client.logs(first.id)
    c.check("killed: the output is the second attempt's", data == b"done\n" and last.attempt == 2,
            (data, last))
    same, text = w.cluster.digests_equal()
    c.check("killed: digests are equal", same, text)
    w.cluster.stop()


def test_host_lost(c):
    """Server and worker die together, as when a machine is lost: the lease decides."""
    w = World()

    def submit():
        path = w.file()
        line = f"{NOTE}{path}; [ $CHRONOS_ATTEMPT != 1 ] || sleep 300"
        return w.cluster.nodes[0].client.submit(rpc.shell(line)).job_id, path

    first, path, node = w.follower_job(submit)
    start = w.cluster.leader().client.status().applied_index + 1
    node.process.send_signal(signal.SIGKILL)
    processes.signal_pid(node.worker_pid, signal.SIGKILL)
    lost_at = time.monotonic()
    job = w.wait_state(first.id, rpc.TERMINAL)
    seconds = time.monotonic() - lost_at
    c.require("host lost: the job ends", job)
    check_retried(c, "host lost", first, job, path)
    c.check("host lost: it waited for the lease, not much longer", LEASE_S - 0.4 < seconds <
            LEASE_S + 2, f"{seconds:.2f} s")
    c.check("host lost: it ran on another worker", job.worker_id != first.worker_id)
    types = log_types(w, start)
    c.check("host lost: the loss is a log entry", any("LoseWorker" in s for _, _, s in types), types)
    node.start()
    c.require("host lost: the node is back", w.cluster.wait_ready())
    c.check("host lost: nothing of attempt 1 lives once the host is back",
            checks.wait_for(lambda: not of_attempt(first.id, 1), 5), of_attempt(first.id, 1))
    w.cluster.stop()


def test_worker_frozen(c):
    """SIGSTOP for longer than the lease: one job whose child runs on, one whose child ends
    meanwhile and would be reported as a success of an attempt that is no longer the worker's."""
    w = World()

    def submit_long():
        path = w.file()
        line = f"{NOTE}{path}; [ $CHRONOS_ATTEMPT != 1 ] || sleep 300"
        return w.cluster.nodes[0].client.submit(rpc.shell(line, kill_grace_ms=500)).job_id, path

    long_job, long_path, node = w.follower_job(submit_long)

    def submit_short():
        path = w.file()
        line = f"{NOTE}{path}; [ $CHRONOS_ATTEMPT = 1 ] && sleep 1 && exit 0; sleep 5"
        return w.cluster.nodes[0].client.submit(rpc.shell(line)).job_id, path

    for _ in range(12):
        short_id, short_path = submit_short()
        short_job = w.wait_state(short_id, (rpc.RUNNING,))
        if short_job.worker_id == long_job.worker_id and \
                checks.wait_for(lambda p=short_path: notes(p), 0.6):
            break
    c.require("frozen: both jobs are on one worker", short_job.worker_id == long_job.worker_id)
    start = w.cluster.leader().client.status().applied_index + 1
    pid = node.worker_pid
    processes.signal_pid(pid, signal.SIGSTOP)
    frozen_at = time.monotonic()
    second = w.wait_state(short_id, (rpc.RUNNING,), attempt=2)
    c.require("frozen: the short job is tried again", second)
    seconds = time.monotonic() - frozen_at
    c.check("frozen: after the lease, not before and not much later",
            LEASE_S - 0.4 < seconds < LEASE_S + 2, f"{seconds:.2f} s")
    c.check("frozen: elsewhere, with a greater token", second.worker_id != short_job.worker_id and
            second.fencing_token > short_job.fencing_token, second)
    types = log_types(w, start)
    c.check("frozen: the loss is a log entry", any("LoseWorker" in s for _, _, s in types), types)
    job = w.wait_state(long_job.id, rpc.TERMINAL)
    c.require("frozen: the long job ends elsewhere", job)
    check_retried(c, "frozen, long job", long_job, job, long_path)
    c.check("frozen: the first attempt's child still runs beside the frozen worker",
            of_attempt(long_job.id, 1))
    processes.signal_pid(pid, signal.SIGCONT)
    c.check("frozen: the woken worker kills its child", checks.wait_for(
        lambda: not of_attempt(long_job.id, 1), 3), of_attempt(long_job.id, 1))
    c.check("frozen: the woken worker is live again", checks.wait_for(
        lambda: any(x.id == node.worker_id and x.is_alive
                    for x in w.cluster.leader().client.status().workers), 10))
    now = w.job(short_id)
    c.check("frozen: its late success changed nothing", now.state == rpc.RUNNING and
            now.attempt == 2 and now.fencing_token == second.fencing_token, now)
    job = w.wait_state(short_id, rpc.TERMINAL)
    c.require("frozen: the short job ends", job)
    check_retried(c, "frozen, short job", short_job, job, short_path)
    again = w.job(long_job.id)
    c.check("frozen: the long job is as it ended", again.attempt == 2 and
            again.state == rpc.COMPLETED, again)
    same, text = w.cluster.digests_equal()
    c.check("frozen: digests are equal", same, text)
    w.cluster.stop()


def test_at_most_once(c):
    """max_attempts 1: no second attempt, whatever happens to the first."""
    w = World()

    def submit():
        path = w.file()
        return w.cluster.nodes[0].client.submit(
            rpc.shell(f"{NOTE}{path}; sleep 300", max_attempts=1)).job_id, path

    for what, also_server in (("its worker killed", False), ("its host lost", True)):
        first, path, node = w.follower_job(submit)
        if also_server:
            node.process.send_signal(signal.SIGKILL)
        processes.signal_pid(node.worker_pid, signal.SIGKILL)
        job = w.wait_state(first.id, rpc.TERMINAL)
        c.require(f"at most once, {what}: it ends", job)
        c.check(f"at most once, {what}: failed as worker_lost", job.state == rpc.FAILED and
                job.failure_reason == rpc.job_pb.FAILURE_REASON_WORKER_LOST and job.attempt == 1,
                job)
        c.equal(f"at most once, {what}: one attempt was started", len(notes(path)), 1)
    w.cluster.stop()


def test_at_most_once_released(c):
    """max_attempts 1: an attempt that its stopping worker gave back had been started, so it counts."""
    w = World()
    path = w.file()
    job_id = w.cluster.nodes[0].client.submit(
        rpc.shell(f"{NOTE}{path}; sleep 300", max_attempts=1)).job_id
    job = w.wait_state(job_id, (rpc.RUNNING,))
    c.require("released: the job runs", job and checks.wait_for(lambda: notes(path), 5))
    pid = w.node_of(job).worker_pid
    processes.signal_pid(pid, signal.SIGTERM)
    processes.signal_pid(pid, signal.SIGTERM)  # the second one skips the drain
    job = w.wait_state(job_id, rpc.TERMINAL)
    c.check("released: failed as worker_lost", job and job.state == rpc.FAILED and
            job.failure_reason == rpc.job_pb.FAILURE_REASON_WORKER_LOST and job.attempt == 1 and
            "started only once" in job.failure_message, job)
    c.equal("released: one attempt was started", len(notes(path)), 1)
    w.cluster.stop()


def worker_status(w, worker_id):
    return next(x for x in w.cluster.leader().client.status().workers if x.id == worker_id)


def test_drain(c):
    """SIGTERM to a worker: it gets no more work while what it runs may go on, loses nothing, and
    is live again once its server has started it again."""
    w = World()
    w.file()
    go = w.file()

    def submit():
        path = w.file()
        return w.cluster.nodes[0].client.submit(rpc.shell(
            f"{NOTE}{path}; until test -e {go}; do sleep 0.02; done")).job_id, path

    first, path, node = w.follower_job(submit)
    pid = node.worker_pid
    c.equal("drain: the worker was live", worker_status(w, node.worker_id).state, "live")
    processes.signal_pid(pid, signal.SIGTERM)
    c.check("drain: it is shown as draining and alive", checks.wait_for(
        lambda: worker_status(w, node.worker_id).state == "draining", 2) and
        worker_status(w, node.worker_id).is_alive, worker_status(w, node.worker_id))
    ids = [w.cluster.nodes[0].client.submit(rpc.shell("true")).job_id for _ in range(30)]
    jobs = [w.wait_state(i, rpc.TERMINAL) for i in ids]
    c.check("drain: new jobs run elsewhere, at the first attempt", all(
        j and j.state == rpc.COMPLETED and j.attempt == 1 and j.worker_id != node.worker_id
        for j in jobs), jobs)
    pathlib.Path(go).touch()
    job = w.wait_state(first.id, rpc.TERMINAL)
    c.check("drain: the running job completes there", job and job.state == rpc.COMPLETED and
            job.attempt == 1 and job.worker_id == node.worker_id, job)
    c.check("drain: the next process is live", checks.wait_for(
        lambda: node.worker_pid not in (0, pid) and
        worker_status(w, node.worker_id).state == "live" and
        worker_status(w, node.worker_id).is_alive, 10), worker_status(w, node.worker_id))
    w.cluster.stop()


def test_two_with_one_id(c):
    """A second worker with a live worker's id is refused and says so; the first goes on."""
    w = World()

    def submit():
        path = w.file()
        return w.cluster.nodes[0].client.submit(
            rpc.shell(f"{NOTE}{path}; sleep 2")).job_id, path

    first, path, node = w.follower_job(submit)
    log_path = os.path.join(w.cluster.directory, "second.log")
    with open(log_path, "ab") as log:
        second = processes.start(
            [BIN, "worker", "--node", node.address, "--id", node.worker_id, "--data-dir",
             os.path.join(w.cluster.directory, "second")], stdout=log, stderr=log)
    text = "another worker process is connected under this id; ids must be unique"
    c.check("one id twice: the second says why", checks.wait_for(
        lambda: pathlib.Path(log_path).read_text(encoding="utf-8").count(text) >= 2, 5))
    c.check("one id twice: its error names the id", f"worker={node.worker_id}" in
            pathlib.Path(log_path).read_text(encoding="utf-8"))
    time.sleep(1)
    c.equal("one id twice: it does not insist",
            pathlib.Path(log_path).read_text(encoding="utf-8").count("joined a node"), 0)
    job = w.wait_state(first.id, rpc.TERMINAL)
    c.check("one id twice: the first worker's job is untouched", job and
            job.state == rpc.COMPLETED and job.attempt == 1 and len(notes(path)) == 1, job)
    second.send_signal(signal.SIGTERM)
    c.check("one id twice: the second stops", checks.wait_for(lambda: second.poll() == 0, 5))
    pid = node.worker_pid
    processes.signal_pid(pid, signal.SIGKILL)
    c.check("one id twice: killed and started again, the worker is back at once", checks.wait_for(
        lambda: node.worker_pid not in (0, pid) and node.log().count("joined a node") >= 2, 3))
    w.cluster.stop()


def test_server_of_worker_lost(c):
    """Only the server dies: its worker goes on with another node and loses nothing."""
    w = World()

    def submit():
        path = w.file()
        return w.cluster.nodes[0].client.submit(
            rpc.shell(f"echo begin; {NOTE}{path}; sleep 4; echo end")).job_id, path

    first, path, node = w.follower_job(submit)
    pid = node.worker_pid
    node.kill()
    job = w.wait_state(first.id, rpc.TERMINAL)
    c.require("server lost: the job ends", job)
    c.check("server lost: the first attempt completed", job.state == rpc.COMPLETED and
            job.attempt == 1 and len(notes(path)) == 1, job)
    data, _ = w.cluster.leader().client.logs(first.id)
    c.equal("server lost: the whole output is there", data, b"begin\nend\n")
    c.check("server lost: the worker moved to another node", checks.wait_for(lambda: any(
        x.id == node.worker_id and x.is_alive and x.node_id != node.id
        for x in w.cluster.leader().client.status().workers), 5))
    node.start()
    c.require("server lost: the node is back", checks.wait_for(node.status, 5))
    c.check("server lost: it sees the worker of its predecessor", checks.wait_for(
        lambda: "worker of an earlier server is still running" in node.log(), 5))
    c.equal("server lost: the worker is still the same process", node.worker_pid, pid)
    node.kill(signal.SIGTERM)
    c.check("server lost: stopping the node stops that worker too",
            checks.wait_for(lambda: not processes.alive(pid), 5))
    w.cluster.stop()


if __name__ == "__main__":
    checks.run(test_worker_killed, test_host_lost, test_worker_frozen, test_at_most_once,
               test_at_most_once_released, test_drain, test_two_with_one_id,
               test_server_of_worker_lost)
