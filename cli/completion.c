/* SPDX-License-Identifier: Apache-2.0
 *
 * completion: a script for bash, zsh or fish, made from the command table. Workspace ids are asked from the gateway
 * when needed.
 */
#include "cli/cli.h"

#include "common/mem.h"

#include <stdio.h>
#include <string.h>

/* Groups whose `list --quiet` gives the ids that <group> stands for in arguments. */
static const char *const id_groups[] = {"workspace", "snapshot"};

static const char *ids_of(const cli_command_t *row)
{
    for (size_t i = 0; i < COUNT_OF(id_groups); i++) {
        size_t len = strlen(id_groups[i]);
        if (row->arguments[0] == '<' && strncmp(row->arguments + 1, id_groups[i], len) == 0 &&
            row->arguments[1 + len] == '>') {
            return id_groups[i];
        }
    }
    return NULL;
}

static void print_words_of(const cli_option_t *options)
{
    for (; options != NULL && options->name != NULL; options++) {
        printf(" --%s", options->name);
    }
}

static bool is_first_of_group(size_t row)
{
    const char *group = cli_command_at(row)->group;
    for (size_t i = 0; i < row; i++) {
        const char *other = cli_command_at(i)->group;
        if (group != NULL && other != NULL && strcmp(group, other) == 0) {
            return false;
        }
    }
    return true;
}

/* Words that can stand first (group NULL) or after a group's name. */
static void print_commands(const char *group)
{
    for (size_t i = 0; cli_command_at(i) != NULL; i++) {
        const cli_command_t *row = cli_command_at(i);
        if (group != NULL && row->group != NULL && strcmp(row->group, group) == 0) {
            printf(" %s", row->name);
        } else if (group == NULL && is_first_of_group(i)) {
            printf(" %s", row->group != NULL ? row->group : row->name);
        }
    }
}

/* bash, and zsh through its bashcompinit. */
static void print_bash(void)
{
    fputs("_emergent() {\n"
          "    local word=${COMP_WORDS[COMP_CWORD]} key= i\n"
          "    for ((i = 1; i < COMP_CWORD; i++)); do\n"
          "        [[ ${COMP_WORDS[i]} == -* ]] || key+=\"${COMP_WORDS[i]} \"\n"
          "    done\n"
          "    local words= ids=\n"
          "    case \"$key\" in\n"
          "    '') words='",
          stdout);
    print_commands(NULL);
    fputs("' ;;\n", stdout);
    for (size_t i = 0; cli_command_at(i) != NULL; i++) {
        const cli_command_t *row = cli_command_at(i);
        if (row->group != NULL && is_first_of_group(i)) {
            printf("    '%s ') words='", row->group);
            print_commands(row->group);
            fputs("' ;;\n", stdout);
        }
        printf("    '%s%s%s '*) words='", row->group != NULL ? row->group : "", row->group != NULL ? " " : "",
               row->name);
        print_words_of(row->options);
        fputs("'", stdout);
        const char *ids = ids_of(row);
        if (ids != NULL) {
            printf("; ids=%s", ids);
        }
        fputs(" ;;\n", stdout);
    }
    fputs("    esac\n"
          "    if [[ $word == -* ]]; then words+='",
          stdout);
    print_words_of(cli_global_options);
    fputs("'; elif [[ $ids ]]; then words+=\" $(emergent $ids list --quiet 2>/dev/null)\"; fi\n"
          "    COMPREPLY=($(compgen -W \"$words\" -- \"$word\"))\n"
          "}\n"
          "complete -o default -F _emergent emergent\n",
          stdout);
}

static void print_fish_options(const cli_command_t *row)
{
    for (const cli_option_t *o = row->options; o != NULL && o->name != NULL; o++) {
        printf("complete -c emergent -n '__fish_seen_subcommand_from %s' -l %s%s -d \"%s\"\n", row->name, o->name,
               o->value != NULL ? " -r" : "", o->doc);
    }
}

static void print_fish(void)
{
    for (size_t i = 0; cli_command_at(i) != NULL; i++) {
        const cli_command_t *row = cli_command_at(i);
        if (row->group == NULL) {
            printf("complete -c emergent -f -n __fish_use_subcommand -a %s -d \"%s\"\n", row->name, row->doc);
            print_fish_options(row);
            continue;
        }
        if (is_first_of_group(i)) {
            printf("complete -c emergent -f -n __fish_use_subcommand -a %s\n", row->group);
        }
        printf("complete -c emergent -f -n '__fish_seen_subcommand_from %s' -a %s -d \"%s\"\n", row->group, row->name,
               row->doc);
        print_fish_options(row);
    }
    for (size_t i = 0; i < COUNT_OF(id_groups); i++) {
        printf("complete -c emergent -n '__fish_seen_subcommand_from %s' -a '(emergent %s list --quiet 2>/dev/null)'\n",
               id_groups[i], id_groups[i]);
    }
    for (const cli_option_t *o = cli_global_options; o->name != NULL; o++) {
        printf("complete -c emergent -l %s%s -d \"%s\"\n", o->name, o->value != NULL ? " -r" : "", o->doc);
    }
}

int cli_completion(cli_t *c, err_t **e)
{
    const char *shell = c->args[0];
    if (strcmp(shell, "bash") == 0) {
        print_bash();
    } else if (strcmp(shell, "zsh") == 0) {
        fputs("autoload -U +X bashcompinit && bashcompinit\n", stdout);
        print_bash();
    } else if (strcmp(shell, "fish") == 0) {
        print_fish();
    } else {
        return cli_refuse(c, e, "there is completion for bash, zsh and fish, not for '%s'", shell);
    }
    return CLI_OK;
}
