/* SPDX-License-Identifier: Apache-2.0
 *
 * Reads CURVE certificates in the text form that CZMQ writes (`emergent keygen`, zcert(3)): a section "curve" with
 * public-key and secret-key in Z85. Read here and not by CZMQ, because its library brings libsystemd and seven more
 * into every daemon, a megabyte of resident memory each, for these two lines.
 */
#ifndef EW_COMMON_CURVE_CERT_H
#define EW_COMMON_CURVE_CERT_H

#include "common/err.h"

#include <stdbool.h>
#include <stdint.h>

#define CURVE_KEY_SIZE 32

typedef struct curve_cert {
    uint8_t public_key[CURVE_KEY_SIZE];
    uint8_t secret_key[CURVE_KEY_SIZE];
    bool has_secret;
} curve_cert_t;

/* `path`_secret when there is one, as CZMQ keeps the secret half there, else `path`. Wipe a secret after use. 0, or -1
 * + error: not readable, no certificate. */
int curve_cert_read(const char *path, curve_cert_t *cert, err_t **e);

#endif
