# The codec is compiled into the target, so that the fuzzer sees its branches.
if(CHRONOS_FUZZ)
  add_executable(fuzz_snapshot_format fuzz/fuzz_snapshot_format.c
    ${CMAKE_SOURCE_DIR}/src/storage/snapshot_format.c)
  target_compile_options(fuzz_snapshot_format PRIVATE -fsanitize=fuzzer)
  target_link_options(fuzz_snapshot_format PRIVATE -fsanitize=fuzzer)
  target_link_libraries(fuzz_snapshot_format PRIVATE chronos_warnings chronos_options chronos_base)
endif()
