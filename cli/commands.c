/* SPDX-License-Identifier: Apache-2.0
 *
 * The table of commands. Help and completion are made from it.
 */
#include "cli/cli.h"

#include "common/mem.h"

const cli_option_t cli_global_options[] = {
    {"url", 0, "URL", "the gateway; default EMERGENT_URL, else http://SERVER_ADDRESS:SERVER_PORT"},
    {"api-key", 0, "KEY", "default EMERGENT_API_KEY, STANDALONE_API_KEY, or the file $EW_STATE_DIR/api-key"},
    {"json", 'j', NULL, "print what the gateway answered, as JSON"},
    {"help", 'h', NULL, "explain the command"},
    {"version", 0, NULL, "print the version"},
    {NULL, 0, NULL, NULL},
};

static const cli_option_t create_options[] = {
    {"provider", 0, "NAME", "firecracker, gvisor, e2b (no fallback) or auto"},
    {"image", 'i', "NAME", "image of the sandbox"},
    {"network", 0, "MODE", "none or full"},
    {"cpu", 0, "N", "CPUs, as 2 or 0.5"},
    {"memory", 'm', "SIZE", "as 4G or 512M"},
    {"disk", 0, "SIZE", "as 10G"},
    {"env", 'e', "NAME=VALUE", "environment of every command; may be repeated"},
    {"repository", 'r', "URL", "repository to check out"},
    {"branch", 'b', "NAME", "branch, tag or commit of it"},
    {"session", 0, "UUID", "agent session to attach"},
    {"type", 0, "TYPE", "agent_workspace (default) or mcp_server"},
    {"mode", 0, "MODE", "managed or self-hosted"},
    {"metadata", 0, "JSON", "an object kept with the workspace"},
    {"mcp-config", 0, "JSON", "mcp_server: its configuration"},
    {"cold", 0, NULL, "never take a warm sandbox"},
    {"wait", 'w', "SECONDS", "how long to wait until it is ready, default 120"},
    {"no-wait", 0, NULL, "return at once"},
    {NULL, 0, NULL, NULL},
};
static const cli_option_t list_options[] = {
    {"status", 's', "STATUS", "creating, ready, stopping, stopped or error"},
    {"provider", 0, "NAME", "only of this provider"},
    {"type", 0, "TYPE", "agent_workspace or mcp_server"},
    {"session", 0, "UUID", "attached to this session"},
    {"limit", 'n', "N", "most rows"},
    {"quiet", 'q', NULL, "ids only"},
    {NULL, 0, NULL, NULL},
};
static const cli_option_t delete_options[] = {
    {"force", 'f', NULL, "forget it when its provider daemon is not there"},
    {NULL, 0, NULL, NULL},
};
static const cli_option_t stop_options[] = {
    {"without-processes", 0, NULL, "end the processes, keep the files only"},
    {NULL, 0, NULL, NULL},
};
static const cli_option_t attach_options[] = {
    {"reason", 0, "TEXT", "kept in the history of sessions"},
    {NULL, 0, NULL, NULL},
};
static const cli_option_t detach_options[] = {
    {"session", 0, "UUID", "only when this session holds it"},
    {"reason", 0, "TEXT", "kept in the history of sessions"},
    {NULL, 0, NULL, NULL},
};
static const cli_option_t fork_options[] = {
    {"count", 'n', "N", "how many copies, default 1"},
    {"without-processes", 0, NULL, "copy the files only"},
    {"env", 'e', "NAME=VALUE", "environment of commands in the copies; may be repeated"},
    {"metadata", 0, "JSON", "an object kept with each copy"},
    {NULL, 0, NULL, NULL},
};
static const cli_option_t set_options[] = {
    {"ttl", 0, "SECONDS", "life after its last use; 0 = the default again"},
    {"metadata", 0, "JSON", "merged into the metadata; null removes a key"},
    {NULL, 0, NULL, NULL},
};
static const cli_option_t sessions_options[] = {
    {"limit", 'n', "N", "most rows"},
    {NULL, 0, NULL, NULL},
};
static const cli_option_t snapshot_create_options[] = {
    {"name", 0, "NAME", "for people; need not be unique"},
    {"description", 0, "TEXT", "for people"},
    {"without-processes", 0, NULL, "files only"},
    {"ttl", 0, "SECONDS", "removed after this"},
    {NULL, 0, NULL, NULL},
};
static const cli_option_t snapshot_list_options[] = {
    {"workspace", 'w', "ID", "only of this workspace"},
    {"provider", 0, "NAME", "only of this provider"},
    {"status", 's', "STATUS", "creating, ready, error or deleting"},
    {"limit", 'n', "N", "most rows"},
    {"quiet", 'q', NULL, "ids only"},
    {NULL, 0, NULL, NULL},
};
static const cli_option_t restore_options[] = {
    {"provider", 0, "NAME", "must be the snapshot's own"},
    {"cpu", 0, "N", "CPUs, as 2 or 0.5; default the snapshot's"},
    {"memory", 'm', "SIZE", "as 4G or 512M; default the snapshot's"},
    {"disk", 0, "SIZE", "as 10G; cannot be less than the snapshot's"},
    {"env", 'e', "NAME=VALUE", "environment of commands started from now on; may be repeated"},
    {"session", 0, "UUID", "agent session to attach"},
    {"mode", 0, "MODE", "managed or self-hosted"},
    {"metadata", 0, "JSON", "an object kept with the workspace"},
    {NULL, 0, NULL, NULL},
};
static const cli_option_t audit_options[] = {
    {"workspace", 'w', "ID", "only of this workspace, which may be gone"},
    {"operation", 'o', "NAME", "such as bash, create or expire"},
    {"status", 's', "STATUS", "HTTP status such as 404, or a class such as 4xx"},
    {"from", 0, "TIME", "RFC 3339; from then on"},
    {"to", 0, "TIME", "RFC 3339; before then"},
    {"session", 0, "UUID", "while this session held the workspace"},
    {"limit", 'n', "N", "most lines, default 100"},
    {"all-owners", 0, NULL, "with the standalone key: the lines of every owner"},
    {NULL, 0, NULL, NULL},
};
static const cli_option_t exec_options[] = {
    {"workdir", 'C', "DIR", "default /workspace"},
    {"timeout", 't', "SECONDS", "then the whole process tree is killed; default 120"},
    {"env", 'e', "NAME=VALUE", "may be repeated"},
    {"user", 'u', "USER", "name or uid[:gid]; default the sandbox's root"},
    {"stdin", 'i', NULL, "give our standard input to the command"},
    {"background", 'd', NULL, "return at once and print the process id"},
    {NULL, 0, NULL, NULL},
};
static const cli_option_t read_options[] = {
    {"offset", 'o', "N", "first line, from 1"},
    {"limit", 'n', "N", "number of lines"},
    {"raw", 0, NULL, "the exact bytes, without line numbers"},
    {NULL, 0, NULL, NULL},
};
static const cli_option_t write_options[] = {
    {"content", 'c', "TEXT", "the new content; default: standard input"},
    {"content-file", 'f', "FILE", "take it from this local file"},
    {"sync", 0, NULL, "fsync before it takes its name"},
    {NULL, 0, NULL, NULL},
};
static const cli_option_t edit_options[] = {
    {"old", 0, "TEXT", "what to replace, exactly"},
    {"old-file", 0, "FILE", "take it from this local file"},
    {"new", 0, "TEXT", "what takes its place; default nothing"},
    {"new-file", 0, "FILE", "take it from this local file"},
    {"all", 'a', NULL, "every match; else exactly one must match"},
    {"expect-sha256", 0, "HASH", "refuse unless the file has this hash"},
    {NULL, 0, NULL, NULL},
};
static const cli_option_t glob_options[] = {
    {"path", 'p', "DIR", "where to search, default /workspace"},
    {"limit", 'n', "N", "most matches"},
    {"git", 0, NULL, "search .git too"},
    {NULL, 0, NULL, NULL},
};
static const cli_option_t grep_options[] = {
    {"path", 'p', "PATH", "a file or tree, default /workspace"},
    {"include", 0, "GLOB", "only files named so, as *.c"},
    {"ignore-case", 'i', NULL, "match without regard to case"},
    {"limit", 'n', "N", "most matching lines"},
    {"git", 0, NULL, "search .git too"},
    {NULL, 0, NULL, NULL},
};
static const cli_option_t git_options[] = {
    {"message", 'm', "TEXT", "commit: the message"}, {"branch", 'b', "NAME", "checkout: the branch"},
    {"workdir", 'C', "DIR", "default /workspace"},   {"limit", 'n', "N", "log: number of commits"},
    {"author-name", 0, "NAME", "commit: identity"},  {"author-email", 0, "MAIL", "commit: identity"},
    {"user", 'u', "USER", "user to run git as"},     {NULL, 0, NULL, NULL},
};
static const cli_option_t logs_options[] = {
    {"follow", 'f', NULL, "go on until the process ends; the exit code is its"},
    {NULL, 0, NULL, NULL},
};
static const cli_option_t kill_options[] = {
    {"signal", 's', "NAME", "default SIGTERM"},
    {"only-first", 0, NULL, "only the first process, not its tree"},
    {NULL, 0, NULL, NULL},
};
static const cli_option_t pool_options[] = {
    {"image", 'i', "NAME", "image of the sandboxes"},
    {"disk", 0, "SIZE", "as 10G"},
    {"network", 0, "MODE", "none or full"},
    {"provider", 0, "NAME", "only this provider"},
    {NULL, 0, NULL, NULL},
};
static const cli_option_t key_options[] = {
    {"scope", 's', "SCOPE", "admin:read or admin:write, may be repeated; default both"},
    {"owner", 'o', "NAME", "whose workspaces it sees"},
    {"expires", 0, "TIME", "RFC 3339"},
    {NULL, 0, NULL, NULL},
};
static const cli_option_t keygen_options[] = {
    {"dir", 'd', "DIR", "where the two files go, default here"},
    {"force", 'f', NULL, "replace existing ones"},
    {NULL, 0, NULL, NULL},
};
static const cli_option_t version_options[] = {
    {"server", 0, NULL, "ask the gateway too"},
    {NULL, 0, NULL, NULL},
};
static const cli_option_t health_options[] = {
    {"ready", 0, NULL, "fail unless workspaces can be made"},
    {NULL, 0, NULL, NULL},
};

