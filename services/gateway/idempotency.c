/* SPDX-License-Identifier: Apache-2.0 */
#include "services/gateway/idempotency.h"

#include "common/mem.h"

#include <openssl/evp.h>
#include <string.h>

typedef struct entry {
    uint64_t call_id; /* 0 = free */
    uint8_t body[16]; /* start of the SHA-256 of the encoded request */
    bool is_running;
} entry_t;

/* Direct-mapped sets of four: a full set forgets a finished entry, which costs only the check of the body. */
#define WAYS 4
struct idempotency {
    entry_t entries[IDEMPOTENCY_ENTRIES];
    uint8_t hand[IDEMPOTENCY_ENTRIES / WAYS];
};

idempotency_t *idempotency_new(void)
{
    return mem_alloc(sizeof(idempotency_t));
}

void idempotency_destroy(idempotency_t **t)
{
    free(*t);
    *t = NULL;
}

static void digest_parts(uint8_t out[32], const char *const *parts, size_t count, const buf_t *tail)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    unsigned len = 32;
    if (!ctx || EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) != 1) {
        abort(); /* libcrypto without SHA-256 is not usable at all */
    }
    for (size_t i = 0; i < count; i++) {
        EVP_DigestUpdate(ctx, parts[i], strlen(parts[i]) + 1); /* with its NUL: no two lists read the same */
    }
    if (tail) {
        EVP_DigestUpdate(ctx, tail->data, tail->len);
    }
    EVP_DigestFinal_ex(ctx, out, &len);
    EVP_MD_CTX_free(ctx);
}

static entry_t *find(idempotency_t *t, uint64_t call_id)
{
    entry_t *set = &t->entries[(call_id % (IDEMPOTENCY_ENTRIES / WAYS)) * WAYS];
    for (size_t i = 0; i < WAYS; i++) {
        if (set[i].call_id == call_id) {
            return &set[i];
        }
    }
    return NULL;
}

static void remember(idempotency_t *t, uint64_t call_id, const uint8_t *body)
{
    size_t index = call_id % (IDEMPOTENCY_ENTRIES / WAYS);
    entry_t *set = &t->entries[index * WAYS];
    for (size_t i = 0; i < WAYS; i++) {
        entry_t *entry = &set[t->hand[index]++ % WAYS];
        if (!entry->is_running) {
            entry->call_id = call_id;
            entry->is_running = true;
            memcpy(entry->body, body, sizeof entry->body);
            return;
        }
    }
}

int idempotency_begin(api_request_t *r, uint64_t *call_id, err_t **e)
{
    const char *key = http_header(r->http, "idempotency-key");
    if (!key || strcmp(r->route->method, "GET") == 0) {
        return 0;
    }
    size_t len = strlen(key);
    if (len == 0 || len > IDEMPOTENCY_KEY_MAX) {
        return err_set(e, ERR_BAD_REQUEST, "Idempotency-Key must have 1 to %d characters", IDEMPOTENCY_KEY_MAX);
    }
    const char *parts[] = {r->caller.owner, r->workspace, r->route->method, r->route->path, key};
    uint8_t digest[32], body[32];
    digest_parts(digest, parts, COUNT_OF(parts), NULL);
    digest_parts(body, &parts[1], 1, &r->encoded);
    uint64_t id;
    memcpy(&id, digest, sizeof id);
    id = id ? id : 1;
    entry_t *known = r->gw->idempotency ? find(r->gw->idempotency, id) : NULL;
    if (known && memcmp(known->body, body, sizeof known->body) != 0) {
        return err_set(e, ERR_VALIDATION, "Idempotency-Key was used before with a different request; use a new key");
    }
    if (known && known->is_running) {
        return err_set(e, ERR_CONFLICT,
                       "the first request with this Idempotency-Key still runs; retry when it has ended");
    }
    if (known) {
        known->is_running = true;
    } else if (r->gw->idempotency) {
        remember(r->gw->idempotency, id, body);
    }
    *call_id = id;
    return 0;
}

void idempotency_uuid(const api_request_t *r, const char *suite, uuid16_t *id)
{
    const char *parts[] = {suite, r->caller.owner, r->route->path, http_header(r->http, "idempotency-key")};
    uint8_t digest[32];
    digest_parts(digest, parts, COUNT_OF(parts), NULL);
    memcpy(id->bytes, digest, sizeof id->bytes);
    id->bytes[6] = (uint8_t)((id->bytes[6] & 0x0f) | 0x80); /* RFC 9562, version 8: made from something */
    id->bytes[8] = (uint8_t)((id->bytes[8] & 0x3f) | 0x80);
}

void idempotency_done(idempotency_t *t, uint64_t call_id)
{
    entry_t *entry = t && call_id ? find(t, call_id) : NULL;
    if (entry) {
        entry->is_running = false;
    }
}
