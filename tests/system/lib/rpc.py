"""Chronos' gRPC API through Python's generic channels; messages compiled from proto/ by protoc."""
import importlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import grpc

PROTO_DIR = pathlib.Path(__file__).resolve().parents[3] / "proto"
_FILES = ("job", "job_service", "cluster_service", "worker_service", "schedule",
          "schedule_service")


def _compile():
    directory = tempfile.mkdtemp(prefix="chronos-systest-proto-")
    try:
        subprocess.run(["protoc", f"--python_out={directory}", f"-I{PROTO_DIR}",
                        *[f"chronos/v1/{name}.proto" for name in _FILES]], check=True)
        sys.path.insert(0, directory)
        return [importlib.import_module(f"chronos.v1.{name}_pb2") for name in _FILES]
    finally:
        shutil.rmtree(directory)


job_pb, service_pb, cluster_pb, worker_pb, schedule_pb, schedules_pb = _compile()

PENDING = job_pb.JOB_STATE_PENDING
RUNNING = job_pb.JOB_STATE_RUNNING
COMPLETED = job_pb.JOB_STATE_COMPLETED
FAILED = job_pb.JOB_STATE_FAILED
CANCELLED = job_pb.JOB_STATE_CANCELLED
TERMINAL = (COMPLETED, FAILED, CANCELLED)

# A channel on which no call waits is looked after this often; 5 s by default, which a client that
# comes back after a refusal would wait for.
os.environ.setdefault("GRPC_CLIENT_CHANNEL_BACKUP_POLL_INTERVAL_MS", "200")

# Reconnect at once; never share a connection with another client object; never a proxy.
_OPTIONS = (("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 200),
            ("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0),
            ("grpc.max_receive_message_length", 64 << 20))


def shell(line, **fields):
    return job_pb.JobSpec(shell=line, **fields)


def noop(**fields):
    return job_pb.JobSpec(noop=job_pb.Noop(), **fields)


def code_of(error):
    return error.code().name


def trailer(error, key):
    for k, v in error.trailing_metadata() or ():
        if k == key:
            return v
    return None


class Client:
    """One address."""

    def __init__(self, address):
        self.address = address
        self.channel = grpc.insecure_channel(address, _OPTIONS)

    def close(self):
        self.channel.close()

    def call(self, service, name, request, response, timeout, kind="unary_unary"):
        method = getattr(self.channel, kind)(
            f"/chronos.v1.{service}/{name}", request_serializer=type(request).SerializeToString,
            response_deserializer=response.FromString)
        return method(request, timeout=timeout)

    def _job(self, name, timeout, kind="unary_unary", **fields):
        return self.call("JobService", name, getattr(service_pb, name + "Request")(**fields),
                         getattr(service_pb, name + "Response"), timeout, kind)

    def submit(self, spec, key="", timeout=10):
        return self._job("SubmitJob", timeout, spec=spec, idempotency_key=key)

    def submit_future(self, spec, key="", timeout=30):
        method = self.channel.unary_unary(
            "/chronos.v1.JobService/SubmitJob",
            request_serializer=service_pb.SubmitJobRequest.SerializeToString,
            response_deserializer=service_pb.SubmitJobResponse.FromString)
        return method.future(service_pb.SubmitJobRequest(spec=spec, idempotency_key=key),
                             timeout=timeout)

    def submit_many(self, specs, timeout=10):
        return self._job("SubmitJobs", timeout,
                         jobs=[service_pb.SubmitJobRequest(spec=s) for s in specs])

    def get(self, job_id, stale=False, timeout=10):
        return self._job("GetJob", timeout, job_id=job_id, consistency=1 if stale else 0).job

    def cancel(self, job_id, timeout=10):
        return self._job("CancelJob", timeout, job_id=job_id).job

    def list_page(self, timeout=10, **fields):
        return self._job("ListJobs", timeout, **fields)

    def list(self, timeout=10, **fields):
        """All pages."""
        jobs, token = [], ""
        while True:
            page = self.list_page(timeout=timeout, page_token=token, page_size=1000, **fields)
            jobs += page.jobs
            token = page.next_page_token
            if not token:
                return jobs

    def watch(self, timeout=60, **fields):
        return self._job("WatchJobs", timeout, "unary_stream", **fields)

    def logs(self, job_id, timeout=30, **fields):
        """(whole output, the last message)"""
        data, last = b"", None
        for last in self._job("GetJobLogs", timeout, "unary_stream", job_id=job_id, **fields):
            data += last.data
        return data, last

    def schedule(self, method, /, timeout=10, response=None, **fields):
        """Any method of the ScheduleService by its name."""
        return self.call("ScheduleService", method, getattr(schedules_pb, method + "Request")(**fields),
                         getattr(schedules_pb, response or method + "Response"), timeout)

    def status(self, local=False, timeout=5):
        return self.call("ClusterService", "GetClusterStatus",
                         cluster_pb.GetClusterStatusRequest(local_only=local),
                         cluster_pb.GetClusterStatusResponse, timeout)

    def log_entries(self, first=0, limit=1000, timeout=5):
        return self.call("ClusterService", "ListLogEntries",
                         cluster_pb.ListLogEntriesRequest(first_index=first, limit=limit),
                         cluster_pb.ListLogEntriesResponse, timeout)
