// SPDX-License-Identifier: Apache-2.0
#include "agent/call.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WORKSPACE_DEFAULT "/workspace"

const char *agent_workspace(void)
{
    const char *path = getenv("AGENT_WORKSPACE");
    return path != NULL && path[0] == '/' ? path : WORKSPACE_DEFAULT;
}

int agent_path(const char *path, char *out, size_t size, err_t **e)
{
    int len;
    if (path[0] == '/')
        len = snprintf(out, size, "%s", path);
    else if (path[0] == '\0')
        len = snprintf(out, size, "%s", agent_workspace());
    else
        len = snprintf(out, size, "%s/%s", agent_workspace(), path);
    if (len < 0 || (size_t)len >= size)
        return err_set(e, ERR_BAD_REQUEST, "the path \"%.100s…\" is too long (%zu bytes at most)", path, size - 1);
    return 0;
}
