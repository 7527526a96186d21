// SPDX-License-Identifier: Apache-2.0
// LINK: agent/tool_glob.c agent/walk.c agent/glob_match.c agent/glob_part.c agent/fs_path.c agent/workspace.c
// LINK: tests/unit/fake_call.c
/* The glob tool: scenarios S-056 to S-058, gap G-34. The patterns themselves are in test_glob_match.c. */
#include "agent/fs_tools.h"
#include "common/mem.h"
#include "tests/unit/fake_call.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

TestSuite(tool_glob, .timeout = 60, .fini = fake_workspace_end);

static fake_t f;

static void touch(const char *relative, int seconds)
{
    struct timespec times[2] = {{.tv_sec = seconds}, {.tv_sec = seconds}};
    fake_put_str(relative, "x");
    cr_assert_eq(utimensat(AT_FDCWD, fake_path(relative), times, 0), 0);
}

static const struct glob_reply *glob_files(const char *pattern, const char *path, uint32_t limit)
{
    struct glob_request req = {.pattern = pattern, .path = path, .limit = limit};
    fake_run(&f, &tool_glob, &req);
    return f.reply;
}

/* The matches, below the workspace, joined by spaces. */
static void expect_matches(const struct glob_reply *r, const char *want)
{
    cr_assert_not_null(r, "%s", err_message(f.error));
    buf_t got;
    buf_init(&got, 0);
    proto_iter_t it = proto_iter(&r->matches);
    const char *s;
    size_t prefix = strlen(fake_workspace());
    while (proto_iter_str(&it, &s)) {
        cr_assert(strncmp(s, fake_workspace(), prefix) == 0, "%s is absolute", s);
        buf_printf(&got, "%s%s", got.len ? " " : "", s + prefix + 1);
    }
    cr_assert_str_eq(buf_cstr(&got), want);
    buf_free(&got);
}

Test(tool_glob, all_files_of_a_kind_newest_first_S056)
{
    touch("src/a.ts", 100);
    touch("src/x/y/b.ts", 300);
    touch("c.ts", 200);
    touch("src/d.tsx", 400);
    const struct glob_reply *r = glob_files("**/*.ts", fake_workspace(), 0);
    expect_matches(r, "src/x/y/b.ts c.ts src/a.ts");
    cr_assert_eq(r->count, 3);
    cr_assert(!r->truncated);
    fake_free(&f);
    expect_matches(glob_files("*.ts", NULL, 0), "src/x/y/b.ts c.ts src/a.ts");
    fake_free(&f);
}

Test(tool_glob, no_match_is_an_empty_list_S057)
{
    touch("a", 1);
    const struct glob_reply *r = glob_files("*.rs", NULL, 0);
    expect_matches(r, "");
    cr_assert(r->has.matches && r->has.count);
    fake_free(&f);
    expect_matches(glob_files("*", "no/such/dir", 0), "");
    fake_free(&f);
}

Test(tool_glob, a_path_limits_the_search_S058)
{
    touch("a/x.c", 1);
    touch("b/x.c", 2);
    touch("b/b/x.c", 3);
    expect_matches(glob_files("*.c", "b", 0), "b/b/x.c b/x.c");
    fake_free(&f);
    expect_matches(glob_files("b/*.c", "b", 0), "b/b/x.c");
    fake_free(&f);
    /* an absolute pattern starts where it says, and `path` still limits it */
    auto_free char *absolute = mem_printf("%s/**/x.c", fake_workspace());
    expect_matches(glob_files(absolute, NULL, 0), "b/b/x.c b/x.c a/x.c");
    fake_free(&f);
    expect_matches(glob_files(absolute, "a", 0), "a/x.c");
    fake_free(&f);
    expect_matches(glob_files("/x.c", NULL, 0), "");
    fake_free(&f);
}

Test(tool_glob, directories_are_no_matches_and_links_are_not_followed_G34)
{
    touch("d.c/inner.c", 1);
    touch(".hidden/.x.c", 2);
    touch(".git/config.c", 3);
    touch("sub/.git/objects/y.c", 3);
    cr_assert_eq(symlink("d.c", fake_path("link.c")), 0);
    cr_assert_eq(symlink("d.c/inner.c", fake_path("file-link.c")), 0);
    cr_assert_eq(symlink("..", fake_path("d.c/up")), 0);
    expect_matches(glob_files("*.c", NULL, 0), ".hidden/.x.c d.c/inner.c file-link.c");
    fake_free(&f);
    struct glob_request req = {.pattern = "*.c", .include_git = true};
    fake_run(&f, &tool_glob, &req);
    expect_matches(f.reply, ".git/config.c sub/.git/objects/y.c .hidden/.x.c d.c/inner.c file-link.c");
    fake_free(&f);
}

Test(tool_glob, only_the_newest_are_kept_and_the_rest_is_counted)
{
    char name[32];
    for (int i = 0; i < 500; i++) {
        snprintf(name, sizeof name, "n/%03d", i * 7 % 500);
        touch(name, 1000 + i * 7 % 500 / 2);
    }
    const struct glob_reply *r = glob_files("n/*", NULL, 5);
    expect_matches(r, "n/498 n/499 n/496 n/497 n/494");
    cr_assert(r->truncated);
    cr_assert_eq(r->total, 500);
    cr_assert_eq(r->count, 5);
    fake_free(&f);
    cr_assert_eq(glob_files("n/*", NULL, 0)->count, 500);
    fake_free(&f);
}

Test(tool_glob, a_large_tree_is_walked_in_slices)
{
    char name[64];
    for (int i = 0; i < 5000; i++) {
        snprintf(name, sizeof name, "t/%d/%d/f%d.txt", i % 10, i % 70, i);
        fake_put_str(name, "");
    }
    const struct glob_reply *r = glob_files("**/f*.txt", NULL, 100000);
    cr_assert_eq(r->count, 5000);
    cr_assert_gt(f.steps, 0);
    fake_free(&f);
    /* depth beyond the descriptors that are kept */
    auto_buf buf_t deep;
    buf_init(&deep, 0);
    for (int i = 0; i < 150; i++)
        buf_printf(&deep, "d%d/", i);
    buf_append_str(&deep, "bottom");
    fake_put_str(buf_cstr(&deep), "");
    fake_put_str("d0/d1/z", "");
    cr_assert_eq(glob_files("{z,bottom}", NULL, 0)->count, 2);
    fake_free(&f);
}

Test(tool_glob, bad_patterns_and_paths_are_refused)
{
    cr_assert_null(glob_files("{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}", NULL, 0));
    cr_assert_eq(fake_code(&f), ERR_BAD_REQUEST);
    fake_free(&f);
    touch("file", 1);
    cr_assert_null(glob_files("*", "file", 0));
    cr_assert_eq(fake_code(&f), ERR_BAD_REQUEST);
    fake_free(&f);
}
