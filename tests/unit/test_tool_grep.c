// SPDX-License-Identifier: Apache-2.0
// LINK: agent/tool_grep.c agent/tool_grep_search.c agent/tool_grep_pattern.c agent/walk.c agent/glob_match.c
// LINK: agent/glob_part.c agent/fs_path.c agent/lines.c agent/workspace.c tests/unit/fake_call.c
/* The grep tool: scenarios S-059 to S-061, gap G-35. */
#include "agent/fs_tools.h"
#include "agent/tool_grep_pattern.h"
#include "agent/tool_grep_search.h"
#include "common/clock.h"
#include "common/mem.h"
#include "tests/unit/fake_call.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

TestSuite(grep, .timeout = 120, .fini = fake_workspace_end);

static fake_t f;

static const struct grep_reply *grep(struct grep_request req)
{
    fake_run(&f, &tool_grep, &req);
    return f.reply;
}

/* The matches as path:line:text, one a line, paths below the workspace. */
static char *text_of(const struct grep_reply *r)
{
    buf_t out;
    buf_init(&out, 0);
    cr_assert_not_null(r, "%s", err_message(f.error));
    proto_iter_t it = proto_iter(&r->matches);
    proto_nested_t nested;
    uint64_t count = 0;
    while (proto_iter_msg(&it, &nested)) {
        struct grep_match m;
        err_t *e = NULL;
        cr_assert_eq(proto_decode(MSG_grep_match, &m, nested.bytes, nested.len, &e), 0);
        cr_assert(strncmp(m.file_path, fake_workspace(), strlen(fake_workspace())) == 0);
        buf_printf(&out, "%s:%d:%s\n", m.file_path + strlen(fake_workspace()) + 1, (int)m.line_number, m.line);
        count++;
    }
    cr_assert_eq(count, r->count);
    return buf_steal(&out);
}

static void expect(const struct grep_reply *r, const char *want)
{
    auto_free char *got = text_of(r);
    cr_assert_str_eq(got, want);
    fake_free(&f);
}

Test(grep, finds_file_line_number_and_line_S059)
{
    fake_put_str("b/x.c", "int main\n  return 0;\nint z");
    fake_put_str("a.c", "no\n\nint q;\n");
    expect(grep((struct grep_request){.pattern = "int", .path = fake_workspace()}),
           "a.c:3:int q;\nb/x.c:1:int main\nb/x.c:3:int z\n");
    expect(grep((struct grep_request){.pattern = "int", .path = "b"}), "b/x.c:1:int main\nb/x.c:3:int z\n");
}

Test(grep, include_limits_the_files_S060)
{
    fake_put_str("x.ts", "hit\n");
    fake_put_str("sub/y.ts", "hit\n");
    fake_put_str("sub/y.js", "hit\n");
    fake_put_str("z.h", "hit\n");
    expect(grep((struct grep_request){.pattern = "hit", .include = "*.ts"}), "sub/y.ts:1:hit\nx.ts:1:hit\n");
    expect(grep((struct grep_request){.pattern = "hit", .include = "*.{js,h}"}), "sub/y.js:1:hit\nz.h:1:hit\n");
    expect(grep((struct grep_request){.pattern = "hit", .include = "sub/*.ts"}), "sub/y.ts:1:hit\n");
    expect(grep((struct grep_request){.pattern = "hit", .include = "*.py"}), "");
}

