#!/usr/bin/python3
"""A client that is not ours: the Python gRPC package against a running cluster.

Goal: everything a stranger needs is in the .proto files. They are compiled with protoc, and the
calls go through grpc's generic channel, so no generated service code and no Chronos code is used.
Usage: test_clients.py HOST:PORT...        (or CHRONOS_ADDRESSES="HOST:PORT HOST:PORT")
The cluster must have at least one worker that can run /bin/sh, for example `chronos dev`.
Prints one "ok" line per check; exits 1 at the first failure.
"""
import importlib
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time

import grpc

PROTO_DIR = pathlib.Path(__file__).resolve().parents[2] / "proto"
TIMEOUT_S = 30


class Failure(Exception):
    pass


def check(condition, what):
    if not condition:
        raise Failure(what)


def compile_protos(directory):
    files = [str(p.relative_to(PROTO_DIR)) for p in sorted(PROTO_DIR.rglob("*.proto"))
             if "internal" not in p.parts]
    subprocess.run(["protoc", f"--python_out={directory}", f"-I{PROTO_DIR}", *files], check=True)
    # The schemas' grpc/ folder would hide the grpc package: their modules join it instead.
    sys.path.insert(0, directory)
    grpc.__path__.append(os.path.join(directory, "grpc"))
    names = ("chronos.v1.job_pb2", "chronos.v1.job_service_pb2", "chronos.v1.cluster_service_pb2",
             "grpc.health.v1.health_pb2", "grpc.reflection.v1.reflection_pb2",
             "grpc.reflection.v1alpha.reflection_pb2")
    return {name.split(".")[-1] + ("_alpha" if "alpha" in name else ""):
            importlib.import_module(name) for name in names}


class Node:
    """One address and the calls of all services on it."""

    def __init__(self, address, pb):
        self.address = address
        self.pb = pb
        self.channel = grpc.insecure_channel(address)

    def method(self, path, request, response, kind="unary_unary"):
        return getattr(self.channel, kind)(
            path, request_serializer=request.SerializeToString,
            response_deserializer=response.FromString)

    def job(self, name, message, timeout=TIMEOUT_S):
        service = self.pb["job_service_pb2"]
        call = self.method(f"/chronos.v1.JobService/{name}", getattr(service, name + "Request"),
                           getattr(service, name + "Response"))
        return call(message, timeout=timeout)

    def job_stream(self, name, message, timeout=TIMEOUT_S):
        service = self.pb["job_service_pb2"]
        call = self.method(f"/chronos.v1.JobService/{name}", getattr(service, name + "Request"),
                           getattr(service, name + "Response"), "unary_stream")
        return call(message, timeout=timeout)

    def cluster(self, name, message):
        service = self.pb["cluster_service_pb2"]
        call = self.method(f"/chronos.v1.ClusterService/{name}", getattr(service, name + "Request"),
                           getattr(service, name + "Response"))
        return call(message, timeout=TIMEOUT_S)


def expect_error(code, text, function, *args):
    try:
        function(*args)
    except grpc.RpcError as e:
        check(e.code() == code, f"expected {code}, got {e.code()}: {e.details()}")
        check(text in e.details(), f"expected '{text}' in '{e.details()}'")
        return e
    raise Failure(f"expected {code}")


def wait_terminal(node, job_id):
    js, j = node.pb["job_service_pb2"], node.pb["job_pb2"]
    until = time.monotonic() + TIMEOUT_S
    while time.monotonic() < until:
        job = node.job("GetJob", js.GetJobRequest(job_id=job_id)).job
        if job.state >= j.JOB_STATE_COMPLETED:
            return job
        time.sleep(0.02)
    raise Failure(f"job {job_id} did not end")


def test_submit(nodes, pb):
    js, j = pb["job_service_pb2"], pb["job_pb2"]
    spec = j.JobSpec(command=j.Command(argv=["/bin/echo", "hello", "from python"]),
                     env={"A": "1", "B": "2"}, labels={"client": "python"}, name="python echo")
    request = js.SubmitJobRequest(spec=spec, idempotency_key=f"py-{os.getpid()}-{time.time_ns()}")
    first = nodes[0].job("SubmitJob", request)
    check(first.job_id.startswith("j") and first.index > 0, "submit gave no id")
    again = nodes[-1].job("SubmitJob", request)
    check(again.job_id == first.job_id and again.existing, "the idempotency key was not honoured")
    request.spec.name = "another"
    expect_error(grpc.StatusCode.ALREADY_EXISTS, "idempotency_key", nodes[0].job, "SubmitJob",
                 request)
    job = wait_terminal(nodes[-1], first.job_id)
    check(job.state == j.JOB_STATE_COMPLETED, f"the job ended as {job.state}")
    check(job.output_tail == b"hello from python\n", f"the output is {job.output_tail!r}")
    check(job.spec.queue == "default" and job.spec.max_attempts == 3, "defaults are missing")
    check(job.spec.env["B"] == "2" and job.created_index == first.index, "the job is not ours")


