/* SPDX-License-Identifier: Apache-2.0
 *
 * What there is in Docker with this daemon's label, when it starts.
 */
#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "services/gvisord/docker_private.h"

/* {"label": ["…=tag"]}, escaped. Caller frees. */
static char *filter(const docker_t *d)
{
    return mem_printf("%%7B%%22label%%22%%3A%%5B%%22" DOCKER_LABEL_INSTANCE "%%3D%s%%22%%5D%%7D", d->tag);
}

static docker_request_t *list(docker_t *d, const char *path, docker_reply_fn done, void *arg)
{
    auto_free char *query = filter(d);
    docker_call_t call = {.method = "GET", .timeout_ms = DOCKER_QUICK_MS};
    call.path = mem_printf("%sfilters=%s", path, query);
    return docker_http_start(d->http, &call, done, arg);
}

/* ---- before the registry is read ---- */

typedef struct look {
    docker_t *d;
    bool is_done;
} look_t;

static void on_found(void *arg, const docker_reply_t *reply, const err_t *err)
{
    look_t *look = arg;
    size_t i;
    const json_t *one;
    look->is_done = true;
    if (err || reply->status != 200) {
        log_warn("what runs in Docker is not known: %s", err ? err_message(err) : reply->text);
        return;
    }
    look->d->found = json_object();
    json_array_foreach(reply->json, i, one)
    {
        const char *name = json_string_value(json_array_get(json_object_get(one, "Names"), 0));
        const char *state = json_string_value(json_object_get(one, "State"));
        if (name && *name == '/' && state)
            json_object_set_new(look->d->found, name + 1, json_boolean(strcmp(state, "running") == 0));
    }
}

void docker_look(docker_t *d)
{
    look_t look = {.d = d};
    docker_request_t *request = list(d, "/containers/json?all=1&", on_found, &look);
    while (!look.is_done && event_base_loop(d->daemon->base, EVLOOP_ONCE) == 0 &&
           !event_base_got_break(d->daemon->base))
        ;
    if (!look.is_done)
        docker_http_cancel(&request);
}

/* ---- afterwards ---- */

typedef struct leftover {
    docker_container_t container;
    char *id;
    docker_task_t *task;
} leftover_t;

static void on_removed(void *arg, const err_t *err)
{
    leftover_t *l = arg;
    if (err)
        log_warn("the leftovers of sandbox %s stay: %s", l->id, err_message(err));
    free(l->id);
    free(l);
}

static bool is_known(const docker_t *d, const char *id)
{
    for (sandbox_t *s = NULL; (s = provider_sandbox_next(d->provider, s));)
        if (strcmp(s->host_id, id) == 0)
            return true;
    return false;
}

static void sweep_one(docker_t *d, const json_t *labels)
{
    const char *id = json_string_value(json_object_get(labels, DOCKER_LABEL_SANDBOX));
    uuid16_t uuid;
    if (!id || !uuid16_parse(&uuid, id) || is_known(d, id))
        return;
    leftover_t *l = mem_alloc(sizeof *l);
    l->id = mem_strdup(id);
    l->container = (docker_container_t){.d = d, .id = l->id};
    log_info("removing the leftovers of sandbox %s", id);
    docker_task_start(d->http, d->daemon->base, DOCKER_REMOVE, &l->container, on_removed, l);
}

static void sweep_list(docker_t *d, const json_t *array)
{
    size_t i;
    const json_t *one;
    json_array_foreach(array, i, one) sweep_one(d, json_object_get(one, "Labels"));
}

static void on_volumes(void *arg, const docker_reply_t *reply, const err_t *err)
{
    if (!err && reply->status == 200)
        sweep_list(arg, json_object_get(reply->json, "Volumes"));
}

static void on_containers(void *arg, const docker_reply_t *reply, const err_t *err)
{
    docker_t *d = arg;
    if (!err && reply->status == 200)
        sweep_list(d, reply->json);
    list(d, "/volumes?", on_volumes, d);
}

static void on_pruned(void *arg, const docker_reply_t *reply, const err_t *err)
{
    (void)arg;
    if (err || reply->status != 200)
        log_warn("broken off imports stay in Docker: %s", err ? err_message(err) : reply->text);
}

void docker_sweep(docker_t *d)
{
    list(d, "/containers/json?all=1&", on_containers, d);
    docker_call_t call = {.method = "POST", .timeout_ms = DOCKER_START_MS};
    call.path = mem_strdup("/images/prune?filters=%7B%22dangling%22%3A%5B%22true%22%5D%2C%22label%22%3A%5B%22"
                           "emergent.workspaces.image%3Dtrue%22%5D%7D");
    docker_http_start(d->http, &call, on_pruned, d);
}
