/* SPDX-License-Identifier: Apache-2.0 */
// LINK: services/gvisord/image.c services/gvisord/image_import.c services/gvisord/worker_exec.c
#include "services/gvisord/image.h"

#include "common/file.h"
#include "common/mem.h"
#include "services/gvisord/worker.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

typedef struct store {
    char root[64];
    char *images, *tree, *tar;
} store_t;

static void store_open(store_t *s)
{
    auto_err err_t *e = NULL;
    snprintf(s->root, sizeof s->root, "/tmp/ew-image-XXXXXX");
    cr_assert_not_null(mkdtemp(s->root));
    s->images = mem_printf("%s/images", s->root);
    s->tree = mem_printf("%s/tree", s->root);
    s->tar = mem_printf("%s/tree.tar", s->root);
    cr_assert_eq(dir_make(s->tree, 0755, &e), 0);
}

static void store_close(store_t *s)
{
    auto_err err_t *e = NULL;
    cr_assert_eq(dir_remove(s->root, &e), 0, "%s", err_message(e));
    free(s->images);
    free(s->tree);
    free(s->tar);
}

static void put(const store_t *s, const char *name, const char *text)
{
    auto_err err_t *e = NULL;
    auto_free char *path = mem_printf("%s/%s", s->tree, name);
    cr_assert_eq(file_write_atomic(path, text, strlen(text), 0644, &e), 0, "%s", err_message(e));
}

static void pack(const store_t *s)
{
    auto_err err_t *e = NULL;
    const char *argv[] = {"tar", "--create", "--directory", s->tree, "--file", s->tar, ".", NULL};
    cr_assert_eq(worker_exec(argv, NULL, 10000, &e), 0, "%s", err_message(e));
}

static void import(const store_t *s, const char *name, image_t *image)
{
    auto_err err_t *e = NULL;
    cr_assert_eq(image_import_tar(s->images, name, s->tar, "a test", &e), 0, "%s", err_message(e));
    cr_assert_eq(image_find(s->images, name, image, &e), 0, "%s", err_message(e));
}

Test(image, an_imported_tar_is_found_by_its_name, .timeout = 30)
{
    store_t s;
    store_open(&s);
    put(&s, "hello", "world");
    pack(&s);
    auto_image image_t image;
    import(&s, "mine", &image);
    cr_assert_str_eq(image.source, "a test");
    cr_assert_eq(image.size_bytes, 5);
    cr_assert_eq(strncmp(image.digest, "sha256:", 7), 0);
    auto_free char *file = mem_printf("%s/hello", image.rootfs);
    cr_assert_eq(access(file, R_OK), 0);
    store_close(&s);
}

static bool keep_none(void *arg, const char *rootfs)
{
    (void)arg;
    (void)rootfs;
    return false;
}

Test(image, a_second_import_leaves_the_first_generation_until_nobody_uses_it, .timeout = 30)
{
    store_t s;
    store_open(&s);
    put(&s, "a", "1");
    pack(&s);
    auto_image image_t first, second;
    import(&s, "mine", &first);
    import(&s, "mine", &second);
    cr_assert_str_neq(first.rootfs, second.rootfs);
    cr_assert_eq(access(first.rootfs, F_OK), 0);
    image_prune(s.images, keep_none, NULL);
    cr_assert_eq(access(first.rootfs, F_OK), -1);
    cr_assert_eq(access(second.rootfs, F_OK), 0);
    store_close(&s);
}

