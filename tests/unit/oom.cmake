# Every allocation fails once (ADR 0011; tests/tools/check_oom.py asks for every function).
set(oom_disk ${CMAKE_SOURCE_DIR}/src/sim/sim_disk.c ${CMAKE_SOURCE_DIR}/src/sim/sim_disk_faults.c)
chronos_unit_test(storage_oom DEPS storage base SOURCES ${oom_disk} LINK_OPTIONS ${nth_memory})
chronos_unit_test(sched_oom DEPS sched fsm base proto LINK_OPTIONS ${nth_memory})
chronos_unit_test(fsm_reads_oom DEPS fsm storage SOURCES unit/fsm_fixture.c unit/schedule_fixture.c
  LINK_OPTIONS ${nth_memory})
chronos_unit_test(raft_parts_oom DEPS raft base LINK_OPTIONS ${nth_memory})
chronos_unit_test(api_oom DEPS api fsm proto LINK_OPTIONS ${nth_memory})
