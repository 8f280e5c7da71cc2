# The language and the reader are compiled into the target, so that the fuzzer sees their branches.
if(CHRONOS_FUZZ)
  file(GLOB fuzz_tz_sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/sched/c*.c
    ${CMAKE_SOURCE_DIR}/src/sched/tz*.c ${CMAKE_SOURCE_DIR}/src/sched/zones.c)
  add_executable(fuzz_tz ${CMAKE_SOURCE_DIR}/tests/fuzz/fuzz_tz.c ${fuzz_tz_sources})
  target_compile_options(fuzz_tz PRIVATE -fsanitize=fuzzer)
  target_link_options(fuzz_tz PRIVATE -fsanitize=fuzzer)
  target_link_libraries(fuzz_tz PRIVATE chronos_warnings chronos_options chronos_base)
endif()
