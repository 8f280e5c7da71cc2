"""The menu: which faults, on which cluster, for how long."""
import os
import pathlib
import shutil
import sys
import time

import disks
import mounts
import nemesis as n
import nodes
from checks import wait_for
from world import HEAL_S, World

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "system"))

ALL = []


class Case:
    """seconds of faults in the selection; in the full menu rounds runs of full_seconds."""

    def __init__(self, function, name, about, size=3, seconds=6, full_seconds=60, rounds=4,
                 selected=True, options=None, flags=(), clocks=False, room=0, workers=True,
                 before=None, schedules=4):
        self.function, self.name, self.about = function, name, about
        self.size, self.seconds = size, seconds
        self.full_seconds, self.rounds = full_seconds, rounds
        self.selected, self.options = selected, options or {}
        self.flags, self.clocks, self.room, self.workers = flags, clocks, room, workers
        self.before, self.schedules = before, schedules

    def make(self, seed, seconds):
        cluster = nodes.Cluster(self.size, flags=self.flags, workers=self.workers, room=self.room,
                                clocks=self.clocks)
        w = World(cluster, seed, seconds, self.schedules if self.workers else 0)
        w.disks = None
        if self.before:
            self.before(w)
        return w

    @staticmethod
    def clean(w):
        if w.disks:
            w.disks.end()
        for node in w.cluster.nodes:
            while os.path.ismount(node.data_dir) and mounts.unmount(node.data_dir):
                pass


def case(name, about, **more):
    def add(function):
        ALL.append(Case(function, name, about, **more))
        return function
    return add


def rounds(w, *kinds):
    """Each kind once in a random order, then any until the time is up. Long runs hold each fault
    for longer (5 to 20 s)."""
    until = time.monotonic() + w.seconds
    todo = list(kinds)
    w.rng.shuffle(todo)
    while todo or time.monotonic() < until:
        todo.pop()() if todo else w.rng.choice(kinds)()
        if w.bad:
            return


def hold(w, least=0.8):
    return w.rng.uniform(5, 20) if w.seconds > 30 else least


# network

@case("partition-3", "three nodes, one cut off: both ways, one way, the leader; resets", seconds=8,
      full_seconds=120, rounds=12)
def partition_3(w):
    rounds(w, *[lambda k=k: n.partition(w, k, hold(w)) for k in n.PARTITIONS_3],
           lambda: n.reset(w, hold(w)))


@case("partition-5", "five nodes: minority, the leader in it, ring of majorities, bridge, one way",
      size=5, seconds=8, full_seconds=120, rounds=12)
def partition_5(w):
    kinds = n.PARTITIONS_5 if w.seconds > 30 else n.PARTITIONS_5[:4]
    rounds(w, *[lambda k=k: n.partition(w, k, hold(w)) for k in kinds])


@case("detection", "a reset is seen within two heartbeats, silence within 3 s", seconds=5,
      full_seconds=120, rounds=2)
def detection(w):
    net = w.cluster.network
    # The processors of a selection are shared with other tests.
    reset_s, silence_s = (0.1, 3.0) if w.seconds > 30 else (0.5, 4.0)
    rounds(w, lambda: n.detect(w, "reset", net.reset, reset_s),
           lambda: n.detect(w, "silence", net.cut, silence_s))


@case("loss", "1, 5, 10 and 30% of the packets between nodes are lost", full_seconds=480, rounds=1)
def loss(w):
    long = w.seconds > 30
    rounds(w, *[lambda p=p: n.lose(w, p, 120 if long else 1.2)
                for p in ((1, 5, 10, 30) if long else (5, 10, 30))])


def _proxied(w):
    w.cluster.network.through_proxy(w.cluster.directory)


def _of_one(w, rule):
    """On all links of one node."""
    x = w.rng.choice(w.numbers)
    return {f"{a}-{b}": rule for a in w.numbers for b in w.numbers if a != b and x in (a, b)}


@case("links", "delay, jitter, one byte at a time, 64 kbit/s, by a proxy on each link",
      before=_proxied, full_seconds=300, rounds=2)
