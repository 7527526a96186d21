/* SPDX-License-Identifier: Apache-2.0 */
#include "services/gvisord/disk.h"

#include "common/buf.h"
#include "common/clock.h"
#include "common/file.h"
#include "common/mem.h"
#include "services/gvisord/disk_private.h"
#include "services/gvisord/file_copy.h"
#include "services/gvisord/loop_device.h"
#include "services/gvisord/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define MKFS_TIMEOUT_MS 30000
#define REMOVE_TIMEOUT_MS 600000
#define BLOCK 4096
#define OVERLAY_OPTIONS_MAX 4000 /* mount(2) takes one page */
#define MOUNTINFO_MAX (16 * 1024 * 1024)
#define RETRY_MS 10

/* ---- templates ---- */

static int template_make(const char *path, uint64_t size, err_t **e)
{
    auto_free char *temporary = mem_printf("%s.%d", path, getpid());
    auto_free char *seed = mem_printf("%s.seed.%d", path, getpid());
    auto_free char *upper = mem_printf("%s/upper", seed);
    auto_free char *work = mem_printf("%s/work", seed);
    if (dir_make(upper, 0755, e) < 0 || dir_make(work, 0700, e) < 0)
        return -1;
    auto_close int fd = open(temporary, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, (off_t)size) < 0)
        return err_set_errno(e, ERR_NONE, errno, "cannot make the disk template %s", temporary);
    /* No resize inode, lazily initialised tables: a 10 GiB image starts with 250 KiB on disk. */
    const char *argv[] = {"mke2fs",
                          "-q",
                          "-F",
                          "-t",
                          "ext4",
                          "-b",
                          "4096",
                          "-m",
                          "0",
                          "-J",
                          "size=4",
                          "-O",
                          "^resize_inode",
                          "-E",
                          "lazy_itable_init=1,lazy_journal_init=1,nodiscard",
                          "-d",
                          seed,
                          "--",
                          temporary,
                          NULL};
    int rc = worker_exec(argv, NULL, MKFS_TIMEOUT_MS, e);
    auto_err err_t *ignored = NULL;
    (void)dir_remove(seed, &ignored);
    if (rc == 0 && rename(temporary, path) < 0)
        rc = err_set_errno(e, ERR_NONE, errno, "cannot put the disk template %s in place", path);
    if (rc < 0)
        (void)unlink(temporary);
    return rc;
}

static int image_make(const disk_spec_t *spec, const char *image, err_t **e)
{
    uint64_t size = (spec->size_bytes + BLOCK - 1) / BLOCK * BLOCK;
    auto_free char *template = mem_printf("%s/%" PRIu64 ".img", spec->template_dir, size);
    if (access(template, F_OK) < 0 &&
        (dir_make(spec->template_dir, 0700, e) < 0 || template_make(template, size, e) < 0))
        return -1;
    return file_copy_sparse(template, image, NULL, e);
}

/* ---- mounts ---- */

static int make_dir(const char *path, mode_t mode, err_t **e)
{
    if (mkdir(path, mode) < 0 && errno != EEXIST)
        return err_set_errno(e, ERR_NONE, errno, "cannot make %s", path);
    return 0;
}

static int mount_overlay(const disk_spec_t *spec, const char *disk, const char *rootfs, err_t **e)
{
    auto_buf buf_t options = {0};
    for (size_t i = 0; spec->lowers[i]; i++)
        buf_printf(&options, "%s%s", i ? ":" : "lowerdir=", spec->lowers[i]);
    buf_printf(&options, ",upperdir=%s/upper,workdir=%s/work", disk, disk);
    if (options.len > OVERLAY_OPTIONS_MAX)
        return err_set(e, ERR_SANDBOX_FAILED,
                       "the paths of the root file system are too long; use a shorter EW_STATE_DIR");
    /* A device node or setuid program that gets into a sandbox's files means nothing to the host. */
    if (mount("overlay", rootfs, "overlay", MS_NOATIME | MS_NODEV | MS_NOSUID, buf_cstr(&options)) < 0)
        return err_set_errno(e, ERR_SANDBOX_FAILED, errno, "cannot mount the root file system %s", rootfs);
    return 0;
}

