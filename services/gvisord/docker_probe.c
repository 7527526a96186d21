/* SPDX-License-Identifier: Apache-2.0
 *
 * What works with this Docker Engine: its runtimes are asked for every time, a container is tried out once for what it
 * depends on (the fingerprint), over restarts, too.
 */
#include "common/clock.h"
#include "common/file.h"
#include "common/log.h"
#include "common/mem.h"
#include "services/gvisord/docker_private.h"

#include <stdarg.h>
#include <stdio.h>

#define CACHE_MAX 65536
#define DRAIN_MS 5000
#define IMAGES_MAX 200

struct docker_probe {
    docker_t *d;
    docker_probe_result_t result, next;
    char *fingerprint, *next_fingerprint;
    docker_request_t *request;
    docker_trial_t *trial;
    bool is_stopping;
    provider_done_fn done;
    void *done_arg;
};

docker_probe_t *docker_probe_new(docker_t *d)
{
    docker_probe_t *p = mem_alloc(sizeof *p);
    p->d = d;
    snprintf(p->result.message, sizeof p->result.message, "starting: the Docker Engine is being tried out");
    return p;
}

void docker_probe_free(docker_probe_t **p)
{
    docker_probe_t *own = *p;
    *p = NULL;
    if (!own)
        return;
    docker_http_cancel(&own->request);
    docker_trial_free(&own->trial);
    free(own->fingerprint);
    free(own->next_fingerprint);
    free(own);
}

void docker_probe_drain(docker_probe_t *p)
{
    uint64_t until = clock_monotonic_ms() + DRAIN_MS;
    p->is_stopping = true;
    p->done = NULL;
    if (p->trial)
        docker_trial_stop(p->trial);
    while (p->trial && clock_monotonic_ms() < until && event_base_loop(p->d->daemon->base, EVLOOP_ONCE) == 0)
        ;
}

const docker_probe_result_t *docker_probe_get(const docker_probe_t *p)
{
    return &p->result;
}

static void tell(docker_probe_t *p)
{
    docker_status_refresh(p->d);
    provider_done_fn done = p->done;
    p->done = NULL;
    if (done)
        done(p->done_arg, NULL);
}

/* ---- the cache ---- */

static char *cache_path(const docker_probe_t *p)
{
    return mem_printf("%s/docker-probe.json", p->d->daemon->state_dir);
}

static void cache_write(const docker_probe_t *p)
{
    const docker_probe_result_t *r = &p->result;
    json_t *root = json_pack("{s:s,s:b,s:b,s:i,s:s}", "fingerprint", p->fingerprint, "full_network",
                             r->has_full_network, "storage_limit", r->has_storage_limit, "startup_ms",
                             (int)r->startup_ms, "network_message", r->network_message);
    auto_free char *text = root ? json_dumps(root, JSON_INDENT(1)) : NULL;
    auto_free char *path = cache_path(p);
    auto_err err_t *e = NULL;
    json_decref(root);
    if (text && file_write_atomic(path, text, strlen(text), 0600, &e) < 0)
        log_warn("the probe's result is not kept: %s", err_message(e));
}

static bool cache_read(docker_probe_t *p)
{
    auto_free char *path = cache_path(p);
    auto_buf buf_t text = {0};
    auto_err err_t *e = NULL;
    const char *fingerprint = "", *network = "";
    int full = 0, storage = 0, startup = 0;
    if (file_read(path, CACHE_MAX, &text, &e) < 0)
        return false;
    json_t *root = json_loadb((const char *)text.data, text.len, 0, NULL);
    bool is_same = root &&
                   json_unpack(root, "{s:s,s:b,s:b,s:i,s:s}", "fingerprint", &fingerprint, "full_network", &full,
                               "storage_limit", &storage, "startup_ms", &startup, "network_message", &network) == 0 &&
                   strcmp(fingerprint, p->next_fingerprint) == 0;
    if (is_same) {
        p->next.has_full_network = full;
        p->next.has_storage_limit = storage;
        p->next.startup_ms = (uint32_t)startup;
        snprintf(p->next.network_message, sizeof p->next.network_message, "%s", network);
    }
    json_decref(root);
    return is_same;
}

/* ---- ends ---- */

