// SPDX-License-Identifier: Apache-2.0
// LINK: agent/glob_match.c agent/glob_part.c common/mem.c common/err.c common/buf.c common/text.c
// LINK: common/clock.c
/* A glob pattern, a NUL, a path: no crash, no hang, and what matches was never cut off on the way down. */
#include "agent/glob_match.h"
#include "common/mem.h"

#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *nul = size > 0 ? memchr(data, 0, size) : NULL;
    err_t *e = NULL;
    if (nul == NULL || size > 4095)
        return 0;
    auto_free char *path = mem_strndup((const char *)nul + 1, size - (size_t)(nul + 1 - data));
    glob_pattern_t *g = glob_new((const char *)data, &e);
    size_t len = strlen(path);
    bool is_plain =
        len > 0 && path[0] != '/' && path[len - 1] != '/' && strstr(path, "//") == NULL; /* as the contract wants it */
    if (g != NULL && glob_match(g, path) && is_plain)
        for (char *slash = strchr(path, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
            *slash = '\0';
            if (!glob_may_enter(g, path))
                abort();
            *slash = '/';
        }
    if (glob_literal_prefix((const char *)data) > (size_t)(nul - data))
        abort();
    glob_destroy(&g);
    err_free(&e);
    return 0;
}
