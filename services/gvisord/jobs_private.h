/* SPDX-License-Identifier: Apache-2.0
 *
 * Between the files of jobs: jobs.c (making, removing), jobs_stop.c (stop, resume), jobs_snapshot.c.
 */
#ifndef EW_SERVICES_GVISORD_JOBS_PRIVATE_H
#define EW_SERVICES_GVISORD_JOBS_PRIVATE_H

#include "services/gvisord/gvisord.h"

/* In a sandbox's directory. What is half written is .new; what was restored is .used: its files have gone on changing
 * since. The directory .used stays until the next stop and says that processes were restored. */
#define JOBS_CHECKPOINT "checkpoint"
#define JOBS_CHECKPOINT_NEW "checkpoint.new"
#define JOBS_CHECKPOINT_USED "checkpoint.used"
/* Exists while a snapshot has paused the sandbox; its content says how. */
#define JOBS_PAUSED_FILE "paused"

extern const gvisord_t *jobs_context;

int jobs_slot(const json_t *args, network_slot_t *slot, bool *has_slot, err_t **e);
/* Disk and network of a sandbox; is_kept: from its own files. */
int jobs_disk_and_network(const json_t *args, bool is_kept, bool with_etc, err_t **e);
int jobs_remove_runtime_state(const char *id, err_t **e);
/* Processes, cgroup, runtime state, network. */
int jobs_remove_host_objects(const json_t *args, err_t **e);
/* FIFOs, configuration, logs. */
int jobs_remove_files(const char *dir, err_t **e);
/* How long writing or reading so much may take. */
unsigned jobs_timeout_ms(uint64_t bytes);

#endif
