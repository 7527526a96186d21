// SPDX-License-Identifier: Apache-2.0
/* What is known of the provider daemons, kept up to date from the fabric, and GET …/providers. The choice is in
 * orchestrator_pick.c. */
#include "services/gateway/orchestrator.h"

#include "common/log.h"
#include "common/mem.h"
#include "proto/proto_json.h"
#include "services/gateway/orchestrator_internal.h"
#include "services/gateway/workspace_time.h"

#include <stdio.h>

const provider_row_t ORCHESTRATOR_TABLE[ORCHESTRATOR_PROVIDERS] = {
    {.name = "firecracker", .daemon = "fcmgr", .label = "Firecracker (microVM)", .requires_kvm = true},
    {.name = "e2b", .daemon = "e2bproxy", .label = "E2B (managed)"},
    {.name = "gvisor", .daemon = "gvisord", .label = "gVisor"},
};

orchestrator_t *orchestrator_new(void)
{
    return mem_alloc(sizeof(orchestrator_t));
}

static void node_free(provider_node_t *n)
{
    free(n->gone_reason);
    buf_free(&n->bytes);
    free(n);
}

void orchestrator_destroy(orchestrator_t **o)
{
    if (*o == NULL)
        return;
    for (provider_node_t *n = (*o)->nodes; n != NULL;) {
        provider_node_t *next = n->next;
        node_free(n);
        n = next;
    }
    free((*o)->last_reasons);
    free(*o);
    *o = NULL;
}

const provider_row_t *orchestrator_row(const char *provider)
{
    for (size_t i = 0; i < ORCHESTRATOR_PROVIDERS; i++)
        if (strcmp(ORCHESTRATOR_TABLE[i].name, provider) == 0)
            return &ORCHESTRATOR_TABLE[i];
    return NULL;
}

bool orchestrator_is_provider(const char *name)
{
    return orchestrator_row(name) != NULL;
}

const char *orchestrator_provider_names(void)
{
    return "firecracker, e2b, gvisor";
}

provider_node_t *orchestrator_node(orchestrator_t *o, const char *provider, const char *node, bool is_made)
{
    size_t count = 0;
    provider_node_t **at = &o->nodes;
    for (; *at != NULL; at = &(*at)->next, count++)
        if (strcmp((*at)->provider, provider) == 0 && strcmp((*at)->node, node) == 0)
            return *at;
    if (!is_made || count == ORCHESTRATOR_NODES_MAX || !orchestrator_is_provider(provider) ||
        strlen(node) >= sizeof((*at)->node))
        return NULL;
    provider_node_t *n = mem_alloc(sizeof(*n));
    snprintf(n->provider, sizeof(n->provider), "%s", provider);
    snprintf(n->node, sizeof(n->node), "%s", node);
    *at = n; /* at the end: the order of arrival */
    return n;
}

int orchestrator_note_status(provider_node_t *n, const uint8_t *bytes, size_t len, err_t **e)
{
    struct provider_status status;
    struct capabilities capabilities = {0};
    buf_t copy = {0};
    buf_append(&copy, bytes, len);
    if (proto_decode(MSG_provider_status, &status, copy.data, copy.len, e) != 0 ||
        (status.capabilities.bytes != NULL &&
         proto_decode(MSG_capabilities, &capabilities, status.capabilities.bytes, status.capabilities.len, e) != 0)) {
        buf_free(&copy);
        return -1;
    }
    bool was_healthy = n->has_status && n->status.healthy;
    if (!n->has_status || was_healthy != status.healthy)
        log_info("provider %s on %s is %s%s%s", n->provider, n->node, status.healthy ? "healthy" : "not healthy",
                 status.message == NULL ? "" : ": ", status.message == NULL ? "" : status.message);
    buf_free(&n->bytes);
    n->bytes = copy;
    n->status = status;
    n->capabilities = capabilities;
    n->has_status = true;
    return 0;
}

/* ---- from the fabric ---- */

/* The provider that a peer is; NULL for peers that are none (mcphost, gitsync). */
static const char *provider_of(const struct hello *hello)
{
    for (size_t i = 0; i < ORCHESTRATOR_PROVIDERS; i++)
        if (hello->role != NULL && strcmp(hello->role, ORCHESTRATOR_TABLE[i].daemon) == 0)
            return ORCHESTRATOR_TABLE[i].name;
    return NULL;
}

provider_node_t *orchestrator_next_node(orchestrator_t *o, const provider_node_t *after)
{
    return after == NULL ? o->nodes : after->next;
}

provider_node_t *orchestrator_node_of_peer(orchestrator_t *o, const fabric_peer_t *peer)
{
    for (provider_node_t *n = o->nodes; n != NULL; n = n->next)
        if (n->peer == peer)
            return n;
    return NULL;
}

