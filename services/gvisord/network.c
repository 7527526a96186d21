/* SPDX-License-Identifier: Apache-2.0 */
#include "services/gvisord/network.h"

#include "common/file.h"
#include "common/mem.h"
#include "common/text.h"
#include "services/gvisord/worker.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <inttypes.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <unistd.h>

#define NETNS_DIR "/run/netns"
#define PROGRAM_TIMEOUT_MS 10000
#define RESOLV_MAX (64 * 1024)
#define RESOLVERS_MAX 3
#define NETWORK_PREFIX_MIN 11 /* more slots than that do not fit into an interface name */
#define SLOT_DIGITS 1000000u

/* What the internet does not route, and what is near the host (RFC 6890; 169.254.169.254 is every cloud's metadata
 * service). */
static const char *const REFUSED[] = {"0.0.0.0/8",      "10.0.0.0/8",    "100.64.0.0/10",   "127.0.0.0/8",
                                      "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",    "192.0.2.0/24",
                                      "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
                                      "224.0.0.0/4",    "240.0.0.0/4"};
static const char *const PUBLIC_RESOLVERS[] = {"1.1.1.1", "8.8.8.8"};

static bool is_in(uint32_t address, const char *cidr)
{
    char text[32];
    snprintf(text, sizeof text, "%s", cidr);
    char *slash = strchr(text, '/');
    uint64_t prefix = 32;
    struct in_addr net;
    if (slash) {
        *slash = '\0';
        if (!text_to_u64(slash + 1, &prefix) || prefix > 32)
            return false;
    }
    if (inet_pton(AF_INET, text, &net) != 1)
        return false;
    uint32_t mask = prefix ? ~(uint32_t)0 << (32 - prefix) : 0;
    return (address & mask) == (ntohl(net.s_addr) & mask);
}

static bool is_refused(uint32_t address)
{
    for (size_t i = 0; i < COUNT_OF(REFUSED); i++)
        if (is_in(address, REFUSED[i]))
            return true;
    return false;
}

static void format_address(uint32_t address, char out[16])
{
    struct in_addr in = {.s_addr = htonl(address)};
    (void)inet_ntop(AF_INET, &in, out, 16);
}

int network_pool_parse(network_pool_t *pool, const char *text, err_t **e)
{
    const char *slash = strchr(text, '/');
    struct in_addr in;
    uint64_t prefix;
    auto_free char *address = mem_strndup(text, slash ? (size_t)(slash - text) : strlen(text));
    if (!slash || inet_pton(AF_INET, address, &in) != 1 || !text_to_u64(slash + 1, &prefix) || prefix < 8 ||
        prefix > 29)
        return err_set(e, ERR_BAD_REQUEST,
                       "GVISORD_NETWORK_POOL = %s is not an IPv4 network like 10.213.0.0/16 (prefix 11 to 29)", text);
    uint32_t base = ntohl(in.s_addr), mask = ~(uint32_t)0 << (32 - prefix);
    if ((base & ~mask) != 0 || !is_refused(base))
        return err_set(e, ERR_BAD_REQUEST,
                       "GVISORD_NETWORK_POOL = %s must be a private network, with no bits behind its prefix", text);
    *pool = (network_pool_t){.base = base, .prefix = (unsigned)prefix, .slot_count = (uint32_t)1 << (30 - prefix)};
    return 0;
}

int network_slot_of(const network_pool_t *pool, const char *tag, uint32_t number, network_slot_t *slot, err_t **e)
{
    if (number >= pool->slot_count)
        return err_set(e, ERR_LIMIT_REACHED,
                       "GVISORD_NETWORK_POOL has room for %u sandboxes with network full, all are in use",
                       pool->slot_count);
    uint32_t base = pool->base + number * 4;
    *slot = (network_slot_t){.number = number};
    snprintf(slot->netns, sizeof slot->netns, "ew-%.6s-%" PRIu32, tag, number);
    snprintf(slot->netns_path, sizeof slot->netns_path, NETNS_DIR "/%s", slot->netns);
    snprintf(slot->interface, sizeof slot->interface, "ew%.6s.%" PRIu32, tag, number % SLOT_DIGITS);
    format_address(base + 1, slot->host_address);
    format_address(base + 2, slot->guest_address);
    return 0;
}

