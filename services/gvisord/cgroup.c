/* SPDX-License-Identifier: Apache-2.0 */
#include "services/gvisord/cgroup.h"

#include "common/buf.h"
#include "common/clock.h"
#include "common/file.h"
#include "common/mem.h"
#include "common/text.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { CONTROLLER_CPU, CONTROLLER_MEMORY, CONTROLLER_PIDS };
static const char *const CONTROLLERS[CGROUP_CONTROLLERS] = {"cpu", "memory", "pids"};

#define CPU_PERIOD_US 100000
#define CPU_QUOTA_MIN_US 1000
#define PIDS_FACTOR                                                                                  \
    8 /* of a crowd that is ending, gVisor has more than three processes on the host for each inside \
       */
#define PIDS_EXTRA 512
#define SMALL_FILE_MAX (1024 * 1024)
#define RMDIR_RETRY_MS 5
#define PIDS_PER_ROUND 256

uint64_t cgroup_memory_limit(uint64_t budget_bytes)
{
    uint64_t share = budget_bytes / 100 * CGROUP_MEMORY_HEADROOM_PERCENT;
    uint64_t limit = budget_bytes + (share > CGROUP_MEMORY_HEADROOM_MIN ? share : CGROUP_MEMORY_HEADROOM_MIN);
    return limit < budget_bytes ? UINT64_MAX : limit;
}

uint32_t cgroup_pids_limit(uint32_t pids_max)
{
    uint64_t limit = (uint64_t)pids_max * PIDS_FACTOR + PIDS_EXTRA;
    return limit > INT32_MAX ? INT32_MAX : (uint32_t)limit;
}

/* ---- finding the hierarchies ---- */

static bool has_word(const char *list, const char *word)
{
    size_t len = strlen(word);
    for (const char *at = list; (at = strstr(at, word)); at += len)
        if ((at == list || at[-1] == ',') && (at[len] == ',' || at[len] == '\0' || at[len] == '\n'))
            return true;
    return false;
}

/* One line of mountinfo: "id parent dev root mountpoint options … - type source superoptions". */
static void detect_line(cgroups_t *c, char **v2, char *line)
{
    char *sep = strstr(line, " - ");
    if (!sep)
        return;
    *sep = '\0';
    char type[32], source[256], super[1024], mount_point[4096];
    if (sscanf(sep + 3, "%31s %255s %1023s", type, source, super) != 3 ||
        sscanf(line, "%*s %*s %*s %*s %4095s", mount_point) != 1)
        return;
    if (strcmp(type, "cgroup2") == 0 && !*v2)
        *v2 = mem_strdup(mount_point);
    if (strcmp(type, "cgroup") != 0)
        return;
    for (int i = 0; i < CGROUP_CONTROLLERS; i++)
        if (!c->mounts[i] && has_word(super, CONTROLLERS[i]))
            c->mounts[i] = mem_strdup(mount_point);
}

int cgroups_detect(cgroups_t *c, const char *mountinfo, const char *parent, const char *tag, err_t **e)
{
    *c = (cgroups_t){.group = mem_printf("%s/%s", parent, tag)};
    auto_buf buf_t own = {0};
    if (!mountinfo) {
        if (file_read("/proc/self/mountinfo", (size_t)16 << 20, &own, e) < 0)
            return -1;
        mountinfo = buf_cstr(&own);
    }
    auto_free char *text = mem_strdup(mountinfo);
    auto_free char *v2 = NULL;
    for (char *line = text; *line;) {
        size_t len = strcspn(line, "\n");
        char *next = line + len + (line[len] != '\0');
        line[len] = '\0';
        detect_line(c, &v2, line);
        line = next;
    }
    if (!c->mounts[CONTROLLER_MEMORY] && v2) {
        for (int i = 0; i < CGROUP_CONTROLLERS; i++) {
            free(c->mounts[i]);
            c->mounts[i] = NULL;
        }
        c->is_v2 = true;
        c->mounts[0] = STEAL_PTR(v2);
    }
    if (!c->mounts[0] && !c->mounts[1] && !c->mounts[2])
        return err_set(
            e, ERR_INTERNAL,
            "no cgroup file system is mounted; mount one at /sys/fs/cgroup, sandboxes need it for their limits");
    return 0;
}

