/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory and cleanup helpers. Allocation never fails: out of memory ends the process with one line on
 * stderr (limits elsewhere make it rare). Everything is zeroed (not what mem_realloc adds). The caller owns what it
 * gets.
 */
#ifndef EW_COMMON_MEM_H
#define EW_COMMON_MEM_H

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define COUNT_OF(a) (sizeof(a) / sizeof((a)[0]))

void *mem_alloc(size_t size) __attribute__((malloc, returns_nonnull, warn_unused_result));
void *mem_alloc_array(size_t count, size_t size) __attribute__((malloc, returns_nonnull, warn_unused_result));
void *mem_realloc(void *p, size_t size) __attribute__((returns_nonnull, warn_unused_result));
char *mem_strdup(const char *s) __attribute__((malloc, returns_nonnull, warn_unused_result));
/* At most `len` bytes, up to the first NUL. */
char *mem_strndup(const char *s, size_t len) __attribute__((malloc, returns_nonnull, warn_unused_result));
char *mem_printf(const char *fmt, ...)
    __attribute__((malloc, returns_nonnull, warn_unused_result, format(printf, 1, 2)));
/* Overwrites secrets in a way the compiler does not drop. */
void mem_wipe(void *p, size_t len);

/* Scope-bound cleanup: `auto_free char *s = …; auto_close int fd = …;` */
void mem_free_p(void *p);
void fd_close_p(int *fd);
#define auto_free __attribute__((cleanup(mem_free_p)))
#define auto_close __attribute__((cleanup(fd_close_p)))

/* Hands a held pointer or descriptor on: `return STEAL_PTR(s);` */
#define STEAL_PTR(p)                \
    ({                              \
        __typeof__(p) steal_ = (p); \
        (p) = NULL;                 \
        steal_;                     \
    })
#define STEAL_FD(fd)       \
    ({                     \
        int steal_ = (fd); \
        (fd) = -1;         \
        steal_;            \
    })

#endif
