// SPDX-License-Identifier: Apache-2.0
#define ERR_IMPLEMENTATION
#include "common/err.h"

#include "common/mem.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#define ERR_MESSAGE_MAX 1000

struct err {
    enum err_code code;
    char *details;
    char message[ERR_MESSAGE_MAX + 1];
};

static const struct code_row {
    const char *wire;
    int http;
    bool is_retryable;
    const char *doc;
} code_rows[ERR_CODE_COUNT] = {
    [ERR_NONE] = {"none", 200, false, "no error"},
#define X(name, wire, http, retry, doc) [ERR_##name] = {wire, http, retry, doc},
#include "common/err_codes.def"
#undef X
};

static const struct errno_row {
    int errnum;
    enum err_code code;
} errno_rows[] = {
    {ENOENT, ERR_NOT_FOUND},         {ENOSPC, ERR_NO_SPACE},
    {EDQUOT, ERR_NO_SPACE},          {EACCES, ERR_BAD_REQUEST},
    {EPERM, ERR_BAD_REQUEST},        {ENOTDIR, ERR_BAD_REQUEST},
    {EISDIR, ERR_BAD_REQUEST},       {ELOOP, ERR_BAD_REQUEST},
    {ENAMETOOLONG, ERR_BAD_REQUEST}, {EROFS, ERR_BAD_REQUEST},
    {EINVAL, ERR_BAD_REQUEST},       {ENOTEMPTY, ERR_CONFLICT},
    {EEXIST, ERR_CONFLICT},          {EBUSY, ERR_CONFLICT},
    {ETXTBSY, ERR_CONFLICT},         {ETIMEDOUT, ERR_DEADLINE_EXCEEDED},
};

static enum err_code code_from_errno(int errnum)
{
    for (size_t i = 0; i < COUNT_OF(errno_rows); i++)
        if (errno_rows[i].errnum == errnum)
            return errno_rows[i].code;
    return ERR_INTERNAL;
}

/* A message that was cut in the middle of a UTF-8 character loses the broken part. */
static void trim_broken_end(char *text)
{
    size_t len = strlen(text), back = 0;
    while (back < 3 && back < len && ((unsigned char)text[len - 1 - back] & 0xc0) == 0x80)
        back++;
    if (back >= len)
        return;
    unsigned char lead = (unsigned char)text[len - 1 - back];
    size_t need = lead >= 0xf0 ? 3 : lead >= 0xe0 ? 2 : lead >= 0xc0 ? 1 : 0;
    if (need > back)
        text[len - 1 - back] = '\0';
}

/* strerror() is not safe beside the threads of actors. */
static const char *errno_text(int errnum)
{
    const char *text = strerrordesc_np(errnum);
    return text ? text : "unknown error";
}

static err_t *err_new(err_t **e, enum err_code code)
{
    assert(e != NULL && *e == NULL);
    assert(code > ERR_NONE && code < ERR_CODE_COUNT);
    *e = mem_alloc(sizeof **e);
    (*e)->code = code;
    return *e;
}

int err_set(err_t **e, enum err_code code, const char *fmt, ...)
{
    va_list ap;
    err_t *err = err_new(e, code);
    va_start(ap, fmt);
    vsnprintf(err->message, sizeof err->message, fmt, ap);
    va_end(ap);
    trim_broken_end(err->message);
    return -1;
}

int err_set_errno(err_t **e, enum err_code code, int errnum, const char *fmt, ...)
{
    va_list ap;
    char text[801]; /* shorter than a message, so that the cause stays readable */
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    trim_broken_end(text);
    err_t *err = err_new(e, code == ERR_NONE ? code_from_errno(errnum) : code);
    snprintf(err->message, sizeof err->message, "%s: %.190s", text, errno_text(errnum));
    return -1;
}

static int wrap_message(err_t *err, const char *context)
{
    char old[ERR_MESSAGE_MAX + 1];
    memcpy(old, err->message, sizeof old);
    /* Both parts are cut so that the new context never hides the first cause completely. */
    snprintf(err->message, sizeof err->message, "%.400s: %.590s", context, old);
    trim_broken_end(err->message);
    return -1;
}

int err_wrap(err_t **e, const char *fmt, ...)
{
    va_list ap;
    char context[ERR_MESSAGE_MAX + 1];
    assert(e != NULL && *e != NULL);
    va_start(ap, fmt);
    vsnprintf(context, sizeof context, fmt, ap);
    va_end(ap);
    return wrap_message(*e, context);
}

int err_wrap_code(err_t **e, enum err_code code, const char *fmt, ...)
{
    va_list ap;
    char context[ERR_MESSAGE_MAX + 1];
    assert(e != NULL && *e != NULL);
    assert(code > ERR_NONE && code < ERR_CODE_COUNT);
    va_start(ap, fmt);
    vsnprintf(context, sizeof context, fmt, ap);
    va_end(ap);
    (*e)->code = code;
    return wrap_message(*e, context);
}

void err_set_details(err_t *e, const char *json_object)
{
    free(e->details);
    e->details = mem_strdup(json_object);
}

enum err_code err_code(const err_t *e)
{
    return e ? e->code : ERR_NONE;
}

const char *err_message(const err_t *e)
{
    return e ? e->message : "";
}

const char *err_details(const err_t *e)
{
    return e ? e->details : NULL;
}

static const struct code_row *code_row(enum err_code code)
{
    return &code_rows[code < ERR_CODE_COUNT ? code : ERR_INTERNAL];
}

const char *err_code_name(enum err_code code)
{
    return code_row(code)->wire;
}

int err_code_http(enum err_code code)
{
    return code_row(code)->http;
}

bool err_code_is_retryable(enum err_code code)
{
    return code_row(code)->is_retryable;
}

const char *err_code_doc(enum err_code code)
{
    return code_row(code)->doc;
}

enum err_code err_code_from_name(const char *wire_code)
{
    for (int i = ERR_NONE + 1; i < ERR_CODE_COUNT; i++)
        if (strcmp(code_rows[i].wire, wire_code) == 0)
            return (enum err_code)i;
    return ERR_PROTOCOL;
}

void err_free(err_t **e)
{
    if (*e == NULL)
        return;
    free((*e)->details);
    free(*e);
    *e = NULL;
}
