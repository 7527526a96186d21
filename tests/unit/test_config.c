// SPDX-License-Identifier: Apache-2.0
#include "common/config.h"

#include "common/config_rows.h"
#include "common/file.h"
#include "common/mem.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <unistd.h>

static config_t c;
static err_t *e;

static void start(void)
{
    for (size_t i = 0; config_row_at(i) != NULL; i++)
        unsetenv(config_row_at(i)->name);
    c = (config_t){0};
    e = NULL;
}

static void stop(void)
{
    config_free(&c);
    err_free(&e);
}

TestSuite(config, .init = start, .fini = stop, .timeout = 10);

static int load_text(const char *text)
{
    return config_load_text(&c, CONFIG_ALL, "test.conf", text, strlen(text), &e);
}

Test(config, without_anything_the_defaults_hold)
{
    cr_assert_eq(config_load(&c, CONFIG_ALL, &e), 0, "%s", err_message(e));
    cr_assert_eq(c.server_port, 3002);
    cr_assert_str_eq(c.server_address, "127.0.0.1");
    cr_assert_str_eq(c.log_level, "info");
    cr_assert(c.standalone_mode);
    cr_assert_str_eq(c.default_memory, "4G");
}

Test(config, directories_follow_from_the_state_directory)
{
    auto_free char *cwd = getcwd(NULL, 0);
    auto_free char *state = mem_printf("%s/var", cwd);
    cr_assert_eq(load_text("EW_STATE_DIR = ./var//\n"), 0);
    cr_assert_str_eq(c.state_dir, state);
    auto_free char *images = mem_printf("%s/images", state);
    auto_free char *run = mem_printf("%s/run", state);
    cr_assert_str_eq(c.image_dir, images);
    cr_assert_str_eq(c.run_dir, run);
    cr_assert_gt(strlen(c.node), 0);
}

Test(config, the_environment_wins_over_the_file)
{
    setenv("SERVER_PORT", "4000", 1);
    cr_assert_eq(load_text("# comment\n\nSERVER_PORT = 5000\r\n  LOG_LEVEL=debug  \nEW_NODE = \"a # b \"\n"), 0);
    cr_assert_eq(c.server_port, 4000);
    cr_assert_str_eq(c.log_level, "debug");
    cr_assert_str_eq(c.node, "a # b ");
}

Test(config, an_empty_value_means_the_default)
{
    setenv("WORKSPACE_DEFAULT_CPU", "", 1);
    cr_assert_eq(load_text("SERVER_PORT =\nLOG_LEVEL = \"\"\n"), 0);
    cr_assert_str_eq(c.default_cpu, "2");
    cr_assert_eq(c.server_port, 3002);
    cr_assert_str_eq(c.log_level, "info");
}

Test(config, keys_of_other_daemons_in_the_file_are_fine_and_not_kept)
{
    const char *text = "E2B_API_KEY = topsecret\nSERVER_PORT = 70000\n";
    cr_assert_eq(config_load_text(&c, CONFIG_GVISORD, "f", text, strlen(text), &e), 0, "%s", err_message(e));
    cr_assert_str_eq(c.e2b_api_key, "");
    cr_assert_eq(c.server_port, 3002);
}

Test(config, refuses_and_names_the_key_and_what_is_allowed)
{
    static const struct {
        const char *text;
        const char *message;
    } rows[] = {
        {"SERVER_PORT = 70000", "SERVER_PORT is \"70000\" (test.conf:1): must be a whole number from 0 to 65535"},
        {"SERVER_PORT = 80x", "SERVER_PORT is \"80x\" (test.conf:1): must be a whole number from 0 to 65535"},
        {"\nWORKSPACE_MAX_CONCURRENT = 0",
         "WORKSPACE_MAX_CONCURRENT is \"0\" (test.conf:2): must be a whole number from 1 to 1000000"},
        {"LOG_LEVEL = loud", "LOG_LEVEL is \"loud\" (test.conf:1): must be one of info|debug|warn|error"},
        {"LOG_LEVEL = inf", "LOG_LEVEL is \"inf\" (test.conf:1): must be one of info|debug|warn|error"},
        {"STANDALONE_MODE = maybe", "STANDALONE_MODE is \"maybe\" (test.conf:1): must be true or false"},
        {"WORKSPACE_DEFAULT_MEMORY = lots",
         "WORKSPACE_DEFAULT_MEMORY is \"lots\" (test.conf:1): must be a size such as 512M or 4G, and not zero"},
        {"WORKSPACE_DEFAULT_CPU = 0",
         "WORKSPACE_DEFAULT_CPU is \"0\" (test.conf:1): must be a number of CPUs such as 2 or 0.5, at most 1024"},
        {"SERVER_PROT = 1", "test.conf:1: unknown key SERVER_PROT, did you mean SERVER_PORT?"},
        {"ZZZZZZ = 1", "test.conf:1: unknown key ZZZZZZ (--config-reference lists all keys)"},
        {"DEBUG = true",
         "test.conf:1: DEBUG has no meaning here (no switch opens development logins; see LOG_LEVEL): remove the line"},
        {"just text", "test.conf:1: expected NAME = value, or a comment after #"},
        {"= x", "test.conf:1: expected NAME = value, or a comment after #"},
        {"lower = x", "test.conf:1: expected NAME = value, or a comment after #"},
        {"EW_NODE = \"open", "test.conf:1: the value of EW_NODE has no closing quote"},
        {"EW_NODE = \"", "test.conf:1: the value of EW_NODE has no closing quote"},
        {"EW_NODE = a\nEW_NODE = b", "test.conf:2: EW_NODE is already set in line 1"},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        cr_expect_eq(load_text(rows[i].text), -1, "%s", rows[i].text);
        cr_expect_str_eq(err_message(e), rows[i].message);
        cr_expect_eq(err_code(e), ERR_BAD_REQUEST);
        err_free(&e);
    }
}

