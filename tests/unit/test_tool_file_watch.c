// SPDX-License-Identifier: Apache-2.0
// LINK: agent/tool_file_watch.c agent/fs_watches.c agent/fs_path.c agent/walk.c agent/workspace.c
// LINK: tests/unit/fake_call.c
/* The watch verb (contracts/e2b.md 3.3, WatchDir). */
#include "agent/fs_tools.h"
#include "agent/fs_watches.h"
#include "common/mem.h"
#include "tests/unit/fake_call.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

TestSuite(file_watch, .timeout = 60, .fini = fake_workspace_end);

static fake_t f;

static void watch_begin(const char *path, bool is_recursive)
{
    static struct file_watch_request req;
    req = (struct file_watch_request){.path = path, .recursive = is_recursive};
    fake_init(&f, &tool_file_watch);
    fake_start(&f, &req);
    while (!f.is_done && !f.has_head)
        fake_turn(&f, 1000);
    cr_assert_not(f.is_done, "%s", err_message(f.error));
}

/* All events so far as "type:path type:path …"; forgets them. */
static char *told(void)
{
    buf_t out;
    buf_init(&out, 0);
    while (fake_turn(&f, 50))
        ;
    for (size_t i = 0; i < f.event_count; i++) {
        struct file_event event;
        err_t *e = NULL;
        cr_assert_eq(proto_decode(MSG_file_event, &event, f.events[i].bytes, f.events[i].len, &e), 0);
        buf_printf(&out, "%s%s:%s", i ? " " : "", event.type, event.path);
        free(f.events[i].bytes);
    }
    f.event_count = 0;
    return buf_steal(&out);
}

static void expect_told(const char *want)
{
    auto_free char *got = told();
    cr_assert_str_eq(got, want);
}

Test(file_watch, tells_what_happens_in_a_directory)
{
    fake_put_str("w/sub/deep", "x");
    watch_begin("w", false);
    fake_put_str("w/a", "x");
    expect_told("create:a write:a");
    fake_put_str("w/a", "longer");
    expect_told("write:a");
    cr_assert_eq(chmod(fake_path("w/a"), 0600), 0);
    expect_told("chmod:a");
    cr_assert_eq(rename(fake_path("w/a"), fake_path("w/b")), 0);
    expect_told("rename:a create:b");
    cr_assert_eq(unlink(fake_path("w/b")), 0);
    expect_told("remove:b");
    fake_put_str("w/sub/deep", "y"); /* not recursive */
    expect_told("");
    fake_free(&f);
    cr_assert_eq(fake_code(&f), ERR_NONE);
}

Test(file_watch, follows_new_moved_and_removed_directories)
{
    fake_put_str("w/sub/x", "1");
    fake_put_str("outside/y", "1");
    watch_begin("w", true);
    fake_put_str("w/sub/x", "2");
    expect_told("write:sub/x");
    fake_put_str("w/n/m/file", ""); /* made faster than watches can be set */
    auto_free char *made = told();
    cr_assert_not_null(strstr(made, "create:n"));
    cr_assert_not_null(strstr(made, "create:n/m"));
    cr_assert_not_null(strstr(made, "create:n/m/file"));
    fake_put_str("w/n/m/file", "2");
    expect_told("write:n/m/file");
    cr_assert_eq(rename(fake_path("w/n"), fake_path("w/k")), 0);
    expect_told("rename:n create:k");
    fake_put_str("w/k/m/file", "3");
    expect_told("write:k/m/file");
    cr_assert_eq(rename(fake_path("w/k"), fake_path("outside/k")), 0);
    expect_told("rename:k");
    fake_put_str("outside/k/m/file", "4");
    expect_told("");
    cr_assert_eq(rename(fake_path("outside"), fake_path("w/in")), 0);
    expect_told("create:in");
    fake_put_str("w/in/y", "5");
    expect_told("write:in/y");
    cr_assert_eq(unlink(fake_path("w/in/y")), 0);
    expect_told("remove:in/y");
    fake_free(&f);
}

Test(file_watch, of_a_file_sees_it_replaced)
{
    fake_put_str("w/conf", "1");
    watch_begin("w/conf", false);
    fake_put_str("w/other", "x");
    expect_told("");
    fake_put_str("w/new", "2");
    cr_assert_eq(rename(fake_path("w/new"), fake_path("w/conf")), 0);
    expect_told("create:conf");
    fake_put_str("w/conf", "3");
    expect_told("write:conf");
    fake_free(&f);
}

Test(file_watch, ends_with_its_directory)
{
    cr_assert_eq(mkdir(fake_path("w"), 0755), 0);
    watch_begin("w", true);
    cr_assert_eq(rmdir(fake_path("w")), 0);
    auto_free char *got = told();
    cr_assert_not_null(strstr(got, "remove:."), "%s", got);
    cr_assert(f.is_done);
    cr_assert_not_null(f.reply);
    fake_free(&f);
    static struct file_watch_request req = {.path = "w"};
    fake_run(&f, &tool_file_watch, &req);
    cr_assert_eq(fake_code(&f), ERR_NOT_FOUND);
    fake_free(&f);
}

Test(file_watch, tells_when_it_lost_something)
{
    char name[32];
    cr_assert_eq(mkdir(fake_path("w"), 0755), 0);
    watch_begin("w", false);
    f.events_refused_after = 3;
    for (int i = 0; i < 10; i++) {
        snprintf(name, sizeof name, "w/%d", i);
        cr_assert_eq(mkdir(fake_path(name), 0755), 0);
    }
    auto_free char *got = told();
    cr_assert_str_eq(got, "create:0 create:1 create:2");
    f.events_refused_after = 0;
    cr_assert_eq(mkdir(fake_path("w/last"), 0755), 0);
    expect_told("overflow:. create:last");
    fake_free(&f);
}

Test(file_watch, of_too_many_directories_says_so_once)
{
    char name[32];
    for (int i = 0; i < FS_WATCHES_MAX + 20; i++) {
        snprintf(name, sizeof name, "w/%d", i);
        if (i == 0)
            cr_assert_eq(mkdir(fake_path("w"), 0755), 0);
        cr_assert_eq(mkdir(fake_path(name), 0755), 0);
    }
    watch_begin("w", true);
    expect_told("overflow:.");
    fake_put_str("w/top", "");
    auto_free char *got = told();
    cr_assert_not_null(strstr(got, "create:top"));
    fake_free(&f);
}
