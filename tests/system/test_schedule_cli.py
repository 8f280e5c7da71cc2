#!/usr/bin/python3
"""Schedules at the command line.

Goal: previews and descriptions without a cluster are right to the second (the vectors of clock
changes, every policy, bad input with its exit code); with a cluster each command does what its help
says: create, update, get, list, pause, resume, trigger, backfill, preview, history, missed, delete,
why; a file is applied as planned and what is exported applies as unchanged; a crontab comes in and
goes out again, and its commands get their standard input, shell and variables. Method: run the
binary against three real nodes and read its streams.
"""
import json
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))

import checks  # noqa: E402
from cluster import Cluster, cli, temporary_directory  # noqa: E402


def preview(*args):
    code, out, err = cli("schedule", "preview", "-o", "json", *args)
    if code != 0:
        raise checks.Abort(f"preview {args}: {code} {err}")
    return json.loads(out)


# zone, expression, from, the runs in UTC (all of them until the day after), a word of a note
VECTORS = [
    ("America/New_York", "30 2 * * *", "2026-03-08T05:00:00Z", ["2026-03-08T07:00:00Z",
                                                                "2026-03-09T06:30:00Z"], "moved"),
    ("America/New_York", "30 1 * * *", "2026-11-01T04:00:00Z", ["2026-11-01T05:30:00Z",
                                                                "2026-11-02T06:30:00Z"],
     "suppressed"),
    ("Europe/Berlin", "0 2 * * *", "2026-10-24T22:00:00Z", ["2026-10-25T00:00:00Z",
                                                            "2026-10-26T01:00:00Z"], "suppressed"),
    ("Europe/Dublin", "@hourly", "2026-03-28T23:30:00Z", ["2026-03-29T00:00:00Z",
                                                          "2026-03-29T01:00:00Z",
                                                          "2026-03-29T02:00:00Z"], ""),
    ("America/Havana", "0 0 * * *", "2026-03-08T00:00:00Z", ["2026-03-08T05:00:00Z",
                                                             "2026-03-09T04:00:00Z"], "moved"),
    ("Pacific/Apia", "0 12 * * *", "2011-12-29T00:00:00Z", ["2011-12-29T22:00:00Z",
                                                            "2011-12-30T22:00:00Z"], ""),
]


def test_preview_vectors(c):
    for zone, expression, start, want, note in VECTORS:
        got = preview("--cron", expression, "--tz", zone, "--from", start, "-n", str(len(want)))
        c.equal(f"preview {zone} '{expression}'", [r["utc"] for r in got], want)
        c.check(f"preview {zone} '{expression}': note", note in got[0]["note"] and
                (note or not got[0]["note"]) and set(got[0]) == {"utc", "local", "note"}, got)
    got = preview("--cron", "*/15 * * * *", "--tz", "America/New_York", "--from",
                  "2026-11-01T04:59:59Z", "-n", "12")
    c.check("preview: a quarter of an hour follows real minutes",
            got[0]["utc"] == "2026-11-01T05:00:00Z" and got[-1]["utc"] == "2026-11-01T07:45:00Z"
            and not any(r["note"] for r in got), got)
    c.check("preview: local time stands with its offset",
            got[0]["local"] == "2026-11-01T01:00:00-04:00" and
            got[4]["local"] == "2026-11-01T01:00:00-05:00", got)
    for dst, spring, autumn in (
            ("literal", "2026-03-09T06:30:00Z", ["2026-11-01T05:30:00Z", "2026-11-01T06:30:00Z"]),
            ("skip_repeat", "2026-03-09T06:30:00Z", ["2026-11-01T05:30:00Z",
                                                     "2026-11-02T06:30:00Z"])):
        got = preview("--cron", "30 2 * * *", "--tz", "America/New_York", "--from",
                      "2026-03-08T05:00:00Z", "-n", "1", "--dst", dst)
        c.equal(f"preview --dst {dst}: a gap", got[0]["utc"], spring)
        got = preview("--cron", "30 1 * * *", "--tz", "America/New_York", "--from",
                      "2026-11-01T04:00:00Z", "-n", "2", "--dst", dst)
        c.equal(f"preview --dst {dst}: a repeated hour", [r["utc"] for r in got], autumn)


