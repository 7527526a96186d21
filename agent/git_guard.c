// SPDX-License-Identifier: Apache-2.0
#include "agent/git_guard.h"

#include "common/mem.h"

#include <stdarg.h>
#include <stdio.h>

/* ---- words ---- */

static void add_owned(git_words_t *w, char *word)
{
    if (w->count + 2 > w->cap) {
        w->cap = w->cap ? w->cap * 2 : 64;
        w->words = mem_realloc(w->words, w->cap * sizeof *w->words);
    }
    w->words[w->count++] = word;
    w->words[w->count] = NULL;
}

void git_words_add(git_words_t *w, const char *word)
{
    add_owned(w, mem_strdup(word));
}

void git_words_printf(git_words_t *w, const char *fmt, ...)
{
    va_list ap;
    char *word = NULL;
    va_start(ap, fmt);
    int len = vasprintf(&word, fmt, ap);
    va_end(ap);
    if (len < 0)
        abort();
    add_owned(w, word);
}

void git_words_clear(git_words_t *w)
{
    for (size_t i = 0; i < w->count; i++)
        free(w->words[i]);
    free(w->words);
    *w = (git_words_t){0};
}

/* ---- what has fixed names ---- */

static const char *const fixed_options[] = {
    "core.fsmonitor=false",
    "core.hooksPath=/dev/null",
    "core.sshCommand=false",
    "core.gitProxy=false",
    "core.askPass=",
    "core.editor=true",
    "core.pager=cat",
    "core.alternateRefsCommand=true",
    "credential.helper=",
    "diff.external=",
    "diff.ignoreSubmodules=dirty", /* looking into a submodule runs git there, with that repository's drivers */
    "diff.noprefix=false",
    "diff.mnemonicPrefix=false",
    "gpg.program=false",
    "gpg.openpgp.program=false",
    "gpg.ssh.program=false",
    "gpg.x509.program=false",
    "gpg.ssh.defaultKeyCommand=",
    "commit.gpgSign=false",
    "log.showSignature=false",
    "submodule.recurse=false",
    "status.submoduleSummary=false",
    "protocol.allow=never",
    "gc.auto=0",
    "maintenance.auto=false",
    "safe.directory=*", /* the sandbox's root works in everybody's work trees */
    "color.ui=false",
    "core.quotePath=false",
    "advice.detachedHead=false",
};

static const char *const fixed_env[] = {
    "GIT_TERMINAL_PROMPT=0",
    "GIT_ASKPASS=true",
    "SSH_ASKPASS=true",
    "GIT_EDITOR=true",
    "GIT_SEQUENCE_EDITOR=true",
    "GIT_PAGER=cat",
    "GIT_ALLOW_PROTOCOL=none",
    "GIT_PROTOCOL_FROM_USER=0",
    "GIT_SSH_COMMAND=false",
    "GIT_LITERAL_PATHSPECS=1",
    "GIT_NO_LAZY_FETCH=1",
    "LC_ALL=C.UTF-8",
    "LANGUAGE=",
};

static void add_fixed(git_words_t *argv)
{
    git_words_add(argv, "git");
    git_words_add(argv, "--no-pager");
    for (size_t i = 0; i < COUNT_OF(fixed_options); i++) {
        git_words_add(argv, "-c");
        git_words_add(argv, fixed_options[i]);
    }
}

/* ---- drivers ---- */

void git_guard_question(git_words_t *argv, bool with_scope)
{
    add_fixed(argv);
    git_words_add(argv, "config");
    if (with_scope)
        git_words_add(argv, "--show-scope");
    git_words_add(argv, "--null");
    git_words_add(argv, "--name-only");
    git_words_add(argv, "--get-regexp");
    git_words_add(argv, "^(filter|diff|merge)\\..*\\.(clean|smudge|process|command|textconv|driver)$");
}

static void override(git_guard_t *g, const char *section, int len, const char *name, const char *value)
{
    if (memchr(section, '=', (size_t)len) == NULL) {
        git_words_add(&g->options, "-c");
        git_words_printf(&g->options, "%.*s.%s=%s", len, section, name, value);
        return;
    }
    git_words_printf(&g->env, "GIT_CONFIG_KEY_%u=%.*s.%s", g->keys, len, section, name);
    git_words_printf(&g->env, "GIT_CONFIG_VALUE_%u=%s", g->keys, value);
    g->keys++;
}

/* `name` is like filter.<driver>.clean. An empty program is none; a filter must then not be required. */
static int override_driver(git_guard_t *g, const char *name, err_t **e)
{
    static const struct {
        const char *prefix, *name, *value;
    } rows[] = {{"filter.", "clean", ""},         {"filter.", "smudge", ""}, {"filter.", "process", ""},
                {"filter.", "required", "false"}, {"diff.", "command", ""},  {"diff.", "textconv", ""},
                {"merge.", "driver", "false"}};
    const char *last = strrchr(name, '.');
    const char *first = strchr(name, '.');
    if (last == NULL || first == last)
        return 0; /* diff.external and the like have no driver in the middle */
    if (++g->drivers > GIT_GUARD_DRIVERS_MAX)
        return err_set(e, ERR_BAD_REQUEST, "the repository's configuration has more than %d filters and drivers",
                       GIT_GUARD_DRIVERS_MAX);
    for (size_t i = 0; i < COUNT_OF(rows); i++)
        if (strncmp(name, rows[i].prefix, strlen(rows[i].prefix)) == 0)
            override(g, name, (int)(last - name), rows[i].name, rows[i].value);
    return 0;
}

static const char *next_word(const char **at, const char *end)
{
    const char *nul = *at < end ? memchr(*at, 0, (size_t)(end - *at)) : NULL;
    const char *word = *at;
    if (nul == NULL)
        return NULL;
    *at = nul + 1;
    return word;
}

int git_guard_answer(git_guard_t *g, const void *bytes, size_t len, bool with_scope, err_t **e)
{
    const char *at = bytes, *end = at + len, *scope = "local", *name;
    for (;;) {
        if (with_scope && (scope = next_word(&at, end)) == NULL)
            return 0;
        if ((name = next_word(&at, end)) == NULL)
            return 0;
        bool is_trusted = with_scope && (strcmp(scope, "system") == 0 || strcmp(scope, "global") == 0 ||
                                         strcmp(scope, "command") == 0);
        if (!is_trusted && override_driver(g, name, e) != 0)
            return -1;
    }
}

void git_guard_begin(const git_guard_t *g, git_words_t *argv, git_words_t *env)
{
    add_fixed(argv);
    for (size_t i = 0; i < g->options.count; i++)
        git_words_add(argv, g->options.words[i]);
    for (size_t i = 0; i < COUNT_OF(fixed_env); i++)
        git_words_add(env, fixed_env[i]);
    for (size_t i = 0; i < g->env.count; i++)
        git_words_add(env, g->env.words[i]);
    git_words_printf(env, "GIT_CONFIG_COUNT=%u", g->keys);
}

void git_guard_free(git_guard_t *g)
{
    git_words_clear(&g->options);
    git_words_clear(&g->env);
    g->keys = g->drivers = 0;
}
