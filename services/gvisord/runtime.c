/* SPDX-License-Identifier: Apache-2.0 */
#include "services/gvisord/runtime.h"

void runtime_add(runtime_command_t *c, const char *argument)
{
    if (c->argc < RUNTIME_ARGV_MAX - 1)
        c->argv[c->argc++] = argument;
    c->argv[c->argc] = NULL;
}

void runtime_begin(runtime_command_t *c, const runtime_t *r, const char *log)
{
    c->argc = 0;
    runtime_add(c, r->path);
    runtime_add(c, "--root");
    runtime_add(c, r->root);
    if (log) {
        runtime_add(c, "--log");
        runtime_add(c, log);
        runtime_add(c, "--log-format");
        runtime_add(c, "json");
    }
    if (r->is_crun) {
        runtime_add(c, "--cgroup-manager=disabled");
        return;
    }
    runtime_add(c, "--platform");
    runtime_add(c, r->platform);
    runtime_add(c, "--network");
    runtime_add(c, r->has_network ? "sandbox" : "none");
    runtime_add(c, "--overlay2=none");
    runtime_add(c, "--ignore-cgroups");
}

json_t *runtime_to_json(const runtime_t *r)
{
    return json_pack("{s:s*,s:s,s:s,s:b,s:b}", "path", r->path, "root", r->root, "platform", r->platform, "crun",
                     r->is_crun, "network", r->has_network);
}

void runtime_from_json(runtime_t *r, const json_t *object)
{
    *r = (runtime_t){.path = json_string_value(json_object_get(object, "path")),
                     .root = json_string_value(json_object_get(object, "root")),
                     .platform = json_string_value(json_object_get(object, "platform")),
                     .is_crun = json_is_true(json_object_get(object, "crun")),
                     .has_network = json_is_true(json_object_get(object, "network"))};
}
