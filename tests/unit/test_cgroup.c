/* SPDX-License-Identifier: Apache-2.0 */
// LINK: services/gvisord/cgroup.c services/gvisord/cgroup_watch.c
#include "services/gvisord/cgroup.h"

#include "common/clock.h"
#include "common/mem.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static const char HYBRID[] = "29 23 0:25 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n"
                             "30 29 0:26 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
                             "31 29 0:27 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
                             "32 29 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
                             "33 29 0:29 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n"
                             "34 29 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

Test(cgroup, finds_v1_controllers_by_name_and_not_by_prefix, .timeout = 5)
{
    cgroups_t c;
    auto_err err_t *e = NULL;
    cr_assert_eq(cgroups_detect(&c, HYBRID, "parent", "tag", &e), 0);
    cr_assert_not(c.is_v2);
    cr_assert_str_eq(c.mounts[0], "/sys/fs/cgroup/cpu,cpuacct");
    cr_assert_str_eq(c.mounts[1], "/sys/fs/cgroup/memory");
    cr_assert_str_eq(c.mounts[2], "/sys/fs/cgroup/pids");
    cr_assert_str_eq(c.group, "parent/tag");
    cr_assert_null(cgroups_warning(&c));
    cgroups_free(&c);
}

Test(cgroup, takes_v2_when_v1_has_no_memory, .timeout = 5)
{
    cgroups_t c;
    auto_err err_t *e = NULL;
    cr_assert_eq(cgroups_detect(&c, "30 1 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n", "p", "t", &e),
                 0);
    cr_assert(c.is_v2);
    cr_assert_str_eq(c.mounts[0], "/sys/fs/cgroup");
    cgroups_free(&c);
}

Test(cgroup, says_so_when_there_is_none, .timeout = 5)
{
    cgroups_t c;
    auto_err err_t *e = NULL;
    cr_assert_eq(cgroups_detect(&c, "1 0 0:1 / / rw - ext4 /dev/sda rw\nrubbish\n", "p", "t", &e), -1);
    cgroups_free(&c);
}

Test(cgroup, leaves_head_room_above_the_budget, .timeout = 5)
{
    cr_assert_eq(cgroup_memory_limit(100 << 20), (uint64_t)164 << 20);
    cr_assert_eq(cgroup_memory_limit((uint64_t)100 << 30), (uint64_t)(100ull << 30) + (100ull << 30) / 100 * 12);
    cr_assert_eq(cgroup_memory_limit(UINT64_MAX), UINT64_MAX);
    cr_assert_eq(cgroup_pids_limit(1024), 8704);
    cr_assert_eq(cgroup_pids_limit(UINT32_MAX), INT32_MAX);
}

static bool open_real(cgroups_t *c, char *parent, size_t size)
{
    auto_err err_t *e = NULL;
    snprintf(parent, size, "ew-cgtest-%d", getpid());
    cgroup_limits_t limits = {.cpu_milli = 500, .memory_budget_bytes = 64 << 20, .pids_max = 64};
    if (geteuid() != 0 || cgroups_detect(c, NULL, parent, "t", &e) < 0 || cgroup_make(c, "box", &limits, &e) < 0)
        return false;
    return true;
}

static pid_t child_in(const cgroups_t *c, void (*work)(void))
{
    char *paths[CGROUP_CONTROLLERS + 1];
    cgroup_procs_paths(c, "box", paths);
    pid_t pid = fork();
    if (pid == 0) {
        for (int i = 0; paths[i]; i++) {
            int fd = open(paths[i], O_WRONLY);
            if (write(fd, "0", 1) != 1)
                _exit(9);
        }
        work();
        _exit(0);
    }
    for (int i = 0; paths[i]; i++)
        free(paths[i]);
    return pid;
}

static void wait_for_ever(void)
{
    signal(SIGTERM, SIG_IGN);
    if (fork() == 0)
        setsid();
    for (;;)
        pause();
}

