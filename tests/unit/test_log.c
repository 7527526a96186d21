// SPDX-License-Identifier: Apache-2.0
#include "common/log.h"

#include "common/mem.h"
#include "common/text.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <jansson.h>
#include <unistd.h>

static int ends[2];
static char line[65536];

static void start(void)
{
    unsetenv("LOG_FORMAT");
    cr_assert_eq(pipe(ends), 0);
    cr_assert_geq(dup2(ends[1], STDERR_FILENO), 0);
    log_open("gateway", LOG_LEVEL_INFO);
}

TestSuite(log, .init = start, .timeout = 10);

static const char *written(void)
{
    ssize_t n = read(ends[0], line, sizeof line - 1);
    line[n > 0 ? n : 0] = '\0';
    return line;
}

static json_t *written_json(void)
{
    json_t *json = json_loads(written(), 0, NULL);
    cr_assert_not_null(json, "%s", line);
    cr_assert_eq(strchr(line, '\n') - line, (ptrdiff_t)strlen(line) - 1, "one line");
    return json;
}

static const char *member(const json_t *json, const char *key)
{
    return json_string_value(json_object_get(json, key));
}

Test(log, a_line_is_one_json_object)
{
    log_info("started on port %d", 3002);
    json_t *json = written_json();
    cr_assert_str_eq(member(json, "msg"), "started on port 3002");
    cr_assert_str_eq(member(json, "level"), "info");
    cr_assert_str_eq(member(json, "daemon"), "gateway");
    cr_assert_eq(strlen(member(json, "ts")), 24);
    cr_assert_eq(member(json, "ts")[23], 'Z');
    cr_assert_null(json_object_get(json, "trace"));
    json_decref(json);
}

Test(log, the_context_is_told)
{
    log_ctx_t ctx = {.trace = "0123", .sandbox = "s\"1", .request = "r\n2"};
    log_write(LOG_LEVEL_ERROR, &ctx, "x");
    json_t *json = written_json();
    cr_assert_str_eq(member(json, "trace"), "0123");
    cr_assert_str_eq(member(json, "sandbox"), "s\"1");
    cr_assert_str_eq(member(json, "request"), "r\n2");
    json_decref(json);
}

Test(log, lower_levels_are_not_written)
{
    log_debug("hidden");
    log_warn("shown");
    json_t *json = written_json();
    cr_assert_str_eq(member(json, "msg"), "shown");
    json_decref(json);
    cr_assert_not(log_is_on(LOG_LEVEL_DEBUG));
    cr_assert(log_is_on(LOG_LEVEL_ERROR));
}

Test(log, text_from_outside_cannot_forge_a_line)
{
    log_info("%s", "a\nb\"}\x1b[31m \xff \x7f");
    json_t *json = written_json();
    cr_assert_str_eq(member(json, "msg"), "a\nb\"}\x1b[31m \xef\xbf\xbd \x7f");
    json_decref(json);
    log_set_text(true);
    log_info("%s", "a\nb\x1b[31m \xff \xc2\x9b \xc3\xbc");
    const char *text = written();
    cr_assert_not_null(strstr(text, " info  gateway: a\\x0ab\\x1b[31m \\xff \\u009b \xc3\xbc\n"), "%s", text);
}

Test(log, a_long_message_is_cut_between_characters)
{
    for (int shift = 0; shift < 3; shift++) {
        auto_buf buf_t text;
        buf_init(&text, 0);
        buf_append(&text, "xx", (size_t)shift);
        for (int i = 0; i < 3000; i++)
            buf_append_str(&text, "\xe2\x82\xac");
        log_info("%s", buf_cstr(&text));
        json_t *json = written_json();
        const char *msg = member(json, "msg");
        cr_assert(strlen(msg) <= 2000 && strlen(msg) > 1997);
        cr_assert_null(strstr(msg, "\xef\xbf\xbd"));
        json_decref(json);
    }
}

Test(log, the_worst_message_still_makes_a_whole_line)
{
    auto_free char *bad = mem_alloc(5000);
    memset(bad, 1, 4999);
    log_ctx_t ctx = {.trace = bad, .sandbox = bad, .request = bad};
    log_write(LOG_LEVEL_ERROR, &ctx, "%s", bad);
    json_decref(written_json());
}

Test(log, errno_survives)
{
    errno = ENOSPC;
    log_info("x");
    cr_assert_eq(errno, ENOSPC);
}

Test(log, a_closed_stderr_stops_nobody)
{
    close(STDERR_FILENO);
    log_error("nobody reads this");
}

Test(log, levels_have_names)
{
    enum log_level level = LOG_LEVEL_DEBUG;
    cr_assert(log_level_parse("warn", &level));
    cr_assert_eq(level, LOG_LEVEL_WARN);
    cr_assert_not(log_level_parse("WARN", &level));
    cr_assert_not(log_level_parse("", &level));
}
