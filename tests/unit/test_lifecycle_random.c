// SPDX-License-Identifier: Apache-2.0
// LINK: services/gateway/idempotency.c services/gateway/workspace_quota.c services/gateway/workspace_states.c
// LINK: services/gateway/workspace_stop.c services/gateway/workspace_sessions.c services/gateway/workspace_patch.c
// LINK: services/gateway/workspace_sweep.c
// LINK: services/gateway/workspaces.c services/gateway/workspace_rows.c services/gateway/workspace_commit.c
// LINK: services/gateway/workspace_request.c services/gateway/workspace_create.c services/gateway/workspace_destroy.c
// LINK: services/gateway/workspace_reconcile.c services/gateway/workspace_events.c services/gateway/workspace_list.c
// LINK: services/gateway/workspace_handlers.c services/gateway/workspace_time.c services/gateway/orchestrator.c
// LINK: services/gateway/orchestrator_pick.c services/gateway/store.c services/gateway/store_sqlite.c
// LINK: services/gateway/store_migrations.c services/gateway/snapshots.c services/gateway/snapshot_rows.c
// LINK: services/gateway/snapshot_write.c services/gateway/snapshot_take.c services/gateway/snapshot_delete.c
// LINK: services/gateway/snapshot_restore.c services/gateway/snapshot_fork.c services/gateway/snapshot_from.c
// LINK: services/gateway/snapshot_reconcile.c services/gateway/snapshot_sweep.c services/gateway/snapshot_handlers.c
/* Thousands of random requests at once, with hang-ups, failing and vanishing daemons and a database that goes away:
 * whatever came of them, everything comes to rest, the sums are what a recount says, and nothing is left at the end. */
#include "tests/unit/flaky_store.h"
#include "tests/unit/snapshots_world.h"

#include "common/text.h"

#define OWNERS 3
#define ASKED_MAX 48
#define PROBE "00000000-0000-4000-8000-000000000000"
#define TEXT(s) ((char *)(uintptr_t)(s))

typedef struct chance {
    uint64_t state;
} chance_t;

static unsigned draw(chance_t *c, unsigned below)
{
    c->state ^= c->state << 13;
    c->state ^= c->state >> 7;
    c->state ^= c->state << 17;
    return (unsigned)((c->state >> 11) % below);
}

static const char *const WHO[OWNERS] = {"me", "you", "them"};
static const char *const SIZES[] = {"64M", "128M", "1G", "3G"};
static const char *const CPUS[] = {"0.5", "1", "2", "0.125"};

/* ---- the sums against a recount ---- */

typedef struct sums {
    size_t running;
    uint64_t cpu, memory, disk;
} sums_t;

static sums_t recount(const workspaces_t *all, const char *owner)
{
    sums_t sums = {0};
    for (const workspace_t *ws = all->newest; ws != NULL; ws = ws->older) {
        uint64_t memory = 0, disk = 0;
        uint32_t milli = 0;
        if (strcmp(ws->row.owner, owner) != 0 || strcmp(ws->row.container_type, "agent_workspace") != 0)
            continue;
        cr_assert(text_to_milli(ws->row.cpu, &milli) && text_to_size(ws->row.memory, &memory) &&
                  text_to_size(ws->row.disk, &disk));
        bool is_resting = ws->row.status == WORKSPACE_STOPPED || ws->row.status == WORKSPACE_ERROR;
        bool is_running = !is_resting || ws->row.intent == INTENT_RESUME;
        sums.running += is_running;
        sums.cpu += is_running ? milli : 0;
        sums.memory += is_running ? memory : 0;
        sums.disk += disk;
    }
    return sums;
}

