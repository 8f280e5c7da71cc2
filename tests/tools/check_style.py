#!/usr/bin/env python3
"""The rules of the style guide that a program can check.

Refused: files over 1,000 lines, lines over 100 columns (but not those that a name of more than 70
fills), tabs, trailing space, goto, banned functions, switch default on enums is left to the compiler, mutable variables at file scope outside
cmd/ (symbols in .data or .bss of our libraries). Reported: functions over 70 lines; refused over 100.
Usage: check_style.py [BUILD_DIR]
"""
import os
import re
import subprocess
import sys

from check_layers import ROOT, strip

FILE_LINES_MAX = 1000
FUNCTION_LINES_AIM = 70
FUNCTION_LINES_MAX = 100
COLUMNS_MAX = 100
# Generated protobuf names fill a line alone: one with a longer token than this may pass the limit.
TOKEN_COLUMNS_MAX = 70
BANNED = {"strcpy", "strcat", "sprintf", "vsprintf", "strtok", "gets", "atoi", "atol", "atoll",
          "atof", "alloca", "setjmp", "longjmp", "tmpnam", "mktemp"}
LIBRARIES = ("base", "raft", "storage", "os", "fsm", "sched", "node", "api", "worker", "sim", "cli",
             "bench")
# A longer table is data, not logic: the line before the function says so.
TABLE_MARK = "style: table"


def c_files():
    for top in ("src", "tests"):
        for dirpath, _, names in sorted(os.walk(os.path.join(ROOT, top))):
            for name in sorted(names):
                if name.endswith((".c", ".h")) and "node_modules" not in dirpath:
                    yield os.path.join(dirpath, name)


def longest_token(line):
    """Columns of the longest word: letters, digits and underscores. Rulers of comments are none."""
    return max((len(word) for word in re.findall(r"\w+", line)), default=0)


def check_lines(path, text, problems):
    where = os.path.relpath(path, ROOT)
    lines = text.split("\n")
    if len(lines) - 1 > FILE_LINES_MAX:
        problems.append("%s: %d lines; at most %d" % (where, len(lines) - 1, FILE_LINES_MAX))
    for number, line in enumerate(lines, 1):
        if "\t" in line:
            problems.append("%s:%d: a tab; four spaces indent" % (where, number))
        if line != line.rstrip():
            problems.append("%s:%d: space at the end of the line" % (where, number))
        if len(line) > COLUMNS_MAX and longest_token(line) <= TOKEN_COLUMNS_MAX:
            problems.append("%s:%d: %d columns; at most %d" % (where, number, len(line), COLUMNS_MAX))
    if path.endswith(".h") and "#pragma once" not in text:
        problems.append("%s: #pragma once is missing" % where)


def check_words(path, code, problems):
    where = os.path.relpath(path, ROOT)
    production = where.startswith("src" + os.sep)
    for number, line in enumerate(code.split("\n"), 1):
        if production and re.search(r"\bgoto\b", line):
            problems.append("%s:%d: goto; _cleanup_ does it" % (where, number))
        for match in re.finditer(r"(?<![\w.>])([a-z_]\w*)\s*\(", line):
            # cmocka's header wants setjmp.h; nobody calls it.
            if match.group(1) in BANNED:
                problems.append("%s:%d: %s is banned" % (where, number, match.group(1)))


def functions(code):
    """(first line, last line) of each function body: a '{' that ends a line at column 0's level."""
    depth, start = 0, 0
    lines = code.split("\n")
    for number, line in enumerate(lines, 1):
        before = depth
        depth += line.count("{") - line.count("}")
        if before == 0 and depth > 0:
            start = number if re.search(r"\)\s*\{\s*$", line) else 0
        if before > 0 and depth == 0 and start:
            yield start, number
            start = 0


def check_functions(path, text, code, problems, long):
    where = os.path.relpath(path, ROOT)
    lines = text.split("\n")
    for first, last in functions(code):
        length = last - first - 1
        if any(TABLE_MARK in line for line in lines[max(0, first - 6):first]):
            continue
        if length > FUNCTION_LINES_MAX:
            problems.append("%s:%d: a function of %d lines; at most %d" %
                            (where, first, length, FUNCTION_LINES_MAX))
        elif length > FUNCTION_LINES_AIM:
            long.append("%s:%d: a function of %d lines; aim at %d" %
                        (where, first, length, FUNCTION_LINES_AIM))


def check_globals(build, problems):
    """Symbols of type d or b (and their global forms) are mutable file-scope variables."""
    seen = 0
    for name in LIBRARIES:
        library = os.path.join(build, "src", "libchronos_%s.a" % name)
        if not os.path.exists(library):
            continue
        seen += 1
        # .data.rel.ro holds constants with addresses in them; nm calls them d too.
        out = subprocess.run(["objdump", "-t", library], capture_output=True, text=True,
                             check=True).stdout
        for line in out.split("\n"):
            match = re.match(r"^[0-9a-f]+ .{7} (\.data\S*|\.bss\S*|\*COM\*)\s+[0-9a-f]+\s+(?:\.hidden )?(\S+)$",
                             line)
            if not match:
                continue
            section, symbol = match.groups()
            if section.startswith(".data.rel.ro") or symbol == section or symbol.startswith((".", "__odr_asan", "__asan", "__sancov")):
                continue
            problems.append("libchronos_%s.a: %s in %s is mutable at file scope; pass a context" %
                            (name, symbol, section))
    return seen


def main():
    build = sys.argv[1] if len(sys.argv) > 1 else os.path.join(ROOT, "build", "release")
    problems, long, count = [], [], 0
    for path in c_files():
        count += 1
        text = open(path, encoding="utf-8").read()
        code = strip(text)
        check_lines(path, text, problems)
        check_words(path, code, problems)
        if path.endswith(".c"):
            check_functions(path, text, code, problems, long)
    libraries = check_globals(build, problems)
    for line in long:
        print("note: " + line)
    for problem in problems:
        print(problem)
    if count < 20 or libraries < 3:
        print("only %d files and %d libraries seen: this check looks at nothing" %
              (count, libraries))
        return 1
    print("%d files, %d libraries: %d problems, %d long functions" %
          (count, libraries, len(problems), len(long)))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
