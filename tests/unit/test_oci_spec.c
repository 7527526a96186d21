/* SPDX-License-Identifier: Apache-2.0 */
// LINK: services/gvisord/oci_spec.c
#include "services/gvisord/oci_spec.h"

#include "common/mem.h"

#include <criterion/criterion.h>

static json_t *build(const oci_spec_t *spec)
{
    auto_err err_t *e = NULL;
    json_t *root = oci_spec_build(spec, &e);
    cr_assert_not_null(root, "%s", err_message(e));
    return root;
}

static bool has_string(const json_t *array, const char *text)
{
    for (size_t i = 0; i < json_array_size(array); i++)
        if (strcmp(json_string_value(json_array_get(array, i)), text) == 0)
            return true;
    return false;
}

static const json_t *bounding(const json_t *root)
{
    return json_object_get(json_object_get(json_object_get(root, "process"), "capabilities"), "bounding");
}

static const oci_spec_t PLAIN = {.rootfs = "/r", .hostname = "h", .memory_bytes = 1 << 30};

Test(oci_spec, runs_the_agent_in_the_given_root, .timeout = 5)
{
    json_t *root = build(&PLAIN);
    const json_t *process = json_object_get(root, "process");
    cr_assert_str_eq(json_string_value(json_array_get(json_object_get(process, "args"), 0)), OCI_AGENT_PATH);
    cr_assert_str_eq(json_string_value(json_object_get(json_object_get(root, "root"), "path")), "/r");
    cr_assert(json_is_true(json_object_get(process, "noNewPrivileges")));
    json_decref(root);
}

Test(oci_spec, mounts_nothing_of_the_host, .timeout = 5)
{
    json_t *root = build(&PLAIN);
    size_t i;
    json_t *mount;
    json_array_foreach(json_object_get(root, "mounts"), i, mount)
    {
        const char *type = json_string_value(json_object_get(mount, "type"));
        cr_assert_str_neq(type, "bind");
        cr_assert_neq(json_string_value(json_object_get(mount, "source"))[0], '/', "%s", type);
    }
    cr_assert_null(json_object_get(json_object_get(root, "linux"), "devices"));
    json_decref(root);
}

Test(oci_spec, gives_dangerous_capabilities_to_nobody, .timeout = 5)
{
    static const char *const never[] = {"CAP_NET_ADMIN", "CAP_NET_RAW",  "CAP_SYS_PTRACE", "CAP_SYS_MODULE",
                                        "CAP_SYS_RAWIO", "CAP_SYS_BOOT", "CAP_SYS_TIME",   "CAP_BPF"};
    json_t *root = build(&PLAIN);
    for (size_t i = 0; i < COUNT_OF(never); i++)
        cr_expect_not(has_string(bounding(root), never[i]), "%s", never[i]);
    cr_expect(has_string(bounding(root), "CAP_SYS_ADMIN")); /* the agent's, for cgroups of the sandbox's own kernel */
    json_decref(root);
}

Test(oci_spec, keeps_the_agents_extra_capabilities_from_a_shared_kernel, .timeout = 5)
{
    oci_spec_t spec = PLAIN;
    spec.is_crun = true;
    json_t *root = build(&spec);
    cr_assert_not(has_string(bounding(root), "CAP_SYS_ADMIN"));
    cr_assert_not(has_string(bounding(root), "CAP_SETPCAP"));
    json_decref(root);
}

Test(oci_spec, maps_all_ids_in_a_user_namespace, .timeout = 5)
{
    oci_spec_t spec = PLAIN;
    spec.has_user_namespace = true;
    json_t *root = build(&spec);
    const json_t *map = json_array_get(json_object_get(json_object_get(root, "linux"), "uidMappings"), 0);
    cr_assert_eq(json_integer_value(json_object_get(map, "hostID")), 0);
    cr_assert_eq(json_integer_value(json_object_get(map, "size")), 4294967295LL);
    json_decref(root);
}

Test(oci_spec, joins_a_network_namespace_only_when_told, .timeout = 5)
{
    oci_spec_t spec = PLAIN;
    for (int with = 0; with < 2; with++) {
        spec.netns_path = with ? "/run/netns/x" : NULL;
        json_t *root = build(&spec);
        size_t i;
        json_t *ns;
        json_array_foreach(json_object_get(json_object_get(root, "linux"), "namespaces"), i,
                           ns) if (strcmp(json_string_value(json_object_get(ns, "type")), "network") == 0)
            cr_assert_eq(json_object_get(ns, "path") != NULL, with);
        json_decref(root);
    }
}

Test(oci_spec, no_environment_is_in_it, .timeout = 5)
{
    json_t *root = build(&PLAIN);
    const json_t *env = json_object_get(json_object_get(root, "process"), "env");
    cr_assert(json_is_array(env));
    cr_assert_eq(json_array_size(env), 0, "it would be in every copy of the sandbox's memory");
    json_decref(root);
}
