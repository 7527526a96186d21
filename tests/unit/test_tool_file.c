// SPDX-License-Identifier: Apache-2.0
// LINK: agent/tool_file.c agent/tool_file_remove.c agent/tool_file_get.c agent/tool_file_put.c
// LINK: agent/fs_entry.c agent/fs_path.c agent/fs_remove.c agent/fs_replace.c agent/walk.c agent/users.c
// LINK: agent/workspace.c tests/unit/fake_call.c
/* file_stat, _list, _mkdir, _move, _remove, _get and _put (contracts/e2b.md 3.3). */
#include "agent/fs_tools.h"
#include "common/clock.h"
#include "common/mem.h"
#include "tests/unit/fake_call.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

TestSuite(file, .timeout = 60, .fini = fake_workspace_end);

static fake_t f;

static const struct file_entry *stat_of(const char *path)
{
    struct file_ref req = {.path = path};
    fake_run(&f, &tool_file_stat, &req);
    return f.reply;
}

static bool is_there(const char *relative)
{
    struct stat st;
    return lstat(fake_path(relative), &st) == 0;
}

Test(file, stat_describes_the_path_itself)
{
    fake_put_str("d/a.txt", "hello");
    cr_assert_eq(chmod(fake_path("d/a.txt"), 04640), 0);
    cr_assert_eq(symlink("d/nowhere", fake_path("link")), 0);
    const struct file_entry *r = stat_of("d/a.txt");
    cr_assert_str_eq(r->path, fake_path("d/a.txt"));
    cr_assert_str_eq(r->name, "a.txt");
    cr_assert_str_eq(r->type, "file");
    cr_assert_eq(r->size, 5);
    cr_assert_eq(r->mode, 04640);
    cr_assert_eq(r->uid, geteuid());
    cr_assert_gt(r->modified_at_ms + 60000, clock_realtime_ms());
    fake_free(&f);
    r = stat_of("link");
    cr_assert_str_eq(r->type, "symlink");
    cr_assert_str_eq(r->symlink_target, "d/nowhere");
    fake_free(&f);
    cr_assert_str_eq(stat_of("d/")->name, "d");
    cr_assert_str_eq(((const struct file_entry *)f.reply)->type, "directory");
    fake_free(&f);
    cr_assert_str_eq(stat_of("/")->name, "/");
    cr_assert_str_eq(((const struct file_entry *)f.reply)->owner, "root");
    fake_free(&f);
    cr_assert_str_eq(stat_of("/dev/null")->type, "device");
    fake_free(&f);
    cr_assert_null(stat_of("nope"));
    cr_assert_eq(fake_code(&f), ERR_NOT_FOUND);
    fake_free(&f);
}

Test(file, list_is_depth_first_and_sorted)
{
    static const struct {
        uint32_t depth, limit;
        const char *want;
        bool is_cut;
    } rows[] = {
        {0, 0, "a d d.txt z", false},
        {1, 0, "a d d.txt z", false},
        {2, 0, "a a/1 d d/.h d/s d.txt z", false},
        {64, 0, "a a/1 d d/.h d/s d/s/x d.txt z", false},
        {64, 3, "a a/1 d", true},
        {64, 8, "a a/1 d d/.h d/s d/s/x d.txt z", false},
    };
    static const char *const files[] = {"t/d/s/x", "t/d/.h", "t/a/1", "t/d.txt"};
    for (size_t i = 0; i < COUNT_OF(files); i++)
        fake_put_str(files[i], "x");
    cr_assert_eq(symlink("d", fake_path("t/z")), 0); /* inside, links are not followed */
    cr_assert_eq(symlink("t", fake_path("root")), 0);
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct file_list_request req = {.path = i % 2 ? "root" : "t", .depth = rows[i].depth, .limit = rows[i].limit};
        fake_run(&f, &tool_file_list, &req);
        const struct file_list_reply *r = f.reply;
        cr_assert_not_null(r, "%s", err_message(f.error));
        buf_t got;
        buf_init(&got, 0);
        proto_iter_t it = proto_iter(&r->entries);
        proto_nested_t nested;
        size_t prefix = strlen(fake_path(req.path)) + 1;
        while (proto_iter_msg(&it, &nested)) {
            struct file_entry entry;
            err_t *e = NULL;
            cr_assert_eq(proto_decode(MSG_file_entry, &entry, nested.bytes, nested.len, &e), 0);
            buf_printf(&got, "%s%s", got.len ? " " : "", entry.path + prefix);
        }
        cr_expect_str_eq(buf_cstr(&got), rows[i].want, "row %zu: %s", i, buf_cstr(&got));
        cr_expect_eq(r->truncated, rows[i].is_cut);
        buf_free(&got);
        fake_free(&f);
    }
    struct file_list_request req = {.path = "nope"};
    fake_run(&f, &tool_file_list, &req);
    cr_assert_eq(fake_code(&f), ERR_NOT_FOUND);
    fake_free(&f);
    req.path = "t/d.txt";
    fake_run(&f, &tool_file_list, &req);
    cr_assert_eq(fake_code(&f), ERR_BAD_REQUEST);
    fake_free(&f);
}

