/* Standard input, output and error of a program, from its first line to its last. */
#pragma once

/* Before anything is opened, so before the libraries' constructors: no stdio here. A descriptor of
 * 0 to 2 that is closed would be given to the next file or socket, which would then get what is
 * printed, and libuv refuses to close it. So /dev/null is opened there, the wrong way round for
 * input and output: who reads or prints still gets EBADF. 0, or -errno: end. */
int standard_files_open(void);

/* As the last thing. 0 when all that was printed is written; -errno when some of it is lost (-EIO
 * when an earlier write failed and why is forgotten): the exit code has to say so. */
int standard_output_end(void);
