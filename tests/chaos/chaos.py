#!/usr/bin/python3
"""Real processes on a real kernel under every fault of the menu, judged by what clients saw.

Goal: nothing acknowledged is lost or doubled, reads are linearizable, attempts are exclusive, ticks
have one outcome each, watches have no gap, nodes agree, and the cluster recovers within the limits
of world.py, whatever is done to the network, the processes, the clocks and the disks. Method: each
case (cases.py) starts three or five nodes in network namespaces, lets clients write down what they
do (load.py), injects its faults, heals, and hands the histories to the judges. A run with fewer
than 100 successful calls a second before its fault does not count and is repeated twice at most.

Usage: chaos.py BINARY [--full] [--only NAME[,NAME]] [--seed N] [--seconds N] [--list]
"""
import argparse
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import namespaces  # noqa: E402

KEPT = HERE.parents[1] / "build/chaos"
REPEATS = 2
FIELDS = ("calls", "ok", "faults", "ticks")


def arguments():
    p = argparse.ArgumentParser()
    p.add_argument("binary")
    p.add_argument("--full", action="store_true")
    p.add_argument("--only", default="")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--seconds", type=float, default=0)
    p.add_argument("--list", action="store_true")
    return p.parse_args()


def child(seconds, *args):
    """A part of run.py in a process of its own; what it says about itself."""
    with tempfile.NamedTemporaryFile(prefix="chronos-chaos-", suffix=".json") as f:
        code = namespaces.run([str(HERE / "run.py"), f.name, str(KEPT), *map(str, args)], seconds)
        text = f.read()
    if not text:
        return {"bad": [f"the run ended with {code}" if code != -9 else
                        f"the run was ended after {seconds:.0f} s"], "line": ""}
    return json.loads(text)


def run(binary, case, seed, seconds, totals):
    """True when it holds. One line, and what was wrong."""
    name = case["name"]
    for _ in range(REPEATS + 1):
        r = child(180 + 4 * seconds, binary, name, seed, seconds)
        if "slow" not in r:
            break
        print(f"#       {name}: does not count: {r['slow']}", flush=True)
        r = {"bad": [r["slow"]], "line": "never fast enough to count"}
    for field in FIELDS:
        totals[field] = totals.get(field, 0) + r.get(field, 0)
    print(f"{'FAILED ' if r['bad'] else 'ok     '} {name} (seed {seed}): {r['line']}", flush=True)
    for text in r["bad"]:
        print(f"        {text[:1500]}")
    if r["bad"]:
        print(f"        kept: build/chaos/{name}-{seed}; again: "
              f"tools/chaos.sh BINARY --only {name} --seed {seed}", flush=True)
    return not r["bad"]


def menu():
    out = subprocess.run([sys.executable, str(HERE / "run.py"), "--list"], check=True,
                         capture_output=True, text=True).stdout
    return json.loads(out)


def main():
    args = arguments()
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda n, _: sys.exit(128 + n))  # files are removed on the way
    cases = menu()
    if args.list:
        for c in cases:
            print(f"{c['name']:13} {c['seconds']:4} s{'' if c['selected'] else ', --full only'}: "
                  f"{c['about']}")
        return 0
    wanted = [name for name in args.only.split(",") if name]
    unknown = set(wanted) - {c["name"] for c in cases}
    if unknown:
        sys.exit(f"no such case: {', '.join(sorted(unknown))}; --list shows all")
    chosen = [c for c in cases if (c["name"] in wanted if wanted else c["selected"] or args.full)]
    lacks = namespaces.missing()
    if lacks:
        print(f"FAILED  the machine: {lacks}\n0 passed, {len(chosen)} failed")
        return 1
    base = args.seed or random.SystemRandom().randrange(1, 1 << 31)
    binary = str(pathlib.Path(args.binary).resolve())
    if args.full:
        expected = sum(c["rounds"] * (c["full_seconds"] * 1.3 + 15) for c in chosen) / 60
        print(f"#       {len(chosen)} cases, about {expected:.0f} minutes", flush=True)
    begun, totals = time.monotonic(), {}
    r = child(60, binary, "judges", 0, 0)
    passed = int(not r["bad"])
    failed = 1 - passed
    print(f"ok      {r['line']}" if passed else f"FAILED  the judges: {r['bad']}", flush=True)
    for case in chosen:
        for k in range(case["rounds"] if args.full else 1):
            seconds = args.seconds or case["full_seconds" if args.full else "seconds"]
            good = run(binary, case, base + k, seconds, totals)
            passed, failed = passed + good, failed + (not good)
    print("#       " + ", ".join(f"{totals.get(f, 0)} {f}" for f in FIELDS) +
          f" in {time.monotonic() - begun:.0f} s")
    print(f"{passed} passed, {failed} failed", flush=True)
    return 0 if failed == 0 and passed > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
