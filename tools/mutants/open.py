"""Bugs that nothing has seen yet: neither some hundred seeds nor a test. Each is a hole to be closed, or a reason
to be found why it cannot be seen. Tried with --open only."""

MUTANTS = [
    ("lease-losing-never-ends", "src/node/leases.c",
     "            l->losing = false; /* still silent? then it is proposed again */\n", ""),
    ("scheduler-not-woken", "src/node/scheduler.c",
     "    r->scheduler.plans_in_flight--;\n    r->scheduler.dirty = true;", "    r->scheduler.plans_in_flight--;\n    r->scheduler.dirty = res->status == REPLICA_OK;"),
    ("snap-blocks-of-a-deposed-leader", "src/node/snapshot_receive.c",
     "    if (m->term != raft_term(r->raft) || from != raft_leader(r->raft) ||\n        snapshots_installing(&r->snapshots))",
     "    if (snapshots_installing(&r->snapshots))"),
    ("snap-stage-left-behind", "src/node/snapshot_receive.c",
     "    else if (x->staged)\n        job_start(x, NULL);", "    else\n        x->staged = false;"),
    ("snap-members-not-looked-at", "src/node/snapshots.c", "    membership_applied(r);\n", ""),
    ("snap-adopted-while-read", "src/node/snapshots.c", " &&\n        !views_reading(r))", ")"),
    ("snap-meta-not-lowered", "src/node/effects.c",
     "    rc = save_meta(r, MIN(wal_synced_index(r->wal), index - 1), e);", "    rc = save_meta(r, wal_synced_index(r->wal), e);"),
    ("snap-over-committed-entries", "src/raft/snapshot.c",
     "    if (index <= r->commit) {\n        answer(r, ev, false, r->commit);\n        return;\n    }\n", "    if (index < r->commit) {\n        answer(r, ev, false, r->commit);\n        return;\n    }\n"),
    ("member-drained-leader-leads-on", "src/node/drain.c", "    if (!replica_leads(r) || !node_drains(r, r->o.id)) {", "    if (true) {"),
    ("member-level-before-all-know-it", "src/node/features.c", "        level = MIN(level, n ? n->feature_max : 0); /* 0: not known yet */", "        level = n ? MIN(level, n->feature_max) : level;"),
]
