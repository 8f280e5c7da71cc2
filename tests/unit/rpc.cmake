chronos_unit_test(rpc DEPS os base SOURCES unit/rpc_fixture.c)
chronos_unit_test(rpc_chaos DEPS os base SOURCES unit/rpc_fixture.c)
# Read only by a thread-sanitized build: gRPC itself is not instrumented.
set_tests_properties(unit.rpc unit.rpc_chaos PROPERTIES ENVIRONMENT
  "TSAN_OPTIONS=suppressions=${CMAKE_SOURCE_DIR}/tools/tsan.supp")
