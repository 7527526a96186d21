// SPDX-License-Identifier: Apache-2.0
/* The choice: the chain table, what disqualifies a daemon, and the sentence for whoever asked. */
#include "services/gateway/orchestrator.h"

#include "common/log.h"
#include "common/mem.h"
#include "services/gateway/orchestrator_internal.h"

#include <inttypes.h>
#include <stdio.h>

/* Contract §6.1. A managed deployment without an E2B daemon falls through to what is self-hosted. */
static const struct chain_row {
    const char *deployment_mode;
    const char *container_type;
    const char *chain[ORCHESTRATOR_PROVIDERS];
} CHAINS[] = {
    {"managed", "agent_workspace", {"e2b", "firecracker", "gvisor"}},
    {"managed", "mcp_server", {"gvisor", "e2b", "firecracker"}},
    {"self-hosted", "agent_workspace", {"firecracker", "gvisor", "e2b"}},
    {"self-hosted", "mcp_server", {"gvisor", "firecracker", "e2b"}},
};

static bool is_auto(const char *provider)
{
    return provider == NULL || provider[0] == '\0' || strcmp(provider, "auto") == 0;
}

size_t orchestrator_chain(const char *container_type, const char *deployment_mode, const char *preferred,
                          const char *chain[ORCHESTRATOR_PROVIDERS])
{
    const struct chain_row *row = &CHAINS[2];
    for (size_t i = 0; i < COUNT_OF(CHAINS); i++)
        if (strcmp(CHAINS[i].deployment_mode, deployment_mode) == 0 &&
            strcmp(CHAINS[i].container_type, container_type) == 0)
            row = &CHAINS[i];
    const provider_row_t *first = is_auto(preferred) ? NULL : orchestrator_row(preferred);
    size_t count = 0;
    if (first != NULL)
        chain[count++] = first->name;
    for (size_t i = 0; i < ORCHESTRATOR_PROVIDERS; i++)
        if (first == NULL || strcmp(row->chain[i], first->name) != 0)
            chain[count++] = row->chain[i];
    return count;
}

/* ---- one daemon ---- */

enum verdict { VERDICT_FIT, VERDICT_ABSENT, VERDICT_UNHEALTHY, VERDICT_UNFIT };

void orchestrator_absence(const provider_node_t *n, const provider_row_t *row, buf_t *reason)
{
    if (n->peer == NULL)
        buf_printf(reason, "the %s daemon on node %s is not connected%s%s", row->daemon, n->node,
                   n->gone_reason == NULL ? "" : ": ", n->gone_reason == NULL ? "" : n->gone_reason);
    else if (!n->has_status)
        buf_printf(reason, "the %s daemon on node %s has not told its status yet", row->daemon, n->node);
}

static bool list_has(const proto_list_t *list, const char *wanted, buf_t *shown)
{
    proto_iter_t it = proto_iter(list);
    const char *item;
    bool has = false;
    while (proto_iter_str(&it, &item)) {
        has |= strcmp(item, wanted) == 0;
        buf_printf(shown, "%s%s", shown->len > 0 ? ", " : "", item);
    }
    if (shown->len == 0)
        buf_append_str(shown, "none");
    return has;
}

static enum verdict judge_health(const provider_node_t *n, const provider_row_t *row, buf_t *reason)
{
    orchestrator_absence(n, row, reason);
    if (n->peer == NULL)
        return VERDICT_ABSENT;
    if (!n->has_status)
        return VERDICT_UNHEALTHY;
    const struct provider_status *s = &n->status;
    if (!s->healthy)
        buf_append_str(reason, s->message == NULL || s->message[0] == '\0' ? "it gave no reason" : s->message);
    else if (n->capabilities.requires_kvm && !s->has_kvm)
        buf_printf(reason, "it needs /dev/kvm, which node %s does not have", n->node);
    else if (s->max_sandboxes > 0 && (uint64_t)s->active_count + n->pending >= s->max_sandboxes)
        buf_printf(reason, "node %s has all of its %" PRIu32 " sandboxes in use", n->node, s->max_sandboxes);
    else if (s->free_memory_bytes > 0 && s->free_memory_bytes < ORCHESTRATOR_MIN_FREE_MEMORY)
        buf_printf(reason, "node %s is short of memory (%" PRIu64 " MiB free)", n->node, s->free_memory_bytes >> 20);
    else if (s->free_disk_bytes > 0 && s->free_disk_bytes < ORCHESTRATOR_MIN_FREE_DISK)
        buf_printf(reason, "node %s is short of disk (%" PRIu64 " MiB free)", n->node, s->free_disk_bytes >> 20);
    else
        return VERDICT_FIT;
    return VERDICT_UNHEALTHY;
}

