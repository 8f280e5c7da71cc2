#!/usr/bin/env python3
"""Put known bugs into a copy of the tree, one at a time: each must be caught.

    tools/mutate.py                        all of tools/mutants/*.py
    tools/mutate.py --only 17 --only M12 --only lease
    tools/mutate.py --check                only: do the texts still stand in the source, is none twice, is M1-M50 complete

By the simulator, within --seeds seeds or --minutes minutes; or, where an entry says so, by a golden script or a unit
test (how that is decided: tools/mutants/README.md). Prints a row for each as it ends: its number, the number of the
known bug that it stands for, what caught it, after how many seeds and events, seconds. Those that never were tried come
first, then those that escaped the last time. Ctrl-C ends early and still prints the table. Exit 1 when one survives, when
a source text is stale, or when the unchanged tree fails already.

Trees and builds are kept in build/mutants, so that a second run builds only what has changed."""
import argparse
import io
import json
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time

sys.dont_write_bytecode = True
import mutants

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
COPIED = ("src", "proto", "cmake", "completions", "docs", "tests", "CMakeLists.txt", "CMakePresets.json")
SLICES = (200, 800, 1000, 2000)  # seeds of one process; the last again and again
SLICE_S = 100  # of an unchanged tree a few; after that it is asked whether it still lives
DYING_S = 20  # a seed takes milliseconds: who does not end within this after Ctrl-C never ends
CLEAN_SEEDS = 200
stop = threading.Event()
guilty = {}  # seeds at which the unchanged tree fails, and how: they convict nobody


class Outcome:
    """What became of one mutant: caught, SURVIVED, STALE, BROKEN (does not compile) or STOPPED (not tried to the end)."""

    def __init__(self, verdict, how, seeds=None, events=None, seconds=0.0):
        self.verdict, self.how, self.seeds, self.events, self.seconds = verdict, how, seeds, events, seconds


def run(command, timeout=None, **more):
    """(exit code, output, timed out). What hangs is asked to end as by Ctrl-C, then killed, with its children."""
    p = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                         start_new_session=True, **more)
    deadline = time.monotonic() + timeout if timeout else None
    late = False
    for sig, patience in ((signal.SIGINT, DYING_S), (signal.SIGABRT, 5), (signal.SIGKILL, None)):
        while True:
            try:
                out, _ = p.communicate(timeout=1)
                return p.returncode, out, late
            except subprocess.TimeoutExpired:
                if stop.is_set() or (deadline and time.monotonic() >= deadline):
                    break
        late = late or not stop.is_set()
        try:
            os.killpg(p.pid, sig)
        except ProcessLookupError:
            pass
        deadline = time.monotonic() + patience if patience else None
        if stop.is_set() and sig == signal.SIGINT:
            time.sleep(0.5)
    out, _ = p.communicate()
    return p.returncode, out, late


# ---- trees ----

def files_of(commit):
    """{path: bytes} of what is built: of the working tree, or of a commit."""
    found = {}
    if commit:
        tar = subprocess.run(["git", "-C", ROOT, "archive", commit], stdout=subprocess.PIPE, check=True).stdout
        with tarfile.open(fileobj=io.BytesIO(tar)) as t:
            for m in t:
                if m.isfile() and m.name.split("/")[0] in COPIED:
                    found[m.name] = t.extractfile(m).read()
        return found
    for top in COPIED:
        full = os.path.join(ROOT, top)
        walk = os.walk(full) if os.path.isdir(full) else [(ROOT, [], [top])]
        for folder, _, names in walk:
            for name in names:
                path = os.path.join(folder, name)
                with open(path, "rb") as f:
                    found[os.path.relpath(path, ROOT)] = f.read()
    return found


def sync(tree, files):
    """Make @tree hold just @files, touching only what differs."""
    for path, content in files.items():
        full = os.path.join(tree, path)
        try:
            with open(full, "rb") as f:
                if f.read() == content:
                    continue
        except FileNotFoundError:
            os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "wb") as f:
            f.write(content)
    for top in COPIED:
        for folder, _, names in os.walk(os.path.join(tree, top)):
            for name in names:
                full = os.path.join(folder, name)
                if os.path.relpath(full, tree) not in files:
                    os.unlink(full)


def configure(tree):
    code, out, _ = run(["cmake", "-S", tree, "-B", tree + "/build", "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release",
                        "-DCMAKE_C_FLAGS_RELEASE=-O1"])
    if code != 0:
        sys.exit(out)


def build(tree, targets):
    code, out, _ = run(["ninja", "-C", tree + "/build"] + targets)
    return code, out


