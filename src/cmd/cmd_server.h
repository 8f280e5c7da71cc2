/* `chronos server`: one node, wired to the real world. */
#pragma once

int cmd_server(int argc, char **argv);
