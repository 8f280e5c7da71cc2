"""Judges of what clients saw. None of them knows how the cluster works: each is given histories
(history.py), the jobs of the end and the marks that the jobs themselves left.

Each function returns a list of sentences, one for each thing that must not be; empty: all is well.
"""
import bisect
import collections

import rpc

SHOWN = 5


def _few(title, things):
    return [f"{title} ({len(things)}): {things[:SHOWN]}"] if things else []


def sets(ops, jobs):
    """Acknowledged: there, exactly once. Unknown: at most once. Refused: not at all."""
    by_id = {j.id: j for j in jobs}
    outcomes, ids, news = collections.defaultdict(set), collections.defaultdict(set), \
        collections.Counter()
    for o in ops:
        if o.kind == "submit":
            outcomes[o.d["key"]].add(o.outcome)
            if o.outcome == "ok":
                ids[o.d["key"]].add(o.d["job"])
                news[o.d["key"]] += not o.d["existing"]
    names = collections.Counter(j.spec.name for j in jobs if not j.schedule)
    bad = _few("acknowledged jobs are lost", [
        (k, sorted(v)) for k, v in ids.items() if not v <= set(by_id)])
    bad += _few("a key has several jobs", [(k, sorted(v)) for k, v in ids.items() if len(v) > 1])
    bad += _few("several submits of a key say that it was new", [
        k for k, n in news.items() if n > 1])
    bad += _few("a key has several jobs in the list", [k for k, n in names.items() if n > 1])
    bad += _few("jobs that nobody submitted", [k for k in names if k not in outcomes])
    bad += _few("jobs of submits that were refused", [
        k for k in names if outcomes.get(k) == {"fail"}])
    bad += _few("the job of a key is another one than acknowledged", [
        (k, sorted(v)) for k, v in ids.items() if len(v) == 1 and
        (j := by_id.get(next(iter(v)))) and j.spec.name != k])
    return bad


def real_time(ops):
    """Linearizable calls reflect an index that is not below that of any call that ended before they
    began; new submits one that is above. Of stale reads only a session's own is asked (below)."""
    # The index of a submit that found its key is the first submit's.
    timed = [o for o in ops if o.outcome == "ok" and o.d.get("index") and not (
        o.kind == "submit" and o.d["existing"])]
    ends = sorted((o.ended, o.d["index"]) for o in timed)
    times, newest, top = [e for e, _ in ends], [], 0
    for _, index in ends:
        top = max(top, index)
        newest.append(top)
    wrong, twice, seen = [], [], {}
    for o in timed:
        if o.kind == "stale":
            continue
        at = bisect.bisect_left(times, o.begun) - 1
        before = newest[at] if at >= 0 else 0
        if o.d["index"] < before or (o.kind == "submit" and o.d["index"] == before):
            wrong.append((o.kind, o.client, o.node, o.d["index"], "after", before, o.begun))
        if o.kind == "submit":
            if seen.setdefault(o.d["index"], o.d["job"]) != o.d["job"]:
                twice.append((o.d["index"], o.d["job"], seen[o.d["index"]]))
    return _few("calls that went back in time", wrong) + \
        _few("two submits at one index", twice)


def watches(events):
    """Each watcher saw each job's transitions as an unbroken chain, indexes in order, none twice;
    and all watchers the same. Returns (bad, {job: [(index, event)]}, gaps)."""
    bad, folded, gaps = [], [], []
    for name, lines in events.items():
        jobs, last, missed = collections.defaultdict(list), {}, []
        top, broken, order = 0, [], []
        for o in lines:
            if o.kind == "backwards":
                order.append((name, o.d))
                continue
            if o.kind == "gap":
                missed.append((o.d["after"], o.d["index"]))
                top, last = max(top, o.d["index"]), {}
                continue
            e = o.d
            if e["index"] < top:
                order.append((name, e["index"], "after", top))
            top = e["index"]
            before = last.get(e["job"])
            expected = before["to"] if before else (0 if not missed else e["from"])
            if e["from"] != expected or (before and e["index"] <= before["index"]):
                broken.append((name, e["job"], expected, e))
            last[e["job"]] = e
            jobs[e["job"]].append(e)
        bad += _few("a watch's index went back", order) + _few("a chain of transitions is broken",
                                                               broken)
        folded.append((name, jobs, missed))
        gaps += missed
    if len(folded) > 1 and not gaps:
        name, first, _ = folded[0]
        for other, jobs, _ in folded[1:]:
            different = [j for j in first.keys() | jobs.keys() if first.get(j) != jobs.get(j)]
            bad += _few(f"watches {name} and {other} differ", [
                (j, first.get(j, [])[-2:], jobs.get(j, [])[-2:]) for j in different])
    best = max(folded, key=lambda f: sum(map(len, f[1].values())), default=("", {}, []))
    return bad, best[1], gaps


