// SPDX-License-Identifier: Apache-2.0
// LINK: agent/tool_write.c agent/fs_replace.c agent/fs_path.c agent/workspace.c tests/unit/fake_call.c
/* The write tool: scenarios S-049 to S-051, gaps G-28, G-29. */
#include "agent/fs_replace.h"
#include "agent/fs_tools.h"
#include "common/mem.h"
#include "tests/unit/fake_call.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

TestSuite(write, .timeout = 60, .fini = fake_workspace_end);

static fake_t f;

static const struct write_reply *write_file(const char *path, const void *bytes, size_t len)
{
    struct write_request req = {.file_path = path, .content = {bytes, len}};
    fake_run(&f, &tool_write, &req);
    return f.reply;
}

static void expect_file(const char *relative, const void *bytes, size_t len)
{
    size_t got;
    auto_free char *text = fake_get(relative, &got);
    cr_assert_not_null(text, "%s is not there", relative);
    cr_assert(got == len && memcmp(text, bytes, len) == 0, "%s holds %zu bytes", relative, got);
}

Test(write, a_new_file_S049)
{
    struct stat st;
    const struct write_reply *r = write_file("new.txt", "hello\n", 6);
    cr_assert_not_null(r, "%s", err_message(f.error));
    cr_assert(r->success && !r->in_place);
    cr_assert_str_eq(r->file_path, "new.txt");
    cr_assert_eq(r->bytes_written, 6);
    cr_assert_eq(f.steps, 0);
    expect_file("new.txt", "hello\n", 6);
    cr_assert_eq(stat(fake_path("new.txt"), &st), 0);
    cr_assert_eq(st.st_mode & 07777, 0644);
    cr_assert_eq(fake_count_entries(""), 1, "no temporary stays");
    fake_free(&f);
}

Test(write, overwriting_replaces_everything_and_keeps_mode_and_owner_S050)
{
    struct stat before, st;
    fake_put_str("a.sh", "a much longer old content\n");
    cr_assert_eq(chmod(fake_path("a.sh"), 0751), 0);
    bool is_root = geteuid() == 0;
    if (is_root)
        cr_assert_eq(chown(fake_path("a.sh"), 1234, 4321), 0);
    cr_assert_eq(stat(fake_path("a.sh"), &before), 0);
    cr_assert_not_null(write_file(fake_path("a.sh"), "x", 1));
    expect_file("a.sh", "x", 1);
    cr_assert_eq(stat(fake_path("a.sh"), &st), 0);
    cr_assert_eq(st.st_mode, before.st_mode);
    cr_assert_eq(st.st_uid, before.st_uid);
    cr_assert_eq(st.st_gid, before.st_gid);
    cr_assert_neq(st.st_ino, before.st_ino, "replaced, not overwritten");
    fake_free(&f);
}

Test(write, missing_parents_are_made_S051)
{
    struct stat st;
    cr_assert_not_null(write_file("x/y//z/f", "1", 1));
    expect_file("x/y/z/f", "1", 1);
    cr_assert_eq(stat(fake_path("x/y"), &st), 0);
    cr_assert_eq(st.st_mode & 07777, 0755);
    fake_free(&f);
}

Test(write, content_may_be_anything_G28_G29)
{
    static const struct {
        const char *name;
        const char *bytes;
        size_t len;
    } rows[] = {
        {"empty", "", 0},
        {"nul", "a\0b\0", 4},
        {"not utf-8", "\xff\xfe\x80", 3},
        {"$(touch pwned)`id`", "$(id)`id`\n'\"\\", 13},
        {"-rf", "x", 1},
        {"new\nline", "x", 1},
        {"\xc3\xa4\xff", "x", 1},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        cr_assert_not_null(write_file(fake_path(rows[i].name), rows[i].bytes, rows[i].len), "%s", err_message(f.error));
        expect_file(rows[i].name, rows[i].bytes, rows[i].len);
        fake_free(&f);
    }
    cr_assert_eq(fake_count_entries(""), COUNT_OF(rows));
}

