// SPDX-License-Identifier: Apache-2.0
// LINK: agent/glob_match.c agent/glob_part.c
/* Glob patterns: a table, and the same language in bash (globstar, dotglob) where the two agree. */
#include "agent/glob_match.h"
#include "common/buf.h"
#include "common/clock.h"
#include "common/mem.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

TestSuite(glob_match, .timeout = 60);

static bool matches(const char *pattern, const char *path)
{
    err_t *e = NULL;
    glob_pattern_t *g = glob_new(pattern, &e);
    cr_assert_not_null(g, "%s: %s", pattern, err_message(e));
    bool result = glob_match(g, path);
    /* Whatever matches must not have been cut off on the way there. */
    for (const char *slash = strchr(path, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        auto_free char *dir = mem_strndup(path, (size_t)(slash - path));
        cr_assert(!result || glob_may_enter(g, dir), "%s matches %s, but %s would not be entered", pattern, path, dir);
    }
    glob_destroy(&g);
    return result;
}

Test(glob_match, the_shortest_use)
{
    err_t *e = NULL;
    glob_pattern_t *g = glob_new("src/**/*.{c,h}", &e);
    cr_assert(glob_match(g, "src/a/b/x.c"));
    cr_assert(!glob_match(g, "test/x.c"));
    cr_assert(!glob_may_enter(g, "test"));
    glob_destroy(&g);
}

Test(glob_match, table)
{
    static const struct {
        const char *pattern;
        const char *yes[6];
        const char *no[6];
    } rows[] = {
        {"*.ts", {"a.ts", "x/y/a.ts", ".ts", ".a.ts"}, {"a.tsx", "a.ts/b", "ts"}},
        {"**/*.ts", {"a.ts", "x/a.ts", "x/y/z/a.ts", "x/.h/a.ts"}, {"a.js", "a.ts/x"}},
        {"src/*.c", {"src/a.c"}, {"src/x/a.c", "a.c", "x/src/a.c"}},
        {"src/**", {"src/a", "src/a/b/c"}, {"src", "srcs/a", "x/src/a"}},
        {"**", {"a", "a/b", ".x/y"}, {""}},
        {"**/test/**/*.c",
         {"test/a.c", "x/test/a.c", "test/y/a.c", "x/y/test/z/w/a.c"},
         {"a.c", "test.c", "tests/a.c"}},
        {"a/**/b", {"a/b", "a/x/b", "a/x/y/b"}, {"a/x", "ab", "b", "a/b/c"}},
        {"a/**/**/b", {"a/b", "a/x/y/b"}, {"a"}},
        {"a**b", {"ab", "axxb", "x/axb"}, {"a/b"}},
        {"?", {"a", "\xc3\xa4", "x/b", "\xff"}, {"ab", ""}},
        {"a?c",
         {"abc", "a\xe2\x82\xac"
                 "c"},
         {"ac", "abbc"}},
        {"[abc]x", {"ax", "cx"}, {"dx", "x", "aax"}},
        {"[a-c]x", {"bx"}, {"dx", "-x"}},
        {"[!a-c]x", {"dx", "-x"}, {"ax", "x"}},
        {"[^a-c]x", {"dx"}, {"bx"}},
        {"[]x]y", {"]y", "xy"}, {"ay"}},
        {"[!]x]y", {"ay"}, {"]y", "xy"}},
        {"[a-]y", {"-y", "ay"}, {"by"}},
        {"[[:digit:]_]y", {"5y", "_y"}, {"ay", ":y"}},
        {"[![:alpha:]]y", {"5y"}, {"ay"}},
        {"[\xc3\xa0-\xc3\xbf]", {"\xc3\xa4"}, {"a", "\xc3"}},
        {"[abc", {"[abc"}, {"a"}},
        {"a[", {"a["}, {"a"}},
        {"x/[a/b]", {"x/[a/b]"}, {"x/a"}},
        {"\\*", {"*"}, {"a"}},
        {"a\\?b", {"a?b"}, {"axb"}},
        {"[\\]]", {"]"}, {"\\"}},
        {"\\{a,b\\}", {"{a,b}"}, {"a", "b"}},
        {"a\\", {"a\\"}, {"a"}},
        {"{a,b}", {"a", "b", "x/a"}, {"c", "{a,b}", "ab"}},
        {"{a,b}{c,d}", {"ac", "bd"}, {"a", "cd"}},
        {"*.{c,h,{cc,hh}}", {"x.c", "x.hh"}, {"x.", "x.cch"}},
        {"{a/b,c}/*", {"a/b/x", "c/y"}, {"a/x", "x/c/y"}},
        {"{*.md,src/*.c}", {"x/a.md", "src/a.c"}, {"x/src/a.c", "a.c"}},
        {"x{,y}z", {"xz", "xyz"}, {"xyyz"}},
        {"{}", {"{}"}, {""}},
        {"{a}", {"{a}"}, {"a"}},
        {"{a,b", {"{a,b"}, {"a"}},
        {"a}", {"a}"}, {"a"}},
        {"{[,],x}", {",", "x"}, {"[", "]"}},
        {"./src/*.c", {"src/a.c"}, {"x/src/a.c"}},
        {"*", {"a", ".hidden", "x/y"}, {""}},
        {"*a*b*c*", {"abc", "xaxbxcx"}, {"acb"}},
        {"*aab", {"aaab", "aabaab"}, {"aaba"}},
        {"dir/", {NULL}, {"dir", "x/dir", "dir/a"}},
        {"a//b", {"a/b"}, {"a"}},
        {"-rf", {"-rf"}, {"rf"}},
        {"$(id)`x`", {"$(id)`x`"}, {"x"}},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++)
        for (size_t k = 0; k < 6; k++) {
            if (rows[i].yes[k] != NULL)
                cr_expect(matches(rows[i].pattern, rows[i].yes[k]), "'%s' should match '%s'", rows[i].pattern,
                          rows[i].yes[k]);
            if (rows[i].no[k] != NULL)
                cr_expect(!matches(rows[i].pattern, rows[i].no[k]), "'%s' should not match '%s'", rows[i].pattern,
                          rows[i].no[k]);
        }
}

Test(glob_match, directories_that_cannot_hold_a_match_are_not_entered)
{
    static const struct {
        const char *pattern, *dir;
        bool may;
    } rows[] = {{"src/*.c", "src", true},  {"src/*.c", "src/x", false}, {"src/*.c", "test", false},
                {"**/x", "a/b/c", true},   {"*.c", "any/where", true},  {"a/**/x", "b", false},
                {"a/**/x", "a/b/c", true}, {"{a,b}/x", "b", true},      {"{a,b}/x", "c", false},
                {"a/b/c", "a/b", true},    {"a/b/c", "a/c", false},     {"a/b/c", "a/b/c", false}};
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        err_t *e = NULL;
        glob_pattern_t *g = glob_new(rows[i].pattern, &e);
        cr_expect_eq(glob_may_enter(g, rows[i].dir), rows[i].may, "%s %s", rows[i].pattern, rows[i].dir);
        glob_destroy(&g);
    }
}