def prepare(tree, files, targets):
    """A tree that is built, holds for some seeds, and passes the tests that are to catch something."""
    sync(tree, files)
    configure(tree)
    code, out = build(tree, ["chronos-sim"] + targets)
    if stop.is_set():
        sys.exit("interrupted")
    if code != 0:
        sys.exit("the unchanged tree does not compile:\n" + out[-4000:])
    shutil.copy2(tree + "/build/chronos-sim", tree + "/build/unchanged-sim")


def check_clean(tree, tests):
    code, out, _ = run([tree + "/build/chronos-sim", "--seeds", "1-%d" % CLEAN_SEEDS])
    if code != 0 and not stop.is_set():
        sys.exit("the unchanged tree fails already:\n" + out[-4000:])
    for t in tests:
        found = run_test(tree, t)
        if found and not stop.is_set():
            sys.exit("the unchanged tree fails already: " + found)


# ---- what caught it ----

def assertion_in(out):
    m = re.search(r"assertion failed: (.*?) \((?:\S*/)?(src/\S+?|tests/\S+?), (\w+)\)", out)
    return "assertion %s in %s" % (m.group(1), m.group(3)) if m else None


def number_in(pattern, out):
    m = re.search(pattern, out)
    return int(m.group(1)) if m else 0


def events_in(out):
    """All events of a run of the simulator, as far as it says."""
    return (number_in(r"held before: \d+ seeds, (\d+) events", out) + number_in(r"seeds hold: (\d+) events", out) +
            number_in(r"after (\d+) events", out))


def seed_in(out):
    return number_in(r"(?:FAILED seed |--seed )(\d+)", out)


def verdict(out, code):
    """What a run of the simulator found; None when everything held."""
    failure = re.search(r"FAILED seed \d+: (.*)", out)
    how = assertion_in(out)
    if not how and failure:
        how = failure.group(1).strip()
    if not how and "FAILED" in out:
        how = "crash"
    if not how and code < 0:
        how = "crash by signal %d" % -code
    return how


def innocent(tree, mutant, seed):
    """Does the unchanged tree fail at this seed, too? (Not asked of a few that are known.)"""
    if seed not in guilty:
        code, out, _ = run([tree + "/build/unchanged-sim", "--seed", str(seed)] + mutant.options.get("sim", []),
                           timeout=SLICE_S)
        if code == 0 or stop.is_set():
            return False
        guilty[seed] = verdict(out, code) or "exit code %d" % code
    return True


def simulate(tree, mutant, seeds, deadline):
    """Slices of seeds until one fails, the seeds are used up, or the time is."""
    first, events, slices = 1, 0, list(SLICES)
    while first <= seeds and time.monotonic() < deadline and not stop.is_set():
        last = min(seeds, first + slices[0] - 1)
        if len(slices) > 1:
            slices.pop(0)
        code, out, late = run([tree + "/build/chronos-sim", "--jobs", "1", "--seeds", "%d-%d" % (first, last)] +
                              mutant.options.get("sim", []), timeout=min(SLICE_S, deadline - time.monotonic() + 1))
        if stop.is_set():
            break
        events += events_in(out)
        how = verdict(out, code)
        if how and innocent(tree, mutant, seed_in(out)):
            first = seed_in(out) + 1
            continue
        if late and how:
            return Outcome("caught", "seed %d never ended (%s)" % (seed_in(out), how), seed_in(out), events)
        if how:
            return Outcome("caught", how, seed_in(out) or first, events)
        if late and "interrupted:" not in out:
            return Outcome("caught", "seeds %d-%d never ended" % (first, last), first, events)
        first = first + number_in(r"interrupted: (\d+) of", out) if late else last + 1
    if stop.is_set():
        return Outcome("STOPPED", "interrupted", first - 1, events)
    return Outcome("SURVIVED", "%d seeds hold" % (first - 1), first - 1, events)


def run_test(tree, line):
    """What a test binary with its arguments found; None when it passes."""
    words = line.split()
    command = [tree + "/build/tests/" + words[0]] + words[1:]
    code, out, late = run(command, timeout=60, cwd=tree)
    if code == 0 and not late:
        return None
    failed = re.search(r"\[  FAILED  \] (?!\d|tests)(\S+)", out)
    name = os.path.basename(words[0]) + ("".join(" " + os.path.basename(w) for w in words[1:]))
    if late:
        return "%s: never ended" % name
    said = assertion_in(out)
    return name + (": " + failed.group(1) if failed else "") + (", " + said if said else "")


# ---- one mutant ----

