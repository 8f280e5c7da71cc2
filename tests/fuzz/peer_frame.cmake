# The codec is compiled into the target, so that the fuzzer sees its branches.
if(CHRONOS_FUZZ)
  add_executable(fuzz_peer_frame fuzz/fuzz_peer_frame.c ${CMAKE_SOURCE_DIR}/src/os/peer_frame.c)
  target_compile_options(fuzz_peer_frame PRIVATE -fsanitize=fuzzer)
  target_link_options(fuzz_peer_frame PRIVATE -fsanitize=fuzzer)
  target_link_libraries(fuzz_peer_frame PRIVATE chronos_warnings chronos_options chronos_base)
endif()