def test_errors(nodes, pb):
    js, j = pb["job_service_pb2"], pb["job_pb2"]
    code = grpc.StatusCode
    submit = nodes[0].job
    bad = j.JobSpec(shell="true", env={"LD_PRELOAD": "x"})
    expect_error(code.INVALID_ARGUMENT, 'spec.env["LD_PRELOAD"]', submit, "SubmitJob",
                 js.SubmitJobRequest(spec=bad))
    bad = j.JobSpec(command=j.Command(argv=["a", "b\0c"]))
    expect_error(code.INVALID_ARGUMENT, "spec.command.argv[1]", submit, "SubmitJob",
                 js.SubmitJobRequest(spec=bad))
    expect_error(code.INVALID_ARGUMENT, "spec: is missing", submit, "SubmitJob",
                 js.SubmitJobRequest())
    expect_error(code.NOT_FOUND, "", submit, "GetJob", js.GetJobRequest(job_id="jczzzzzzzzzzzz"))
    expect_error(code.INVALID_ARGUMENT, "job_id", submit, "GetJob",
                 js.GetJobRequest(job_id="no id"))
    expect_error(code.INVALID_ARGUMENT, "page_size", submit, "ListJobs",
                 js.ListJobsRequest(page_size=1001))
    expect_error(code.INVALID_ARGUMENT, "page_token", submit, "ListJobs",
                 js.ListJobsRequest(page_token="garbage"))
    expect_error(code.INVALID_ARGUMENT, "jobs: must have 1 to 1000", submit, "SubmitJobs",
                 js.SubmitJobsRequest())
    raw = nodes[0].channel.unary_unary("/chronos.v1.JobService/SubmitJob")
    expect_error(code.INVALID_ARGUMENT, "malformed", lambda: raw(b"\x0a\xff\xff\x01", timeout=5))
    raw = nodes[0].channel.unary_unary("/chronos.v1.JobService/Nothing")
    expect_error(code.UNIMPLEMENTED, "", lambda: raw(b"", timeout=5))


def test_batch_and_list(nodes, pb):
    js, j = pb["job_service_pb2"], pb["job_pb2"]
    queue = f"py-{time.time_ns()}"
    good = js.SubmitJobRequest(spec=j.JobSpec(noop=j.Noop(), queue=queue, name="needle-42"))
    bad = js.SubmitJobRequest(spec=j.JobSpec(queue=queue))
    answer = nodes[0].job("SubmitJobs", js.SubmitJobsRequest(jobs=[good] * 12 + [bad] + [good] * 12))
    check(len(answer.results) == 25, "not one result per item")
    check(answer.results[12].code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
          and "spec.payload" in answer.results[12].message, "the bad item did not fail alone")
    ids = [r.job_id for i, r in enumerate(answer.results) if i != 12]
    check(all(ids) and sorted(ids) == ids and len(set(ids)) == 24, "ids do not ascend")
    for oldest_first in (False, True):
        seen, token, index = [], "", None
        while True:
            page = nodes[-1].job("ListJobs", js.ListJobsRequest(
                page_size=7, page_token=token, queue=queue, oldest_first=oldest_first))
            check(len(page.jobs) <= 7, "the page is too long")
            check(index in (None, page.index), "pages disagree about the index")
            seen += [job.id for job in page.jobs]
            token, index = page.next_page_token, page.index
            if not token:
                break
        check(seen == (ids if oldest_first else ids[::-1]), f"listed {len(seen)} of {len(ids)}")
        check(index >= answer.index, "the list does not see the submit")
    page = nodes[0].job("ListJobs", js.ListJobsRequest(queue=queue, command_contains="needle-42"))
    check(len(page.jobs) == 24, "command_contains missed jobs")
    page = nodes[0].job("ListJobs", js.ListJobsRequest(queue=queue, command_contains="needle-43"))
    check(len(page.jobs) == 0, "command_contains found what is not there")
    first = nodes[0].job("ListJobs", js.ListJobsRequest(queue=queue, page_size=5))
    expect_error(grpc.StatusCode.INVALID_ARGUMENT, "other filters", nodes[0].job, "ListJobs",
                 js.ListJobsRequest(queue="other", page_token=first.next_page_token))


