// SPDX-License-Identifier: Apache-2.0
#include "services/gateway/warm_pools_internal.h"

#include "common/log.h"
#include "common/mem.h"
#include "common/text.h"

#include <stdio.h>

#define PUSH_DEADLINE_MS 10000

typedef struct push {
    gateway_t *gw;
    provider_node_t *node;
    uint64_t generation;
} push_t;

/* ---- the targets as text in the store ---- */

void pool_targets_from_config(const config_t *config, pool_targets_t *t)
{
    *t = (pool_targets_t){0};
    if (config->warm_pool_size == 0)
        return;
    t->rows[0].size = (uint32_t)config->warm_pool_size;
    t->count = 1;
}

char *pool_targets_to_text(const pool_targets_t *t)
{
    json_t *array = json_array();
    for (size_t i = 0; i < t->count; i++) {
        const pool_row_t *row = &t->rows[i];
        json_array_append_new(array, json_pack("{s:s,s:s,s:s,s:s,s:i}", "provider", row->provider, "image", row->image,
                                               "disk", row->disk, "network", row->network, "size", (int)row->size));
    }
    char *text = json_dumps(array, JSON_COMPACT);
    json_decref(array);
    return text;
}

static bool from_text(const char *text, pool_targets_t *t)
{
    json_t *array = json_loads(text, 0, NULL);
    size_t i;
    json_t *item;
    bool is_good = json_is_array(array) && json_array_size(array) <= WARM_POOLS_MAX;
    *t = (pool_targets_t){.is_from_api = true};
    json_array_foreach(array, i, item)
    {
        const char *provider, *image, *disk, *network;
        int size;
        if (!is_good || json_unpack(item, "{s:s,s:s,s:s,s:s,s:i}", "provider", &provider, "image", &image, "disk",
                                    &disk, "network", &network, "size", &size) != 0) {
            is_good = false;
            break;
        }
        pool_row_t *row = &t->rows[t->count++];
        snprintf(row->provider, sizeof row->provider, "%s", provider);
        snprintf(row->image, sizeof row->image, "%s", image);
        snprintf(row->disk, sizeof row->disk, "%s", disk);
        snprintf(row->network, sizeof row->network, "%s", network);
        row->size = (uint32_t)size;
    }
    json_decref(array);
    return is_good;
}

/* ---- telling the daemons ---- */

static int add_target(const config_t *config, const pool_row_t *row, buf_t *list, err_t **e)
{
    struct pool_target target = {.image = row->image[0] ? row->image : config->default_image,
                                 .network = row->network[0] ? row->network : config->default_network,
                                 .size = row->size,
                                 .pids_max = (uint32_t)config->default_pids};
    if (!text_to_size(row->disk[0] ? row->disk : config->default_disk, &target.disk_bytes) ||
        !text_to_size(config->default_memory, &target.memory_bytes) ||
        !text_to_milli(config->default_cpu, &target.cpu_milli))
        return err_set(e, ERR_VALIDATION, "\"%s\" is not a size", row->disk); /* checked when it was set */
    return proto_list_add_msg(list, MSG_pool_target, &target, e);
}

static int encode_for(gateway_t *gw, const provider_node_t *n, buf_t *out, err_t **e)
{
    const pool_targets_t *t = &gw->warm_pools->now;
    auto_buf buf_t list = {0};
    uint32_t count = 0;
    for (size_t i = 0; i < t->count; i++) {
        const pool_row_t *row = &t->rows[i];
        if (row->provider[0] != '\0' && strcmp(row->provider, n->provider) != 0)
            continue;
        if (add_target(&gw->daemon.config, row, &list, e) < 0)
            return -1;
        count++;
    }
    struct pool_set_request request = {.pools = proto_list_of(count, &list)};
    return proto_encode(MSG_pool_set_request, &request, out, e);
}

static void again_later(gateway_t *gw)
{
    static const struct timeval DELAY = {.tv_sec = WARM_POOLS_RETRY_MS / 1000};
    event_add(gw->warm_pools->again, &DELAY);
}

