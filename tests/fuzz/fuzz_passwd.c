// SPDX-License-Identifier: Apache-2.0
// LINK: agent/users.c common/mem.c common/err.c common/buf.c common/text.c
/* /etc/passwd and /etc/group belong to whoever is in the sandbox: any bytes must be harmless, names stay within their
 * buffers. */
#include "agent/users.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    user_t user = {0};
    char name[USER_NAME_SIZE];
    char *text = malloc(size > 0 ? size : 1); /* no byte more: a read past the end is seen */
    memcpy(text, data, size);
    if (users_find_name(text, size, "agent", &user)) {
        if (strcmp(user.name, "agent") != 0 || memchr(user.home, '\0', sizeof user.home) == NULL)
            abort();
        users_add_groups(text, size, &user);
        if (user.group_count > USER_GROUPS_MAX)
            abort();
    }
    users_find_uid(text, size, 1000, &user);
    if (users_find_gid(text, size, 0, name, sizeof name) && memchr(name, '\0', sizeof name) == NULL)
        abort();
    free(text);
    return 0;
}
