#!/usr/bin/python3
"""One run of one case, inside of its own namespaces (namespaces.py); chaos.py starts it.

Usage: run.py RESULT-FILE KEPT-DIRECTORY BINARY CASE SEED SECONDS, or run.py --list
"""
import json
import os
import pathlib
import sys
import time
import traceback

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parents[0] / "system/lib"))
if len(sys.argv) > 3:
    os.environ["CHRONOS_BIN"] = sys.argv[3]

import cases  # noqa: E402
import namespaces  # noqa: E402
import selftest  # noqa: E402
from checks import Abort  # noqa: E402
from world import TooSlow  # noqa: E402


def finish(world, case, bad, kept):
    """What is to be said about a run, and its files when it failed."""
    bad = world.bad + bad
    if bad:
        world.cluster.print_logs(12)
        world.cluster.keep(kept)
    ops = world.history.ops
    out = {"bad": bad, "line": "; ".join([world.summary(), *world.notes]), "calls": len(ops),
           "ok": sum(o.outcome == "ok" for o in ops), "faults": sum(world.faults.values())}
    world.end()
    case.clean(world)
    return out


def run(case, seed, seconds, kept):
    begun = time.monotonic()
    world, bad, ticks = None, [], 0
    try:
        world = case.make(seed, seconds)
        world.cluster.start()
        world.open(**case.options)
        case.function(world)
        ticks = world.close()
    except TooSlow as e:
        return {"slow": str(e)}
    except Abort as e:
        bad.append(str(e))
    except Exception as e:  # pylint: disable=broad-except
        traceback.print_exc(file=sys.stdout)
        bad.append(f"{type(e).__name__}: {e}")
    out = finish(world, case, bad, kept) if world else {"bad": bad, "line": ""}
    return {**out, "ticks": ticks, "line": f"{out['line']}; {time.monotonic() - begun:.1f} s"}


def judges():
    try:
        count = selftest.run()
    except AssertionError as e:
        return {"bad": [str(e)], "line": ""}
    return {"bad": [], "line": f"the judges tell good histories from bad ones ({count} searched in "
            "two ways)"}


def main():
    if sys.argv[1:] == ["--list"]:
        print(json.dumps([{k: getattr(c, k) for k in ("name", "about", "seconds", "full_seconds",
                                                      "rounds", "selected")} for c in cases.ALL]))
        return
    result, kept, _, name, seed, seconds = sys.argv[1:7]
    namespaces.enter()
    if name == "judges":
        out = judges()
    else:
        case = next(c for c in cases.ALL if c.name == name)
        out = run(case, int(seed), float(seconds), pathlib.Path(kept, f"{name}-{seed}"))
    pathlib.Path(result).write_text(json.dumps(out), encoding="utf-8")


if __name__ == "__main__":
    main()
