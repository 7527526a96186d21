// SPDX-License-Identifier: Apache-2.0
#include "common/mem.h"

#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

static void out_of_memory(void)
{
    static const char line[] = "out of memory\n";
    ssize_t ignored = write(STDERR_FILENO, line, sizeof line - 1);
    (void)ignored;
    abort();
}

void *mem_alloc(size_t size)
{
    void *p = calloc(1, size ? size : 1);
    if (p == NULL)
        out_of_memory();
    return p;
}

void *mem_alloc_array(size_t count, size_t size)
{
    size_t total;
    if (__builtin_mul_overflow(count, size, &total))
        out_of_memory();
    return mem_alloc(total);
}

void *mem_realloc(void *p, size_t size)
{
    void *q = realloc(p, size ? size : 1);
    if (q == NULL)
        out_of_memory();
    return q;
}

char *mem_strndup(const char *s, size_t len)
{
    if (len > 0)
        len = strnlen(s, len);
    char *copy = mem_alloc(len + 1);
    if (len > 0)
        memcpy(copy, s, len);
    return copy;
}

char *mem_strdup(const char *s)
{
    return mem_strndup(s, strlen(s));
}

char *mem_printf(const char *fmt, ...)
{
    va_list ap;
    char *text = NULL;
    va_start(ap, fmt);
    int len = vasprintf(&text, fmt, ap);
    va_end(ap);
    if (len < 0)
        out_of_memory();
    return text;
}

void mem_wipe(void *p, size_t len)
{
    explicit_bzero(p, len);
}

void mem_free_p(void *p)
{
    free(*(void **)p);
}

void fd_close_p(int *fd)
{
    int saved_errno = errno; /* runs on the way out, when the caller may still read errno */
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
    errno = saved_errno;
}