def reads(ops, chains, gaps):
    """What a read of index I shows, stale or not, is what the transitions up to I make of the job;
    and two reads that name the same last change show the same."""
    wrong, unequal, early, shown = [], [], [], {}
    for o in ops:
        if o.kind not in ("get", "stale") or o.outcome != "ok" or o.d.get("missing"):
            continue
        d, index = o.d, o.d["index"]
        what = (d["state"], d["attempt"], d["token"], d["asked"], d["key"])
        if d["changed"] > index:
            early.append((d["job"], d["changed"], index))
        if shown.setdefault((d["job"], d["changed"]), what) != what:
            unequal.append((d["job"], d["changed"], what, shown[(d["job"], d["changed"])]))
        if gaps or d["job"] not in chains:
            continue
        chain = chains[d["job"]]
        at = bisect.bisect_right([e["index"] for e in chain], index) - 1
        if at < 0:
            wrong.append((d["job"], index, "not there yet", what))
            continue
        e = chain[at]
        if (e["index"], e["to"], e["attempt"]) != (d["changed"], d["state"], d["attempt"]) or \
                (d["state"] == rpc.RUNNING and e["token"] != d["token"]) or \
                e["asked"] != d["asked"]:
            wrong.append((o.kind, d["job"], "at", index, "shows", what, d["changed"],
                          "expected", e))
    lost = []
    acknowledged = {}
    for o in ops:
        if o.kind == "submit" and o.outcome == "ok":
            t = acknowledged.get(o.d["job"])
            acknowledged[o.d["job"]] = min(o.ended, t or o.ended)
    for o in ops:
        if o.kind in ("get", "cancel") and o.d.get("missing") and \
                acknowledged.get(o.d["job"], o.begun) < o.begun:
            lost.append((o.kind, o.d["job"], o.node))
    return _few("reads that differ from the transitions", wrong) + \
        _few("reads of one change that differ", unequal) + \
        _few("reads of a change that was still to come", early) + \
        _few("NOT_FOUND of a job that was acknowledged", lost)


def sessions(ops):
    """One client's own view: a job never goes back in linearizable reads, whatever node is asked,
    and its own cancel is seen by its later ones."""
    back, cancel = [], []
    newest, asked = {}, {}
    for o in sorted(ops, key=lambda o: o.begun):
        if o.outcome != "ok" or o.d.get("missing"):
            continue
        if o.kind == "cancel" and not o.d.get("ended"):
            asked[(o.client, o.d["job"])] = o.ended
        if o.kind != "get":
            continue
        key = (o.client, o.d["job"])
        if o.d["changed"] < newest.get(key, 0):
            back.append((key, o.d["changed"], newest[key], o.node))
        newest[key] = max(newest.get(key, 0), o.d["changed"])
        # Cancelled, or asked to stop, or ended by itself before it heard of it.
        if asked.get(key, o.begun) < o.begun and o.d["state"] not in rpc.TERMINAL and \
                not o.d["asked"]:
            cancel.append((key, o.d["state"], o.node))
    return _few("a session's reads went back", back) + \
        _few("a session does not see its own cancel", cancel)


def read_marks(path):
    """[(kind, job, attempt, token, uptime)] in the order in which they were made"""
    try:
        with open(path, encoding="ascii") as f:
            lines = [line.split() for line in f]
    except OSError:
        return []
    # One that was killed in the middle of its line leaves half of it.
    return [(k[0], k[1], int(k[2]), int(k[3]), float(k[4])) for k in lines if len(k) == 5]


def marks(lines, jobs, once, excused):
    """Side effects. At most one live attempt of a job at a time, tokens grow, none begins twice,
    what may run once began once, what counts as completed did complete.

    excused: [(from, until)] uptimes at which a process could not be ended by its worker, because
    that was stopped alone; what an older attempt did then is not held against it."""
    begun, ended, newest = collections.defaultdict(list), set(), {}
    both = []
    for kind, job, attempt, token, uptime in lines:
        if kind == "b":
            begun[job].append((attempt, token))
        if kind == "e":
            ended.add((job, attempt, token))
        if token < newest.get(job, 0) and not any(a <= uptime <= b for a, b in excused):
            both.append((job, attempt, token, newest[job], uptime))
        newest[job] = max(newest.get(job, 0), token)
    completed = {j.id: (j.attempt, j.fencing_token) for j in jobs
                 if j.state == rpc.COMPLETED and j.spec.shell and not j.schedule}
    return _few("an attempt lived beside a newer one", both) + \
        _few("an attempt began twice", [
            (j, v) for j, v in begun.items() if len(set(v)) < len(v)]) + \
        _few("tokens do not grow with attempts", [
            (j, v) for j, v in begun.items()
            if [t for _, t in sorted(v)] != sorted({t for _, t in v})]) + \
        _few("jobs that may be tried once began twice", [
            (j, begun[j]) for j in once if len(begun.get(j, [])) > 1]) + \
        _few("completed without having completed", [
            (j, v) for j, v in completed.items() if (j, *v) not in ended])


def ends(jobs, ops):
    """All jobs ended, and none in a way that nobody asked for."""
    asked = {o.d["job"] for o in ops if o.kind == "cancel"}
    return _few("jobs that have not ended", [
        (j.id, j.state, j.attempt) for j in jobs if j.state not in rpc.TERMINAL]) + \
        _few("jobs that failed for no reason", [
            (j.id, j.failure_reason, j.failure_message) for j in jobs if j.state == rpc.FAILED and
            not (j.spec.max_attempts == 1 and
                 j.failure_reason == rpc.job_pb.FAILURE_REASON_WORKER_LOST)]) + \
        _few("jobs cancelled that nobody cancelled", [
            j.id for j in jobs if j.state == rpc.CANCELLED and not j.schedule and
            j.id not in asked]) + \
        _few("more attempts than allowed", [
            (j.id, j.attempt) for j in jobs if j.attempt > j.spec.max_attempts > 1])
