chronos_unit_test(schedule_yaml DEPS cli sched proto base)
chronos_unit_test(crontab DEPS cli sched proto base)

# Not a test by itself: tests/system/cron_js compares what it prints with another implementation.
add_executable(cron_next_lines unit/cron_next_lines.c)
target_link_libraries(cron_next_lines PRIVATE chronos_warnings chronos_options chronos_sched chronos_os)
