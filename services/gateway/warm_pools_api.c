// SPDX-License-Identifier: Apache-2.0
/* GET, PUT and DELETE of /api/v1/admin/warm-pools, and the pools in /metrics. */
#include "services/gateway/warm_pools_internal.h"

#include "common/log.h"
#include "common/mem.h"
#include "common/text.h"
#include "proto/proto_json.h"

#include <stdio.h>

/* One PUT or DELETE on its way to the store; r NULL: the client is gone, the change goes on. */
typedef struct change {
    gateway_t *gw;
    api_request_t *r;
    pool_targets_t next;
} change_t;

static void write_text(json_writer_t *w, const char *name, const char *value)
{
    json_write_key(w, name);
    json_write_str(w, value);
}

static void write_targets(const config_t *config, const pool_targets_t *t, json_writer_t *w)
{
    json_write_key(w, "pools");
    json_write_open_array(w);
    for (size_t i = 0; i < t->count; i++) {
        const pool_row_t *row = &t->rows[i];
        json_write_open_object(w);
        if (row->provider[0] != '\0')
            write_text(w, "provider", row->provider);
        write_text(w, "image", row->image[0] ? row->image : config->default_image);
        write_text(w, "disk", row->disk[0] ? row->disk : config->default_disk);
        write_text(w, "network", row->network[0] ? row->network : config->default_network);
        json_write_key(w, "size");
        json_write_uint(w, row->size);
        json_write_close_object(w);
    }
    json_write_close_array(w);
}

static int write_node(const provider_node_t *n, json_writer_t *w, err_t **e)
{
    proto_iter_t it = proto_iter(&n->status.pools);
    json_write_open_object(w);
    write_text(w, "provider", n->provider);
    write_text(w, "node", n->node);
    json_write_key(w, "misses_other");
    json_write_uint(w, n->status.pool_misses_other);
    json_write_key(w, "pools");
    json_write_open_array(w);
    for (proto_nested_t nested; proto_iter_msg(&it, &nested);) {
        json_write_open_object(w);
        if (proto_to_json_fields(MSG_pool_status, nested.bytes, nested.len, 0, w, e) != 0)
            return -1;
        json_write_close_object(w);
    }
    json_write_close_array(w);
    json_write_close_object(w);
    return 0;
}

static void reply(api_request_t *r)
{
    const pool_targets_t *t = &r->gw->warm_pools->now;
    auto_err err_t *e = NULL;
    auto_buf buf_t json = {0};
    json_writer_t w;
    json_writer_init(&w, &json);
    json_write_open_object(&w);
    write_text(&w, "source", t->is_from_api ? "api" : "config");
    write_targets(&r->gw->daemon.config, t, &w);
    json_write_key(&w, "nodes");
    json_write_open_array(&w);
    for (provider_node_t *n = NULL; (n = orchestrator_next_node(r->gw->orchestrator, n)) != NULL;) {
        if (n->peer != NULL && n->has_status && n->capabilities.supports_warm_pool && write_node(n, &w, &e) != 0) {
            api_reply_error(r, e);
            return;
        }
    }
    json_write_close_array(&w);
    json_write_close_object(&w);
    api_reply_json(r, 200, &json);
}

void warm_pool_list(api_request_t *r)
{
    reply(r);
}

static bool is_same_pool(const pool_row_t *a, const pool_row_t *b)
{
    return strcmp(a->provider, b->provider) == 0 && strcmp(a->image, b->image) == 0 && strcmp(a->disk, b->disk) == 0 &&
           strcmp(a->network, b->network) == 0;
}

