chronos_unit_test(job_state DEPS fsm)
chronos_unit_test(job_id DEPS fsm)
chronos_unit_test(fsm DEPS fsm storage SOURCES unit/fsm_fixture.c)