def links(w):
    long = w.seconds > 30
    for_s = 60 if long else 1.0
    rounds(w, lambda: n.links(w, "delay 10 ms", {"*": {"delay_ms": 10}}, for_s),
           lambda: n.links(w, "delay 500 ms, one node", _of_one(w, {"delay_ms": 500}), for_s),
           lambda: n.links(w, "jitter 30 ms", {"*": {"delay_ms": 2, "jitter_ms": 30}}, for_s),
           lambda: n.links(w, "1 byte chunks", {"*": {"chunk": 1}}, for_s),
           lambda: n.links(w, "64 kbit/s, one node", _of_one(w, {"rate": 8000, "chunk": 400}),
                           for_s))


@case("flips-leader", "bits change on all links of the leader", before=_proxied, seconds=8,
      full_seconds=120, rounds=2)
def flips_leader(w):
    def once():
        x = w.leader().id
        rule = {"flip": 0.05, "flip_chunks": 0.2}
        n.links(w, "flips, the leader", {f"{a}-{b}": rule for a in w.numbers for b in w.numbers
                                         if a != b and x in (a, b)}, hold(w, 3))
    rounds(w, once)


@case("flips", "bits change on the way between nodes", before=_proxied, full_seconds=120, rounds=3)
def flips(w):
    proxy = w.cluster.network.proxy
    for_s = 20 if w.seconds > 30 else 1.5
    rounds(w, lambda: n.links(w, "flips, all links",
                              {"*": {"flip": 0.01, "flip_chunks": 0.01}}, for_s),
           lambda: n.links(w, "flips, one node", _of_one(w, {"flip": 0.1, "flip_chunks": 0.3}),
                           for_s))
    count = proxy.flips
    said = sum(x.log().count("malformed bytes on a peer connection") for x in w.cluster.nodes)
    w.notes.append(f"{count} bits flipped, {said} times said so")
    w.check(count > 50, f"only {count} bits were flipped")
    w.check(said > 0, "no node speaks of malformed bytes")
    for x in w.cluster.nodes:
        w.check("forwarded command refused" not in x.log(),
                f"node {x.id} took a spoilt message for a command")


# processes

@case("kill", "kill -9 of the leader, of any node, of all at once", seconds=10, rounds=8,
      full_seconds=60)
def kill(w):
    rounds(w, lambda: n.kill(w, "leader"), lambda: n.kill(w, "any"),
           lambda: n.kill(w, "all", host=w.rng.random() < 0.5),
           lambda: n.kill(w, "leader", host=True), lambda: n.kill(w, "any", host=True))


@case("freeze", "SIGSTOP of leader and follower for 0.5, 1 and 3 election timeouts, and longer",
      seconds=6, rounds=12)
def freeze(w):
    times = [nodes.ELECTION_S * x for x in (0.5, 1, 3)]
    kinds = [(who, t) for who in ("leader", "follower") for t in times] + [("leader", 3)]
    if w.seconds > 30:
        kinds += [("leader", 20), ("follower", 60)]
    rounds(w, *[lambda a=who, t=t: n.freeze(w, a, t) for who, t in kinds])


@case("workers", "workers killed, told to stop, and stopped for 0.5, 1 and 3 leases", seconds=8,
      options={"shell": 0.4, "long": 0.05}, rounds=6, flags=("--worker.drain_timeout", "500ms"))
def workers(w):
    rounds(w, lambda: n.worker(w, "kill"), lambda: n.worker(w, "term"),
           lambda: n.worker(w, "stop", nodes.LEASE_S * 0.5),
           lambda: n.worker(w, "stop", nodes.LEASE_S * w.rng.choice((1, 1.6))),
           *([lambda: n.worker(w, "stop", nodes.LEASE_S * 3)] if w.seconds > 30 else []))


@case("restarts", "rolling restarts by SIGTERM", seconds=4, rounds=3)
def restarts(w):
    rounds(w, lambda: n.restart(w))
    w.history.refresh()
    roaming = {f"{p}{w.cluster.size + k}" for p in "ab" for k in range(2)}
    first, last = {}, {}
    for o in w.history.ops:
        if o.kind == "submit" and o.client in roaming:
            first.setdefault(o.d["key"], o.begun)
            if o.outcome == "ok":
                last[o.d["key"]] = o.ended
    took = sorted((last[k] - first[k]) / 1e9 for k in last)
    w.limit("submit p99", took[int(len(took) * 0.99)], 2.0)


