"""Many schedules at a time, and the books of what became of their ticks."""
import time

import grpc

import rpc
from checks import Abort

S = rpc.schedule_pb
REASONS = S.TickReason
CALLS = 64  # under way at a time


class Calls:
    """Calls of the ScheduleService to all nodes in turn, many at a time, repeated when no node
    leads."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.clients = {}

    def _client(self, i):
        nodes = self.cluster.live()
        node = nodes[i % len(nodes)]
        # A node that was started again listens where it did: connections come back by themselves.
        if node.address not in self.clients:
            self.clients[node.address] = rpc.Client(node.address)
        return self.clients[node.address]

    def _start(self, i, method, request, response):
        call = self._client(i).channel.unary_unary(
            f"/chronos.v1.ScheduleService/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=response.FromString)
        return call.future(request, timeout=10)

    def many(self, method, requests, response, seconds=60):
        """All answers, in the order of the requests."""
        until = time.monotonic() + seconds
        answers = [None] * len(requests)
        todo = list(range(len(requests)))
        while todo:
            again = []
            for first in range(0, len(todo), CALLS):
                part = todo[first:first + CALLS]
                futures = [(i, self._start(i, method, requests[i], response)) for i in part]
                for i, f in futures:
                    try:
                        answers[i] = f.result()
                    except grpc.RpcError as e:
                        if rpc.code_of(e) not in ("UNAVAILABLE", "DEADLINE_EXCEEDED",
                                                  "RESOURCE_EXHAUSTED"):
                            raise
                        if time.monotonic() > until:
                            raise Abort(f"{method}: {len(todo)} calls are left: {e.details()}")
                        again.append(i)
            todo = again
        return answers

    def create(self, specs, seconds=60):
        pb = rpc.schedules_pb
        self.many("CreateSchedule", [pb.CreateScheduleRequest(spec=s, idempotency_key=s.name)
                                     for s in specs], pb.ScheduleResponse, seconds)

    def ticks(self, names, seconds=60, **fields):
        """{name: its outcomes, oldest first}"""
        pb = rpc.schedules_pb
        answers = self.many("ListTicks", [pb.ListTicksRequest(name=n, page_size=1000, **fields)
                                          for n in names], pb.ListTicksResponse, seconds)
        return {n: list(reversed(a.ticks)) for n, a in zip(names, answers)}

    def get(self, names, seconds=60):
        pb = rpc.schedules_pb
        answers = self.many("GetSchedule", [pb.GetScheduleRequest(name=n) for n in names],
                            pb.ScheduleResponse, seconds)
        return {n: a.schedule for n, a in zip(names, answers)}


def percentile(values, share):
    """The smallest value that @share of all do not exceed; 0 of none."""
    values = sorted(values)
    return values[max(0, -(-int(len(values) * share * 1000) // 1000) - 1)] if values else 0


def lateness(ticks):
    """Milliseconds from tick to decision of each that ran, of all schedules given."""
    return [t.decided_at_ms - t.tick_ms for outcomes in ticks.values() for t in outcomes if t.fired]


def describe(values):
    return (f"{len(values)} ticks, late by {percentile(values, 0.5)} ms (median), "
            f"{percentile(values, 0.99)} ms (p99), {max(values, default=0)} ms (most)")
