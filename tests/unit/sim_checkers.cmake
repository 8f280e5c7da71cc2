# The judges of the simulator that need nothing of it.
set(judge ${CMAKE_SOURCE_DIR}/src/sim/history.c ${CMAKE_SOURCE_DIR}/src/sim/linear.c
          ${CMAKE_SOURCE_DIR}/src/sim/linear_spec.c ${CMAKE_SOURCE_DIR}/src/sim/linear_history.c)

chronos_unit_test(linear DEPS base SOURCES ${judge})
chronos_unit_test(linear_cases DEPS base SOURCES ${judge})
