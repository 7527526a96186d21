// SPDX-License-Identifier: Apache-2.0
/* git: one action as one or a few runs of the git program, argv only, `--` before data, guarded against the
 * repository's own configuration (agent/git_guard.h). The answer has git's exit code, output and error text; git
 * failing is no error of the call. Actions:
 *
 *   status    structured, and as text what `git status --porcelain` prints (untracked files one by one)
 *   diff      of the work tree, a line `---STAGED---`, of the index; `files` limit both
 *   log       the last `limit` commits (default 20), `files` limit it to their history
 *   add       `files`, or everything
 *   reset     takes `files` out of the index, the work tree stays
 *   commit    add as above, then commit with `message`. Identity: author_name/author_email, else git's configuration,
 * else a default with a warning checkout  switches to `branch` (also a remote one, a tag or a commit), creates it where
 * there is no such thing branch    lists local and remote branches
 *
 * `files` are literal paths below workdir, no patterns. All runs together may take GIT_TIMEOUT_MS. */
#include "agent/call.h"
#include "agent/exec.h"
#include "agent/git_guard.h"
#include "agent/git_status.h"
#include "agent/loop.h"
#include "common/mem.h"

#include <ctype.h>
#include <stdio.h>

#define GIT_TIMEOUT_MS 60000
#define GIT_OUTPUT_MAX ((size_t)4 * 1024 * 1024)
#define GIT_STDERR_MAX ((size_t)65536)
#define GIT_LOG_DEFAULT 20
#define GIT_FILES_BYTES_MAX ((size_t)1024 * 1024) /* an argument list has its limit too */
#define GIT_EXIT_USAGE 129
#define FALLBACK_NAME "Emergent Agent"
#define FALLBACK_EMAIL "agent@emergent.local"
#define STAGED_LINE "---STAGED---\n"

typedef struct git_state git_state_t;

typedef struct git_action {
    const char *name;
    bool is_guarded; /* may run filters */
    bool is_reading; /* takes no locks for a refresh of the index */
    int (*check)(const struct git_request *req, err_t **e);
    /* Appends run `s->run`'s words behind the guarded `git`; false: there is no such run. */
    bool (*build)(git_state_t *s, git_words_t *argv);
    /* Looks at a run's result; true: the next run comes although this one failed. May be NULL. */
    bool (*after)(git_state_t *s, const exec_result_t *r);
} git_action_t;

enum question { ASK_WITH_SCOPE, ASK_WITHOUT_SCOPE, ASKED };

struct git_state {
    agent_call_t *call;
    const struct git_request *req;
    const git_action_t *action;
    exec_t *exec;
    uint64_t deadline_ms;
    enum question question;
    git_guard_t guard;
    unsigned run;
    bool uses_fallback; /* identity */
    bool is_truncated;
    int exit_code;
    buf_t out;
    buf_t err;
    buf_t warnings;
    uint32_t warning_count;
    char commit[65];
};

/* ---- actions ---- */

static void add_files(const git_state_t *s, git_words_t *argv)
{
    proto_iter_t it = proto_iter(&s->req->files);
    const char *file;
    git_words_add(argv, "--");
    while (proto_iter_str(&it, &file))
        git_words_add(argv, file);
}

static bool build_status(git_state_t *s, git_words_t *argv)
{
    static const char *const words[] = {"status", "--porcelain=v2",        "--branch",
                                        "-z",     "--untracked-files=all", "--ignore-submodules=dirty"};
    for (size_t i = 0; s->run == 0 && i < COUNT_OF(words); i++)
        git_words_add(argv, words[i]);
    return s->run == 0;
}

static bool build_diff(git_state_t *s, git_words_t *argv)
{
    static const char *const words[] = {"diff", "--no-ext-diff", "--no-textconv", "--submodule=short",
                                        "--ignore-submodules=dirty"};
    if (s->run == 2)
        return false;
    for (size_t i = 0; i < COUNT_OF(words); i++)
        git_words_add(argv, words[i]);
    if (s->run == 1) {
        git_words_add(argv, "--cached");
        buf_append_str(&s->out, STAGED_LINE);
    }
    add_files(s, argv);
    return true;
}

