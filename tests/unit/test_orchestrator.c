// SPDX-License-Identifier: Apache-2.0
// LINK: services/gateway/orchestrator.c services/gateway/orchestrator_pick.c services/gateway/workspace_time.c
/* Covers S-106, S-107, S-109, S-110, S-113, S-114, S-118, S-119, S-120, S-125. */
#include "services/gateway/orchestrator.h"

#include "common/mem.h"

#include <criterion/criterion.h>
#include <stdio.h>

/* A peer that is only ever compared. */
static fabric_peer_t *some_peer(void)
{
    static char place;
    return (fabric_peer_t *)(void *)&place;
}

const struct hello *fabric_peer_hello(const fabric_peer_t *peer)
{
    (void)peer;
    static const struct hello HELLO = {.role = "gvisord", .node = "n1"};
    return &HELLO;
}

typedef struct daemon_facts {
    const char *provider;
    const char *node;
    bool healthy;
    const char *message;
    bool requires_kvm, has_kvm;
    const char *modes, *images; /* "a b" */
    uint32_t active, max;
    uint64_t free_memory;
} daemon_facts_t;

static proto_list_t words(buf_t *b, const char *text)
{
    uint32_t count = 0;
    for (size_t len; *text != '\0'; text += len + (text[len] == ' '), count++) {
        len = strcspn(text, " ");
        proto_list_add_strn(b, text, len);
    }
    return proto_list_of(count, b);
}

static void add_daemon(orchestrator_t *o, const daemon_facts_t *f)
{
    auto_err err_t *e = NULL;
    auto_buf buf_t modes = {0}, images = {0}, capabilities = {0}, status = {0};
    struct capabilities c = {.name = f->provider, .provider_type = f->provider, .requires_kvm = f->requires_kvm};
    c.network_modes = words(&modes, f->modes == NULL ? "none" : f->modes);
    cr_assert_eq(proto_encode(MSG_capabilities, &c, &capabilities, &e), 0, "%s", err_message(e));
    struct provider_status s = {
        .name = f->provider,
        .type = f->provider,
        .healthy = f->healthy,
        .message = f->message,
        .node = f->node,
        .state = f->healthy ? "healthy" : "unhealthy",
        .has_kvm = f->has_kvm,
        .active_count = f->active,
        .max_sandboxes = f->max,
        .free_memory_bytes = f->free_memory,
        .last_checked_at_ms = 1795712675123,
        .capabilities = {.bytes = capabilities.data, .len = capabilities.len},
    };
    s.images = words(&images, f->images == NULL ? "base node" : f->images);
    cr_assert_eq(proto_encode(MSG_provider_status, &s, &status, &e), 0, "%s", err_message(e));
    provider_node_t *n = orchestrator_node(o, f->provider, f->node, true);
    n->peer = some_peer();
    cr_assert_eq(orchestrator_note_status(n, status.data, status.len, &e), 0, "%s", err_message(e));
}

static const daemon_facts_t FC_KVM = {"firecracker", "n1", true, NULL, true, true, NULL, NULL, 0, 0, 0};
static const daemon_facts_t FC_NO_KVM = {"firecracker", "n1", true, NULL, true, false, NULL, NULL, 0, 0, 0};
static const daemon_facts_t GVISOR = {"gvisor", "n1", true, NULL, false, false, "none full", NULL, 0, 0, 0};
static const daemon_facts_t NO_RUNSC = {
    "gvisor", "n1", false, "gVisor runtime not available: runsc was not found", false, false, NULL, NULL, 0, 0, 0};
static const daemon_facts_t GVISOR_FULL = {"gvisor", "n1", true, NULL, false, false, NULL, NULL, 4, 4, 0};
static const daemon_facts_t GVISOR_TIGHT = {"gvisor", "n1", true, NULL, false, false, NULL, NULL, 0, 0, 64 << 20};
static const daemon_facts_t GVISOR_BUSY_2 = {"gvisor", "n2", true, NULL, false, false, NULL, NULL, 7, 0, 0};
static const daemon_facts_t GVISOR_IDLE_3 = {"gvisor", "n3", true, NULL, false, false, NULL, NULL, 1, 0, 0};
static const daemon_facts_t E2B = {"e2b", "n1", true, NULL, false, false, "none full", NULL, 0, 0, 0};

