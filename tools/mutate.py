#!/usr/bin/env python3
"""Put known bugs into a copy of the tree, one at a time, and let the simulator find them.

    tools/mutate.py                      all of tools/mutants/list.py
    tools/mutate.py --only fsm --only lease
Prints a table: the bug, how it was caught, at which seed (of 1, 2, 3 ...). Exit 1 when one survives.
"""
import argparse
import os
import re
import runpy
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def run(command, **more):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", **more)


def copy_tree(to):
    for name in ("src", "proto", "cmake"):
        shutil.copytree(os.path.join(ROOT, name), os.path.join(to, name))
    for name in ("CMakeLists.txt", "CMakePresets.json"):
        shutil.copy(os.path.join(ROOT, name), to)
    for name in ("completions", "docs"):
        if os.path.isdir(os.path.join(ROOT, name)):
            shutil.copytree(os.path.join(ROOT, name), os.path.join(to, name))


def configure(tree):
    done = run(["cmake", "-S", tree, "-B", tree + "/build", "-G", "Ninja", "-DCMAKE_BUILD_TYPE=RelWithDebInfo",
                "-DCHRONOS_TESTS=OFF", "-DCMAKE_C_FLAGS=-Wno-error"])
    if done.returncode != 0:
        sys.exit(done.stdout)


def build(tree):
    return run(["ninja", "-C", tree + "/build", "chronos-sim"])


def verdict(output):
    """How it was caught, and at which seed; None when it was not."""
    assertion = re.search(r"assertion failed: (.*?) \(\S*/(src/\S+), (\w+)\)", output)
    seed = re.search(r"(?:FAILED seed |--seed )(\d+)", output)
    failure = re.search(r"FAILED seed \d+: (.*)", output)
    if assertion:
        return "assertion %s in %s" % (assertion.group(1), assertion.group(3)), seed and int(seed.group(1))
    if failure:
        return failure.group(1), int(seed.group(1))
    if "FAILED" in output:
        return "crash", seed and int(seed.group(1))
    return None


def put(tree, mutant):
    """Make the edits. The texts before them by path, or None when the source has changed."""
    before = {}
    for at in range(1, len(mutant), 3):
        path, old, new = mutant[at:at + 3]
        full = os.path.join(tree, path)
        with open(full) as f:
            text = f.read()
        before.setdefault(full, text)
        if text.count(old) == 0:
            take_back(before)
            return None
        with open(full, "w") as f:
            f.write(text.replace(old, new))
    return before


def take_back(before):
    for full, text in before.items():
        with open(full, "w") as f:
            f.write(text)


def try_mutant(tree, mutant, seeds):
    before = put(tree, mutant)
    if before is None:
        return "the source has changed: edit tools/mutants/list.py", None, False
    try:
        made = build(tree)
        if made.returncode != 0:
            errors = [line for line in made.stdout.splitlines() if "error" in line]
            return "does not compile: " + " ".join(errors)[:300], None, False
        try:
            out = run([tree + "/build/chronos-sim", "--seeds", "1-%d" % seeds], timeout=90).stdout
        except subprocess.TimeoutExpired:
            return "the run never ended", None, True
        found = verdict(out)
        return (found[0], found[1], True) if found else ("SURVIVED", None, False)
    finally:
        take_back(before)


def main():
    p = argparse.ArgumentParser(description="Put known bugs into the tree; the simulator must find them.")
    p.add_argument("--seeds", type=int, default=2000)
    p.add_argument("--only", action="append", default=[], help="names that contain this")
    a = p.parse_args()
    mutants = runpy.run_path(os.path.join(ROOT, "tools/mutants/list.py"))["MUTANTS"]
    chosen = [m for m in mutants if not a.only or any(o in m[0] for o in a.only)]
    survivors = []
    with tempfile.TemporaryDirectory(prefix="chronos-mutants-") as tree:
        copy_tree(tree)
        configure(tree)
        made = build(tree)
        if made.returncode != 0:
            sys.exit(made.stdout)
        clean = run([tree + "/build/chronos-sim", "--seeds", "1-%d" % min(a.seeds, 300)])
        if clean.returncode != 0:
            sys.exit("the unchanged tree fails already:\n" + clean.stdout)
        print("%-38s %6s  %s" % ("bug", "seed", "caught by"), flush=True)
        for m in chosen:
            how, seed, caught = try_mutant(tree, m, a.seeds)
            print("%-38s %6s  %s" % (m[0], seed if seed is not None else "-", how[:140]), flush=True)
            if not caught:
                survivors.append(m[0])
    print("%d bugs, %d caught%s" % (len(chosen), len(chosen) - len(survivors),
                                    ", not: " + ", ".join(survivors) if survivors else ""))
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
