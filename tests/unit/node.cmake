set(node_world unit/node_world.c ${CMAKE_SOURCE_DIR}/src/sim/sim_disk.c
    ${CMAKE_SOURCE_DIR}/src/sim/sim_disk_faults.c)
foreach(t proposals reads events peers sessions backlog drain scheduler)
  chronos_unit_test(node_${t} DEPS node storage base SOURCES ${node_world})
endforeach()
foreach(t snapshots transfers disk)
  chronos_unit_test(node_${t} DEPS node storage base
    SOURCES ${node_world} unit/node_snapshot_fixture.c)
endforeach()
chronos_unit_test(base DEPS base)
