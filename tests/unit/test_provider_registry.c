/* SPDX-License-Identifier: Apache-2.0 */
#include "common/provider/kit.h"

#include "common/file.h"
#include "common/mem.h"

#include <criterion/criterion.h>
#include <stdio.h>

static void forget(sandbox_t *s)
{
    (void)s;
}

static const provider_ops_t OPS = {.name = "test", .forget = forget};

typedef struct registry {
    char root[64];
    daemon_t daemon;
    provider_t p;
} registry_t;

static void registry_init(registry_t *r)
{
    r->p = (provider_t){.daemon = &r->daemon, .ops = &OPS, .sandboxes_dir = mem_printf("%s/sandboxes", r->root)};
    TAILQ_INIT(&r->p.peers);
    TAILQ_INIT(&r->p.sandboxes);
    STAILQ_INIT(&r->p.probe_waiters);
}

static void registry_open(registry_t *r)
{
    *r = (registry_t){.root = "/tmp/ew-registry-XXXXXX"};
    cr_assert_not_null(mkdtemp(r->root));
    registry_init(r);
}

static void registry_empty(registry_t *r)
{
    for (kit_sandbox_t *ks; (ks = TAILQ_FIRST(&r->p.sandboxes));)
        kit_sandbox_free(ks);
    free(r->p.sandboxes_dir);
}

static void registry_close(registry_t *r)
{
    auto_err err_t *e = NULL;
    registry_empty(r);
    cr_assert_eq(dir_remove(r->root, &e), 0);
}

/* As a restarted daemon sees it. */
static void registry_reload(registry_t *r)
{
    auto_err err_t *e = NULL;
    registry_empty(r);
    registry_init(r);
    cr_assert_eq(kit_registry_load(&r->p, &e), 0, "%s", err_message(e));
}

static kit_sandbox_t *add(registry_t *r, const char *id_text)
{
    uuid16_t id;
    auto_err err_t *e = NULL;
    cr_assert(uuid16_parse(&id, id_text));
    kit_sandbox_t *ks = kit_sandbox_new(&r->p, &id);
    ks->pub.spec = (sandbox_spec_t){.image = mem_strdup("base"),
                                    .cpu_milli = 1500,
                                    .memory_bytes = (uint64_t)5 << 30,
                                    .disk_bytes = (uint64_t)10 << 30,
                                    .pids_max = 77,
                                    .network = mem_strdup("none"),
                                    .env = json_pack("{s:s}", "A", "b\n\"c\""),
                                    .labels = json_object()};
    cr_assert_eq(dir_make(ks->pub.dir, 0700, &e), 0);
    return ks;
}

static const char ID[] = "0a1b2c3d-0000-4000-8000-00000000000f";

Test(provider_registry, a_saved_sandbox_is_read_back, .timeout = 5)
{
    registry_t r;
    uuid16_t id;
    auto_err err_t *e = NULL;
    registry_open(&r);
    kit_sandbox_t *ks = add(&r, ID);
    ks->pub.state = SANDBOX_DEAD;
    ks->pub.reason = mem_strdup("memory ran out");
    ks->epoch = 9;
    json_object_set_new(ks->pub.private_, "slot", json_integer(4));
    cr_assert_eq(kit_registry_save(ks, &e), 0, "%s", err_message(e));
    registry_reload(&r);
    cr_assert(uuid16_parse(&id, ID));
    ks = kit_sandbox_find(&r.p, &id);
    cr_assert_not_null(ks);
    cr_assert_eq(ks->pub.state, SANDBOX_DEAD);
    cr_assert_str_eq(ks->pub.reason, "memory ran out");
    cr_assert_eq(ks->epoch, 9);
    cr_assert_eq(ks->pub.spec.memory_bytes, (uint64_t)5 << 30);
    cr_assert_eq(ks->pub.spec.pids_max, 77);
    cr_assert_str_eq(json_string_value(json_object_get(ks->pub.spec.env, "A")), "b\n\"c\"");
    cr_assert_eq(json_integer_value(json_object_get(ks->pub.private_, "slot")), 4);
    registry_close(&r);
}

Test(provider_registry, every_state_is_read_back, .timeout = 5)
{
    for (unsigned i = SANDBOX_CREATING; i <= SANDBOX_RESUMING; i++) {
        registry_t r;
        uuid16_t id;
        auto_err err_t *e = NULL;
        registry_open(&r);
        kit_sandbox_t *ks = add(&r, ID);
        ks->pub.state = (enum sandbox_state)i;
        ks->pub.has_processes = ks->keeps_processes = i % 2;
        ks->stop_ms = 17;
        ks->restart_reason = mem_strdup("it fell over");
        json_array_append_new(ks->deaths, json_integer(123));
        provider_sandbox_warn(&ks->pub, "look out");
        cr_assert_eq(kit_registry_save(ks, &e), 0, "%s", err_message(e));
        registry_reload(&r);
        cr_assert(uuid16_parse(&id, ID));
        ks = kit_sandbox_find(&r.p, &id);
        cr_assert_not_null(ks);
        cr_expect_eq(ks->pub.state, i);
        cr_expect_eq(ks->pub.has_processes, i % 2);
        cr_expect_eq(ks->keeps_processes, i % 2);
        cr_expect_eq(ks->stop_ms, 17);
        cr_expect_str_eq(ks->restart_reason, "it fell over");
        cr_expect_eq(json_integer_value(json_array_get(ks->deaths, 0)), 123);
        cr_expect_str_eq(json_string_value(json_array_get(ks->warnings, 0)), "look out");
        registry_close(&r);
    }
}

