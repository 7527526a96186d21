// SPDX-License-Identifier: Apache-2.0
// LINK: agent/tool_git.c agent/git_guard.c agent/git_status.c agent/exec.c agent/proc.c agent/proc_io.c
// LINK: agent/proc_scan.c agent/output.c agent/spawn.c agent/tree.c agent/loop.c agent/environ.c
// LINK: agent/users.c agent/signal_names.c agent/workspace.c tests/unit/fake_call.c
/* The git tool on real repositories: scenarios S-062, S-063, S-064, S-066, gaps G-20 and G-29; and hostile ones. */
#include "agent/fs_tools.h"
#include "agent/git_guard.h"
#include "agent/git_status.h"
#include "agent/loop.h"
#include "agent/proc.h"
#include "common/mem.h"
#include "tests/unit/fake_call.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static fake_t f;

static void stop_loop(void *arg)
{
    (void)arg;
    loop_stop();
}

static void pump(void)
{
    loop_after(2, stop_loop, NULL);
    loop_run();
    procs_reap();
}

static void begin(void)
{
    fake_pump = pump;
    (void)fake_workspace();                      /* before any fork */
    setenv("GIT_CONFIG_GLOBAL", "/dev/null", 1); /* no identity of whoever runs the test */
    setenv("GIT_CONFIG_NOSYSTEM", "1", 1);
}

TestSuite(git, .timeout = 120, .init = begin, .fini = fake_workspace_end);

/* Runs a shell command in the workspace: how the tests make repositories. */
static void sh(const char *script)
{
    pid_t child = fork();
    if (child == 0) {
        auto_free char *whole =
            mem_printf("set -e; cd '%s'; export GIT_AUTHOR_NAME=T GIT_AUTHOR_EMAIL=t@t GIT_COMMITTER_NAME=T "
                       "GIT_COMMITTER_EMAIL=t@t; { %s\n} </dev/null >/dev/null 2>%s.err || { cat %s.err >&2; exit 1; "
                       "}; rm -f %s.err",
                       fake_workspace(), script, fake_workspace(), fake_workspace(), fake_workspace());
        execl("/bin/sh", "sh", "-c", whole, (char *)NULL);
        _exit(127);
    }
    int status;
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%s", script);
}

static const struct git_reply *git(struct git_request req)
{
    fake_run(&f, &tool_git, &req);
    return f.reply;
}

static proto_list_t list_of(buf_t *b, const char *const *paths, uint32_t count)
{
    buf_init(b, 0);
    for (uint32_t i = 0; i < count; i++)
        proto_list_add_str(b, paths[i]);
    return proto_list_of(count, b);
}

static bool output_has(const struct git_reply *r, const char *text)
{
    return memmem(r->output.data, r->output.len, text, strlen(text)) != NULL;
}

static void expect_ok(const struct git_reply *r)
{
    cr_assert_not_null(r, "%s", err_message(f.error));
    cr_assert_eq(r->exit_code, 0, "exit %d: %.*s", (int)r->exit_code, (int)r->stderr.len, (const char *)r->stderr.data);
}

/* "M a.c A b.c" of a list of git_file, with " (old)" for moves. */
static char *files_of(const proto_list_t *list)
{
    buf_t out;
    buf_init(&out, 0);
    proto_iter_t it = proto_iter(list);
    proto_nested_t nested;
    while (proto_iter_msg(&it, &nested)) {
        struct git_file file;
        err_t *e = NULL;
        cr_assert_eq(proto_decode(MSG_git_file, &file, nested.bytes, nested.len, &e), 0);
        buf_printf(&out, "%s%s %s", out.len ? ", " : "", file.status, file.path);
        if (file.old_path != NULL)
            buf_printf(&out, " (%s)", file.old_path);
    }
    return buf_steal(&out);
}

static void expect_files(const proto_list_t *list, const char *want)
{
    auto_free char *got = files_of(list);
    cr_assert_str_eq(got, want);
}

