/* SPDX-License-Identifier: Apache-2.0 */
// LINK: tests/unit/kit_world.c tests/unit/fake_vtable.c
/* Warm pools of the provider kit, with real agents. */
#include "common/clock.h"
#include "common/mem.h"
#include "common/provider/kit.h"
#include "tests/unit/kit_world.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <signal.h>
#include <stdio.h>

#define MIB ((uint64_t)1 << 20)

static provider_ops_t ops; /* the fake's, and what warm pools need */
static unsigned applied;
static uint64_t applied_memory;
static bool is_refusing, is_old;

static int apply_limits(sandbox_t *s, err_t **e)
{
    applied++;
    applied_memory = s->spec.memory_bytes;
    return is_refusing ? err_set(e, ERR_INTERNAL, "told to refuse") : 0;
}

static bool is_current(sandbox_t *s)
{
    (void)s;
    return !is_old;
}

static void open_world(kit_world_t *w)
{
    ops = fake_ops;
    ops.apply_limits = apply_limits;
    ops.is_current = is_current;
    kit_world_open(w, &ops);
}

static struct pool_target target_of(uint32_t size)
{
    return (struct pool_target){.image = "base",
                                .disk_bytes = 64 * MIB,
                                .network = "none",
                                .size = size,
                                .memory_bytes = 128 * MIB,
                                .cpu_milli = 500,
                                .pids_max = 64};
}

static void set_pool(kit_world_t *w, uint32_t size)
{
    auto_buf buf_t list = {0};
    auto_err err_t *e = NULL;
    struct pool_target target = target_of(size);
    kit_reply_t r;
    uuid16_t none = {0};
    cr_assert_eq(proto_list_add_msg(&list, MSG_pool_target, &target, &e), 0);
    struct pool_set_request request = {.pools = proto_list_of(1, &list)};
    kit_world_call(w, VERB_pool_set, &none, MSG_pool_set_request, &request, &r);
    cr_assert_eq(r.code, ERR_NONE, "%s", r.message);
    buf_free(&r.body);
}

/* The first pool, all zero when there is none. */
static struct pool_status pool_of(kit_world_t *w)
{
    kit_reply_t r;
    uuid16_t none = {0};
    struct empty nothing = {0};
    struct pool_list_reply list;
    struct pool_status status = {0};
    proto_nested_t nested;
    auto_err err_t *e = NULL;
    kit_world_call(w, VERB_pool_list, &none, MSG_empty, &nothing, &r);
    kit_world_decode(&r, MSG_pool_list_reply, &list);
    proto_iter_t it = proto_iter(&list.pools);
    if (proto_iter_msg(&it, &nested))
        cr_assert_eq(proto_decode(MSG_pool_status, &status, nested.bytes, nested.len, &e), 0);
    status.image = status.network = status.message = NULL; /* they borrow */
    buf_free(&r.body);
    return status;
}

static void wait_ready(kit_world_t *w, uint32_t ready)
{
    uint64_t until = clock_monotonic_ms() + KIT_WORLD_WAIT_MS;
    while (pool_of(w).ready != ready) {
        cr_assert_lt(clock_monotonic_ms(), until, "%u of %u are warm", pool_of(w).ready, ready);
        kit_world_run(w, 20);
    }
}

static void request_warm(struct sandbox_create_request *request)
{
    kit_world_create_request(request);
    request->use_warm = true;
}

/* Whether it came from the pool. */
static bool create(kit_world_t *w, const struct sandbox_create_request *request, uuid16_t *id)
{
    kit_reply_t r;
    struct sandbox_create_reply reply;
    random_bytes(id, sizeof *id);
    kit_world_call(w, VERB_sandbox_create, id, MSG_sandbox_create_request, request, &r);
    kit_world_decode(&r, MSG_sandbox_create_reply, &reply);
    bool was_warm = reply.was_warm;
    char text[UUID_TEXT_SIZE];
    uuid16_format(id, text);
    cr_expect_str_eq(reply.provider_workspace_id, text);
    buf_free(&r.body);
    return was_warm;
}

static size_t directories(const kit_world_t *w)
{
    auto_free char *path = mem_printf("%s/sandboxes", w->daemon.state_dir);
    DIR *d = opendir(path);
    size_t n = 0;
    for (struct dirent *de; d && (de = readdir(d));)
        n += de->d_name[0] != '.';
    if (d)
        closedir(d);
    return n;
}

static void wait_directories(kit_world_t *w, size_t count)
{
    uint64_t until = clock_monotonic_ms() + KIT_WORLD_WAIT_MS;
    while (directories(w) != count) {
        cr_assert_lt(clock_monotonic_ms(), until, "there are %zu", directories(w));
        kit_world_run(w, 20);
    }
}