Test(file, mkdir_makes_parents_and_refuses_what_is_there)
{
    struct file_mkdir_request req = {.path = "a/b/c", .mode = 0700, .has = {.mode = true}};
    struct stat st;
    fake_run(&f, &tool_file_mkdir, &req);
    cr_assert_not_null(f.reply, "%s", err_message(f.error));
    cr_assert_str_eq(((const struct file_entry *)f.reply)->type, "directory");
    cr_assert_eq(stat(fake_path("a/b/c"), &st), 0);
    cr_assert_eq(st.st_mode & 07777, 0700);
    cr_assert_eq(stat(fake_path("a/b"), &st), 0);
    cr_assert_eq(st.st_mode & 07777, 0755);
    fake_free(&f);
    fake_run(&f, &tool_file_mkdir, &req);
    cr_assert_eq(fake_code(&f), ERR_CONFLICT);
    fake_free(&f);
    fake_put_str("file", "x");
    req.path = "file";
    fake_run(&f, &tool_file_mkdir, &req);
    cr_assert_eq(fake_code(&f), ERR_BAD_REQUEST);
    fake_free(&f);
    req.path = "file/x";
    fake_run(&f, &tool_file_mkdir, &req);
    cr_assert_eq(fake_code(&f), ERR_BAD_REQUEST);
    fake_free(&f);
}

Test(file, move_makes_parents_and_overwrites_only_when_told)
{
    struct file_move_request req = {.source = "a", .destination = "x/y/b"};
    fake_put_str("a", "1");
    fake_run(&f, &tool_file_move, &req);
    cr_assert_not_null(f.reply, "%s", err_message(f.error));
    cr_assert_str_eq(((const struct file_entry *)f.reply)->name, "b");
    cr_assert(!is_there("a") && is_there("x/y/b"));
    fake_free(&f);
    fake_run(&f, &tool_file_move, &req);
    cr_assert_eq(fake_code(&f), ERR_NOT_FOUND);
    fake_free(&f);
    fake_put_str("a", "2");
    fake_run(&f, &tool_file_move, &req);
    cr_assert_eq(fake_code(&f), ERR_CONFLICT);
    cr_assert(is_there("a"));
    fake_free(&f);
    req.overwrite = true;
    fake_run(&f, &tool_file_move, &req);
    cr_assert_not_null(f.reply);
    auto_free char *text = fake_get("x/y/b", NULL);
    cr_assert_str_eq(text, "2");
    fake_free(&f);
    req = (struct file_move_request){.source = "x", .destination = "x/y/z"};
    fake_run(&f, &tool_file_move, &req);
    cr_assert_eq(fake_code(&f), ERR_BAD_REQUEST, "into itself");
    fake_free(&f);
}

