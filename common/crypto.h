/* SPDX-License-Identifier: Apache-2.0
 *
 * The one module that seals secrets at rest (AES-256-GCM), and the hashes of the suite.
 *
 * A key file holds several keys, oldest first: the last one seals, all of them open, so that keys can be changed while
 * old blobs stay readable. It is mode 0600, belongs to the daemon's user, and is made by whoever comes first. Several
 * daemons may share it: a blob under a key that another process added is opened after reading the file again.
 *
 * A blob: version (1 byte) ‖ key id (4) ‖ nonce (12) ‖ ciphertext ‖ tag (16). It is bound to a purpose
 * ("github_app_token") and to the id of its row, so that a blob copied into another row or column does not open.
 *
 * Limits: SEAL_PLAIN_MAX bytes, SEAL_KEYS_MAX keys. Source: NIST SP 800-38D (96-bit random nonces: 2^32 blobs a key).
 */
#ifndef EW_COMMON_CRYPTO_H
#define EW_COMMON_CRYPTO_H

#include "common/buf.h"
#include "common/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SEAL_PLAIN_MAX (1024 * 1024)
#define SEAL_OVERHEAD 33 /* bytes a blob is longer than its content */
#define SEAL_KEYS_MAX 64
#define SHA256_SIZE 32

typedef struct sealer sealer_t;

/* Reads the key file, making it first if it is not there. `import_hex` (NULL or "" = none): 64 hexadecimal digits of a
 * key that becomes the sealing one; it is added to the file, so blobs of the keys before stay readable. */
sealer_t *sealer_open(const char *path, const char *import_hex, err_t **e);
void sealer_destroy(sealer_t **s); /* wipes the keys */

/* Appends the blob to `out`. */
int sealer_seal(sealer_t *s, const char *purpose, const char *row_id, const void *plain, size_t len, buf_t *out,
                err_t **e);
/* Appends the content to `out` (wipe it with buf_wipe). A blob that was changed, moved or sealed under an unknown key:
 * internal_error; nothing is appended then. */
int sealer_unseal(sealer_t *s, const char *purpose, const char *row_id, const void *blob, size_t len, buf_t *out,
                  err_t **e);
/* Adds a fresh key, which seals from now on. */
int sealer_rotate(sealer_t *s, err_t **e);
/* Whether the blob is under the newest key (else: seal it anew when convenient). */
bool sealer_is_current(const sealer_t *s, const void *blob, size_t len);
size_t sealer_key_count(const sealer_t *s);

/* Overwrites the content, then frees. */
void buf_wipe(buf_t *b);

void sha256(uint8_t out[SHA256_SIZE], const void *bytes, size_t len);
void hmac_sha256(uint8_t out[SHA256_SIZE], const void *key, size_t key_len, const void *bytes, size_t len);
/* Time depends on the length only. */
bool crypto_equal(const void *a, const void *b, size_t len);
/* Two texts of any length: time depends on the length of `given` only, never on how much of it is right. */
bool crypto_equal_text(const char *given, const char *secret);

#endif