static size_t listed(kit_world_t *w)
{
    kit_reply_t r;
    uuid16_t none = {0};
    struct empty nothing = {0};
    struct sandbox_list_reply list;
    kit_world_call(w, VERB_sandbox_list, &none, MSG_empty, &nothing, &r);
    kit_world_decode(&r, MSG_sandbox_list_reply, &list);
    buf_free(&r.body);
    return list.sandboxes.count;
}

static void close_world(kit_world_t *w)
{
    set_pool(w, 0);
    kit_world_close(w);
}

Test(provider_pool, a_create_takes_a_warm_one_and_makes_it_its_own, .timeout = 60)
{
    kit_world_t w;
    uuid16_t id, second;
    open_world(&w);
    set_pool(&w, 2);
    wait_ready(&w, 2);
    cr_expect_eq(listed(&w), 0, "what is warm is nobody's");
    auto_buf buf_t env = {0};
    proto_list_add_str(&env, "COLOR");
    proto_list_add_str(&env, "green");
    struct sandbox_create_request request;
    request_warm(&request);
    request.env = proto_list_of(1, &env);
    applied = 0;
    cr_expect(create(&w, &request, &id));
    cr_expect_eq(applied, 1);
    cr_expect_eq(applied_memory, 256 * MIB, "the limits are those of the create");
    cr_expect_str_eq(kit_world_bash(&w, &id, "echo $COLOR"), "green\n");
    cr_expect_eq(listed(&w), 1);
    const sandbox_t *s = kit_world_sandbox(&w, &id);
    cr_expect_str_neq(s->id_text, s->host_id);
    request_warm(&request);
    cr_expect(create(&w, &request, &second));
    cr_expect_str_eq(kit_world_bash(&w, &second, "echo [$COLOR]"), "[]\n", "the other's environment is not here");
    wait_ready(&w, 2);
    cr_expect_eq(pool_of(&w).hits, 2);
    cr_expect_eq(pool_of(&w).misses, 0);
    kit_world_destroy(&w, &id);
    kit_world_destroy(&w, &second);
    close_world(&w);
}

Test(provider_pool, what_has_another_shape_or_wants_none_is_made_cold, .timeout = 60)
{
    kit_world_t w;
    uuid16_t id;
    struct sandbox_create_request request;
    open_world(&w);
    set_pool(&w, 1);
    wait_ready(&w, 1);
    request_warm(&request);
    request.disk_bytes *= 2;
    cr_expect_not(create(&w, &request, &id));
    kit_world_destroy(&w, &id);
    kit_world_create_request(&request);
    cr_expect_not(create(&w, &request, &id));
    kit_world_destroy(&w, &id);
    cr_expect_eq(pool_of(&w).hits + pool_of(&w).misses, 0);
    cr_expect_eq(pool_of(&w).ready, 1);
    close_world(&w);
}

Test(provider_pool, an_empty_pool_is_a_miss_that_is_counted, .timeout = 60)
{
    kit_world_t w;
    uuid16_t ids[2];
    struct sandbox_create_request request;
    open_world(&w);
    set_pool(&w, 1);
    wait_ready(&w, 1);
    request_warm(&request);
    cr_expect(create(&w, &request, &ids[0]));
    cr_expect_not(create(&w, &request, &ids[1]));
    cr_expect_eq(pool_of(&w).misses, 1);
    for (size_t i = 0; i < 2; i++)
        kit_world_destroy(&w, &ids[i]);
    close_world(&w);
}

Test(provider_pool, a_restart_keeps_what_was_claimed_and_removes_what_was_not, .timeout = 60)
{
    kit_world_t w;
    uuid16_t id;
    struct sandbox_create_request request;
    open_world(&w);
    set_pool(&w, 2);
    wait_ready(&w, 2);
    request_warm(&request);
    cr_expect(create(&w, &request, &id));
    kit_world_bash(&w, &id, "echo mine > note");
    wait_ready(&w, 2);
    kit_world_crash(&w);
    kit_world_start(&w);
    wait_directories(&w, 1);
    cr_expect_str_eq(kit_world_bash(&w, &id, "cat note"), "mine\n");
    cr_expect_eq(pool_of(&w).size, 0, "the gateway says again what there is to be");
    kit_world_destroy(&w, &id);
    kit_world_close(&w);
}