static int take_row(const struct warm_pool *m, pool_targets_t *t, err_t **e)
{
    pool_row_t *row = &t->rows[t->count];
    uint64_t bytes;
    snprintf(row->provider, sizeof row->provider, "%s", m->provider ? m->provider : "");
    snprintf(row->image, sizeof row->image, "%s", m->image ? m->image : "");
    snprintf(row->disk, sizeof row->disk, "%s", m->disk ? m->disk : "");
    snprintf(row->network, sizeof row->network, "%s", m->network ? m->network : "");
    row->size = m->size;
    if (strcmp(row->provider, "auto") == 0)
        row->provider[0] = '\0';
    if (row->provider[0] != '\0' && !orchestrator_is_provider(row->provider))
        return err_set(e, ERR_BAD_REQUEST, "pools[%zu].provider must be one of %s", t->count,
                       orchestrator_provider_names());
    if (row->disk[0] != '\0' && !text_to_size(row->disk, &bytes))
        return err_set(e, ERR_BAD_REQUEST, "pools[%zu].disk must be a size such as 10G", t->count);
    for (size_t i = 0; i < t->count; i++)
        if (is_same_pool(&t->rows[i], row))
            return err_set(e, ERR_BAD_REQUEST, "pools[%zu] and pools[%zu] have the same shape", i, t->count);
    t->count++;
    return 0;
}

static int take_body(const api_request_t *r, pool_targets_t *t, err_t **e)
{
    struct warm_pools m;
    uint64_t sum = 0;
    *t = (pool_targets_t){.is_from_api = true};
    if (proto_decode(MSG_warm_pools, &m, r->encoded.data, r->encoded.len, e) != 0)
        return -1;
    if (!m.has.pools)
        return err_set(e, ERR_BAD_REQUEST, "pools is required: an array, empty for no warm pools");
    proto_iter_t it = proto_iter(&m.pools);
    for (proto_nested_t nested; proto_iter_msg(&it, &nested);) {
        struct warm_pool one;
        if (proto_decode(MSG_warm_pool, &one, nested.bytes, nested.len, e) != 0 || take_row(&one, t, e) != 0)
            return -1;
        sum += one.size;
    }
    return sum <= WARM_POOLS_SIZE_MAX
               ? 0
               : err_set(e, ERR_VALIDATION, "all pools together may have %d sandboxes", WARM_POOLS_SIZE_MAX);
}

static void on_change_close(api_request_t *r, bool is_hangup)
{
    (void)is_hangup;
    change_t *c = r->state;
    if (c != NULL)
        c->r = NULL;
    r->state = NULL;
}

static void on_stored(void *arg, const store_result_t *result, const err_t *err)
{
    (void)result;
    change_t *c = arg;
    gateway_t *gw = c->gw;
    api_request_t *r = c->r;
    gw->warm_pools->is_changing = false;
    if (err == NULL)
        warm_pools_take(gw, &c->next);
    if (r != NULL)
        r->state = NULL;
    free(c);
    auto_err err_t *e = NULL;
    if (err != NULL) {
        log_error("write down the warm pools: %s", err_message(err));
        store_client_error(err, &e);
    }
    if (r != NULL && err != NULL)
        api_reply_error(r, e);
    else if (r != NULL)
        reply(r);
}

static void change(api_request_t *r, const pool_targets_t *next)
{
    gateway_t *gw = r->gw;
    auto_err err_t *e = NULL;
    if (gw->warm_pools->is_changing) {
        api_fail(r, ERR_CONFLICT, "another change of the warm pools is under way; repeat this one");
        return;
    }
    change_t *c = mem_alloc(sizeof *c);
    *c = (change_t){.gw = gw, .r = r, .next = *next};
    auto_free char *text = next->is_from_api ? pool_targets_to_text(next) : NULL;
    store_value_t values[] = {store_text(WARM_POOLS_SETTING), store_text(text ? text : "")};
    if (store_exec(gw->store, STORE_SETTING_SET, values, 2, on_stored, c, &e) != 0) {
        free(c);
        api_reply_error(r, e);
        return;
    }
    gw->warm_pools->is_changing = true;
    r->state = c;
    r->on_close = on_change_close;
}

static bool may_change(api_request_t *r)
{
    if (!r->caller.is_operator)
        api_fail(r, ERR_FORBIDDEN, "only the standalone key may set warm pools: all owners share them");
    return r->caller.is_operator;
}

void warm_pool_set(api_request_t *r)
{
    pool_targets_t next;
    auto_err err_t *e = NULL;
    if (!may_change(r))
        return;
    if (take_body(r, &next, &e) != 0)
        api_reply_error(r, e);
    else
        change(r, &next);
}

