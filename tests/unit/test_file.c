// SPDX-License-Identifier: Apache-2.0
#include "common/file.h"

#include "common/mem.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[64];
static err_t *e;

static void start(void)
{
    snprintf(dir, sizeof dir, "/tmp/ew-file-XXXXXX");
    cr_assert_not_null(mkdtemp(dir));
    e = NULL;
}

static void stop(void)
{
    err_free(&e);
    cr_assert_eq(dir_remove(dir, &e), 0, "%s", err_message(e));
}

TestSuite(file, .init = start, .fini = stop, .timeout = 20);

static char *below(const char *name)
{
    return mem_printf("%s/%s", dir, name);
}

static size_t entries(void)
{
    size_t n = 0;
    DIR *d = opendir(dir);
    while (readdir(d) != NULL)
        n++;
    closedir(d);
    return n - 2;
}

Test(file, what_was_written_is_read_back)
{
    auto_free char *path = below("a");
    auto_buf buf_t text;
    buf_init(&text, 0);
    struct stat st;
    cr_assert_eq(file_write_atomic(path, "one", 3, 0600, &e), 0, "%s", err_message(e));
    cr_assert_eq(file_write_atomic(path, "two!", 4, 0640, &e), 0);
    cr_assert_eq(file_read(path, 4, &text, &e), 0);
    cr_assert_str_eq(buf_cstr(&text), "two!");
    cr_assert_eq(stat(path, &st), 0);
    cr_assert_eq(st.st_mode & 07777, 0640);
    cr_assert_eq(entries(), 1, "no temporary file is left");
}

Test(file, the_mode_does_not_depend_on_the_umask)
{
    auto_free char *path = below("a");
    auto_free char *made = below("b/c");
    struct stat st;
    umask(0777);
    cr_assert_eq(file_write_atomic(path, "x", 1, 0644, &e), 0);
    cr_assert_eq(dir_make(made, 0750, &e), 0, "%s", err_message(e));
    umask(022);
    cr_assert_eq(stat(path, &st), 0);
    cr_assert_eq(st.st_mode & 07777, 0644);
    cr_assert_eq(stat(made, &st), 0);
    cr_assert_eq(st.st_mode & 07777, 0750);
}

Test(file, a_file_over_the_limit_is_refused)
{
    auto_free char *path = below("a");
    auto_buf buf_t text;
    buf_init(&text, 0);
    cr_assert_eq(file_write_atomic(path, "12345", 5, 0600, &e), 0);
    cr_assert_eq(file_read(path, 4, &text, &e), -1);
    cr_assert_eq(err_code(e), ERR_PAYLOAD_TOO_LARGE);
    err_free(&e);
    buf_reset(&text);
    cr_assert_eq(file_read(path, SIZE_MAX, &text, &e), 0, "no limit is fine");
}

Test(file, large_files_and_files_of_unknown_size)
{
    auto_free char *path = below("big");
    auto_free char *bytes = mem_alloc(300000);
    auto_buf buf_t text;
    memset(bytes, 'x', 300000);
    buf_init(&text, 0);
    cr_assert_eq(file_write_atomic(path, bytes, 300000, 0600, &e), 0);
    cr_assert_eq(file_read(path, 300000, &text, &e), 0);
    cr_assert_eq(text.len, 300000);
    buf_reset(&text);
    cr_assert_eq(file_read("/proc/self/status", 65536, &text, &e), 0);
    cr_assert_gt(text.len, 100);
}

Test(file, a_missing_file_is_not_found)
{
    auto_free char *path = below("none");
    auto_buf buf_t text;
    buf_init(&text, 0);
    cr_assert_eq(file_read(path, 10, &text, &e), -1);
    cr_assert_eq(err_code(e), ERR_NOT_FOUND);
    cr_assert_not_null(strstr(err_message(e), path));
}

Test(file, a_failed_write_leaves_the_old_content_and_nothing_else)
{
    auto_free char *path = below("d");
    cr_assert_eq(dir_make(path, 0700, &e), 0);
    cr_assert_eq(file_write_atomic(path, "x", 1, 0600, &e), -1, "a directory has that name");
    cr_assert_eq(entries(), 1);
}