Test(write, large_content_is_written_in_slices_G28)
{
    size_t len = MAX_CONTENT;
    auto_free char *bytes = mem_alloc(len);
    for (size_t i = 0; i < len; i++)
        bytes[i] = (char)(i * 31 >> 3);
    const struct write_reply *r = write_file("large", bytes, len);
    cr_assert_not_null(r);
    cr_assert_eq(r->bytes_written, len);
    cr_assert_gt(f.steps, 10);
    expect_file("large", bytes, len);
    fake_free(&f);
}

Test(write, a_mode_is_for_new_files_only)
{
    struct stat st;
    struct write_request req = {
        .file_path = "m", .content = {"1", 1}, .mode = 0640, .has = {.mode = true}, .sync = true};
    for (int i = 0; i < 2; i++) {
        fake_run(&f, &tool_write, &req);
        cr_assert_not_null(f.reply);
        cr_assert_eq(stat(fake_path("m"), &st), 0);
        cr_assert_eq(st.st_mode & 07777, 0640);
        fake_free(&f);
        req.mode = 0777;
    }
}

Test(write, the_target_of_a_symbolic_link_is_written)
{
    struct stat st;
    fake_put_str("dir/target", "old");
    cr_assert_eq(symlink("dir/target", fake_path("link")), 0);
    cr_assert_eq(symlink("link", fake_path("link2")), 0);
    cr_assert_not_null(write_file("link2", "new", 3));
    expect_file("dir/target", "new", 3);
    cr_assert_eq(lstat(fake_path("link"), &st), 0);
    cr_assert(S_ISLNK(st.st_mode));
    fake_free(&f);
    cr_assert_eq(symlink("made/later", fake_path("dangling")), 0);
    cr_assert_not_null(write_file("dangling", "new", 3), "%s", err_message(f.error));
    expect_file("made/later", "new", 3);
    fake_free(&f);
    cr_assert_eq(symlink("loop", fake_path("loop")), 0);
    cr_assert_null(write_file("loop", "x", 1));
    cr_assert_eq(fake_code(&f), ERR_BAD_REQUEST);
    fake_free(&f);
}

Test(write, hard_links_are_written_in_place_and_said_so)
{
    struct stat a, b;
    fake_put_str("one", "something longer");
    cr_assert_eq(link(fake_path("one"), fake_path("two")), 0);
    const struct write_reply *r = write_file("one", "short", 5);
    cr_assert(r->in_place);
    expect_file("two", "short", 5);
    cr_assert_eq(stat(fake_path("one"), &a), 0);
    cr_assert_eq(stat(fake_path("two"), &b), 0);
    cr_assert_eq(a.st_ino, b.st_ino);
    cr_assert_eq(fake_count_entries(""), 2);
    fake_free(&f);
}

