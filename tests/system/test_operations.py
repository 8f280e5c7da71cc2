#!/usr/bin/python3
"""The procedures of docs/operations.md, run as they are written.

Goal: what an operator is told to type works: each heading of "Procedures" is one bash script of its
fenced blocks, run in the document's order against real nodes on loopback. Only the variables that
the text itself introduces are set. Around each procedure this test looks at what the text promises:
jobs acknowledged before are there afterwards, and the members are those that it says.
"""
import os
import pathlib
import re
import shutil
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))

import checks  # noqa: E402
import processes  # noqa: E402
import rpc  # noqa: E402
from cluster import BIN, ROOT, free_base_port, temporary_directory  # noqa: E402

TEXT = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
NODES = 6
# Procedure -> (ids of the members afterwards, the nodes' variables in the text)
AFTER = {
    "Bootstrap": {1: "C1", 2: "C2", 3: "C3"},
    "Grow": {1: "C1", 2: "C2", 3: "C3", 4: "C4", 5: "C5"},
    "Shrink": {1: "C1", 2: "C2", 3: "C3"},
    "Replace a dead node": {1: "C1", 2: "C2", 6: "C6"},
    "Move a node to another address": {1: "C1", 2: "C2", 6: "C3"},
    "Work on a node": {1: "C1", 2: "C2", 6: "C3"},
    "Upgrade": {1: "C1", 2: "C2", 6: "C3"},
    "Back up": {1: "C1", 2: "C2", 6: "C3"},
    "Restore": {1: "C1", 2: "C2", 3: "C3"},
    "Recover from a lost majority": {1: "C1", 4: "C4", 5: "C5"},
    "Stop a whole cluster": {},
}
# A new cluster id is what these promise.
NEW_CLUSTER = ("Restore", "Recover from a lost majority")


def blocks(text):
    return re.findall(r"^```sh\n(.*?)^```$", text, re.S | re.M)


def procedures():
    """(the shell's beginning, [(heading, script)])"""
    section = re.search(r"^## Procedures\n(.*?)^## ", TEXT, re.S | re.M).group(1)
    parts = re.split(r"^### (.*)\n", section, flags=re.M)
    prelude = "\n".join(blocks(parts[0]))
    named = list(zip(parts[1::2], parts[2::2]))
    return prelude, [(name, "\n".join(blocks(body))) for name, body in named]


class World:
    """The operator's shell: its variables outlive a script, its directory is a temporary one."""

    def __init__(self):
        self.directory = temporary_directory()
        base = free_base_port(NODES)
        self.addresses = {f"C{i}": f"127.0.0.1:{base + 10 * (i - 1)}" for i in range(1, NODES + 1)}
        peers = {f"P{i}": f"127.0.0.1:{base + 10 * (i - 1) + 2}" for i in range(1, NODES + 1)}
        # "chronos" by name, as typed.
        os.mkdir(self.directory + "/bin")
        os.symlink(BIN, self.directory + "/bin/chronos")
        self.environment = {"PATH": f"{self.directory}/bin:{os.environ['PATH']}",
                            "HOME": self.directory, "DATA": self.directory + "/data",
                            "BACKUPS": self.directory + "/backups", **self.addresses, **peers}
        self.jobs = set()
        self.at_backup = set()
        self.cluster_id = ""

    def run(self, prelude, script, seconds=120):
        keep = self.directory + "/address"
        # What a procedure exports is there for the next one, as in one shell.
        text = f"set -euo pipefail\n{prelude}\n{script}\nprintf %s \"$CHRONOS_ADDRESS\" >{keep}\n"
        code, out, err = processes.run(["bash", "-c", text], seconds=seconds,
                                       env=self.environment, cwd=self.directory)
        if code == 0:
            self.environment["CHRONOS_ADDRESS"] = pathlib.Path(keep).read_text(encoding="ascii")
        return code, out + err

    def logs(self):
        return "\n".join(f"--- {p.name}\n" + "\n".join(p.read_text(
            encoding="utf-8", errors="replace").splitlines()[-8:])
            for p in sorted(pathlib.Path(self.environment["DATA"]).glob("*.log")))


def look(c, w, name, members):
    """What must be so after each procedure."""
    clients = {i: rpc.Client(w.addresses[c_]) for i, c_ in members.items()}
    first = next(iter(clients.values()))
    status = checks.wait_for(lambda: (s := first.status()) and
                             {m.id for m in s.nodes if m.membership == "voter"} == set(members) and
                             s, 10)
    c.require(f"{name}: the members are {sorted(members)}", status, first.status().nodes)
    if w.cluster_id and name in NEW_CLUSTER:
        c.check(f"{name}: another cluster id", status.cluster_id != w.cluster_id)
    elif w.cluster_id:
        c.equal(f"{name}: the same cluster id", status.cluster_id, w.cluster_id)
    w.cluster_id = status.cluster_id
    for i, client in clients.items():
        have = {j.id for j in client.list()}
        c.check(f"{name}: node {i} has every acknowledged job", w.jobs <= have,
                len(w.jobs - have))
        w.jobs |= {client.submit(rpc.noop(name=f"{name} {k}")).job_id for k in range(5)}
    ended = checks.wait_for(lambda: all(j.state in rpc.TERMINAL for j in first.list()), 30, 0.2)
    c.check(f"{name}: jobs are run", ended)
    for client in clients.values():
        client.close()


def test_procedures(c):
    prelude, named = procedures()
    c.equal("the document's procedures are those that are known here", [n for n, _ in named],
            list(AFTER))
    c.check("no procedure is empty", all(script for _, script in named))
    w = World()
    for name, script in named:
        if name == "Restore":
            # Jobs from after the backup are not in it; those are the old cluster's alone.
            w.jobs = set(w.at_backup)
        code, out = w.run(prelude, script)
        c.require(f"{name}: runs as written", code == 0, out[-1500:] + w.logs())
        if name == "Back up":
            w.at_backup = set(w.jobs)
        if AFTER[name]:
            look(c, w, name, AFTER[name])
    left = [p for p in processes.descendants(os.getpid()) if
            " server " in processes.command_line(p) + " " and processes.alive(p)]
    c.equal("no node runs at the end", left, [])
    shutil.rmtree(w.directory)


def test_tables(c):
    """The alarms in the text are those of the program."""
    source = "".join(p.read_text(encoding="utf-8") for p in (ROOT / "src/node").glob("*.c"))
    section = re.search(r"^## Alarms\n(.*?)^### ", TEXT, re.S | re.M).group(1)
    rows = re.findall(r"^\| `([^`]+)` \|", section, re.M)
    c.check("there are rows", len(rows) >= 3, rows)
    for row in rows:
        words = row.split(" N ")[0].split("...")[0].strip(" :")
        c.check(f"alarm: {words}", words.replace(", in entries", "") in source or words in source,
                row)


if __name__ == "__main__":
    checks.run(test_procedures, test_tables)
