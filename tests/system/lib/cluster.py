"""A cluster of real `chronos server` processes on loopback.

Node i (from 1) listens at base + 10 (i - 1) for clients and + 2 for peers, as `chronos dev` does,
and is started again with the same command line. The binary is CHRONOS_BIN, else the script's first
argument, else build/release/chronos.
"""
import atexit
import os
import pathlib
import random
import shutil
import signal
import socket
import sys
import tempfile

import grpc

import processes
from checks import Abort, wait_for

ROOT = pathlib.Path(__file__).resolve().parents[3]
BIN = os.environ.get("CHRONOS_BIN") or (
    sys.argv[1] if len(sys.argv) > 1 and not sys.argv[1].startswith("-") else
    str(ROOT / "build/release/chronos"))
BIN = str(pathlib.Path(BIN).resolve())
READY_S = 10

_directories = []


def temporary_directory():
    directory = tempfile.mkdtemp(prefix="chronos-systest-")
    _directories.append(directory)
    return directory


@atexit.register
def _remove_directories():
    processes.end_all()
    if not os.environ.get("CHRONOS_KEEP"):
        for directory in _directories:
            shutil.rmtree(directory, ignore_errors=True)


def _is_free(port):
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("127.0.0.1", port))
            s.listen(1)
        except OSError:
            return False
    return True


def free_base_port(nodes=3):
    """Below the kernel's own range, so that no outgoing connection takes one of them meanwhile."""
    rng = random.SystemRandom()
    for _ in range(200):
        base = rng.randrange(10000, 30000, 10)
        if all(_is_free(base + 10 * i + k) for i in range(nodes) for k in range(3)):
            return base
    raise Abort("no free ports")


def cli(*args, address=None, seconds=30, env=None, stdin=None, cwd=None):
    """Run the command line client. (exit code, stdout, stderr)"""
    e = {k: v for k, v in os.environ.items() if k != "CHRONOS_ADDRESS"}
    if address:
        e["CHRONOS_ADDRESS"] = address
    e.update(env or {})
    return processes.run([BIN, *args], seconds=seconds, env=e, stdin=stdin, cwd=cwd)


class Node:
    def __init__(self, cluster, number, slot=None, join=None):
        """join: client addresses of the cluster it joins; else it is one of those that form it."""
        port = cluster.base_port + 10 * ((slot or number) - 1)
        self.cluster = cluster
        self.id = number
        self.join = join
        self.flags = []
        self.port = port
        self.peer_port = port + 2
        self.address = f"127.0.0.1:{port}"
        self.peer_address = f"127.0.0.1:{port + 2}"
        self.data_dir = f"{cluster.directory}/node{number}"
        self.log_path = f"{cluster.directory}/node{number}.log"
        self.process = None
        self._client = None

    @property
    def client(self):
        if not self._client:
            # Not at the top: scripts that only use the command line need no compiled messages.
            from rpc import Client  # pylint: disable=import-outside-toplevel
            self._client = Client(self.address)
        return self._client

    @property
    def pid(self):
        return self.process.pid if self.process else 0

    @property
    def worker_pid(self):
        try:
            pid = int(pathlib.Path(self.data_dir, "worker.pid").read_text(encoding="ascii"))
        except (OSError, ValueError):
            return 0
        return pid if processes.alive(pid) else 0

    @property
    def worker_id(self):
        return f"node{self.id}"

    def argv(self):
        out = [BIN, "server", "--node.id", str(self.id), "--node.data_dir", self.data_dir,
               "--node.listen", self.address, "--node.peer_listen", self.peer_address,
               "--cluster.name", self.cluster.name]
        if self.join:
            out += ["--join", self.join]
        else:
            out += ["--bootstrap"]
            for n in self.cluster.nodes:
                if not n.join:
                    out += ["--member", f"{n.id}={n.peer_address},{n.address}"]
        return out + self.cluster.flags + self.flags

    def move(self, port):
        """Listen elsewhere from the next start on."""
        self.forget_client()
        self.port, self.peer_port = port, port + 2
        self.address, self.peer_address = f"127.0.0.1:{port}", f"127.0.0.1:{port + 2}"

    def start(self):
        self.forget_client()
        with open(self.log_path, "ab") as log:
            self.process = processes.start(self.argv(), stdout=log, stderr=log)

    def running(self):
        return self.process is not None and self.process.poll() is None

    def kill(self, number=signal.SIGKILL):
        """Send the signal and wait for the server's end. Its exit code, None when it stays."""
        self.process.send_signal(number)
        return self.wait(12)

    def wait(self, seconds):
        wait_for(lambda: self.process.poll() is not None, seconds, 0.005)
        return self.process.returncode

    def freeze(self):
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self):
        self.process.send_signal(signal.SIGCONT)

    def log(self):
        try:
            return pathlib.Path(self.log_path).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    def status(self, local=True, timeout=2):
        """GetClusterStatus, or None when it does not answer."""
        try:
            return self.client.status(local=local, timeout=timeout)
        except grpc.RpcError as e:
            if e.code() == grpc.StatusCode.UNAVAILABLE:
                self.forget_client()  # a new connection at once instead of after a pause
            return None

    def forget_client(self):
        if self._client:
            self._client.close()
        self._client = None


