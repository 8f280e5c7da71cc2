chronos_unit_test(ticker DEPS sched base)
chronos_unit_test(handover DEPS sched base)
chronos_unit_test(tzdir DEPS os base)
chronos_unit_test(clock_watch DEPS os base)
