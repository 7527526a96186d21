/* SPDX-License-Identifier: Apache-2.0
 *
 * The command line against the table: global options may stand anywhere before `--`.
 */
#include "cli/cli.h"

#include "common/mem.h"
#include "common/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const cli_option_t *option_by_name(const cli_option_t *list, const char *name, size_t len)
{
    for (; list != NULL && list->name != NULL; list++) {
        if (strlen(list->name) == len && memcmp(list->name, name, len) == 0) {
            return list;
        }
    }
    return NULL;
}

static const cli_option_t *option_by_letter(const cli_option_t *list, char letter)
{
    for (; list != NULL && list->name != NULL; list++) {
        if (list->letter != 0 && list->letter == letter) {
            return list;
        }
    }
    return NULL;
}

static int keep(cli_t *c, const cli_option_t *option, const char *value, err_t **e)
{
    if (c->given_count == CLI_OPTIONS_MAX) {
        return err_set(e, ERR_BAD_REQUEST, "more than %d options", CLI_OPTIONS_MAX);
    }
    c->given[c->given_count].name = option->name;
    c->given[c->given_count++].value = value;
    return 0;
}

/* One argument that begins with a dash. *used = arguments taken, 1 or 2. */
static int take_option(cli_t *c, char **argv, int left, int *used, err_t **e)
{
    const cli_option_t *own = c->command != NULL ? c->command->options : NULL;
    const char *text = argv[0];
    const cli_option_t *option;
    const char *value = NULL;
    *used = 1;
    if (text[1] == '-') {
        const char *equals = strchr(text, '=');
        size_t len = equals != NULL ? (size_t)(equals - text - 2) : strlen(text + 2);
        option = option_by_name(own, text + 2, len);
        option = option != NULL ? option : option_by_name(cli_global_options, text + 2, len);
        value = equals != NULL ? equals + 1 : NULL;
    } else {
        option = option_by_letter(own, text[1]);
        option = option != NULL ? option : option_by_letter(cli_global_options, text[1]);
        value = text[2] != '\0' ? text + 2 : NULL;
    }
    if (option == NULL) {
        return err_set(e, ERR_BAD_REQUEST, "unknown option %s", text);
    }
    if (option->value == NULL) {
        return value == NULL ? keep(c, option, "", e)
                             : err_set(e, ERR_BAD_REQUEST, "option --%s takes no value", option->name);
    }
    if (value == NULL) {
        if (left < 2) {
            return err_set(e, ERR_BAD_REQUEST, "option --%s needs a value: %s", option->name, option->value);
        }
        value = argv[1];
        *used = 2;
    }
    return keep(c, option, value, e);
}

static bool is_group(const char *word)
{
    for (size_t i = 0; cli_command_at(i) != NULL; i++) {
        const char *group = cli_command_at(i)->group;
        if (group != NULL && strcmp(group, word) == 0) {
            return true;
        }
    }
    return false;
}

static const cli_command_t *find_command(const char *group, const char *name)
{
    for (size_t i = 0; cli_command_at(i) != NULL; i++) {
        const cli_command_t *row = cli_command_at(i);
        bool same_group = group == NULL ? row->group == NULL : row->group != NULL && strcmp(row->group, group) == 0;
        if (same_group && strcmp(row->name, name) == 0) {
            return row;
        }
    }
    return NULL;
}

/* A word: part of the command's name, or an argument. */
static int take_word(cli_t *c, const char **group, char *word, err_t **e)
{
    if (c->command != NULL) {
        c->args[c->arg_count++] = word;
        return 0;
    }
    if (*group == NULL && is_group(word)) {
        *group = word;
        return 0;
    }
    c->command = find_command(*group, word);
    if (c->command == NULL) {
        return err_set(e, ERR_BAD_REQUEST, "unknown command '%s%s%s'; see emergent --help",
                       *group != NULL ? *group : "", *group != NULL ? " " : "", word);
    }
    return 0;
}

static int check_count(const cli_t *c, err_t **e)
{
    const cli_command_t *row = c->command;
    if (c->arg_count >= row->min_args && (row->max_args < 0 || c->arg_count <= row->max_args)) {
        return 0;
    }
    return err_set(e, ERR_BAD_REQUEST, "usage: emergent %s%s%s %s", row->group != NULL ? row->group : "",
                   row->group != NULL ? " " : "", row->name, row->arguments);
}

