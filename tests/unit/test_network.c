/* SPDX-License-Identifier: Apache-2.0 */
// LINK: services/gvisord/network.c services/gvisord/worker_exec.c
#include "services/gvisord/network.h"

#include "common/mem.h"

#include <criterion/criterion.h>
#include <net/if.h>
#include <stdio.h>
#include <unistd.h>

Test(network, a_slot_is_a_small_network_with_names, .timeout = 5)
{
    network_pool_t pool;
    network_slot_t slot;
    auto_err err_t *e = NULL;
    cr_assert_eq(network_pool_parse(&pool, "10.213.0.0/16", &e), 0);
    cr_assert_eq(pool.slot_count, 16384);
    cr_assert_eq(network_slot_of(&pool, "abc123", 65, &slot, &e), 0);
    cr_assert_str_eq(slot.host_address, "10.213.1.5");
    cr_assert_str_eq(slot.guest_address, "10.213.1.6");
    cr_assert_str_eq(slot.netns, "ew-abc123-65");
    cr_assert_str_eq(slot.interface, "ewabc123.65");
}

Test(network, the_pool_has_an_end, .timeout = 5)
{
    network_pool_t pool;
    network_slot_t slot;
    auto_err err_t *e = NULL;
    cr_assert_eq(network_pool_parse(&pool, "192.168.7.0/29", &e), 0);
    cr_assert_eq(network_slot_of(&pool, "abc123", 1, &slot, &e), 0);
    cr_assert_eq(network_slot_of(&pool, "abc123", 2, &slot, &e), -1);
    cr_assert_eq(err_code(e), ERR_LIMIT_REACHED);
}

Test(network, pools_that_cannot_be_used_are_refused, .timeout = 5)
{
    static const char *const bad[] = {"",           "10.0.0.0",    "10.0.0.0/",  "10.0.0.0/30",
                                      "10.0.0.0/7", "10.0.0.1/16", "8.8.0.0/16", "10.0.0/16",
                                      "10.0.0.0/x", "fd00::/64",   "10.0.0.0/-1"};
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        network_pool_t pool;
        auto_err err_t *e = NULL;
        cr_expect_eq(network_pool_parse(&pool, bad[i], &e), -1, "%s", bad[i]);
    }
}

Test(network, the_longest_interface_name_fits, .timeout = 5)
{
    network_pool_t pool;
    network_slot_t slot;
    auto_err err_t *e = NULL;
    cr_assert_eq(network_pool_parse(&pool, "10.224.0.0/11", &e), 0);
    cr_assert_eq(network_slot_of(&pool, "abc123", pool.slot_count - 1, &slot, &e), 0);
    cr_assert_lt(strlen(slot.interface), (size_t)IFNAMSIZ);
    cr_assert_str_eq(slot.guest_address, "10.255.255.254");
}

Test(network, an_address_of_the_host_is_noticed, .timeout = 5)
{
    network_pool_t pool = {.base = 0x7f000000, .prefix = 16, .slot_count = 16384};
    cr_assert(network_slot_is_foreign(&pool, "abc123", 0)); /* 127.0.0.1 */
}

Test(network, private_name_servers_are_replaced, .timeout = 5)
{
    static const struct {
        const char *host, *sandbox;
    } rows[] = {
        {"nameserver 127.0.0.53\n", "nameserver 1.1.1.1\nnameserver 8.8.8.8\n"},
        {"# x\nsearch lan\nnameserver 10.0.0.2\nnameserver 9.9.9.9\n", "nameserver 9.9.9.9\n"},
        {"", "nameserver 1.1.1.1\nnameserver 8.8.8.8\n"},
        {"nameserver fe80::1\nnameserver 169.254.169.254\n", "nameserver 1.1.1.1\nnameserver 8.8.8.8\n"},
        {"nameserver 9.9.9.9\nnameserver 9.9.9.10\nnameserver 8.8.4.4\nnameserver 8.8.8.8",
         "nameserver 9.9.9.9\nnameserver 9.9.9.10\nnameserver 8.8.4.4\n"},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        auto_free char *text = network_resolv_conf(rows[i].host);
        cr_expect_str_eq(text, rows[i].sandbox);
    }
}

Test(network, the_rules_name_every_refused_range, .timeout = 5)
{
    static const char *const ranges[] = {"10.0.0.0/8",    "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16",
                                         "100.64.0.0/10", "127.0.0.0/8",   "224.0.0.0/4"};
    network_pool_t pool;
    auto_err err_t *e = NULL;
    auto_buf buf_t rules = {0};
    cr_assert_eq(network_pool_parse(&pool, "10.213.0.0/16", &e), 0);
    network_ruleset(&pool, "abc123", &rules);
    for (size_t i = 0; i < COUNT_OF(ranges); i++)
        cr_expect_not_null(strstr(buf_cstr(&rules), ranges[i]), "%s", ranges[i]);
    cr_assert_not_null(strstr(buf_cstr(&rules), "meta nfproto != ipv4 drop"));
}

Test(network, a_slot_goes_up_and_down_without_a_trace, .timeout = 60)
{
    network_pool_t pool;
    network_slot_t slot;
    auto_err err_t *e = NULL;
    char tag[NETWORK_TAG_SIZE];
    if (geteuid() != 0 || access("/usr/sbin/ip", X_OK) < 0)
        cr_skip_test("needs root and iproute2");
    snprintf(tag, sizeof tag, "%06x", (unsigned)getpid() & 0xffffff);
    cr_assert_eq(network_pool_parse(&pool, "10.219.0.0/16", &e), 0);
    cr_assert_eq(network_slot_of(&pool, tag, 3, &slot, &e), 0);
    cr_assert_eq(network_up(&slot, &e), 0, "%s", err_message(e));
    cr_assert_neq(if_nametoindex(slot.interface), 0);
    cr_assert_eq(access(slot.netns_path, F_OK), 0);
    cr_assert_eq(network_up(&slot, &e), 0, "%s", err_message(e)); /* over a leftover */
    cr_assert_eq(network_down(&slot, &e), 0, "%s", err_message(e));
    cr_assert_eq(if_nametoindex(slot.interface), 0);
    cr_assert_neq(access(slot.netns_path, F_OK), 0);
    cr_assert_eq(network_down(&slot, &e), 0);
}