provider_node_t *orchestrator_node_of_hello(orchestrator_t *o, const struct hello *hello, bool is_made)
{
    const char *provider = provider_of(hello);
    return provider == NULL ? NULL : orchestrator_node(o, provider, hello->node == NULL ? "" : hello->node, is_made);
}

int orchestrator_open(gateway_t *gw, err_t **e)
{
    (void)e;
    gw->orchestrator = orchestrator_new();
    return 0;
}

void orchestrator_close(gateway_t *gw)
{
    orchestrator_destroy(&gw->orchestrator);
}

void orchestrator_on_peer_up(gateway_t *gw, fabric_peer_t *peer)
{
    const struct hello *hello = fabric_peer_hello(peer);
    if (provider_of(hello) == NULL)
        return;
    provider_node_t *n = orchestrator_node_of_hello(gw->orchestrator, hello, true);
    if (n == NULL) {
        log_error("the %s daemon on %s is not used: %d daemons are known already", hello->role, hello->node,
                  ORCHESTRATOR_NODES_MAX);
        return;
    }
    if (n->peer == peer)
        return;
    if (n->peer != NULL)
        log_warn("a second %s daemon on node %s took over: give each its own EW_NODE", n->provider, n->node);
    n->peer = peer;
    if (hello->provider.bytes != NULL)
        orchestrator_on_status(gw, peer, hello->provider.bytes, hello->provider.len);
}

void orchestrator_on_peer_down(gateway_t *gw, fabric_peer_t *peer, const char *reason)
{
    provider_node_t *n = orchestrator_node_of_peer(gw->orchestrator, peer);
    if (n == NULL)
        return;
    n->peer = NULL;
    free(n->gone_reason);
    n->gone_reason = mem_strdup(reason == NULL ? "it went away" : reason);
}

void orchestrator_on_status(gateway_t *gw, fabric_peer_t *peer, const uint8_t *body, size_t len)
{
    provider_node_t *n = orchestrator_node_of_peer(gw->orchestrator, peer);
    if (n == NULL)
        return;
    auto_err err_t *e = NULL;
    if (orchestrator_note_status(n, body, len, &e) != 0)
        log_warn("provider %s on %s: bad status: %s", n->provider, n->node, err_message(e));
}

/* ---- GET …/providers ---- */

static int write_status(const struct provider_status *status, json_writer_t *w, err_t **e)
{
    auto_buf buf_t bytes = {0};
    if (proto_encode(MSG_provider_status, status, &bytes, e) != 0)
        return -1;
    json_write_open_object(w);
    if (proto_to_json_fields(MSG_provider_status, bytes.data, bytes.len, 0, w, e) != 0)
        return -1;
    if (status->last_checked_at_ms != 0) {
        char text[RFC3339_SIZE];
        json_write_key(w, "last_check");
        json_write_str(w, rfc3339_format((int64_t)status->last_checked_at_ms, text));
    }
    json_write_close_object(w);
    return 0;
}

/* A daemon without a status, or a provider without a daemon: what the table says, never healthy. */
static int write_unknown(const provider_row_t *row, const char *node, const char *message, json_writer_t *w, err_t **e)
{
    auto_buf buf_t capabilities = {0};
    struct capabilities c = {.name = row->label, .provider_type = row->name, .requires_kvm = row->requires_kvm};
    if (proto_encode(MSG_capabilities, &c, &capabilities, e) != 0)
        return -1;
    struct provider_status status = {
        .name = row->name,
        .type = row->name,
        .state = "unhealthy",
        .message = message,
        .node = node,
        .capabilities = {.bytes = capabilities.data, .len = capabilities.len},
    };
    return write_status(&status, w, e);
}

static int write_node(const provider_row_t *row, const provider_node_t *n, json_writer_t *w, err_t **e)
{
    auto_buf buf_t message = {0};
    if (n->peer != NULL && n->has_status)
        return write_status(&n->status, w, e);
    orchestrator_absence(n, row, &message);
    if (!n->has_status)
        return write_unknown(row, n->node, buf_cstr(&message), w, e);
    struct provider_status status = n->status;
    status.healthy = false;
    status.state = "unhealthy";
    status.message = buf_cstr(&message);
    return write_status(&status, w, e);
}

int orchestrator_write_providers(orchestrator_t *o, json_writer_t *w, err_t **e)
{
    json_write_open_array(w);
    for (size_t i = 0; i < ORCHESTRATOR_PROVIDERS; i++) {
        const provider_row_t *row = &ORCHESTRATOR_TABLE[i];
        bool is_known = false;
        for (provider_node_t *n = o->nodes; n != NULL; n = n->next) {
            if (strcmp(n->provider, row->name) != 0)
                continue;
            is_known = true;
            if (write_node(row, n, w, e) != 0)
                return -1;
        }
        auto_free char *message = mem_printf("no %s daemon is connected", row->daemon);
        if (!is_known && write_unknown(row, NULL, message, w, e) != 0)
            return -1;
    }
    json_write_close_array(w);
    return 0;
}
