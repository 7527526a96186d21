/* SPDX-License-Identifier: Apache-2.0
 *
 * REST bodies through the same rows as the fabric: JSON → encoded message → JSON, and JSON Schema for OpenAPI and MCP.
 */
#ifndef EW_PROTO_PROTO_JSON_H
#define EW_PROTO_PROTO_JSON_H

#include "common/buf.h"
#include "common/err.h"
#include "common/json_writer.h"
#include "proto/proto.h"

#include <jansson.h>

/* Appends the encoded message made from a JSON object. Rules:
 *  - a required field that is absent, null or (NONEMPTY) empty: 400 "<field> is required"
 *  - a wrong JSON type: 400 "<field> must be a string" / "a whole number" / "true or false" / "an array of strings" / …
 *  - a value outside its row: 400 naming the limit or the allowed values; strings with NUL: 400
 *  - BULK `x` is a string (its UTF-8 bytes), or `x_base64`; both at once: 400; bad base64: 400
 *  - HIDE fields are unknown fields; unknown fields are skipped and their names (comma separated, at most 10) go to
 * `unknown` if not NULL, in printable ASCII (fit for a header) and cut at 64 bytes
 *  - null = absent, and so is "" where the row has choices; keys match exactly
 *  - JSON fields take objects only
 * Errors never quote SECRET values. */
int proto_from_json(unsigned msg_id, const json_t *object, buf_t *out, buf_t *unknown, err_t **e);

enum proto_json_flag {
    PROTO_JSON_BASE64 = 1, /* BULK fields as `<name>_base64` */
};
/* Writes the encoded message as an object, in row order. OMIT fields are left out when zero/empty; other absent scalars
 * are written as 0/false/"", absent lists as []; absent STR/JSON/MSG/BULK without OMIT: STR and BULK as "", JSON and
 * MSG left out. A BULK that is not UTF-8 is written with U+FFFD and followed by `"<name>_lossy": true`. STR likewise
 * repaired (no marker). JSON that is none is left out. Bytes that do not decode: protocol_error, with nothing written.
 */
int proto_to_json(unsigned msg_id, const void *bytes, size_t len, unsigned flags, json_writer_t *w, err_t **e);
/* The same without the surrounding braces: the caller has opened the object and may add keys. */
int proto_to_json_fields(unsigned msg_id, const void *bytes, size_t len, unsigned flags, json_writer_t *w, err_t **e);

/* JSON Schema of the message as a REST request (is_request) or reply body. Nested messages are $ref
 * "#/components/schemas/<name>". */
void proto_json_schema(unsigned msg_id, bool is_request, json_writer_t *w);

#endif
