/* SPDX-License-Identifier: Apache-2.0
 *
 * Errors: a code (maps to HTTP and to the wire), a message for a person, optional details (a JSON object as text)
 * and the cause chain for the log.
 *
 * Convention: `err_t **e` is the last parameter and never NULL; a function that fails returns -1 or NULL and sets *e
 * exactly once; setting over an error is a bug and aborts. The caller owns *e: `auto_err err_t *e = NULL;` frees it.
 */
#ifndef EW_COMMON_ERR_H
#define EW_COMMON_ERR_H

#include <stdbool.h>

enum err_code {
    ERR_NONE = 0,
#define X(name, wire, http, retry, doc) ERR_##name,
#include "common/err_codes.def"
#undef X
    ERR_CODE_COUNT
};

typedef struct err err_t;

/* Both return -1 so that `return err_set(e, …)` reads well. The message is cut at 1000 bytes. */
int err_set(err_t **e, enum err_code code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Appends ": <strerror(errnum)>"; pass errno as saved at the failing call. Code NONE picks one from errnum
 * (ENOENT not_found, ENOSPC/EDQUOT no_space, EACCES/EPERM/… bad_request, else internal_error). */
int err_set_errno(err_t **e, enum err_code code, int errnum, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* Puts context in front: "<new>: <old>"; code and details stay. */
int err_wrap(err_t **e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* As err_wrap, but replaces the code too. */
int err_wrap_code(err_t **e, enum err_code code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Adds the details object: JSON text, copied. */
void err_set_details(err_t *e, const char *json_object);

enum err_code err_code(const err_t *e);
const char *err_message(const err_t *e);
const char *err_details(const err_t *e); /* NULL without details */

const char *err_code_name(enum err_code code);  /* the wire code */
int err_code_http(enum err_code code);          /* the HTTP status */
bool err_code_is_retryable(enum err_code code); /* may succeed if tried again unchanged */
const char *err_code_doc(enum err_code code);
enum err_code err_code_from_name(const char *wire_code); /* unknown names give ERR_PROTOCOL */

/* clang-tidy looks at one file at a time and would else follow paths on which a failure is none. Never compiled. */
#if defined(__clang_analyzer__) && !defined(ERR_IMPLEMENTATION)
#define ERR_HAS_FAILED(e, call)      \
    ({                               \
        (void)(call);                \
        if (*(e) == 0)               \
            __builtin_unreachable(); \
        -1;                          \
    })
#define err_set(e, ...) ERR_HAS_FAILED(e, err_set(e, __VA_ARGS__))
#define err_set_errno(e, ...) ERR_HAS_FAILED(e, err_set_errno(e, __VA_ARGS__))
#define err_wrap(e, ...) ERR_HAS_FAILED(e, err_wrap(e, __VA_ARGS__))
#define err_wrap_code(e, ...) ERR_HAS_FAILED(e, err_wrap_code(e, __VA_ARGS__))
#endif

void err_free(err_t **e);
#define auto_err __attribute__((cleanup(err_free)))

#endif
