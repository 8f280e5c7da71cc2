# The judges of the simulator that need nothing of it.
set(judge ${CMAKE_SOURCE_DIR}/src/sim/history.c ${CMAKE_SOURCE_DIR}/src/sim/linear.c
          ${CMAKE_SOURCE_DIR}/src/sim/linear_spec.c ${CMAKE_SOURCE_DIR}/src/sim/linear_history.c)

chronos_unit_test(linear DEPS base SOURCES ${judge})
chronos_unit_test(linear_cases DEPS base SOURCES ${judge})
chronos_unit_test(job_model DEPS fsm storage SOURCES unit/fsm_fixture.c
  ${CMAKE_SOURCE_DIR}/src/sim/job_model.c ${CMAKE_SOURCE_DIR}/src/sim/job_model_run.c)