Test(glob_match, a_search_starts_at_the_literal_prefix)
{
    static const struct {
        const char *pattern;
        size_t len;
    } rows[] = {{"/etc/*.conf", 5}, {"/etc/ssh/a", 9}, {"/*", 1},     {"a/b{c,d}/e", 2},
                {"*.c", 0},         {"a", 0},          {"/a\\*/b", 1}};
    for (size_t i = 0; i < COUNT_OF(rows); i++)
        cr_expect_eq(glob_literal_prefix(rows[i].pattern), rows[i].len, "%s", rows[i].pattern);
}

Test(glob_match, patterns_made_to_explode_are_refused_or_quick)
{
    static const char hostile[] = "*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*b";
    char path[256];
    uint64_t before = clock_monotonic_ms();
    memset(path, 'a', sizeof path - 1);
    path[255] = '\0';
    cr_assert(!matches(hostile, path));
    cr_assert(!matches("**/a/**/a/**/a/**/a/**/a/**/b", "a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a"));
    err_t *e = NULL;
    cr_assert_null(glob_new("{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}", &e));
    cr_assert_eq(err_code(e), ERR_BAD_REQUEST);
    err_free(&e);
    auto_buf buf_t deep;
    buf_init(&deep, 0);
    for (int i = 0; i < 1300; i++)
        buf_append_str(&deep, "{a,");
    for (int i = 0; i < 100; i++)
        buf_append_str(&deep, "}");
    glob_pattern_t *g = glob_new(buf_cstr(&deep), &e); /* either is fine */
    glob_destroy(&g);
    err_free(&e);
    buf_reset(&deep);
    for (int i = 0; i < 100; i++)
        buf_append_str(&deep, "a/");
    buf_append_str(&deep, "b");
    cr_assert_null(glob_new(buf_cstr(&deep), &e));
    err_free(&e);
    cr_assert_lt(clock_monotonic_ms() - before, 3000);
}

