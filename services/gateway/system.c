/* SPDX-License-Identifier: Apache-2.0
 *
 * Health, readiness, version, OpenAPI and metrics.
 */
#include "services/gateway/api_internal.h"

#include "common/mem.h"
#include "services/gateway/store.h"

#include <string.h>

/* One provider as /health shows it: no node, no sizes, since nobody had to log in. Returns whether it is healthy. */
static bool write_provider(fabric_peer_t *peer, json_writer_t *w)
{
    const struct hello *hello = fabric_peer_hello(peer);
    struct provider_status status;
    auto_err err_t *e = NULL;
    if (!hello->provider.bytes ||
        proto_decode(MSG_provider_status, &status, hello->provider.bytes, hello->provider.len, &e)) {
        return false;
    }
    json_write_open_object(w);
    json_write_key(w, "name");
    json_write_str(w, status.name ? status.name : "");
    json_write_key(w, "state");
    json_write_str(w, status.state ? status.state : "unhealthy");
    if (status.message && status.message[0]) {
        json_write_key(w, "message");
        json_write_str(w, status.message);
    }
    if (status.warnings.count) {
        proto_iter_t it = proto_iter(&status.warnings);
        const char *text;
        json_write_key(w, "warnings");
        json_write_open_array(w);
        while (proto_iter_str(&it, &text)) {
            json_write_str(w, text);
        }
        json_write_close_array(w);
    }
    json_write_close_object(w);
    return status.healthy;
}

static size_t write_providers(gateway_t *gw, json_writer_t *w)
{
    size_t healthy = 0;
    json_write_key(w, "providers");
    json_write_open_array(w);
    for (fabric_peer_t *peer = gw->fabric ? fabric_peer_next(gw->fabric, NULL) : NULL; peer;
         peer = fabric_peer_next(gw->fabric, peer)) {
        healthy += write_provider(peer, w);
    }
    json_write_close_array(w);
    return healthy;
}

/* False: workspaces cannot be made or changed now; tool calls go on. */
static bool has_database(gateway_t *gw, err_t **e)
{
    return gw->store == NULL || store_check(gw->store, e) == 0;
}

void system_health(api_request_t *r)
{
    auto_err err_t *e = NULL;
    buf_t json;
    json_writer_t w;
    buf_init(&json, 0);
    json_writer_init(&w, &json);
    json_write_open_object(&w);
    size_t healthy = write_providers(r->gw, &w);
    bool is_stored = has_database(r->gw, &e);
    json_write_key(&w, "database");
    json_write_str(&w, is_stored ? "ok" : err_message(e));
    json_write_key(&w, "status");
    json_write_str(&w, healthy && is_stored ? "ok" : "degraded");
    json_write_key(&w, "version");
    json_write_str(&w, EW_VERSION);
    json_write_close_object(&w);
    api_reply_json(r, 200, &json);
}

void system_ready(api_request_t *r)
{
    auto_buf buf_t ignored;
    auto_err err_t *e = NULL;
    json_writer_t w;
    buf_init(&ignored, 0);
    if (!has_database(r->gw, &e)) {
        api_reply_error(r, e);
        return;
    }
    json_writer_init(&w, &ignored);
    json_write_open_object(&w);
    if (write_providers(r->gw, &w) == 0) {
        api_fail(r, ERR_PROVIDER_UNAVAILABLE, "no healthy provider is connected; see /health for the reasons");
        return;
    }
    static const char text[] = "{\"status\":\"ready\"}";
    buf_t json;
    buf_init(&json, 0);
    buf_append(&json, text, sizeof text - 1);
    api_reply_json(r, 200, &json);
}

void system_version(api_request_t *r)
{
    buf_t json;
    json_writer_t w;
    buf_init(&json, 0);
    json_writer_init(&w, &json);
    json_write_open_object(&w);
    json_write_key(&w, "name");
    json_write_str(&w, FABRIC_PROTOCOL);
    json_write_key(&w, "version");
    json_write_str(&w, EW_VERSION);
    json_write_key(&w, "protocol_version");
    json_write_uint(&w, FABRIC_VERSION);
    json_write_close_object(&w);
    api_reply_json(r, 200, &json);
}

void system_openapi(api_request_t *r)
{
    buf_t *document = &r->gw->api->openapi;
    if (document->len == 0) {
        openapi_write(document);
    }
    if (buf_failed(document)) {
        api_fail(r, ERR_INTERNAL, "the OpenAPI document is too large");
        return;
    }
    r->is_replied = true;
    r->status = 200;
    api_reply_headers(r);
    http_reply(r->http, 200, "application/json", document->data, document->len);
}

void system_metrics(api_request_t *r)
{
    buf_t *out = &r->scratch;
    buf_reset(out);
    metrics_write(r->gw, out);
    r->is_replied = true;
    r->status = 200;
    api_reply_headers(r);
    http_reply(r->http, 200, "text/plain; version=0.0.4; charset=utf-8", out->data, out->len);
}
