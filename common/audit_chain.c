/* SPDX-License-Identifier: Apache-2.0 */
#include "common/audit_chain.h"

#include "common/crypto.h"
#include "common/mem.h"
#include "common/text.h"

#include <string.h>

#define DOMAIN "emergent-audit-1"
#define FIELDS 17
#define STACK_MAX 4096 /* holds every entry that a gateway makes */
#define DIGITS_MAX 20

/* It is made for every operation of a gateway: no allocation, no printf. */
static char *put_number(char *at, uint64_t number)
{
    char digits[DIGITS_MAX];
    size_t count = 0;
    do {
        digits[count++] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    while (count > 0) {
        *at++ = digits[--count]; /* @UNSAFE: room was made by audit_chain_hash */
    }
    return at;
}

static char *put_text(char *at, const char *text)
{
    size_t len = text == NULL ? 0 : strlen(text);
    if (len == 0) {
        *at++ = '-'; /* @UNSAFE: room was made by audit_chain_hash */
    } else {
        at = put_number(at, len);
        *at++ = ':';
        memcpy(at, text, len);
        at += len;
    }
    *at++ = ',';
    return at;
}

void audit_chain_hash(const struct audit_entry *entry, char hash[AUDIT_HASH_SIZE])
{
    char sequence[DIGITS_MAX + 1], status[DIGITS_MAX + 1], duration[DIGITS_MAX + 1];
    *put_number(sequence, entry->sequence) = '\0';
    *put_number(status, entry->status) = '\0';
    *put_number(duration, entry->duration_ms) = '\0';
    const char *fields[FIELDS] = {
        DOMAIN,
        entry->previous_hash,
        entry->chain,
        sequence,
        entry->at,
        entry->owner,
        entry->workspace_id,
        entry->operation,
        entry->method,
        entry->status == 0 ? NULL : status,
        duration,
        entry->caller,
        entry->agent_session_id,
        entry->request_id,
        entry->summary,
        entry->error_code,
        entry->error,
    };
    size_t room = 0;
    for (size_t i = 0; i < FIELDS; i++) {
        room += DIGITS_MAX + 2 + (fields[i] == NULL ? 0 : strlen(fields[i]));
    }
    char stack[STACK_MAX];
    auto_free char *heap = room > sizeof(stack) ? mem_alloc(room) : NULL;
    char *text = heap != NULL ? heap : stack, *end = text;
    for (size_t i = 0; i < FIELDS; i++) {
        end = put_text(end, fields[i]);
    }
    uint8_t digest[SHA256_SIZE];
    sha256(digest, text, (size_t)(end - text));
    hex_encode(hash, digest, sizeof(digest));
}
