/* SPDX-License-Identifier: Apache-2.0 */
#include "services/gvisord/oci_spec.h"

#include "common/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#define OCI_VERSION "1.0.2"
#define SHM_MIN ((uint64_t)16 << 20)
#define OPEN_FILES 65536
/* All ids: the mapping is not there to shift owners, which would make the image unreadable, but to leave the host's
 * user namespace. */
#define ALL_IDS ((json_int_t)UINT32_MAX)

/* What dpkg, pip, npm, tar and su need. Left out on purpose: NET_ADMIN, NET_RAW, SYS_PTRACE, SYS_MODULE, SYS_RAWIO,
 * SYS_BOOT, SYS_TIME, … */
static const char *const CAPABILITIES[] = {
    "CAP_CHOWN",  "CAP_DAC_OVERRIDE", "CAP_FOWNER",           "CAP_FSETID",     "CAP_KILL",        "CAP_SETGID",
    "CAP_SETUID", "CAP_SETFCAP",      "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_AUDIT_WRITE", "CAP_MKNOD"};
static const char *const AGENT_CAPABILITIES[] = {"CAP_SYS_ADMIN", "CAP_SETPCAP"};

static const char *const MASKED_PATHS[] = {"/proc/acpi",          "/proc/asound",        "/proc/kcore",
                                           "/proc/keys",          "/proc/latency_stats", "/proc/timer_list",
                                           "/proc/timer_stats",   "/proc/scsi",          "/proc/sched_debug",
                                           "/proc/sysrq-trigger", "/sys/firmware"};
static const char *const READONLY_PATHS[] = {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"};
static const char *const NAMESPACES[] = {"pid", "ipc", "uts", "mount"};

static json_t *strings(const char *const *list, size_t count)
{
    json_t *array = json_array();
    for (size_t i = 0; i < count; i++)
        json_array_append_new(array, json_string(list[i]));
    return array;
}

static json_t *capabilities(bool is_crun)
{
    json_t *list = strings(CAPABILITIES, COUNT_OF(CAPABILITIES));
    if (!is_crun) {
        json_t *more = strings(AGENT_CAPABILITIES, COUNT_OF(AGENT_CAPABILITIES));
        json_array_extend(list, more);
        json_decref(more);
    }
    return json_pack("{s:O,s:O,s:o}", "bounding", list, "effective", list, "permitted", list);
}

/* gVisor's limits are its own; under crun it is the kernel that may refuse more than the daemon has. */
static json_int_t open_files(bool is_crun)
{
    struct rlimit own;
    if (!is_crun || getrlimit(RLIMIT_NOFILE, &own) < 0 || own.rlim_max > OPEN_FILES)
        return OPEN_FILES;
    return (json_int_t)own.rlim_max;
}

static json_t *process(const oci_spec_t *spec)
{
    return json_pack("{s:b,s:{s:i,s:i},s:[s],s:o,s:s,s:o,s:b,s:[{s:s,s:I,s:I}]}", "terminal", 0, "user", "uid", 0,
                     "gid", 0, "args", OCI_AGENT_PATH, "env", json_array(), "cwd", "/", "capabilities",
                     capabilities(spec->is_crun), "noNewPrivileges", 1, "rlimits", "type", "RLIMIT_NOFILE", "hard",
                     open_files(spec->is_crun), "soft", open_files(spec->is_crun));
}

static void add_mount(json_t *mounts, const char *at, const char *type, const char *const *options, size_t count)
{
    json_array_append_new(mounts, json_pack("{s:s,s:s,s:s,s:o}", "destination", at, "type", type, "source", type,
                                            "options", strings(options, count)));
}

static json_t *mounts(const oci_spec_t *spec)
{
    uint64_t shm = spec->memory_bytes / 2 < SHM_MIN ? SHM_MIN : spec->memory_bytes / 2;
    char size[40];
    snprintf(size, sizeof size, "size=%" PRIu64, shm);
    const char *proc[] = {"nosuid", "noexec", "nodev"};
    const char *dev[] = {"nosuid", "strictatime", "mode=755", "size=65536k"};
    const char *pts[] = {"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"};
    const char *shared[] = {"nosuid", "noexec", "nodev", "mode=1777", size};
    const char *sys[] = {"nosuid", "noexec", "nodev", "ro"};
    json_t *array = json_array();
    add_mount(array, "/proc", "proc", proc, COUNT_OF(proc));
    add_mount(array, "/dev", "tmpfs", dev, COUNT_OF(dev));
    add_mount(array, "/dev/pts", "devpts", pts, COUNT_OF(pts));
    add_mount(array, "/dev/shm", "tmpfs", shared, COUNT_OF(shared));
    add_mount(array, "/sys", "sysfs", sys, COUNT_OF(sys));
    return array;
}

static json_t *linux_part(const oci_spec_t *spec)
{
    json_t *namespaces = json_array();
    for (size_t i = 0; i < COUNT_OF(NAMESPACES); i++)
        json_array_append_new(namespaces, json_pack("{s:s}", "type", NAMESPACES[i]));
    json_array_append_new(namespaces, json_pack("{s:s,s:s*}", "type", "network", "path", spec->netns_path));
    json_t *part = json_pack("{s:o,s:o,s:o}", "namespaces", namespaces, "maskedPaths",
                             strings(MASKED_PATHS, COUNT_OF(MASKED_PATHS)), "readonlyPaths",
                             strings(READONLY_PATHS, COUNT_OF(READONLY_PATHS)));
    if (spec->has_user_namespace) {
        json_t *map = json_pack("[{s:i,s:i,s:I}]", "containerID", 0, "hostID", 0, "size", ALL_IDS);
        json_array_append_new(namespaces, json_pack("{s:s}", "type", "user"));
        json_object_set(part, "uidMappings", map);
        json_object_set_new(part, "gidMappings", map);
    }
    return part;
}

json_t *oci_spec_build(const oci_spec_t *spec, err_t **e)
{
    json_t *root = json_pack("{s:s,s:o,s:{s:s,s:b},s:s,s:o,s:o}", "ociVersion", OCI_VERSION, "process", process(spec),
                             "root", "path", spec->rootfs, "readonly", 0, "hostname", spec->hostname, "mounts",
                             mounts(spec), "linux", linux_part(spec));
    if (!root)
        err_set(e, ERR_INTERNAL, "the sandbox's configuration cannot be written: a text in it is not UTF-8");
    return root;
}

int oci_spec_write(const oci_spec_t *spec, const char *path, err_t **e)
{
    json_t *root = oci_spec_build(spec, e);
    if (!root)
        return -1;
    auto_free char *text = json_dumps(root, JSON_COMPACT);
    json_decref(root);
    auto_close int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
    size_t len = strlen(text);
    if (fd < 0 || write(fd, text, len) != (ssize_t)len)
        return err_set_errno(e, ERR_NONE, errno, "cannot write %s", path);
    return 0;
}