def put(tree, mutant):
    """Make the edits. The texts before them by path, or None when a text to replace is not there."""
    before = {}
    for path, old, new in mutant.edits:
        full = os.path.join(tree, path)
        with open(full) as f:
            text = f.read()
        before.setdefault(full, text)
        if old not in text:
            take_back(before)
            return None
        with open(full, "w") as f:
            f.write(text.replace(old, new))
    return before


def take_back(before):
    for full, text in before.items():
        with open(full, "w") as f:
            f.write(text)


def try_mutant(tree, mutant, seeds, minutes):
    began = time.monotonic()
    before = put(tree, mutant)
    if before is None:
        return Outcome("STALE", "the source has changed: edit tools/mutants")
    try:
        tests = mutant.options.get("by", [])
        code, out = build(tree, [t.split()[0] for t in tests] or ["chronos-sim"])
        if stop.is_set():
            return Outcome("STOPPED", "interrupted")
        if code != 0:
            errors = [line for line in out.splitlines() if "error" in line]
            return Outcome("BROKEN", "does not compile: " + " ".join(errors)[:300])
        done = Outcome("SURVIVED", "not seen by " + ", ".join(tests))
        for t in tests:
            found = run_test(tree, t)
            if found:
                done = Outcome("caught", found)
                break
        if not tests:
            done = simulate(tree, mutant, seeds, time.monotonic() + minutes * 60)
        for t in mutant.options.get("else", []) if done.verdict == "SURVIVED" and not stop.is_set() else []:
            found = run_test(tree, t) if build(tree, [t.split()[0]])[0] == 0 else None
            if found:
                done = Outcome("caught", "%s; %s" % (found, done.how))
        done.seconds = time.monotonic() - began
        return done
    finally:
        take_back(before)


# ---- the table ----

HEAD = "%4s %-4s %-46s %6s %10s %5s  %s" % ("no", "M", "mutant", "seeds", "events", "s", "caught by")


def row(mutant, o):
    how = o.how if o.verdict == "caught" else "%s: %s" % (o.verdict, o.how)
    return "%4d %-4s %-46s %6s %10s %5.0f  %s" % (mutant.number, mutant.known, mutant.name,
                                                  "-" if o.seeds is None else o.seeds,
                                                  "-" if o.events is None else o.events, o.seconds, how[:150])


def table(chosen, done):
    lines = [HEAD] + [row(m, done[m.name]) for m in chosen if m.name in done]
    lines += ["%4s %-4s %s: %s" % ("-", known, "not applicable", why) for known, why in mutants.NOT_APPLICABLE]
    return lines


