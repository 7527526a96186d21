/* SPDX-License-Identifier: Apache-2.0
 *
 * What gvisord does before it serves, and its command line for images.
 */
#ifndef EW_SERVICES_GVISORD_START_H
#define EW_SERVICES_GVISORD_START_H

#include "services/gvisord/gvisord.h"

/* Names, directories, cgroups, agent layer, worker. What the host lacks is not an error here: the probe tells it. */
int start_prepare(gvisord_t *gv, err_t **e);
/* After the loop: takes the firewall rules and the empty cgroups away when no sandbox needs them. */
void start_leave(gvisord_t *gv);
void start_free(gvisord_t *gv);
/* Removes image generations and agent layers that no sandbox uses. */
void start_prune(gvisord_t *gv);

/* `--import-image NAME FILE`, `--import-oci NAME REFERENCE`, `--list-images`. */
bool start_is_import(const char *argument);
int start_import(int argc, char **argv);

#endif