static uint64_t removed(const char *path, bool is_recursive)
{
    struct file_remove_request req = {.path = path, .recursive = is_recursive};
    fake_run(&f, &tool_file_remove, &req);
    return f.reply ? ((const struct file_remove_reply *)f.reply)->removed : UINT64_MAX;
}

Test(file, remove)
{
    fake_put_str("a", "1");
    cr_assert_eq(removed("a", false), 1);
    fake_free(&f);
    cr_assert_eq(removed("a", false), 0, "a missing path is a success");
    fake_free(&f);
    cr_assert_eq(removed("a/b", true), 0);
    fake_free(&f);
    fake_put_str("keep/file", "1");
    cr_assert_eq(symlink("keep", fake_path("link")), 0);
    cr_assert_eq(removed("link", true), 1, "the link, not what it leads to");
    cr_assert(is_there("keep/file"));
    fake_free(&f);
    cr_assert_eq(removed("keep", false), UINT64_MAX);
    cr_assert_eq(fake_code(&f), ERR_CONFLICT);
    fake_free(&f);
    cr_assert_eq(mkdir(fake_path("empty"), 0755), 0);
    cr_assert_eq(removed("empty", false), 1);
    fake_free(&f);
}

Test(file, a_tree_is_removed_whole_and_nothing_else)
{
    char name[64];
    fake_put_str("outside/file", "1");
    for (int i = 0; i < 3000; i++) {
        snprintf(name, sizeof name, "t/%d/%d/f%d", i % 7, i % 30, i);
        fake_put_str(name, "");
    }
    cr_assert_eq(symlink("../outside", fake_path("t/link")), 0);
    uint64_t n = removed("t", true);
    cr_assert_eq(n, 3000 + 7 * 30 + 7 + 1 + 1, "%d", (int)n);
    cr_assert(!is_there("t") && is_there("outside/file"));
    cr_assert_gt(f.steps, 0);
    fake_free(&f);
    /* deeper than any path can say */
    int fd = open(fake_workspace(), O_RDONLY | O_DIRECTORY);
    for (int i = 0; i < 3000; i++) {
        cr_assert_eq(mkdirat(fd, "deep", 0755), 0);
        int next = openat(fd, "deep", O_RDONLY | O_DIRECTORY);
        close(fd);
        fd = next;
    }
    close(fd);
    cr_assert_eq(removed("deep", true), 3000, "%s", err_message(f.error));
    fake_free(&f);
}

Test(file, a_mount_in_a_tree_stops_the_removal)
{
    if (geteuid() != 0 || unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
        cr_skip_test("needs a mount namespace");
    fake_put_str("t/a", "1");
    cr_assert_eq(mkdir(fake_path("t/m"), 0755), 0);
    cr_assert_eq(mount("tmpfs", fake_path("t/m"), "tmpfs", 0, NULL), 0);
    fake_put_str("t/m/precious", "1");
    cr_assert_eq(removed("t", true), UINT64_MAX);
    cr_assert_eq(fake_code(&f), ERR_CONFLICT);
    cr_assert(is_there("t/m/precious"));
    fake_free(&f);
    cr_assert_eq(umount(fake_path("t/m")), 0);
}

/* ---- get ---- */

static struct file_get_head head_of(void)
{
    struct file_get_head head;
    err_t *e = NULL;
    cr_assert(f.has_head);
    cr_assert_eq(proto_decode(MSG_file_get_head, &head, f.head_bytes.data, f.head_bytes.len, &e), 0);
    return head;
}

Test(file, get_gives_ranges_as_HTTP_does)
{
    static const struct {
        uint64_t offset;
        int64_t length;
        const char *want; /* NULL: 416 */
    } rows[] = {{0, 0, "0123456789"},   {3, 0, "3456789"},       {3, 4, "3456"}, {9, 1, "9"},
                {9, 100, "9"},          {10, 0, NULL},           {11, 5, NULL},  {0, -3, "789"},
                {0, -10, "0123456789"}, {0, -100, "0123456789"}, {0, 1, "0"},    {UINT64_MAX, 1, NULL}};
    fake_put_str("r", "0123456789");
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct file_get_request req = {.path = "r", .offset = rows[i].offset, .length = rows[i].length};
        fake_run(&f, &tool_file_get, &req);
        if (rows[i].want == NULL) {
            cr_assert_eq(fake_code(&f), ERR_RANGE_NOT_SATISFIABLE, "row %zu", i);
            cr_assert_str_eq(err_details(f.error), "{\"size\":10}");
        } else {
            cr_assert_not_null(f.reply, "row %zu: %s", i, err_message(f.error));
            cr_assert_str_eq(buf_cstr(&f.chunks[0]), rows[i].want);
            cr_assert(f.is_ended[0]);
            struct file_get_head head = head_of();
            cr_assert_eq(head.size, 10);
            cr_assert_eq(head.length, strlen(rows[i].want));
            cr_assert_eq(head.offset, (uint64_t)(rows[i].want[0] - '0'));
            cr_assert_neq(head.inode, 0);
        }
        fake_free(&f);
    }
    struct file_get_request req = {.path = "r", .offset = 1, .length = -1};
    fake_run(&f, &tool_file_get, &req);
    cr_assert_eq(fake_code(&f), ERR_BAD_REQUEST);
    fake_free(&f);
}