class Cluster:
    def __init__(self, size=3, flags=(), name=None, start=True, workers=True, room=0):
        """room: so many more nodes may join() later."""
        self.directory = temporary_directory()
        self.base_port = free_base_port(size + room)
        self.slots = size
        self.name = name or f"systest-{self.base_port}"
        # Small segments: a node is ready sooner, and several are used.
        self.flags = ["--wal.segment_bytes", "4MiB", "--worker.drain_timeout", "3s", *flags]
        self.nodes = []
        for i in range(size):
            self.nodes.append(Node(self, i + 1))
        self.workers = workers
        if not workers:
            self.flags += ["--worker.enabled=false"]
        if start:
            self.start()

    def start(self):
        for n in self.nodes:
            os.makedirs(n.data_dir, mode=0o700, exist_ok=True)
            n.start()
        if not self.wait_ready():
            self.print_logs()
            raise Abort("the cluster did not become ready")

    @property
    def addresses(self):
        return ",".join(n.address for n in self.nodes)

    def node(self, number):
        return next((n for n in self.nodes if n.id == number), None)

    def new_node(self, number):
        """A node with an empty directory that will join when it is started."""
        self.slots += 1
        n = Node(self, number, slot=self.slots, join=",".join(n.address for n in self.live()))
        os.makedirs(n.data_dir, mode=0o700, exist_ok=True)
        self.nodes.append(n)
        return n

    def member(self, number):
        """The node's status as the leader sees it, or None."""
        for n in self.live():
            s = n.status(local=False)
            if s:
                return next((m for m in s.nodes if m.id == number), None)
        return None

    def is_voter(self, number):
        m = self.member(number)
        return m is not None and m.membership == "voter"

    def grow(self, number):
        """A new node, running, and whether it is a voter within 20 s."""
        node = self.new_node(number)
        node.start()
        return node, wait_for(lambda: self.is_voter(number), 20)

    def cli(self, *args, **options):
        return cli(*args, address=self.addresses, **options)

    def live(self):
        return [n for n in self.nodes if n.running()]

    def wait_ready(self, seconds=READY_S):
        """A leader that all running nodes agree on, and a live worker of each of them."""
        def ready():
            views = [n.status() for n in self.live()]
            if not views or not all(views):
                return False
            if len({(v.leader_id, v.term) for v in views}) != 1 or views[0].leader_id == 0:
                return False
            leader = self.node(views[0].leader_id)
            if not leader or not leader.running():
                return False
            if not self.workers:
                return True
            s = leader.status(local=False)
            # By name: a worker whose node was away may be connected to another one.
            alive = {w.id for w in s.workers if w.is_alive} if s else set()
            return all(n.worker_id in alive for n in self.live())
        return wait_for(ready, seconds, 0.05)

    def leader(self, seconds=5, other_than=None):
        """The node that leads in the newest term among those that answer, or None."""
        def find():
            views = [(n, n.status(timeout=0.5)) for n in self.live() if n is not other_than]
            views = [(v.term, n) for n, v in views if v and v.leader_id == n.id]
            return max(views, key=lambda v: v[0])[1] if views else None
        return wait_for(find, seconds, 0.01)

    def digests_equal(self, seconds=10):
        """Wait until all running nodes have applied the same index and show the same digest there.
        Returns (True, text) or (False, what they showed)."""
        seen = {}

        def same():
            views = {n.id: n.status() for n in self.live()}
            if not all(views.values()):
                return False
            seen.clear()
            seen.update({i: (v.applied_index, v.digest) for i, v in views.items()})
            indexes = {i for i, _ in seen.values()}
            # Unequal digests at one index do not heal: no need to wait for more.
            return len(indexes) == 1
        wait_for(same, seconds, 0.05)
        values = set(seen.values())
        ok = len(values) == 1 and all(len(d) == 32 for _, d in values) and \
            len(seen) == len(self.live())
        return ok, str(seen)

    def stop(self):
        """End everything without ceremony."""
        for n in self.nodes:
            if n.running():
                n.process.send_signal(signal.SIGCONT)
                n.process.kill()
        for n in self.nodes:
            if n.process:
                n.wait(5)
        processes.end_all()

    def print_logs(self, lines=25):
        for n in self.nodes:
            print(f"--- the end of node {n.id}'s log")
            print("\n".join(n.log().splitlines()[-lines:]))
