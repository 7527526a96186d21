/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory and processes of a sandbox as files: a directory with what `runsc checkpoint` writes and `key.json`, which
 * says what the image can be restored by. An image is never changed once it has its key. Facts about runsc 20240729
 * (contracts B2, B9, and tried here): a failed checkpoint leaves a paused sandbox as it was; it fails when a process
 * has a removed file of the disk open, or a connection through network `full`; a restore reads all of the image before
 * it returns; a network stack comes back in a namespace that was made anew with the same addresses.
 *
 * Everything blocks: for a worker's jobs.
 */
#ifndef EW_SERVICES_GVISORD_CHECKPOINT_H
#define EW_SERVICES_GVISORD_CHECKPOINT_H

#include "services/gvisord/runtime.h"

#include <stdint.h>

/* Writes the image of sandbox `id` into the new directory `dir`, with `key`, not synced. On failure *why
 * is a sentence for its user and dir is gone. */
int checkpoint_take(const runtime_t *r, const char *id, const char *dir, const json_t *key, bool leave_running,
                    unsigned timeout_ms, err_t **why);
/* Why the image in dir cannot be restored under `key`, as a sentence; NULL: it can be. Caller frees. */
char *checkpoint_mismatch(const char *dir, const json_t *key);
/* Is there a complete image? */
bool checkpoint_exists(const char *dir);

/* Stops all its processes until checkpoint_unpause. By the control socket (0.2 ms), else by the command (30 ms):
 * *by_command, to be given back. */
int checkpoint_pause(const runtime_t *r, const char *id, bool *by_command, err_t **e);
/* Only for a paused one: runsc 20240729 panics, and with it the sandbox ends, when one that runs is resumed. */
int checkpoint_unpause(const runtime_t *r, const char *id, bool by_command, err_t **e);

#endif
