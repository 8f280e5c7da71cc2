# The reader is compiled into the target, so that the fuzzer sees its branches.
if(CHRONOS_FUZZ)
  set(dir ${CMAKE_SOURCE_DIR}/src/cli)
  add_executable(fuzz_config fuzz/fuzz_config.c ${dir}/args.c ${dir}/args_help.c ${dir}/config.c
    ${dir}/config_check.c ${dir}/config_yaml.c)
  target_compile_options(fuzz_config PRIVATE -fsanitize=fuzzer)
  target_link_options(fuzz_config PRIVATE -fsanitize=fuzzer)
  target_link_libraries(fuzz_config PRIVATE chronos_warnings chronos_options chronos_base PkgConfig::YAML)
endif()
