chronos_unit_test(disk_posix DEPS os base)
chronos_unit_test(disk_queue DEPS os base)
chronos_unit_test(peer_frame DEPS os base)
chronos_unit_test(peer_net DEPS os base)