# clocks

@case("clocks", "one clock after the other is set by 4 ms to 262 s, to and fro", clocks=True,
      seconds=6, full_seconds=100, rounds=6)
def clocks(w):
    long = w.seconds > 30
    some = n.STEPS if long else w.rng.sample(n.STEPS, 5) + [262.144, -262.144]
    kinds = [lambda s=s: n.step_clock(w, s, 1.0 if long else 0.5) for s in some]
    for s, period, length in (((0.004, 0.001, 8), (1.0, 0.1, 16), (262.144, 1.0, 32)) if long else
                              ((w.rng.choice((0.1, 8)), 0.02, 1),)):
        kinds.append(lambda s=s, p=period, t=length: n.strobe_clock(w, s, p, t))
    rounds(w, *kinds)
    for x in w.cluster.nodes:
        w.cluster.set_clock(x, 0)


# disks

def _small(w):
    for x in w.cluster.nodes:
        mounts.tmpfs(x.data_dir, 64)


def fill_once(w, who, left_mib):
    c = w.cluster
    leader = w.leader()
    victims = {"leader": [leader], "all": list(c.nodes),
               "follower": [x for x in c.nodes if x is not leader][:1]}[who]
    w.fault(f"full disk, {who}, {left_mib} MiB left")
    for x in victims:
        mounts.fill(x.data_dir, left_mib << 20)
    begun = n.now()
    numbers = {x.id for x in victims}

    def refused():
        for x in victims:  # one short of room gives back log: the stranger takes that, too
            mounts.fill(x.data_dir, left_mib << 20)
        n.every_end(w)
        w.history.refresh()
        return numbers <= {o.node for o in w.history.ops[-3000:] if o.begun > begun and
                           o.d.get("code") == "RESOURCE_EXHAUSTED"}
    w.check(wait_for(refused, 8, 0.2), f"full disk, {who}: nodes {numbers} do not refuse submits")
    for x in victims:
        os.unlink(f"{x.data_dir}/stranger")
    since = n.now()
    took = w.history.wait_written([x.id for x in c.nodes], since, HEAL_S, True,
                                  lambda: n.every_end(w))
    w.limit("room", took, HEAL_S)


@case("full-disk", "the disks of the leader, of a follower, of all fill up", before=_small,
      seconds=6, rounds=4, options={"bytes": 8000},
      flags=("--wal.segment_bytes", "1MiB", "--storage.reserve_bytes", "8MiB",
             "--cluster.raft.log_bytes_max", "4MiB", "--cluster.raft.snapshot_interval", "1s"))
def full_disk(w):
    long = w.seconds > 30
    kinds = [(who, left) for who in ("leader", "follower", "all") for left in (3, 0)]
    rounds(w, *[lambda a=who, m=left: fill_once(w, a, m)
                for who, left in (kinds if long else w.rng.sample(kinds[:4], 1) + kinds[4:5])])
    w.check(set(w.codes) <= {1}, f"nodes ended with exit codes {dict(w.codes)}")


def _lying(w):
    w.disks = disks.Lying(w.cluster.nodes[0])


@case("failed-sync", "the kernel fails a sync with EIO and lets the next one succeed",
      before=_lying, rounds=20, full_seconds=20,
      options={"bytes": 60000, "always": True, "shell": 0.25},
      flags=("--storage.reserve_bytes", "1MiB", "--cluster.raft.snapshot_interval", "1h"))
def failed_sync(w):
    bad = w.cluster.nodes[0]
    if w.leader() is not bad:
        w.cluster.cli("cluster", "transfer-leader", "--to", str(bad.id))
    w.fault("EIO")
    stopped = wait_for(lambda: not bad.running(), 60)
    if not w.check(stopped, "the node with the failing disk goes on for 60 s"):
        return
    w.check(bad.process.returncode == 1, f"it ended with {bad.process.returncode}, not 1")
    last = [x for x in bad.log().splitlines() if "the node stops" in x][-1:]
    w.check(last and "Input/output error" in last[0], f"it stopped for another reason: {last}")
    n.follow(w, bad)
    n.power_off([bad])  # a boot
    w.disks.repair()
    bad.start()
    back = wait_for(lambda: not bad.running() or bad.status(), 10)
    w.check(back, "it neither serves nor refuses 10 s after its start")
    if bad.running():
        w.healed()
    else:
        w.check(bad.process.returncode == 78, f"it ended with {bad.process.returncode}, not 78")
        w.notes.append("it refused to start on what the disk had")


