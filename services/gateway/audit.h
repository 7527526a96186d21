/* SPDX-License-Identifier: Apache-2.0
 *
 * The audit: one line in the log and one row of kb.workspace_audit for each tool and lifecycle operation. Never
 * contents, never secrets.
 *
 *   audit.c          the lines that wait, their numbers and hashes, the store
 *   audit_request.c  which routes are audited, a finished request as a line
 *   audit_list.c     GET …/audit
 *   audit_keep.c     WORKSPACE_AUDIT_KEEP_DAYS
 *
 * Lines are numbered and hashed (common/audit_chain.h) as they are given to the store, one batch at a time: a line that
 * a crash takes away was never numbered, and the chain goes on without a gap. A batch that fails is kept; before it is
 * sent again the chain's last row is read, so that what was stored all the same is not stored twice.
 *
 * Bounds: AUDIT_LINES_MAX lines and AUDIT_BYTES_MAX bytes wait. Beyond that new lines are counted, and one line
 * `audit_lost` tells how many as soon as there is room.
 */
#ifndef EW_GATEWAY_AUDIT_H
#define EW_GATEWAY_AUDIT_H

#include "services/gateway/gateway.h"

#define AUDIT_LINES_MAX 16384
#define AUDIT_BYTES_MAX ((size_t)8 << 20)
#define AUDIT_BATCH 256
#define AUDIT_FLUSH_MS 250
#define AUDIT_COLUMNS 16
#define AUDIT_CHAIN_SETTING "audit_chain:" /* then node and state directory: one chain for each gateway */

/* What a line says; NULL or "" = nothing. Copied. Texts are cut to the sizes of MSG_audit_entry. */
typedef struct audit_fields {
    const char *owner, *workspace_id, *operation, *method, *caller, *session, *request_id, *summary, *error_code,
        *error;
    int status; /* 0 = none */
    uint64_t duration_ms;
} audit_fields_t;

int audit_open(gateway_t *gw, err_t **e); /* after the store */
void audit_close(gateway_t *gw);          /* stores what waits; before the store is closed */
void audit_add(gateway_t *gw, const audit_fields_t *fields);

/* Calls `then` once everything noted so far is stored, or at once when nothing waits or the store fails; maybe within
 * this call. Forgotten with audit_close. */
typedef void (*audit_then_fn)(void *arg);
void audit_when_stored(gateway_t *gw, audit_then_fn then, void *arg);

size_t audit_waiting(const gateway_t *gw);
uint64_t audit_lost(const gateway_t *gw); /* since the start */

/* audit_request.c: called by the gate when a request is over, and (at its head) to take down whose workspace it is. */
const char *audit_operation(const route_t *route); /* NULL = not audited */
void audit_take_workspace(api_request_t *r);
void audit_request(api_request_t *r, uint64_t duration_us);

/* audit_keep.c */
typedef struct audit_keep audit_keep_t;
audit_keep_t *audit_keep_new(gateway_t *gw); /* NULL when lines are kept for ever */
void audit_keep_now(audit_keep_t *k);
void audit_keep_free(audit_keep_t *k);

#endif
