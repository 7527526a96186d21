// SPDX-License-Identifier: Apache-2.0
// LINK: agent/tool_edit.c agent/fs_replace.c agent/fs_path.c agent/lines.c agent/workspace.c
// LINK: tests/unit/fake_call.c
/* The edit tool: scenarios S-052 to S-055, gap G-27. */
#include "agent/fs_tools.h"
#include "common/clock.h"
#include "common/mem.h"
#include "tests/unit/fake_call.h"

#include <criterion/criterion.h>
#include <sys/stat.h>
#include <unistd.h>

TestSuite(edit, .timeout = 60, .fini = fake_workspace_end);

static fake_t f;

static const struct edit_reply *edit(const char *path, const char *find, const char *replace, bool all)
{
    struct edit_request req = {.file_path = path,
                               .old_string = {find, strlen(find)},
                               .new_string = {replace, strlen(replace)},
                               .replace_all = all};
    fake_run(&f, &tool_edit, &req);
    return f.reply;
}

static void expect_text(const char *relative, const char *want)
{
    size_t len;
    auto_free char *text = fake_get(relative, &len);
    cr_assert_eq(len, strlen(want));
    cr_assert_str_eq(text, want);
}

Test(edit, a_unique_string_is_replaced_S052)
{
    fake_put_str("a.c", "int a;\nint b;\n");
    const struct edit_reply *r = edit("a.c", "int b;", "long b;\nlong c;\n", false);
    cr_assert_not_null(r, "%s", err_message(f.error));
    cr_assert(r->success && !r->in_place);
    cr_assert_eq(r->replacements, 1);
    cr_assert_eq(r->lines_changed, 3);
    expect_text("a.c", "int a;\nlong b;\nlong c;\n\n");
    cr_assert_eq(f.steps, 0);
    cr_assert_eq(fake_count_entries(""), 1);
    fake_free(&f);
}

Test(edit, results_are_those_of_the_contract)
{
    static const struct {
        const char *text, *find, *replace;
        bool all;
        const char *want; /* NULL: refused */
        const char *message;
        uint64_t replacements, lines;
    } rows[] = {
        /* S-053 */
        {"abc", "x", "y", false, NULL, "oldString not found in content", 0, 0},
        {"", "x", "y", true, NULL, "oldString not found in content", 0, 0},
        {"abc", "abcd", "y", false, NULL, "oldString not found in content", 0, 0},
        /* S-054 */
        {"aXbXc", "X", "y", false, NULL,
         "Found multiple matches for oldString. Provide more surrounding lines in oldString to identify the correct "
         "match.",
         0, 0},
        /* S-055 */
        {"aXbXc", "X", "yy", true, "ayybyyc", NULL, 2, 2},
        {"aaaa", "aa", "b", true, "bb", NULL, 2, 2},
        {"aaa", "aa", "b", true, "ba", NULL, 1, 1},
        {"x\ny\n", "x\ny", "", true, "\n", NULL, 1, 2},
        {"same", "same", "same", false, "same", NULL, 1, 1},
        {"a\r\nb\r\n", "a\r\n", "z\r\n", false, "z\r\nb\r\n", NULL, 1, 2},
        {"a\r\nb\r\n", "a\nb", "z", false, NULL, "oldString not found in content", 0, 0},
        {"\xff\x80\xfe", "\x80", "\x81\x82", false, "\xff\x81\x82\xfe", NULL, 1, 1},
        {"$(id) `id` $HOME", "`id`", "$(rm -rf /)", false, "$(id) $(rm -rf /) $HOME", NULL, 1, 1},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        fake_put_str("f", rows[i].text);
        const struct edit_reply *r = edit("f", rows[i].find, rows[i].replace, rows[i].all);
        expect_text("f", rows[i].want ? rows[i].want : rows[i].text);
        if (rows[i].want == NULL) {
            cr_assert_eq(fake_code(&f), ERR_BAD_REQUEST, "row %zu", i);
            cr_assert_str_eq(err_message(f.error), rows[i].message);
        } else {
            cr_assert_not_null(r, "row %zu: %s", i, err_message(f.error));
            cr_assert_eq(r->replacements, rows[i].replacements, "row %zu", i);
            cr_assert_eq(r->lines_changed, rows[i].lines, "row %zu: %d", i, (int)r->lines_changed);
        }
        fake_free(&f);
    }
}

Test(edit, a_missing_file_is_not_found)
{
    cr_assert_null(edit("nope", "a", "b", false));
    cr_assert_eq(fake_code(&f), ERR_NOT_FOUND);
    cr_assert(strncmp(err_message(f.error), "file not found: ", 16) == 0);
    fake_free(&f);
    cr_assert_null(edit("/tmp", "a", "b", false));
    cr_assert_eq(fake_code(&f), ERR_BAD_REQUEST);
    fake_free(&f);
}

Test(edit, bytes_with_NUL_are_bytes)
{
    struct edit_request req = {.file_path = "b", .old_string = {"\0\0", 2}, .new_string = {"\0", 1}};
    size_t len;
    fake_put("b", "a\0\0b", 4);
    fake_run(&f, &tool_edit, &req);
    auto_free char *text = fake_get("b", &len);
    cr_assert(len == 3 && memcmp(text, "a\0b", 3) == 0);
    fake_free(&f);
}