def _cut_disks(w):
    w.disks = disks.Cuttable(w.cluster)


def cut_once(w):
    members = list(w.cluster.nodes)
    w.fault("power cut")
    w.gaps_allowed = True
    for x in members:
        x.freeze()
    acknowledged = w.history.acknowledged()  # a frozen node acknowledges nothing
    w.disks.clone_all()
    n.power_off(members)
    w.disks.swap(w)
    w.start(members)
    w.healed()
    lost = acknowledged - {j.id for j in w.leader().client.list(timeout=30)}
    w.check(not lost, f"{len(lost)} of {len(acknowledged)} jobs acknowledged before the power cut "
            f"are lost: {sorted(lost)[:5]}")


@case("power-cut", "images of all disks at one instant; the cluster goes on from those",
      before=_cut_disks, rounds=4, full_seconds=120,
      flags=("--wal.segment_bytes", "1MiB", "--storage.reserve_bytes", "1MiB",
             "--cluster.raft.snapshot_interval", "1s", "--cluster.raft.snapshot_threshold", "50",
             "--cluster.raft.log_bytes_max", "4MiB"))
def power_cut(w):
    def one():
        w.pause(w.rng.uniform(0.05, 1.0))
        cut_once(w)
    rounds(w, one, one, one)


@case("slow-disk", "syncs take 100 ms, 1 s, for ever", seconds=5, rounds=4,
      before=lambda w: disks.slow(w.cluster))
def slow_disk(w):
    t = 5 if w.seconds > 30 else 1.0
    rounds(w, lambda: n.slow(w, 100, "leader", t), lambda: n.slow(w, 1000, "follower", t),
           lambda: n.slow(w, -1, "leader", t), lambda: n.slow(w, -1, "follower", t))


@case("disk-loss", "a minority loses its disks and is replaced", room=4, seconds=1, rounds=13,
      full_seconds=40)
def disk_loss(w):
    def one():
        c = w.cluster
        old = w.rng.choice(c.live())
        w.fault("disk lost")
        n.power_off([old])
        shutil.rmtree(old.data_dir)
        os.makedirs(old.data_dir, mode=0o700)
        old.start()
        code = old.wait(5)
        w.check(code == 78, f"node {old.id} with an empty disk: exit code {code}, not 78")
        if code is None:
            old.kill()
        c.nodes.remove(old)
        new = c.new_node(3 + w.faults["disk lost"])
        code, out, err = c.cli("cluster", "replace", str(old.id), str(new.id), new.peer_address)
        w.check(code == 0, f"cluster replace: {code}: {out}{err}")
        begun = time.monotonic()
        new.start()
        ok = wait_for(lambda: c.is_voter(new.id), 20, 0.05)
        w.limit("replaced", time.monotonic() - begun if ok else None, 20.0)
        w.healed()
    room = w.cluster.network.numbers
    for _ in range(1 if w.seconds <= 30 else len(room) - 3):
        if not w.bad:
            one()


@case("rot", "files of a stopped minority are flipped, cut, or replaced by old copies", seconds=4,
      rounds=6, full_seconds=60)
def rot(w):
    def one(what):
        node = w.rng.choice(w.cluster.live())
        old = disks.copies(node.data_dir, what) if what.startswith("old") else {}
        if old:
            w.pause(0.3)
        n.power_off([node])
        done = disks.spoil(node.data_dir, what, w.rng, old)
        if not done:
            w.start([node])
            return
        w.fault(what)
        path, before = done
        node.start()
        came = wait_for(lambda: not node.running() or node.status(), 10)
        w.check(came, f"{what} of {path}: neither serves nor refuses after 10 s")
        if node.running():
            w.pause(0.5)
        if node.running() and what == "flip state":
            disks.read_state(w, node)
        if not node.running():
            code = node.process.returncode
            w.check(code == 78, f"{what} of {path}: node {node.id} ended with {code}, not 78")
            w.fault(what + ": refused")
        elif what == "flip state":
            n.power_off([node])  # what nobody asked for may still be damaged
        if not node.running():
            # It has changed nothing of that file: with the bytes as they were it must start.
            if os.path.exists(path):
                pathlib.Path(path).write_bytes(before)
            w.start([node])
        w.healed()
    rounds(w, *[lambda k=k: one(k) for k in ("flip wal", "flip meta", "flip state", "cut wal",
                                             "old wal", "old meta")])