static void set_usable(docker_probe_t *p)
{
    p->next.is_usable = true;
    snprintf(p->next.message, sizeof p->next.message, "Docker daemon healthy, %s",
             p->next.is_plain ? "standard runtime (no gVisor)" : "gVisor (runsc) runtime active");
    bool is_news = !p->result.is_usable;
    p->result = p->next;
    free(p->fingerprint);
    p->fingerprint = STEAL_PTR(p->next_fingerprint);
    if (is_news)
        log_info("probe: %s (%s)", p->result.message, p->result.version);
    tell(p);
}

static void __attribute__((format(printf, 2, 3))) unusable(docker_probe_t *p, const char *fmt, ...)
{
    va_list ap;
    char message[sizeof p->result.message];
    va_start(ap, fmt);
    vsnprintf(message, sizeof message, fmt, ap);
    va_end(ap);
    if (strcmp(message, p->result.message) != 0)
        log_warn("probe: %s", message);
    p->result = (docker_probe_result_t){0};
    memcpy(p->result.message, message, sizeof message);
    free(STEAL_PTR(p->fingerprint));
    tell(p);
}

/* ---- trials ---- */

static void verified(docker_probe_t *p)
{
    set_usable(p);
    cache_write(p);
}

static void on_full_trial(void *arg, const char *message, uint32_t startup_ms)
{
    docker_probe_t *p = arg;
    (void)startup_ms;
    p->trial = NULL;
    if (p->is_stopping)
        return;
    p->next.has_full_network = !message;
    if (message)
        snprintf(p->next.network_message, sizeof p->next.network_message, "network full is not available: %.250s",
                 message);
    verified(p);
}

static void try_full(docker_probe_t *p)
{
    if (p->next.network_message[0])
        verified(p);
    else
        p->trial = docker_trial_start(p->d, &p->next, "full", on_full_trial, p);
}

static void on_trial(void *arg, const char *message, uint32_t startup_ms)
{
    docker_probe_t *p = arg;
    p->trial = NULL;
    if (p->is_stopping)
        return;
    if (message && p->next.has_storage_limit) {
        log_info("probe: without a limit of the container's disk, because with one: %s", message);
        p->next.has_storage_limit = false;
        p->trial = docker_trial_start(p->d, &p->next, "none", on_trial, p);
    } else if (message) {
        unusable(p, "Docker cannot run a sandbox: %s", message);
    } else {
        p->next.startup_ms = startup_ms;
        try_full(p);
    }
}

static void verify(docker_probe_t *p)
{
    if (p->fingerprint && strcmp(p->fingerprint, p->next_fingerprint) == 0) {
        p->next.has_full_network = p->result.has_full_network;
        p->next.has_storage_limit = p->result.has_storage_limit;
        p->next.startup_ms = p->result.startup_ms;
        memcpy(p->next.network_message, p->result.network_message, sizeof p->next.network_message);
        set_usable(p);
    } else if (cache_read(p)) {
        set_usable(p);
    } else {
        p->trial = docker_trial_start(p->d, &p->next, "none", on_trial, p);
    }
}

/* ---- what the daemon says about itself ---- */

static void take_images(docker_probe_t *p, const json_t *list)
{
    size_t i, k;
    const json_t *image;
    json_t *tag;
    const char *own = p->d->daemon->config.default_image;
    json_decref(p->d->images);
    p->d->images = json_array();
    json_array_foreach(list, i, image) json_array_foreach(json_object_get(image, "RepoTags"), k, tag)
    {
        const char *text = json_string_value(tag);
        if (text && strncmp(text, DOCKER_IMAGE_PREFIX, strlen(DOCKER_IMAGE_PREFIX)) != 0 && text[0] != '<' &&
            json_array_size(p->d->images) < IMAGES_MAX)
            json_array_append(p->d->images, tag);
    }
    /* Pulled when it is used first. */
    if (strpbrk(own, "/:@"))
        json_array_append_new(p->d->images, json_string(own));
}

static void on_images(void *arg, const docker_reply_t *reply, const err_t *err)
{
    docker_probe_t *p = arg;
    p->request = NULL;
    if (!err && reply->status == 200)
        take_images(p, reply->json);
    verify(p);
}

static bool has_argument(const json_t *runtime, const char *prefix)
{
    size_t i;
    const json_t *value;
    json_array_foreach(json_object_get(runtime, "runtimeArgs"), i, value)
    {
        const char *text = json_string_value(value);
        if (text && strncmp(text, prefix, strlen(prefix)) == 0)
            return true;
    }
    return false;
}

