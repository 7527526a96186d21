// SPDX-License-Identifier: Apache-2.0
#include "common/curve_cert.h"

#include "common/crypto.h"
#include "common/file.h"
#include "common/mem.h"

#include <string.h>
#include <unistd.h>
#include <zmq.h>

#define CERT_FILE_MAX (16 * 1024)
#define KEY_TEXT_LEN 40 /* Z85 of 32 bytes */

/* The value of `name = "value"` in a line without its indent; false for another name. */
static bool take_value(const char *line, size_t len, const char *name, char value[KEY_TEXT_LEN + 1])
{
    size_t at = strlen(name);
    if (len < at || memcmp(line, name, at) != 0)
        return false;
    while (at < len && (line[at] == ' ' || line[at] == '='))
        at++;
    char quote = at < len && (line[at] == '"' || line[at] == '\'') ? line[at++] : '\0';
    if (len < at + KEY_TEXT_LEN + (quote != '\0') || (quote != '\0' && line[at + KEY_TEXT_LEN] != quote))
        return false;
    memcpy(value, line + at, KEY_TEXT_LEN);
    value[KEY_TEXT_LEN] = '\0';
    return strlen(value) == KEY_TEXT_LEN;
}

static void take_line(const char *line, size_t len, bool *is_curve, bool *has_public, curve_cert_t *cert)
{
    char text[KEY_TEXT_LEN + 1];
    size_t indent = 0;
    while (indent < len && line[indent] == ' ')
        indent++;
    if (indent == len || line[indent] == '#')
        return;
    if (indent == 0) { /* a section begins */
        *is_curve = len >= 5 && memcmp(line, "curve", 5) == 0;
        return;
    }
    line += indent;
    len -= indent;
    if (*is_curve && take_value(line, len, "public-key", text))
        *has_public = zmq_z85_decode(cert->public_key, text) != NULL;
    else if (*is_curve && take_value(line, len, "secret-key", text))
        cert->has_secret = zmq_z85_decode(cert->secret_key, text) != NULL;
    mem_wipe(text, sizeof text);
}

int curve_cert_read(const char *path, curve_cert_t *cert, err_t **e)
{
    auto_free char *beside = mem_printf("%s_secret", path);
    const char *read_path = access(beside, F_OK) == 0 ? beside : path;
    buf_t text;
    bool is_curve = false, has_public = false;
    *cert = (curve_cert_t){.has_secret = false};
    buf_init(&text, CERT_FILE_MAX + 1);
    int result = file_read(read_path, CERT_FILE_MAX, &text, e);
    const char *at = (const char *)text.data, *end = at + text.len;
    while (result == 0 && at < end) {
        const char *lf = memchr(at, '\n', (size_t)(end - at));
        const char *stop = lf ? lf : end;
        take_line(at, (size_t)(stop - at) - (stop > at && stop[-1] == '\r'), &is_curve, &has_public, cert);
        at = lf ? lf + 1 : end;
    }
    buf_wipe(&text);
    if (result == 0 && !has_public)
        result = err_set(e, ERR_BAD_REQUEST, "%s is not a CURVE certificate: make one with emergent keygen", path);
    return result;
}