/* What the gateway thinks is used, from the refusal of one that never fits. */
static uint64_t used_of(fixture_t *f, const char *owner, char **limit, const char *value)
{
    workspace_t *probe = workspace_new(f->gw.workspaces);
    auto_err err_t *e = NULL;
    char *before = *limit;
    uint64_t used = 0;
    snprintf(probe->row.owner, sizeof(probe->row.owner), "%s", owner);
    probe->row.container_type = mem_strdup("agent_workspace");
    probe->row.cpu = mem_strdup("1024");
    probe->row.memory = mem_strdup("100000G");
    probe->row.disk = mem_strdup("100000G");
    *limit = TEXT(value);
    int64_t max = f->gw.daemon.config.max_concurrent;
    f->gw.daemon.config.max_concurrent = 100000;
    cr_assert_eq(workspaces_check_room(f->gw.workspaces, probe, &e), -1);
    f->gw.daemon.config.max_concurrent = max;
    *limit = before;
    json_t *details = json_loads(err_details(e), 0, NULL);
    const char *text = json_string_value(json_object_get(details, "used"));
    uint32_t milli = 0;
    if (limit == &f->gw.daemon.config.owner_max_cpu && text_to_milli(text, &milli))
        used = milli;
    else if (limit != &f->gw.daemon.config.owner_max_cpu)
        (void)text_to_size(text, &used); /* none for "0G" */
    json_decref(details);
    workspace_free(probe);
    return used;
}

static void compare(fixture_t *f, const char *when)
{
    config_t *config = &f->gw.daemon.config;
    const workspaces_t *all = f->gw.workspaces;
    size_t running = 0, by_status[WORKSPACE_STATUS_COUNT] = {0};
    for (size_t i = 0; i < OWNERS; i++) {
        sums_t sums = recount(all, WHO[i]);
        running += sums.running;
        cr_assert_eq(used_of(f, WHO[i], &config->owner_max_cpu, "0.001"), sums.cpu, "%s: CPU of %s", when, WHO[i]);
        cr_assert_eq(used_of(f, WHO[i], &config->owner_max_memory, "1"), sums.memory, "%s: memory of %s", when, WHO[i]);
        cr_assert_eq(used_of(f, WHO[i], &config->owner_max_disk, "1"), sums.disk, "%s: disk of %s", when, WHO[i]);
    }
    cr_assert_eq(all->active, running, "%s: %zu active, %zu are", when, all->active, running);
    for (const workspace_t *ws = all->newest; ws != NULL; ws = ws->older)
        by_status[ws->row.status]++;
    cr_assert_arr_eq(by_status, all->by_status, sizeof(by_status), "%s", when);
}

/* ---- random requests ---- */

typedef struct chaos {
    fixture_t f;
    chance_t chance;
    fake_request_t *asked[ASKED_MAX];
    unsigned answers[600];
} chaos_t;

static void run_tool(api_request_t *r)
{
    api_reply_empty(r, 204);
}

static void tool(api_request_t *r)
{
    auto_err err_t *e = NULL;
    workspace_row_t *row = workspaces_find(r->gw, r->params[0], &r->caller, &e);
    enum workspace_admission admission = row == NULL ? WORKSPACE_REFUSED : workspaces_admit(row, &e);
    if (admission == WORKSPACE_REFUSED)
        api_reply_error(r, e);
    else if (admission == WORKSPACE_RUNS)
        run_tool(r);
    else
        workspaces_wake(row, r, run_tool);
}

static const struct act {
    handler_fn handler;
    unsigned message, weight;
    const char *body;
} ACTS[] = {
    {workspace_stop, MSG_workspace_stop, 8, "{}"},
    {workspace_resume, 0, 8, "{}"},
    {workspace_attach, MSG_workspace_attach, 4, "{\"agent_session_id\":\"11111111-1111-4111-8111-111111111111\"}"},
    {workspace_attach, MSG_workspace_attach, 4, "{\"agent_session_id\":\"22222222-1111-4111-8111-111111111111\"}"},
    {workspace_detach, MSG_workspace_detach, 4, "{}"},
    {workspace_patch, MSG_workspace_patch, 4, "{\"ttl_seconds\":5000,\"metadata\":{\"a\":1}}"},
    {workspace_delete, 0, 5, "{}"},
    {snapshot_take, MSG_workspace_snapshot, 4, "{}"},
    {workspace_fork, MSG_workspace_fork, 3, "{\"count\":2}"},
    {tool, 0, 12, "{}"},
};