Test(file, get_of_an_empty_file_and_of_what_is_no_file)
{
    struct file_get_request req = {.path = "empty"};
    fake_put_str("empty", "");
    fake_run(&f, &tool_file_get, &req);
    cr_assert_not_null(f.reply);
    cr_assert(f.is_ended[0]);
    cr_assert_eq(head_of().length, 0);
    fake_free(&f);
    req.path = "/tmp";
    fake_run(&f, &tool_file_get, &req);
    cr_assert_eq(fake_code(&f), ERR_BAD_REQUEST);
    fake_free(&f);
    req.path = "nope";
    fake_run(&f, &tool_file_get, &req);
    cr_assert_eq(fake_code(&f), ERR_NOT_FOUND);
    cr_assert(!f.has_head);
    fake_free(&f);
}

Test(file, get_goes_at_the_callers_pace)
{
    size_t len = 3000001;
    auto_free char *bytes = mem_alloc(len);
    for (size_t i = 0; i < len; i++)
        bytes[i] = (char)(i * 2654435761U >> 24);
    fake_put("big", bytes, len);
    struct file_get_request req = {.path = "big"};
    fake_init(&f, &tool_file_get);
    f.window = 0;
    fake_start(&f, &req);
    size_t granted = 0, turns = 0;
    while (!f.is_done) {
        while (fake_turn(&f, 0))
            ;
        cr_assert(!f.wants_steps, "waits without turning");
        cr_assert_eq(f.chunks[0].len, granted < len ? granted : len);
        if (f.is_done)
            break;
        size_t grant = 1 + turns++ * 7919 % 70000;
        granted += grant;
        fake_grant(&f, grant);
    }
    cr_assert_eq(f.chunks[0].len, len);
    cr_assert(memcmp(f.chunks[0].data, bytes, len) == 0);
    fake_free(&f);
}

Test(file, get_of_a_file_that_shrinks_fails)
{
    fake_put_str("s", "0123456789");
    cr_assert_eq(truncate(fake_path("s"), 1 << 20), 0);
    struct file_get_request req = {.path = "s"};
    fake_init(&f, &tool_file_get);
    f.window = 10;
    fake_start(&f, &req);
    cr_assert_eq(truncate(fake_path("s"), 100), 0);
    fake_grant(&f, 2 << 20);
    fake_finish(&f);
    cr_assert_eq(fake_code(&f), ERR_CONFLICT);
    fake_free(&f);
}

/* ---- put ---- */

static void put_begin(const struct file_put_request *req)
{
    fake_init(&f, &tool_file_put);
    fake_start(&f, req);
}