int cli_parse(cli_t *c, int argc, char **argv, bool *wants_help, err_t **e)
{
    const char *group = NULL;
    bool options_over = false;
    c->args = mem_alloc_array((size_t)argc + 1, sizeof(*c->args));
    for (int i = 1; i < argc;) {
        char *word = argv[i];
        bool is_over = options_over ||
                       (c->command != NULL && c->command->options_end > 0 && c->arg_count > c->command->options_end);
        if (!options_over && strcmp(word, "--") == 0) {
            options_over = true;
            i++;
        } else if (!is_over && word[0] == '-' && word[1] != '\0') {
            int used;
            if (take_option(c, argv + i, argc - i, &used, e) != 0) {
                return -1;
            }
            i += used;
        } else {
            if (take_word(c, &group, word, e) != 0) {
                return -1;
            }
            i++;
        }
    }
    c->is_json = cli_option(c, "json") != NULL;
    *wants_help = c->command == NULL || cli_option(c, "help") != NULL;
    if (c->command == NULL && cli_option(c, "version") != NULL) {
        c->command = find_command(NULL, "version");
        *wants_help = false;
    }
    return *wants_help ? 0 : check_count(c, e);
}

const char *cli_option(const cli_t *c, const char *name)
{
    const char *value = NULL;
    for (size_t i = 0; i < c->given_count; i++) {
        if (strcmp(c->given[i].name, name) == 0) {
            value = c->given[i].value;
        }
    }
    return value;
}

const char *cli_option_next(const cli_t *c, const char *name, size_t *at)
{
    while (*at < c->given_count) {
        size_t i = (*at)++;
        if (strcmp(c->given[i].name, name) == 0) {
            return c->given[i].value;
        }
    }
    return NULL;
}

int cli_option_int(cli_t *c, const char *name, int64_t otherwise, int64_t *value, err_t **e)
{
    const char *text = cli_option(c, name);
    *value = otherwise;
    if (text != NULL && !text_to_i64(text, value)) {
        return cli_refuse(c, e, "--%s must be a whole number, not '%s'", name, text);
    }
    return 0;
}

int cli_refuse(cli_t *c, err_t **e, const char *fmt, ...)
{
    va_list args;
    char *text = NULL;
    va_start(args, fmt);
    int len = vasprintf(&text, fmt, args);
    va_end(args);
    c->is_usage = true;
    err_set(e, ERR_BAD_REQUEST, "%s", len < 0 ? fmt : text);
    free(len < 0 ? NULL : text);
    return -1;
}

void cli_set_text(const cli_t *c, json_t *body, const char *option, const char *field)
{
    const char *value = cli_option(c, option);
    if (value != NULL) {
        json_object_set_new(body, field, json_string(value));
    }
}

int cli_set_int(cli_t *c, json_t *body, const char *option, const char *field, err_t **e)
{
    int64_t value;
    if (cli_option_int(c, option, 0, &value, e) != 0) {
        return -1;
    }
    if (cli_option(c, option) != NULL) {
        json_object_set_new(body, field, json_integer(value));
    }
    return 0;
}

void cli_set_switch(const cli_t *c, json_t *body, const char *option, const char *field)
{
    if (cli_option(c, option) != NULL) {
        json_object_set_new(body, field, json_true());
    }
}

int cli_set_json(cli_t *c, json_t *body, const char *option, const char *field, err_t **e)
{
    const char *text = cli_option(c, option);
    json_error_t why;
    json_t *value = text == NULL ? NULL : json_loads(text, 0, &why);
    if (text != NULL && value == NULL) {
        return cli_refuse(c, e, "--%s is not JSON: %s at column %d", option, why.text, why.column);
    }
    if (value != NULL) {
        json_object_set_new(body, field, value);
    }
    return 0;
}

static void print_options(const cli_option_t *options, buf_t *out)
{
    for (; options != NULL && options->name != NULL; options++) {
        char letter[5] = "    ";
        if (options->letter != 0) {
            memcpy(letter, (char[]){'-', options->letter, ',', ' '}, 4);
        }
        auto_free char *name = mem_printf("--%s%s%s", options->name, options->value != NULL ? " " : "",
                                          options->value != NULL ? options->value : "");
        buf_printf(out, "  %s%-26s %s\n", letter, name, options->doc);
    }
}

void cli_print_help(const cli_t *c, buf_t *out)
{
    const cli_command_t *row = c->command;
    if (row != NULL) {
        buf_printf(out, "usage: emergent %s%s%s %s\n\n%s\n", row->group != NULL ? row->group : "",
                   row->group != NULL ? " " : "", row->name, row->arguments, row->doc);
        if (row->options != NULL) {
            buf_append_str(out, "\noptions:\n");
            print_options(row->options, out);
        }
    } else {
        buf_append_str(out, "usage: emergent <command> …\n\ncommands:\n");
        for (size_t i = 0; (row = cli_command_at(i)) != NULL; i++) {
            auto_free char *name =
                mem_printf("%s%s%s", row->group != NULL ? row->group : "", row->group != NULL ? " " : "", row->name);
            buf_printf(out, "  %-20s %s\n", name, row->doc);
        }
    }
    buf_append_str(out, "\neverywhere:\n");
    print_options(cli_global_options, out);
    buf_append_str(out,
                   "\nexit codes: 0 done, 1 refused or failed, 2 usage, 3 gateway not reachable, 130 interrupted;\n"
                   "`workspace exec`: that of the command, 124 after its timeout, 125 when the suite failed\n");
}
