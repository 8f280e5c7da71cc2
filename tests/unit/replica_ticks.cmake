chronos_unit_test(replica_ticks DEPS node storage base
  SOURCES unit/node_world.c unit/node_snapshot_fixture.c ${CMAKE_SOURCE_DIR}/src/sim/sim_disk.c
    ${CMAKE_SOURCE_DIR}/src/sim/sim_disk_faults.c)
