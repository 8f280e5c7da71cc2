chronos_unit_test(rpc DEPS os base)
