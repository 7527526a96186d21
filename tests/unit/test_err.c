// SPDX-License-Identifier: Apache-2.0
#include "common/err.h"

#include "common/mem.h"
#include "common/text.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>

Test(err, carries_code_and_message, .timeout = 10)
{
    auto_err err_t *e = NULL;
    cr_assert_eq(err_set(&e, ERR_NOT_FOUND, "workspace '%s' not found", "x"), -1);
    cr_assert_eq(err_code(e), ERR_NOT_FOUND);
    cr_assert_str_eq(err_message(e), "workspace 'x' not found");
    cr_assert_null(err_details(e));
}

Test(err, no_error_reads_as_nothing, .timeout = 10)
{
    cr_assert_eq(err_code(NULL), ERR_NONE);
    cr_assert_str_eq(err_message(NULL), "");
    cr_assert_null(err_details(NULL));
}

Test(err, wrap_puts_context_in_front_and_keeps_the_code, .timeout = 10)
{
    auto_err err_t *e = NULL;
    err_set(&e, ERR_CONFLICT, "busy");
    err_set_details(e, "{\"a\":1}");
    cr_assert_eq(err_wrap(&e, "cannot stop %d", 7), -1);
    cr_assert_str_eq(err_message(e), "cannot stop 7: busy");
    cr_assert_eq(err_code(e), ERR_CONFLICT);
    cr_assert_str_eq(err_details(e), "{\"a\":1}");
    err_wrap_code(&e, ERR_SANDBOX_FAILED, "create");
    cr_assert_eq(err_code(e), ERR_SANDBOX_FAILED);
    cr_assert_str_eq(err_message(e), "create: cannot stop 7: busy");
}

Test(err, errno_picks_the_code_and_is_told, .timeout = 10)
{
    static const struct {
        int errnum;
        enum err_code code;
    } rows[] = {{ENOENT, ERR_NOT_FOUND},
                {ENOSPC, ERR_NO_SPACE},
                {EDQUOT, ERR_NO_SPACE},
                {EACCES, ERR_BAD_REQUEST},
                {EISDIR, ERR_BAD_REQUEST},
                {EEXIST, ERR_CONFLICT},
                {ETIMEDOUT, ERR_DEADLINE_EXCEEDED},
                {EIO, ERR_INTERNAL}};
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        auto_err err_t *e = NULL;
        err_set_errno(&e, ERR_NONE, rows[i].errnum, "cannot open %s", "f");
        cr_expect_eq(err_code(e), rows[i].code, "errno %d", rows[i].errnum);
        auto_free char *expected = mem_printf("cannot open f: %s", strerror(rows[i].errnum));
        cr_expect_str_eq(err_message(e), expected);
    }
    auto_err err_t *e = NULL;
    err_set_errno(&e, ERR_DATABASE, ENOENT, "x");
    cr_assert_eq(err_code(e), ERR_DATABASE);
}

Test(err, long_messages_are_cut_but_the_cause_stays, .timeout = 10)
{
    auto_free char *longest = mem_alloc(5000);
    memset(longest, 'a', 4999);
    auto_err err_t *e = NULL;
    err_set_errno(&e, ERR_NONE, ENOENT, "%s", longest);
    cr_assert_leq(strlen(err_message(e)), 1000);
    cr_assert_not_null(strstr(err_message(e), ": No such file or directory"));
    err_wrap(&e, "%s", longest);
    err_wrap(&e, "%s", longest);
    cr_assert_leq(strlen(err_message(e)), 1000);
}

Test(err, a_cut_never_splits_a_character, .timeout = 10)
{
    for (size_t shift = 0; shift < 4; shift++) {
        auto_buf buf_t text;
        buf_init(&text, 0);
        for (size_t i = 0; i < shift; i++)
            buf_append_byte(&text, 'x');
        for (size_t i = 0; i < 400; i++)
            buf_append_str(&text, "\xf0\x9f\x98\x80");
        auto_err err_t *e = NULL;
        err_set(&e, ERR_INTERNAL, "%s", buf_cstr(&text));
        cr_expect(utf8_is_valid(err_message(e), strlen(err_message(e))));
        cr_expect_gt(strlen(err_message(e)), 990);
    }
}

Test(err, every_code_has_a_name_a_status_and_a_meaning, .timeout = 10)
{
    for (int i = ERR_NONE + 1; i < ERR_CODE_COUNT; i++) {
        cr_expect_eq(err_code_from_name(err_code_name(i)), (enum err_code)i);
        cr_expect(err_code_http(i) >= 400 && err_code_http(i) < 600, "%s", err_code_name(i));
        cr_expect_gt(strlen(err_code_doc(i)), 10);
    }
    cr_assert_eq(err_code_from_name("no_such_code"), ERR_PROTOCOL);
    cr_assert(err_code_is_retryable(ERR_OVERLOADED));
    cr_assert_not(err_code_is_retryable(ERR_BAD_REQUEST));
}

Test(err, setting_over_an_error_aborts, .signal = SIGABRT, .timeout = 10)
{
    err_t *e = NULL;
    err_set(&e, ERR_INTERNAL, "one");
    err_set(&e, ERR_INTERNAL, "two");
}

Test(err, free_is_idempotent, .timeout = 10)
{
    err_t *e = NULL;
    err_free(&e);
    err_set(&e, ERR_INTERNAL, "x");
    err_free(&e);
    err_free(&e);
    cr_assert_null(e);
}
