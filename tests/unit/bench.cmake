chronos_unit_test(bench_parts DEPS bench os base proto)