static bool build_log(git_state_t *s, git_words_t *argv)
{
    if (s->run > 0)
        return false;
    git_words_add(argv, "log");
    git_words_printf(argv, "--max-count=%u", s->req->limit > 0 ? s->req->limit : GIT_LOG_DEFAULT);
    git_words_add(argv, "--format=commit %H%nAuthor: %an <%ae>%nDate:   %aI%n%n%w(0,4,4)%B");
    git_words_add(argv, "--no-show-signature");
    git_words_add(argv, "--no-notes");
    add_files(s, argv);
    return true;
}

static void words_add(git_state_t *s, git_words_t *argv)
{
    git_words_add(argv, "add");
    if (s->req->files.count == 0)
        git_words_add(argv, "--all");
    else
        add_files(s, argv);
}

static bool build_add(git_state_t *s, git_words_t *argv)
{
    if (s->run == 0)
        words_add(s, argv);
    return s->run == 0;
}

static int check_reset(const struct git_request *req, err_t **e)
{
    return req->files.count > 0 ? 0 : err_set(e, ERR_BAD_REQUEST, "files is required for reset action");
}

static bool build_reset(git_state_t *s, git_words_t *argv)
{
    if (s->run > 0)
        return false;
    git_words_add(argv, "reset");
    git_words_add(argv, "--quiet");
    add_files(s, argv);
    return true;
}

static int check_identity(const char *name, const char *text, err_t **e)
{
    if (text == NULL || strpbrk(text, "<>\n") == NULL)
        return 0;
    return err_set(e, ERR_BAD_REQUEST, "%s must not contain <, > or a line break", name);
}

static int check_commit(const struct git_request *req, err_t **e)
{
    const char *message = req->message ? req->message : "";
    if (message[strspn(message, " \t\r\n")] == '\0')
        return err_set(e, ERR_BAD_REQUEST, "message is required for commit action");
    return check_identity("author_name", req->author_name, e) == 0
               ? check_identity("author_email", req->author_email, e)
               : -1;
}

static bool build_commit(git_state_t *s, git_words_t *argv)
{
    if (s->run == 0) {
        words_add(s, argv);
        return true;
    }
    if (s->run > (s->uses_fallback ? 2U : 1U))
        return false;
    git_words_add(argv, "-c");
    git_words_add(argv, "user.useConfigOnly=true"); /* never an identity guessed from the host's name */
    git_words_add(argv, "-c");
    git_words_add(argv, "core.abbrev=40");
    git_words_add(argv, "commit");
    git_words_add(argv, "--no-verify");
    git_words_add(argv, "--no-gpg-sign");
    git_words_add(argv, "--cleanup=whitespace");
    git_words_add(argv, "--file=-");
    return true;
}

static bool buf_has(const uint8_t *bytes, size_t len, const char *text)
{
    return memmem(bytes ? bytes : (const uint8_t *)"", len, text, strlen(text)) != NULL;
}

/* "[main (root-commit) <hash>] subject": the first word that is a whole hash and ends the bracket. */
static void find_commit(git_state_t *s, const exec_result_t *r)
{
    size_t digits = 0;
    for (size_t i = 0; i < r->out_len && r->out[i] != '\n'; i++) {
        if (isxdigit(r->out[i])) {
            digits++;
            continue;
        }
        if (r->out[i] == ']' && digits >= 40 && digits < sizeof s->commit) {
            memcpy(s->commit, r->out + i - digits, digits);
            s->commit[digits] = '\0';
            return;
        }
        digits = 0;
    }
}

static bool after_commit(git_state_t *s, const exec_result_t *r)
{
    if (s->run != 1 || r->exit_code == 0) {
        find_commit(s, r);
        return false;
    }
    if (!buf_has(r->err, r->err_len, "tell me who you are"))
        return false;
    s->uses_fallback = true;
    proto_list_add_str(&s->warnings, "no identity is configured: " FALLBACK_NAME " <" FALLBACK_EMAIL
                                     "> stands in for what the call does not name; "
                                     "set author_name and author_email, or user.name and user.email with git config");
    s->warning_count++;
    return true;
}