Test(config, an_error_from_the_environment_says_so)
{
    setenv("SERVER_PORT", "x", 1);
    cr_assert_eq(config_load(&c, CONFIG_ALL, &e), -1);
    cr_assert_str_eq(err_message(e), "SERVER_PORT is \"x\" (environment): must be a whole number from 0 to 65535");
    err_free(&e);
    cr_assert_eq(config_load(&c, CONFIG_GVISORD, &e), 0, "not read by this daemon");
}

Test(config, a_file_with_nul_is_refused)
{
    cr_assert_eq(config_load_text(&c, CONFIG_ALL, "f", "EW_NODE=a\0b", 11, &e), -1);
    cr_assert_str_eq(err_message(e), "f: not a text file: NUL byte at offset 9");
}

Test(config, sockets_need_a_short_run_directory)
{
    auto_free char *text = mem_printf("EW_RUN_DIR = /%0200d\n", 1);
    cr_assert_eq(load_text(text), -1);
    cr_assert_not_null(strstr(err_message(e), "EW_RUN_DIR"));
}

Test(config, reads_the_file_that_ew_config_names)
{
    char path[] = "/tmp/ew-config-XXXXXX";
    close(mkstemp(path));
    cr_assert_eq(file_write_atomic(path, "SERVER_PORT=81\n", 15, 0600, &e), 0);
    setenv("EW_CONFIG", path, 1);
    cr_assert_eq(config_load(&c, CONFIG_ALL, &e), 0, "%s", err_message(e));
    cr_assert_eq(c.server_port, 81);
    cr_assert_str_eq(c.config_file, path);
    unlink(path);
    config_free(&c);
    cr_assert_eq(config_load(&c, CONFIG_ALL, &e), -1);
    cr_assert_eq(err_code(e), ERR_NOT_FOUND);
}

Test(config, printing_shows_no_secret)
{
    auto_buf buf_t out;
    buf_init(&out, 0);
    setenv("STANDALONE_API_KEY", "topsecret", 1);
    cr_assert_eq(config_load(&c, CONFIG_GATEWAY, &e), 0);
    config_print(&c, CONFIG_GATEWAY, &out);
    const char *text = buf_cstr(&out);
    cr_assert_null(strstr(text, "topsecret"));
    cr_assert_not_null(strstr(text, "STANDALONE_API_KEY = (set)\n"));
    cr_assert_not_null(strstr(text, "DATABASE_URL = (not set)\n"));
    cr_assert_not_null(strstr(text, "SERVER_PORT = 3002\n"));
    cr_assert_null(strstr(text, "RUNSC_BIN"), "not a key of the gateway");
}

Test(config, the_reference_tells_every_key_and_every_dropped_one)
{
    auto_buf buf_t out;
    buf_init(&out, 0);
    config_reference(&out);
    for (size_t i = 0; config_row_at(i) != NULL; i++) {
        auto_free char *cell = mem_printf("| `%s` |", config_row_at(i)->name);
        cr_expect_not_null(strstr(buf_cstr(&out), cell), "%s", cell);
    }
    for (size_t i = 0; config_dropped_at(i) != NULL; i++)
        cr_expect_not_null(strstr(buf_cstr(&out), config_dropped_at(i)->name));
}

Test(config, no_key_is_both_a_row_and_dropped_and_none_stands_twice)
{
    for (size_t i = 0; config_row_at(i) != NULL; i++) {
        for (size_t j = 0; config_dropped_at(j) != NULL; j++)
            cr_expect_str_neq(config_row_at(i)->name, config_dropped_at(j)->name);
        for (size_t j = 0; j < i; j++)
            cr_expect_str_neq(config_row_at(i)->name, config_row_at(j)->name);
    }
}