/* ---- the same in bash ---- */

static const char *const tree[] = {"a.c",        "b.h",          "README.md",   ".hidden",      "src/a.c",
                                   "src/b.cc",   "src/x/a.c",    "src/x/y/z.h", "src/x/.dot",   "test/a_test.c",
                                   "test/[x]",   "test/{y}",     "doc/1.md",    "doc/10.md",    "doc/-x",
                                   "doc/a b.md", "src/x/y/a.ts", "lib/a/b/c",   "lib/a/b/c.d/e"};

/* Lines that bash's own expansion of the pattern gives, files only, each followed by a newline. */
static char *bash_expands(const char *dir, const char *pattern)
{
    int fds[2];
    cr_assert_eq(pipe(fds), 0);
    pid_t child = fork();
    if (child == 0) {
        dup2(fds[1], STDOUT_FILENO);
        close(fds[0]);
        close(fds[1]);
        auto_free char *script =
            mem_printf("cd \"$1\" && shopt -s globstar dotglob nullglob extglob && for f in %s; do "
                       "[ -f \"$f\" ] && echo \"$f\"; done; true",
                       pattern);
        execlp("bash", "bash", "-c", script, "bash", dir, (char *)NULL);
        _exit(127);
    }
    close(fds[1]);
    buf_t out;
    buf_init(&out, 0);
    for (;;) {
        uint8_t *room = buf_reserve(&out, 4096);
        ssize_t n = read(fds[0], room, 4096);
        if (n <= 0)
            break;
        buf_commit(&out, (size_t)n);
    }
    close(fds[0]);
    int status;
    waitpid(child, &status, 0);
    cr_assert_eq(WEXITSTATUS(status), 0);
    return buf_steal(&out);
}

static bool has_line(const char *text, const char *line)
{
    size_t len = strlen(line);
    for (const char *at = text; *at != '\0'; at += strcspn(at, "\n") + 1)
        if (strncmp(at, line, len) == 0 && at[len] == '\n')
            return true;
    return false;
}

Test(glob_match, agrees_with_bash)
{
    /* All have a slash, because without one ours looks at any depth and bash does not. */
    static const char *const patterns[] = {"**/*.c",
                                           "src/*",
                                           "src/**/*",
                                           "src/**/a.*",
                                           "**/[a-c].*",
                                           "**/*.{c,h}",
                                           "{src,test}/*",
                                           "**/x/**/*",
                                           "*/*.md",
                                           "doc/[0-9].md",
                                           "doc/[0-9][0-9].md",
                                           "doc/?*.md",
                                           "src/**/.*",
                                           "**/*[[:digit:]]*",
                                           "./*.c",
                                           "lib/**/c",
                                           "lib/*/*/*",
                                           "lib/**/c.d/*",
                                           "**/{a,b,z}.?",
                                           "test/\\[x\\]",
                                           "**/[!a]*",
                                           "src/x/**/**",
                                           "{src/x,lib}/**/*",
                                           "**/a*/**/*",
                                           "*/a*",
                                           "doc/-*",
                                           "src/{x/*,b.cc}",
                                           "**/y/*.[th]*"};
    char dir[] = "/tmp/ew-glob-XXXXXX";
    cr_assert_not_null(mkdtemp(dir));
    for (size_t i = 0; i < COUNT_OF(tree); i++) {
        auto_free char *make = mem_printf("%s/%s", dir, tree[i]);
        pid_t child = fork();
        if (child == 0) {
            execlp("install", "install", "-D", "/dev/null", make, (char *)NULL);
            _exit(127);
        }
        waitpid(child, NULL, 0);
    }
    for (size_t p = 0; p < COUNT_OF(patterns); p++) {
        auto_free char *lines = bash_expands(dir, patterns[p]);
        for (size_t i = 0; i < COUNT_OF(tree); i++) {
            auto_free char *dotted = mem_printf("./%s", tree[i]);
            bool bash = has_line(lines, tree[i]) || has_line(lines, dotted);
            cr_expect_eq(matches(patterns[p], tree[i]), bash, "'%s' and '%s': bash says %d", patterns[p], tree[i],
                         bash);
        }
    }
    pid_t child = fork();
    if (child == 0) {
        execlp("rm", "rm", "-rf", dir, (char *)NULL);
        _exit(127);
    }
    waitpid(child, NULL, 0);
}