Test(git, status_is_structured_and_text_S062)
{
    sh("git init -q -b main .; printf 'a\\n' > a; printf 'b\\n' > b; printf '1\\n2\\n3\\n4\\n' > old; git add -A; git "
       "commit -qm one; "
       "echo x >> a; git add a; echo y >> a; rm b; git mv old 'new name'; mkdir d; echo > d/u; printf '' > 'sp ace'; "
       "echo s > s; git add s");
    const struct git_reply *r = git((struct git_request){.action = "status"});
    struct git_status st;
    err_t *e = NULL;
    expect_ok(r);
    cr_assert_eq(proto_decode(MSG_git_status, &st, r->status.bytes, r->status.len, &e), 0);
    cr_assert_str_eq(st.branch, "main");
    cr_assert_eq(strlen(st.head), 40);
    cr_assert_null(st.upstream);
    expect_files(&st.staged, "M a, R new name (old), A s");
    expect_files(&st.unstaged, "M a, D b");
    proto_iter_t it = proto_iter(&st.untracked);
    const char *s1, *s2;
    cr_assert(proto_iter_str(&it, &s1) && proto_iter_str(&it, &s2) && st.untracked.count == 2);
    cr_assert_str_eq(s1, "d/u");
    cr_assert_str_eq(s2, "sp ace");
    auto_free char *text = mem_strndup(r->output.data, r->output.len);
    cr_assert_str_eq(text, "MM a\n D b\nR  old -> \"new name\"\nA  s\n?? d/u\n?? \"sp ace\"\n");
    fake_free(&f);
}

Test(git, status_of_a_new_repository_and_of_a_conflict)
{
    struct git_status st;
    err_t *e = NULL;
    sh("git init -q -b trunk .");
    const struct git_reply *r = git((struct git_request){.action = "status"});
    expect_ok(r);
    cr_assert_eq(proto_decode(MSG_git_status, &st, r->status.bytes, r->status.len, &e), 0);
    cr_assert_str_eq(st.branch, "trunk");
    cr_assert_null(st.head);
    cr_assert_eq(r->output.len, 0);
    fake_free(&f);
    sh("echo 1 > c; git add -A; git commit -qm 1; git checkout -qb x; echo 2 > c; git commit -qam 2; git checkout -q "
       "trunk; echo 3 > c; "
       "git commit -qam 3; git merge x || true");
    r = git((struct git_request){.action = "status"});
    expect_ok(r);
    cr_assert_eq(proto_decode(MSG_git_status, &st, r->status.bytes, r->status.len, &e), 0);
    cr_assert_eq(st.conflicted.count, 1);
    cr_assert(output_has(r, "UU c\n"));
    fake_free(&f);
}

Test(git, diff_gives_unstaged_and_staged_S064)
{
    sh("git init -q .; echo one > a; echo one > b; git add -A; git commit -qm one; echo staged > a; git add a; echo "
       "unstaged > b");
    const struct git_reply *r = git((struct git_request){.action = "diff"});
    expect_ok(r);
    auto_free char *text = mem_strndup(r->output.data, r->output.len);
    const char *line = strstr(text, "---STAGED---\n");
    cr_assert_not_null(line);
    cr_assert_not_null(strstr(text, "+unstaged"));
    cr_assert(strstr(text, "+unstaged") < line && strstr(text, "+staged\n") > line);
    fake_free(&f);
    buf_t b;
    proto_list_t only_a = list_of(&b, (const char *const[]){"a"}, 1);
    r = git((struct git_request){.action = "diff", .files = only_a});
    cr_assert(output_has(r, "+staged") && !output_has(r, "+unstaged"));
    buf_free(&b);
    fake_free(&f);
    sh("git commit -qam two");
    r = git((struct git_request){.action = "diff"});
    cr_assert_eq(r->output.len, strlen("---STAGED---\n"));
    fake_free(&f);
}

