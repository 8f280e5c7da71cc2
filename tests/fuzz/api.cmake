# The decoders are compiled into the target, so that the fuzzer sees their branches.
if(CHRONOS_FUZZ)
  add_executable(fuzz_api fuzz/fuzz_api.c ${CMAKE_SOURCE_DIR}/src/api/message_check.c
    ${CMAKE_SOURCE_DIR}/src/api/validate_job.c ${CMAKE_SOURCE_DIR}/src/api/submit_encode.c
    ${CMAKE_SOURCE_DIR}/src/api/page_token.c ${CMAKE_SOURCE_DIR}/src/api/job_filter.c
    ${CMAKE_SOURCE_DIR}/src/api/schedule_page.c ${CMAKE_SOURCE_DIR}/src/api/validate_schedule.c)
  target_compile_options(fuzz_api PRIVATE -fsanitize=fuzzer)
  target_link_options(fuzz_api PRIVATE -fsanitize=fuzzer)
  target_link_libraries(fuzz_api PRIVATE chronos_warnings chronos_options chronos_sched chronos_fsm chronos_base chronos_proto)
endif()