bool network_slot_is_foreign(const network_pool_t *pool, const char *tag, uint32_t number)
{
    char ours[16];
    snprintf(ours, sizeof ours, "ew%.6s.", tag);
    struct ifaddrs *all, *one;
    bool is_foreign = false;
    if (getifaddrs(&all) < 0)
        return false;
    for (one = all; one && !is_foreign; one = one->ifa_next) {
        if (!one->ifa_addr || !one->ifa_netmask || one->ifa_addr->sa_family != AF_INET ||
            strncmp(one->ifa_name, ours, strlen(ours)) == 0)
            continue;
        struct sockaddr_in address, mask;
        memcpy(&address, one->ifa_addr, sizeof address);
        memcpy(&mask, one->ifa_netmask, sizeof mask);
        uint32_t theirs = ntohl(address.sin_addr.s_addr), bits = ntohl(mask.sin_addr.s_addr),
                 slot = pool->base + number * 4;
        uint32_t common = bits & ~(uint32_t)3;
        is_foreign = (theirs & common) == (slot & common);
    }
    freeifaddrs(all);
    return is_foreign;
}

void network_ruleset(const network_pool_t *pool, const char *tag, buf_t *out)
{
    char base[16];
    format_address(pool->base, base);
    /* Added, deleted, added again: the one way to replace a table in one transaction whether it exists or not. */
    buf_printf(out,
               "table inet ew_%s\ndelete table inet ew_%s\ntable inet ew_%s {\n  set refused { type ipv4_addr; flags "
               "interval; elements = { ",
               tag, tag, tag);
    for (size_t i = 0; i < COUNT_OF(REFUSED); i++)
        buf_printf(out, "%s%s", i ? ", " : "", REFUSED[i]);
    buf_printf(out,
               " } }\n"
               "  chain input { type filter hook input priority -10; policy accept;\n"
               "    iifname \"ew%s.*\" drop\n  }\n"
               "  chain forward { type filter hook forward priority -10; policy accept;\n"
               "    oifname \"ew%s.*\" ct state established,related accept\n"
               "    oifname \"ew%s.*\" drop\n"
               "    iifname != \"ew%s.*\" accept\n"
               "    meta nfproto != ipv4 drop\n"
               "    ip saddr != %s/%u drop\n"
               "    ip daddr @refused drop\n  }\n"
               "  chain postrouting { type nat hook postrouting priority srcnat; policy accept;\n"
               "    ip saddr %s/%u oifname != \"ew%s.*\" masquerade\n  }\n}\n",
               tag, tag, tag, tag, base, pool->prefix, base, pool->prefix, tag);
}

char *network_resolv_conf(const char *host_text)
{
    auto_buf buf_t own = {0}, out = {0};
    auto_err err_t *e = NULL;
    if (!host_text) {
        if (file_read("/etc/resolv.conf", RESOLV_MAX, &own, &e) == 0)
            host_text = buf_cstr(&own);
        else
            host_text = "";
    }
    int count = 0;
    for (const char *line = host_text; *line && count < RESOLVERS_MAX;) {
        char address[64];
        struct in_addr in;
        if (sscanf(line, "nameserver %63s", address) == 1 && inet_pton(AF_INET, address, &in) == 1 &&
            !is_refused(ntohl(in.s_addr))) {
            buf_printf(&out, "nameserver %s\n", address);
            count++;
        }
        line += strcspn(line, "\n");
        line += *line == '\n';
    }
    for (size_t i = 0; count == 0 && i < COUNT_OF(PUBLIC_RESOLVERS); i++)
        buf_printf(&out, "nameserver %s\n", PUBLIC_RESOLVERS[i]);
    return buf_steal(&out);
}

static int write_sysctl(const char *path, const char *value, err_t **e)
{
    auto_close int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, value, strlen(value)) < 0)
        return err_set_errno(e, ERR_INTERNAL, errno, "cannot write %s to %s", value, path);
    return 0;
}

