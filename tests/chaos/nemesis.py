"""Faults: each function does one to a World, waits for what the menu demands, and heals it."""
import os
import signal
import time

import network
import nodes
import processes
from checks import wait_for
from world import HEAL_S, PROGRESS_S


def now():
    return time.monotonic_ns()


def uptime():
    with open("/proc/uptime", encoding="ascii") as f:
        return float(f.read().split()[0])


# network

PARTITIONS_3 = ("one", "leader", "one says nothing", "one hears nothing")
PARTITIONS_5 = ("minority", "leader in the minority", "ring", "bridge", "one", "leader",
                "one says nothing", "one hears nothing")


def apart(w, name, apply, go_on, silent, hold):
    w.fault(name)
    apply()
    begun = now()
    w.progress(go_on, begun)
    w.pause(max(0, hold - (now() - begun) / 1e9))
    ended = now()
    w.cluster.network.heal()
    w.healed(now())
    answered = w.history.answered_between(silent, begun, ended)
    w.check(not answered, f"{name}: cut off nodes {silent} answered "
            f"{[(o.kind, o.node, o.d) for o in answered[:3]]}")


def partition(w, kind, hold):
    net = w.cluster.network
    cut, go_on, silent = network.partition(kind, w.cluster.size, w.rng, w.leader().id)
    apart(w, kind, lambda: net.cut(cut), go_on, silent, hold)


def reset(w, hold):
    net = w.cluster.network
    cut, go_on, silent = network.partition(w.rng.choice(("one", "leader")), w.cluster.size, w.rng,
                                           w.leader().id)
    apart(w, "resets", lambda: net.reset(cut), go_on, silent, hold)


def detect(w, name, apply, limit):
    """What only the link between the leader and one node tells: the leader drops it in time, and
    takes it up again. apply: to a list of (a, b)."""
    leader = w.leader()
    other = w.rng.choice([n for n in w.cluster.live() if n is not leader])

    def told(what, since):
        return f'peer link {what} node={other.id} ' in leader.log()[since:]
    since = len(leader.log())
    w.fault(name)
    apply([(leader.id, other.id), (other.id, leader.id)])
    begun = now()
    seen = wait_for(lambda: told("down", since), limit + 5, 0.005)
    w.limit(f"{name} seen", (now() - begun) / 1e9 if seen else None, limit)
    w.progress([leader.id], begun)
    since = len(leader.log())
    w.cluster.network.heal()
    w.healed()
    w.check(wait_for(lambda: told("up", since), HEAL_S), f"{name}: the link is not taken up again")


def lose(w, percent, hold):
    w.fault(f"loss {percent}%")
    w.cluster.network.lose(percent)
    begun = now()
    # TCP itself waits for seconds when three of ten packets are lost.
    limit = PROGRESS_S if percent <= 10 else 20.0
    w.progress([], begun, limit)
    w.pause(max(0, hold - (now() - begun) / 1e9))
    # Also at its end.
    w.progress([], now(), limit)
    w.cluster.network.heal()
    w.healed()


def links(w, name, rules, hold):
    """Slow or strange links (proxy.py)."""
    w.fault(name)
    w.cluster.network.proxy.set(rules)
    begun = now()
    w.progress([], begun)
    w.pause(max(0, hold - (now() - begun) / 1e9))
    w.progress([], now())
    w.cluster.network.proxy.set({})
    w.healed()


# processes

def follow(w, gone):
    """Another one leads, and acknowledges."""
    begun = now()
    new = w.cluster.leader(seconds=8, other_than=gone)
    w.limit("new leader", (now() - begun) / 1e9 if new else None, 3.0)
    w.progress([n.id for n in w.cluster.live() if n is not gone], begun)


def kill(w, which, host=False):
    """which: leader, any, all. host: the worker and what it runs, too."""
    every = w.cluster.live()
    leader = w.leader()
    gone = every if which == "all" else [leader if which == "leader" else w.rng.choice(every)]
    w.fault(f"kill {which}")
    if host:
        power_off(gone)
    else:
        for n in gone:
            n.process.send_signal(signal.SIGKILL)
        for n in gone:
            n.wait(5)
    if which == "all":
        w.gaps_allowed = True  # what a node remembers for watches does not outlive it
        w.start(gone)
        w.healed()
        return
    if gone[0] is leader:
        follow(w, leader)
    else:
        w.pause(w.rng.uniform(0.05, 0.5))
    w.start(gone)
    w.healed()


def freeze(w, which, seconds):
    """SIGSTOP of a node's process alone."""
    leader = w.leader()
    node = leader if which == "leader" else w.rng.choice([n for n in w.cluster.live()
                                                          if n is not leader])
    w.fault(f"freeze {which}")
    node.freeze()
    begun = now()
    if seconds > 2 * nodes.ELECTION_S:
        if node is leader:
            follow(w, node)
        else:
            w.progress([n.id for n in w.cluster.live() if n is not node], begun)
    w.pause(max(0, seconds - (now() - begun) / 1e9))
    node.thaw()
    w.healed()