/* Straight into the upper layer, and no link in it is followed: the sandbox may have had it before. */
static int write_files(const disk_spec_t *spec, const char *disk, err_t **e)
{
    if (!spec->etc)
        return 0;
    auto_free char *upper = mem_printf("%s/upper", disk);
    auto_close int top = open(upper, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (top < 0 || (mkdirat(top, "etc", 0755) < 0 && errno != EEXIST))
        return err_set_errno(e, ERR_NONE, errno, "cannot make etc in %s", upper);
    auto_close int etc = openat(top, "etc", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (etc < 0 && spec->is_kept)
        return 0; /* its own doing: it has put something else there */
    for (const disk_file_t *f = spec->etc; f->name; f++) {
        if (unlinkat(etc, f->name, 0) < 0 && errno != ENOENT && spec->is_kept)
            continue;
        auto_close int fd = openat(etc, f->name, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, 0644);
        size_t len = strlen(f->content);
        if (fd < 0 || write(fd, f->content, len) != (ssize_t)len)
            return err_set_errno(e, ERR_NONE, errno, "cannot write etc/%s in %s", f->name, upper);
    }
    return 0;
}

int disk_prepare(const disk_spec_t *spec, err_t **e)
{
    auto_free char *image = mem_printf("%s/disk.img", spec->dir);
    auto_free char *disk = mem_printf("%s/disk", spec->dir);
    auto_free char *rootfs = mem_printf("%s/rootfs", spec->dir);
    if (make_dir(disk, 0700, e) < 0 || make_dir(rootfs, 0755, e) < 0)
        return -1;
    bool has_loop = spec->is_kept ? access(image, F_OK) == 0 : spec->has_loop;
    if (has_loop) {
        if ((!spec->is_kept && image_make(spec, image, e) < 0) ||
            loop_mount(image, disk, "ext4", "noinit_itable,discard,errors=remount-ro", e) < 0)
            return -1;
    } else {
        auto_free char *upper = mem_printf("%s/upper", disk);
        auto_free char *work = mem_printf("%s/work", disk);
        if (make_dir(upper, 0755, e) < 0 || make_dir(work, 0700, e) < 0)
            return -1;
    }
    return write_files(spec, disk, e) < 0 ? -1 : mount_overlay(spec, disk, rootfs, e);
}

bool disk_is_mount_point(const char *path)
{
    struct stat self, parent;
    auto_free char *above = mem_printf("%s/..", path);
    return stat(path, &self) == 0 && stat(above, &parent) == 0 && self.st_dev != parent.st_dev;
}

bool disk_is_mounted(const char *dir)
{
    auto_free char *image = mem_printf("%s/disk.img", dir);
    auto_free char *disk = mem_printf("%s/disk", dir);
    auto_free char *rootfs = mem_printf("%s/rootfs", dir);
    return disk_is_mount_point(rootfs) && (access(image, F_OK) < 0 || disk_is_mount_point(disk));
}

/* A mount may be busy for a moment after its last process was reaped; there is no event for the end of that. */
int disk_unmount(const char *path, err_t **e)
{
    uint64_t until = clock_monotonic_ms() + DISK_UNMOUNT_WAIT_MS;
    while (umount2(path, UMOUNT_NOFOLLOW) < 0) {
        int saved = errno;
        if (saved == EINVAL || saved == ENOENT)
            return 0;
        if (saved != EBUSY || clock_monotonic_ms() > until)
            return err_set_errno(e, ERR_INTERNAL, saved, "cannot unmount %s", path);
        poll(NULL, 0, RETRY_MS);
    }
    return 0;
}

/* What a sandbox has made may be nested deeper than dir_remove goes. */
static int remove_tree(const char *path, err_t **e)
{
    auto_err err_t *why = NULL;
    const char *argv[] = {"rm", "-rf", "--one-file-system", "--", path, NULL};
    return dir_remove(path, &why) == 0 ? 0 : worker_exec(argv, NULL, REMOVE_TIMEOUT_MS, e);
}

int disk_teardown(const char *dir, err_t **e)
{
    auto_free char *image = mem_printf("%s/disk.img", dir);
    auto_free char *disk = mem_printf("%s/disk", dir);
    auto_free char *rootfs = mem_printf("%s/rootfs", dir);
    disk_thaw(dir); /* the rest of a snapshot that was broken off: nothing could be unmounted */
    if (disk_unmount(rootfs, e) < 0 || disk_unmount(disk, e) < 0 || loop_wait_gone(image, DISK_UNMOUNT_WAIT_MS, e) < 0)
        return -1;
    if (remove_tree(disk, e) < 0 || dir_remove(rootfs, e) < 0)
        return -1;
    if (unlink(image) < 0 && errno != ENOENT)
        return err_set_errno(e, ERR_INTERNAL, errno, "cannot remove %s", image);
    return 0;
}

/* /proc/self/mountinfo writes white space and backslash as three octal digits. */
static void unescape(char *s)
{
    char *to = s;
    for (; *s; s++) {
        if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] && s[3]) {
            *to++ = (char)((s[1] - '0') * 64 + (s[2] - '0') * 8 + (s[3] - '0'));
            s += 3;
        } else {
            *to++ = *s;
        }
    }
    *to = '\0';
}

int disk_unmount_below(const char *dir, err_t **e)
{
    auto_buf buf_t info = {0};
    buf_init(&info, MOUNTINFO_MAX);
    if (file_read("/proc/self/mountinfo", MOUNTINFO_MAX, &info, e) < 0)
        return -1;
    auto_free char *text = mem_strdup(buf_cstr(&info));
    size_t dir_len = strlen(dir);
    /* The table lists mounts in the order they were made: unmount from its end. */
    for (char *end = text + strlen(text); end > text;) {
        char *line = end;
        while (line > text && line[-1] != '\n')
            line--;
        *end = '\0';
        char *at = line;
        for (int i = 0; i < 4 && at; i++)
            at = strchr(at, ' ') ? strchr(at, ' ') + 1 : NULL;
        if (at && strchr(at, ' ')) {
            *strchr(at, ' ') = '\0';
            unescape(at);
            if (strncmp(at, dir, dir_len) == 0 && at[dir_len] == '/' && disk_unmount(at, e) < 0)
                return -1;
        }
        end = line > text ? line - 1 : text;
    }
    return 0;
}

bool disk_has_loop(const char *state_dir, err_t **why_not)
{
    auto_free char *dir = mem_printf("%s/probe-disk", state_dir);
    auto_free char *templates = mem_printf("%s/disks", state_dir);
    auto_free char *lower = mem_printf("%s/lower", dir);
    auto_err err_t *cleanup = NULL;
    (void)disk_teardown(dir, &cleanup);
    const char *lowers[] = {lower, NULL};
    disk_spec_t spec = {
        .dir = dir, .template_dir = templates, .size_bytes = 64 << 20, .lowers = lowers, .has_loop = true};
    bool is_ok = dir_make(lower, 0700, why_not) == 0 && disk_prepare(&spec, why_not) == 0;
    auto_err err_t *e = NULL;
    if (disk_teardown(dir, &e) == 0) {
        auto_err err_t *ignored = NULL;
        (void)dir_remove(dir, &ignored);
    }
    return is_ok;
}
