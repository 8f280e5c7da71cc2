chronos_unit_test(units DEPS base)
chronos_unit_test(args DEPS cli base)
chronos_unit_test(config DEPS cli base)
chronos_unit_test(cli_text DEPS cli os base proto)