Test(dir, making_is_idempotent_and_keeps_modes, .init = start, .fini = stop, .timeout = 20)
{
    auto_free char *path = below("a/b/c");
    auto_free char *top = below("a");
    struct stat st;
    cr_assert_eq(dir_make(path, 0700, &e), 0);
    cr_assert_eq(chmod(top, 0755), 0);
    cr_assert_eq(dir_make(path, 0700, &e), 0);
    cr_assert_eq(stat(top, &st), 0);
    cr_assert_eq(st.st_mode & 0777, 0755);
    cr_assert_eq(dir_make("/", 0700, &e), 0);
    auto_free char *file = below("f");
    cr_assert_eq(file_write_atomic(file, "x", 1, 0600, &e), 0);
    cr_assert_eq(dir_make(file, 0700, &e), -1);
    err_free(&e);
    auto_free char *under = below("f/g");
    cr_assert_eq(dir_make(under, 0700, &e), -1);
}

Test(dir, removing_does_not_follow_links, .init = start, .fini = stop, .timeout = 20)
{
    auto_free char *tree = below("tree/a/b");
    auto_free char *outside = below("outside");
    auto_free char *kept = below("outside/kept");
    auto_free char *link_dir = below("tree/a/link");
    auto_free char *link_file = below("tree/a/b/link");
    auto_free char *top = below("tree");
    cr_assert_eq(dir_make(tree, 0700, &e), 0);
    cr_assert_eq(dir_make(outside, 0700, &e), 0);
    cr_assert_eq(file_write_atomic(kept, "x", 1, 0600, &e), 0);
    cr_assert_eq(symlink(outside, link_dir), 0);
    cr_assert_eq(symlink(kept, link_file), 0);
    cr_assert_eq(dir_remove(top, &e), 0, "%s", err_message(e));
    cr_assert_eq(access(top, F_OK), -1);
    cr_assert_eq(access(kept, F_OK), 0);
    cr_assert_eq(dir_remove(top, &e), 0, "a missing path is fine");
}

Test(dir, removing_does_not_cross_a_mount_point, .init = start, .fini = stop, .timeout = 20)
{
    auto_free char *tree = below("tree/mnt");
    auto_free char *outside = below("outside");
    auto_free char *kept = below("outside/kept");
    auto_free char *top = below("tree");
    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
        cr_skip_test("needs to be root");
    cr_assert_eq(dir_make(tree, 0700, &e), 0);
    cr_assert_eq(dir_make(outside, 0700, &e), 0);
    cr_assert_eq(file_write_atomic(kept, "x", 1, 0600, &e), 0);
    cr_assert_eq(mount(outside, tree, NULL, MS_BIND, NULL), 0);
    cr_assert_eq(dir_remove(top, &e), -1);
    cr_assert_eq(err_code(e), ERR_CONFLICT);
    cr_assert_not_null(strstr(err_message(e), "mounted"));
    err_free(&e);
    cr_assert_eq(access(kept, F_OK), 0, "what is mounted is untouched");
    cr_assert_eq(umount(tree), 0);
    cr_assert_eq(dir_remove(top, &e), 0);
}

Test(dir, a_tree_too_deep_is_refused_and_not_a_crash, .init = start, .timeout = 30)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY);
    for (int i = 0; i < 400; i++) {
        cr_assert_eq(mkdirat(fd, "d", 0700), 0);
        int next = openat(fd, "d", O_RDONLY | O_DIRECTORY);
        close(fd);
        fd = next;
    }
    close(fd);
    cr_assert_eq(dir_remove(dir, &e), -1);
    cr_assert_not_null(strstr(err_message(e), "too deeply"));
    err_free(&e);
    /* From the other end it goes: level by level. */
    cr_assert_eq(chdir(dir), 0);
    for (int i = 0; i < 399; i++)
        cr_assert_eq(chdir("d"), 0);
    for (int i = 0; i < 400; i++) {
        cr_assert_eq(rmdir("d"), 0);
        cr_assert_eq(chdir(".."), 0);
    }
    cr_assert_eq(rmdir(dir), 0);
}
