#!/usr/bin/python3
"""The schedule service, spoken to by a client that is not ours.

Goal: every method of ScheduleService does what its .proto says, from any node; bad input is refused
with the field's name; an edit is bound to a version; runs happen, once for each tick, with the
schedule in their environment, and the history tells the same as the jobs; overlap policies reach
the processes. Method: three nodes, messages compiled by protoc, times that are far away or a second
apart; everything is waited for with a deadline.
"""
import calendar
import os
import pathlib
import shutil
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))

import grpc  # noqa: E402

import checks  # noqa: E402
import cluster  # noqa: E402
import rpc  # noqa: E402
from cluster import Cluster  # noqa: E402

S = rpc.schedule_pb
YEARLY = "0 0 1 1 *"  # does not come to pass while the test runs, most of the time


def utc(*fields):
    return calendar.timegm((*fields, 0, 0, 0)[:6] + (0, 0, 0)) * 1000


def spec(name, cron=(YEARLY,), job=None, **fields):
    return S.ScheduleSpec(name=name, cron=cron, job=job or rpc.noop(), **fields)


class Api:
    """The methods by short names, each call at another node."""

    def __init__(self, world):
        self.world = world
        self.turn = 0

    def __call__(self, method, response=None, /, **fields):
        self.turn += 1
        node = self.world.nodes[self.turn % len(self.world.nodes)]
        return node.client.schedule(method, response=response, **fields)

    def create(self, s, **fields):
        return self("CreateSchedule", "ScheduleResponse", spec=s, **fields).schedule

    def update(self, s, version=0):
        return self("UpdateSchedule", "ScheduleResponse", spec=s, version=version).schedule

    def get(self, name, **fields):
        return self("GetSchedule", "ScheduleResponse", name=name, **fields).schedule

    def pause(self, name, **fields):
        return self("PauseSchedule", name=name, **fields)

    def resume(self, name):
        return self("ResumeSchedule", "PauseScheduleResponse", name=name)

    def delete(self, name, **fields):
        return self("DeleteSchedule", name=name, **fields)

    def trigger(self, name, **fields):
        return self("TriggerSchedule", name=name, **fields).outcome

    def ticks(self, name, **fields):
        return self("ListTicks", name=name, **fields)

    def explain(self, **fields):
        return self("Explain", **fields).text


def refused(c, name, code, text, call):
    try:
        answer = call()
    except grpc.RpcError as e:
        c.check(f"{name}: {code}, {text!r}", rpc.code_of(e) == code and text in e.details(),
                f"{rpc.code_of(e)}: {e.details()}")
        return
    c.check(f"{name}: is refused", False, answer)


