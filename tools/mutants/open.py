"""Bugs that nothing has seen yet: neither some hundred seeds nor a test. Each is a hole to be closed, or a reason
to be found why it cannot be seen. Tried with --open only."""

MUTANTS = [
    # What a leader decided is answered otherwise only when its term is over, and the next term begins awake. It matters
    # when four plans of the earlier term wait behind something else in the channel of a log that is full again before
    # they are told so: no world comes there.
    ("scheduler-not-woken", "src/node/scheduler.c",
     "    r->scheduler.plans_in_flight--;\n    r->scheduler.dirty = true;", "    r->scheduler.plans_in_flight--;\n    r->scheduler.dirty = res->status == REPLICA_OK;"),
    # Seen at seeds 589 and 2,210 while a plan could be given up within its term; since none is, not within 3,000 seeds.
    ("scheduler-plan-never-done", "src/node/scheduler.c",
     "    r->scheduler.plans_in_flight--;\n    r->scheduler.dirty = true;", "    r->scheduler.plans_in_flight -= res->status == REPLICA_OK;\n    r->scheduler.dirty = true;"),
    ("ticker-lost-plan-not-made-anew", "src/sched/ticker_plan.c",
     "    if (e->watermark_s != x->watermark_s) {\n        entry_rewind(t, e);", "    if (e->watermark_s != x->watermark_s) {"),
]
