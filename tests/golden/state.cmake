# One directory per release whose entries and records must be read for ever.
add_executable(test_state_golden golden/test_state_golden.c unit/fsm_fixture.c
  unit/schedule_fixture.c)
target_include_directories(test_state_golden PRIVATE ${CMAKE_SOURCE_DIR}/tests/unit)
target_link_libraries(test_state_golden PRIVATE chronos_warnings chronos_options PkgConfig::CMOCKA
  chronos_fsm chronos_storage chronos_base)
file(GLOB state_scripts CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tests/golden/state/*/script.txt)
foreach(script ${state_scripts})
  get_filename_component(release_dir ${script} DIRECTORY)
  get_filename_component(release ${release_dir} NAME)
  add_test(NAME golden.state.${release} COMMAND test_state_golden ${release_dir})
endforeach()
