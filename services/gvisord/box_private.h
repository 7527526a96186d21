/* SPDX-License-Identifier: Apache-2.0
 *
 * Between box.c (making and removing) and box_watch.c (finding, watching, adopting).
 */
#ifndef EW_SERVICES_GVISORD_BOX_PRIVATE_H
#define EW_SERVICES_GVISORD_BOX_PRIVATE_H

#include "services/gvisord/gvisord.h"
#include "services/gvisord/runtime.h"

/* Why the runtime failed, from its own log. Caller frees; NULL = no reason there. */
char *box_runtime_log(const box_t *box);
/* Its log and pid file, empty, for root alone: the runtime would give them other modes. */
int box_make_outputs(const char *dir, err_t **e);
/* Reads the pid file, finds the gofer, writes both with their start times into the facts. */
int box_find_pids(box_t *box, err_t **e);
/* Starts watching the processes named in the facts. */
int box_watch(box_t *box, err_t **e);
/* Forgets the processes in the facts. */
void box_forget_pids(box_t *box);
/* How it was made, from the facts. */
void box_recall_variant(box_t *box);
/* Again, after the budget has changed. */
void box_watch_memory(box_t *box);

/* ---- box.c ---- */
void box_phase_end(box_t *box, const char *name);
void box_finish(box_t *box, const err_t *err);
void box_fail(box_t *box, err_t **e, const char *what);
bool box_has_network(const box_t *box);
cgroup_limits_t box_limits(const box_t *box);
/* The facts of a new life: isolation, phases, warnings. */
void box_describe(box_t *box);
/* A free one, saved in the facts. */
int box_choose_slot(box_t *box, network_slot_t *slot, err_t **e);
int box_write_config(const box_t *box, const char *netns_path, err_t **e);
runtime_t box_runtime(const box_t *box);

/* ---- box_stop.c ---- */
/* What a checkpoint of it can be restored by, from its facts. */
json_t *box_key(const box_t *box);

#endif
