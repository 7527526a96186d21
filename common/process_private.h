/* SPDX-License-Identifier: Apache-2.0
 *
 * Inside of common/process.c (watching) and common/process_spawn.c (fork to exec).
 */
#ifndef EW_COMMON_PROCESS_PRIVATE_H
#define EW_COMMON_PROCESS_PRIVATE_H

#include "common/process.h"

/* Starts the program with the given descriptors as 0, 1, 2 (none of them -1). Returns the pid, or -1 when the child
 * could not get as far as the program itself; nothing is left then. */
pid_t process_spawn(const process_options_t *options, int fd_stdin, int fd_stdout, int fd_stderr, err_t **e);

#endif