Test(edit, mode_and_link_stay)
{
    struct stat st;
    fake_put_str("target", "x=1\n");
    cr_assert_eq(chmod(fake_path("target"), 0711), 0);
    cr_assert_eq(symlink("target", fake_path("link")), 0);
    cr_assert_not_null(edit("link", "1", "2", false));
    expect_text("target", "x=2\n");
    cr_assert_eq(stat(fake_path("target"), &st), 0);
    cr_assert_eq(st.st_mode & 07777, 0711);
    cr_assert_eq(lstat(fake_path("link"), &st), 0);
    cr_assert(S_ISLNK(st.st_mode));
    fake_free(&f);
    cr_assert_eq(link(fake_path("target"), fake_path("second")), 0);
    cr_assert(edit("target", "2", "33", false)->in_place);
    expect_text("second", "x=33\n");
    fake_free(&f);
}

Test(edit, a_precondition_is_checked_and_the_real_hash_told)
{
    struct edit_request req = {.file_path = "p",
                               .old_string = {"abc", 3},
                               .new_string = {"abd", 3},
                               .expected_sha256 = "BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD"};
    fake_put_str("p", "abc");
    fake_run(&f, &tool_edit, &req);
    cr_assert_not_null(f.reply, "%s", err_message(f.error));
    char sha256[65];
    memcpy(sha256, ((const struct edit_reply *)f.reply)->sha256, 65);
    cr_assert_str_eq(sha256, "a52d159f262b2c6ddb724a61840befc36eb30c88877a4030b65cbe86298449c9");
    fake_free(&f);
    fake_run(&f, &tool_edit, &req);
    cr_assert_eq(fake_code(&f), ERR_PRECONDITION_FAILED);
    cr_assert_not_null(strstr(err_details(f.error), sha256));
    expect_text("p", "abd");
    fake_free(&f);
}

Test(edit, files_over_50_KB_keep_every_byte_G27)
{
    size_t len = 20 << 20;
    auto_free char *text = mem_alloc(len + 1);
    memset(text, 'q', len);
    memcpy(text + len - 6, "needle", 6);
    fake_put("big", text, len);
    cr_assert_not_null(edit("big", "qneedle", "qthread!", false), "%s", err_message(f.error));
    cr_assert_gt(f.steps, 1);
    size_t got;
    auto_free char *after = fake_get("big", &got);
    cr_assert_eq(got, len + 1);
    cr_assert(memcmp(after, text, len - 6) == 0);
    cr_assert_str_eq(after + len - 6, "thread!");
    fake_free(&f);
}

Test(edit, matches_on_the_edges_of_search_windows_are_found)
{
    size_t len = 4 << 20;
    auto_free char *text = mem_alloc(len + 1);
    memset(text, 'q', len);
    for (size_t at = (1 << 20) - 3; at + 6 <= len; at += 1 << 20)
        memcpy(text + at, "needle", 6);
    fake_put("edges", text, len);
    cr_assert_eq(edit("edges", "needle", "thread", true)->replacements, 3);
    fake_free(&f);
}

Test(edit, files_over_64_MiB_are_refused)
{
    fake_put_str("huge", "x");
    cr_assert_eq(truncate(fake_path("huge"), ((off_t)64 << 20) + 1), 0);
    cr_assert_null(edit("huge", "x", "y", false));
    cr_assert_eq(fake_code(&f), ERR_PAYLOAD_TOO_LARGE);
    cr_assert_not_null(strstr(err_message(f.error), "64 MiB"));
    fake_free(&f);
    /* … and so is one that would grow over it */
    auto_free char *text = mem_alloc((1 << 20) + 1);
    memset(text, 'x', 1 << 20);
    fake_put_str("grows", text);
    auto_free char *hundred = mem_alloc(101);
    memset(hundred, 'y', 100);
    cr_assert_null(edit("grows", "x", hundred, true));
    cr_assert_eq(fake_code(&f), ERR_PAYLOAD_TOO_LARGE);
    fake_free(&f);
}

Test(edit, many_matches_take_linear_time)
{
    size_t len = 1 << 20; /* not more: ASan checks the whole range at every memmem */
    auto_free char *text = mem_alloc(len + 1);
    memset(text, 'a', len);
    fake_put("many", text, len);
    uint64_t before = clock_monotonic_ms();
    cr_assert_eq(edit("many", "aa", "b", true)->replacements, len / 2);
    cr_assert_lt(clock_monotonic_ms() - before, 10000);
    fake_free(&f);
}

Test(edit, a_change_during_a_long_edit_is_a_conflict)
{
    size_t len = 20 << 20;
    auto_free char *text = mem_alloc(len + 1);
    memset(text, 'q', len);
    text[0] = 'N';
    struct edit_request req = {.file_path = "race", .old_string = {"N", 1}, .new_string = {"M", 1}};
    fake_put("race", text, len);
    fake_init(&f, &tool_edit);
    fake_start(&f, &req);
    cr_assert(!f.is_done);
    fake_put_str("race", "somebody else's");
    fake_finish(&f);
    cr_assert_eq(fake_code(&f), ERR_CONFLICT, "%s", err_message(f.error));
    expect_text("race", "somebody else's");
    fake_free(&f);
}