Test(file, put_takes_the_name_when_all_is_there)
{
    struct file_put_request req = {.path = "p/new", .size = 3, .has = {.size = true, .mode = true}, .mode = 0600};
    struct stat st;
    put_begin(&req);
    fake_chunk(&f, "ab", 2, false);
    cr_assert(!is_there("p/new"));
    cr_assert_eq(f.consumed, 2);
    fake_chunk(&f, "c", 1, true);
    cr_assert(f.is_done);
    const struct file_put_reply *r = f.reply;
    cr_assert_not_null(r, "%s", err_message(f.error));
    cr_assert_eq(r->size, 3);
    cr_assert_str_eq(r->sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    cr_assert_str_eq(r->path, "p/new");
    cr_assert_eq(stat(fake_path("p/new"), &st), 0);
    cr_assert_eq(st.st_mode & 07777, 0600);
    cr_assert_eq(fake_count_entries("p"), 1);
    fake_free(&f);
}

Test(file, put_without_size_and_empty)
{
    struct file_put_request req = {.path = "e", .size = -1, .has = {.size = true}};
    put_begin(&req);
    fake_chunk(&f, NULL, 0, true);
    cr_assert_eq(((const struct file_put_reply *)f.reply)->size, 0);
    cr_assert(is_there("e"));
    fake_free(&f);
    req = (struct file_put_request){.path = "u"};
    put_begin(&req);
    fake_chunk(&f, "abc", 3, true);
    cr_assert_not_null(f.reply);
    fake_free(&f);
}

Test(file, put_that_is_not_whole_changes_nothing)
{
    struct file_put_request req = {.path = "old", .size = 5, .has = {.size = true}};
    for (int how = 0; how < 4; how++) {
        fake_put_str("old", "precious");
        put_begin(&req);
        fake_chunk(&f, "abc", 3, false);
        if (how == 0)
            fake_chunk(&f, NULL, 0, true);
        else if (how == 1)
            fake_chunk(&f, "defg", 4, false);
        else
            fake_cancel(&f, how == 3);
        cr_assert(f.is_done);
        static const enum err_code codes[] = {ERR_BAD_REQUEST, ERR_BAD_REQUEST, ERR_CANCELLED, ERR_DEADLINE_EXCEEDED};
        cr_assert_eq(fake_code(&f), codes[how]);
        auto_free char *text = fake_get("old", NULL);
        cr_assert_str_eq(text, "precious");
        cr_assert_eq(fake_count_entries(""), 1);
        fake_free(&f);
    }
}

Test(file, put_larger_than_the_disk_is_refused_before_the_upload)
{
    struct file_put_request req = {.path = "huge", .size = INT64_MAX, .has = {.size = true}};
    put_begin(&req);
    if (!f.is_done) {
        fake_free(&f);
        cr_skip_test("this file system says that it has no end (gVisor's own overlay)");
    }
    cr_assert_eq(fake_code(&f), ERR_NO_SPACE, "%s", err_message(f.error));
    cr_assert_eq(fake_count_entries(""), 0);
    fake_free(&f);
}

Test(file, put_over_a_hard_link_is_in_place_and_in_slices)
{
    size_t len = 5 << 20;
    auto_free char *bytes = mem_alloc(len);
    memset(bytes, 'n', len);
    fake_put_str("one", "old");
    cr_assert_eq(link(fake_path("one"), fake_path("two")), 0);
    struct file_put_request req = {.path = "one"};
    put_begin(&req);
    fake_chunk(&f, bytes, len, true);
    fake_finish(&f);
    cr_assert(((const struct file_put_reply *)f.reply)->in_place);
    cr_assert_gt(f.steps, 2);
    size_t got;
    auto_free char *two = fake_get("two", &got);
    cr_assert(got == len && memcmp(two, bytes, len) == 0);
    cr_assert_eq(fake_count_entries(""), 2);
    fake_free(&f);
}