Test(cgroup, destroy_kills_everything_in_it, .timeout = 30)
{
    cgroups_t c;
    char parent[64];
    auto_err err_t *e = NULL;
    if (!open_real(&c, parent, sizeof parent))
        cr_skip_test("no cgroups to write to");
    pid_t pid = child_in(&c, wait_for_ever);
    for (uint64_t until = clock_monotonic_ms() + 5000;
         !cgroup_has_processes(&c, "box") && clock_monotonic_ms() < until;)
        usleep(1000);
    cr_assert(cgroup_has_processes(&c, "box"));
    signal(SIGCHLD, SIG_IGN);
    cr_assert_eq(cgroup_destroy(&c, "box", &e), 0, "%s", err_message(e));
    cr_assert_eq(kill(pid, 0), -1);
    cr_assert_eq(cgroup_destroy(&c, "box", &e), 0); /* again: nothing there */
    cgroups_remove_empty(&c);
    cgroups_free(&c);
}

static uint64_t limit_of(const cgroups_t *c, const char *v1, const char *v2, int controller)
{
    unsigned long long value = 0;
    auto_free char *path =
        mem_printf("%s/%s/box/%s", c->mounts[c->is_v2 ? 0 : controller], c->group, c->is_v2 ? v2 : v1);
    FILE *f = fopen(path, "re");
    cr_assert_not_null(f, "%s", path);
    cr_assert_eq(fscanf(f, "%llu", &value), 1, "%s", path);
    fclose(f);
    return value;
}

/* A warm sandbox gets its limits at the claim. */
Test(cgroup, limits_can_be_changed_while_it_runs, .timeout = 30)
{
    cgroups_t c;
    char parent[64];
    auto_err err_t *e = NULL;
    if (!open_real(&c, parent, sizeof parent))
        cr_skip_test("no cgroups to write to");
    (void)child_in(&c, wait_for_ever);
    cgroup_limits_t limits = {.cpu_milli = 1500, .memory_budget_bytes = 128 << 20, .pids_max = 100};
    cr_assert_eq(cgroup_make(&c, "box", &limits, &e), 0, "%s", err_message(e));
    cr_assert_eq(limit_of(&c, "memory.limit_in_bytes", "memory.max", 1), cgroup_memory_limit(128 << 20));
    cr_assert_eq(limit_of(&c, "pids.max", "pids.max", 2), cgroup_pids_limit(100));
    cr_assert_eq(limit_of(&c, "cpu.cfs_quota_us", "cpu.max", 0), 150000);
    signal(SIGCHLD, SIG_IGN);
    cr_assert_eq(cgroup_destroy(&c, "box", &e), 0, "%s", err_message(e));
    cgroups_remove_empty(&c);
    cgroups_free(&c);
}

static void eat(void)
{
    size_t len = (size_t)60 << 20;
    char *bytes = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(bytes, 1, len);
    pause();
}

static void told(void *arg)
{
    *(bool *)arg = true;
}

Test(cgroup, memory_pressure_is_told, .timeout = 30)
{
    cgroups_t c;
    char parent[64];
    auto_err err_t *e = NULL;
    bool is_told = false;
    if (!open_real(&c, parent, sizeof parent))
        cr_skip_test("no cgroups to write to");
    struct event_base *base = event_base_new();
    cgroup_watch_t *w = cgroup_watch_new(&c, "box", base, told, &is_told, &e);
    cr_assert_not_null(w, "%s", err_message(e));
    if (cgroup_watch_fd(w) >= 0)
        cr_assert_eq(cgroup_watch_register(&c, "box", 64 << 20, getpid(), cgroup_watch_fd(w), &e), 0, "%s",
                     err_message(e));
    pid_t pid = child_in(&c, eat);
    struct timeval limit = {.tv_sec = 10};
    event_base_loopexit(base, &limit);
    while (!is_told && event_base_loop(base, EVLOOP_ONCE) == 0 && !event_base_got_exit(base))
        ;
    cr_assert(is_told);
    cr_assert_gt(cgroup_memory_used(&c, "box"), (uint64_t)50 << 20);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    cgroup_watch_free(&w);
    event_base_free(base);
    cr_assert_eq(cgroup_destroy(&c, "box", &e), 0);
    cgroups_remove_empty(&c);
    cgroups_free(&c);
}
