#!/usr/bin/env python3
"""The documentation agrees with what it documents, as far as a program can tell.

Goal: no dead link, no setting that the operator's page does not explain, no public field without a
word about it. Method: every relative link and #anchor of the Markdown files must exist, also every
path in `backticks` that begins with a folder of the repository; the settings of src/cli/config.c
must stand in the table of docs/operations.md with their defaults, and no others; examples/ and
docs/ configurations must be accepted by the program when it is built; every field, rpc and enum
value under proto/chronos/v1 must have a comment beside or above it.
Usage: check_docs.py [BUILD_DIR]   (without a built program the configurations are not tried: an error)
"""
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FOLDERS = ("src", "docs", "tests", "tools", "proto", "cmake", "examples", "completions")
PROTO = os.path.join("proto", "chronos", "v1")
# Settings that the program fills from others or that only the command line has.
COMMAND_LINE_ONLY = {"member", "worker.labels", "config", "print-config", "die-with-parent",
                     "bootstrap", "join"}


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as f:
        return f.read()


def markdown_files():
    for name in sorted(os.listdir(ROOT)):
        if name.endswith(".md"):
            yield name
    for dirpath, _, names in sorted(os.walk(os.path.join(ROOT, "docs"))):
        for name in sorted(names):
            if name.endswith(".md"):
                yield os.path.relpath(os.path.join(dirpath, name), ROOT)


def prose(text):
    """Blank fenced and indented code: links in it are examples."""
    text = re.sub(r"^```.*?^```", lambda m: "\n" * m.group(0).count("\n"), text, flags=re.S | re.M)
    return re.sub(r"^(    |\t).*$", "", text, flags=re.M)


def anchors(path):
    """The anchors of a page's headings, as GitHub makes them."""
    found = set()
    for line in prose(read(path)).split("\n"):
        match = re.match(r"#{1,6}\s+(.*)", line)
        if match:
            slug = re.sub(r"[^\w\- ]", "", match.group(1).replace("`", "").lower()).replace(" ", "-")
            found.add(slug.strip("-") if not slug.startswith("-") else slug)
    return found


def check_links(problems):
    seen = 0
    for path in markdown_files():
        text = prose(read(path))
        for number, line in enumerate(text.split("\n"), 1):
            where = "%s:%d" % (path, number)
            for target in re.findall(r"\]\(([^)\s]+)\)", line):
                if re.match(r"[a-z]+:", target):
                    continue
                seen += 1
                file, _, anchor = target.partition("#")
                full = os.path.normpath(os.path.join(os.path.dirname(path), file)) if file else path
                if not os.path.exists(os.path.join(ROOT, full)):
                    problems.append("%s: link to %s: there is no such file" % (where, target))
                elif anchor and anchor not in anchors(full):
                    problems.append("%s: link to %s: there is no such heading" % (where, target))
            for quoted in re.findall(r"`([A-Za-z0-9_./-]+)`", line):
                if quoted.split("/")[0] not in FOLDERS or "/" not in quoted:
                    continue
                seen += 1
                if not os.path.exists(os.path.join(ROOT, quoted)):
                    problems.append("%s: names %s, which does not exist" % (where, quoted))
    return seen


def settings():
    """name -> default of every setting of the one table in src/cli/config.c."""
    text = read("src/cli/config.c")
    table = text[text.index("config_options[] = {"):text.index("const size_t config_options_count")]
    entry = re.compile(r'\{"([\w.-]+)",\s*[^,]+,\s*(ARG_\w+),\s*(?:NULL|"[^"]*"),\s*'
                       r'"(?:\\.|[^"\\])*"(?:\s*"(?:\\.|[^"\\])*")*,\s*(NULL|"[^"]*"),')
    return {m.group(1): m.group(3).strip('"') for m in entry.finditer(table)}


def check_settings(problems):
    known = settings()
    page = read("docs/operations.md")
    rows = {}
    for match in re.finditer(r"^\| `([\w.-]+)` \| ([^|]*) \|", page, re.M):
        if match.group(1) in known or "." in match.group(1):
            rows[match.group(1)] = match.group(2).strip().strip("`")
    if len(known) < 20:
        problems.append("src/cli/config.c: only %d settings were understood" % len(known))
    for name, default in known.items():
        if name not in rows:
            problems.append("docs/operations.md: setting %s is missing" % name)
        elif default != "NULL" and rows[name] != default:
            problems.append("docs/operations.md: setting %s: default %s, the program has %s" %
                            (name, rows[name], default))
    for name in sorted(set(rows) - set(known)):
        if name != "cluster.members":
            problems.append("docs/operations.md: %s is no setting" % name)
    complete = read("examples/chronos.yaml")
    for name in known:
        if name not in COMMAND_LINE_ONLY and not re.search(
                r"^\s*#?\s*%s:" % re.escape(name.split(".")[-1]), complete, re.M):
            problems.append("examples/chronos.yaml: setting %s is missing" % name)
    return len(known)


def check_examples(build, problems):
    program = os.path.join(ROOT, build, "chronos")
    seen = 0
    for file in ("examples/chronos.yaml",):
        if not os.path.exists(os.path.join(ROOT, file)):
            continue
        seen += 1
        if not os.path.exists(program):
            problems.append("%s is not built: %s cannot be tried" % (program, file))
            continue
        done = subprocess.run([program, "server", "--config", file, "--print-config"], cwd=ROOT,
                              capture_output=True, text=True, check=False)
        if done.returncode != 0:
            problems.append("%s: refused: %s" % (file, done.stderr.strip()))
    return seen


def check_proto(problems):
    seen = 0
    item = re.compile(r"\s*(?:rpc\s+(\w+)|(?:repeated\s+)?[\w.]+(?:<[^>]*>)?\s+(\w+)\s*=\s*\d+\s*;|"
                      r"([A-Z][A-Z0-9_]*)\s*=\s*\d+\s*;)")
    for name in sorted(os.listdir(os.path.join(ROOT, PROTO))):
        path = os.path.join(PROTO, name)
        if not name.endswith(".proto"):
            continue
        above = ""
        for number, line in enumerate(read(path).split("\n"), 1):
            match = item.match(line)
            word = match and (match.group(1) or match.group(2) or match.group(3))
            if word and not word.endswith("_UNSPECIFIED"):
                seen += 1
                if "//" not in line and not above.strip().startswith("//"):
                    problems.append("%s:%d: %s has no comment" % (path, number, word))
            above = line
    return seen


def main():
    build = sys.argv[1] if len(sys.argv) > 1 else os.path.join("build", "release")
    problems = []
    links = check_links(problems)
    known = check_settings(problems)
    examples = check_examples(build, problems)
    fields = check_proto(problems)
    for problem in problems:
        print(problem)
    print("%d links and paths, %d settings, %d configurations, %d public fields: %d problems" %
          (links, known, examples, fields, len(problems)))
    if min(links, known, examples, fields) == 0:
        print("nothing was found to check in one of them")
        return 1
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