/* git-check-ref-format(1), and nothing that git would take for an option or an expression. */
static bool is_ref_name(const char *name)
{
    size_t len = strlen(name);
    if (len == 0 || name[0] == '-' || name[0] == '/' || name[len - 1] == '/' || name[len - 1] == '.' ||
        strcmp(name, "@") == 0)
        return false;
    for (const char *p = name; *p != '\0'; p++) {
        bool is_start = p == name || p[-1] == '/';
        if ((unsigned char)*p <= ' ' || *p == 0x7f || strchr("~^:?*[\\", *p) != NULL ||
            (is_start && (*p == '.' || *p == '/')) || strncmp(p, "..", 2) == 0 || strncmp(p, "@{", 2) == 0 ||
            strncmp(p, ".lock/", 6) == 0 || strcmp(p, ".lock") == 0)
            return false;
    }
    return true;
}

static int check_checkout(const struct git_request *req, err_t **e)
{
    if (req->branch == NULL || req->branch[0] == '\0')
        return err_set(e, ERR_BAD_REQUEST, "branch is required for checkout action");
    if (!is_ref_name(req->branch))
        return err_set(e, ERR_BAD_REQUEST, "not a valid branch name: %s", req->branch);
    return 0;
}

static bool build_checkout(git_state_t *s, git_words_t *argv)
{
    if (s->run > 1)
        return false;
    git_words_add(argv, "checkout");
    if (s->run == 1)
        git_words_add(argv, "-b");
    git_words_add(argv, s->req->branch);
    if (s->run == 0)
        git_words_add(argv, "--");
    return true;
}

static bool after_checkout(git_state_t *s, const exec_result_t *r)
{
    if (s->run == 0 && r->exit_code != 0 && buf_has(r->err, r->err_len, "invalid reference"))
        return true;
    s->run = 1; /* whatever came of the first run, nothing follows it */
    return false;
}

static bool build_branch(git_state_t *s, git_words_t *argv)
{
    static const char *const words[] = {"branch", "--list", "--all", "--no-color", "--no-column"};
    for (size_t i = 0; s->run == 0 && i < COUNT_OF(words); i++)
        git_words_add(argv, words[i]);
    return s->run == 0;
}

static const git_action_t actions[] = {
    {"status", true, true, NULL, build_status, NULL},
    {"diff", true, true, NULL, build_diff, NULL},
    {"log", false, true, NULL, build_log, NULL},
    {"add", true, false, NULL, build_add, NULL},
    {"reset", true, false, check_reset, build_reset, NULL},
    {"commit", true, false, check_commit, build_commit, after_commit},
    {"checkout", true, false, check_checkout, build_checkout, after_checkout},
    {"branch", false, true, NULL, build_branch, NULL},
};

static const git_action_t *find_action(const char *name, err_t **e)
{
    static const char *const with_credentials[] = {"push", "pull", "clone", "fetch"};
    char supported[160] = "";
    for (size_t i = 0; i < COUNT_OF(actions); i++) {
        size_t len = strlen(supported);
        if (strcmp(actions[i].name, name) == 0)
            return &actions[i];
        snprintf(supported + len, sizeof supported - len, "%s%s", i ? ", " : "", actions[i].name);
    }
    for (size_t i = 0; i < COUNT_OF(with_credentials); i++)
        if (strcmp(with_credentials[i], name) == 0) {
            err_set(e, ERR_BAD_REQUEST,
                    "unsupported git action: %s (supported: %s); %s comes with repository credentials, which are kept "
                    "outside "
                    "of the workspace",
                    name, supported, name);
            return NULL;
        }
    err_set(e, ERR_BAD_REQUEST, "unsupported git action: %s (supported: %s)", name, supported);
    return NULL;
}

/* ---- the answer ---- */