/* group, name, arguments, least, most, options end, options, function, doc */
static const cli_command_t commands[] = {
    {"workspace", "create", "[options]", 0, 0, 0, create_options, cli_workspace_create,
     "make a workspace and print its id"},
    {"workspace", "list", "[options]", 0, 0, 0, list_options, cli_workspace_list, "list workspaces, newest first"},
    {"workspace", "show", "<workspace>", 1, 1, 0, NULL, cli_workspace_show, "show one workspace"},
    {"workspace", "delete", "<workspace>…", 1, -1, 0, delete_options, cli_workspace_delete,
     "destroy workspaces with everything in them"},
    {"workspace", "stop", "<workspace>", 1, 1, 0, stop_options, cli_workspace_stop,
     "keep files and processes on disk and free the memory"},
    {"workspace", "resume", "<workspace>", 1, 1, 0, NULL, cli_workspace_resume, "let a stopped workspace go on"},
    {"workspace", "attach", "<workspace> <session>", 2, 2, 0, attach_options, cli_workspace_attach,
     "give a workspace to an agent session"},
    {"workspace", "detach", "<workspace>", 1, 1, 0, detach_options, cli_workspace_detach,
     "take a workspace back from its session"},
    {"workspace", "fork", "<workspace>", 1, 1, 0, fork_options, cli_workspace_fork,
     "copy a workspace and print the ids of the copies"},
    {"workspace", "set", "<workspace>", 1, 1, 0, set_options, cli_workspace_set, "change its life time or metadata"},
    {"workspace", "sessions", "<workspace>", 1, 1, 0, sessions_options, cli_workspace_sessions,
     "list the sessions that held a workspace"},
    {"workspace", "exec", "<workspace> [options] [--] <command>…", 2, -1, 1, exec_options, cli_workspace_exec,
     "run a command: one argument is shell text, several are exact words"},
    {"workspace", "read", "<workspace> <path>", 2, 2, 0, read_options, cli_workspace_read,
     "print a file with line numbers, or a directory"},
    {"workspace", "write", "<workspace> <path>", 2, 2, 0, write_options, cli_workspace_write, "write a whole file"},
    {"workspace", "edit", "<workspace> <path> --old TEXT --new TEXT", 2, 2, 0, edit_options, cli_workspace_edit,
     "replace an exact text in a file"},
    {"workspace", "glob", "<workspace> <pattern>", 2, 2, 0, glob_options, cli_workspace_glob,
     "find files, newest first"},
    {"workspace", "grep", "<workspace> <pattern>", 2, 2, 0, grep_options, cli_workspace_grep,
     "find lines by regular expression"},
    {"workspace", "git", "<workspace> <action> [file…]", 2, -1, 0, git_options, cli_workspace_git,
     "status, diff, log, add, reset, commit, checkout, branch"},
    {"workspace", "cp", "<from> <to>", 2, 2, 0, NULL, cli_workspace_cp,
     "copy a file: one side is <workspace>:<path>, - is a pipe"},
    {"workspace", "ps", "<workspace>", 1, 1, 0, NULL, cli_workspace_ps, "list background processes"},
    {"workspace", "logs", "<workspace> <process>", 2, 2, 0, logs_options, cli_workspace_logs,
     "print a process's output"},
    {"workspace", "kill", "<workspace> <process>", 2, 2, 0, kill_options, cli_workspace_kill,
     "signal a process and its tree"},
    {"snapshot", "create", "<workspace>", 1, 1, 0, snapshot_create_options, cli_snapshot_create,
     "take a snapshot and print its id"},
    {"snapshot", "list", "", 0, 0, 0, snapshot_list_options, cli_snapshot_list, "list snapshots, newest first"},
    {"snapshot", "show", "<snapshot>", 1, 1, 0, NULL, cli_snapshot_show, "show one snapshot"},
    {"snapshot", "delete", "<snapshot>…", 1, -1, 0, NULL, cli_snapshot_delete, "delete snapshots"},
    {"snapshot", "restore", "<snapshot>", 1, 1, 0, restore_options, cli_snapshot_restore,
     "make a workspace from a snapshot and print its id"},
    {NULL, "audit", "[verify]", 0, 1, 0, audit_options, cli_audit,
     "show what was done, newest first; verify: check the chain of hashes"},
    {NULL, "providers", "", 0, 0, 0, NULL, cli_providers, "list providers, their health and room"},
    {"pool", "list", "", 0, 0, 0, NULL, cli_pool_list, "list warm pools"},
    {"pool", "set", "<size>", 1, 1, 0, pool_options, cli_pool_set, "keep so many sandboxes of a shape ready; 0 = none"},
    {"pool", "reset", "", 0, 0, 0, NULL, cli_pool_reset, "back to the warm pool of the configuration"},
    {"key", "create", "<name>", 1, 1, 0, key_options, cli_key_create, "make an API key and print it once"},
    {"key", "list", "", 0, 0, 0, NULL, cli_key_list, "list API keys"},
    {"key", "delete", "<id>", 1, 1, 0, NULL, cli_key_delete, "revoke an API key"},
    {NULL, "keygen", "<instance name>", 1, 1, 0, keygen_options, cli_keygen,
     "make a CURVE certificate for a daemon: public and secret file"},
    {NULL, "version", "", 0, 0, 0, version_options, cli_version, "print the version"},
    {NULL, "health", "", 0, 0, 0, health_options, cli_health, "ask the gateway how it is"},
    {NULL, "completion", "bash|zsh|fish", 1, 1, 0, NULL, cli_completion, "print a completion script"},
};

const cli_command_t *cli_command_at(size_t i)
{
    return i < COUNT_OF(commands) ? &commands[i] : NULL;
}
