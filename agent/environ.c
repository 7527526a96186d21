// SPDX-License-Identifier: Apache-2.0
#include "agent/environ.h"

#include "common/mem.h"

#include <unistd.h>

static const char *const defaults[] = {
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG=C.UTF-8",
    "TERM=dumb",
};

/* Said to the agent, not to commands. */
static const char *const internal[] = {"AGENT_WORKSPACE", "AGENT_CGROUP", "AGENT_LINK"};

static environ_t configured;

static bool is_named(const char *var, const char *name, size_t len)
{
    return strncmp(var, name, len) == 0 && var[len] == '=';
}

static void put(environ_t *env, const char *name, size_t name_len, const char *value)
{
    char *var = mem_alloc(name_len + 1 + strlen(value) + 1);
    memcpy(var, name, name_len);
    var[name_len] = '=';
    memcpy(var + name_len + 1, value, strlen(value));
    for (size_t i = 0; i < env->count; i++) {
        if (is_named(env->vars[i], name, name_len)) {
            free(env->vars[i]);
            env->vars[i] = var;
            return;
        }
    }
    if (env->count + 1 >= env->cap) {
        env->cap = env->cap ? env->cap * 2 : 32;
        env->vars = mem_realloc(env->vars, env->cap * sizeof *env->vars);
    }
    env->vars[env->count++] = var;
    env->vars[env->count] = NULL;
}

static void put_var(environ_t *env, const char *var)
{
    const char *equals = strchr(var, '=');
    if (equals != NULL && equals != var)
        put(env, var, (size_t)(equals - var), equals + 1);
}

static bool is_internal(const char *var)
{
    for (size_t i = 0; i < COUNT_OF(internal); i++)
        if (is_named(var, internal[i], strlen(internal[i])))
            return true;
    return false;
}

void environ_init(environ_t *env, const user_t *user)
{
    *env = (environ_t){0};
    for (size_t i = 0; i < COUNT_OF(defaults); i++)
        put_var(env, defaults[i]);
    for (char **var = environ; *var != NULL; var++)
        if (!is_internal(*var))
            put_var(env, *var);
    for (size_t i = 0; i < configured.count; i++)
        put_var(env, configured.vars[i]);
    put(env, "HOME", 4, user->home);
    put(env, "USER", 4, user->name);
    put(env, "LOGNAME", 7, user->name);
}

int environ_put_var(environ_t *env, const char *var, err_t **e)
{
    const char *equals = strchr(var, '=');
    if (equals == NULL || equals == var)
        return err_set(e, ERR_BAD_REQUEST, "env: \"%.64s\" is not NAME=value", var);
    put(env, var, (size_t)(equals - var), equals + 1);
    return 0;
}

int environ_put_map(environ_t *env, const proto_list_t *map, err_t **e)
{
    const char *name, *value;
    proto_iter_t it = proto_iter_map(map);
    while (proto_iter_str(&it, &name) && proto_iter_str(&it, &value)) {
        if (name[0] == '\0' || strchr(name, '=') != NULL)
            return err_set(e, ERR_BAD_REQUEST, "env: \"%.64s\" is not a name of a variable", name);
        put(env, name, strlen(name), value);
    }
    return 0;
}

int environ_configure(const proto_list_t *map, err_t **e)
{
    environ_t fresh = {0};
    if (environ_put_map(&fresh, map, e) < 0) {
        environ_free(&fresh);
        return -1;
    }
    environ_free(&configured);
    configured = fresh;
    return 0;
}

const char *environ_get(const environ_t *env, const char *name)
{
    size_t len = strlen(name);
    for (size_t i = 0; i < env->count; i++)
        if (is_named(env->vars[i], name, len))
            return env->vars[i] + len + 1;
    return NULL;
}

void environ_free(environ_t *env)
{
    for (size_t i = 0; i < env->count; i++)
        free(env->vars[i]);
    free(env->vars);
    *env = (environ_t){0};
}
