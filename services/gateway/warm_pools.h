/* SPDX-License-Identifier: Apache-2.0
 *
 * Which warm pools there are to be. The targets come from WORKSPACE_WARM_POOL_SIZE (one pool of the default shape) or,
 * once set, from PUT /api/v1/admin/warm-pools (kept in the store, in force until DELETE). They are told to every
 * provider daemon that can have pools, when it comes up and when they change; what fails is told again every
 * WARM_POOLS_RETRY_MS. The daemons make, check, claim and refill (common/provider/pool.c); here is only the wish.
 */
#ifndef EW_GATEWAY_WARM_POOLS_H
#define EW_GATEWAY_WARM_POOLS_H

#include "services/gateway/gateway.h"

#define WARM_POOLS_MAX 64
#define WARM_POOLS_RETRY_MS 5000
#define WARM_POOLS_SIZE_MAX 10000 /* sandboxes of all pools on one node */

int warm_pools_open(gateway_t *gw, err_t **e); /* after the store, before the fabric */
void warm_pools_close(gateway_t *gw);
void warm_pools_on_peer_up(gateway_t *gw, fabric_peer_t *peer); /* after orchestrator_on_peer_up */
void warm_pools_write_metrics(gateway_t *gw, buf_t *out);

#endif
