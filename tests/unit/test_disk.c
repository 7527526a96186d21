/* SPDX-License-Identifier: Apache-2.0 */
// LINK: services/gvisord/disk.c services/gvisord/disk_keep.c services/gvisord/file_copy.c services/gvisord/loop_device.c services/gvisord/worker.c services/gvisord/worker_exec.c
#include "services/gvisord/disk.h"

#include "common/file.h"
#include "common/mem.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct place {
    char root[64];
    char *dir, *templates, *lower, *file;
    const char *lowers[2];
    disk_spec_t spec;
} place_t;

static bool place_open(place_t *p, uint64_t size)
{
    auto_err err_t *e = NULL;
    snprintf(p->root, sizeof p->root, "/tmp/ew-disk-XXXXXX");
    cr_assert_not_null(mkdtemp(p->root));
    p->dir = mem_printf("%s/box", p->root);
    p->templates = mem_printf("%s/disks", p->root);
    p->lower = mem_printf("%s/lower", p->root);
    p->file = mem_printf("%s/rootfs/file", p->dir);
    p->lowers[0] = p->lower;
    p->lowers[1] = NULL;
    static const disk_file_t etc[] = {{"hosts", "127.0.0.1 localhost\n"}, {NULL, NULL}};
    p->spec = (disk_spec_t){.dir = p->dir,
                            .template_dir = p->templates,
                            .size_bytes = size,
                            .lowers = p->lowers,
                            .etc = etc,
                            .has_loop = true};
    cr_assert_eq(dir_make(p->dir, 0700, &e), 0);
    cr_assert_eq(dir_make(p->lower, 0755, &e), 0);
    return geteuid() == 0 && disk_has_loop(p->root, &e);
}

static void place_close(place_t *p)
{
    auto_err err_t *e = NULL;
    cr_assert_eq(disk_teardown(p->dir, &e), 0, "%s", err_message(e));
    cr_assert_eq(dir_remove(p->root, &e), 0, "%s", err_message(e));
    free(p->dir);
    free(p->templates);
    free(p->lower);
    free(p->file);
}

static int write_until_full(const char *path)
{
    static char block[65536];
    auto_close int fd = open(path, O_CREAT | O_WRONLY | O_TRUNC, 0600);
    cr_assert_geq(fd, 0);
    for (int i = 0; i < 10000; i++)
        if (write(fd, block, sizeof block) < 0)
            return errno;
    return 0;
}

Test(disk, a_disk_is_made_used_and_removed, .timeout = 60)
{
    place_t p;
    auto_err err_t *e = NULL;
    if (!place_open(&p, 64 << 20))
        cr_skip_test("no loop devices here");
    cr_assert_eq(disk_prepare(&p.spec, &e), 0, "%s", err_message(e));
    cr_assert(disk_is_mounted(p.dir));
    auto_free char *hosts = mem_printf("%s/rootfs/etc/hosts", p.dir);
    cr_assert_eq(access(hosts, R_OK), 0);
    cr_assert_eq(write_until_full(p.file), ENOSPC);
    cr_assert_eq(disk_teardown(p.dir, &e), 0, "%s", err_message(e));
    cr_assert_not(disk_is_mounted(p.dir));
    cr_assert_eq(disk_teardown(p.dir, &e), 0); /* again */
    place_close(&p);
}

Test(disk, a_large_disk_is_small_until_it_is_used, .timeout = 60)
{
    place_t p;
    struct stat st;
    auto_err err_t *e = NULL;
    if (!place_open(&p, (uint64_t)10 << 30))
        cr_skip_test("no loop devices here");
    cr_assert_eq(disk_prepare(&p.spec, &e), 0, "%s", err_message(e));
    auto_free char *image = mem_printf("%s/disk.img", p.dir);
    cr_assert_eq(stat(image, &st), 0);
    cr_assert_eq((uint64_t)st.st_size, (uint64_t)10 << 30);
    cr_assert_lt(st.st_blocks * 512, 2 << 20);
    place_close(&p);
}

Test(disk, the_image_below_is_not_changed, .timeout = 60)
{
    place_t p;
    auto_err err_t *e = NULL;
    if (!place_open(&p, 64 << 20))
        cr_skip_test("no loop devices here");
    cr_assert_eq(disk_prepare(&p.spec, &e), 0, "%s", err_message(e));
    cr_assert_eq(file_write_atomic(p.file, "x", 1, 0600, &e), 0, "%s", err_message(e));
    auto_free char *below = mem_printf("%s/file", p.lower);
    cr_assert_eq(access(below, F_OK), -1);
    place_close(&p);
}

Test(disk, a_link_in_the_image_leads_nowhere, .timeout = 60)
{
    place_t p;
    auto_err err_t *e = NULL;
    if (!place_open(&p, 64 << 20))
        cr_skip_test("no loop devices here");
    auto_free char *etc = mem_printf("%s/etc", p.lower);
    auto_free char *hosts = mem_printf("%s/hosts", etc);
    auto_free char *victim = mem_printf("%s/victim", p.root);
    cr_assert_eq(dir_make(etc, 0755, &e), 0);
    cr_assert_eq(file_write_atomic(victim, "safe", 4, 0600, &e), 0);
    cr_assert_eq(symlink(victim, hosts), 0);
    cr_assert_eq(disk_prepare(&p.spec, &e), 0, "%s", err_message(e));
    auto_buf buf_t text = {0};
    cr_assert_eq(file_read(victim, 100, &text, &e), 0);
    cr_assert_str_eq(buf_cstr(&text), "safe");
    place_close(&p);
}

Test(disk, leftover_mounts_are_found_by_their_place, .timeout = 60)
{
    place_t p;
    auto_err err_t *e = NULL;
    if (!place_open(&p, 64 << 20))
        cr_skip_test("no loop devices here");
    cr_assert_eq(disk_prepare(&p.spec, &e), 0, "%s", err_message(e));
    cr_assert_eq(disk_unmount_below(p.root, &e), 0, "%s", err_message(e));
    cr_assert_not(disk_is_mounted(p.dir));
    place_close(&p);
}

Test(disk, works_without_loop_devices, .timeout = 60)
{
    place_t p;
    auto_err err_t *e = NULL;
    if (!place_open(&p, 64 << 20))
        cr_skip_test("needs root");
    p.spec.has_loop = false;
    cr_assert_eq(disk_prepare(&p.spec, &e), 0, "%s", err_message(e));
    cr_assert(disk_is_mounted(p.dir));
    place_close(&p);
}

/* Without a file system of its own, what a sandbox has made is removed one by one. */
Test(disk, however_deep_a_sandbox_has_nested_its_directories_they_go, .timeout = 60)
{
    place_t p;
    auto_err err_t *e = NULL;
    if (!place_open(&p, 64 << 20))
        cr_skip_test("needs root");
    p.spec.has_loop = false;
    cr_assert_eq(disk_prepare(&p.spec, &e), 0, "%s", err_message(e));
    auto_free char *top = mem_printf("%s/rootfs", p.dir);
    int at = open(top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (int i = 0; i < 3000; i++) {
        cr_assert_eq(mkdirat(at, "deeper", 0700), 0);
        int below = openat(at, "deeper", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        cr_assert_geq(below, 0);
        close(at);
        at = below;
    }
    close(at);
    cr_assert_eq(disk_teardown(p.dir, &e), 0, "%s", err_message(e));
    auto_free char *disk = mem_printf("%s/disk", p.dir);
    cr_assert_neq(access(disk, F_OK), 0);
    place_close(&p);
}
