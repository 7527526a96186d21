/* SPDX-License-Identifier: Apache-2.0
 *
 * Shared by orchestrator.c and orchestrator_pick.c only.
 */
#ifndef EW_GATEWAY_ORCHESTRATOR_INTERNAL_H
#define EW_GATEWAY_ORCHESTRATOR_INTERNAL_H

#include "services/gateway/orchestrator.h"

/* A provider that this suite knows, whether or not a daemon for it runs. */
typedef struct provider_row {
    const char *name;
    const char *daemon; /* role in HELLO */
    const char *label;
    bool requires_kvm;
} provider_row_t;
extern const provider_row_t ORCHESTRATOR_TABLE[ORCHESTRATOR_PROVIDERS];
const provider_row_t *orchestrator_row(const char *provider); /* NULL if unknown */

struct orchestrator {
    provider_node_t *nodes;
    char *last_reasons; /* of the last automatic pick, so that the log says each once */
};

/* Why a daemon cannot be asked at all; writes nothing when it can. */
void orchestrator_absence(const provider_node_t *n, const provider_row_t *row, buf_t *reason);

#endif