void cgroups_free(cgroups_t *c)
{
    for (int i = 0; i < CGROUP_CONTROLLERS; i++)
        free(c->mounts[i]);
    free(c->group);
    *c = (cgroups_t){0};
}

char *cgroups_warning(const cgroups_t *c)
{
    if (c->is_v2)
        return NULL;
    auto_buf buf_t missing = {0};
    for (int i = 0; i < CGROUP_CONTROLLERS; i++)
        if (!c->mounts[i])
            buf_printf(&missing, "%s%s", missing.len ? ", " : "", CONTROLLERS[i]);
    return missing.len ? mem_printf("no cgroup controller for %s: these limits are not enforced", buf_cstr(&missing))
                       : NULL;
}

/* ---- small files ---- */

static int write_file(const char *dir, const char *name, const char *text, err_t **e)
{
    auto_free char *path = mem_printf("%s/%s", dir, name);
    auto_close int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, text, strlen(text)) < 0)
        return err_set_errno(e, ERR_INTERNAL, errno, "cannot write \"%s\" to %s", text, path);
    return 0;
}

static int write_number(const char *dir, const char *name, uint64_t value, err_t **e)
{
    char text[32];
    snprintf(text, sizeof text, "%" PRIu64, value);
    return write_file(dir, name, text, e);
}

static char *read_text(const char *dir, const char *name)
{
    auto_free char *path = mem_printf("%s/%s", dir, name);
    auto_buf buf_t text = {0};
    auto_err err_t *e = NULL;
    return file_read(path, SMALL_FILE_MAX, &text, &e) < 0 ? NULL : mem_strdup(buf_cstr(&text));
}

static char *group_path(const cgroups_t *c, int i, const char *name)
{
    return mem_printf("%s/%s/%s", c->mounts[i], c->group, name);
}

/* ---- making ---- */

/* v2: a controller is there for children only when every ancestor hands it on. */
static int delegate(const char *mount, const char *group, err_t **e)
{
    auto_free char *path = mem_strdup(group);
    if (write_file(mount, "cgroup.subtree_control", "+cpu +memory +pids", e) < 0)
        return -1;
    for (char *at = path;; *at++ = '/') {
        at = strchrnul(at, '/');
        bool is_last = *at == '\0';
        *at = '\0';
        auto_free char *dir = mem_printf("%s/%s", mount, path);
        if (write_file(dir, "cgroup.subtree_control", "+cpu +memory +pids", e) < 0)
            return -1;
        if (is_last)
            return 0;
    }
}

static int limit_v1(const char *dir, int controller, const cgroup_limits_t *limits, err_t **e)
{
    uint64_t quota = (uint64_t)limits->cpu_milli * (CPU_PERIOD_US / 1000);
    switch (controller) {
    case CONTROLLER_CPU:
        if (write_number(dir, "cpu.cfs_period_us", CPU_PERIOD_US, e) < 0)
            return -1;
        return write_number(dir, "cpu.cfs_quota_us", quota < CPU_QUOTA_MIN_US ? CPU_QUOTA_MIN_US : quota, e);
    case CONTROLLER_MEMORY:
        return write_number(dir, "memory.limit_in_bytes", cgroup_memory_limit(limits->memory_budget_bytes), e);
    default:
        return write_number(dir, "pids.max", cgroup_pids_limit(limits->pids_max), e);
    }
}

static int limit_v2(const char *dir, const cgroup_limits_t *limits, err_t **e)
{
    char cpu[64];
    uint64_t quota = (uint64_t)limits->cpu_milli * (CPU_PERIOD_US / 1000);
    snprintf(cpu, sizeof cpu, "%" PRIu64 " %d", quota < CPU_QUOTA_MIN_US ? CPU_QUOTA_MIN_US : quota, CPU_PERIOD_US);
    if (write_file(dir, "cpu.max", cpu, e) < 0)
        return -1;
    /* memory.high makes the kernel count events (and reclaim) before memory.max kills. */
    if (write_number(dir, "memory.high", limits->memory_budget_bytes / 100 * CGROUP_PRESSURE_PERCENT, e) < 0 ||
        write_number(dir, "memory.max", cgroup_memory_limit(limits->memory_budget_bytes), e) < 0 ||
        write_number(dir, "memory.oom.group", 1, e) < 0)
        return -1;
    return write_number(dir, "pids.max", cgroup_pids_limit(limits->pids_max), e);
}