Test(git, commit_stages_the_named_files_S063)
{
    static const char *const names[] = {"a b", "-rf", "$(touch pwned)", "*"};
    buf_t b;
    sh("git init -q -b main .; echo > 'a b'; echo > ./-rf; echo > '$(touch pwned)'; echo > '*'; echo > other");
    const char *message = "subject `id` $(id) \"quoted\"\n\n# body with \\ and $HOME\nsecond line\n";
    const struct git_reply *r = git((struct git_request){.action = "commit",
                                                         .message = message,
                                                         .files = list_of(&b, names, COUNT_OF(names)),
                                                         .author_name = "A U Thor",
                                                         .author_email = "a@example.org"});
    expect_ok(r);
    cr_assert_eq(r->warnings.count, 0);
    cr_assert_not_null(r->commit);
    auto_free char *commit = mem_strdup(r->commit);
    buf_free(&b);
    fake_free(&f);
    auto_free char *script = mem_printf(
        "[ $(git rev-parse HEAD) = %s ]; git log -1 --format=%%B > ../ew-msg-%d; [ $(git ls-files | wc -l) = 4 ]; "
        "[ \"$(git log -1 --format='%%an %%ae %%cn %%ce')\" = 'A U Thor a@example.org A U Thor a@example.org' ]",
        commit, (int)getpid());
    sh(script);
    auto_free char *relative = mem_printf("../ew-msg-%d", (int)getpid());
    auto_free char *got = fake_get(relative, NULL);
    cr_assert_eq(strncmp(got, message, strlen(message)), 0, "%s", got);
    unlink(fake_path(relative));
    cr_assert_eq(access(fake_path("pwned"), F_OK), -1);
}

Test(git, commit_without_files_stages_everything_and_knows_who_it_is)
{
    sh("git init -q -b main .; echo 1 > a; mkdir d; echo 2 > d/b");
    const struct git_reply *r = git((struct git_request){.action = "commit", .message = "all"});
    expect_ok(r);
    cr_assert_eq(r->warnings.count, 1, "the default identity is told");
    cr_assert_eq(strlen(r->commit), 40);
    fake_free(&f);
    sh("[ \"$(git log -1 --format='%an <%ae>')\" = 'Emergent Agent <agent@emergent.local>' ]; [ $(git ls-files | wc "
       "-l) = 2 ]; "
       "git config user.name Conf; git config user.email c@conf; rm a");
    r = git((struct git_request){.action = "commit", .message = "two"});
    expect_ok(r);
    cr_assert_eq(r->warnings.count, 0);
    fake_free(&f);
    sh("[ \"$(git log -1 --format='%an <%ae>')\" = 'Conf <c@conf>' ]; [ $(git ls-files | wc -l) = 1 ]");
    r = git((struct git_request){.action = "commit", .message = "nothing to do"});
    cr_assert_eq(r->exit_code, 1, "git's own failure is an answer (G-20)");
    cr_assert(output_has(r, "nothing to commit"));
    cr_assert_null(r->commit);
    fake_free(&f);
}

Test(git, checkout_creates_or_switches_S066)
{
    sh("git init -q -b main .; echo > a; git add -A; git commit -qm 1");
    const struct git_reply *r = git((struct git_request){.action = "checkout", .branch = "feature/x"});
    expect_ok(r);
    fake_free(&f);
    sh("[ $(git branch --show-current) = feature/x ]; echo 2 > a; git commit -qam 2");
    expect_ok(git((struct git_request){.action = "checkout", .branch = "main"}));
    fake_free(&f);
    sh("[ $(git branch --show-current) = main ]; [ \"$(git branch | wc -l)\" = 2 ]; echo conflict > a");
    r = git((struct git_request){.action = "checkout", .branch = "feature/x"});
    cr_assert_eq(r->exit_code, 1);
    cr_assert_not_null(memmem(r->stderr.data, r->stderr.len, "would be overwritten", 20));
    fake_free(&f);
    sh("git checkout -q a; git branch side; mkdir a-dir; cp a side-file; git update-ref refs/remotes/origin/far HEAD; "
       "git remote add origin /nowhere; "
       "[ $(git branch --show-current) = main ]");
    expect_ok(
        git((struct git_request){.action = "checkout", .branch = "a"})); /* a file has that name: still a branch */
    fake_free(&f);
    sh("[ $(git branch --show-current) = a ]");
    r = git((struct git_request){.action = "branch"});
    expect_ok(r);
    cr_assert(output_has(r, "* a\n") && output_has(r, "  feature/x\n") && output_has(r, "remotes/origin/far"));
    fake_free(&f);
}