def test_preview_forms(c):
    got = preview("--cron", "0 9 * * *", "--cron", "0 9,12 * * mon", "--exclude", "* * 4 5 *",
                  "--from", "2026-05-02T12:00:00+02:00", "-n", "5")
    c.equal("preview: several expressions, one exclusion", [r["utc"] for r in got],
            ["2026-05-03T09:00:00Z", "2026-05-05T09:00:00Z", "2026-05-06T09:00:00Z",
             "2026-05-07T09:00:00Z", "2026-05-08T09:00:00Z"])
    got = preview("--cron", "@every 90s/30s", "--from", "2026-05-02T12:00:00Z", "-n", "2")
    c.equal("preview: @every is anchored", [r["utc"] for r in got],
            ["2026-05-02T12:00:30Z", "2026-05-02T12:02:00Z"])
    got = preview("--cron", "@at 2027-01-01T00:00:00Z", "--from", "2026-05-02", "-n", "3")
    c.equal("preview: @at comes once", [r["utc"] for r in got], ["2027-01-01T00:00:00Z"])
    c.equal("preview: @manual never comes", preview("--cron", "@manual"), [])
    c.equal("preview: the first of any day and weekday", preview(
        "--cron", "0 0 1 * mon", "--day-match", "and", "--from", "2026-01-01", "-n", "1")[0]["utc"],
            "2026-06-01T00:00:00Z")
    code, out, _ = cli("schedule", "preview", "--cron", "30 2 * * *", "--tz", "America/New_York",
                       "--from", "2026-03-08T00:00:00Z", "-n", "1")
    c.check("preview: a table", code == 0 and "2026-03-08T03:00:00-04:00 EDT" in out and
            "moved" in out, out)
    directory = pathlib.Path(temporary_directory())
    (directory / "Mars").mkdir()
    (directory / "Mars/Base").write_bytes(pathlib.Path("/usr/share/zoneinfo/Asia/Tokyo").read_bytes())
    (directory / "Mars/Broken").write_bytes(b"TZif2" + b"\0" * 20)
    env = {"CHRONOS_TZDIR": str(directory)}
    code, out, err = cli("schedule", "preview", "--cron", "0 0 * * *", "--tz", "Mars/Base", "-n",
                         "1", "-o", "json", "--from", "2026-01-01T00:00:00Z", env=env)
    c.check("preview: CHRONOS_TZDIR", code == 0 and "2026-01-01T15:00:00Z" in out, (out, err))
    code, _, err = cli("schedule", "preview", "--cron", "@daily", "--tz", "Mars/Broken", env=env)
    c.check("preview: a damaged zone file is named", code == 2 and "Mars/Broken" in err, err)


def test_bad_input(c):
    cases = [
        ("61 * * * *", "UTC", "column 1"), ("0 0 31 2 *", "UTC", "no date"),
        ("* * * *", "UTC", "column"), ("* * * * xyz", "UTC", "column 9"), ("", "UTC", "column"),
        ("@sometimes", "UTC", "@"), ("* * * * *", "Mars/Base", "Mars/Base"),
        ("* * * * *", "../../etc/passwd", "time zone"), ("* * * * *", "/etc/passwd", "time zone"),
        ("@every 0s", "UTC", "at least 1s"), ("*/0 * * * *", "UTC", "column"),
    ]
    for expression, zone, text in cases:
        code, out, err = cli("schedule", "preview", "--cron", expression, "--tz", zone)
        c.check(f"preview '{expression}' {zone}: refused", code == 2 and text in err and not out,
                (code, err))
    code, _, err = cli("schedule", "describe", "*" * 100000)
    c.check("describe: a very long expression is refused", code == 2 and len(err) < 2000, err[:200])
    for args, text in ((["preview"], "NAME"), (["preview", "x", "--cron", "* * * * *"], "either"),
                       (["preview", "--cron", "@daily", "--from", "yesterday"], "--from"),
                       (["preview", "--cron", "@daily", "--dst", "x"], "once, literal"),
                       (["create", "x", "--", "ls"], "when should it run"),
                       (["create", "x", "--cron", "@daily"], "what should run"),
                       (["create", "x", "-c", "@daily", "--spread", "1 day", "--", "ls"], "--spread"),
                       (["create", "x", "-c", "@daily", "-l", "x", "--", "ls"], "NAME=VALUE"),
                       (["create", "x", "-c", "@daily", "--overlap", "x", "--", "ls"], "buffer_one"),
                       (["pause"], "--all"), (["backfill", "x"], "--from"),
                       (["apply"], "-f FILE"), (["apply", "-f", "/nonexistent"], "No such file"),
                       (["export", "--user-column"], "--crontab")):
        code, _, err = cli("schedule", *args)
        c.check(f"schedule {' '.join(args)}: a usage error", code == 2 and text in err, (code, err))
    code, _, _ = cli("schedule", "list", "--timeout", "300ms", address="127.0.0.1:1")
    c.equal("list: no cluster is exit code 4", code, 4)


