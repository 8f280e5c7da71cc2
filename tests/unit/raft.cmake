chronos_unit_test(raft DEPS raft base SOURCES unit/raft_world.c)
chronos_unit_test(raft_snapshot DEPS raft base)
chronos_unit_test(raft_oom DEPS raft base
  LINK_OPTIONS -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc)
chronos_unit_test(raft_network DEPS raft base SOURCES unit/raft_world.c)
