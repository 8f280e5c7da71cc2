"""Is there an order of the calls on one job that a single machine could have made?

The search of Wing and Gong with Lowe's memory of what was tried. Calls are split by idempotency
key: jobs do not influence each other. A call whose outcome is unknown may have happened at any time
after it began, or never. The job itself moves on between calls (it is assigned, ends ...), so a
read is legal when it shows a change that is not older than any seen before it in the order.
"""
import collections
import itertools
import time

INFINITY = 1 << 62
SHOWN = 3
# begun and ended in ns; kind: submit get cancel; new: submit made the job; change: index of the
# last change that a read shows, in which a cancel was asked for or not
Call = collections.namedtuple("Call", "kind begun ended unknown job new change cancelled")
START = (None, 0, False)  # job, last change seen, a cancel was asked for


def step(state, call):
    """The state after the call, or None when it cannot have had this answer."""
    job, change, cancelled = state
    if call.kind == "submit":
        if job is None:
            # Also one that says it found the job: a node whose leader was lost proposes a call with
            # a key again, and then finds what the same call made.
            return (call.job, change, cancelled)
        if call.unknown:
            return state
        return state if not call.new and call.job == job else None
    if job is None:
        return None if not call.unknown else state
    if call.kind == "cancel":
        return (job, change, True)
    if call.change < change or (cancelled and not call.cancelled):
        return None
    return (job, call.change, cancelled)


def linearizable(calls, deadline=None):
    """True or False; TimeoutError when the search takes too long, which is no answer."""
    calls = sorted(calls, key=lambda c: c.begun)
    known = sum(1 << i for i, c in enumerate(calls) if not c.unknown)
    seen, stack = set(), [(0, START)]
    steps = 0
    while stack:
        done, state = stack.pop()
        if done & known == known:
            return True
        if (done, state) in seen:
            continue
        seen.add((done, state))
        steps += 1
        if deadline and steps % 256 == 0 and time.monotonic() > deadline:
            raise TimeoutError
        first_end = min((c.ended for i, c in enumerate(calls)
                         if not done >> i & 1 and not c.unknown), default=INFINITY)
        for i, c in enumerate(calls):
            if c.begun > first_end:
                break
            if not done >> i & 1:
                after = step(state, c)
                if after is not None:
                    stack.append((done | 1 << i, after))
    return False


def brute_force(calls):
    """The same by trying all orders of all subsets of the unknown ones."""
    unknown = [c for c in calls if c.unknown]
    known = [c for c in calls if not c.unknown]
    for n in range(len(unknown) + 1):
        for some in itertools.combinations(unknown, n):
            for order in itertools.permutations(known + list(some)):
                if any(b.ended < a.begun and not b.unknown
                       for i, a in enumerate(order) for b in order[i + 1:]):
                    continue
                state = START
                for c in order:
                    state = step(state, c)
                    if state is None:
                        break
                else:
                    return True
    return False


def by_key(ops):
    """{key: [Call]} of a history."""
    keys, calls = {}, collections.defaultdict(list)
    for o in ops:
        if o.kind == "submit" and o.outcome == "ok":
            keys[o.d["job"]] = o.d["key"]
    for o in ops:
        key = o.d["key"] if o.kind == "submit" else keys.get(o.d["job"])
        if o.outcome == "fail" or key is None or o.kind not in ("submit", "get", "cancel") or \
                o.d.get("ended") or o.d.get("missing"):
            continue  # a NOT_FOUND of an acknowledged job is judged elsewhere
        unknown = o.outcome == "unknown"
        # A cancelled job, or one that ended before it heard of the cancel, need not say so.
        asked = o.kind == "get" and not unknown and (o.d["asked"] or o.d["state"] > 2)
        calls[key].append(Call(
            o.kind, o.begun, INFINITY if unknown else o.ended, unknown, o.d.get("job"),
            o.kind == "submit" and not unknown and not o.d["existing"],
            o.d.get("changed", 0) if o.kind == "get" else 0, asked))
    # An unknown submit is that of the job that the key has.
    jobs = {k: j for j, k in keys.items()}
    return {k: [c._replace(job=jobs.get(k, "?")) if c.kind == "submit" and c.unknown else c
                for c in v] for k, v in calls.items()}


def judge(ops, seconds=60):
    """(bad, keys searched, unknown calls among them)"""
    deadline, bad, keys, unknown = time.monotonic() + seconds, [], 0, 0
    for key, calls in by_key(ops).items():
        keys += 1
        unknown += sum(c.unknown for c in calls)
        try:
            if not linearizable(calls, deadline):
                bad.append(f"no order explains the calls on {key}: {calls[:12]}")
                if len(bad) >= SHOWN:
                    bad.append("and perhaps on others")
                    break
        except TimeoutError:
            bad.append(f"the search for an order took more than {seconds} s at {key}")
            break
    return bad, keys, unknown