Test(image, devices_of_an_archive_are_dropped, .timeout = 30)
{
    store_t s;
    store_open(&s);
    if (geteuid() != 0)
        cr_skip_test("needs root");
    auto_free char *device = mem_printf("%s/disk", s.tree);
    auto_free char *fifo = mem_printf("%s/fifo", s.tree);
    cr_assert_eq(mknod(device, S_IFBLK | 0666, makedev(1, 0)), 0);
    cr_assert_eq(mkfifo(fifo, 0666), 0);
    put(&s, "file", "x");
    pack(&s);
    auto_image image_t image;
    import(&s, "mine", &image);
    auto_free char *imported_device = mem_printf("%s/disk", image.rootfs);
    auto_free char *imported_fifo = mem_printf("%s/fifo", image.rootfs);
    cr_assert_eq(access(imported_device, F_OK), -1);
    cr_assert_eq(access(imported_fifo, F_OK), -1);
    store_close(&s);
}

/* A hostile archive: a link out of the tree, then a file through it. */
Test(image, an_archive_cannot_write_outside, .timeout = 30)
{
    store_t s;
    auto_err err_t *e = NULL;
    store_open(&s);
    auto_free char *outside = mem_printf("%s/outside", s.root);
    auto_free char *link = mem_printf("%s/out", s.tree);
    auto_free char *through = mem_printf("%s/out/evil", s.tree);
    auto_free char *directory = mem_printf("%s/out", s.tree);
    cr_assert_eq(dir_make(outside, 0755, &e), 0);
    cr_assert_eq(symlink(outside, link), 0);
    const char *first[] = {"tar", "--create", "--directory", s.tree, "--file", s.tar, "./out", NULL};
    cr_assert_eq(worker_exec(first, NULL, 10000, &e), 0);
    cr_assert_eq(unlink(link), 0);
    cr_assert_eq(dir_make(directory, 0755, &e), 0);
    cr_assert_eq(file_write_atomic(through, "x", 1, 0644, &e), 0);
    const char *second[] = {"tar", "--append", "--directory", s.tree, "--file", s.tar, "./out/evil", NULL};
    cr_assert_eq(worker_exec(second, NULL, 10000, &e), 0);
    auto_err err_t *refused = NULL;
    (void)image_import_tar(s.images, "evil", s.tar, "a test", &refused);
    auto_free char *escaped = mem_printf("%s/evil", outside);
    cr_assert_eq(access(escaped, F_OK), -1);
    store_close(&s);
}

Test(image, names_that_are_paths_are_refused, .timeout = 5)
{
    static const char *const bad[] = {"", ".", "..", "../x", "a/b", "/etc", ".hidden", "-x", "a b", "a\n"};
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        cr_expect_not(image_name_is_valid(bad[i]), "%s", bad[i]);
    cr_expect(image_name_is_valid("node-22.1_x"));
}

Test(image, an_unknown_image_names_those_that_are_there, .timeout = 30)
{
    store_t s;
    store_open(&s);
    put(&s, "a", "1");
    pack(&s);
    auto_image image_t image, none = {0};
    import(&s, "mine", &image);
    auto_err err_t *e = NULL;
    cr_assert_eq(image_find(s.images, "other", &none, &e), -1);
    cr_assert_eq(err_code(e), ERR_NOT_FOUND);
    cr_assert_not_null(strstr(err_message(e), "mine"));
    store_close(&s);
}

Test(image, a_broken_description_is_an_error, .timeout = 30)
{
    static const char *const broken[] = {
        "", "{", "[]", "{\"rootfs\": 1}", "{\"rootfs\": \"../../etc\"}", "{\"rootfs\": \"missing\"}"};
    store_t s;
    store_open(&s);
    auto_free char *dir = mem_printf("%s/bad", s.images);
    auto_free char *json = mem_printf("%s/image.json", dir);
    auto_err err_t *e = NULL;
    cr_assert_eq(dir_make(dir, 0700, &e), 0);
    for (size_t i = 0; i < COUNT_OF(broken); i++) {
        auto_err err_t *why = NULL;
        image_t image;
        cr_assert_eq(file_write_atomic(json, broken[i], strlen(broken[i]), 0600, &e), 0);
        cr_expect_eq(image_find(s.images, "bad", &image, &why), -1, "%s", broken[i]);
    }
    store_close(&s);
}