def test_describe(c):
    code, out, _ = cli("schedule", "describe", "*/15 9-17 * * mon-fri")
    c.check("describe: English", code == 0 and
            out == "every 15 minutes from 09:00 to 17:59, Monday to Friday\n", out)
    code, out, _ = cli("schedule", "describe", "-o", "json", "@daily", "0 0 1 1 *")
    c.check("describe: JSON", code == 0 and
            [x["expression"] for x in json.loads(out)] == ["@daily", "0 0 1 1 *"], out)


def wait_history(world, name, condition, seconds=15):
    """The ticks of a schedule, as soon as they satisfy the condition."""
    def ticks():
        code, out, _ = world.cli("schedule", "history", name, "-o", "json")
        found = json.loads(out)["ticks"] if code == 0 else []
        return found if condition(found) else None
    return checks.wait_for(ticks, seconds, 0.1) or []


def get(world, name):
    code, out, err = world.cli("schedule", "get", name, "-o", "json")
    if code != 0:
        raise checks.Abort(f"get {name}: {code} {err}")
    return json.loads(out)


def output_of(world, job):
    code, out, err = world.cli("job", "get", job, "-o", "json")
    if code != 0:
        raise checks.Abort(f"job get {job}: {code} {err}")
    return json.loads(out)


def wait_job(world, job):
    return checks.wait_for(lambda: (lambda j: j if j["state"] in (
        "JOB_STATE_COMPLETED", "JOB_STATE_FAILED") else None)(output_of(world, job)), 15, 0.1)


def test_life(c, world):
    code, out, err = world.cli("schedule", "create", "beat", "--cron", "@every 1s", "-l", "team=a",
                               "--", "echo", "hi there")
    c.check("create", code == 0 and out.startswith("beat created, next run "), (code, out, err))
    code, _, err = world.cli("schedule", "create", "beat", "--cron", "@daily", "--", "ls")
    c.check("create: a name is taken once", code == 1 and "beat" in err, (code, err))
    ticks = wait_history(world, "beat", lambda t: len([x for x in t if x["fired"]]) >= 3)
    c.check("history: it fires", len(ticks) >= 3, ticks)
    job = wait_job(world, ticks[-1]["job_id"])
    c.check("history: the job ran", job and job["output_text"] == "hi there\n", job)
    c.check("history: in a table", "on time" in world.cli("schedule", "history", "beat")[1])
    code, out, err = world.cli("schedule", "pause", "beat", "--until", "2h", "--reason", "upgrade")
    c.check("pause", code == 0 and out == "beat paused\n", (code, out, err))
    state = get(world, "beat")
    c.check("pause: shown", state["paused"] and state["pause_reason"] == "upgrade" and
            abs(state["paused_until_ms"] / 1000 - time.time() - 7200) < 60, state)
    code, out, _ = world.cli("why", "beat")
    c.check("why: paused", code == 0 and "paused" in out and "upgrade" in out and
            out.count("\n") == 1, out)
    code, out, _ = world.cli("schedule", "list", "--state", "paused", "-o", "json")
    c.equal("list --state paused", [s["spec"]["name"] for s in json.loads(out)["schedules"]],
            ["beat"])
    missed = checks.wait_for(lambda: [t for t in json.loads(world.cli(
        "schedule", "missed", "beat", "-o", "json")[1])["ticks"]
        if t["reason"] == "TICK_REASON_PAUSED"], 10, 0.1)
    c.check("missed: ticks while paused", missed and not missed[0]["fired"], missed)
    code, out, _ = world.cli("schedule", "resume", "beat")
    c.check("resume", code == 0 and out == "beat resumed\n", out)
    code, out, _ = world.cli("schedule", "resume", "beat")
    c.check("resume: already", code == 0 and "already" in out, out)
    code, out, _ = world.cli("schedule", "pause", "--all")
    c.check("pause --all", code == 0 and get(world, "beat")["paused"], out)
    world.cli("schedule", "resume", "--all")
    c.check("resume --all", not get(world, "beat")["paused"])
    code, out, _ = world.cli("schedule", "delete", "beat")
    c.check("delete", code == 0 and out == "beat deleted\n", out)
    for args in (["schedule", "get", "beat"], ["schedule", "delete", "beat"], ["why", "beat"],
                 ["schedule", "trigger", "beat"], ["schedule", "preview", "beat"],
                 ["schedule", "history", "beat"], ["schedule", "update", "beat", "-c", "@daily"]):
        code, _, err = world.cli(*args)
        c.check(f"{' '.join(args)}: not found is exit code 3", code == 3 and "beat" in err,
                (code, err))