Test(grep, the_pattern_is_a_regular_expression_S061)
{
    static const struct {
        const char *pattern, *text, *want; /* numbers of the lines */
    } rows[] = {
        {"^a+b$", "aab\nab c\nxab\nab", "1 4 "},
        {"foo|bar", "a foo\nbaz\nbar\n", "1 3 "},
        {"\\bword\\b", "word\nwords\na word!\n", "1 3 "},
        {"f\\(x\\)", "f(x)\nfx\n", "1 "},
        {"a.c", "abc\nac\na\nc\n", "1 "},
        {"^$", "a\n\nb\n\n", "2 4 "},
        {"^", "a\n\nb", "1 2 3 "},
        {"x*", "a\nx\n", "1 2 "},
        {"[^a]$", "a\nb\n\nxb\n", "2 4 "},
        {"a[^b]c", "axc\nabc\na\nc\n", "1 "},
        {"\\s+$", "a \nb\nc\t\n", "1 3 "},
        {"a\\s+b", "a  b\na\nb\n", "1 "},
        {"a\\Wb", "a-b\na\nb\n", "1 "},
        {"[\\s\\S]b", "a\nb\nxb\n", "3 "},
        {"(?i)TODO", "todo\nToDo\nx\n", "1 2 "},
        {"(?<=a)b", "ab\ncb\n", "1 "},
        {"(?!a)b$", "b\nab\nc\n", "1 2 "},
        {"a++b", "aab\naac\na\nb\n", "1 "},
        {"[^x]*+z", "aaz\nz\nxz\n", ""},
        {"\\Aab", "xab\nab\n", "2 "},
        {"ab\\z", "ab\nabx\nab\n", "1 3 "},
        {"(a)\\1", "aa\nab\n", "1 "},
        {"\\x41", "A\nB\n", "1 "},
        {"\\d{3}-\\d+", "123-4\n12-4\n", "1 "},
        {"colou?r", "color\ncolour\ncolor\n", "1 2 3 "},
        {"a{2}b", "aab\nab\n", "1 "},
        {"a{,b", "a{,b\nab\n", "1 "},
        {"{x}", "{x}\nx\n", "1 "},
        {"\xc3\xa4", "\xc3\xa4\na\n", "1 "},
        {"^.$", "\xc3\xa4\nab\n\xe2\x82\xac\n", "1 3 "},
        {"\xc3\xa4?b$",
         "b\n\xc3\xa4"
         "b\nc\n",
         "1 2 "},
        {"z$", "\xff\xfez\nz\n", "1 2 "},
        {"$(id)", "$(id)\nid\n", ""},
        {"a\\nb", "a\nb\n", ""},
        {"foo\nbar", "foo\nbar\n", ""},
        {"[[:digit:]]+x", "12x\nx\n", "1 "},
        {"[]a]b", "]b\nab\nb\n", "1 2 "},
        {"[^]a]b", "]b\nab\nxb\n", "3 "},
        {"-v", "-v\nv\n", "1 "},
        {"\\Qa.b\\E", "a.b\naxb\n", "1 "},
        {"(?x) a b # c", "ab\na b\n", "1 "},
        {"\r$", "a\r\nb\n", "1 "},
        {"(ab|cd)+ef", "abcdef\nef\n", "1 "},
        {"get_(user|name)\\(", "get_user(\nget_x(\nget_name(\n", "1 3 "},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        fake_put_str("t", rows[i].text);
        const struct grep_reply *r = grep((struct grep_request){.pattern = rows[i].pattern, .path = "t"});
        cr_assert_not_null(r, "row %zu: %s", i, err_message(f.error));
        auto_free char *text = text_of(r);
        buf_t got;
        buf_init(&got, 0);
        for (const char *at = text; *at != '\0'; at += strcspn(at, "\n") + 1)
            if (strncmp(at, "t:", 2) == 0)
                buf_printf(&got, "%.*s ", (int)strcspn(at + 2, ":"), at + 2);
        cr_expect_str_eq(buf_cstr(&got), rows[i].want, "'%s' gives '%s', not '%s'", rows[i].pattern, buf_cstr(&got),
                         rows[i].want);
        buf_free(&got);
        fake_free(&f);
    }
}

Test(grep, a_single_file_works_and_no_match_is_an_empty_list_G35)
{
    fake_put_str("a:b.txt", "x:1:hit\n");
    expect(grep((struct grep_request){.pattern = "hit", .path = "a:b.txt"}), "a:b.txt:1:x:1:hit\n");
    const struct grep_reply *r = grep((struct grep_request){.pattern = "nothing"});
    cr_assert_eq(r->count, 0);
    cr_assert(r->has.matches, "[] and not null");
    cr_assert_eq(r->files_searched, 1);
    fake_free(&f);
    cr_assert_null(grep((struct grep_request){.pattern = "x", .path = "nope"}));
    cr_assert_eq(fake_code(&f), ERR_NOT_FOUND);
    fake_free(&f);
}

Test(grep, an_invalid_pattern_is_refused_with_its_position_G35)
{
    fake_put_str("a", "x\n");
    cr_assert_null(grep((struct grep_request){.pattern = "ab(c"}));
    cr_assert_eq(fake_code(&f), ERR_BAD_REQUEST);
    cr_assert_not_null(strstr(err_message(f.error), "at offset 4"), "%s", err_message(f.error));
    cr_assert_str_eq(err_details(f.error), "{\"offset\":4}");
    fake_free(&f);
    static const char *const bad[] = {"[a", "*a", "a**", "(?<n", "\\", "a{2,1}", "(?", "[[:nope:]]", "\\C"};
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        cr_expect_null(grep((struct grep_request){.pattern = bad[i]}), "%s", bad[i]);
        fake_free(&f);
    }
}