static void reply(git_state_t *s)
{
    git_status_lists_t status;
    auto_buf buf_t nested;
    err_t *e = NULL;
    bool is_status = s->action->build == build_status && s->exit_code == 0;
    buf_init(&nested, 0);
    memset(&status, 0, sizeof status);
    struct git_reply r = {.exit_code = s->exit_code, .commit = s->commit[0] ? s->commit : NULL};
    r.has.exit_code = true;
    if (is_status) {
        git_status_parse(&status, s->out.data ? (const char *)s->out.data : "", s->out.len);
        if (proto_encode(MSG_git_status, &status.msg, &nested, &e) == 0)
            r.status = (proto_nested_t){nested.data, nested.len};
    }
    const buf_t *out = is_status ? &status.text : &s->out;
    r.output = (proto_bytes_t){out->data ? (const void *)out->data : "", out->len};
    r.stderr = (proto_bytes_t){s->err.data, s->err.len};
    r.truncated = s->is_truncated || status.is_cut;
    r.warnings = proto_list_of(s->warning_count, &s->warnings);
    if (e != NULL)
        call_fail(s->call, &e);
    else
        call_reply(s->call, &r);
    git_status_free(&status);
}

/* ---- runs ---- */

static void next_run(git_state_t *s);

/* Keeps what fits; the rest is told as truncated. */
static void collect(git_state_t *s, buf_t *to, size_t max, const uint8_t *bytes, size_t len, uint64_t total)
{
    size_t room = to->len < max ? max - to->len : 0;
    s->is_truncated |= total > len || len > room;
    buf_append(to, bytes, len < room ? len : room);
}

static bool fail_on_timeout(git_state_t *s, const exec_result_t *r)
{
    err_t *e = NULL;
    if (!r->is_timed_out)
        return false;
    err_set(&e, ERR_DEADLINE_EXCEEDED, "git %s did not end within %d s and was killed", s->action->name,
            GIT_TIMEOUT_MS / 1000);
    call_fail(s->call, &e);
    return true;
}

static void on_run_done(void *arg, const exec_result_t *r)
{
    git_state_t *s = arg;
    s->exec = NULL;
    if (fail_on_timeout(s, r))
        return;
    bool goes_on = s->action->after != NULL && s->action->after(s, r);
    if (goes_on) {
        s->run++;
        next_run(s);
        return;
    }
    collect(s, &s->out, GIT_OUTPUT_MAX - sizeof STAGED_LINE, r->out, r->out_len, r->out_total);
    collect(s, &s->err, GIT_STDERR_MAX, r->err, r->err_len, r->err_total);
    s->exit_code = r->exit_code;
    s->run++;
    if (r->exit_code == 0)
        next_run(s);
    else
        reply(s);
}

static void on_question_done(void *arg, const exec_result_t *r)
{
    git_state_t *s = arg;
    err_t *e = NULL;
    s->exec = NULL;
    if (fail_on_timeout(s, r))
        return;
    if (r->exit_code == GIT_EXIT_USAGE && s->question == ASK_WITH_SCOPE) {
        s->question = ASK_WITHOUT_SCOPE;
        next_run(s);
        return;
    }
    if (r->exit_code != 0 &&
        r->exit_code != 1) { /* a configuration that git cannot read: it will do nothing else either */
        collect(s, &s->err, GIT_STDERR_MAX, r->err, r->err_len, r->err_total);
        s->exit_code = r->exit_code;
        reply(s);
        return;
    }
    if (r->out_total > r->out_len)
        err_set(&e, ERR_BAD_REQUEST, "the repository's configuration has too many filters and drivers");
    else if (r->out_len > 0)
        (void)git_guard_answer(&s->guard, r->out, r->out_len, s->question == ASK_WITH_SCOPE, &e);
    if (e != NULL) {
        call_fail(s->call, &e);
        return;
    }
    s->question = ASKED;
    next_run(s);
}

static void add_identity(const git_state_t *s, git_words_t *env)
{
    bool has_name = s->req->author_name != NULL && s->req->author_name[0] != '\0';
    bool has_email = s->req->author_email != NULL && s->req->author_email[0] != '\0';
    const char *name = has_name ? s->req->author_name : s->uses_fallback ? FALLBACK_NAME : NULL;
    const char *email = has_email ? s->req->author_email : s->uses_fallback ? FALLBACK_EMAIL : NULL;
    static const char *const roles[] = {"AUTHOR", "COMMITTER"};
    for (size_t i = 0; i < COUNT_OF(roles); i++) {
        if (name != NULL)
            git_words_printf(env, "GIT_%s_NAME=%s", roles[i], name);
        if (email != NULL)
            git_words_printf(env, "GIT_%s_EMAIL=%s", roles[i], email);
    }
}

