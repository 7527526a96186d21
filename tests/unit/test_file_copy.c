/* SPDX-License-Identifier: Apache-2.0
 *
 * Copies of sparse files, and a disk that is kept, frozen, copied and made larger.
 */
// LINK: services/gvisord/disk.c services/gvisord/disk_keep.c services/gvisord/file_copy.c services/gvisord/loop_device.c services/gvisord/worker.c services/gvisord/worker_exec.c
#include "services/gvisord/file_copy.h"

#include "common/file.h"
#include "common/mem.h"
#include "services/gvisord/disk.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

static char base[64];

static void make_base(void)
{
    snprintf(base, sizeof base, "/tmp/ew-copy-XXXXXX");
    cr_assert_not_null(mkdtemp(base));
}

static void remove_base(void)
{
    auto_err err_t *e = NULL;
    cr_assert_eq(disk_unmount_below(base, &e), 0, "%s", err_message(e));
    cr_assert_eq(dir_remove(base, &e), 0, "%s", err_message(e));
}

TestSuite(file_copy, .init = make_base, .fini = remove_base, .timeout = 60);

static char *path_of(const char *name)
{
    return mem_printf("%s/%s", base, name);
}

Test(file_copy, a_sparse_file_stays_sparse_and_equal)
{
    auto_free char *from = path_of("from"), *to = path_of("to");
    auto_err err_t *e = NULL;
    char read_back[6] = {0};
    struct stat st;
    int fd = open(from, O_CREAT | O_RDWR, 0600);
    cr_assert_eq(ftruncate(fd, (off_t)1 << 30), 0);
    cr_assert_eq(pwrite(fd, "first", 5, 0), 5);
    cr_assert_eq(pwrite(fd, "later", 5, (off_t)700 << 20), 5);
    close(fd);
    cr_assert_eq(file_copy_sparse(from, to, NULL, &e), 0, "%s", err_message(e));
    cr_assert_eq(stat(to, &st), 0);
    cr_assert_eq(st.st_size, (off_t)1 << 30);
    cr_assert_lt(st.st_blocks * 512, 1 << 20);
    cr_assert_eq(st.st_mode & 0777, 0600);
    fd = open(to, O_RDONLY);
    cr_assert_eq(pread(fd, read_back, 5, (off_t)700 << 20), 5);
    cr_assert_str_eq(read_back, "later");
    close(fd);
}

Test(file_copy, room_is_asked_for_in_advance)
{
    auto_err err_t *e = NULL;
    cr_assert_eq(dir_require_space(base, 1, "a test", &e), 0);
    cr_assert_eq(dir_require_space(base, (uint64_t)1 << 60, "a test", &e), -1);
    cr_assert_eq(err_code(e), ERR_NO_SPACE);
    cr_assert_not_null(strstr(err_message(e), "no room for a test: it needs"), "%s", err_message(e));
}

static void make_disk(const char *dir)
{
    auto_err err_t *e = NULL;
    auto_free char *templates = path_of("templates"), *lower = path_of("lower");
    const char *lowers[] = {lower, NULL};
    disk_spec_t spec = {
        .dir = dir, .template_dir = templates, .size_bytes = 64 << 20, .lowers = lowers, .has_loop = true};
    cr_assert_eq(dir_make(lower, 0755, &e), 0);
    cr_assert_eq(dir_make(dir, 0700, &e), 0);
    cr_assert_eq(disk_prepare(&spec, &e), 0, "%s", err_message(e));
}

static int mount_kept(const char *dir)
{
    auto_err err_t *e = NULL;
    auto_free char *lower = path_of("lower");
    const char *lowers[] = {lower, NULL};
    const disk_file_t etc[] = {{"hostname", "new\n"}, {NULL, NULL}};
    disk_spec_t spec = {.dir = dir, .lowers = lowers, .etc = etc, .is_kept = true};
    int rc = disk_prepare(&spec, &e);
    if (rc < 0)
        fprintf(stderr, "%s\n", err_message(e));
    return rc;
}

#define SKIP_WITHOUT_LOOP()                               \
    do {                                                  \
        auto_err err_t *why = NULL;                       \
        if (geteuid() != 0 || !disk_has_loop(base, &why)) \
            cr_skip_test("no loop devices or no root");   \
    } while (0)

Test(file_copy, a_disk_is_detached_with_its_files_and_comes_back)
{
    SKIP_WITHOUT_LOOP();
    auto_err err_t *e = NULL;
    auto_free char *dir = path_of("box"), *file = path_of("box/rootfs/note"), *disk = path_of("box/disk");
    make_disk(dir);
    cr_assert_eq(file_write_atomic(file, "kept", 4, 0600, &e), 0);
    cr_assert_eq(disk_detach(dir, &e), 0, "%s", err_message(e));
    cr_assert_neq(access(disk, F_OK), 0);
    cr_assert_eq(disk_detach(dir, &e), 0, "twice: %s", err_message(e));
    cr_assert_eq(mount_kept(dir), 0);
    auto_buf buf_t text = {0};
    cr_assert_eq(file_read(file, 100, &text, &e), 0);
    cr_assert_str_eq(buf_cstr(&text), "kept");
    cr_assert_eq(disk_teardown(dir, &e), 0, "%s", err_message(e));
}