/* The parents are there but for the first time after a boot; v2 also has to hand the controllers on. */
static int group_make(const cgroups_t *c, const char *mount, const char *dir, err_t **e)
{
    if (!c->is_v2 && (mkdir(dir, 0755) == 0 || errno == EEXIST))
        return 0;
    auto_free char *parent = mem_printf("%s/%s", mount, c->group);
    if (dir_make(parent, 0755, e) < 0 || (c->is_v2 && delegate(mount, c->group, e) < 0))
        return -1;
    return dir_make(dir, 0755, e);
}

int cgroup_make(const cgroups_t *c, const char *name, const cgroup_limits_t *limits, err_t **e)
{
    for (int i = 0; i < CGROUP_CONTROLLERS; i++) {
        if (!c->mounts[i])
            continue;
        auto_free char *dir = group_path(c, i, name);
        if (group_make(c, c->mounts[i], dir, e) < 0 ||
            (c->is_v2 ? limit_v2(dir, limits, e) : limit_v1(dir, i, limits, e)) < 0)
            return -1;
    }
    return 0;
}

void cgroup_procs_paths(const cgroups_t *c, const char *name, char *paths[CGROUP_CONTROLLERS + 1])
{
    int n = 0;
    for (int i = 0; i < CGROUP_CONTROLLERS; i++)
        if (c->mounts[i])
            paths[n++] = mem_printf("%s/%s/%s/cgroup.procs", c->mounts[i], c->group, name);
    paths[n] = NULL;
}

/* ---- removing ---- */

static size_t list_pids(const char *dir, pid_t *pids, size_t max)
{
    auto_free char *text = read_text(dir, "cgroup.procs");
    size_t n = 0;
    for (char *at = text, *end; at && *at && n < max; at = end + (*end == '\n')) {
        long pid = strtol(at, &end, 10);
        if (end == at)
            break;
        if (pid > 0)
            pids[n++] = (pid_t)pid;
    }
    return n;
}

/* Kills up to PIDS_PER_ROUND processes and waits until they have ended. False: it was empty. */
static bool kill_round(const char *dir, uint64_t until)
{
    pid_t pids[PIDS_PER_ROUND];
    struct pollfd fds[PIDS_PER_ROUND];
    size_t n = list_pids(dir, pids, PIDS_PER_ROUND), open_count = 0;
    for (size_t i = 0; i < n; i++) {
        int fd = (int)syscall(SYS_pidfd_open, pids[i], 0);
        if (fd < 0)
            continue;
        (void)syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0);
        fds[open_count++] = (struct pollfd){.fd = fd, .events = POLLIN};
    }
    for (size_t i = 0; i < open_count; i++) {
        uint64_t now = clock_monotonic_ms();
        (void)poll(&fds[i], 1, now < until ? (int)(until - now) : 0);
        close(fds[i].fd);
    }
    return n > 0;
}

static int destroy_one(const char *dir, err_t **e)
{
    uint64_t until = clock_monotonic_ms() + CGROUP_KILL_WAIT_MS;
    while (kill_round(dir, until))
        if (clock_monotonic_ms() > until)
            return err_set(e, ERR_INTERNAL, "processes in %s do not end", dir);
    while (rmdir(dir) < 0) {
        int saved = errno;
        if (saved == ENOENT)
            return 0;
        if (saved != EBUSY || clock_monotonic_ms() > until)
            return err_set_errno(e, ERR_INTERNAL, saved, "cannot remove the cgroup %s", dir);
        poll(NULL, 0, RMDIR_RETRY_MS); /* a process that has ended leaves the group a moment later */
        (void)kill_round(dir, until);
    }
    return 0;
}

