chronos_unit_test(rpc DEPS os base)
# Read only by a thread-sanitized build: gRPC itself is not instrumented.
set_tests_properties(unit.rpc PROPERTIES ENVIRONMENT
  "TSAN_OPTIONS=suppressions=${CMAKE_SOURCE_DIR}/tools/tsan.supp")
