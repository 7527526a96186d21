/* SPDX-License-Identifier: Apache-2.0
 *
 * The environment of a command: defaults (PATH, LANG, TERM), over them the agent's own environment as the sandbox was
 * made with it (without what is meant for the agent), what agent_configure said, HOME, USER and LOGNAME of the user it
 * runs as, and last what the call asks for.
 */
#ifndef EW_AGENT_ENVIRON_H
#define EW_AGENT_ENVIRON_H

#include "agent/users.h"
#include "common/err.h"
#include "proto/proto.h"

typedef struct environ {
    char **vars; /* NAME=value, NULL ends it */
    size_t count;
    size_t cap;
} environ_t;

void environ_init(environ_t *env, const user_t *user);
/* bad_request for a name that is empty or has '='. */
int environ_put_map(environ_t *env, const proto_list_t *map, err_t **e);
int environ_put_var(environ_t *env, const char *var, err_t **e); /* NAME=value */
const char *environ_get(const environ_t *env, const char *name); /* NULL if unset */
void environ_free(environ_t *env);
/* From now on these are in every environment, over the agent's own; takes the place of an earlier map. */
int environ_configure(const proto_list_t *map, err_t **e);

#endif
