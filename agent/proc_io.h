/* SPDX-License-Identifier: Apache-2.0
 *
 * The pipes of a command (part of agent/proc.c's module).
 */
#ifndef EW_AGENT_PROC_IO_H
#define EW_AGENT_PROC_IO_H

#include "agent/proc.h"

/* Makes the pipes; child_fds gets the command's ends (-1 = /dev/null), the caller's to close. */
int proc_io_open(proc_t *proc, bool has_stdin, int child_fds[3], err_t **e);
void proc_io_begin(proc_t *proc, const void *input, size_t len, bool is_end);
/* Reads what is in the pipes now, and no more: an endless writer must not hold up its own end. */
void proc_io_drain(proc_t *proc);
void proc_io_close(proc_t *proc);

void proc_notify(proc_t *proc, enum proc_event event);

#endif