Test(provider_pool, a_crash_within_a_claim_gives_nothing_away_twice, .timeout = 60)
{
    kit_world_t w;
    uuid16_t id;
    kit_reply_t r = {0};
    struct sandbox_create_request request;
    open_world(&w);
    set_pool(&w, 1);
    wait_ready(&w, 1);
    request_warm(&request);
    random_bytes(&id, sizeof id);
    applied = 0;
    kit_world_start_call(&w, VERB_sandbox_create, &id, 0, MSG_sandbox_create_request, &request, &r);
    kit_world_until_count(&w, &applied, 1); /* it is being claimed */
    kit_world_crash(&w);
    buf_free(&r.body);
    kit_world_start(&w);
    /* Whether the claim was over by then is a matter of microseconds; either way the repetition is answered. */
    kit_world_call(&w, VERB_sandbox_create, &id, MSG_sandbox_create_request, &request, &r);
    cr_expect_eq(r.code, ERR_NONE, "%s", r.message);
    buf_free(&r.body);
    cr_expect_str_eq(kit_world_bash(&w, &id, "echo works"), "works\n");
    wait_directories(&w, 1);
    kit_world_destroy(&w, &id);
    kit_world_close(&w);
}

Test(provider_pool, what_is_old_or_refuses_its_limits_is_not_given_away, .timeout = 60)
{
    kit_world_t w;
    uuid16_t id;
    struct sandbox_create_request request;
    open_world(&w);
    set_pool(&w, 1);
    wait_ready(&w, 1);
    request_warm(&request);
    is_old = true;
    cr_expect_not(create(&w, &request, &id));
    is_old = false;
    kit_world_destroy(&w, &id);
    wait_ready(&w, 1);
    is_refusing = true;
    cr_expect_not(create(&w, &request, &id));
    is_refusing = false;
    kit_world_destroy(&w, &id);
    wait_ready(&w, 1);
    close_world(&w);
}

static const sandbox_t *warm_one(const kit_world_t *w)
{
    for (sandbox_t *s = NULL; (s = provider_sandbox_next(w->provider, s));)
        if (s->state == SANDBOX_WARM)
            return s;
    return NULL;
}

Test(provider_pool, one_that_dies_while_it_waits_is_replaced, .timeout = 60)
{
    kit_world_t w;
    uuid16_t id;
    struct sandbox_create_request request;
    open_world(&w);
    set_pool(&w, 1);
    wait_ready(&w, 1);
    uuid16_t dead = warm_one(&w)->id;
    kit_world_kill_agent(&w, &dead);
    provider_sandbox_died(kit_world_sandbox(&w, &dead), "its process ended");
    wait_ready(&w, 0);
    wait_ready(&w, 1);
    cr_expect_neq(memcmp(&dead, &warm_one(&w)->id, sizeof dead), 0);
    request_warm(&request);
    cr_expect(create(&w, &request, &id));
    cr_expect_str_eq(kit_world_bash(&w, &id, "echo works"), "works\n");
    kit_world_destroy(&w, &id);
    close_world(&w);
}

Test(provider_pool, a_claim_whose_agent_is_gone_is_made_cold, .timeout = 60)
{
    kit_world_t w;
    uuid16_t id;
    struct sandbox_create_request request;
    open_world(&w);
    set_pool(&w, 1);
    wait_ready(&w, 1);
    uuid16_t dead = warm_one(&w)->id;
    kit_world_kill_agent(&w, &dead); /* nobody has noticed yet */
    auto_buf buf_t env = {0};
    proto_list_add_str(&env, "COLOR");
    proto_list_add_str(&env, "green");
    request_warm(&request);
    request.env = proto_list_of(1, &env);
    cr_expect_not(create(&w, &request, &id));
    const json_t *color = json_object_get(kit_world_sandbox(&w, &id)->spec.env, "COLOR");
    cr_assert(json_is_string(color));
    cr_expect_str_eq(json_string_value(color), "green");
    cr_expect_str_eq(kit_world_bash(&w, &id, "echo works"), "works\n");
    kit_world_destroy(&w, &id);
    close_world(&w);
}

Test(provider_pool, a_claim_that_fails_takes_no_room_from_the_cold_one, .timeout = 60)
{
    kit_world_t w;
    uuid16_t id;
    struct sandbox_create_request request;
    open_world(&w);
    w.daemon.config.max_sandboxes = 1;
    set_pool(&w, 1);
    wait_ready(&w, 1);
    pid_t agent = (pid_t)json_integer_value(json_object_get(warm_one(&w)->private_, "pid"));
    cr_assert_eq(kill(agent, SIGSTOP), 0);
    request_warm(&request);
    cr_expect_not(create(&w, &request, &id));
    cr_expect_str_eq(kit_world_bash(&w, &id, "echo works"), "works\n");
    kit_world_destroy(&w, &id);
    close_world(&w);
}

