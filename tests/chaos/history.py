"""What clients wrote down (load.py), as it grows."""
import collections
import json
import threading
import time

Op = collections.namedtuple("Op", "client kind outcome begun ended node d")
WRITES = ("submit", "cancel")


class History:
    """Reads the files of all client processes. A background thread keeps it fresh."""

    def __init__(self, paths):
        self.paths = paths
        self.ops = []      # calls, in the order in which they were read
        self.events = collections.defaultdict(list)  # watcher -> its lines
        self._files, self._parts = {}, {}
        self._lock = threading.Lock()

    def refresh(self):
        """Read what is new; the calls that came."""
        with self._lock:
            before = len(self.ops)
            for path in self.paths:
                if path not in self._files:
                    try:
                        self._files[path] = open(path, encoding="ascii")
                    except OSError:
                        continue
                    self._parts[path] = ""
                text = self._parts[path] + self._files[path].read()
                *lines, self._parts[path] = text.split("\n")
                for line in lines:
                    op = Op(*json.loads(line))
                    if op.kind in ("event", "gap", "backwards"):
                        self.events[op.client].append(op)
                    else:
                        self.ops.append(op)
            return self.ops[before:]

    def acknowledged(self):
        """Ids of the jobs that were acknowledged so far."""
        self.refresh()
        return {o.d["job"] for o in self.ops if o.kind == "submit" and o.outcome == "ok"}

    def rate(self, seconds):
        """Successful calls in a second, of late."""
        self.refresh()
        since = time.monotonic_ns() - int(seconds * 1e9)
        return sum(o.outcome == "ok" and o.ended >= since for o in self.ops) / seconds

    def wait_written(self, nodes, since_ns, seconds, every, tend=lambda: None):
        """A write that began after @since_ns is acknowledged by each (or any) of these nodes: the
        seconds it took, or None when that did not come about in time. tend() is called meanwhile.
        """
        until = since_ns + int(seconds * 1e9)
        first, seen = {}, 0
        if not nodes:
            return None
        while True:
            tend()
            self.refresh()
            for o in self.ops[seen:]:
                if o.kind in WRITES and o.outcome == "ok" and o.begun > since_ns and \
                        o.node in nodes and o.ended <= until:
                    first[o.node] = min(o.ended, first.get(o.node, o.ended))
            seen = len(self.ops)
            if (every and len(first) == len(set(nodes))) or (not every and first):
                return ((max if every else min)(first.values()) - since_ns) / 1e9
            # A little longer than the limit: a line may be on its way.
            if time.monotonic_ns() > until + 500_000_000:
                return None
            time.sleep(0.02)

    def answered_between(self, nodes, begun_ns, ended_ns):
        """Writes and linearizable reads that these nodes answered wholly within the time."""
        self.refresh()
        return [o for o in self.ops if o.node in nodes and o.kind in ("submit", "cancel", "get") and
                o.outcome == "ok" and "code" not in o.d and
                o.begun > begun_ns and o.ended < ended_ns]

    def export(self, path):
        """As src/sim/history.h wants it, for the other judge. Returns the number of lines."""
        clients, states, written = {}, {1: "pending", 2: "running", 3: "completed", 4: "failed",
                                        5: "cancelled"}, 0
        with open(path, "w", encoding="ascii") as f:
            for o in sorted(self.ops, key=lambda o: o.begun):
                number = clients.setdefault(o.client, len(clients) + 1)
                ok = o.outcome == "ok"
                end = o.ended if o.outcome != "unknown" else "-"
                head = f"{number} {o.begun} {end} {o.outcome}"
                index = f" index={o.d['index']}" if ok and o.d.get("index") else ""
                if o.kind == "submit":
                    tail = f"submit request={o.d['key']} key={o.d['key']}"
                    if ok:
                        tail += f" job={o.d['job']}" + (index if not o.d["existing"] else "")
                elif o.kind == "cancel":
                    result = ("missing" if o.d.get("missing") else "ended" if o.d.get("ended") else
                              "ok") if ok else ""
                    tail = f"cancel job={o.d['job']}" + (f" result={result}{index}" if ok else "")
                elif not ok:
                    continue  # a read that was not answered says nothing
                elif o.d.get("missing"):
                    tail = f"get job={o.d['job']} state=missing" + \
                        (" stale=1" if o.kind == "stale" else "")
                else:
                    tail = (f"get job={o.d['job']} state={states[o.d['state']]} "
                            f"attempt={o.d['attempt']} cancel={int(o.d['asked'])}{index}" +
                            (" stale=1" if o.kind == "stale" else ""))
                f.write(f"{head} {tail}\n")
                written += 1
        return written
