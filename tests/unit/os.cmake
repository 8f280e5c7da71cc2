chronos_unit_test(disk_posix DEPS os base)
chronos_unit_test(disk_queue DEPS os base)