def test_update_and_runs(c, world):
    code, _, err = world.cli("schedule", "create", "report", "--cron", "0 9 * * mon-fri", "--tz",
                             "Europe/Berlin", "--spread", "10m", "-e", "A=1", "-l", "k=v",
                             "--", "sleep", "20")
    c.require("create", code == 0, err)
    before = get(world, "report")
    code, out, err = world.cli("schedule", "update", "report", "--cron", "0 10 * * mon-fri",
                               "--unset", "spread", "-l", "k=w")
    after = get(world, "report")
    c.check("update: what was given changed, the rest stays", code == 0 and
            after["spec"]["cron"] == ["0 10 * * mon-fri"] and after["spec"]["spread_ms"] == 0 and
            after["spec"]["time_zone"] == "Europe/Berlin" and after["spec"]["labels"] == {"k": "w"}
            and after["spec"]["job"]["env"] == {"A": "1"} and
            after["version"] == before["version"] + 1, (code, out, err, after["spec"]))
    code, _, err = world.cli("schedule", "update", "report", "--version", "1", "-c", "@daily")
    c.check("update: another version is refused", code == 1 and "ABORTED" in err, (code, err))
    code, out, _ = world.cli("schedule", "preview", "report", "-n", "5", "-o", "json")
    shown = json.loads(out)
    c.check("preview NAME", code == 0 and len(shown) == 5 and
            all(r["local"][11:19] == "10:00:00" for r in shown), shown)
    c.check("preview NAME is what preview --cron says", shown == preview(
        "--cron", "0 10 * * mon-fri", "--tz", "Europe/Berlin", "-n", "5"))
    code, out, _ = world.cli("schedule", "trigger", "report")
    job = out.strip()
    c.check("trigger: prints the job", code == 0 and job.startswith("j"), out)
    code, _, err = world.cli("schedule", "trigger", "report")
    c.check("trigger: overlap keeps it from running", code == 1 and job in err, (code, err))
    code, out, _ = world.cli("why", "report")
    c.check("why: an open run is named", code == 0 and job in out, out)
    code, out, _ = world.cli("why", job)
    c.check("why: a job", code == 0 and out.count("\n") == 1, out)
    code, out, _ = world.cli("schedule", "trigger", "report", "--ignore-overlap")
    c.check("trigger --ignore-overlap", code == 0 and out.startswith("j"), out)
    code, out, _ = world.cli("schedule", "backfill", "report", "--from", "2026-06-01", "--until",
                             "2026-06-08", "--dry-run")
    c.check("backfill --dry-run counts", code == 0 and out == "5 ticks would run\n", out)
    code, out, _ = world.cli("schedule", "backfill", "report", "--from", "2026-06-01", "--until",
                             "2026-06-03", "--ignore-overlap", "-o", "json")
    c.check("backfill runs them", code == 0 and
            [o["fired"] for o in json.loads(out)["outcomes"]] == [True, True], out)
    code, out, _ = world.cli("schedule", "list", "-l", "k=w", "--next-before", "400d")
    c.check("list: by label and next run", code == 0 and "report" in out, out)
    code, out, _ = world.cli("schedule", "list", "-l", "k=x")
    c.check("list: another label", code == 0 and "report" not in out, out)
    code, out, _ = world.cli("schedule", "delete", "report", "--cancel-open-runs")
    c.check("delete --cancel-open-runs", code == 0, out)


