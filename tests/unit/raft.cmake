set(raft_world unit/raft_world.c unit/raft_world_checks.c unit/raft_world_disk.c
  unit/raft_world_trace.c)
chronos_unit_test(raft DEPS raft base SOURCES ${raft_world} unit/raft_solo.c)
chronos_unit_test(raft_rules DEPS raft base SOURCES ${raft_world} unit/raft_solo.c)
chronos_unit_test(raft_snapshot DEPS raft base SOURCES ${raft_world} unit/raft_solo.c)
chronos_unit_test(raft_oom DEPS raft base LINK_OPTIONS ${nth_memory})
chronos_unit_test(raft_network DEPS raft base SOURCES ${raft_world})
