"""A cluster of lib/cluster.py whose nodes live in network namespaces."""
import os
import pathlib
import shutil
import sys

import cluster as lib
import network
import processes
from checks import Abort, wait_for

LIBRARIES = sorted(pathlib.Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
FLAGS = ("--wal.segment_bytes", "4MiB", "--worker.drain_timeout", "3s", "--worker.lease", "2s",
         "--worker.heartbeat_interval", "300ms", "--worker.slots", "8",
         "--security.insecure_bind=true", "--cluster.raft.snapshot_interval", "3s",
         "--cluster.raft.snapshot_threshold", "500", "--cluster.raft.log_bytes_kept", "1MiB")
LEASE_S = 2.0
ELECTION_S = 0.3  # the longest wait before an election


class Node(lib.Node):
    def __init__(self, cluster, number, join=None):
        super().__init__(cluster, number, slot=number, join=join)
        self.port, self.peer_port = network.CLIENT_PORT, network.PEER_PORT
        self.address = f"{network.host(number)}:{self.port}"
        self.peer_address = f"{network.host(number)}:{self.peer_port}"
        self.starts = 0
        self.expected_codes = {0, -9}  # of ends that were not asked for: see Cluster.tend()

    def start(self):
        self.forget_client()
        self.starts += 1
        env = dict(os.environ, **self.cluster.environment(self))
        with open(self.log_path, "ab") as log:
            self.process = processes.start(network.Network.inside(self.id, *self.argv()),
                                           stdout=log, stderr=log, env=env)


class Cluster(lib.Cluster):
    """Not started before start(): disks may have to be put below first."""

    def __init__(self, size, flags=(), workers=True, room=0, clocks=False):
        # Not super().__init__(): it would make nodes on loopback.
        self.directory = lib.temporary_directory()
        self.base_port = 0
        self.slots = size
        self.name = f"chaos-{size}"
        self.flags = [*FLAGS, *flags]
        self.workers = workers
        self.clocks = clocks
        self.slow_library = None
        self.network = network.Network(size + room)
        self.nodes = [Node(self, i + 1) for i in range(size)]
        for n in self.nodes:
            os.makedirs(n.data_dir, mode=0o700, exist_ok=True)
            self.set_clock(n, 0)
        if not workers:
            self.flags += ["--worker.enabled=false"]

    def new_node(self, number):
        n = Node(self, number, join=",".join(n.address for n in self.live()))
        os.makedirs(n.data_dir, mode=0o700, exist_ok=True)
        self.set_clock(n, 0)
        self.nodes.append(n)
        return n

    @property
    def size(self):
        return len(self.nodes)

    def start(self):
        for n in self.nodes:
            n.start()
        if not self.wait_ready(20):
            self.print_logs()
            raise Abort("the cluster did not become ready within 20 s")

    def environment(self, node):
        """A clock that set_clock() sets, and syncs that set_delay() slows."""
        env, preload = {}, []
        if self.clocks:
            if not LIBRARIES:
                raise Abort("libfaketime is missing (tools/packages.sh)")
            preload.append(str(LIBRARIES[0]))
            env = {"FAKETIME_TIMESTAMP_FILE": self._clock_file(node), "FAKETIME_NO_CACHE": "1",
                   "FAKETIME_DONT_FAKE_MONOTONIC": "1", "FAKETIME_DONT_RESET": "1"}
        if self.slow_library:
            preload.append(self.slow_library)
            env["SLOW_DISK"] = self._delay_file(node)
        if preload:
            env["LD_PRELOAD"] = ":".join(preload)
        return env

    def _clock_file(self, node):
        return f"{self.directory}/clock{node.id}"

    def _delay_file(self, node):
        return f"{self.directory}/delay{node.id}"

    @staticmethod
    def _put(path, text):
        pathlib.Path(path + ".new").write_text(text, encoding="ascii")
        os.replace(path + ".new", path)

    def set_clock(self, node, by_s):
        self._put(self._clock_file(node), f"{by_s:+.6f}\n")

    def set_delay(self, node, ms):
        self._put(self._delay_file(node), str(ms))

    def serving(self, nodes, seconds):
        """All of them answer; the seconds it took, or None."""
        from time import monotonic  # pylint: disable=import-outside-toplevel
        begun = monotonic()
        ok = wait_for(lambda: all(n.status(timeout=0.5) for n in nodes), seconds, 0.01)
        return monotonic() - begun if ok else None

    def keep(self, target):
        """Logs, histories and data directories, but for images of disks."""
        shutil.rmtree(target, ignore_errors=True)

        def big(directory, names):
            return [n for n in names if not os.path.isdir(f"{directory}/{n}") and (
                not os.path.isfile(f"{directory}/{n}") or os.path.islink(f"{directory}/{n}") or
                os.path.getsize(f"{directory}/{n}") > 64 << 20)] + (
                    ["xfs"] if "xfs" in names else [])
        try:
            shutil.copytree(self.directory, target, ignore=big, ignore_dangling_symlinks=True)
        except shutil.Error as e:  # files that went meanwhile
            print(f"#       not everything was kept: {str(e)[:200]}", file=sys.stdout)
