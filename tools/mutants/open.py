"""Bugs that nothing has seen yet: neither some hundred seeds nor a test. Each is a hole to be closed, or a reason
to be found why it cannot be seen. Tried with --open only."""

MUTANTS = [
    # What a leader decided is answered otherwise only when its term is over, and the next term begins awake. It matters
    # when four plans of the earlier term wait behind something else in the channel of a log that is full again before
    # they are told so: no world comes there.
    ("scheduler-not-woken", "src/node/scheduler.c",
     "    r->scheduler.plans_in_flight--;\n    r->scheduler.dirty = true;", "    r->scheduler.plans_in_flight--;\n    r->scheduler.dirty = res->status == REPLICA_OK;"),
]