typedef struct pick_case {
    const char *name;
    const char *type, *mode, *provider, *preferred, *image, *network;
    const daemon_facts_t *daemons[4];
    const char *expected; /* "provider@node …" in order */
    const char *error;    /* part of the error when there is no candidate */
    enum err_code code;
} pick_case_t;

#define AGENT "agent_workspace"
#define MCP "mcp_server"
#define SELF "self-hosted"
static const pick_case_t CASES[] = {
    {"S-106 self-hosted with KVM: Firecracker first",
     AGENT,
     SELF,
     "auto",
     NULL,
     "base",
     "none",
     {&GVISOR, &FC_KVM},
     "firecracker@n1 gvisor@n1",
     NULL,
     0},
    {"S-107 without KVM: gVisor",
     AGENT,
     SELF,
     "auto",
     NULL,
     "base",
     "none",
     {&GVISOR, &FC_NO_KVM},
     "gvisor@n1",
     NULL,
     0},
    {"S-108 managed with E2B",
     AGENT,
     "managed",
     "auto",
     NULL,
     "base",
     "none",
     {&GVISOR, &E2B, &FC_KVM},
     "e2b@n1 firecracker@n1 gvisor@n1",
     NULL,
     0},
    {"S-109 managed without E2B is as self-hosted",
     AGENT,
     "managed",
     "auto",
     NULL,
     "base",
     "none",
     {&GVISOR, &FC_KVM},
     "firecracker@n1 gvisor@n1",
     NULL,
     0},
    {"S-110 no provider named is auto", AGENT, SELF, "", NULL, "base", "none", {&GVISOR}, "gvisor@n1", NULL, 0},
    {"S-119 agent_workspace: Firecracker first",
     AGENT,
     SELF,
     NULL,
     NULL,
     "base",
     "none",
     {&E2B, &GVISOR, &FC_KVM},
     "firecracker@n1 gvisor@n1 e2b@n1",
     NULL,
     0},
    {"S-120 mcp_server: gVisor first",
     MCP,
     SELF,
     "auto",
     NULL,
     "base",
     "none",
     {&FC_KVM, &GVISOR},
     "gvisor@n1 firecracker@n1",
     NULL,
     0},
    {"managed mcp_server: gVisor, E2B, Firecracker",
     MCP,
     "managed",
     "auto",
     NULL,
     "base",
     "none",
     {&FC_KVM, &GVISOR, &E2B},
     "gvisor@n1 e2b@n1 firecracker@n1",
     NULL,
     0},
    {"a configured default goes first",
     AGENT,
     SELF,
     "auto",
     "gvisor",
     "base",
     "none",
     {&FC_KVM, &GVISOR},
     "gvisor@n1 firecracker@n1",
     NULL,
     0},
    {"S-113 explicit: that one only",
     AGENT,
     SELF,
     "gvisor",
     NULL,
     "base",
     "none",
     {&FC_KVM, &GVISOR},
     "gvisor@n1",
     NULL,
     0},
    {"explicit but unhealthy",
     AGENT,
     SELF,
     "gvisor",
     NULL,
     "base",
     "none",
     {&FC_KVM, &NO_RUNSC},
     "",
     "requested provider \"gvisor\" is unhealthy: gVisor runtime not available",
     ERR_PROVIDER_UNAVAILABLE},
    {"explicit but without a daemon",
     AGENT,
     SELF,
     "firecracker",
     NULL,
     "base",
     "none",
     {&GVISOR},
     "",
     "requested provider \"firecracker\" is not registered: no fcmgr daemon is connected",
     ERR_PROVIDER_UNAVAILABLE},
    {"S-125 no runsc: the next one", AGENT, SELF, "auto", NULL, "base", "none", {&NO_RUNSC, &E2B}, "e2b@n1", NULL, 0},
    {"S-114 none: every provider with its reason",
     AGENT,
     SELF,
     "auto",
     NULL,
     "base",
     "none",
     {&FC_NO_KVM, &NO_RUNSC},
     "",
     "no healthy providers available: firecracker: it needs /dev/kvm, which node n1 does not have; gvisor: gVisor "
     "runtime not available: runsc was not found; e2b: no e2bproxy daemon is connected",
     ERR_PROVIDER_UNAVAILABLE},
    {"an unknown image is the caller's fault",
     AGENT,
     SELF,
     "auto",
     NULL,
     "nope",
     "none",
     {&GVISOR},
     "",
     "image 'nope' is not there (images: base, node)",
     ERR_BAD_REQUEST},
    {"a network mode that one has and one has not",
     AGENT,
     SELF,
     "auto",
     NULL,
     "base",
     "full",
     {&FC_KVM, &GVISOR},
     "gvisor@n1",
     NULL,
     0},
    {"a network mode that none has",
     AGENT,
     SELF,
     "firecracker",
     NULL,
     "base",
     "full",
     {&FC_KVM},
     "",
     "network 'full' is not supported (modes: none)",
     ERR_BAD_REQUEST},
    {"a full daemon",
     AGENT,
     SELF,
     "auto",
     NULL,
     "base",
     "none",
     {&GVISOR_FULL},
     "",
     "all of its 4 sandboxes",
     ERR_PROVIDER_UNAVAILABLE},
    {"a daemon short of memory",
     AGENT,
     SELF,
     "auto",
     NULL,
     "base",
     "none",
     {&GVISOR_TIGHT},
     "",
     "short of memory (64 MiB free)",
     ERR_PROVIDER_UNAVAILABLE},
    {"the emptiest node first",
     AGENT,
     SELF,
     "auto",
     NULL,
     "base",
     "none",
     {&GVISOR_BUSY_2, &GVISOR_IDLE_3, &GVISOR},
     "gvisor@n1 gvisor@n3 gvisor@n2",
     NULL,
     0},
    {"no daemon at all",
     AGENT,
     SELF,
     "auto",
     NULL,
     "base",
     "none",
     {NULL},
     "",
     "gvisor: no gvisord daemon is connected",
     ERR_PROVIDER_UNAVAILABLE},
};