int cgroup_destroy(const cgroups_t *c, const char *name, err_t **e)
{
    for (int i = 0; i < CGROUP_CONTROLLERS; i++) {
        if (!c->mounts[i])
            continue;
        auto_free char *dir = group_path(c, i, name);
        if (destroy_one(dir, e) < 0)
            return -1;
    }
    return 0;
}

void cgroups_remove_empty(const cgroups_t *c)
{
    for (int i = 0; i < CGROUP_CONTROLLERS; i++) {
        if (!c->mounts[i])
            continue;
        auto_free char *dir = mem_printf("%s/%s", c->mounts[i], c->group);
        size_t mount_len = strlen(c->mounts[i]);
        while (strlen(dir) > mount_len && rmdir(dir) == 0)
            *strrchr(dir, '/') = '\0';
    }
}

/* ---- looking ---- */

void cgroup_each(const cgroups_t *c, void (*fn)(void *arg, const char *name), void *arg)
{
    for (int i = 0; i < CGROUP_CONTROLLERS; i++) {
        if (!c->mounts[i])
            continue;
        auto_free char *path = mem_printf("%s/%s", c->mounts[i], c->group);
        DIR *d = opendir(path);
        if (!d)
            continue;
        for (struct dirent *de; (de = readdir(d));)
            if (de->d_type == DT_DIR && de->d_name[0] != '.')
                fn(arg, de->d_name);
        closedir(d);
    }
}

static int first_mount(const cgroups_t *c)
{
    for (int i = 0; i < CGROUP_CONTROLLERS; i++)
        if (c->mounts[i])
            return i;
    return 0;
}

bool cgroup_has_processes(const cgroups_t *c, const char *name)
{
    auto_free char *dir = group_path(c, first_mount(c), name);
    pid_t pid;
    return list_pids(dir, &pid, 1) > 0;
}

int cgroup_find_process(const cgroups_t *c, const char *name, const char *word)
{
    auto_free char *dir = group_path(c, first_mount(c), name);
    pid_t pids[PIDS_PER_ROUND];
    size_t n = list_pids(dir, pids, PIDS_PER_ROUND);
    for (size_t i = 0; i < n; i++) {
        char proc[32];
        snprintf(proc, sizeof proc, "/proc/%d", pids[i]);
        auto_free char *path = mem_printf("%s/cmdline", proc);
        auto_buf buf_t text = {0};
        auto_err err_t *e = NULL;
        if (file_read(path, SMALL_FILE_MAX, &text, &e) < 0)
            continue;
        const char *at = buf_cstr(&text), *end = at + text.len;
        for (; at < end; at += strlen(at) + 1)
            if (strcmp(at, word) == 0)
                return pids[i];
    }
    return 0;
}

static int memory_index(const cgroups_t *c)
{
    return c->is_v2 ? 0 : CONTROLLER_MEMORY;
}

static uint64_t keyed_value(const char *text, const char *key)
{
    size_t len = strlen(key);
    for (const char *line = text; line && *line;) {
        if (strncmp(line, key, len) == 0 && line[len] == ' ')
            return strtoull(line + len + 1, NULL, 10);
        line = strchr(line, '\n');
        line = line ? line + 1 : NULL;
    }
    return 0;
}

uint64_t cgroup_oom_kills(const cgroups_t *c, const char *name)
{
    if (!c->mounts[memory_index(c)])
        return 0;
    auto_free char *dir = group_path(c, memory_index(c), name);
    auto_free char *text = read_text(dir, c->is_v2 ? "memory.events" : "memory.oom_control");
    return keyed_value(text, "oom_kill");
}

/* Without the page cache, which the kernel drops when memory is short. The sandbox's own memory is shared memory and
 * stays in. */
uint64_t cgroup_memory_used(const cgroups_t *c, const char *name)
{
    if (!c->mounts[memory_index(c)])
        return 0;
    auto_free char *dir = group_path(c, memory_index(c), name);
    auto_free char *text = read_text(dir, c->is_v2 ? "memory.current" : "memory.usage_in_bytes");
    auto_free char *stat = read_text(dir, "memory.stat");
    uint64_t used = text ? strtoull(text, NULL, 10) : 0;
    uint64_t cache = keyed_value(stat, "active_file") + keyed_value(stat, "inactive_file");
    return used > cache ? used - cache : 0;
}
