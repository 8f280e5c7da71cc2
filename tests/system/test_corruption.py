#!/usr/bin/python3
"""Damaged files of a stopped node.

Goal: damage to acknowledged data is never cut off or ignored: the node refuses to start with exit
code 78 and names file and offset, and the others go on; a torn tail that nobody was promised is
accepted; a damaged slot of meta falls back to the other one, both damaged are refused, and so are a
missing log and another node's directory. Method: three nodes, one stopped, its files changed.
"""
import pathlib
import random
import re
import shutil
import signal
import struct
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))

import checks  # noqa: E402
import processes  # noqa: E402
import rpc  # noqa: E402
from cluster import Cluster  # noqa: E402

REFUSED = 78  # EX_CONFIG of sysexits.h: starting again will not help
META_SLOT = 4096
SEED = random.SystemRandom().randrange(1 << 32)


class World:
    """Three nodes with some log; one follower's files are kept as they were when it was stopped.
    @behind: it was away, and has been sent that log in one piece just before it was stopped."""

    def __init__(self, number, behind=False):
        self.cluster = Cluster(3, workers=False)
        self.ids = []
        # Any node but the leader, so that stopping it is no election.
        self.leader = self.cluster.leader()
        self.node = next(n for n in self.cluster.nodes if n is not self.leader)
        if behind:
            self.node.kill()
        self.submit(150)
        if behind:
            index = self.leader.status().commit_index
            self.node.start()
            if not checks.wait_for(lambda: (s := self.node.status()) and
                                   s.commit_index >= index, 10, 0.005):
                raise checks.Abort("the node did not catch up")
        self.code = self.node.kill(number)
        self.saved = self.cluster.directory + "/saved"
        shutil.copytree(self.node.data_dir, self.saved)

    def submit(self, count):
        for i in range(count):
            live = self.cluster.live()
            client = live[i % len(live)].client
            self.ids.append(client.submit(rpc.noop(name=f"needle-{len(self.ids)}")).job_id)

    def restore(self):
        shutil.rmtree(self.node.data_dir)
        shutil.copytree(self.saved, self.node.data_dir)

    def path(self, name):
        return pathlib.Path(self.node.data_dir, name)

    def segments(self):
        return sorted(pathlib.Path(self.node.data_dir).glob("wal-*.log"))

    def start_fails(self):
        """(exit code, what it logged)"""
        before = len(self.node.log())
        self.node.start()
        code = self.node.wait(8)
        if code is None:
            self.node.kill()
        return code, self.node.log()[before:]

    def start_works(self):
        self.node.start()
        return checks.wait_for(lambda: not self.node.running() or self.node.status(), 8) and \
            self.node.running()


def flip(path, offset, mask=0x10):
    with open(path, "r+b") as f:
        f.seek(offset)
        byte = f.read(1)[0]
        f.seek(offset)
        f.write(bytes([byte ^ mask]))


def used_bytes(path):
    """Where the last record ends (docs/formats.md: 40 bytes of header, data, to a multiple of 8)."""
    data = path.read_bytes()
    at = 4096
    while at + 40 <= len(data) and any(data[at:at + 40]):
        at = (at + 40 + struct.unpack_from("<I", data, at)[0] + 7) & ~7
    return at


def check_refused(c, what, code, log, name):
    c.equal(f"{what}: exit code", code, REFUSED)
    # File and offset, in whichever words.
    c.check(f"{what}: the log names file and offset", name in log and
            re.search(r"(offset|byte)\D{0,4}\d+", log), log[-600:])


def test_middle_of_log(c):
    refuse_damage(c, World(signal.SIGTERM))


def test_one_batch(c):
    """The same when all came in one batch, to which no later record bears witness: an orderly stop
    leaves one that does (W9)."""
    refuse_damage(c, World(signal.SIGTERM, behind=True))