def test_watch(nodes, pb):
    js, j = pb["job_service_pb2"], pb["job_pb2"]
    stream = nodes[-1].job_stream("WatchJobs", js.WatchJobsRequest())
    start = next(stream)
    check(start.index > 0 and not start.events, "no sign of life at the start")
    submitted = nodes[0].job("SubmitJob",
                             js.SubmitJobRequest(spec=j.JobSpec(shell="echo watched")))
    states, last = [], start.index
    for message in stream:
        check(message.index >= last, "the watch ran backwards")
        last = message.index
        states += [(e.index, e.to) for e in message.events if e.job_id == submitted.job_id]
        if states and states[-1][1] >= j.JOB_STATE_COMPLETED:
            break
    stream.cancel()
    check([s for _, s in states] == [j.JOB_STATE_PENDING, j.JOB_STATE_RUNNING,
                                     j.JOB_STATE_COMPLETED], f"saw {states}")
    check(states[0][0] == submitted.index, "the event's index is not the submit's")
    # The same again from another node, from the past, for this job only.
    stream = nodes[0].job_stream("WatchJobs", js.WatchJobsRequest(
        after_index=submitted.index - 1, job_ids=[submitted.job_id]))
    replay = []
    for message in stream:
        replay += [(e.index, e.to) for e in message.events]
        if replay and replay[-1][1] >= j.JOB_STATE_COMPLETED:
            break
    stream.cancel()
    check(replay == states, "the replay differs")
    stream = nodes[0].job_stream("WatchJobs", js.WatchJobsRequest(after_index=1 << 60))
    expect_error(grpc.StatusCode.OUT_OF_RANGE, "after_index", lambda: next(stream))


def test_cancel(nodes, pb):
    js, j = pb["job_service_pb2"], pb["job_pb2"]
    job_id = nodes[0].job("SubmitJob", js.SubmitJobRequest(spec=j.JobSpec(
        command=j.Command(argv=["/bin/sleep", "600"]), kill_grace_ms=1000))).job_id
    answer = nodes[-1].job("CancelJob", js.CancelJobRequest(job_id=job_id))
    check(answer.index > 0 and answer.job.id == job_id, "cancel gave no job")
    job = wait_terminal(nodes[0], job_id)
    check(job.state == j.JOB_STATE_CANCELLED, f"the cancelled job ended as {job.state}")
    again = nodes[0].job("CancelJob", js.CancelJobRequest(job_id=job_id))
    check(again.job.state == j.JOB_STATE_CANCELLED, "cancel is not idempotent")
    done = nodes[0].job("SubmitJob", js.SubmitJobRequest(spec=j.JobSpec(noop=j.Noop()))).job_id
    wait_terminal(nodes[0], done)
    expect_error(grpc.StatusCode.FAILED_PRECONDITION, "already ended", nodes[0].job, "CancelJob",
                 js.CancelJobRequest(job_id=done))
    expect_error(grpc.StatusCode.NOT_FOUND, "", nodes[0].job, "CancelJob",
                 js.CancelJobRequest(job_id="jczzzzzzzzzzzz"))


def test_logs(nodes, pb):
    js, j = pb["job_service_pb2"], pb["job_pb2"]
    line = "for i in 1 2 3; do echo line $i; sleep 0.1; done"
    job_id = nodes[0].job("SubmitJob", js.SubmitJobRequest(spec=j.JobSpec(shell=line))).job_id
    for node in nodes:  # one of them is not the worker's
        data, end = b"", False
        for message in node.job_stream("GetJobLogs",
                                       js.GetJobLogsRequest(job_id=job_id, follow=True)):
            check(message.offset == len(data), "the output has a gap")
            data += message.data
            end = message.end
        check(end and data == b"line 1\nline 2\nline 3\n", f"logs from {node.address}: {data!r}")
    rest = b"".join(m.data for m in nodes[0].job_stream(
        "GetJobLogs", js.GetJobLogsRequest(job_id=job_id, offset=14)))
    check(rest == b"line 3\n", f"from offset 14: {rest!r}")
    job_id = nodes[0].job("SubmitJob", js.SubmitJobRequest(
        spec=j.JobSpec(shell="echo begun; exec sleep 60", kill_grace_ms=1000))).job_id
    stream = nodes[0].job_stream("GetJobLogs", js.GetJobLogsRequest(job_id=job_id, follow=True))
    check(next(stream).data == b"begun\n", "a following stream does not begin with the output")
    stream.cancel()
    so_far = list(nodes[-1].job_stream("GetJobLogs", js.GetJobLogsRequest(job_id=job_id)))
    check(b"".join(m.data for m in so_far) == b"begun\n" and not so_far[-1].end,
          "without follow a running job's output does not end well")
    nodes[0].job("CancelJob", js.CancelJobRequest(job_id=job_id))
    wait_terminal(nodes[0], job_id)
    stream = nodes[0].job_stream("GetJobLogs", js.GetJobLogsRequest(job_id=job_id, attempt=9))
    expect_error(grpc.StatusCode.NOT_FOUND, "attempt", lambda: next(stream))


