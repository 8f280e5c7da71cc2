set(cluster_world unit/cluster_world.c ${CMAKE_SOURCE_DIR}/src/sim/sim_disk.c
                  ${CMAKE_SOURCE_DIR}/src/sim/sim_disk_faults.c)
chronos_unit_test(membership DEPS node storage base SOURCES ${cluster_world})
chronos_unit_test(identity DEPS node storage base SOURCES ${cluster_world})