/* Of the workspaces, of the snapshots; PROBE when there is none. */
static const char *pick_id(chaos_t *c, bool is_snapshot, char id[UUID_TEXT_SIZE], const char **owner)
{
    snprintf(id, UUID_TEXT_SIZE, "%s", PROBE);
    *owner = "me";
    size_t count = is_snapshot ? c->f.gw.snapshots->count : c->f.gw.workspaces->count;
    unsigned at = count == 0 ? 0 : draw(&c->chance, (unsigned)count);
    const snapshot_t *s = c->f.gw.snapshots->newest;
    workspace_t *ws = c->f.gw.workspaces->newest;
    for (; at > 0; at--) {
        s = is_snapshot ? s->older : s;
        ws = is_snapshot ? ws : ws->older;
    }
    if (is_snapshot && s != NULL) {
        snprintf(id, UUID_TEXT_SIZE, "%s", s->id_text);
        *owner = strcmp(s->owner, "you") == 0 ? "you" : strcmp(s->owner, "them") == 0 ? "them" : "me";
    } else if (!is_snapshot && ws != NULL) {
        snprintf(id, UUID_TEXT_SIZE, "%s", ws->row.id_text);
        *owner = strcmp(ws->row.owner, "you") == 0 ? "you" : strcmp(ws->row.owner, "them") == 0 ? "them" : "me";
    }
    return id;
}

/* The request's own copies: what it is about may be gone before it is. */
static char ids[ASKED_MAX][UUID_TEXT_SIZE];

static fake_request_t *create_one(chaos_t *c)
{
    char body[256];
    snprintf(body, sizeof(body),
             "{\"container_type\":\"%s\",\"resource_limits\":{\"cpu\":\"%s\",\"memory\":\"%s\",\"disk\":\"%s\"}}",
             draw(&c->chance, 8) == 0 ? "mcp_server" : "agent_workspace", CPUS[draw(&c->chance, COUNT_OF(CPUS))],
             SIZES[draw(&c->chance, COUNT_OF(SIZES))], SIZES[draw(&c->chance, COUNT_OF(SIZES))]);
    return post(&c->f, WHO[draw(&c->chance, OWNERS)], draw(&c->chance, 2) == 0 ? "5" : NULL, body);
}

static fake_request_t *act_one(chaos_t *c, size_t slot)
{
    const char *owner;
    unsigned total = 0, at = 0;
    for (size_t i = 0; i < COUNT_OF(ACTS); i++)
        total += ACTS[i].weight;
    unsigned left = draw(&c->chance, total);
    while (left >= ACTS[at].weight)
        left -= ACTS[at++].weight;
    bool takes = ACTS[at].handler == snapshot_take || ACTS[at].handler == workspace_fork;
    if (takes && c->f.gvisor.snapshot_count > FAKE_SNAPSHOTS - 6)
        return NULL;
    const char *id = pick_id(c, false, ids[slot], &owner);
    return begin(&c->f, (asked_t){.handler = ACTS[at].handler,
                                  .msg_id = ACTS[at].message == 0 ? MSG_workspace_stop : ACTS[at].message,
                                  .owner = owner,
                                  .id = id,
                                  .body = ACTS[at].body});
}

static fake_request_t *snapshot_one(chaos_t *c, size_t slot)
{
    const char *owner, *id = pick_id(c, true, ids[slot], &owner);
    char body[100];
    if (draw(&c->chance, 2) == 0)
        return begin(&c->f,
                     (asked_t){.handler = snapshot_delete, .msg_id = MSG_workspace_stop, .owner = owner, .id = id});
    snprintf(body, sizeof(body), "{\"snapshot_id\":\"%s\"}", id);
    return begin(&c->f, FROM(.owner = owner, .body = body, .wait = draw(&c->chance, 2) == 0 ? "1" : NULL));
}

static void ask_one(chaos_t *c)
{
    size_t slot = draw(&c->chance, ASKED_MAX);
    fake_request_t **at = &c->asked[slot];
    if (*at != NULL) { /* answered or not: a client that hangs up */
        c->answers[(*at)->status]++;
        fake_request_free(*at);
        *at = NULL;
        return;
    }
    bool is_crowded = c->f.gw.workspaces->count > 40 || c->f.gvisor.sandbox_count > 40;
    if (is_crowded) { /* stopped ones do not count */
        workspace_t *oldest = c->f.gw.workspaces->newest;
        while (oldest != NULL && oldest->older != NULL)
            oldest = oldest->older;
        if (oldest != NULL && oldest->is_committed)
            workspace_start_destruction(oldest);
        return;
    }
    unsigned kind = draw(&c->chance, 10);
    *at = kind < 3 ? create_one(c) : kind < 4 ? snapshot_one(c, slot) : act_one(c, slot);
}