def test_cluster(nodes, pb):
    cs = pb["cluster_service_pb2"]
    answers = [n.cluster("GetClusterStatus", cs.GetClusterStatusRequest()) for n in nodes]
    for a in answers:
        check(a.leader_id > 0 and a.cluster_id == answers[0].cluster_id, "nodes disagree")
        check(len(a.nodes) == len(nodes) and len(a.workers) > 0, "members are missing")
    entries = nodes[0].cluster("ListLogEntries", cs.ListLogEntriesRequest(limit=10))
    check(len(entries.entries) == 10, f"{len(entries.entries)} log entries instead of 10")
    indices = [e.index for e in entries.entries]
    check(indices == list(range(indices[0], indices[0] + 10)), "log entries are not consecutive")


def test_health(nodes, pb):
    h = pb["health_pb2"]
    for node in nodes:
        call = node.method("/grpc.health.v1.Health/Check", h.HealthCheckRequest,
                           h.HealthCheckResponse)
        for service in ("", "chronos.v1.JobService", "chronos.v1.ClusterService"):
            answer = call(h.HealthCheckRequest(service=service), timeout=TIMEOUT_S)
            check(answer.status == h.HealthCheckResponse.SERVING, f"{service} is not serving")
        expect_error(grpc.StatusCode.NOT_FOUND, "service", lambda: call(
            h.HealthCheckRequest(service="no.such.Service"), timeout=TIMEOUT_S))
    watch = nodes[0].method("/grpc.health.v1.Health/Watch", h.HealthCheckRequest,
                            h.HealthCheckResponse, "unary_stream")
    stream = watch(h.HealthCheckRequest(), timeout=TIMEOUT_S)
    check(next(stream).status == h.HealthCheckResponse.SERVING, "watch does not say SERVING")
    stream.cancel()


def test_reflection(nodes, pb):
    from google.protobuf import descriptor_pb2
    for module, version in ((pb["reflection_pb2"], "v1"), (pb["reflection_pb2_alpha"], "v1alpha")):
        call = nodes[0].method(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            module.ServerReflectionRequest, module.ServerReflectionResponse, "stream_stream")
        requests = [
            module.ServerReflectionRequest(list_services=""),
            module.ServerReflectionRequest(file_containing_symbol="chronos.v1.JobService"),
            module.ServerReflectionRequest(file_by_filename="chronos/v1/job.proto"),
            module.ServerReflectionRequest(file_containing_symbol="no.such.Symbol"),
        ]
        answers = list(call(iter(requests), timeout=TIMEOUT_S))
        check(len(answers) == 4, "not one answer per question")
        services = [s.name for s in answers[0].list_services_response.service]
        check("chronos.v1.JobService" in services and "grpc.health.v1.Health" in services,
              f"services: {services}")
        files = [descriptor_pb2.FileDescriptorProto.FromString(raw) for raw in
                 answers[1].file_descriptor_response.file_descriptor_proto]
        check([f.name for f in files] == ["chronos/v1/job_service.proto", "chronos/v1/job.proto"],
              "the service's files are not complete")
        check("SubmitJob" in [m.name for m in files[0].service[0].method], "SubmitJob is missing")
        check(answers[3].error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0],
              "an unknown symbol is not NOT_FOUND")


def test_client_that_leaves(nodes, pb):
    """Calls that are cancelled while they wait must not hurt the server or anybody else."""
    js, j = pb["job_service_pb2"], pb["job_pb2"]
    submit = nodes[0].method("/chronos.v1.JobService/SubmitJob", js.SubmitJobRequest,
                             js.SubmitJobResponse)
    for _ in range(200):
        future = submit.future(js.SubmitJobRequest(spec=j.JobSpec(noop=j.Noop())), timeout=5)
        threading.Thread(target=future.cancel).start()
    streams = [nodes[0].job_stream("WatchJobs", js.WatchJobsRequest()) for _ in range(50)]
    for stream in streams:
        stream.cancel()
    answer = nodes[0].job("SubmitJob", js.SubmitJobRequest(spec=j.JobSpec(noop=j.Noop())))
    wait_terminal(nodes[0], answer.job_id)


TESTS = (test_health, test_reflection, test_submit, test_errors, test_batch_and_list, test_watch,
         test_cancel, test_logs, test_cluster, test_client_that_leaves)


def main():
    addresses = sys.argv[1:] or os.environ.get("CHRONOS_ADDRESSES", "").split()
    if not addresses:
        print(__doc__, file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as directory:
        pb = compile_protos(directory)
        nodes = [Node(a, pb) for a in addresses]
        for test in TESTS:
            started = time.monotonic()
            try:
                test(nodes, pb)
            except (Failure, grpc.RpcError, StopIteration) as e:
                print(f"not ok {test.__name__}: {e!r}")
                return 1
            print(f"ok {test.__name__} ({(time.monotonic() - started) * 1000:.0f} ms)", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