def test_create_and_read(c, w):
    api = Api(w)
    made = api.create(spec("first", description="two\nlines", labels={"team": "db"},
                           time_zone="Europe/Berlin"))
    c.check("a version, generation 1", made.version > 0 and made.generation == 1, made)
    c.equal("defaults are filled in",
            (made.spec.catchup_window_ms, made.spec.job.queue, made.spec.job.max_attempts),
            (3600000, "default", 3))
    c.check("the next run is the next new year in Berlin",
            time.gmtime(made.next_run_ms // 1000)[1:6] == (12, 31, 23, 0, 0), made.next_run_ms)
    c.equal("nothing happened yet", (made.fired, made.skipped, made.HasField("last_tick")),
            (0, 0, False))
    for n in w.nodes:
        got = n.client.schedule("GetSchedule", response="ScheduleResponse", name="first").schedule
        c.equal(f"node {n.id} says the same", got, made)
    refused(c, "a name that exists", "ALREADY_EXISTS", "spec.name", lambda: api.create(spec("first")))
    refused(c, "an unknown name", "NOT_FOUND", "no schedule nothing", lambda: api.get("nothing"))
    refused(c, "a bad name", "INVALID_ARGUMENT", "name: must consist of", lambda: api.get("a b"))
    one = api.create(spec("keyed"), idempotency_key="k1")
    c.equal("the same key again gives the same", api.create(spec("keyed"), idempotency_key="k1"), one)
    refused(c, "the key with another request", "ALREADY_EXISTS", "idempotency_key",
            lambda: api.create(spec("keyed2"), idempotency_key="k1"))
    paused = api.create(spec("begins-paused"), paused=True)
    c.check("may begin paused", paused.paused and paused.next_run_ms == 0 and
            paused.next_tick_ms > 0, paused)


BAD = [
    ("spec.name", "is missing", {"name": ""}),
    ("spec.name", "must consist of", {"name": "a\nb"}),
    ("spec.name", "at most 128", {"name": "n" * 129}),
    ("spec.cron", "must have 1 to 16", {"cron": []}),
    ("spec.cron[0]", "column 1", {"cron": ["60 * * * *"]}),
    ("spec.cron[1]", "column 9", {"cron": [YEARLY, "0 0 1 1 fryday"]}),
    ("spec.cron[0]", "", {"cron": ["0 0 30 2 *"]}),
    ("spec.cron[0]", "", {"cron": ["*" * 1000000]}),
    ("spec.cron[0]", "column", {"cron": ["0 0 1 1 \x01"]}),
    ("spec.cron", "no instant is left", {"cron": ["@at 2001-01-01T00:00:00Z"]}),
    ("spec.cron[1]", "stands alone", {"cron": [YEARLY, "@manual"]}),
    ("spec.exclude[0]", "column", {"exclude": ["x"]}),
    ("spec.time_zone", "Mars/Olympus", {"time_zone": "Mars/Olympus"}),
    ("spec.time_zone", "must be the name", {"time_zone": "../etc/passwd"}),
    ("spec.dst", "must be ONCE", {"dst": 7}),
    ("spec.day_match", "must be OR", {"day_match": 7}),
    ("spec.missed", "must be ONCE", {"missed": 7}),
    ("spec.overlap", "must be SKIP", {"overlap": 7}),
    ("spec.end_ms", "after start_ms", {"start_ms": utc(2030, 1, 2), "end_ms": utc(2030, 1, 1)}),
    ("spec.end_ms", "has passed", {"end_ms": utc(2001, 1, 1)}),
    ("spec.start_ms", "1970 to 2199", {"start_ms": -5}),
    ("spec.catchup_window_ms", "366 days", {"catchup_window_ms": 10 ** 15}),
    ("spec.jitter_ms", "smallest interval", {"cron": ["@every 10s"], "jitter_ms": 10000}),
    ("spec.spread_ms", "366 days", {"spread_ms": -1}),
    ("spec.labels", "the key must be", {"labels": {"": "x"}}),
    ("spec.description", "control characters", {"description": "\x07"}),
    ("spec.job.shell", "must not be empty", {"job": rpc.shell(" ")}),
    ("spec.job.env", "reserved", {"job": rpc.noop(env={"CHRONOS_X": "1"})}),
]


def test_bad_input(c, w):
    api = Api(w)
    for field, text, change in BAD:
        s = spec("bad")
        for k, v in change.items():
            s.ClearField(k)
            if isinstance(v, dict):
                getattr(s, k).update(v)
            elif isinstance(v, list):
                getattr(s, k).extend(v)
            elif isinstance(v, rpc.job_pb.JobSpec):
                s.job.CopyFrom(v)
            else:
                setattr(s, k, v)
        for call in (api.create, api.update) if "no instant" not in text and \
                "passed" not in text else (api.create,):
            refused(c, f"{call.__name__} {field}", "INVALID_ARGUMENT", field, lambda: call(s))
            refused(c, f"{call.__name__} {field}", "INVALID_ARGUMENT", text, lambda: call(s))
    s = spec("bad")
    s.ClearField("job")
    refused(c, "no job", "INVALID_ARGUMENT", "spec.job: is missing", lambda: api.create(s))
    refused(c, "no spec", "INVALID_ARGUMENT", "spec: is missing", lambda: api.create(None))
    refused(c, "nothing of it is there", "NOT_FOUND", "", lambda: api.get("bad"))
    refused(c, "a pause that is over", "INVALID_ARGUMENT", "until_ms",
            lambda: api.pause("x", until_ms=1))
    refused(c, "an endless reason", "INVALID_ARGUMENT", "reason",
            lambda: api.pause("x", reason="r" * 300))
    refused(c, "both name and spec", "INVALID_ARGUMENT", "one of name and spec",
            lambda: api("PreviewSchedule", name="x", spec=s))
    refused(c, "too many instants", "INVALID_ARGUMENT", "count",
            lambda: api("PreviewSchedule", name="x", count=1001))
    refused(c, "a page too large", "INVALID_ARGUMENT", "page_size",
            lambda: api("ListSchedules", page_size=1001))
    refused(c, "a page token of somebody else", "INVALID_ARGUMENT", "page_token",
            lambda: api("ListSchedules", page_token="zz"))
    refused(c, "neither job nor schedule", "INVALID_ARGUMENT", "one of job_id and schedule",
            lambda: api.explain())
    for name in ("PauseSchedule", "TriggerSchedule", "DeleteSchedule", "ListTicks"):
        refused(c, f"{name} of nothing", "NOT_FOUND", "name", lambda: api(name, name="nothing"))


def test_update(c, w):
    api = Api(w)
    first = api.create(spec("edited", cron=["0 0 1 1 *"]))
    s = spec("edited", cron=["0 0 1 1 *"], description="new words")
    second = api.update(s, version=first.version)
    c.equal("an edit of words is no new generation", (second.version, second.generation),
            (first.version + 1, first.generation))
    refused(c, "an edit of the old version", "ABORTED", f"at version {second.version}, not {first.version}",
            lambda: api.update(s, version=first.version))
    s.cron[0] = "0 0 2 1 *"
    third = api.update(s)
    c.equal("an edit of the ticks is", third.generation, first.generation + 1)
    c.check("without a version any is replaced", third.version == second.version + 1)
    s.jitter_ms = 1000
    c.equal("so is one of the jitter", api.update(s).generation, third.generation + 1)
    s.cron[0] = "  0   0 2 JAN * "
    c.equal("the same ticks in other words are not", api.update(s).generation, third.generation + 1)
    s.job.CopyFrom(rpc.shell("true"))
    last = api.update(s)
    c.check("the job is replaced", last.spec.job.shell == "true" and last.fired == 0)
    refused(c, "an update of nothing", "NOT_FOUND", "no schedule", lambda: api.update(spec("no")))
    refused(c, "a delete of an old version", "ABORTED", "version",
            lambda: api.delete("edited", version=first.version))
    api.delete("edited", version=last.version)
    refused(c, "deleted", "NOT_FOUND", "", lambda: api.get("edited"))
    again = api.create(spec("edited"))
    c.check("the name may be used again, with a version of its own",
            again.version > last.version and again.fired == 0, again)


def test_updates_at_once(c, w):
    """Without a version none is refused and each counts; of those with one version, one wins."""
    api = Api(w)
    version = api.create(spec("busy")).version
    refusals = []

    def replace(i, with_version):
        try:
            w.nodes[i % 3].client.schedule(
                "UpdateSchedule", response="ScheduleResponse", timeout=30,
                spec=spec("busy", cron=[f"{i} 0 1 1 *"]), version=with_version)
        except grpc.RpcError as e:
            refusals.append(rpc.code_of(e))

    def at_once(with_version):
        threads = [threading.Thread(target=replace, args=(i, with_version)) for i in range(30)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()

    at_once(0)
    s = api.get("busy")
    c.equal("thirty at once: all are done, one after the other", (s.version, refusals),
            (version + 30, []))
    at_once(s.version)
    c.equal("thirty of one version: one is done", (api.get("busy").version, refusals),
            (s.version + 1, ["ABORTED"] * 29))


def test_lists(c, w):
    api = Api(w)
    for i in range(25):
        api.create(spec(f"list-{i:02}", labels={"even": str(i % 2 == 0), "all": "yes"},
                        cron=[YEARLY if i < 20 else "@manual"]))
    names, token, pages = [], "", 0
    while True:
        page = api("ListSchedules", name_prefix="list-", page_size=7, page_token=token)
        names += [s.spec.name for s in page.schedules]
        pages += 1
        token = page.next_page_token
        if not token:
            break
    c.equal("pages, in order, all of them", (names, pages),
            ([f"list-{i:02}" for i in range(25)], 4))
    page = api("ListSchedules", name_prefix="list-", page_size=7)
    refused(c, "a token with other filters", "INVALID_ARGUMENT", "other filters",
            lambda: api("ListSchedules", page_token=page.next_page_token))
    c.equal("by labels, all of which must match", len(api(
        "ListSchedules", labels={"even": "True", "all": "yes"}).schedules), 13)
    api.pause("list-03", reason="why not")
    c.equal("only paused", [s.spec.name for s in api(
        "ListSchedules", name_prefix="list-", only_paused=True).schedules], ["list-03"])
    c.equal("by the next run: neither paused nor manual ones", len(api(
        "ListSchedules", name_prefix="list-", next_before_ms=utc(2190, 1, 1)).schedules), 19)
    c.equal("none is due before tomorrow's first second in 1970", len(api(
        "ListSchedules", next_before_ms=86400000).schedules), 0)
    c.equal("none has an alarm", len(api("ListSchedules", only_alarmed=True).schedules), 0)


def test_pause(c, w):
    api = Api(w)
    api.create(spec("held", cron=["@every 1s"]))
    c.check("paused", api.pause("held", reason="a reason").changed)
    c.check("paused already", not api.pause("held", reason="a reason").changed)
    s = api.get("held")
    c.equal("as it stands", (s.paused, s.pause_reason, s.next_run_ms), (True, "a reason", 0))
    c.check("explained", "paused: a reason" in api.explain(schedule="held"),
            api.explain(schedule="held"))
    skipped = checks.wait_for(lambda: api.get("held").skipped, 10)
    line = api.ticks("held", only_missed=True).ticks[0]
    c.check("its ticks are recorded as skipped", skipped and not line.fired and
            line.reason == S.TICK_REASON_PAUSED, line)
    fired = api.get("held").fired
    outcome = api.trigger("held")
    c.check("what somebody asks for runs all the same",
            outcome.fired and outcome.reason == S.TICK_REASON_TRIGGER, outcome)
    c.equal("only that", api.get("held").fired, fired + 1)
    c.check("resumed", api.resume("held").changed)
    c.check("it goes on", checks.wait_for(lambda: api.get("held").fired > fired + 2, 10))
    c.check("all are paused", api.pause("", reason="maintenance").changed)
    s = api.get("held")
    c.check("and say so", s.paused and "all schedules are paused: maintenance" in s.pause_reason, s)
    c.check("all resumed", api.resume("").changed and not api.get("held").paused)
    until = int(time.time() * 1000) + 3600 * 1000
    api.pause("held", until_ms=until)
    s = api.get("held")
    c.check("paused until: the next run is after it", s.paused_until_ms == until and
            until <= s.next_run_ms <= until + 2000, s)
    api.delete("held")


def test_trigger_and_why(c, w):
    api = Api(w)
    api.create(spec("slow", cron=["@manual"], job=rpc.shell("sleep 60")))
    c.check("manual only", "only when it is triggered" in api.explain(schedule="slow"),
            api.explain(schedule="slow"))
    first = api.trigger("slow", idempotency_key="once")
    c.equal("the same key again is the same run", api.trigger("slow", idempotency_key="once"), first)
    refused(c, "the key with another request", "ALREADY_EXISTS", "idempotency_key",
            lambda: api.trigger("slow", idempotency_key="once", ignore_overlap=True))
    job = w.nodes[0].client.get(first.job_id)
    c.check("the job knows whose run it is", job.schedule == "slow" and
            job.tick_ms == first.tick_ms, job)
    c.equal("found by its schedule", [j.id for j in w.nodes[1].client.list(schedule="slow")],
            [first.job_id])
    second = api.trigger("slow")
    c.check("overlap is honoured", not second.fired and second.job_id == first.job_id and
            second.reason == S.TICK_REASON_OVERLAP, second)
    text = api.explain(schedule="slow")
    c.check("explained", f"run {first.job_id} is still open since 20" in text and
            f"was skipped because run {first.job_id} was still open" in text, text)
    beside = api.trigger("slow", ignore_overlap=True)
    c.check("unless told not to", beside.fired and beside.job_id != first.job_id, beside)
    c.equal("two are open", list(api.get("slow").open_job_ids), [first.job_id, beside.job_id])
    text = api.explain(job_id=first.job_id)
    c.check("a job explained", text.startswith(f"{first.job_id} is ") and
            "a run of schedule slow" in text, text)
    failed = w.nodes[0].client.submit(rpc.shell("exit 3")).job_id
    checks.wait_for(lambda: w.nodes[0].client.get(failed).state == rpc.FAILED, 20)
    text = api.explain(job_id=failed)
    c.check("a failed job explained", text.startswith(
        f"{failed} failed: its command ended with exit code 3; it ended at 20"), text)
    api.delete("slow", cancel_open_runs=True)
    c.check("its runs are cancelled with it", checks.wait_for(
        lambda: all(w.nodes[0].client.get(j).state == rpc.CANCELLED
                    for j in (first.job_id, beside.job_id)), 20))


def test_backfill(c, w):
    api = Api(w)
    api.create(spec("fill", cron=["0 12 * * *"], time_zone="America/New_York",
                    overlap=S.OVERLAP_POLICY_ALLOW))
    where = {"name": "fill", "from_ms": utc(2026, 3, 6), "until_ms": utc(2026, 3, 10)}
    dry = api("BackfillSchedule", dry_run=True, **where)
    c.equal("a dry run only counts", (dry.ticks, dry.index, api.get("fill").fired), (4, 0, 0))
    done = api("BackfillSchedule", **where)
    c.equal("noon in New York, across the change", [o.tick_ms for o in done.outcomes],
            [utc(2026, 3, 6, 17), utc(2026, 3, 7, 17), utc(2026, 3, 8, 16), utc(2026, 3, 9, 16)])
    c.check("each became a job", len({o.job_id for o in done.outcomes if o.fired}) == 4, done)
    c.check("the last one's tick is nominal", w.nodes[0].client.get(
        done.outcomes[3].job_id).tick_ms == utc(2026, 3, 9, 16))
    c.equal("from is inclusive, until exclusive", api(
        "BackfillSchedule", name="fill", dry_run=True, from_ms=utc(2026, 3, 6, 17),
        until_ms=utc(2026, 3, 7, 17)).ticks, 1)
    c.equal("an empty range", api("BackfillSchedule", name="fill", from_ms=1000,
                                  until_ms=2000).ticks, 0)
    for text, change in (("from_ms", {"from_ms": 0}), ("until_ms: must be after", {"until_ms": 1}),
                         ("future", {"until_ms": utc(2190, 1, 1)}),
                         ("more than 1000 ticks", {"from_ms": utc(2000, 1, 1)})):
        refused(c, "backfill", "INVALID_ARGUMENT", text,
                lambda: api("BackfillSchedule", **{**where, **change}))
    page = api.ticks("fill", page_size=3)
    rest = api.ticks("fill", page_size=3, page_token=page.next_page_token)
    c.equal("the history, newest first, in pages", [t.tick_ms for t in (*page.ticks, *rest.ticks)],
            [o.tick_ms for o in reversed(done.outcomes)])
    refused(c, "a page of another filter", "INVALID_ARGUMENT", "page_token", lambda: api.ticks(
        "fill", only_missed=True, page_token=page.next_page_token))
    c.equal("none was missed", len(api.ticks("fill", only_missed=True).ticks), 0)


def test_preview(c, w):
    api = Api(w)
    gap = api("PreviewSchedule", count=3, from_ms=utc(2026, 3, 7), spec=S.ScheduleSpec(
        cron=["30 2 * * *"], time_zone="America/New_York"))
    c.equal("a gap", [(i.tick_ms, i.local, i.note) for i in gap.instants],
            [(utc(2026, 3, 7, 7, 30), "2026-03-07T02:30:00-05:00 EST", ""),
             (utc(2026, 3, 8, 7), "2026-03-08T03:00:00-04:00 EDT", "moved by a clock change"),
             (utc(2026, 3, 9, 6, 30), "2026-03-09T02:30:00-04:00 EDT", "")])
    c.check("in English", "02:30" in gap.description and "America/New_York" in gap.description,
            gap.description)
    api.create(spec("seen", cron=["30 1 * * *"], time_zone="America/New_York"))
    twice = api("PreviewSchedule", name="seen", count=2, from_ms=utc(2026, 11, 1))
    c.equal("a repeated hour", [(i.tick_ms, i.fires, i.note) for i in twice.instants],
            [(utc(2026, 11, 1, 5, 30), True, ""),
             (utc(2026, 11, 1, 6, 30), False, "suppressed: repeated hour"),
             (utc(2026, 11, 2, 6, 30), True, "")])
    c.equal("ten unless asked otherwise", len(api("PreviewSchedule", spec=S.ScheduleSpec(
        cron=["@every 7s"])).instants), 10)
    c.equal("a thousand at most", len(api("PreviewSchedule", count=1000, spec=S.ScheduleSpec(
        cron=["* * * * * *"], exclude=["* 8-17 * * *"])).instants), 1000)
    begun = time.monotonic()
    none = api("PreviewSchedule", count=1000, spec=S.ScheduleSpec(cron=["* * * * * *"],
                                                                  exclude=["* * * * *"]))
    c.check("what excludes itself ends soon, with nothing", len(none.instants) == 0 and
            time.monotonic() - begun < 3, time.monotonic() - begun)
    refused(c, "bad input", "INVALID_ARGUMENT", "spec.cron[0]: column 1",
            lambda: api("PreviewSchedule", spec=S.ScheduleSpec(cron=["x * * * *"])))


def test_runs(c, w):
    """Ticks become runs, once each; what the run sees is what the history says."""
    api = Api(w)
    api.create(spec("every", cron=["@every 1s"], job=rpc.shell(
        "echo $CHRONOS_SCHEDULE_ID $CHRONOS_SCHEDULED_AT $CHRONOS_STARTED_AT"), max_runs=5,
        overlap=S.OVERLAP_POLICY_ALLOW))
    c.require("five runs, then it is finished", checks.wait_for(
        lambda: api.get("every").finished, 30))
    s = api.get("every")
    c.equal("fired and left", (s.fired, s.remaining_runs, s.next_run_ms), (5, 0, 0))
    lines = [t for t in api.ticks("every").ticks if t.fired]
    c.equal("five different ticks", len({t.tick_ms for t in lines}), 5)
    client = w.nodes[0].client
    for t in lines:
        job = checks.wait_for(lambda: (j := client.get(t.job_id)).state == rpc.COMPLETED and j, 20)
        if not c.check(f"the run of {t.tick_ms} ends well", job):
            continue
        name, at, started = job.output_tail.decode().split()
        c.equal("its environment", (name, at), ("every", time.strftime(
            "%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(t.tick_ms // 1000))))
        begun = calendar.timegm(time.strptime(started[:19], "%Y-%m-%dT%H:%M:%S")) * 1000
        c.check("its start is not before its tick", t.tick_ms <= begun <= t.tick_ms + 20000, started)
    c.check("explained", "finished: all of its 5 runs" in api.explain(schedule="every"),
            api.explain(schedule="every"))


def test_more_runs(c, w):
    """More runs for a schedule that had used up its own: none for the ticks in between."""
    api = Api(w)
    s = spec("more", cron=["* * * * * *"], max_runs=2, missed=S.MISSED_POLICY_ALL,
             overlap=S.OVERLAP_POLICY_ALLOW)
    api.create(s)
    c.require("its runs are used up", checks.wait_for(lambda: api.get("more").finished, 30))
    last = max(t.tick_ms for t in api.ticks("more").ticks if t.fired)
    c.require("some ticks later", checks.wait_for(lambda: time.time() * 1000 > last + 5000, 20))
    edited = int(time.time()) * 1000
    s.max_runs = 4
    made = api.update(s)
    c.equal("another generation, two runs left", (made.generation, made.remaining_runs), (2, 2))
    c.require("they run", checks.wait_for(lambda: api.get("more").fired == 4, 30))
    fired = [t for t in api.ticks("more").ticks if t.fired and t.generation == 2]
    c.check("and were due after the edit", len(fired) == 2 and
            all(t.tick_ms >= edited for t in fired), (edited, fired))


def share(name, spread_ms):
    """Of the spread: FNV-1a of the name, mixed."""
    mask = (1 << 64) - 1
    h = 14695981039346656037
    for b in name.encode():
        h = (h ^ b) * 1099511628211 & mask
    h ^= h >> 33
    h = h * 0xff51afd7ed558ccd & mask
    h ^= h >> 33
    h = h * 0xc4ceb9fe1a85ec53 & mask
    return (h ^ h >> 33) % spread_ms


def test_pending_edit(c, w):
    """A run that waits for its share of the spread when the schedule is edited: it comes when the
    new definition has its tick as well, else the history says what became of it."""
    api = Api(w)
    name = next(n for n in (f"spread-{i}" for i in range(1000)) if 6000 <= share(n, 9000) < 8000)
    s = spec(name, cron=["*/10 * * * * *"], spread_ms=9000, overlap=S.OVERLAP_POLICY_ALLOW)

    def pending(after_ms):
        """The tick after @after_ms that waits now, when it does so for 2 to 5 s more."""
        now = int(time.time() * 1000)
        tick = now // 10000 * 10000
        return tick > after_ms and 2000 <= tick + share(name, 9000) - now <= 5000 and tick

    created = api.create(s).created_at_ms
    kept = checks.wait_for(lambda: pending(created), 30)
    c.require("a tick waits", kept)
    s.jitter_ms = 500
    c.equal("an edit in between", api.update(s).generation, 2)
    got = checks.wait_for(lambda: [t for t in api.ticks(name).ticks if t.tick_ms == kept], 15)
    c.check("it ran, of the new generation", len(got) == 1 and got[0].fired and
            got[0].generation == 2 and got[0].reason == S.TICK_REASON_ON_TIME, got)
    dropped = checks.wait_for(lambda: pending(kept), 20)
    c.require("the next one waits", dropped)
    s.cron[0] = "5 0 0 1 1 *"
    c.equal("an edit to other ticks", api.update(s).generation, 3)
    lines = list(api.ticks(name).ticks)
    c.check("it is recorded, of the old generation", [
        (t.fired, t.reason, t.generation, t.count) for t in lines if t.tick_ms == dropped
    ] == [(False, S.TICK_REASON_DELETED, 2, 1)], lines)
    c.equal("each tick has one outcome", sorted(
        t.tick_ms + i * 10000 for t in lines for i in range(t.count)),
        list(range(min(t.tick_ms for t in lines), dropped + 1, 10000)))


def test_overlap_kills(c, w):
    """terminate_other kills at once what would have an hour of grace; cancel_other asks."""
    api = Api(w)
    stubborn = rpc.shell("trap '' TERM; while :; do sleep 0.1; done", kill_grace_ms=3600 * 1000)
    client = w.nodes[0].client
    api.create(spec("killer", cron=["@manual"], job=stubborn,
                    overlap=S.OVERLAP_POLICY_TERMINATE_OTHER))
    first = api.trigger("killer")
    c.require("it runs", checks.wait_for(
        lambda: client.get(first.job_id).state == rpc.RUNNING, 20))
    second = api.trigger("killer")
    c.check("the new one starts at once", second.fired and not second.waiting, second)
    c.check("the old one is killed in spite of its grace", checks.wait_for(
        lambda: client.get(first.job_id).state == rpc.CANCELLED, 20), client.get(first.job_id))
    polite = rpc.shell("trap 'exit 0' TERM; while :; do sleep 0.1; done")
    api.create(spec("asker", cron=["@manual"], job=polite, overlap=S.OVERLAP_POLICY_CANCEL_OTHER))
    first = api.trigger("asker")
    c.require("it runs", checks.wait_for(
        lambda: client.get(first.job_id).state == rpc.RUNNING, 20))
    waits = api.trigger("asker")
    c.check("the new one waits for the old one", waits.waiting and waits.job_id == first.job_id,
            waits)
    c.check("and starts when it has ended", checks.wait_for(
        lambda: client.get(first.job_id).state == rpc.CANCELLED and
        [j for j in api.get("asker").open_job_ids if j != first.job_id], 20))
    for name in ("killer", "asker"):
        api.delete(name, cancel_open_runs=True)


def test_stays(c, w):
    """Everything is in the replicated state: a new leader and restarted nodes know it."""
    api = Api(w)
    before = {s.spec.name: (s.version, s.generation, s.fired) for s in api("ListSchedules").schedules}
    leader = w.leader()
    leader.kill()
    c.require("another leads", w.leader(10, other_than=leader))
    node = next(n for n in w.live())
    after = {s.spec.name: (s.version, s.generation, s.fired) for s in node.client.schedule(
        "ListSchedules", timeout=20).schedules}
    c.equal("the same schedules", after, before)
    leader.start()
    c.require("all three again", w.wait_ready())
    ok, text = w.digests_equal()
    c.check("equal digests", ok, text)


def test_lost_zone(c):
    """A zone whose file is gone is an alarm on its schedules and nothing more; an edit heals it."""
    zones = pathlib.Path(cluster.temporary_directory())
    shutil.copy("/usr/share/zoneinfo/Europe/Berlin", zones / "Lost")
    os.environ["CHRONOS_TZDIR"] = str(zones)
    w = Cluster(1)
    api = Api(w)
    for name, zone in (("lost", "Lost"), ("fine", "UTC")):
        api.create(spec(name, cron=["@every 1s", "* * * * * *"], time_zone=zone,
                        overlap=S.OVERLAP_POLICY_ALLOW))
    c.check("both fire", checks.wait_for(lambda: api.get("lost").fired and api.get("fine").fired, 10))
    (zones / "Lost").unlink()
    w.nodes[0].kill()
    w.nodes[0].start()
    c.require("restarted", w.wait_ready())
    c.check("an alarm", checks.wait_for(lambda: "Lost" in api.get("lost").alarm, 10))
    s = api.get("lost")
    c.equal("that it does not fire", (s.next_run_ms, s.finished), (0, False))
    c.equal("is found by it", [x.spec.name for x in api("ListSchedules", only_alarmed=True).schedules],
            ["lost"])
    text = api.explain(schedule="lost")
    c.check("explained", "it does not fire: time zone Lost" in text, text)
    refused(c, "preview", "FAILED_PRECONDITION", "time zone Lost",
            lambda: api("PreviewSchedule", name="lost"))
    refused(c, "backfill", "FAILED_PRECONDITION", "time zone Lost",
            lambda: api("BackfillSchedule", name="lost", from_ms=1000, until_ms=2000))
    c.check("by hand it runs", api.trigger("lost").fired)
    fired = api.get("fine").fired
    c.check("the other goes on", checks.wait_for(lambda: api.get("fine").fired > fired, 10))
    s.spec.time_zone = "UTC"
    c.equal("another zone is a new generation", api.update(s.spec).generation, s.generation + 1)
    c.check("healed", checks.wait_for(lambda: (x := api.get("lost")).alarm == "" and
                                      x.fired > s.fired + 1, 10), api.get("lost"))
    w.stop()
    del os.environ["CHRONOS_TZDIR"]


def main():
    world = Cluster(3)
    checks.run(*checks.bind(world, test_create_and_read, test_bad_input, test_update,
                            test_updates_at_once, test_lists, test_pause, test_trigger_and_why,
                            test_backfill, test_preview, test_runs, test_more_runs,
                            test_pending_edit, test_overlap_kills, test_stays),
               test_lost_zone,
               on_failure=world.print_logs)


if __name__ == "__main__":
    main()
