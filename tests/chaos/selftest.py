"""The judges against histories that are known to be good or bad, before they judge anything."""
import random

import judges
import wgl
from history import Op


def _calls(rng):
    out = []
    for _ in range(rng.randrange(1, 7)):
        begun = rng.randrange(20)
        unknown = rng.random() < 0.25
        kind = rng.choice(("submit", "submit", "get", "cancel"))
        out.append(wgl.Call(kind, begun, wgl.INFINITY if unknown else begun + rng.randrange(1, 12),
                            unknown and kind != "get", "j", rng.random() < 0.5,
                            rng.randrange(3), rng.random() < 0.5))
    return out


def _ok(client, kind, begun, ended, **d):
    return Op(client, kind, "ok", begun, ended, 1, d)


def _submit(begun, ended, key, job, index, outcome="ok"):
    return Op("c", "submit", outcome, begun, ended, 1,
              {"key": key, "job": job, "index": index, "existing": False, "once": False})


def _get(begun, ended, job, index, changed, state=1, attempt=0, client="c"):
    return _ok(client, "get", begun, ended, job=job, index=index, changed=changed, state=state,
               attempt=attempt, token=0, asked=False, key="k")


def _event(index, job, to, **more):
    d = {"index": index, "job": job, "attempt": 0, "to": to, "token": 0, "worker": "",
         "asked": False, "from": 0, **more}
    return Op("w", "event", "ok", 0, 0, 1, d)


def _bad(what, found):
    assert found, f"accepted: {what}"


def _good(what, found):
    assert not found, f"{what}: {found}"


def run(histories=3000):
    rng = random.Random(1)
    verdicts = set()
    for k in range(histories):
        calls = _calls(rng)
        one, two = wgl.linearizable(calls), wgl.brute_force(calls)
        assert one == two, f"history {k}: search {one}, all orders {two}: {calls}"
        verdicts.add(one)
    assert verdicts == {True, False}, "all histories had the same verdict"

    class Job:  # as rpc's
        def __init__(self, i, name):
            self.id, self.schedule, self.spec = i, "", type("S", (), {"name": name})
    two = [_submit(0, 5, "k", "j", 3), _submit(6, 9, "l", "m", 4)]
    _good("two jobs", judges.sets(two, [Job("j", "k"), Job("m", "l")]))
    _bad("a lost job", judges.sets(two, [Job("j", "k")]))
    _bad("a doubled job", judges.sets(two, [Job("j", "k"), Job("m", "l"), Job("n", "l")]))
    _bad("a job of nobody", judges.sets(two[:1], [Job("j", "k"), Job("m", "l")]))
    refused = [_submit(0, 5, "k", "", 0, "fail")]
    _bad("a refused submit that happened", judges.sets(refused, [Job("j", "k")]))
    _good("an unknown one that did", judges.sets(
        [refused[0]._replace(outcome="unknown")], [Job("j", "k")]))
    _good("in order", judges.real_time(two))
    _bad("a later submit below", judges.real_time([two[0], _submit(6, 9, "l", "m", 2)]))
    _bad("a read of the past", judges.real_time([two[1], _get(10, 12, "j", 3, 3)]))
    _good("a read beside", judges.real_time([two[1], _get(8, 12, "j", 3, 3)]))
    chain = [_event(3, "j", 1), _event(5, "j", 2, **{"from": 1}), _event(7, "j", 3, **{"from": 2})]
    _good("a chain", judges.watches({"w": chain})[0])
    _bad("a hole", judges.watches({"w": [chain[0], chain[2]]})[0])
    _bad("an event twice", judges.watches({"w": [chain[0], chain[0], *chain[1:]]})[0])
    _bad("watchers that differ", judges.watches({"w": chain, "v": chain[:2]})[0])
    _, folded, _ = judges.watches({"w": chain})
    _good("a read as the chain", judges.reads([_get(0, 1, "j", 4, 3, 1)], folded, []))
    _bad("a read behind its index", judges.reads([_get(0, 1, "j", 8, 3, 1)], folded, []))
    _bad("a read ahead of its index", judges.reads([_get(0, 1, "j", 4, 5, 2)], folded, []))
    _bad("a session that goes back", judges.sessions(
        [_get(0, 1, "j", 8, 7, 3), _get(2, 3, "j", 8, 5, 2)]))
    b = [("b", "j", 1, 5, 1.0), ("b", "j", 2, 9, 2.0)]
    _good("one after the other", judges.marks(b, [], set(), []))
    _bad("beside a newer one", judges.marks(b + [("l", "j", 1, 5, 2.1)], [], set(), []))
    _good("excused", judges.marks(b + [("l", "j", 1, 5, 2.1)], [], set(), [(2.0, 3.0)]))
    _bad("twice", judges.marks(b + [("b", "j", 2, 9, 2.2)], [], set(), []))
    _bad("once twice", judges.marks(b, [], {"j"}, []))
    return histories
