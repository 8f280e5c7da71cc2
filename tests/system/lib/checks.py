"""Counts checks and ends a test script with "N passed, N failed".

A check that fails does not stop the script; require() does, for what the rest depends on.
"""
import functools
import sys
import time
import traceback


class Abort(Exception):
    """The rest of this test makes no sense."""


class Checks:
    def __init__(self):
        self.passed = 0
        self.failed = 0
        self.started = time.monotonic()

    def check(self, name, condition, detail=""):
        if condition:
            self.passed += 1
            print(f"ok      {name}", flush=True)
        else:
            self.failed += 1
            print(f"FAILED  {name}{': ' if detail != '' else ''}{detail}", flush=True)
        return bool(condition)

    def equal(self, name, got, want):
        return self.check(name, got == want, f"got {got!r}, expected {want!r}")

    def require(self, name, condition, detail=""):
        if not self.check(name, condition, detail):
            raise Abort(name)

    def end(self):
        print(f"{self.passed} passed, {self.failed} failed "
              f"({time.monotonic() - self.started:.1f} s)", flush=True)
        return 0 if self.failed == 0 and self.passed > 0 else 1


def bind(world, *parts):
    """Parts that share a world: each is called with the Checks and it."""
    return [functools.wraps(p)(lambda c, p=p: p(c, world)) for p in parts]


def run(*parts, on_failure=None):
    """Each part is a function of the Checks. One that raises counts as one failure."""
    c = Checks()
    for part in parts:
        begun = time.monotonic()
        failed = c.failed
        try:
            part(c)
        except Abort as e:
            if c.failed == failed:
                c.check(part.__name__, False, e)
        except Exception:  # pylint: disable=broad-except
            traceback.print_exc(file=sys.stdout)
            c.check(f"{part.__name__} ran to its end", False)
        if c.failed > failed and on_failure:
            on_failure()
        print(f"#       {part.__name__}: {time.monotonic() - begun:.1f} s", flush=True)
    sys.exit(c.end())


def wait_for(condition, seconds, interval=0.02):
    """Poll until condition() is true; its value, or its last (false) value when time is up."""
    until = time.monotonic() + seconds
    while True:
        value = condition()
        if value or time.monotonic() >= until:
            return value
        time.sleep(interval)