Test(git, add_reset_and_log)
{
    static const char *const a[] = {"a"};
    buf_t b;
    proto_list_t files = list_of(&b, a, 1);
    sh("git init -q -b main .; echo 0 > z; git add z; git commit -qm zero; echo > a; echo > b");
    expect_ok(git((struct git_request){.action = "add", .files = files}));
    fake_free(&f);
    sh("[ \"$(git diff --cached --name-only)\" = a ]");
    expect_ok(git((struct git_request){.action = "add"}));
    fake_free(&f);
    sh("[ \"$(git diff --cached --name-only | wc -l)\" = 2 ]");
    expect_ok(git((struct git_request){.action = "reset", .files = files}));
    fake_free(&f);
    sh("[ \"$(git diff --cached --name-only)\" = b ]; [ -f a ]; git commit -qm 'first subject'; git add a; git commit "
       "-qm 'second subject'");
    const struct git_reply *r = git((struct git_request){.action = "log", .limit = 1});
    expect_ok(r);
    cr_assert(output_has(r, "commit ") && output_has(r, "    second subject") && !output_has(r, "first subject"));
    fake_free(&f);
    r = git((struct git_request){.action = "log"});
    cr_assert(output_has(r, "first subject") && output_has(r, "Author: T <t@t>"));
    fake_free(&f);
    buf_free(&b);
}

Test(git, what_is_asked_wrongly_is_refused)
{
    static const struct {
        struct git_request req;
        const char *message;
    } rows[] = {
        {{.action = "push"},
         "unsupported git action: push (supported: status, diff, log, add, reset, commit, checkout, branch); push "
         "comes with "
         "repository credentials"},
        {{.action = "pull"}, "unsupported git action: pull"},
        {{.action = "clone"}, "unsupported git action: clone"},
        {{.action = "rebase"},
         "unsupported git action: rebase (supported: status, diff, log, add, reset, commit, checkout, branch)"},
        {{.action = "--version"}, "unsupported git action: --version"},
        {{.action = "commit"}, "message is required for commit action"},
        {{.action = "commit", .message = " \n"}, "message is required for commit action"},
        {{.action = "commit", .message = "m", .author_name = "a <b>"}, "author_name"},
        {{.action = "checkout"}, "branch is required for checkout action"},
        {{.action = "checkout", .branch = "-f"}, "not a valid branch name: -f"},
        {{.action = "checkout", .branch = "a..b"}, "not a valid branch name"},
        {{.action = "checkout", .branch = "a b"}, "not a valid branch name"},
        {{.action = "checkout", .branch = "@{-1}"}, "not a valid branch name"},
        {{.action = "checkout", .branch = "a.lock"}, "not a valid branch name"},
        {{.action = "checkout", .branch = "a/.b"}, "not a valid branch name"},
        {{.action = "checkout", .branch = "$(id)~1"}, "not a valid branch name"},
        {{.action = "reset"}, "files is required for reset action"},
        {{.action = "status", .workdir = "no/such/dir"}, "no/such/dir"},
        {{.action = "status", .user = "nobody-of-that-name"}, "nobody-of-that-name"},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        cr_assert_null(git(rows[i].req), "row %zu", i);
        cr_assert_eq(fake_code(&f), ERR_BAD_REQUEST, "row %zu: %s", i, err_message(f.error));
        cr_assert_not_null(strstr(err_message(f.error), rows[i].message), "row %zu: %s", i, err_message(f.error));
        fake_free(&f);
    }
}

Test(git, no_repository_is_git_s_own_failure_G20)
{
    static const char *const names[] = {"status", "diff", "log", "branch"};
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        const struct git_reply *r = git((struct git_request){.action = names[i], .workdir = fake_workspace()});
        cr_assert_not_null(r);
        cr_assert(r->exit_code == 128 || r->exit_code == 129, "%s: %d", names[i], (int)r->exit_code);
        cr_assert_not_null(memmem(r->stderr.data, r->stderr.len, "ot a git repository", 19));
        fake_free(&f);
    }
}

