add_executable(test_raft_golden golden/test_raft_golden.c unit/raft_world.c
  unit/raft_world_checks.c unit/raft_world_disk.c unit/raft_world_trace.c)
target_include_directories(test_raft_golden PRIVATE ${CMAKE_SOURCE_DIR}/tests/unit)
target_link_libraries(test_raft_golden PRIVATE chronos_warnings chronos_options PkgConfig::CMOCKA
  chronos_raft chronos_base)
file(GLOB raft_scripts CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tests/golden/raft/*.txt)
foreach(script ${raft_scripts})
  get_filename_component(script_name ${script} NAME_WE)
  add_test(NAME golden.raft.${script_name} COMMAND test_raft_golden ${script})
endforeach()
