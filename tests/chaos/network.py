"""Nodes in network namespaces on one bridge, and what can happen to the wire between them.

Node i is 10.77.0.i in the namespace n<i>; clients sit on the bridge as 10.77.0.254 and reach every
node always, so that a cut off node is still asked. Faults are rules of the receiving node's own
iptables: they concern nodes only. A link may lead through proxy.py: then the dialling node's
connections to the other's peer port are sent there (DNAT), from its first start on. The proxy has
an address for each link, so that rules can tell who speaks.
"""
import json
import os
import pathlib
import subprocess
import sys

import processes
from namespaces import command

CLIENT_PORT, PEER_PORT = 7400, 7402
BRIDGE = "10.77.0.254"


def host(number):
    return f"10.77.0.{number}"


def link_host(a, b):
    """The proxy, for what a dials to b."""
    return f"10.77.0.{100 + 10 * a + b}"


def speakers(a, b):
    """Addresses from which b receives what a says: directly, through the proxy on connections that
    a dialled, and on those that b did (whose answers bear a's address again)."""
    return [host(a), link_host(a, b)]


class Network:
    def __init__(self, size):
        self.numbers = []
        self.proxy = None
        command("ip", "link", "set", "lo", "up")
        command("ip", "link", "add", "chaos0", "type", "bridge")
        command("ip", "link", "set", "chaos0", "up")
        command("ip", "addr", "add", f"{BRIDGE}/24", "dev", "chaos0")
        for i in range(1, size + 1):
            self.add(i)

    def add(self, i):
        command("ip", "netns", "add", f"n{i}")
        command("ip", "link", "add", f"v{i}", "type", "veth", "peer", "name", "eth0", "netns",
                f"n{i}")
        command("ip", "link", "set", f"v{i}", "master", "chaos0", "up")
        command("ip", "-n", f"n{i}", "addr", "add", f"{host(i)}/24", "dev", "eth0")
        command("ip", "-n", f"n{i}", "link", "set", "eth0", "up")
        command("ip", "-n", f"n{i}", "link", "set", "lo", "up")
        self.numbers.append(i)

    @staticmethod
    def inside(i, *argv):
        return ["nsenter", f"--net=/run/netns/n{i}", "--", *argv]

    def _rules(self, i, rules):
        """Replace all rules of node i in one step."""
        text = "*filter\n:INPUT ACCEPT [0:0]\n" + "".join(f"-A INPUT {r}\n" for r in rules)
        command(*self.inside(i, "iptables-restore"), stdin=text + "COMMIT\n")

    def cut(self, pairs):
        """What a says does not reach b, for each (a, b); nothing else is cut."""
        for b in self.numbers:
            self._rules(b, [f"-s {s} -j DROP" for a, to in pairs if to == b
                            for s in speakers(a, b)])

    def reset(self, pairs):
        """What a says to b is answered with a reset, for each (a, b). The resets themselves pass."""
        for b in self.numbers:
            self._rules(b, [f"-s {s} -p tcp ! --tcp-flags RST RST -j REJECT --reject-with tcp-reset"
                            for a, to in pairs if to == b for s in speakers(a, b)])

    def lose(self, percent):
        """So many of all packets between nodes are lost, in each direction."""
        for b in self.numbers:
            self._rules(b, [f"-s {s} -m statistic --mode random --probability {percent / 100} "
                            "-j DROP" for a in self.numbers if a != b for s in speakers(a, b)])

    def heal(self):
        self.cut([])

    def through_proxy(self, directory):
        """Before any node is started."""
        pairs = [(a, b) for a in self.numbers for b in self.numbers if a != b]
        for a, b in pairs:
            command("ip", "addr", "add", f"{link_host(a, b)}/24", "dev", "chaos0")
        self.proxy = Proxy(pairs, directory)
        for a, b in pairs:
            command(*self.inside(a, "iptables", "-t", "nat", "-A", "OUTPUT", "-p", "tcp", "-d",
                                 host(b), "--dport", str(PEER_PORT), "-j", "DNAT",
                                 "--to-destination", f"{link_host(a, b)}:{PEER_PORT}"))


class Proxy:
    """proxy.py and what it is told."""

    def __init__(self, pairs, directory):
        self.file = f"{directory}/links"
        self.flips_file = f"{directory}/flips"
        self.set({})
        links = [[link_host(a, b), host(b), PEER_PORT, f"{a}-{b}"] for a, b in pairs]
        with open(f"{directory}/proxy.log", "wb") as log:
            self.process = processes.start(
                [sys.executable, str(pathlib.Path(__file__).with_name("proxy.py")),
                 self.file, self.flips_file, json.dumps(links)],
                stdout=subprocess.PIPE, stderr=log)
        if self.process.stdout.readline() != b"ready\n":
            raise RuntimeError("the proxy did not start: " + directory + "/proxy.log")

    def set(self, rules):
        """{"a-b" or "*": {"delay_ms", "jitter_ms", "chunk", "rate", "flip"}}; in one step."""
        with open(self.file + ".new", "w", encoding="ascii") as f:
            json.dump(rules, f)
        os.rename(self.file + ".new", self.file)

    @property
    def flips(self):
        try:
            return int(pathlib.Path(self.flips_file).read_text(encoding="ascii"))
        except (OSError, ValueError):
            return 0


def others(size, group):
    return [i for i in range(1, size + 1) if i not in group]


def between(left, right):
    """Both ways."""
    return [(a, b) for a in left for b in right] + [(b, a) for a in left for b in right]


def partition(kind, size, rng, leader):
    """(what is cut, the nodes that must go on, the nodes that must acknowledge nothing)

    A node belongs to neither when what it can do depends on who leads."""
    nodes = list(range(1, size + 1))
    few = (size - 1) // 2
    if kind in ("one", "leader", "one says nothing", "one hears nothing"):
        x = leader if kind == "leader" else rng.choice(nodes)
        rest = others(size, [x])
        if kind == "one says nothing":
            return [(x, b) for b in rest], rest, [x]
        if kind == "one hears nothing":
            return [(b, x) for b in rest], rest, [x]
        return between([x], rest), rest, [x]
    if kind == "minority":
        left = rng.sample(nodes, few)
        rest = others(size, left)
        return between(left, rest), rest, left
    if kind == "leader in the minority":
        left = [leader] + rng.sample(others(size, [leader]), few - 1)
        rest = others(size, left)
        return between(left, rest), rest, left
    rng.shuffle(nodes)
    if kind == "ring":  # each hears its neighbours only: majorities that overlap
        near = size // 2
        cut = []
        for i, a in enumerate(nodes):
            seen = {nodes[(i + k) % size] for k in range(-(near // 2), near // 2 + 1)}
            if size == 3:
                seen = {nodes[i], nodes[(i + 1) % 3], nodes[(i - 1) % 3]}
            cut += [(b, a) for b in nodes if b not in seen]
        return cut, [], []
    if kind == "bridge":  # two halves that only one node sees both of
        half = (size - 1) // 2
        return between(nodes[:half], nodes[half + 1:]), [nodes[half]], []
    raise ValueError(kind)