def refuse_damage(c, w):
    c.equal("the node stopped cleanly", w.code, 0)
    print(f"#       seed {SEED}")
    rng = random.Random(SEED)
    segment = w.segments()[-1]
    data = segment.read_bytes()
    used = used_bytes(segment)
    places = [("a job's name", data.index(b"needle-70"))]
    places += [(f"a random place, {p}", p) for p in
               (rng.randrange(4096, used * 8 // 10) for _ in range(4))]
    for what, offset in places:
        w.restore()
        flip(segment, offset)
        before = segment.read_bytes()
        code, log = w.start_fails()
        check_refused(c, what, code, log, segment.name)
        c.check(f"{what}: the file was left as it is", segment.read_bytes() == before)
    w.restore()
    with open(segment, "r+b") as f:
        f.seek(used // 2 & ~511)
        f.write(bytes(512))
    code, log = w.start_fails()
    check_refused(c, "a zeroed sector", code, log, segment.name)
    w.submit(20)
    c.check("the other two go on", len(set(w.ids)) == 170)
    w.restore()
    c.require("with its files as they were it starts", w.start_works())
    same, text = w.cluster.digests_equal()
    c.check("and catches up to the same digest", same, text)
    w.cluster.stop()


def check_accepted(c, w, what):
    ok = w.start_works()
    c.check(f"{what}: the node starts", ok, w.node.log()[-600:])
    if ok:
        same, text = w.cluster.digests_equal()
        c.check(f"{what}: same digest as the others", same, text)
        c.check(f"{what}: all acknowledged jobs are there",
                {j.id for j in w.node.client.list(consistency=1)} >= set(w.ids))
        w.node.kill()


def test_torn_tail(c):
    """What a power cut leaves behind the last acknowledged record."""
    w = World(signal.SIGKILL)
    rng = random.Random(SEED + 1)
    segment = w.segments()[-1]
    used = used_bytes(segment)
    last = segment.read_bytes()[used - 200:used]
    for what, garbage in (("random bytes behind the end", rng.randbytes(300)),
                          ("bytes of a record from elsewhere", last),
                          ("ones behind the end", b"\xff" * 700)):
        w.restore()
        with open(segment, "r+b") as f:
            f.seek(used)
            f.write(garbage)
        check_accepted(c, w, what)
    # The last record itself: a torn write, or damage that its node may refuse. Never a difference.
    w.restore()
    flip(segment, used - 20)
    before = len(w.node.log())
    if w.start_works():
        same, text = w.cluster.digests_equal()
        c.check("the last record damaged: fetched again from the others", same, text)
        w.node.kill()
    else:
        check_refused(c, "the last record damaged", w.node.wait(1), w.node.log()[before:],
                      segment.name)
    w.restore()
    check_accepted(c, w, "untouched")
    w.cluster.stop()


def place(w):
    """What meta says of the log: (segment's number, offset) (docs/formats.md)."""
    data = w.path("meta").read_bytes()
    newest = max((0, META_SLOT), key=lambda at: struct.unpack_from("<Q", data, at + 16)[0])
    return struct.unpack_from("<QI", data, newest + 88)


def test_newest_segment(c):
    """The newest segment gone, or as it was some seconds before: nothing in the log itself says so,
    and the state of this node is older. It must not come back without what it acknowledged."""
    w = World(signal.SIGKILL)
    c.require("the node starts", w.start_works())
    w.submit(30)
    name = w.segments()[-1].name
    old = w.path(name).read_bytes()
    long_ago = used_bytes(w.path(name))
    w.submit(100)
    marked = checks.wait_for(lambda: place(w)[1] > long_ago + 4096, 10, 0.05)
    c.check("meta says how far the log is durable", marked, place(w))
    c.equal("and in which segment", f"wal-{place(w)[0]:016x}.log", name)
    w.node.kill()
    right = w.path(name).read_bytes()
    for what, content in (("the newest segment as it was", old), ("the newest segment missing", None)):
        w.path(name).unlink()
        if content:
            w.path(name).write_bytes(content)
        code, log = w.start_fails()
        check_refused(c, what, code, log, name)
        w.path(name).write_bytes(right)
    check_accepted(c, w, "the right one again")
    w.cluster.stop()


def test_meta(c):
    w = World(signal.SIGTERM)
    meta = w.path("meta")
    c.require("meta has two slots", meta.stat().st_size == 2 * META_SLOT, meta.stat().st_size)
    generations = [struct.unpack_from("<Q", meta.read_bytes(), s * META_SLOT + 16)[0]
                   for s in (0, 1)]
    newest = generations.index(max(generations))
    flip(meta, (1 - newest) * META_SLOT + 20)
    check_accepted(c, w, "the older meta slot damaged")
    # The older slot counts then. It may know less than the log has seen: then it is not believed.
    w.restore()
    flip(meta, newest * META_SLOT + 20)
    code, log = w.start_fails()
    c.check("the newest meta slot damaged: accepted, or refused because the log knows more",
            code is None or (code == REFUSED and "term" in log and "meta" in log),
            (code, log[-400:]))
    w.restore()
    flip(meta, 20)
    flip(meta, META_SLOT + 20)
    before = meta.read_bytes()
    code, log = w.start_fails()
    c.equal("both slots damaged: exit code", code, REFUSED)
    c.check("both slots damaged: the log names the file", "meta" in log, log[-400:])
    c.check("both slots damaged: the file was left as it is", meta.read_bytes() == before)
    w.restore()
    meta.unlink()
    code, log = w.start_fails()
    c.equal("meta missing beside a log: exit code", code, REFUSED)
    code, log = w.start_fails()
    c.equal("meta missing: the next start is refused too", code, REFUSED)
    w.restore()
    for segment in w.segments():
        segment.unlink()
    code, log = w.start_fails()
    c.equal("the log missing beside meta: exit code", code, REFUSED)
    w.submit(5)
    c.check("the other two go on", len(set(w.ids)) == 155)
    w.cluster.stop()


def test_foreign(c):
    """Another node's directory, and another cluster's."""
    w = World(signal.SIGTERM)
    other = next(n for n in w.cluster.nodes if n is not w.node and n is not w.leader)
    argv = w.node.argv()
    argv[argv.index("--node.data_dir") + 1] = w.saved
    stranger = [str(other.id) if a == str(w.node.id) and argv[i - 1] == "--node.id" else a
                for i, a in enumerate(argv)]
    other.kill(signal.SIGTERM)
    stranger[stranger.index("--node.listen") + 1] = other.address
    stranger[stranger.index("--node.peer_listen") + 1] = other.peer_address
    code, _, err = processes.run(stranger, seconds=8)
    c.equal("another node's directory: exit code", code, REFUSED)
    c.check("another node's directory: it says so", "node" in err and str(w.node.id) in err,
            err[-400:])
    # The log of another cluster beside this one's vote: the files say whose they are. (A whole
    # directory of another cluster is a node of that one: its peers here refuse it, test_bootstrap.)
    elsewhere = World(signal.SIGTERM)
    for segment in w.segments():
        segment.unlink()
    for segment in elsewhere.segments():
        shutil.copy(segment, w.node.data_dir)
    code, log = w.start_fails()
    c.equal("another cluster's log: exit code", code, REFUSED)
    c.check("another cluster's log: it says so", "cluster" in log, log[-400:])
    elsewhere.cluster.stop()
    w.restore()
    other.start()
    w.node.start()
    c.require("all nodes are back", w.cluster.wait_ready())
    same, text = w.cluster.digests_equal()
    c.check("digests are equal", same, text)
    w.cluster.stop()


if __name__ == "__main__":
    checks.run(test_middle_of_log, test_one_batch, test_torn_tail, test_newest_segment, test_meta,
               test_foreign)
