/* SPDX-License-Identifier: Apache-2.0
 *
 * git without what a hostile repository's own configuration may run: hooks, fsmonitor, ssh and proxy commands, pagers,
 * editors, askpass, credential helpers, signing programs, external diffs, text conversions, content filters, merge
 * drivers, background maintenance, fetches of missing objects.
 *
 * Most of that has fixed names and is overridden on the command line. Filters and drivers have names of the
 * repository's choice: they are asked for first (git_guard_question) and each is overridden by its name. Those that the
 * system or the user configured (git-lfs) stay.
 */
#ifndef EW_AGENT_GIT_GUARD_H
#define EW_AGENT_GIT_GUARD_H

#include "common/err.h"

#include <stdbool.h>
#include <stddef.h>

#define GIT_GUARD_DRIVERS_MAX 256

/* A growing, NULL-terminated array of strings; owns copies. */
typedef struct git_words {
    char **words;
    size_t count;
    size_t cap;
} git_words_t;

void git_words_add(git_words_t *w, const char *word);
void git_words_printf(git_words_t *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void git_words_clear(git_words_t *w);

typedef struct git_guard {
    git_words_t options; /* -c name=value */
    git_words_t env;     /* the same for names with "=", which -c cannot say; needs git 2.31 */
    unsigned keys;
    unsigned drivers;
} git_guard_t;

/* Appends the whole command that lists the drivers. !with_scope: for git before 2.26, which cannot tell who configured
 * what; then all are overridden. It exits with 0, with 1 when there are none, with 129 when it does not know the
 * option. */
void git_guard_question(git_words_t *argv, bool with_scope);
/* Reads the answer. Errors: bad_request when there are more than GIT_GUARD_DRIVERS_MAX. */
int git_guard_answer(git_guard_t *g, const void *bytes, size_t len, bool with_scope, err_t **e);
/* Appends `git`, the fixed overrides and those of the guard; an action and its options follow. And the environment. */
void git_guard_begin(const git_guard_t *g, git_words_t *argv, git_words_t *env);
void git_guard_free(git_guard_t *g);

#endif