/* Every program that a repository's own files can name leaves a mark when it runs. */
Test(git, a_hostile_repository_runs_nothing)
{
    static const struct {
        struct git_request req;
    } rows[] = {{{.action = "status"}},
                {{.action = "diff"}},
                {{.action = "add"}},
                {{.action = "commit", .message = "m", .author_name = "a", .author_email = "a@b"}},
                {{.action = "log"}},
                {{.action = "branch"}},
                {{.action = "checkout", .branch = "other"}},
                {{.action = "checkout", .branch = "fresh"}}};
    sh("git init -q -b main .; echo 1 > f.txt; echo 1 > g.txt; echo 1 > h.txt; git add -A; git commit -qm 1; git "
       "checkout -qb other; echo 2 > f.txt; "
       "git commit -qam 2; git checkout -q main;"
       "mkdir ev; E=$PWD/ev/run; printf '#!/bin/sh\\necho \"$@\" >> %s/ev/ran\\ncat 2>/dev/null\\nexit 0\\n' $PWD > "
       "$E; chmod +x $E; echo ev > .git/info/exclude;"
       "printf '*.txt filter=f diff=d merge=m\\ng.txt filter=a=b\\nh.txt filter=inc diff=inc\\n' > .gitattributes; git "
       "add .gitattributes; git commit -qm attr;"
       "C='git config'; for h in pre-commit post-commit commit-msg prepare-commit-msg post-checkout post-index-change "
       "reference-transaction; do cp $E .git/hooks/$h; done;"
       "mkdir hooks2; cp .git/hooks/* hooks2/; $C core.hooksPath $PWD/hooks2; $C core.fsmonitor $E; $C core.sshCommand "
       "$E; $C core.pager $E; $C core.editor $E;"
       "$C pager.status $E; $C pager.diff $E; $C pager.log $E; $C pager.branch $E; $C diff.external $E; $C "
       "diff.d.command $E; $C diff.d.textconv $E; $C credential.helper $E;"
       "for k in clean smudge process; do $C filter.f.$k $E; $C filter.a=b.$k $E; done; $C filter.f.required true; $C "
       "filter.a=b.required true; $C merge.m.driver $E;"
       "printf '[filter \"inc\"]\\n clean = %s\\n smudge = %s\\n required = true\\n[diff \"inc\"]\\n textconv = %s\\n "
       "command = %s\\n' $E $E $E $E > .git/more; $C include.path more;"
       "$C commit.gpgSign true; $C gpg.program $E; $C log.showSignature true; $C gc.auto 1; $C alias.status \"!$E\"; "
       "$C core.askPass $E; $C core.alternateRefsCommand $E;"
       "$C sequence.editor $E; $C interactive.diffFilter $E; $C maintenance.auto true; $C core.gitProxy $E; rm -f "
       "ev/ran; echo 3 >> g.txt; echo 3 >> h.txt; touch -d '+1 hour' f.txt");
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        const struct git_reply *r = git(rows[i].req);
        expect_ok(r);
        auto_free char *ran = fake_get("ev/ran", NULL);
        cr_expect_null(ran, "%s ran: %s", rows[i].req.action, ran);
        fake_free(&f);
        sh("rm -f ev/ran; touch -d '+2 hour' h.txt");
    }
}

Test(git, a_hostile_submodule_runs_nothing)
{
    /* add and commit come last: git has no switch that keeps them from looking into a submodule, so its own filters are
     * taken away before. */
    static const char *const names[] = {"status", "diff", "checkout", "add", "commit"};
    sh("git init -q -b main sub; cd sub; echo 1 > s.txt; git add -A; git commit -qm s; cd ..;"
       "git init -q -b main top; cd top; git -c protocol.file.allow=always submodule --quiet add ../sub sm; git commit "
       "-qm t; cd sm;"
       "mkdir ../../ev; E=$PWD/../../ev/run; printf '#!/bin/sh\\necho \"$@\" >> %s/../../ev/ran\\ncat 2>/dev/null\\n' "
       "$PWD > $E; chmod +x $E;"
       "echo '*.txt filter=f' > .gitattributes; git config filter.f.clean $E; git config filter.f.smudge $E; git "
       "config core.fsmonitor $E; echo 2 > s.txt; touch -d '+1 hour' s.txt;"
       "git config -f ../.gitmodules submodule.sm.ignore none; git -C .. config submodule.sm.ignore none; rm -f "
       "../../ev/ran");
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        const struct git_reply *r = git((struct git_request){.action = names[i],
                                                             .workdir = fake_path("top"),
                                                             .message = "m",
                                                             .branch = "b",
                                                             .author_name = "a",
                                                             .author_email = "a@b"});
        cr_assert_not_null(r, "%s", err_message(f.error));
        auto_free char *ran = fake_get("ev/ran", NULL);
        cr_expect_null(ran, "%s ran: %s", names[i], ran);
        unlink(fake_path("ev/ran"));
        fake_free(&f);
        if (i == 2)
            sh("rm top/sm/.gitattributes");
    }
}