# membership

@case("membership", "nodes join, are removed and replaced while others are killed and cut off",
      room=3, seconds=1, rounds=6, full_seconds=30)
def membership(w):
    c = w.cluster

    def voter(node):
        begun = time.monotonic()
        ok = wait_for(lambda: c.is_voter(node.id), 20, 0.05)
        w.limit("joined", time.monotonic() - begun if ok else None, 20.0)
    for number in (4, 5):
        node = c.new_node(number)
        node.start()
        w.fault("join")
        if number == 4:
            n.kill(w, "leader")
        else:
            x = w.rng.choice([a for a in w.numbers if a != number])
            rest = [a for a in w.numbers if a != x]
            n.apart(w, "cut off", lambda x=x, rest=rest: c.network.cut(
                n.network.between([x], rest)), rest, [x], 1.0)
        voter(node)
        w.healed()
    for _ in range(2):
        node = w.rng.choice(c.live())
        w.fault("remove")
        code, out, err = c.cli("cluster", "remove", str(node.id))
        w.check(code == 0, f"cluster remove {node.id}: {code}: {out}{err}")
        ended = node.wait(15)
        w.check(ended == 78, f"removed node {node.id}: exit code {ended}, not 78")
        c.nodes.remove(node)
        n.kill(w, "any")


# all of it

def _mixed_before(w):
    _proxied(w)
    disks.slow(w.cluster)


@case("mixed", "a random composition of everything above that needs no file system of its own",
      size=3, seconds=20, full_seconds=300, rounds=24, before=_mixed_before, clocks=True)
def mixed(w):
    mix(w)


@case("mixed-5", "the same on five nodes", size=5, seconds=20, full_seconds=300, rounds=12,
      before=_mixed_before, clocks=True, selected=False)
def mixed_5(w):
    mix(w)


def mix(w):
    p = n.PARTITIONS_3 if w.cluster.size == 3 else n.PARTITIONS_5
    r = w.rng
    kinds = [lambda: n.partition(w, r.choice(p), r.uniform(0.3, 2)), lambda: n.reset(w, 0.7),
             lambda: n.lose(w, r.choice((1, 5, 10, 30)), 1.0), lambda: n.kill(w, "leader"),
             lambda: n.kill(w, "any", host=True), lambda: n.kill(w, "all"),
             lambda: n.freeze(w, r.choice(("leader", "follower")), r.choice((0.15, 0.3, 0.9, 2))),
             lambda: n.worker(w, r.choice(("kill", "term"))),
             lambda: n.worker(w, "stop", r.choice((0.5, 2.2))),
             lambda: n.step_clock(w, r.choice(n.STEPS), 0.3),
             lambda: n.slow(w, r.choice((100, 1000, -1)), r.choice(("leader", "follower")), 0.7),
             lambda: n.links(w, "jitter", {"*": {"jitter_ms": 20}}, 0.7),
             lambda: n.links(w, "flips", _of_one(w, {"flip": 0.05, "flip_chunks": 0.2}), 0.7)]
    until = time.monotonic() + w.seconds
    while time.monotonic() < until and not w.bad:
        # One fault of the background, too: a link that loses, is slow, or a clock that is wrong.
        back = r.random()
        if back < 0.3:
            delay = r.choice((5, 40))
            w.cluster.network.proxy.set(_of_one(w, {"delay_ms": delay, "jitter_ms": 20}))
            w.fault("background delay")
        elif back < 0.5:
            w.cluster.set_clock(r.choice(w.cluster.live()), r.choice((0.05, -0.5, 30, -30)))
            w.fault("background clock")
        r.choice(kinds)()
        w.cluster.network.proxy.set({})
        for x in w.cluster.nodes:
            w.cluster.set_clock(x, 0)
