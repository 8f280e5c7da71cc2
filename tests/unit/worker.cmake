chronos_unit_test(worker_parts DEPS worker os base)
chronos_unit_test(worker_node DEPS worker os base proto SOURCES unit/worker_node.c)
chronos_unit_test(worker_jobs DEPS worker os base proto SOURCES unit/worker_node.c)