/* Which runtime, and what its arguments mean for sandboxes. False: there is none to use. */
static bool choose_runtime(docker_probe_t *p, const json_t *info)
{
    const config_t *c = &p->d->daemon->config;
    const json_t *runtime = json_object_get(json_object_get(info, "Runtimes"), c->docker_runtime);
    p->next.is_plain = !runtime;
    if (!runtime && !c->allow_plain_runtime) {
        unusable(p,
                 "the Docker daemon lists no runtime '%s': put {\"runtimes\": {\"runsc\": {\"path\": "
                 "\"/usr/bin/runsc\", \"runtimeArgs\": [\"--network=none\", \"--overlay2=none\"]}}} into its "
                 "daemon.json (make docker-runtime) and restart it; or, without gVisor's isolation, set "
                 "GVISORD_ALLOW_PLAIN_RUNTIME=true",
                 c->docker_runtime);
        return false;
    }
    bool is_network_off = has_argument(runtime, "--network=none") || has_argument(runtime, "-network=none");
    if (is_network_off)
        snprintf(p->next.network_message, sizeof p->next.network_message,
                 "network full is not available: the Docker daemon runs '%.40s' with --network=none",
                 c->docker_runtime);
    if (runtime && !has_argument(runtime, "--overlay2=none") && !has_argument(runtime, "-overlay2=none"))
        snprintf(p->next.files_message, sizeof p->next.files_message,
                 "files outside of /workspace are lost at a stop: the Docker daemon runs '%.40s' without "
                 "--overlay2=none (make docker-runtime)",
                 c->docker_runtime);
    return true;
}

static bool may_limit_storage(const json_t *info)
{
    const char *driver = json_string_value(json_object_get(info, "Driver"));
    size_t i;
    const json_t *pair;
    if (!driver)
        return false;
    if (strcmp(driver, "btrfs") == 0 || strcmp(driver, "zfs") == 0)
        return true;
    json_array_foreach(json_object_get(info, "DriverStatus"), i, pair)
    {
        const char *name = json_string_value(json_array_get(pair, 0));
        const char *value = json_string_value(json_array_get(pair, 1));
        if (name && value && strcmp(name, "Backing Filesystem") == 0)
            return strcmp(driver, "overlay2") == 0 && strcmp(value, "xfs") == 0;
    }
    return false;
}

static char *make_fingerprint(docker_probe_t *p, const json_t *info)
{
    static const char *const keys[] = {"ID", "ServerVersion", "Runtimes", "DefaultRuntime", "Driver", "KernelVersion"};
    char ref[DOCKER_REF_MAX] = "";
    auto_err err_t *ignored = NULL;
    auto_buf buf_t text = {0};
    (void)docker_image_ref(p->d, p->d->daemon->config.default_image, ref, &ignored);
    buf_printf(&text, "%s %s %s %d", p->d->host.text, p->d->agent_id, ref, p->next.is_plain);
    for (size_t i = 0; i < COUNT_OF(keys); i++) {
        auto_free char *value = json_dumps(json_object_get(info, keys[i]), JSON_ENCODE_ANY | JSON_SORT_KEYS);
        buf_printf(&text, " %s", value ? value : "-");
    }
    return buf_steal(&text);
}

static void on_info(void *arg, const docker_reply_t *reply, const err_t *err)
{
    docker_probe_t *p = arg;
    p->request = NULL;
    const char *version = err ? NULL : json_string_value(json_object_get(reply->json, "ServerVersion"));
    if (err) {
        unusable(p, "%s", err_message(err));
        return;
    }
    if (reply->status != 200 || !version) {
        unusable(p, "%s is no Docker daemon (it answered %d to /info)", p->d->host.text, reply->status);
        return;
    }
    snprintf(p->next.version, sizeof p->next.version, "%s", version);
    if (!choose_runtime(p, reply->json))
        return;
    p->next.has_storage_limit = may_limit_storage(reply->json);
    free(p->next_fingerprint);
    p->next_fingerprint = make_fingerprint(p, reply->json);
    docker_call_t call = {.method = "GET", .path = mem_strdup("/images/json"), .timeout_ms = DOCKER_QUICK_MS};
    p->request = docker_http_start(p->d->http, &call, on_images, p);
}

void docker_probe_run(docker_probe_t *p, provider_done_fn done, void *arg)
{
    p->done = done;
    p->done_arg = arg;
    if (p->request || p->trial)
        return; /* that one tells */
    p->next = (docker_probe_result_t){0};
    docker_call_t call = {.method = "GET", .path = mem_strdup("/info"), .timeout_ms = DOCKER_QUICK_MS};
    p->request = docker_http_start(p->d->http, &call, on_info, p);
}
