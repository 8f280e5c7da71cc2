#!/usr/bin/env python3
"""The model of the protocol and the simulator's check against it speak of the same steps.

Method: the names of model/steps.def, of the steps in model/protocol.pml (each inline with a capital letter, its guard,
its use in a server's loop), of src/sim/conformance.h's enum, of the names and functions in
src/sim/conformance_steps.c and of the counters must be equal, where they have an order in the same order; the mutations
that model/run.sh tries must be those that the model has."""
import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
NO_GUARD = {"TruncateConflict"}  # part of AppendEntries, which knows when
errors = []


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as f:
        return f.read()


def upper(name):
    return re.sub(r"(?<!^)([A-Z])", r"_\1", name).upper()


def compare(what, found, want, ordered=True):
    if not ordered:
        found, want = sorted(set(found)), sorted(set(want))
    if list(found) != list(want):
        missing = [n for n in want if n not in found]
        more = [n for n in found if n not in want]
        errors.append(f"{what}: missing {missing}, too many {more}" if missing or more else f"{what}: another order")


steps = [line.split()[0] for line in read("model/steps.def").splitlines() if line and not line.startswith("#")]
model = read("model/protocol.pml")
state = read("model/state.pml")
header = read("src/sim/conformance.h")
code = read("src/sim/conformance_steps.c")
world = read("src/sim/world.h")
stats = read("src/sim/stats.c")
run = read("model/run.sh")

if len(steps) != len(set(steps)) or len(steps) < 10:
    errors.append("model/steps.def: a step twice, or too few")
compare("model/protocol.pml: steps", re.findall(r"^inline ([A-Z]\w*)\(", model, re.M), steps, ordered=False)
compare("model/protocol.pml: guards", re.findall(r"^#define MAY_(\w+)\(", model, re.M),
        [s for s in steps if s not in NO_GUARD], ordered=False)
taken = re.findall(r"^ +(?:STEP\(|:: d_step \{ )MAY_(\w+)\(.*?(\w+)\(i(?:, \d)?\)(?:\)| \})$", model, re.M)
compare("model/protocol.pml: what a server does", [b for _, b in taken], [s for s in steps if s not in NO_GUARD],
        ordered=False)
errors += [f"model/protocol.pml: the guard of {a} stands before {b}" for a, b in taken if a != b]
enum = re.search(r"enum conformance_step \{(.*?)CONFORMANCE_STEPS", header, re.S).group(1)
compare("src/sim/conformance.h: steps", re.findall(r"STEP_(\w+),", enum), [upper(s) for s in steps])
compare("src/sim/conformance_steps.c: names", re.findall(r'\[STEP_(\w+)\] = "(\w+)"', code),
        [(upper(s), s) for s in steps])
compare("src/sim/conformance_steps.c: functions", re.findall(r"^bool take_(\w+)\(", code, re.M),
        [upper(s).lower() for s in steps if s != "PersistMeta"], ordered=False)  # a part of take_restart()
compare("src/sim/world.h: counters", re.findall(r"SIM_STAT_STEP_(\w+),", world), [upper(s) for s in steps])
compare("src/sim/stats.c: counters", re.findall(r'\[SIM_STAT_STEP_\w+\] = "model steps (\w+)"', stats), steps)

listed = "".join(re.findall(r"^(?:larger_)?mutations='\n(.*?)^'", run, re.S | re.M))
has = re.findall(r"^#(?:ifdef|ifndef) ([A-Z_]+)$|defined\(([A-Z_]+)\)", model + state, re.M)
bounds = {"TERMS", "LOG", "CRASHES", "COMMANDS", "SNAPSHOTS", "CHANGES", "SYMMETRIC", "STEP_DOWN", "MORTAL", "OLD_SET",
          "NEW_SET"}
compare("model/run.sh: mutations", [line.split()[0] for line in listed.splitlines() if line.strip()],
        [a or b for a, b in has if (a or b) not in bounds], ordered=False)

for e in errors:
    print(f"check_model: {e}")
sys.exit(1 if errors else 0)