static void upset(chaos_t *c)
{
    static const char FAILS[] = "told to fail";
    fake_provider_t *p = &c->f.gvisor;
    const char **errors[] = {&p->create_error, &p->destroy_error,  &p->stop_error,
                             &p->resume_error, &p->snapshot_error, &p->snapshot_delete_error};
    const char **error = errors[draw(&c->chance, COUNT_OF(errors))];
    workspaces_t *all = c->f.gw.workspaces;
    switch (draw(&c->chance, 12)) {
    case 0:
        if (p->link != NULL)
            fake_provider_disconnect(p);
        break;
    case 1:
        atomic_store(&flaky_state, draw(&c->chance, 2) == 0 ? FLAKY_AWAY : FLAKY_BROKEN);
        break;
    case 2:
        p->is_holding_moves = true;
        break;
    case 3:
        for (workspace_t *ws = all->newest; ws != NULL; ws = ws->older)
            if (draw(&c->chance, 6) == 0)
                ws->row.expires_at_ms = ws->row.expires_at_ms == 0 ? 0 : 1;
        workspaces_sweep(all);
        break;
    case 4:
        for (workspace_t *ws = all->newest; ws != NULL; ws = ws->older) {
            ws->row.last_used_at_ms -= 60000;
            ws->settled_ms = 0;
        }
        all->idle_stop_ms = 1000;
        workspaces_stop_idle(all);
        break;
    case 5:
        if (p->hub != NULL && p->sandbox_count > 0)
            fake_provider_tell_event(p, &p->sandboxes[draw(&c->chance, (unsigned)p->sandbox_count)].id,
                                     draw(&c->chance, 2) == 0 ? "dead" : "restarted", "told to die");
        break;
    case 6:
        snapshots_sweep(c->f.gw.snapshots);
        break;
    default:
        *error = draw(&c->chance, 4) == 0 ? FAILS : NULL;
    }
}

static void calm(chaos_t *c)
{
    fake_provider_t *p = &c->f.gvisor;
    atomic_store(&flaky_state, FLAKY_WELL);
    p->create_error = p->destroy_error = p->stop_error = p->resume_error = NULL;
    p->snapshot_error = p->snapshot_delete_error = NULL;
    if (p->link == NULL)
        fake_provider_connect(p, c->f.endpoint);
    else if (p->hub != NULL && p->is_holding_moves)
        fake_provider_release_moves(p);
    p->is_holding_moves = false;
}

static bool is_at_rest(const chaos_t *c)
{
    for (size_t i = 0; i < ASKED_MAX; i++)
        if (c->asked[i] != NULL && c->asked[i]->status == 0)
            return false;
    for (const workspace_t *ws = c->f.gw.workspaces->newest; ws != NULL; ws = ws->older)
        if (!ws->is_committed || ws->commit != NULL || ws->creation != NULL || ws->transition != NULL ||
            ws->destruction != NULL || ws->row.intent != INTENT_NONE || ws->is_assigning || ws->waiters != NULL)
            return false;
    for (const snapshot_t *s = c->f.gw.snapshots->newest; s != NULL; s = s->older)
        if (!s->is_committed || s->write != NULL || s->is_taking || s->is_deleting || s->users > 0 || s->is_hidden)
            return false;
    return c->f.gw.snapshots->restores == NULL && c->f.gw.workspaces->reconciles == NULL;
}

static void turn(chaos_t *c)
{
    struct timeval while_s = {.tv_usec = (suseconds_t)draw(&c->chance, 5) * 1000};
    event_base_loopexit(c->f.gw.daemon.base, &while_s);
    event_base_dispatch(c->f.gw.daemon.base);
}

static void forget_answers(chaos_t *c)
{
    for (size_t i = 0; i < ASKED_MAX; i++)
        if (c->asked[i] != NULL) {
            c->answers[c->asked[i]->status]++;
            fake_request_free(c->asked[i]);
            c->asked[i] = NULL;
        }
}