Test(grep, git_and_binary_files_and_links_are_left_out)
{
    fake_put_str(".git/x", "hit\n");
    fake_put_str(".hidden", "hit\n");
    fake_put("bin", "hit\n\0hit\n", 9);
    fake_put_str("text", "hit\n");
    cr_assert_eq(symlink("text", fake_path("link")), 0);
    cr_assert_eq(symlink(".", fake_path("dirlink")), 0);
    cr_assert_eq(mkfifo(fake_path("fifo"), 0600), 0);
    auto_free char *late = mem_alloc((1 << 20) + 1); /* the NUL comes in a later block, after matches */
    memset(late, '\n', 1 << 20);
    memcpy(late, "hit", 3);
    fake_put("late", late, (1 << 20) + 1);
    const struct grep_reply *r = grep((struct grep_request){.pattern = "hit"});
    cr_assert_eq(r->binary_files_skipped, 2);
    cr_assert_eq(r->files_searched, 2);
    expect(r, ".hidden:1:hit\ntext:1:hit\n");
    expect(grep((struct grep_request){.pattern = "hit", .include_git = true}),
           ".git/x:1:hit\n.hidden:1:hit\ntext:1:hit\n");
}

Test(grep, limits_are_kept_and_told)
{
    auto_buf buf_t text;
    buf_init(&text, 0);
    for (int i = 0; i < 3000; i++)
        buf_printf(&text, "match %d\n", i);
    fake_put("many", text.data, text.len);
    const struct grep_reply *r = grep((struct grep_request){.pattern = "match"});
    cr_assert_eq(r->count, 1000);
    cr_assert(r->truncated);
    fake_free(&f);
    r = grep((struct grep_request){.pattern = "match", .limit = 3000});
    cr_assert_eq(r->count, 3000);
    cr_assert(!r->truncated);
    fake_free(&f);
    expect(grep((struct grep_request){.pattern = "9$", .limit = 2}), "many:10:match 9\nmany:20:match 19\n");
}

Test(grep, long_lines_are_cut_on_a_character_and_found_at_their_end)
{
    size_t len = 3 << 20;
    auto_free char *text = mem_alloc(len + 1);
    for (size_t i = 0; i < len - 10; i += 2)
        memcpy(text + i, "\xc3\xa4", 2);
    memcpy(text + len - 10, "xxxneedle\n", 10);
    text[0] = text[1] = 'a';
    text[1999 - 1] = 'b';
    memcpy(text + 1999, "\xc3\xa4", 2);
    fake_put("long", text, len);
    const struct grep_reply *r = grep((struct grep_request){.pattern = "needle$"});
    cr_assert_eq(r->count, 1);
    auto_free char *got = text_of(r);
    cr_assert_eq(strlen(got), strlen("long:1:\n") + 1999);
    fake_free(&f);
}

Test(grep, line_numbers_are_right_across_blocks)
{
    auto_buf buf_t text, want;
    buf_init(&text, 0);
    buf_init(&want, 0);
    for (int i = 1; i <= 200000; i++) {
        bool is_hit = i % 20011 == 0;
        buf_printf(&text, "%s %d\n", is_hit ? "hit" : "line", i);
        if (is_hit)
            buf_printf(&want, "f:%d:hit %d\n", i, i);
    }
    fake_put("f", text.data, text.len);
    static const char *const patterns[] = {"hit", "^hi[t]", "hi\\w \\d", "^(?=h)hit", "(?i)HIT"};
    for (size_t i = 0; i < COUNT_OF(patterns); i++)
        expect(grep((struct grep_request){.pattern = patterns[i]}), buf_cstr(&want));
}

Test(grep, a_pattern_that_never_ends_is_ended)
{
    char text[] = "fine\naaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!\n";
    fake_put_str("evil", text);
    static const char *const patterns[] = {"(a+)+$", "^(a|aa)+$", "(a*)*b", "^(?=(a+)+b)x|(a+)+c"};
    for (size_t i = 0; i < COUNT_OF(patterns); i++) {
        uint64_t before = clock_monotonic_ms();
        const struct grep_reply *r = grep((struct grep_request){.pattern = patterns[i]});
        if (r == NULL) {
            cr_assert_eq(fake_code(&f), ERR_BAD_REQUEST);
            cr_assert_not_null(strstr(err_message(f.error), "/evil line 2"), "%s", err_message(f.error));
        }
        cr_assert_lt(clock_monotonic_ms() - before, 5000, "%s", patterns[i]);
        fake_free(&f);
    }
}

Test(grep, ignore_case)
{
    fake_put_str("a", "Hello\nHELLO\n\xc3\x84gypten\n");
    expect(grep((struct grep_request){.pattern = "hello", .ignore_case = true}), "a:1:Hello\na:2:HELLO\n");
    expect(grep((struct grep_request){.pattern = "\xc3\xa4g", .ignore_case = true}), "a:3:\xc3\x84gypten\n");
}

