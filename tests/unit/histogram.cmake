chronos_unit_test(histogram DEPS base)
