# One directory per release whose logs, meta files and snapshots must be read for ever.
add_executable(test_storage_golden golden/test_storage_golden.c unit/fsm_fixture.c
  ${CMAKE_SOURCE_DIR}/src/sim/sim_disk.c ${CMAKE_SOURCE_DIR}/src/sim/sim_disk_faults.c)
target_include_directories(test_storage_golden PRIVATE ${CMAKE_SOURCE_DIR}/tests/unit)
target_link_libraries(test_storage_golden PRIVATE chronos_warnings chronos_options PkgConfig::CMOCKA
  chronos_fsm chronos_storage chronos_base)
file(GLOB storage_sets CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tests/golden/storage/*/expected.txt)
foreach(expected ${storage_sets})
  get_filename_component(release_dir ${expected} DIRECTORY)
  get_filename_component(release ${release_dir} NAME)
  add_test(NAME golden.storage.${release} COMMAND test_storage_golden ${release_dir})
endforeach()
