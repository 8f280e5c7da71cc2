# The log is compiled into the target, so that the fuzzer sees its branches.
if(CHRONOS_FUZZ)
  file(GLOB fuzz_wal_sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/storage/wal*.c)
  add_executable(fuzz_wal fuzz/fuzz_wal.c ${fuzz_wal_sources} ${CMAKE_SOURCE_DIR}/src/storage/io.c
    ${CMAKE_SOURCE_DIR}/src/sim/sim_disk.c ${CMAKE_SOURCE_DIR}/src/sim/sim_disk_faults.c)
  target_compile_options(fuzz_wal PRIVATE -fsanitize=fuzzer)
  target_link_options(fuzz_wal PRIVATE -fsanitize=fuzzer)
  target_link_libraries(fuzz_wal PRIVATE chronos_warnings chronos_options chronos_base)
endif()