/* What each side has, the other has in the same state. */
static void look(chaos_t *c, uint64_t seed)
{
    size_t expected = 0;
    for (const workspace_t *ws = c->f.gw.workspaces->newest; ws != NULL; ws = ws->older) {
        const fake_sandbox_t *s = fake_sandbox_find(&c->f.gvisor, &ws->row.id);
        bool must_be = ws->row.status == WORKSPACE_READY || ws->row.status == WORKSPACE_STOPPED;
        expected += s != NULL;
        if (must_be)
            cr_assert(s != NULL && strcmp(s->state, workspace_status_name(ws->row.status)) == 0,
                      "seed %llu: workspace %s is %s, its sandbox %s", (unsigned long long)seed, ws->row.id_text,
                      workspace_status_name(ws->row.status), s == NULL ? "is not there" : s->state);
    }
    cr_assert_eq(c->f.gvisor.sandbox_count, expected, "seed %llu: a sandbox without a workspace",
                 (unsigned long long)seed);
    cr_assert_leq(c->f.gvisor.snapshot_count, c->f.gw.snapshots->count);
    compare(&c->f, "at rest");
}

/* Ids and holders of all workspaces and ids of all snapshots, as one text. */
static char *describe(const chaos_t *c)
{
    buf_t text = {0};
    for (const workspace_t *ws = c->f.gw.workspaces->newest; ws != NULL; ws = ws->older)
        buf_printf(&text, "%s held by %s\n", ws->row.id_text,
                   ws->row.agent_session_id == NULL ? "nobody" : ws->row.agent_session_id);
    for (const snapshot_t *s = c->f.gw.snapshots->newest; s != NULL; s = s->older)
        buf_printf(&text, "snapshot %s %s\n", s->id_text, snapshot_status_name(s->status));
    buf_append_str(&text, "");
    return buf_steal(&text);
}

static void play(uint64_t seed, unsigned steps)
{
    chaos_t *c = mem_alloc(sizeof(*c));
    c->chance.state = seed;
    start_with_daemon(&c->f);
    c->f.gw.daemon.config.max_concurrent = 20;
    c->f.gw.daemon.config.snapshot_max_count = 4;
    for (unsigned i = 0; i < steps; i++) {
        ask_one(c);
        turn(c);
        if (draw(&c->chance, 25) == 0)
            upset(c);
        if (draw(&c->chance, 10) == 0)
            calm(c);
        if (i % 50 == 0)
            compare(&c->f, "under way");
    }
    calm(c);
    cr_assert(RUN_UNTIL(&c->f, is_at_rest(c)), "seed %llu does not come to rest", (unsigned long long)seed);
    forget_answers(c);
    look(c, seed);
    auto_free char *before = describe(c);
    restart_gateway(&c->f);
    connect_provider(&c->f, &c->f.gvisor);
    cr_assert(RUN_UNTIL(&c->f, is_at_rest(c)), "seed %llu does not come to rest after a restart",
              (unsigned long long)seed);
    look(c, seed);
    auto_free char *after = describe(c);
    cr_assert_str_eq(after, before, "seed %llu: a restart changes what was at rest", (unsigned long long)seed);
    for (workspace_t *ws = c->f.gw.workspaces->newest; ws != NULL; ws = ws->older)
        workspace_start_destruction(ws);
    cr_assert(RUN_UNTIL(&c->f, c->f.gw.workspaces->count == 0), "seed %llu", (unsigned long long)seed);
    cr_assert_eq(c->f.gvisor.sandbox_count, 0);
    compare(&c->f, "at the end");
    cr_assert_gt(c->answers[200] + c->answers[201] + c->answers[204], steps / 20, "seed %llu",
                 (unsigned long long)seed);
    finish(&c->f);
    free(c);
}

/* EW_TEST_SEED plays one seed, longer. */
Test(lifecycle_random, everything_comes_to_rest_and_the_sums_hold, .timeout = 300)
{
    static const uint64_t SEEDS[] = {1, 20261126, 77777};
    const char *one = getenv("EW_TEST_SEED");
    if (one != NULL) {
        play(strtoull(one, NULL, 10), 5000);
        return;
    }
    for (size_t i = 0; i < COUNT_OF(SEEDS); i++)
        play(SEEDS[i], 800);
}
