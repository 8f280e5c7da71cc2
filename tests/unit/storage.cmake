# The simulated disk is compiled in directly: the simulator around it is not needed here.
set(sim_disk ${CMAKE_SOURCE_DIR}/src/sim/sim_disk.c ${CMAKE_SOURCE_DIR}/src/sim/sim_disk_faults.c)
set(wrap_memory -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc)
chronos_unit_test(sim_disk DEPS base SOURCES ${sim_disk})
chronos_unit_test(wal DEPS storage base SOURCES ${sim_disk})
chronos_unit_test(wal_faults DEPS storage base SOURCES ${sim_disk} LINK_OPTIONS ${wrap_memory})
chronos_unit_test(wal_damage DEPS storage base SOURCES ${sim_disk})
chronos_unit_test(meta DEPS storage base SOURCES ${sim_disk})
chronos_unit_test(kv_mem DEPS storage base LINK_OPTIONS ${wrap_memory})
