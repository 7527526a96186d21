// SPDX-License-Identifier: Apache-2.0
// LINK: services/gateway/idempotency.c
// LINK: services/gateway/workspaces.c services/gateway/workspace_rows.c services/gateway/workspace_commit.c
// LINK: services/gateway/workspace_request.c services/gateway/workspace_create.c services/gateway/workspace_destroy.c
// LINK: services/gateway/workspace_reconcile.c services/gateway/workspace_events.c services/gateway/workspace_list.c
// LINK: services/gateway/workspace_handlers.c services/gateway/workspace_time.c services/gateway/orchestrator.c
// LINK: services/gateway/orchestrator_pick.c services/gateway/store.c services/gateway/store_sqlite.c
// LINK: services/gateway/store_migrations.c services/gateway/workspace_quota.c
// LINK: services/gateway/workspace_states.c services/gateway/workspace_stop.c services/gateway/workspace_sessions.c
// LINK: services/gateway/workspace_patch.c services/gateway/workspace_sweep.c
/* Limits of one owner: S-005 for each of them, exact under a burst, and the same after a restart. */
#include "services/gateway/workspaces_internal.h"
#include "tests/unit/workspaces_world.h"

#define TEXT(s) ((char *)(uintptr_t)(s))
#define MINE(cpu, memory, disk)                                                                             \
    "{\"container_type\":\"agent_workspace\",\"resource_limits\":{\"cpu\":\"" cpu "\",\"memory\":\"" memory \
    "\",\"disk\":\"" disk "\"}}"

static int create(fixture_t *f, const char *owner, const char *body, char id[UUID_TEXT_SIZE], char message[512])
{
    fake_request_t *made = post_and_wait(f, owner, body);
    int status = made->status;
    if (id != NULL)
        snprintf(id, UUID_TEXT_SIZE, "%s", fake_text(made, "id"));
    if (message != NULL)
        snprintf(message, 512, "%s", made->body);
    fake_request_free(made);
    return status;
}

static void begin(fixture_t *f)
{
    start(f);
    f->gw.daemon.config.max_concurrent = 100000;
    connect_provider(f, &f->gvisor);
}

Test(quota, S005_of_fifty_at_once_exactly_as_many_succeed_as_the_owner_may_have, .timeout = 60)
{
    fixture_t f;
    begin(&f);
    f.gw.daemon.config.owner_max_workspaces = 7;
    fake_request_t *all[50];
    size_t good = 0, refused = 0;
    for (size_t i = 0; i < COUNT_OF(all); i++)
        all[i] = post(&f, "me", NULL, AGENT);
    for (size_t i = 0; i < COUNT_OF(all); i++) {
        cr_assert(RUN_UNTIL(&f, all[i]->status != 0));
        good += all[i]->status == 201;
        refused += all[i]->status == 429;
        fake_request_free(all[i]);
    }
    cr_expect_eq(good, 7);
    cr_expect_eq(refused, 43);
    cr_expect_eq(create(&f, "other", AGENT, NULL, NULL), 201, "another owner has limits of its own");
    finish(&f);
}

Test(quota, the_refusal_names_the_limit_what_is_used_and_what_helps, .timeout = 60)
{
    fixture_t f;
    char message[512], id[UUID_TEXT_SIZE];
    begin(&f);
    f.gw.daemon.config.owner_max_cpu = TEXT("2.5");
    cr_expect_eq(create(&f, "me", MINE("2", "64M", "64M"), id, NULL), 201);
    cr_expect_eq(create(&f, "me", MINE("1", "64M", "64M"), NULL, message), 429);
    cr_expect_str_eq(message,
                     "the limit of CPUs of one owner's running workspaces is reached: WORKSPACE_OWNER_MAX_CPU is "
                     "2.5, 2 is used and this one wants 1; stop or destroy one, or ask for less");
    cr_expect_eq(create(&f, "me", MINE("0.5", "64M", "64M"), NULL, NULL), 201, "to the last bit");
    cr_assert_eq(status_of(&f, workspace_delete, "me", id), 204);
    cr_expect_eq(create(&f, "me", MINE("2", "64M", "64M"), NULL, NULL), 201, "there is room again");
    finish(&f);
}