static enum verdict judge(const provider_node_t *n, const provider_row_t *row, const pick_request_t *request,
                          buf_t *reason)
{
    enum verdict verdict = judge_health(n, row, reason);
    if (verdict != VERDICT_FIT)
        return verdict;
    auto_buf buf_t modes = {0};
    auto_buf buf_t images = {0};
    bool has_mode = list_has(&n->capabilities.network_modes, request->network, &modes);
    if (n->capabilities.network_modes.count == 0)
        has_mode = strcmp(request->network, "none") == 0; /* a daemon that lists nothing promises nothing */
    bool has_image = list_has(&n->status.images, request->image, &images);
    if (!has_mode)
        buf_printf(reason, "network '%s' is not supported (modes: %s)", request->network, buf_cstr(&modes));
    else if (!has_image)
        buf_printf(reason, "image '%s' is not there (images: %s)", request->image, buf_cstr(&images));
    else
        return VERDICT_FIT;
    return VERDICT_UNFIT;
}

/* ---- all of them ---- */

static void add_reason(pick_t *pick, const char *provider, const char *node, const char *reason)
{
    buf_printf(&pick->reasons, "%s%s%s%s: %s", pick->reasons.len > 0 ? "; " : "", provider,
               node[0] == '\0' ? "" : " on ", node, reason);
}

static size_t count_nodes(const orchestrator_t *o, const char *provider)
{
    size_t count = 0;
    for (const provider_node_t *n = o->nodes; n != NULL; n = n->next)
        count += strcmp(n->provider, provider) == 0;
    return count;
}

/* Behind those of earlier providers, before fuller daemons of the same one. */
static void add_candidate(pick_t *pick, size_t first_of_provider, provider_node_t *n)
{
    size_t at = pick->count++;
    uint64_t load = (uint64_t)n->status.active_count + n->pending;
    for (; at > first_of_provider; at--) {
        provider_node_t *other = pick->candidates[at - 1];
        if ((uint64_t)other->status.active_count + other->pending <= load)
            break;
        pick->candidates[at] = other;
    }
    pick->candidates[at] = n;
}

static void pick_provider(orchestrator_t *o, const char *provider, const pick_request_t *request, pick_t *pick)
{
    const provider_row_t *row = orchestrator_row(provider);
    size_t nodes = count_nodes(o, provider);
    size_t first = pick->count;
    enum verdict worst = VERDICT_ABSENT;
    for (provider_node_t *n = o->nodes; n != NULL; n = n->next) {
        if (strcmp(n->provider, provider) != 0)
            continue;
        auto_buf buf_t reason = {0};
        enum verdict verdict = judge(n, row, request, &reason);
        if (verdict == VERDICT_FIT)
            add_candidate(pick, first, n);
        else
            add_reason(pick, provider, nodes > 1 ? n->node : "", buf_cstr(&reason));
        if (verdict == VERDICT_UNFIT)
            pick->is_callers_fault = true;
        if (verdict > worst)
            worst = verdict;
    }
    if (nodes == 0) {
        auto_free char *reason = mem_printf("no %s daemon is connected", row->daemon);
        add_reason(pick, provider, "", reason);
    }
    snprintf(pick->refusal, sizeof(pick->refusal), "%s", worst == VERDICT_ABSENT ? "not registered" : "unhealthy");
}

/* Why providers are passed over (no KVM, no daemon, no runsc) is logged when it changes, not with every create. */
static void log_reasons(orchestrator_t *o, pick_t *pick)
{
    const char *reasons = buf_cstr(&pick->reasons);
    if (pick->is_callers_fault || (o->last_reasons != NULL && strcmp(o->last_reasons, reasons) == 0))
        return;
    free(o->last_reasons);
    o->last_reasons = mem_strdup(reasons);
    if (reasons[0] != '\0')
        log_info("providers that are not used: %s", reasons);
}

void orchestrator_pick(orchestrator_t *o, const pick_request_t *request, pick_t *pick)
{
    memset(pick, 0, sizeof(*pick));
    pick->is_explicit = !is_auto(request->provider);
    if (pick->is_explicit) {
        snprintf(pick->requested, sizeof(pick->requested), "%s", request->provider);
        pick_provider(o, request->provider, request, pick);
        return;
    }
    const char *chain[ORCHESTRATOR_PROVIDERS];
    size_t count = orchestrator_chain(request->container_type, request->deployment_mode, request->preferred, chain);
    for (size_t i = 0; i < count; i++)
        pick_provider(o, chain[i], request, pick);
    log_reasons(o, pick);
}

int pick_error(const pick_t *pick, err_t **e)
{
    auto_free char *reasons =
        mem_strndup((const char *)(pick->reasons.data ? pick->reasons.data : (const uint8_t *)""), pick->reasons.len);
    if (pick->is_callers_fault)
        return err_set(e, ERR_BAD_REQUEST, "no provider can serve this request: %s", reasons);
    if (!pick->is_explicit)
        return err_set(e, ERR_PROVIDER_UNAVAILABLE, "no healthy providers available: %s", reasons);
    /* The reason starts with "<provider>: ", which the sentence says already. */
    const char *why = strstr(reasons, ": ");
    return err_set(e, ERR_PROVIDER_UNAVAILABLE, "requested provider \"%s\" is %s: %s", pick->requested, pick->refusal,
                   why == NULL ? reasons : why + 2);
}

void pick_free(pick_t *pick)
{
    buf_free(&pick->reasons);
    pick->count = 0;
}