static void on_pushed(void *arg, const uint8_t *body, size_t len)
{
    (void)body;
    (void)len;
    push_t *p = arg;
    p->node->is_pools_told = false;
    p->node->pools_taken = p->generation;
    if (p->generation != p->gw->warm_pools->generation)
        again_later(p->gw);
    free(p);
}

static void on_push_failed(void *arg, const err_t *err)
{
    push_t *p = arg;
    log_warn("the %s daemon on %s does not take the warm pools, it is told again: %s", p->node->provider, p->node->node,
             err_message(err));
    p->node->is_pools_told = false;
    again_later(p->gw);
    free(p);
}

static void push_to(gateway_t *gw, provider_node_t *n)
{
    static const call_events_t EVENTS = {.on_reply = on_pushed, .on_error = on_push_failed};
    if (n->peer == NULL || !n->capabilities.supports_warm_pool || n->is_pools_told ||
        n->pools_taken == gw->warm_pools->generation)
        return;
    auto_buf buf_t body = {0};
    auto_err err_t *e = NULL;
    push_t *p = mem_alloc(sizeof *p);
    *p = (push_t){.gw = gw, .node = n, .generation = gw->warm_pools->generation};
    call_options_t options = {.deadline_ms = PUSH_DEADLINE_MS};
    n->is_pools_told = encode_for(gw, n, &body, &e) == 0 &&
                       call_start(gw->calls, n->peer, VERB_pool_set, &options, body.data, body.len, &EVENTS, p, &e);
    if (n->is_pools_told)
        return;
    log_error("the warm pools cannot be told to the %s daemon on %s: %s", n->provider, n->node, err_message(e));
    free(p);
    again_later(gw);
}

static void push_all(gateway_t *gw)
{
    for (provider_node_t *n = NULL; (n = orchestrator_next_node(gw->orchestrator, n)) != NULL;)
        push_to(gw, n);
}

void warm_pools_take(gateway_t *gw, const pool_targets_t *t)
{
    gw->warm_pools->now = *t;
    gw->warm_pools->generation++;
    log_info("the warm pools are set by %s: %zu", t->is_from_api ? "the API" : "the configuration", t->count);
    push_all(gw);
}

static void on_again(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    gateway_t *gw = arg;
    push_all(gw);
    again_later(gw); /* capabilities come with later statuses, too */
}

void warm_pools_on_peer_up(gateway_t *gw, fabric_peer_t *peer)
{
    provider_node_t *n = orchestrator_node_of_peer(gw->orchestrator, peer);
    if (n == NULL)
        return;
    n->pools_taken = 0; /* a daemon that was restarted knows of none */
    push_to(gw, n);
}

/* ---- open and close ---- */

static void on_setting(void *arg, const store_result_t *result, const err_t *err)
{
    (void)err;
    gateway_t *gw = arg;
    const char *text = store_text_at(result, 0, 0);
    if (text == NULL || text[0] == '\0')
        return;
    pool_targets_t kept;
    if (from_text(text, &kept))
        gw->warm_pools->now = kept;
    else
        log_error("the warm pools in the database cannot be read; the configuration's are used");
}

int warm_pools_open(gateway_t *gw, err_t **e)
{
    gw->warm_pools = mem_alloc(sizeof *gw->warm_pools);
    gw->warm_pools->generation = 1;
    gw->warm_pools->again = evtimer_new(gw->daemon.base, on_again, gw);
    pool_targets_from_config(&gw->daemon.config, &gw->warm_pools->now);
    store_value_t name = store_text(WARM_POOLS_SETTING);
    again_later(gw);
    return store_exec_wait(gw->store, STORE_SETTING_GET, &name, 1, on_setting, gw, e);
}

void warm_pools_close(gateway_t *gw)
{
    if (gw->warm_pools == NULL)
        return;
    event_free(gw->warm_pools->again);
    free(gw->warm_pools);
    gw->warm_pools = NULL;
}