static void check_case(const pick_case_t *c)
{
    orchestrator_t *o = orchestrator_new();
    for (size_t i = 0; i < COUNT_OF(c->daemons) && c->daemons[i] != NULL; i++)
        add_daemon(o, c->daemons[i]);
    pick_request_t request = {c->type, c->mode, c->provider, c->preferred, c->image, c->network};
    pick_t pick;
    orchestrator_pick(o, &request, &pick);
    auto_buf buf_t got = {0};
    for (size_t i = 0; i < pick.count; i++)
        buf_printf(&got, "%s%s@%s", i > 0 ? " " : "", pick.candidates[i]->provider, pick.candidates[i]->node);
    cr_expect_str_eq(buf_cstr(&got), c->expected, "%s: got \"%s\", expected \"%s\"", c->name, buf_cstr(&got),
                     c->expected);
    if (c->error != NULL && pick.count == 0) {
        auto_err err_t *e = NULL;
        (void)pick_error(&pick, &e);
        cr_expect_not_null(strstr(err_message(e), c->error), "%s: \"%s\"", c->name, err_message(e));
        cr_expect_eq(err_code(e), c->code, "%s: code %s", c->name, err_code_name(err_code(e)));
    }
    pick_free(&pick);
    orchestrator_destroy(&o);
}

Test(orchestrator, picks_by_the_chain_and_says_why_not, .timeout = 20)
{
    for (size_t i = 0; i < COUNT_OF(CASES); i++)
        check_case(&CASES[i]);
}