Test(grep, what_a_pattern_needs_is_read_from_it)
{
    static const struct {
        const char *pattern, *literal;
        bool is_all, is_safe;
    } rows[] = {
        {"foo", "foo", true, true},
        {"foo.*barbaz", "barbaz", false, true},
        {"a|b", "", false, true},
        {"(foo|bar)x", "x", false, true},
        {"fooo*", "foo", false, true},
        {"fo+x", "fo", false, true},
        {"ab?c", "a", false, true},
        {"a\\.b", "a.b", true, true},
        {"x\\dyy", "yy", false, true},
        {"a{3}bc", "bc", false, true},
        {"\xc3\xa4*b", "b", false, true},
        {"(?i)foo", "", false, false},
        {"a++foo", "foo", false, false},
        {"\\Qx\\E", "", false, false},
        {"[abc]d", "d", false, true},
        {"[\\s]d", "d", false, false},
        {"a(?=b)", "", false, false},
        {"(a)\\1", "", false, false},
        {"", "", false, true},
        {"foo(bar)?", "foo", false, true},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        grep_plan_t plan;
        grep_plan_make(&plan, rows[i].pattern, false);
        cr_expect_str_eq(buf_cstr(&plan.literal), rows[i].literal, "%s: %s", rows[i].pattern, buf_cstr(&plan.literal));
        cr_expect_eq(plan.is_all_literal, rows[i].is_all, "%s", rows[i].pattern);
        cr_expect_eq(plan.is_buffer_safe, rows[i].is_safe, "%s", rows[i].pattern);
        grep_plan_free(&plan);
    }
}

/* Lines of a random text that match, by PCRE2 on each line: what all ways must give. */
static void check_against_plain_pcre2(const char *pattern, const char *text, size_t len)
{
    int code;
    size_t offset;
    pcre2_code *re =
        pcre2_compile((PCRE2_SPTR)pattern, strlen(pattern), PCRE2_MATCH_INVALID_UTF | PCRE2_UTF, &code, &offset, NULL);
    if (re == NULL)
        return;
    pcre2_match_data *data = pcre2_match_data_create(1, NULL);
    err_t *e = NULL;
    grep_search_t *g = grep_search_new(pattern, false, &e);
    cr_assert_not_null(g, "%s: %s", pattern, err_message(e));
    size_t from = 0, end = 0, at = 0;
    while (at < len) {
        const char *newline = memchr(text + at, '\n', len - at);
        size_t line = newline ? (size_t)(newline - text) - at : len - at;
        bool want = pcre2_match(re, (PCRE2_SPTR)text + at, line, 0, 0, data, NULL) >= 0;
        if (from <= at) {
            enum grep_result r;
            while ((r = grep_search_next(g, text, len, &from, &end, clock_monotonic_us())) == GREP_AGAIN)
                ;
            if (r == GREP_NONE)
                from = len + 1;
        }
        cr_assert_eq(want, from == at, "'%s' on line '%.*s' of '%.*s'", pattern, (int)line, text + at, (int)len, text);
        if (from == at)
            from = end + 1;
        at += line + 1;
    }
    grep_search_destroy(&g);
    pcre2_match_data_free(data);
    pcre2_code_free(re);
}

Test(grep, every_way_finds_what_plain_PCRE2_finds)
{
    static const char *const atoms[] = {"a",   "b",   "ab", ".",   "[ab]",   "[^a]",  "[^]a]", "\\s",         "\\W",
                                        "\\D", "^",   "$",  "\\b", "(a|b)",  "(?:b)", "|",     "*",           "+",
                                        "?",   "*?",  "++", "{2}", "[\\sb]", "\\n",   "\\.",   "(?=b)",       "(?<!a)",
                                        "\\A", "\\z", "c",  "\\w", "()",     "(b?)",  "\\H",   "[[:space:]]", "{0,1}"};
    uint32_t seed = 12345;
    for (int round = 0; round < 6000; round++) {
        char pattern[128] = "", text[64];
        size_t used = 0;
        for (unsigned n = 1 + (seed >> 20) % 6; n > 0; n--) {
            seed = seed * 1664525 + 1013904223;
            used += (size_t)snprintf(pattern + used, sizeof pattern - used, "%s", atoms[(seed >> 8) % COUNT_OF(atoms)]);
        }
        for (size_t i = 0; i < sizeof text; i++) {
            seed = seed * 1664525 + 1013904223;
            text[i] = "aabbc \n\n.-"[(seed >> 8) % 10];
        }
        check_against_plain_pcre2(pattern, text, 1 + (seed >> 10) % sizeof text);
    }
}