Test(git, drivers_of_the_user_stay)
{
    git_guard_t g = {0};
    err_t *e = NULL;
    static const char answer[] = "global\0filter.lfs.clean\0local\0filter.evil.clean\0local\0diff."
                                 "external\0worktree\0filter.a=b.smudge\0local\0cut";
    cr_assert_eq(git_guard_answer(&g, answer, sizeof answer - 5, true, &e), 0);
    cr_assert_eq(g.options.count, 8);
    cr_assert_str_eq(g.options.words[1], "filter.evil.clean=");
    cr_assert_str_eq(g.options.words[7], "filter.evil.required=false");
    cr_assert_eq(g.keys, 4);
    cr_assert_str_eq(g.env.words[0], "GIT_CONFIG_KEY_0=filter.a=b.clean");
    git_guard_free(&g);
    static const char unscoped[] = "filter.lfs.clean\0";
    cr_assert_eq(git_guard_answer(&g, unscoped, sizeof unscoped - 1, false, &e), 0);
    cr_assert_eq(g.options.count, 8);
    git_guard_free(&g);
    buf_t many;
    buf_init(&many, 0);
    for (int i = 0; i <= GIT_GUARD_DRIVERS_MAX; i++) {
        buf_printf(&many, "filter.f%d.clean", i);
        buf_append_byte(&many, 0);
    }
    cr_assert_eq(git_guard_answer(&g, many.data, many.len, false, &e), -1);
    err_free(&e);
    buf_free(&many);
    git_guard_free(&g);
}

Test(git, large_output_is_cut_and_said_so)
{
    sh("git init -q -b main .; echo > a; git add -A; git commit -qm 1; seq 1 1000000 > a");
    const struct git_reply *r = git((struct git_request){.action = "diff"});
    expect_ok(r);
    cr_assert(r->truncated);
    cr_assert_leq(r->output.len, 4 * 1024 * 1024);
    fake_free(&f);
}

Test(git, a_cancelled_call_leaves_nothing_running)
{
    static struct git_request req = {.action = "status"};
    sh("git init -q -b main .");
    fake_init(&f, &tool_git);
    fake_start(&f, &req);
    cr_assert_not(f.is_done);
    fake_cancel(&f, false);
    cr_assert_eq(fake_code(&f), ERR_CANCELLED);
    for (int i = 0; i < 50; i++)
        pump();
    fake_free(&f);
}

Test(git, an_image_without_git_says_so)
{
    setenv("PATH", "/nonexistent", 1);
    cr_assert_null(git((struct git_request){.action = "status"}));
    cr_assert_eq(fake_code(&f), ERR_TOOL_UNAVAILABLE, "%s", err_message(f.error));
    cr_assert_not_null(strstr(err_message(f.error), "git"));
    fake_free(&f);
}

Test(git, broken_status_records_are_skipped)
{
    static const struct {
        const char *bytes;
        size_t len;
        const char *text;
        bool is_cut;
    } rows[] = {
        {"", 0, "", false},
        {"? a\0? b", 7, "?? a\n", true},
        {"?\0? \0? c\0x\0\0 \0", 15, "?? c\n", false},
        {"1 M. N... 100644 100644 100644 h h\0", 35, "", false},
        {"1 M. N... 100644 100644 100644 h h p\0", 37, "M  p\n", false},
        {"1 !! N... 100644 100644 100644 h h p\0", 37, "", false},
        {"2 R. N... 1 1 1 h h R100 new\0", 29, "", false},
        {"2 R. N... 1 1 1 h h R100 new\0old\0", 33, "R  old -> new\n", false},
        {"u UU N... 1 2 3 4 h h h p\0", 26, "UU p\n", false},
        {"? a\tb\"\0", 7, "?? \"a\\tb\\\"\"\n", false},
        {"# branch.ab +99999999999999999999 -x\0", 37, "", false},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        git_status_lists_t s;
        git_status_parse(&s, rows[i].bytes, rows[i].len);
        cr_expect_str_eq(buf_cstr(&s.text), rows[i].text, "row %zu: %s", i, buf_cstr(&s.text));
        cr_expect_eq(s.is_cut, rows[i].is_cut, "row %zu", i);
        git_status_free(&s);
    }
}