Test(file_copy, a_frozen_disk_is_copied_and_the_copy_can_grow)
{
    SKIP_WITHOUT_LOOP();
    auto_err err_t *e = NULL;
    auto_free char *dir = path_of("box"), *copy = path_of("copy"), *file = path_of("box/rootfs/note"),
                   *copied = path_of("copy/rootfs/note"), *copy_root = path_of("copy/rootfs");
    struct statvfs fs;
    bool is_shared;
    make_disk(dir);
    cr_assert_eq(file_write_atomic(file, "kept", 4, 0600, &e), 0);
    cr_assert_eq(dir_make(copy, 0700, &e), 0);
    cr_assert_eq(disk_freeze(dir, &e), 0, "%s", err_message(e));
    cr_assert_eq(disk_copy(dir, copy, &is_shared, &e), 0, "%s", err_message(e));
    disk_thaw(dir);
    disk_thaw(dir);
    cr_assert_eq(file_write_atomic(file, "changed", 7, 0600, &e), 0);
    cr_assert_eq(disk_grow(copy, 16 << 20, &e), -1);
    cr_assert_eq(err_code(e), ERR_VALIDATION);
    err_free(&e);
    cr_assert_eq(disk_grow(copy, (uint64_t)512 << 20, &e), 0, "%s", err_message(e));
    cr_assert_eq(mount_kept(copy), 0);
    auto_buf buf_t text = {0};
    cr_assert_eq(file_read(copied, 100, &text, &e), 0);
    cr_assert_str_eq(buf_cstr(&text), "kept");
    cr_assert_eq(statvfs(copy_root, &fs), 0);
    cr_assert_gt((uint64_t)fs.f_blocks * fs.f_frsize, (uint64_t)400 << 20);
    cr_assert_eq(disk_teardown(copy, &e), 0);
    cr_assert_eq(disk_teardown(dir, &e), 0);
}

/* The host lost its power: part of the file system is only in its journal. */
Test(file_copy, a_disk_that_was_never_unmounted_grows_without_losing_files)
{
    SKIP_WITHOUT_LOOP();
    auto_err err_t *e = NULL;
    auto_free char *dir = path_of("box"), *copy = path_of("copy");
    bool is_shared;
    make_disk(dir);
    for (int i = 0; i < 200; i++) {
        auto_free char *file = mem_printf("%s/rootfs/note-%d", dir, i);
        cr_assert_eq(file_write_atomic(file, "kept", 4, 0600, &e), 0);
    }
    cr_assert_eq(disk_sync(dir, &e), 0);
    cr_assert_eq(dir_make(copy, 0700, &e), 0);
    cr_assert_eq(disk_copy(dir, copy, &is_shared, &e), 0, "%s", err_message(e));
    cr_assert_eq(disk_grow(copy, (uint64_t)512 << 20, &e), 0, "%s", err_message(e));
    cr_assert_eq(mount_kept(copy), 0);
    for (int i = 0; i < 200; i++) {
        auto_free char *file = mem_printf("%s/rootfs/note-%d", copy, i);
        cr_assert_eq(access(file, F_OK), 0, "%s", file);
    }
    cr_assert_eq(disk_teardown(copy, &e), 0);
    cr_assert_eq(disk_teardown(dir, &e), 0);
}

/* A sandbox can make anything of its own /etc. */
Test(file_copy, a_link_in_a_kept_disk_leads_nowhere)
{
    SKIP_WITHOUT_LOOP();
    auto_err err_t *e = NULL;
    auto_free char *dir = path_of("box"), *outside = path_of("outside"), *etc = path_of("box/disk/upper/etc"),
                   *hostname = path_of("box/disk/upper/etc/hostname"), *victim = path_of("outside/hostname");
    make_disk(dir);
    cr_assert_eq(dir_make(outside, 0755, &e), 0);
    cr_assert_eq(file_write_atomic(victim, "untouched", 9, 0600, &e), 0);
    cr_assert_eq(symlink(outside, etc), 0);
    cr_assert_eq(disk_detach(dir, &e), 0);
    cr_assert_eq(mount_kept(dir), 0);
    cr_assert_eq(unlink(etc), 0);
    cr_assert_eq(dir_make(etc, 0755, &e), 0);
    cr_assert_eq(symlink(victim, hostname), 0);
    cr_assert_eq(disk_detach(dir, &e), 0);
    cr_assert_eq(mount_kept(dir), 0);
    auto_buf buf_t text = {0};
    cr_assert_eq(file_read(victim, 100, &text, &e), 0);
    cr_assert_str_eq(buf_cstr(&text), "untouched");
    cr_assert_eq(disk_teardown(dir, &e), 0, "%s", err_message(e));
}
