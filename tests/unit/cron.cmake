chronos_unit_test(civil DEPS sched)
chronos_unit_test(tz DEPS sched)
chronos_unit_test(cron DEPS sched)
chronos_unit_test(preview DEPS sched)
