chronos_unit_test(job_state DEPS fsm)
chronos_unit_test(job_id DEPS fsm)
chronos_unit_test(idem DEPS fsm)
chronos_unit_test(fsm DEPS fsm storage SOURCES unit/fsm_fixture.c)
chronos_unit_test(fsm_workers DEPS fsm storage SOURCES unit/fsm_fixture.c)
chronos_unit_test(command DEPS fsm storage SOURCES unit/fsm_fixture.c unit/schedule_fixture.c)
chronos_unit_test(sched DEPS sched fsm storage SOURCES unit/fsm_fixture.c)
chronos_unit_test(fsm_oom DEPS sched fsm storage SOURCES unit/fsm_script.c unit/fsm_fixture.c
  unit/schedule_fixture.c
  LINK_OPTIONS -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc,--wrap=strdup)
chronos_unit_test(fsm_store_faults DEPS fsm storage SOURCES unit/fsm_script.c unit/fsm_fixture.c
  unit/schedule_fixture.c)
chronos_unit_test(fsm_model DEPS fsm storage SOURCES unit/fsm_fixture.c unit/fsm_model.c
  unit/schedule_fixture.c unit/schedule_model.c)
chronos_unit_test(fsm_schedules DEPS fsm storage
  SOURCES unit/fsm_fixture.c unit/schedule_fixture.c unit/schedule_steps.c)
chronos_unit_test(fsm_ticks DEPS fsm storage
  SOURCES unit/fsm_fixture.c unit/schedule_fixture.c unit/schedule_steps.c)
chronos_unit_test(fsm_handover DEPS fsm storage SOURCES unit/fsm_fixture.c unit/schedule_fixture.c)
chronos_unit_test(fsm_cluster DEPS fsm storage SOURCES unit/fsm_fixture.c)
chronos_unit_test(fsm_memory DEPS fsm storage SOURCES unit/fsm_fixture.c unit/schedule_fixture.c
  LINK_OPTIONS -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc,--wrap=free,--wrap=strdup)

# Not a test: processor time per job life, run by hand.
add_executable(bench_fsm EXCLUDE_FROM_ALL ${CMAKE_SOURCE_DIR}/tests/unit/bench_fsm.c)
target_link_libraries(bench_fsm PRIVATE chronos_warnings chronos_fsm chronos_storage)
