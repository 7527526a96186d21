/* SPDX-License-Identifier: Apache-2.0
 *
 * Shared by auth.c (who is it) and api_keys.c (REST over the table of keys).
 */
#ifndef EW_GATEWAY_AUTH_INTERNAL_H
#define EW_GATEWAY_AUTH_INTERNAL_H

#include "common/crypto.h"
#include "services/gateway/gateway.h"

#define API_KEYS_MAX 10000
#define AUTH_OWNER_STANDALONE "standalone"
#define AUTH_STANDALONE_PREFIX "ew_"
#define AUTH_API_KEY_PREFIX "ewk_"
#define AUTH_TOKEN_MAX 512

/* One row of core.api_keys that is not revoked. */
typedef struct api_key {
    uint8_t hash[SHA256_SIZE];
    char id[UUID_TEXT_SIZE];
    char name[64];
    char owner[64];
    char prefix[16]; /* the key's first characters, to recognise it */
    bool can_read, can_write;
    bool is_touched;
    int64_t expires_at_ms, created_at_ms, last_used_at_ms; /* 0 = never */
} api_key_t;

struct auth {
    gateway_t *gw;
    char *standalone; /* NULL: STANDALONE_MODE is off */
    api_key_t **keys; /* sorted by hash */
    size_t count, cap;
    struct event *flush_timer;
};

/* A fresh secret: prefix and 32 random bytes in URL-safe base64; wipe and free it. */
char *auth_new_secret(const char *prefix);
void auth_add_key(auth_t *a, api_key_t *key);  /* takes it */
void auth_take_key(auth_t *a, api_key_t *key); /* out of the cache, now the caller's */
api_key_t *auth_key_by_id(auth_t *a, const char *id);
/* Text of the scopes column: "admin:read admin:write". */
const char *auth_scopes_text(bool can_read, bool can_write);

#endif