Test(quota, memory_counts_while_it_runs_and_disk_always, .timeout = 60)
{
    fixture_t f;
    char message[512], id[UUID_TEXT_SIZE];
    uuid16_t uuid;
    begin(&f);
    f.gw.daemon.config.owner_max_memory = TEXT("1G");
    f.gw.daemon.config.owner_max_disk = TEXT("10G");
    cr_expect_eq(create(&f, "me", MINE("1", "1G", "6G"), id, NULL), 201);
    cr_expect_eq(create(&f, "me", MINE("1", "64M", "1G"), NULL, message), 429);
    cr_expect(strstr(message, "WORKSPACE_OWNER_MAX_MEMORY is 1G, 1G is used and this one wants 64M"), "%s", message);
    cr_assert(uuid16_parse(&uuid, id));
    workspace_t *ws = workspaces_get(f.gw.workspaces, &uuid);
    workspace_set_status(ws, WORKSPACE_STOPPED);
    auto_err err_t *e = NULL;
    cr_expect_eq(workspaces_check_room(f.gw.workspaces, ws, &e), 0, "to be resumed, its disk is not wanted again");
    cr_expect_eq(create(&f, "me", MINE("1", "64M", "5G"), NULL, message), 429);
    cr_expect(strstr(message, "WORKSPACE_OWNER_MAX_DISK is 10G, 6G is used and this one wants 5G; destroy one"), "%s",
              message);
    cr_expect_eq(create(&f, "me", MINE("1", "64M", "4G"), NULL, NULL), 201);
    cr_expect_eq(workspaces_check_room(f.gw.workspaces, ws, &e), -1, "its memory has been given away");
    cr_expect_eq(err_code(e), ERR_LIMIT_REACHED);
    finish(&f);
}

Test(quota, a_restart_knows_what_is_used, .timeout = 60)
{
    fixture_t f;
    begin(&f);
    f.gw.daemon.config.owner_max_workspaces = 2;
    cr_expect_eq(create(&f, "me", AGENT, NULL, NULL), 201);
    cr_expect_eq(create(&f, "me", AGENT, NULL, NULL), 201);
    fake_provider_disconnect(&f.gvisor);
    close_gateway(&f);
    open_gateway(&f);
    connect_provider(&f, &f.gvisor);
    cr_expect_eq(create(&f, "me", AGENT, NULL, NULL), 429);
    finish(&f);
}

Test(quota, a_limit_that_cannot_be_read_is_refused_at_the_start, .timeout = 60)
{
    static const struct {
        const char *cpu, *memory, *disk, *name;
    } rows[] = {{"many", "", "", "WORKSPACE_OWNER_MAX_CPU"},
                {"", "64 gigabytes", "", "WORKSPACE_OWNER_MAX_MEMORY"},
                {"", "", "-1", "WORKSPACE_OWNER_MAX_DISK"}};
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        auto_err err_t *e = NULL;
        config_t config = {.owner_max_cpu = TEXT(rows[i].cpu),
                           .owner_max_memory = TEXT(rows[i].memory),
                           .owner_max_disk = TEXT(rows[i].disk)};
        cr_expect_eq(quota_check_config(&config, &e), -1);
        cr_expect(strstr(err_message(e), rows[i].name), "%s", err_message(e));
    }
    auto_err err_t *e = NULL;
    config_t good = {.owner_max_cpu = TEXT("16"), .owner_max_memory = TEXT("64G"), .owner_max_disk = TEXT("")};
    cr_expect_eq(quota_check_config(&good, &e), 0);
}

/* Ten thousand workspaces of a hundred owners: a create looks at its owner's sums, not at them. */
Test(quota, sums_hold_with_many_workspaces_and_cost_nothing, .timeout = 60)
{
    fixture_t f;
    begin(&f);
    workspaces_t *all = f.gw.workspaces;
    f.gw.daemon.config.owner_max_cpu = TEXT("200");
    for (unsigned i = 0; i < 10000; i++) {
        workspace_t *ws = workspace_new(all);
        memcpy(ws->row.id.bytes, &(unsigned[]){i, i, i, i}, sizeof(ws->row.id.bytes));
        uuid16_format(&ws->row.id, ws->row.id_text);
        snprintf(ws->row.owner, sizeof(ws->row.owner), "owner%u", i % 100);
        ws->row.container_type = mem_strdup("agent_workspace");
        ws->row.lifecycle = mem_strdup("ephemeral");
        ws->row.provider = mem_strdup("gvisor");
        ws->node = mem_strdup("");
        ws->row.cpu = mem_strdup("2");
        ws->row.created_at_ms = i;
        ws->row.status = i < 9900 ? WORKSPACE_READY : WORKSPACE_STOPPED;
        workspaces_add(all, ws);
    }
    workspace_t *ws = all->newest;
    auto_err err_t *e = NULL;
    uint64_t began = clock_monotonic_us();
    for (int i = 0; i < 1000; i++)
        cr_assert_eq(workspaces_check_room(all, ws, &e), 0, "99 of 100 run: one more fits");
    uint64_t us = clock_monotonic_us() - began;
    cr_expect_lt(us, 100000, "1000 checks took %llu us", (unsigned long long)us);
    workspace_set_status(ws, WORKSPACE_READY);
    cr_expect_eq(workspaces_check_room(all, ws, &e), -1);
    finish(&f);
}
