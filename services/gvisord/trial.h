/* SPDX-License-Identifier: Apache-2.0
 *
 * One trial of the probe: a real sandbox of the default image is made with a variant, its agent must answer and run
 * `ls`, then it is removed.
 */
#ifndef EW_SERVICES_GVISORD_TRIAL_H
#define EW_SERVICES_GVISORD_TRIAL_H

#include "services/gvisord/gvisord.h"

#define TRIAL_TIMEOUT_MS 20000

typedef struct trial trial_t;

typedef struct trial_outcome {
    bool has_answered;   /* the agent runs */
    bool has_working_ls; /* and so do ordinary programs (20221219 runsc fails statx, B9) */
    bool has_resumed;    /* TRIAL_CHECKPOINT: its agent went on after a checkpoint */
    uint32_t startup_ms; /* create to agent ready */
    char message[400];   /* of the failure */
} trial_outcome_t;

enum trial_kind {
    TRIAL_COMMANDS,  /* as told above */
    TRIAL_CHECKPOINT /* instead of `ls`: stopped with its processes, and resumed */
};

/* `ended` is called once, from the loop, after nothing is left of the sandbox. */
trial_t *trial_start(gvisord_t *gv, const runtime_variant_t *variant, const char *network, enum trial_kind kind,
                     void (*ended)(void *arg, const trial_outcome_t *outcome), void *arg, err_t **e);
/* Ends it early; `ended` is still called when nothing is left. */
void trial_stop(trial_t *t);
/* Frees without calling `ended`; the next start of the daemon sweeps what is left. */
void trial_abandon(trial_t **t);

#endif
