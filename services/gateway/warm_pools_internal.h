/* SPDX-License-Identifier: Apache-2.0
 *
 * Shared by warm_pools.c (targets, telling the daemons) and warm_pools_api.c (REST, metrics) only.
 */
#ifndef EW_GATEWAY_WARM_POOLS_INTERNAL_H
#define EW_GATEWAY_WARM_POOLS_INTERNAL_H

#include "services/gateway/orchestrator.h"
#include "services/gateway/store.h"
#include "services/gateway/warm_pools.h"

#define WARM_POOLS_SETTING "warm_pools"

typedef struct pool_row {
    char provider[33]; /* "" = every one that can */
    char image[256];   /* "" = the default */
    char disk[17];
    char network[17];
    uint32_t size;
} pool_row_t;

typedef struct pool_targets {
    pool_row_t rows[WARM_POOLS_MAX];
    size_t count;
    bool is_from_api;
} pool_targets_t;

struct warm_pool_set {
    pool_targets_t now;
    uint64_t generation; /* of `now`; a node that took it says so in pools_taken */
    struct event *again;
    bool is_changing;
};

void pool_targets_from_config(const config_t *config, pool_targets_t *t);
char *pool_targets_to_text(const pool_targets_t *t); /* for the store; caller frees */
/* They are in the store: from now on in force, and told to every daemon. */
void warm_pools_take(gateway_t *gw, const pool_targets_t *t);

#endif
