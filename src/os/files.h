/* What is done to files alike everywhere. Thread: any. */
#pragma once

#include "base/defs.h"

#include <stddef.h>

/* All of @data at the file's position. 0; -errno, and some of it may have been written. */
int files_write_all(int fd, const void *data, size_t len) _must_check_;
/* Remove what is at @path and below, as far as it goes: children first, symbolic links themselves,
 * nothing of another file system. */
void files_remove_tree(const char *path);