def summary(chosen, done):
    tried = [(m, done[m.name]) for m in chosen if m.name in done]
    caught = [(m, o) for m, o in tried if o.verdict == "caught"]
    seeds = sorted(o.seeds for m, o in caught if o.seeds)
    lines = ["%d mutants tried of %d: %d caught, %d of them by the simulator (median: seed %s, 9 of 10 up to %s), %d by"
             " tests" % (len(tried), len(chosen), len(caught), len(seeds), seeds[len(seeds) // 2] if seeds else "-",
                         seeds[len(seeds) * 9 // 10] if seeds else "-", len(caught) - len(seeds))]
    for m, o in tried:
        if o.verdict != "caught":
            lines.append("not caught: %d %s, %s: %s" % (m.number, m.name, o.verdict, o.how))
    lines += ["the unchanged tree fails at seed %d: %s" % fault for fault in sorted(guilty.items())]
    return lines


# ---- the run ----

def chosen_of(all_mutants, only):
    def wanted(m, o):
        return str(m.number) == o or m.known == o or (not re.fullmatch(r"M?\d+", o) and o in m.name)

    chosen = [m for m in all_mutants if not only or any(wanted(m, o) for o in only)]
    if not chosen:
        sys.exit("no mutant is called %s: a number of the table, M17, or a part of a name" % " or ".join(only))
    return chosen


def check(all_mutants, files):
    """Fast: texts that have gone, names twice, bugs twice, known bugs without an entry."""
    wrong, names, trees = [], set(), {}
    for m in all_mutants:
        edited = {}
        for path, old, new in m.edits:
            text = files.get(path, b"").decode("utf-8", "replace")
            edited[path] = edited.get(path, text).replace(old, new)
            if old not in text:
                wrong.append("%d %s: %s no longer has:\n%s" % (m.number, m.name, path, old))
            if old == new:
                wrong.append("%d %s: changes nothing in %s" % (m.number, m.name, path))
        if m.name in names:
            wrong.append("%d %s: the name is there twice" % (m.number, m.name))
        names.add(m.name)
        twin = trees.setdefault(tuple(sorted(edited.items())), m)
        if twin is not m:
            wrong.append("%d %s: is the same bug as %d %s" % (m.number, m.name, twin.number, twin.name))
    known = {m.known for m in all_mutants} | {k for k, _ in mutants.NOT_APPLICABLE}
    wrong += ["M%d has no mutant" % n for n in range(1, 51) if "M%d" % n not in known]
    return wrong


def results_load(path):
    try:
        with open(path) as f:
            return json.load(f)
    except (FileNotFoundError, ValueError):
        return {}


def table_write(path, chosen, done, kept):
    """Into a file that is whole at each moment: a long run is read while it goes on."""
    known = dict(done)
    for n, r in kept.items():
        known.setdefault(n, Outcome(r["verdict"], r["how"], r["seeds"], r["events"], r["seconds"]))
    with open(path + ".new", "w") as f:
        f.write("\n".join(table(chosen, known) + summary(chosen, known)) + "\n")
    os.replace(path + ".new", path)


def work(tree, todo, a, chosen, earlier, done, lock, results_path):
    while not stop.is_set():
        try:
            m = todo.get_nowait()
        except queue.Empty:
            return
        o = try_mutant(tree, m, a.seeds, a.minutes)
        if o.verdict == "STOPPED":
            return
        with lock:
            done[m.name] = o
            print(row(m, o), flush=True)
            kept = results_load(results_path)
            kept[m.name] = {"edits": m.digest, "verdict": o.verdict, "how": o.how, "seeds": o.seeds,
                            "events": o.events, "seconds": o.seconds}
            with open(results_path + ".new", "w") as f:
                json.dump(kept, f, indent=1)
            os.replace(results_path + ".new", results_path)
            if a.table:
                table_write(a.table, chosen, done, earlier)


def main():
    p = argparse.ArgumentParser(description="Put known bugs into a copy of the tree; each must be caught.")
    p.add_argument("--only", action="append", default=[], help="a number of the table, M17, or a part of a name")
    p.add_argument("--seeds", type=int, default=20000)
    p.add_argument("--minutes", type=float, default=5, help="for each mutant")
    p.add_argument("--jobs", type=int, default=1)
    p.add_argument("--commit", help="of this commit instead of the working tree")
    p.add_argument("--table", metavar="FILE", help="also write the table there")
    p.add_argument("--known", action="store_true", help="put results of earlier runs into the table, too")
    p.add_argument("--open", action="store_true", help="those of tools/mutants/open.py, too")
    p.add_argument("--check", action="store_true", help="build nothing, only check the entries")
    p.add_argument("--work", default=os.path.join(ROOT, "build/mutants"), help="trees and builds")
    a = p.parse_args()
    all_mutants = mutants.load(a.open)
    chosen = chosen_of(all_mutants, a.only)
    files = files_of(a.commit)
    files["CMakeLists.txt"] = files["CMakeLists.txt"].replace(b"-Werror", b"-w")
    if a.check:
        wrong = check(all_mutants, files)
        print("\n".join(wrong) if wrong else "%d mutants, M1-M50 complete" % len(all_mutants))
        return 1 if wrong else 0
    os.makedirs(a.work, exist_ok=True)
    results_path = os.path.join(a.work, "results.json")
    kept = {n: r for n, r in results_load(results_path).items()
            if any(m.name == n and m.digest == r["edits"] for m in chosen)}
    todo = queue.Queue()
    for m in sorted(chosen, key=lambda m: (m.name in kept, kept.get(m.name, {}).get("verdict") == "caught", m.number)):
        todo.put(m)
    tests = sorted({t for m in chosen for t in m.options.get("by", []) + m.options.get("else", [])})
    trees = [os.path.join(a.work, "tree%d" % i) for i in range(max(1, min(a.jobs, len(chosen))))]
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    for i, t in enumerate(trees):
        prepare(t, files, sorted({t.split()[0] for t in tests}))
        if i == 0:
            check_clean(t, tests)
    print(HEAD, flush=True)
    done, lock = {}, threading.Lock()
    earlier = kept if a.known else {}
    threads = [threading.Thread(target=work, args=(t, todo, a, chosen, earlier, done, lock, results_path))
               for t in trees]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    failed = stop.is_set() or len(guilty) > 0 or any(o.verdict != "caught" for o in done.values())
    for n, r in earlier.items():
        done.setdefault(n, Outcome(r["verdict"], r["how"], r["seeds"], r["events"], r["seconds"]))
    lines = summary(chosen, done)
    if a.table:
        table_write(a.table, chosen, done, {})
    if stop.is_set():
        print("interrupted; so far:\n" + "\n".join(table(chosen, done)))
    print("\n".join(lines))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
