chronos_unit_test(raft_network DEPS raft base SOURCES unit/raft_world.c)
