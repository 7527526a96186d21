/* SPDX-License-Identifier: Apache-2.0
 *
 * The gateway: REST above, the fabric below.
 */
#include "services/gateway/api_internal.h"

#include "common/file.h"
#include "common/log.h"
#include "common/mem.h"
#include "services/gateway/audit.h"
#include "services/gateway/idempotency.h"
#include "services/gateway/warm_pools.h"

#include <stdio.h>
#include <string.h>

#define DRAIN_MS 10000
#define DRAIN_POLL_MS 20

static void on_up(void *arg, fabric_peer_t *peer)
{
    workspaces_on_peer_up(arg, peer);
    snapshots_on_peer_up(arg, peer);
    orchestrator_on_peer_up(arg, peer);
    warm_pools_on_peer_up(arg, peer);
}

static void on_down(void *arg, fabric_peer_t *peer, const char *reason)
{
    gateway_t *gw = arg;
    call_table_on_down(gw->calls, peer);
    orchestrator_on_peer_down(gw, peer, reason);
    workspaces_on_peer_down(gw, peer);
}

static void on_frame(void *arg, fabric_peer_t *peer, const envelope_t *env, const uint8_t *body, size_t len)
{
    gateway_t *gw = arg;
    auto_err err_t *e = NULL;
    struct sandbox_event event;
    if (env->kind != ENVELOPE_KIND_NOTICE || env->call_id != 0) {
        call_table_on_frame(gw->calls, peer, env, body, len);
    } else if (proto_decode(MSG_sandbox_event, &event, body, len, &e) == 0) {
        workspaces_on_sandbox_event(gw, peer, &env->sandbox, &event);
    } else {
        log_warn("%s sent a notice that cannot be read: %s", fabric_peer_hello(peer)->role, err_message(e));
    }
}

static void on_writable(void *arg, fabric_peer_t *peer)
{
    call_table_on_writable(((gateway_t *)arg)->calls, peer);
}

static void on_status(void *arg, fabric_peer_t *peer, const uint8_t *body, size_t len)
{
    orchestrator_on_status(arg, peer, body, len);
}

static int open_fabric(gateway_t *gw, err_t **e)
{
    static const fabric_events_t events = {
        .on_up = on_up, .on_down = on_down, .on_frame = on_frame, .on_writable = on_writable, .on_status = on_status};
    const config_t *config = &gw->daemon.config;
    const char *extra = config->gateway_bind;
    auto_free char *endpoints = mem_printf("ipc://%s/gateway.fabric%s%s", config->run_dir, extra[0] ? "," : "", extra);
    fabric_self_t self = {.role = "gateway", .node = config->node, .instance = gw->daemon.instance};
    fabric_curve_t curve = {.secret_file = config->curve_secret_file, .known_dir = config->curve_known_dir};
    gw->fabric = fabric_bind(gw->daemon.base, endpoints, &self, extra[0] ? &curve : NULL, &events, gw, e);
    return gw->fabric ? 0 : -1;
}

static int open_http(gateway_t *gw, err_t **e)
{
    const config_t *config = &gw->daemon.config;
    gw->http = http_server_new(gw->daemon.base, config->server_address, (uint16_t)config->server_port,
                               api_http_handlers(), gw, e);
    if (!gw->http) {
        return -1;
    }
    auto_free char *path = mem_printf("%s/gateway.port", config->state_dir);
    auto_free char *port = mem_printf("%u\n", http_server_port(gw->http));
    return file_write_atomic(path, port, strlen(port), 0644, e);
}

static int open_all(gateway_t *gw, err_t **e)
{
    gw->metrics = metrics_new();
    gw->idempotency = idempotency_new();
    gw->calls = call_table_new(gw->daemon.base);
    gw->store = store_open(gw, e);
    if (!gw->store || audit_open(gw, e) || api_open(gw, e) || auth_open(gw, e) || orchestrator_open(gw, e) ||
        workspaces_open(gw, e) || snapshots_open(gw, e) || warm_pools_open(gw, e) || open_fabric(gw, e) ||
        open_http(gw, e)) {
        return -1;
    }
    log_info("listening on http://%s:%u", gw->daemon.config.server_address, http_server_port(gw->http));
    return 0;
}

static void drain_poll(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    gateway_t *gw = arg;
    if (http_server_connections(gw->http) == 0) {
        event_base_loopbreak(gw->daemon.base);
    }
}

/* Takes no more requests and lets those under way finish, for at most DRAIN_MS. */
static void drain(gateway_t *gw)
{
    struct timeval poll = {.tv_usec = DRAIN_POLL_MS * 1000}, most = {.tv_sec = DRAIN_MS / 1000};
    struct event *timer = event_new(gw->daemon.base, -1, EV_PERSIST, drain_poll, gw);
    api_drain(gw);
    http_server_drain(gw->http);
    if (timer && http_server_connections(gw->http) > 0) {
        evtimer_add(timer, &poll);
        event_base_loopexit(gw->daemon.base, &most);
        event_base_dispatch(gw->daemon.base);
    }
    if (timer) {
        event_free(timer);
    }
}

static void close_all(gateway_t *gw)
{
    http_server_destroy(&gw->http);
    fabric_destroy(&gw->fabric);
    warm_pools_close(gw);
    snapshots_close(gw);
    workspaces_close(gw);
    orchestrator_close(gw);
    auth_close(gw);
    audit_close(gw);
    api_close(gw);
    call_table_destroy(&gw->calls);
    store_close(&gw->store);
    idempotency_destroy(&gw->idempotency);
    metrics_destroy(&gw->metrics);
}

static int print_openapi(void)
{
    auto_buf buf_t text;
    buf_init(&text, 0);
    openapi_write(&text);
    json_t *document = json_loadb((const char *)text.data, text.len, 0, NULL);
    bool is_written =
        document && json_dumpf(document, stdout, JSON_INDENT(2)) == 0 && puts("") >= 0 && fflush(stdout) == 0;
    json_decref(document);
    return is_written ? 0 : 1;
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--openapi") == 0) {
        return print_openapi();
    }
    auto_err err_t *e = NULL;
    gateway_t gw = {0};
    int exit_code = 1;
    int result = daemon_init(&gw.daemon, "gateway", CONFIG_GATEWAY, argc, argv, &exit_code, &e);
    if (result > 0) {
        return exit_code;
    }
    if (result == 0 && open_all(&gw, &e) == 0) {
        daemon_run(&gw.daemon);
        drain(&gw);
        exit_code = 0;
    }
    if (e) {
        log_error("%s", err_message(e));
    }
    if (result == 0) {
        close_all(&gw);
        daemon_free(&gw.daemon);
    }
    return exit_code;
}
