# The state machine is compiled into the target, so that the fuzzer sees its branches.
if(CHRONOS_FUZZ)
  file(GLOB fuzz_command_sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/fsm/*.c)
  add_executable(fuzz_command ${CMAKE_SOURCE_DIR}/tests/fuzz/fuzz_command.c ${fuzz_command_sources}
    ${CMAKE_SOURCE_DIR}/src/storage/kv_mem.c ${CMAKE_SOURCE_DIR}/src/storage/kv_table.c)
  target_compile_options(fuzz_command PRIVATE -fsanitize=fuzzer)
  target_link_options(fuzz_command PRIVATE -fsanitize=fuzzer)
  target_link_libraries(fuzz_command PRIVATE chronos_warnings chronos_options chronos_base chronos_proto)
endif()