static void start(git_state_t *s, const git_words_t *argv, const git_words_t *env, bool takes_message)
{
    err_t *e = NULL;
    uint64_t now = loop_clock_ms();
    exec_options_t options = {
        .argv = (const char *const *)argv->words,
        .env = (const char *const *)env->words,
        .workdir = s->req->workdir,
        .user = s->req->user,
        .stdin_bytes = takes_message ? s->req->message : NULL,
        .stdin_len = takes_message ? strlen(s->req->message) : 0,
        .stdout_max = GIT_OUTPUT_MAX,
        .stderr_max = GIT_STDERR_MAX,
        .timeout_ms = now < s->deadline_ms ? (uint32_t)(s->deadline_ms - now) : 1,
    };
    s->exec = exec_run(&options, s->question == ASKED ? on_run_done : on_question_done, s, &e);
    if (s->exec == NULL)
        call_fail(s->call, &e);
}

static void next_run(git_state_t *s)
{
    git_words_t argv = {0}, env = {0};
    bool is_there = true;
    if (s->question != ASKED) {
        git_guard_t none = {0};
        git_words_t unused = {0};
        git_guard_begin(&none, &unused, &env);
        git_words_clear(&unused);
        git_guard_question(&argv, s->question == ASK_WITH_SCOPE);
    } else {
        git_guard_begin(&s->guard, &argv, &env);
        is_there = s->action->build(s, &argv);
    }
    if (s->action->is_reading)
        git_words_add(&env, "GIT_OPTIONAL_LOCKS=0");
    bool commits = s->question == ASKED && s->action->build == build_commit && s->run > 0;
    if (commits)
        add_identity(s, &env);
    if (is_there)
        start(s, &argv, &env, commits);
    git_words_clear(&argv);
    git_words_clear(&env);
    if (!is_there)
        reply(s);
}

static int check_files(const struct git_request *req, err_t **e)
{
    if (req->files.len > GIT_FILES_BYTES_MAX)
        return err_set(e, ERR_PAYLOAD_TOO_LARGE,
                       "files: the paths have over %zu KiB together; name directories, or use several calls",
                       GIT_FILES_BYTES_MAX >> 10);
    proto_iter_t it = proto_iter(&req->files);
    const char *file;
    while (proto_iter_str(&it, &file))
        if (file[0] == '\0')
            return err_set(e, ERR_BAD_REQUEST, "files: a path is empty");
    return 0;
}

static void git_start(agent_call_t *call, const void *request)
{
    err_t *e = NULL;
    git_state_t *s = mem_alloc(sizeof *s);
    s->call = call;
    s->req = request;
    s->deadline_ms = loop_clock_ms() + GIT_TIMEOUT_MS;
    buf_init(&s->out, GIT_OUTPUT_MAX);
    buf_init(&s->err, GIT_STDERR_MAX);
    buf_init(&s->warnings, 0);
    call_set_state(call, s);
    s->action = find_action(s->req->action, &e);
    if (s->action == NULL || check_files(s->req, &e) != 0 ||
        (s->action->check != NULL && s->action->check(s->req, &e) != 0)) {
        call_fail(call, &e);
        return;
    }
    s->question = s->action->is_guarded ? ASK_WITH_SCOPE : ASKED;
    next_run(s);
}

static void git_destroy(agent_call_t *call)
{
    git_state_t *s = call_state(call);
    if (s == NULL)
        return;
    exec_cancel(&s->exec);
    git_guard_free(&s->guard);
    buf_free(&s->out);
    buf_free(&s->err);
    buf_free(&s->warnings);
    free(s);
}

const agent_tool_t tool_git = {
    .verb = VERB_git,
    .start = git_start,
    .destroy = git_destroy,
};