FILE = """schedules:
  - name: night
    description: "a: \\"b\\" # c"
    cron:
      - 30 2 * * *
      - "@every 12h/30m"
    exclude: "* * 24-26 12 *"
    time_zone: Europe/Berlin
    dst: skip_repeat
    day_match: and
    start: 2026-01-01T00:00:00+01:00
    end: 2199-01-01
    max_runs: 1000
    missed: all
    catchup_window: 2h
    overlap: buffer_one
    pause_on_failure: true
    spread: 5m
    jitter: 10s
    labels: {team: billing, n: 1}
    job:
      name: night job
      command: [/bin/echo, "a b", ""]
      env: {A: "x\\ny"}
      working_dir: /tmp
      queue: nightly
      labels: {only: job}
      run_timeout: none
      kill_grace: 3s
      output_limit: 64KiB
      max_attempts: 1
  - name: day
    cron: 0 12 * * *
    labels: {team: billing}
    job: {shell: "echo $A | cat"}
"""


def apply(world, path, *args):
    code, out, err = world.cli("schedule", "apply", "-f", path, "-o", "json", *args)
    plan = json.loads(out)["plan"] if out else []
    return code, {s["name"]: s["action"] for s in plan}, plan, err


def test_apply(c, world):
    directory = pathlib.Path(temporary_directory())
    path = str(directory / "f.yaml")
    pathlib.Path(path).write_text(FILE, encoding="utf-8")
    world.cli("schedule", "create", "other", "-c", "@daily", "--", "true")
    world.cli("schedule", "create", "third", "-c", "@daily", "-l", "team=billing", "--", "true")
    code, actions, _, err = apply(world, path, "--dry-run")
    c.check("apply --dry-run: plans", code == 0 and actions == {"night": "create", "day": "create"},
            (actions, err))
    c.equal("apply --dry-run: does nothing", world.cli("schedule", "get", "day")[0], 3)
    code, out, err = world.cli("schedule", "apply", "-f", path)
    c.check("apply: creates", code == 0 and "+ night" in out and "+ day  next run" in out and
            "2 to create, 0 to change, 0 to delete, 0 unchanged" in out, (out, err))
    c.equal("apply again: unchanged", apply(world, path)[1],
            {"night": "unchanged", "day": "unchanged"})
    version = get(world, "night")["version"]
    code, out, err = world.cli("schedule", "export", "night", "day")
    exported = str(directory / "g.yaml")
    pathlib.Path(exported).write_text(out, encoding="utf-8")
    c.check("export: applies as unchanged", apply(world, exported)[1] ==
            {"night": "unchanged", "day": "unchanged"} and get(world, "night")["version"] == version,
            out)
    world.cli("schedule", "delete", "night", "day")
    apply(world, exported)
    code, again, _ = world.cli("schedule", "export", "night", "day")
    c.equal("export, apply, export: the same text", again, out)
    changed = pathlib.Path(path).read_text(encoding="utf-8").replace("0 12 * * *", "0 13 * * *")
    pathlib.Path(path).write_text(changed, encoding="utf-8")
    code, actions, plan, _ = apply(world, path, "--dry-run")
    step = next(s for s in plan if s["name"] == "day")
    c.check("apply: a change moves the next run", actions["day"] == "update" and
            step["changes"] == "cron" and step["next_run_before_ms"] != step["next_run_after_ms"] > 0,
            step)
    code, out, _ = world.cli("schedule", "apply", "-f", path, "--prune", "-l", "team=billing")
    c.check("apply --prune -l: only those with the label", code == 0 and "~ day  cron; next run" in
            out and "- third" in out and "- other" not in out and
            world.cli("schedule", "get", "third")[0] == 3 and
            world.cli("schedule", "get", "other")[0] == 0, out)
    code, out, _ = world.cli("schedule", "apply", "-f", path, "--prune")
    c.check("apply --prune: all others", code == 0 and "- other" in out and
            world.cli("schedule", "get", "other")[0] == 3, out)
    bad = directory / "bad.yaml"
    bad.write_text(changed + "  - {name: x, cron: '61 * * * *', job: {noop: true}}\n",
                   encoding="utf-8")
    code, out, err = world.cli("schedule", "apply", "-f", str(bad))
    c.check("apply: a bad expression is refused before anything is done", code == 2 and
            "column" in err and world.cli("schedule", "get", "x")[0] == 3, (code, err))
    bad.write_text("schedules:\n  - name: x\n    crom: y\n", encoding="utf-8")
    code, _, err = world.cli("schedule", "apply", "-f", str(bad))
    c.check("apply: a mistake has its line", code == 2 and "bad.yaml:3: crom" in err and
            "did you mean cron" in err, err)
    code, out, _ = world.cli("schedule", "apply", "-f", "-", stdin=b"schedules: []\n")
    c.check("apply -f -: nothing to do", code == 0 and "0 to create" in out, out)
    world.cli("schedule", "delete", "night", "day")