Test(write, a_mount_point_is_written_in_place)
{
    if (geteuid() != 0 || unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
        cr_skip_test("needs a mount namespace");
    fake_put_str("source", "old");
    fake_put_str("mounted", "");
    cr_assert_eq(mount(fake_path("source"), fake_path("mounted"), NULL, MS_BIND, NULL), 0);
    const struct write_reply *r = write_file("mounted", "new content", 11);
    cr_assert_not_null(r, "%s", err_message(f.error));
    cr_assert(r->in_place);
    expect_file("source", "new content", 11);
    cr_assert_eq(fake_count_entries(""), 2);
    cr_assert_eq(umount(fake_path("mounted")), 0);
    fake_free(&f);
}

Test(write, a_full_disk_leaves_the_old_content)
{
    if (geteuid() != 0 || unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
        cr_skip_test("needs a mount namespace");
    cr_assert_eq(mkdir(fake_path("small"), 0755), 0);
    cr_assert_eq(mount("tmpfs", fake_path("small"), "tmpfs", 0, "size=1m"), 0);
    auto_free char *bytes = mem_alloc(2 << 20);
    memset(bytes, 'x', 2 << 20);
    fake_put_str("small/a", "precious");
    cr_assert_null(write_file("small/a", bytes, 2 << 20));
    cr_assert_eq(fake_code(&f), ERR_NO_SPACE);
    cr_assert_not_null(strstr(err_message(f.error), "/small/a"));
    expect_file("small/a", "precious", 8);
    cr_assert_eq(fake_count_entries("small"), 1, "no temporary stays");
    fake_free(&f);
    /* In place, with room for the temporary but not for both. */
    cr_assert_eq(link(fake_path("small/a"), fake_path("small/b")), 0);
    cr_assert_null(write_file("small/a", bytes, 600 << 10));
    cr_assert_eq(fake_code(&f), ERR_NO_SPACE);
    expect_file("small/b", "precious", 8);
    cr_assert_eq(fake_count_entries("small"), 2);
    fake_free(&f);
    cr_assert_eq(umount(fake_path("small")), 0);
}

Test(write, devices_are_written_directly)
{
    const struct write_reply *r = write_file("/dev/null", "x", 1);
    cr_assert(r->in_place);
    fake_free(&f);
    cr_assert_null(write_file("/dev/full", "x", 1));
    cr_assert_eq(fake_code(&f), ERR_NO_SPACE);
    fake_free(&f);
}

Test(write, what_cannot_be_written_is_refused_with_its_path)
{
    fake_put_str("file", "x");
    cr_assert_eq(mkfifo(fake_path("fifo"), 0600), 0);
    cr_assert_eq(mkdir(fake_path("dir"), 0755), 0);
    static const struct {
        const char *path, *message;
    } rows[] = {{"dir", "it is a directory"},
                {"dir/", "not the path of a file"},
                {"fifo", "it is a fifo"},
                {"file/below", "file"}};
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        cr_assert_null(write_file(rows[i].path, "x", 1));
        cr_assert_eq(fake_code(&f), ERR_BAD_REQUEST, "%s: %s", rows[i].path, err_message(f.error));
        cr_assert_not_null(strstr(err_message(f.error), rows[i].message), "%s", err_message(f.error));
        cr_assert_not_null(strstr(err_message(f.error), rows[i].path), "%s", err_message(f.error));
        fake_free(&f);
    }
    expect_file("file", "x", 1);
}

Test(write, a_reader_never_sees_half_of_it)
{
    enum { SIZE = 300000 };
    auto_free char *a = mem_alloc(SIZE), *b = mem_alloc(SIZE);
    memset(a, 'a', SIZE);
    memset(b, 'b', SIZE);
    fake_put("f", a, SIZE);
    const char *path = fake_path("f");
    pid_t child = fork();
    if (child == 0) {
        char *seen = mem_alloc(SIZE);
        for (;;) {
            int fd = open(path, O_RDONLY);
            size_t n = 0;
            for (ssize_t got; fd >= 0 && (got = read(fd, seen + n, SIZE - n)) > 0;)
                n += (size_t)got;
            close(fd);
            if (n != SIZE || memchr(seen, seen[0] == 'a' ? 'b' : 'a', SIZE) != NULL)
                _exit(1);
        }
    }
    for (int i = 0; i < 300; i++) {
        write_file("f", i % 2 ? a : b, SIZE);
        fake_free(&f);
    }
    int status;
    kill(child, SIGKILL);
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFSIGNALED(status), "the reader saw a mixture");
}

Test(write, cancelling_in_the_middle_leaves_no_trace)
{
    auto_free char *bytes = mem_alloc(16 << 20);
    struct write_request req = {.file_path = "c", .content = {bytes, 16 << 20}};
    fake_put_str("c", "old");
    fake_init(&f, &tool_write);
    fake_start(&f, &req);
    cr_assert(fake_turn(&f, 0) && !f.is_done);
    fake_cancel(&f, false);
    expect_file("c", "old", 3);
    cr_assert_eq(fake_count_entries(""), 1);
    fake_free(&f);
}
