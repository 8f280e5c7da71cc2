chronos_unit_test(api_validate DEPS api proto)
chronos_unit_test(api_schedule_validate DEPS api sched fsm proto)
chronos_unit_test(api_message_check DEPS api proto)
chronos_unit_test(api_pages DEPS api proto)
chronos_unit_test(api_submit DEPS api fsm proto LINK_OPTIONS ${nth_memory})
chronos_unit_test(api_convert DEPS api fsm proto)
chronos_unit_test(api_reflection DEPS api proto LINK_OPTIONS ${nth_memory})
foreach(t calls schedule_calls admin)
  chronos_unit_test(api_${t} DEPS api node fsm storage os proto SOURCES unit/api_world.c)
endforeach()

# Not a test: processor time per submit, run by hand.
add_executable(bench_api EXCLUDE_FROM_ALL ${CMAKE_SOURCE_DIR}/tests/unit/bench_api.c)
target_link_libraries(bench_api PRIVATE chronos_warnings chronos_api chronos_fsm)