CRONTAB = """# /etc/crontab: as Debian has it
SHELL=/bin/sh
PATH=/usr/local/bin:/usr/bin:/bin
CRON_TZ=Europe/Berlin
17 *\t* * *\troot    cd / && echo hourly
25 6 * * *  root    test -x /usr/sbin/anacron || ( cd / && echo daily )
@reboot     root    echo never
WHO=world
MAILTO=ops@example.org
0 0 1 1 *   nobody  cat; echo "50\\% of $WHO"%line one%line two
SHELL=/bin/bash
0 0 1 1 *   nobody  echo $0 $WHO ${WHO^^}; cat%in%
"""


def test_crontab(c, world):
    directory = pathlib.Path(temporary_directory())
    tab = directory / "crontab"
    tab.write_text(CRONTAB, encoding="utf-8")
    code, out, err = world.cli("schedule", "import", str(tab), "--user-column", "--dry-run")
    c.check("import --dry-run", code == 0 and "4 to create" in out and "@reboot" in err and
            "MAILTO" in err and "crontab:7:" in err, (code, out, err))
    code, out, err = world.cli("schedule", "import", str(tab), "--user-column")
    c.check("import", code == 0 and "4 to create" in out, (code, out, err))
    code, out, _ = world.cli("schedule", "import", str(tab), "--user-column")
    c.check("import again: nothing changes", code == 0 and "4 unchanged" in out, out)
    code, out, _ = world.cli("schedule", "list", "-o", "json")
    names = {s["spec"]["name"]: s["spec"] for s in json.loads(out)["schedules"]}
    zones = {s["time_zone"] for s in names.values()}
    c.check("import: zone, policies, user", zones == {"Europe/Berlin"} and all(
        s["overlap"] == "OVERLAP_POLICY_ALLOW" and s["missed"] == "MISSED_POLICY_SKIP" and
        s["labels"]["crontab.user"] in ("root", "nobody") for s in names.values()), names)
    runs = {}
    for name in names:
        code, job, err = world.cli("schedule", "trigger", name)
        runs[name.split("-")[0]] = wait_job(world, job.strip())
    c.check("import: % is standard input, \\% a percent sign, variables",
            runs["cat"] and runs["cat"]["output_text"] == "line one\nline two\n50% of world\n",
            runs["cat"])
    c.check("import: SHELL", runs["echo"] and
            runs["echo"]["output_text"] == "/bin/bash world WORLD\nin\n", runs["echo"])
    code, exported, err = world.cli("schedule", "export", "--crontab", "--user-column")
    c.check("export --crontab", code == 0 and not err and "17 * * * * root cd / && echo hourly\n" in
            exported and "CRON_TZ=Europe/Berlin\n" in exported, (exported, err))
    back = directory / "back"
    back.write_text(exported, encoding="utf-8")
    code, out, err = world.cli("schedule", "import", str(back), "--user-column")
    c.check("export --crontab, import: nothing changes", code == 0 and "4 unchanged" in out,
            (out, err))
    tab.write_text(CRONTAB.replace("17 *\t", "18 *\t"), encoding="utf-8")
    code, out, _ = world.cli("schedule", "import", str(tab), "--user-column", "--dry-run")
    c.check("import: another time is a change of the same schedule", code == 0 and
            "1 to change" in out and "3 unchanged" in out and "  cron; next run" in out, out)
    tab.write_text("* * * * * ok\n61 * * * * bad\n", encoding="utf-8")
    code, out, err = world.cli("schedule", "import", str(tab))
    c.check("import: a bad line refuses the file", code == 2 and "crontab:2:" in err and not out,
            (code, err))
    world.cli("schedule", "delete", *names)


def test_offline_import(c):
    code, out, err = cli("schedule", "import", "-", "--tz", "UTC", "--prefix", "h1-", "--yaml",
                         stdin=b"*/5 * * * * /opt/x.sh\n")
    c.check("import --yaml needs no cluster", code == 0 and "name: h1-x.sh-" in out and
            "shell: /opt/x.sh" in out, (out, err))


def main():
    world = Cluster(3)
    checks.run(test_preview_vectors, test_preview_forms, test_bad_input, test_describe,
               test_offline_import,
               *checks.bind(world, test_life, test_update_and_runs, test_apply, test_crontab),
               on_failure=world.print_logs)


if __name__ == "__main__":
    main()
