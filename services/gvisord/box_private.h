/* SPDX-License-Identifier: Apache-2.0
 *
 * Between box.c (making and removing) and box_watch.c (finding, watching, adopting).
 */
#ifndef EW_SERVICES_GVISORD_BOX_PRIVATE_H
#define EW_SERVICES_GVISORD_BOX_PRIVATE_H

#include "services/gvisord/gvisord.h"

/* Why the runtime failed, from its own log. Caller frees; NULL = no reason there. */
char *box_runtime_log(const box_t *box);
/* Reads the pid file, finds the gofer, writes both with their start times into the facts. */
int box_find_pids(box_t *box, err_t **e);
/* Starts watching the processes named in the facts. */
int box_watch(box_t *box, err_t **e);

#endif
