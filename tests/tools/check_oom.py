#!/usr/bin/env python3
"""Whatever can fail must have failed in a test: every public function of the pure folders that is
declared _must_check_ is called by a test that fails the nth allocation, for every n.

Such a test is a file of tests/unit that wraps malloc, or one of the files compiled with it (its
SOURCES in tests/unit/*.cmake and the headers of tests/unit that it includes). Public are the headers
that no other names internal. What allocates nothing is called there as well: then it stays true."""
import glob
import re
import sys

HEADERS = [f"src/{folder}/*.h" for folder in ("raft", "storage", "fsm", "sched")] + [
    f"src/api/{name}.h"
    for name in ("convert", "job_filter", "message_check", "page_token", "schedule_page",
                 "submit_encode", "validate_job", "validate_schedule")
]
COMMENT = re.compile(r"/\*.*?\*/", re.S)
# A declaration at the beginning of a line, up to its attribute.
DECLARATION = re.compile(r"^(?!static|typedef|#)[a-zA-Z_][\w \t*]*?\b(\w+)\(([^;{}]*?)\)\s*_must_check_", re.M)


def read(path):
    with open(path, encoding="utf-8") as f:
        return COMMENT.sub("", f.read())


def public_functions():
    found = {}
    for pattern in HEADERS:
        for path in sorted(glob.glob(pattern)):
            if path.endswith("_internal.h"):
                continue
            for match in DECLARATION.finditer(read(path)):
                found[match.group(1)] = path
    return found


def helpers_of(name, lists):
    """The sources that a test's list names beside its own."""
    files = []
    for text in lists:
        for match in re.finditer(r"chronos_unit_test\((\w+)\b([^)]*)\)", text):
            if match.group(1) == name:
                files += re.findall(r"unit/\w+\.c", match.group(2))
    return ["tests/" + f for f in files]


def test_texts():
    lists = [read(path) for path in glob.glob("tests/unit/*.cmake")]
    texts = []
    for path in sorted(glob.glob("tests/unit/test_*.c")):
        text = read(path)
        included = re.findall(r'#include "(\w+\.h)"', text)
        whole = text + "".join(read(p) for p in
                               (f"tests/unit/{i}" for i in included) if glob.glob(p))
        if "__wrap_malloc" not in whole:
            continue
        name = re.search(r"test_(\w+)\.c", path).group(1)
        texts.append(whole + "".join(read(p) for p in helpers_of(name, lists)))
    return texts


def main():
    functions = public_functions()
    tests = "\n".join(test_texts())
    called = set(re.findall(r"\b(\w+)\(", tests))
    missing = {f: h for f, h in functions.items() if f not in called}
    for name, header in sorted(missing.items(), key=lambda x: (x[1], x[0])):
        print(f"{header}: {name} fails in no test of failing allocations")
    print(f"{len(functions)} functions that can fail, {len(missing)} of them never without memory")
    # A parser that finds nothing would hold everything for covered.
    return 1 if missing or len(functions) < 80 else 0


if __name__ == "__main__":
    sys.exit(main())