Test(provider_registry, the_directory_names_it_on_the_host_and_the_file_to_the_world, .timeout = 5)
{
    static const char claimed[] = "0a1b2c3d-0000-4000-8000-0000000000cc";
    registry_t r;
    uuid16_t id, other;
    auto_err err_t *e = NULL;
    registry_open(&r);
    kit_sandbox_t *ks = add(&r, ID);
    cr_assert(uuid16_parse(&other, claimed));
    kit_sandbox_set_id(ks, &other);
    cr_assert_eq(kit_registry_save(ks, &e), 0, "%s", err_message(e));
    registry_reload(&r);
    cr_assert(uuid16_parse(&id, ID));
    cr_expect_null(kit_sandbox_find(&r.p, &id));
    ks = kit_sandbox_find(&r.p, &other);
    cr_assert_not_null(ks);
    cr_expect_str_eq(ks->pub.id_text, claimed);
    cr_expect_str_eq(ks->pub.host_id, ID);
    cr_expect_not_null(strstr(ks->pub.dir, ID));
    registry_close(&r);
}

Test(provider_registry, a_file_of_an_older_release_is_read, .timeout = 5)
{
    static const char old[] = "{\"format\":1,\"id\":\"0a1b2c3d-0000-4000-8000-00000000000f\",\"state\":\"ready\","
                              "\"created_at_ms\":1,\"epoch\":7,\"spec\":{\"cpu_milli\":1,\"memory_bytes\":1,"
                              "\"disk_bytes\":1,\"pids_max\":1},\"private\":{}}";
    registry_t r;
    uuid16_t id;
    auto_err err_t *e = NULL;
    registry_open(&r);
    kit_sandbox_t *ks = add(&r, ID);
    auto_free char *path = mem_printf("%s/sandbox.json", ks->pub.dir);
    cr_assert_eq(file_write_atomic(path, old, strlen(old), 0600, &e), 0);
    registry_reload(&r);
    cr_assert(uuid16_parse(&id, ID));
    ks = kit_sandbox_find(&r.p, &id);
    cr_assert_not_null(ks);
    cr_expect_eq(ks->pub.state, SANDBOX_READY);
    cr_expect_str_eq(ks->pub.host_id, ID);
    cr_expect_not(ks->pub.has_processes);
    registry_close(&r);
}

Test(provider_registry, what_cannot_be_read_is_destroyed_and_nothing_else, .timeout = 5)
{
    static const char *const broken[] = {
        "",
        "{",
        "[]",
        "{\"format\": 2}",
        "{\"format\": 1, \"state\": \"ready\"}",
        "{\"format\":1,\"state\":\"odd\",\"created_at_ms\":1,\"epoch\":1,\"spec\":{\"cpu_milli\":1,\"memory_bytes\":1,"
        "\"disk_bytes\":1,\"pids_max\":1},\"private\":{}}",
        "{\"format\":1,\"state\":\"ready\",\"created_at_ms\":1,\"epoch\":1,\"spec\":{\"cpu_milli\":1,\"memory_bytes\":"
        "1,\"disk_bytes\":1,\"pids_max\":1},\"private\":[]}"};
    for (size_t i = 0; i < COUNT_OF(broken); i++) {
        registry_t r;
        uuid16_t id;
        auto_err err_t *e = NULL;
        registry_open(&r);
        kit_sandbox_t *ks = add(&r, ID);
        auto_free char *path = mem_printf("%s/sandbox.json", ks->pub.dir);
        auto_free char *stranger = mem_printf("%s/not-a-sandbox", r.p.sandboxes_dir);
        cr_assert_eq(dir_make(stranger, 0700, &e), 0);
        cr_assert_eq(file_write_atomic(path, broken[i], strlen(broken[i]), 0600, &e), 0);
        registry_reload(&r);
        cr_assert(uuid16_parse(&id, ID));
        ks = kit_sandbox_find(&r.p, &id);
        cr_assert_not_null(ks, "row %zu", i);
        cr_expect_eq(ks->pub.state, SANDBOX_DESTROYING, "row %zu", i);
        cr_expect_eq(r.p.sandbox_count, 1);
        registry_close(&r);
    }
}

Test(provider_registry, many_sandboxes_are_found_by_id, .timeout = 20)
{
    registry_t r;
    registry_open(&r);
    for (unsigned i = 0; i < 1000; i++) {
        uuid16_t id = {.bytes = {(uint8_t)i, (uint8_t)(i >> 8), 3}};
        kit_sandbox_new(&r.p, &id);
    }
    for (unsigned i = 0; i < 1000; i++) {
        uuid16_t id = {.bytes = {(uint8_t)i, (uint8_t)(i >> 8), 3}};
        const kit_sandbox_t *ks = kit_sandbox_find(&r.p, &id);
        cr_assert_not_null(ks);
        cr_assert_eq(memcmp(&ks->pub.id, &id, sizeof id), 0);
    }
    uuid16_t other = {.bytes = {9, 9, 9}};
    cr_assert_null(kit_sandbox_find(&r.p, &other));
    registry_close(&r);
}
