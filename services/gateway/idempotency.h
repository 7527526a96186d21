/* SPDX-License-Identifier: Apache-2.0
 *
 * Idempotency-Key of mutating calls: the call id is made from (owner, workspace, route, key), and the agent answers a
 * repeated call id from its store. This cache, bounded and in memory, adds what the agent cannot know: whether the
 * first call still runs (409), and whether the body differs (422). A gateway that restarted has forgotten both and asks
 * the agent all the same. A create keeps its key in the workspace's id.
 */
#ifndef EW_GATEWAY_IDEMPOTENCY_H
#define EW_GATEWAY_IDEMPOTENCY_H

#include "services/gateway/gateway.h"

#define IDEMPOTENCY_ENTRIES 4096
#define IDEMPOTENCY_KEY_MAX 255

idempotency_t *idempotency_new(void);
void idempotency_destroy(idempotency_t **t);
/* 0: no key was sent, or *call_id is set and the call may start; then idempotency_done() is due. -1 + error: bad key,
 * running, other body. */
int idempotency_begin(api_request_t *r, uint64_t *call_id, err_t **e);
/* The id of the workspace that a create with this request's key makes: from suite, owner and key. */
void idempotency_uuid(const api_request_t *r, const char *suite, uuid16_t *id);
void idempotency_done(idempotency_t *t, uint64_t call_id);

#endif