Test(provider_pool, sizes_go_up_and_down, .timeout = 60)
{
    kit_world_t w;
    open_world(&w);
    set_pool(&w, 3);
    wait_ready(&w, 3);
    set_pool(&w, 1);
    wait_ready(&w, 1);
    wait_directories(&w, 1);
    set_pool(&w, 0);
    wait_directories(&w, 0);
    kit_world_close(&w);
}

Test(provider_pool, what_cannot_be_made_is_tried_again_slowly, .timeout = 60)
{
    kit_world_t w;
    open_world(&w);
    w.fake.modes[FAKE_CREATE] = FAKE_FAIL;
    set_pool(&w, 1);
    kit_world_run(&w, 2500);
    cr_expect_geq(w.fake.calls[FAKE_CREATE], 2);
    cr_expect_leq(w.fake.calls[FAKE_CREATE], 3);
    w.fake.modes[FAKE_CREATE] = FAKE_RUN;
    wait_ready(&w, 1);
    close_world(&w);
}

Test(provider_pool, a_daemon_that_ends_leaves_nothing_warm, .timeout = 60)
{
    kit_world_t w;
    open_world(&w);
    set_pool(&w, 2);
    wait_ready(&w, 2);
    provider_drain_pools(w.provider);
    cr_expect_eq(directories(&w), 0);
    kit_world_close(&w);
}

Test(provider_pool, a_provider_without_limits_to_apply_has_no_pools, .timeout = 60)
{
    kit_world_t w;
    auto_buf buf_t list = {0};
    auto_err err_t *e = NULL;
    struct pool_target target = target_of(1);
    uuid16_t none = {0};
    kit_world_open(&w, &fake_ops_small);
    cr_assert_eq(proto_list_add_msg(&list, MSG_pool_target, &target, &e), 0);
    struct pool_set_request request = {.pools = proto_list_of(1, &list)};
    kit_world_refused(&w, VERB_pool_set, &none, MSG_pool_set_request, &request, ERR_VALIDATION);
    kit_world_close(&w);
}

Test(provider_pool, a_claim_counts_against_the_limit_of_sandboxes, .timeout = 60)
{
    kit_world_t w;
    uuid16_t id, other;
    struct sandbox_create_request request;
    open_world(&w);
    w.daemon.config.max_sandboxes = 2;
    set_pool(&w, 1);
    wait_ready(&w, 1);
    kit_world_create_request(&request);
    cr_expect_not(create(&w, &request, &id));
    kit_world_create_request(&request);
    cr_expect_not(create(&w, &request, &other));
    request_warm(&request);
    uuid16_t third;
    random_bytes(&third, sizeof third);
    kit_world_refused(&w, VERB_sandbox_create, &third, MSG_sandbox_create_request, &request, ERR_LIMIT_REACHED);
    cr_expect_eq(pool_of(&w).ready, 1);
    kit_world_destroy(&w, &other);
    cr_expect(create(&w, &request, &third));
    kit_world_destroy(&w, &id);
    kit_world_destroy(&w, &third);
    close_world(&w);
}

/* What is stopped needs no memory, and does not count for those either who create. */
Test(provider_pool, what_is_stopped_takes_no_room_from_a_pool, .timeout = 60)
{
    kit_world_t w;
    uuid16_t id;
    open_world(&w);
    w.daemon.config.max_sandboxes = 1;
    kit_world_create(&w, &id);
    set_pool(&w, 1);
    kit_world_run(&w, 300);
    cr_expect_eq(pool_of(&w).ready + pool_of(&w).making, 0);
    kit_world_stop(&w, &id, true);
    set_pool(&w, 1);
    wait_ready(&w, 1);
    kit_world_destroy(&w, &id);
    close_world(&w);
}

Test(provider_pool, as_many_pools_as_there_may_be_can_be_set_again, .timeout = 60)
{
    kit_world_t w;
    uuid16_t none = {0};
    open_world(&w);
    w.daemon.config.max_sandboxes = 1; /* they need not be filled */
    for (int i = 0; i < 2; i++) {
        auto_buf buf_t list = {0};
        auto_err err_t *e = NULL;
        kit_reply_t r;
        for (unsigned n = 0; n < KIT_POOLS_MAX; n++) {
            struct pool_target target = target_of(1);
            target.disk_bytes += n * MIB;
            cr_assert_eq(proto_list_add_msg(&list, MSG_pool_target, &target, &e), 0);
        }
        struct pool_set_request request = {.pools = proto_list_of(KIT_POOLS_MAX, &list)};
        kit_world_call(&w, VERB_pool_set, &none, MSG_pool_set_request, &request, &r);
        cr_expect_eq(r.code, ERR_NONE, "%d: %s", i, r.message);
        buf_free(&r.body);
    }
    close_world(&w);
}
