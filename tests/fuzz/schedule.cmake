# The readers are compiled into the targets, so that the fuzzer sees their branches.
if(CHRONOS_FUZZ)
  set(dir ${CMAKE_SOURCE_DIR}/src/cli)
  set(schedule_sources ${dir}/args.c ${dir}/args_help.c ${dir}/schedule_text.c ${dir}/schedule_spec.c
    ${dir}/schedule_yaml.c ${dir}/schedule_yaml_write.c ${dir}/crontab.c ${dir}/crontab_write.c)
  foreach(name schedule_yaml crontab)
    add_executable(fuzz_${name} fuzz/fuzz_${name}.c ${schedule_sources})
    target_compile_options(fuzz_${name} PRIVATE -fsanitize=fuzzer)
    target_link_options(fuzz_${name} PRIVATE -fsanitize=fuzzer)
    target_link_libraries(fuzz_${name} PRIVATE chronos_warnings chronos_options chronos_sched
      chronos_proto chronos_base PkgConfig::YAML)
  endforeach()
endif()
