#!/usr/bin/env python3
"""Every bound of every setting: the smallest and the largest allowed value start a node that takes a
job and stops well, or are refused with a reason that names the setting; none ends it by a signal.

Goal: what docs/operations.md states as allowed is allowed everywhere below the configuration too.
Method: the table of docs/operations.md, one single node a value, on a free port.
"""
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = os.environ.get("CHRONOS_BIN") or (sys.argv[1] if len(sys.argv) > 1 else "")
BIN = os.path.abspath(BIN or ROOT / "build/release/chronos")
# Started, but every job is refused: nobody has so much free.
NO_ROOM = {("storage.reserve_bytes", "1TiB")}
ROW = re.compile(r"^\| `([\w.-]+)` \| [^|]*\| (\S+?)-(\S+) \|", re.M)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def outcome(name, value):
    """"" when all is well, else what is not."""
    directory = tempfile.mkdtemp(prefix="chronos-bounds-")
    listen, peers = (f"127.0.0.1:{free_port()}" for _ in range(2))
    node = subprocess.Popen(
        [BIN, "server", "--node.data_dir", directory, "--node.listen", listen, "--node.peer_listen",
         peers, "--worker.enabled=false", "--bootstrap", "--" + name, value],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        # Waits for the node to serve, or for its refusal: the client repeats until then.
        submit = subprocess.Popen([BIN, "job", "submit", "-a", listen, "--call-timeout", "10s", "--",
                                   "true"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        while submit.poll() is None and node.poll() is None:
            try:
                submit.wait(0.05)
            except subprocess.TimeoutExpired:
                pass
        if node.poll() is not None:
            submit.kill()
            submit.communicate()
            err = node.stderr.read()
            named = name in err or "cluster.raft.election_timeout" in err or "worker.lease" in err
            return "" if node.returncode == 2 and named else f"exit {node.returncode}: {err}"
        said = submit.stderr.read()
        if (name, value) in NO_ROOM:
            if submit.returncode != 4 or b"disk" not in said:
                return f"taken although no disk has so much room: {submit.returncode} {said!r}"
        elif submit.returncode != 0:
            return f"no job was taken: {said!r}"
        node.terminate()
        try:
            node.wait(12)
        except subprocess.TimeoutExpired:
            return "does not stop"
        return "" if node.returncode == 0 else f"stops with {node.returncode}"
    finally:
        if node.poll() is None:
            node.kill()
            node.wait()
        node.stderr.close()
        shutil.rmtree(directory, ignore_errors=True)


def main():
    passed = failed = 0
    for name, low, high in ROW.findall((ROOT / "docs/operations.md").read_text()):
        for value in (low.replace(",", ""), high.replace(",", "")):
            why = outcome(name, value)
            passed, failed = passed + (not why), failed + bool(why)
            print(f"{'not ok' if why else 'ok'} {name} {value} {why}", flush=True)
    print(f"{passed} passed, {failed} failed")
    return 0 if failed == 0 and passed >= 20 else 1


sys.exit(main())