def worker(w, what, seconds=0):
    """Kill, end or stop one worker. A stopped one cannot end what it runs."""
    node = w.rng.choice(w.cluster.live())
    pid = wait_for(lambda: node.worker_pid, 5)
    if not w.check(pid, f"node {node.id} has no worker for 5 s"):
        return
    w.fault(f"worker {what}")
    since = uptime()
    if what == "kill":
        processes.signal_pid(pid, signal.SIGKILL)
    elif what == "term":
        processes.signal_pid(pid, signal.SIGTERM)
    else:
        processes.signal_pid(pid, signal.SIGSTOP)
        w.pause(seconds)
        processes.signal_pid(pid, signal.SIGCONT)
    took = time.monotonic()
    alive = wait_for(lambda: node.worker_pid and _worker_lives(w, node), 10, 0.05)
    w.limit("worker is back", time.monotonic() - took if alive else None, 10.0)
    if what != "term":
        # It could end nothing: its successor does that when it starts, it itself when it wakes and
        # finds its lease over.
        w.excused.append((since, uptime() + 1.0))


def _worker_lives(w, node):
    leader = w.cluster.leader()
    s = leader.status(local=False) if leader else None
    return s and any(x.id == node.worker_id and x.is_alive for x in s.workers)


def restart(w):
    """SIGTERM to one after the other, the next when the last one is whole again."""
    for n in list(w.cluster.live()):
        w.fault("SIGTERM")
        code = n.kill(signal.SIGTERM)
        w.check(code == 0, f"SIGTERM: node {n.id} ended with {code}")
        if code is None:
            n.kill()
        w.start([n])
        w.healed()
        w.check(w.cluster.wait_ready(10), "not whole 10 s after a restart")


# clocks

STEPS = [sign * 0.004 * 2 ** k for k in range(17) for sign in (1, -1)]  # 4 ms to 262 s


def step_clock(w, seconds, hold):
    """One node's clock is set, mostly the leader's, and back."""
    leader = w.leader()
    node = leader if w.rng.random() < 0.7 else w.rng.choice(w.cluster.live())
    w.fault("clock step")
    w.cluster.set_clock(node, seconds)
    begun = now()
    w.progress([], begun)
    w.pause(hold)
    w.cluster.set_clock(node, 0)
    w.check(w.cluster.leader() is not None, "no leader after a clock was set")


def strobe_clock(w, seconds, period, hold):
    """To and fro, on every node at other instants."""
    w.fault("clock strobe")
    begun = time.monotonic()
    on = False
    while time.monotonic() - begun < hold:
        on = not on
        for n in w.cluster.live():
            w.cluster.set_clock(n, seconds if on == bool(n.id % 2) else 0)
        w.pause(period)
    for n in w.cluster.live():
        w.cluster.set_clock(n, 0)
    w.progress([], now())


# disks

def slow(w, ms, which, hold):
    """fdatasync takes so long; -1: for ever."""
    leader = w.leader()
    node = leader if which == "leader" else w.rng.choice([n for n in w.cluster.live()
                                                          if n is not leader])
    w.fault(f"sync {'hangs' if ms < 0 else f'{ms} ms'}, {which}")
    w.cluster.set_delay(node, ms)
    begun = now()
    if ms < 0 and node is leader:
        follow(w, node)
    else:
        w.progress([n.id for n in w.cluster.live() if n is not node], begun)
    w.pause(max(0, hold - (now() - begun) / 1e9))
    w.cluster.set_delay(node, 0)
    w.healed()


def every_end(w):
    """The ends of processes that nobody asked for, with their exit codes; they are started again as
    a service manager does."""
    for n in w.cluster.nodes:
        if n.process and not n.running():
            w.codes[n.process.returncode] += 1
            n.start()


def _jobs_of(members):
    """Processes of jobs that run in these nodes' directories."""
    found = []
    for pid in processes.with_environment("CHRONOS_JOB_ID="):
        try:
            where = os.readlink(f"/proc/{pid}/cwd")
        except OSError:
            continue
        if any(where.startswith(x.data_dir + "/") for x in members):
            found.append(pid)
    return found


def power_off(members):
    """Everything that runs on these nodes is gone."""
    pids = [x.worker_pid for x in members]
    for x in members:
        if x.running():
            x.process.send_signal(signal.SIGKILL)
    for pid in filter(None, pids):
        processes.signal_pid(pid, signal.SIGKILL)
    for x in members:
        x.wait(5)

    def gone():
        left = _jobs_of(members)
        for pid in left:
            processes.signal_pid(pid, signal.SIGKILL)
        return not left and not any(processes.alive(pid) for pid in pids if pid)
    wait_for(gone, 5)
    for x in members:
        x.forget_client()
