/* SPDX-License-Identifier: Apache-2.0
 *
 * The hash that chains the lines of the audit: made by the gateway, checked by `emergent audit verify` and by anybody.
 *
 * hash = lower-case hexadecimal SHA-256 over these fields, in this order, each written as `<bytes>:<text>,` (a
 * netstring, the length in decimal) or, when it is absent, as `-,`:
 *
 *   "emergent-audit-1", the hash of the line before (absent in the first line of a chain), chain, sequence, at, owner,
 *   workspace_id, operation, method, status, duration_ms, caller, agent_session_id, request_id, summary, error_code,
 *   error
 *
 * Texts are as the REST API shows them (`at` with milliseconds and Z), numbers in decimal without sign or leading
 * zeros. An empty text and status 0 count as absent.
 */
#ifndef EW_COMMON_AUDIT_CHAIN_H
#define EW_COMMON_AUDIT_CHAIN_H

#include "proto/messages.h"

#define AUDIT_HASH_SIZE 65 /* 64 digits and NUL */

/* Of entry and entry->previous_hash; entry->hash and `has` are not looked at. */
void audit_chain_hash(const struct audit_entry *entry, char hash[AUDIT_HASH_SIZE]);

#endif
