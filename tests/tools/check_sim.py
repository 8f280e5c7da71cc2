#!/usr/bin/env python3
"""What chronos-sim promises to those who run it.

Goal: the result of a range does not depend on how many processes share it; a seed gives the same
trace each time; a process that dies under a seed is named with its replay command; counters that are
too low fail by name; bad options are refused in words. Method: short ranges of the built program; one
of its processes is killed while it works.
Usage: check_sim.py [BUILD_DIR]
"""
import os
import re
import signal
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = sys.argv[1] if len(sys.argv) > 1 else os.path.join(ROOT, "build", "release")
SIM = os.path.join(BUILD, "chronos-sim")
problems = []


def sim(*options):
    done = subprocess.run([SIM, *options], capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout, done.stderr


def expect(condition, what, output=""):
    if not condition:
        problems.append("%s\n%s" % (what, output[-2000:]))


def without_time(text):
    return re.sub(r"(?m)^.*events/s\n", "", text)


def check_jobs():
    one = sim("--seeds", "1-40", "--events", "300", "--jobs", "1", "--stats")
    three = sim("--seeds", "1-40", "--events", "300", "--jobs", "3", "--stats")
    expect(one[0] == 0 and "40 seeds hold: " in one[1], "40 short seeds hold", one[1])
    expect(without_time(one[1]) == without_time(three[1]), "three processes say what one says", three[1])


def check_trace():
    first = sim("--seed", "7", "--events", "500", "--trace")
    second = sim("--seed", "7", "--events", "500", "--trace")
    expect(first[0] == 0 and re.search(r"(?m)^trace hash [0-9a-f]{16}$", first[1]), "a trace ends with its hash",
           first[1])
    expect(without_time(first[1]) == without_time(second[1]), "one seed, one trace")
    for what in (r"role=leader", r"gives node \d its vote", r"entries=\d+\.\.\d+", r"commit=\d+",
                 r"job \d+: PENDING -> RUNNING", r"start life=1"):
        expect(re.search(what, first[1]), "the trace has lines like " + what)


def children(pid):
    try:
        with open("/proc/%d/task/%d/children" % (pid, pid)) as f:
            return [int(c) for c in f.read().split()]
    except FileNotFoundError:
        return []


def check_death():
    """Two processes share many seeds; one is killed as an assertion would."""
    parent = subprocess.Popen([SIM, "--seeds", "1-1000000", "--jobs", "2"], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True)
    until = time.monotonic() + 60
    while len(children(parent.pid)) < 2 and time.monotonic() < until and parent.poll() is None:
        pass
    victims = children(parent.pid)
    expect(len(victims) == 2, "two processes share the seeds")
    if victims:
        os.kill(victims[0], signal.SIGABRT)
    out = parent.communicate(timeout=120)[0]
    expect(parent.returncode == 1, "exit code 1 when a process dies, not %d" % parent.returncode, out)
    named = re.search(r"(?m)^FAILED seed (\d+): the code under test ended the process: Aborted$", out)
    expect(named, "the seed of a dead process is named", out)
    expect(named and re.search(r"(?m)^replay: .*--seed %s --events 2000 --trace$" % named.group(1), out),
           "with the command that replays it", out)
    expect(re.search(r"(?m)^held before: \d+ seeds, \d+ events$", out), "with what held before", out)


def check_counters():
    code, out, _ = sim("--seeds", "1-3", "--events", "100", "--require-counters", "1000000000")
    expect(code == 1, "counters that are too low fail", out)
    expect('FAILED counter "elections": ' in out and "at least 1000000000" in out, "by name", out)


def check_scenarios():
    """Each scenario that the usage names can be played, and its counter says that it was."""
    _, _, err = sim("--unknown")
    names = re.findall(r"^  ([a-z-]+) +\S", err.split("Scenarios:")[1], flags=re.M)
    expect(len(names) >= 13, "scenarios are named by the usage", err)
    for name in names:
        code, out, _ = sim("--scenario", name, "--seeds", "1-4", "--events", "200", "--stats")
        played = re.search(r"^ *(\d+) scenarios %s$" % name, out, flags=re.M)
        expect(code == 0 and played and int(played.group(1)) > 0, "%s is played" % name, out)


def check_usage():
    for options in ([], ["--seeds", "5"], ["--seeds", "9-3"], ["--seeds", "0-3"], ["--seed", "x"],
                    ["--seeds", "1-2", "--jobs", "0"], ["--seeds", "1-2", "--nodes", "8"],
                    ["--seeds", "1-2", "--trace"], ["--seeds", "1-2", "--require-counters", "0"],
                    ["--seeds", "1-2", "--scenario", "none"],
                    ["--seeds", "1-2", "--unknown"]):
        code, out, err = sim(*options)
        expect(code == 2 and not out and err.startswith("chronos-sim: ") and "usage: " in err,
               "%s is refused in words" % " ".join(options), err)


def main():
    for check in (check_jobs, check_trace, check_death, check_counters,
                  check_scenarios, check_usage):
        check()
    for problem in problems:
        print("FAILED " + problem)
    print("chronos-sim: %d problems" % len(problems))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