int network_rules_load(const network_pool_t *pool, const char *tag, err_t **e)
{
    auto_buf buf_t rules = {0};
    network_ruleset(pool, tag, &rules);
    const char *argv[] = {"nft", "-f", "-", NULL};
    if (worker_exec(argv, buf_cstr(&rules), PROGRAM_TIMEOUT_MS, e) < 0)
        return -1;
    return write_sysctl("/proc/sys/net/ipv4/ip_forward", "1", e);
}

int network_rules_remove(const char *tag, err_t **e)
{
    auto_free char *text = mem_printf("table inet ew_%s\ndelete table inet ew_%s\n", tag, tag);
    const char *argv[] = {"nft", "-f", "-", NULL};
    return worker_exec(argv, text, PROGRAM_TIMEOUT_MS, e);
}

/* In the sandbox's namespace: its stack has no IPv6, and neither has the kernel's beside it. Runs in a job's own
 * process. */
static int disable_ipv6(const network_slot_t *slot, err_t **e)
{
    auto_close int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    auto_close int target = open(slot->netns_path, O_RDONLY | O_CLOEXEC);
    if (home < 0 || target < 0 || setns(target, CLONE_NEWNET) < 0)
        return err_set_errno(e, ERR_INTERNAL, errno, "cannot enter the network namespace %s", slot->netns);
    auto_err err_t *ignored = NULL; /* a kernel without IPv6 has no such file */
    (void)write_sysctl("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1", &ignored);
    return setns(home, CLONE_NEWNET) < 0 ? err_set_errno(e, ERR_INTERNAL, errno, "cannot leave a network namespace")
                                         : 0;
}

int network_up(const network_slot_t *slot, err_t **e)
{
    if (network_down(slot, e) < 0)
        return -1;
    const char *add[] = {"ip", "netns", "add", slot->netns, NULL};
    if (worker_exec(add, NULL, PROGRAM_TIMEOUT_MS, e) < 0 || disable_ipv6(slot, e) < 0)
        return -1;
    auto_free char *outside =
        mem_printf("link add %s type veth peer name eth0 netns %s\naddr add %s/30 dev %s\nlink set %s up\n",
                   slot->interface, slot->netns, slot->host_address, slot->interface, slot->interface);
    const char *out[] = {"ip", "-batch", "-", NULL};
    if (worker_exec(out, outside, PROGRAM_TIMEOUT_MS, e) < 0)
        return -1;
    auto_free char *filter = mem_printf("/proc/sys/net/ipv4/conf/%s/rp_filter", slot->interface);
    if (write_sysctl(filter, "1", e) < 0) /* a sandbox cannot speak with another's address */
        return -1;
    auto_free char *inside =
        mem_printf("link set lo up\naddr add %s/30 dev eth0\nlink set eth0 up\nroute add default via %s\n",
                   slot->guest_address, slot->host_address);
    const char *in[] = {"ip", "-n", slot->netns, "-batch", "-", NULL};
    return worker_exec(in, inside, PROGRAM_TIMEOUT_MS, e);
}

int network_down(const network_slot_t *slot, err_t **e)
{
    if (if_nametoindex(slot->interface) != 0) {
        const char *argv[] = {"ip", "link", "del", slot->interface, NULL};
        auto_err err_t *why = NULL;
        if (worker_exec(argv, NULL, PROGRAM_TIMEOUT_MS, &why) < 0 && if_nametoindex(slot->interface) != 0)
            return err_set(e, err_code(why), "%s", err_message(why));
    }
    if (access(slot->netns_path, F_OK) < 0)
        return 0;
    const char *argv[] = {"ip", "netns", "del", slot->netns, NULL};
    return worker_exec(argv, NULL, PROGRAM_TIMEOUT_MS, e);
}

void network_each(const char *tag, void (*fn)(void *arg, uint32_t number), void *arg)
{
    char prefix[16];
    snprintf(prefix, sizeof prefix, "ew-%.6s-", tag);
    DIR *d = opendir(NETNS_DIR);
    if (!d)
        return;
    uint64_t number;
    for (struct dirent *de; (de = readdir(d));)
        if (strncmp(de->d_name, prefix, strlen(prefix)) == 0 && text_to_u64(de->d_name + strlen(prefix), &number) &&
            number <= UINT32_MAX)
            fn(arg, (uint32_t)number);
    closedir(d);
}
