chronos_unit_test(schedule_yaml DEPS cli sched proto base)
chronos_unit_test(crontab DEPS cli sched proto base)