Test(orchestrator, a_create_under_way_counts_against_the_room, .timeout = 20)
{
    orchestrator_t *o = orchestrator_new();
    daemon_facts_t almost = GVISOR_FULL;
    almost.active = 3;
    add_daemon(o, &almost);
    pick_request_t request = {AGENT, SELF, "", NULL, "base", "none"};
    pick_t pick;
    orchestrator_pick(o, &request, &pick);
    cr_assert_eq(pick.count, 1);
    pick.candidates[0]->pending++;
    pick_free(&pick);
    orchestrator_pick(o, &request, &pick);
    cr_assert_eq(pick.count, 0);
    pick_free(&pick);
    orchestrator_destroy(&o);
}

Test(orchestrator, a_broken_status_is_refused_and_the_old_one_stays, .timeout = 20)
{
    orchestrator_t *o = orchestrator_new();
    add_daemon(o, &GVISOR);
    provider_node_t *n = orchestrator_node(o, "gvisor", "n1", false);
    auto_err err_t *e = NULL;
    cr_assert_eq(orchestrator_note_status(n, (const uint8_t *)"\xff\xff", 2, &e), -1);
    cr_assert(n->status.healthy);
    orchestrator_destroy(&o);
}

Test(orchestrator, lists_every_provider_with_health_time_and_room, .timeout = 20)
{
    orchestrator_t *o = orchestrator_new();
    daemon_facts_t roomy = GVISOR;
    roomy.active = 2;
    roomy.free_memory = 5ULL << 30;
    add_daemon(o, &roomy);
    auto_buf buf_t out = {0};
    json_writer_t w;
    json_writer_init(&w, &out);
    auto_err err_t *e = NULL;
    cr_assert_eq(orchestrator_write_providers(o, &w, &e), 0, "%s", err_message(e));
    json_t *list = json_loads(buf_cstr(&out), 0, NULL);
    cr_assert_eq(json_array_size(list), 3);
    json_t *fc = json_array_get(list, 0), *gvisor = json_array_get(list, 2);
    cr_assert_str_eq(json_string_value(json_object_get(fc, "name")), "firecracker");
    cr_assert(json_is_false(json_object_get(fc, "healthy")));
    cr_assert_str_eq(json_string_value(json_object_get(fc, "message")), "no fcmgr daemon is connected");
    cr_assert(json_is_true(json_object_get(json_object_get(fc, "capabilities"), "requires_kvm")));
    cr_assert(json_is_true(json_object_get(gvisor, "healthy")));
    cr_assert_eq(json_integer_value(json_object_get(gvisor, "active_count")), 2);
    cr_assert_eq(json_integer_value(json_object_get(gvisor, "free_memory_bytes")), 5LL << 30);
    cr_assert_str_eq(json_string_value(json_object_get(gvisor, "last_check")), "2026-11-26T17:04:35.123Z");
    json_decref(list);
    orchestrator_destroy(&o);
}

Test(orchestrator, a_daemon_that_left_is_shown_as_gone, .timeout = 20)
{
    gateway_t gw = {0};
    auto_err err_t *e = NULL;
    cr_assert_eq(orchestrator_open(&gw, &e), 0);
    orchestrator_on_peer_up(&gw, some_peer());
    add_daemon(gw.orchestrator, &GVISOR);
    orchestrator_on_peer_down(&gw, some_peer(), "no heartbeat for 3 s");
    pick_request_t request = {AGENT, SELF, "gvisor", NULL, "base", "none"};
    pick_t pick;
    orchestrator_pick(gw.orchestrator, &request, &pick);
    cr_assert_eq(pick.count, 0);
    (void)pick_error(&pick, &e);
    cr_assert_not_null(strstr(err_message(e), "no heartbeat for 3 s"), "%s", err_message(e));
    pick_free(&pick);
    orchestrator_close(&gw);
}