void warm_pool_reset(api_request_t *r)
{
    pool_targets_t next;
    if (!may_change(r))
        return;
    pool_targets_from_config(&r->gw->daemon.config, &next);
    change(r, &next);
}

/* ---- metrics ---- */

static const struct {
    const char *name, *type, *doc;
    size_t offset;
    bool is_wide;
} METRICS[] = {
    {"ew_warm_pool_size", "gauge", "Warm sandboxes there should be.", offsetof(struct pool_status, size), false},
    {"ew_warm_pool_ready", "gauge", "Warm sandboxes that wait.", offsetof(struct pool_status, ready), false},
    {"ew_warm_pool_making", "gauge", "Warm sandboxes being made.", offsetof(struct pool_status, making), false},
    {"ew_warm_pool_hits_total", "counter", "Creates that got a warm sandbox.", offsetof(struct pool_status, hits),
     true},
};

/* Names come from daemons and callers; what would break the format becomes _. */
static const char *label(const char *text, char *out, size_t size)
{
    snprintf(out, size, "%s", text ? text : "");
    for (char *at = out; (at = strpbrk(at, "\"\\\n")) != NULL;)
        *at = '_';
    return out;
}

static void write_labels(const provider_node_t *n, const struct pool_status *pool, buf_t *out)
{
    char image[256], node[256];
    buf_printf(out, "{provider=\"%s\",node=\"%s\",image=\"%s\",network=\"%s\",disk=\"%llu\"", n->provider,
               label(n->node, node, sizeof node), label(pool->image, image, sizeof image),
               pool->network ? pool->network : "", (unsigned long long)pool->disk_bytes);
}

typedef void (*pool_fn)(const provider_node_t *n, const struct pool_status *pool, size_t metric, buf_t *out);

static void each_pool(gateway_t *gw, pool_fn fn, size_t metric, buf_t *out)
{
    for (provider_node_t *n = NULL; (n = orchestrator_next_node(gw->orchestrator, n)) != NULL;) {
        proto_iter_t it = proto_iter(&n->status.pools);
        for (proto_nested_t nested; n->has_status && proto_iter_msg(&it, &nested);) {
            struct pool_status pool;
            auto_err err_t *e = NULL;
            if (proto_decode(MSG_pool_status, &pool, nested.bytes, nested.len, &e) == 0)
                fn(n, &pool, metric, out);
        }
    }
}

static void write_value(const provider_node_t *n, const struct pool_status *pool, size_t metric, buf_t *out)
{
    const void *at = (const char *)pool + METRICS[metric].offset;
    uint64_t value = METRICS[metric].is_wide ? *(const uint64_t *)at : *(const uint32_t *)at;
    buf_printf(out, "%s", METRICS[metric].name);
    write_labels(n, pool, out);
    buf_printf(out, "} %llu\n", (unsigned long long)value);
}

static void write_misses(const provider_node_t *n, const struct pool_status *pool, size_t metric, buf_t *out)
{
    (void)metric;
    buf_printf(out, "ew_warm_pool_misses_total");
    write_labels(n, pool, out);
    buf_printf(out, ",reason=\"empty\"} %llu\n", (unsigned long long)pool->misses);
}

void warm_pools_write_metrics(gateway_t *gw, buf_t *out)
{
    if (gw->orchestrator == NULL || gw->warm_pools == NULL)
        return;
    for (size_t i = 0; i < COUNT_OF(METRICS); i++) {
        buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", METRICS[i].name, METRICS[i].doc, METRICS[i].name,
                   METRICS[i].type);
        each_pool(gw, write_value, i, out);
    }
    buf_printf(out, "# HELP ew_warm_pool_misses_total Creates that wanted a warm sandbox and got none.\n"
                    "# TYPE ew_warm_pool_misses_total counter\n");
    each_pool(gw, write_misses, 0, out);
    for (provider_node_t *n = NULL; (n = orchestrator_next_node(gw->orchestrator, n)) != NULL;) {
        char node[256];
        if (n->has_status)
            buf_printf(out, "ew_warm_pool_misses_total{provider=\"%s\",node=\"%s\",reason=\"no_such_pool\"} %llu\n",
                       n->provider, label(n->node, node, sizeof node), (unsigned long long)n->status.pool_misses_other);
    }
}
