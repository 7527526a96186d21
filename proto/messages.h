/* SPDX-License-Identifier: Apache-2.0
 *
 * Every message, as rows. From this file come the structs (`struct <name>`, with `has.<field>`), the
 * message ids (`MSG_<name>`), the codec's tables, the REST bodies, the JSON schemas and docs/protocol.md.
 *
 * A row: F(kind, name, maximum, flags, extra, "what it means"). Kinds, flags and `extra` are in proto/proto.h. Rows
 * only grow at the end of a message; a row never changes its meaning. At most 64 rows a message.
 */
#ifndef EW_PROTO_MESSAGES_H
#define EW_PROTO_MESSAGES_H

#include "proto/proto.h"

#define MAX_PATH 4095
#define MAX_COMMAND 131071 /* the kernel takes no longer single argument */
#define MAX_TEXT 65536
#define MAX_TIMEOUT_MS 86400000        /* one day */
#define MAX_CONTENT (32 * 1024 * 1024) /* write and edit; larger files go through PUT …/files */
#define MAX_ANY UINT64_MAX
#define MAX_INT INT64_MAX

/* ------------------------------------------------------------------ links and streams */

#define FIELDS_hello(F)                                                                          \
    F(STR, protocol, 32, REQ, "", "always `emergent-workspaces`")                                \
    F(U32, version, 65535, REQ, "", "protocol version, must be equal on both sides")             \
    F(STR, role, 32, REQ, "", "`gateway`, `gvisord`, `fcmgr`, `e2bproxy`, `mcphost`, `gitsync`") \
    F(STR, node, 255, REQ, "", "host name, or EW_NODE")                                          \
    F(STR, instance, 64, REQ, "", "changes with every start of the daemon")                      \
    F(STR, release, 64, REQ, "", "software release, for logs")                                   \
    F(MSG, provider, 65536, 0, "provider_status", "what the sender can do, when it is a provider")

#define FIELDS_error(F)                                                          \
    F(STR, code, 64, REQ, "", "one of the error codes")                          \
    F(STR, message, 1000, REQ, "", "for a person: what failed, why, what to do") \
    F(JSON, details, 8192, 0, "", "more facts as a JSON object")

#define FIELDS_resync(F)                                                                \
    F(BULK, nonce, 16, REQ, "", "16 random bytes, repeated in MARKER")                  \
    F(U64, epoch, MAX_ANY, REQ, "", "grows with every open of this stream")             \
    F(U64, realtime_ns, MAX_ANY, REQ, "", "host clock; the agent sets its own from it") \
    F(BULK, entropy, 32, REQ, "", "mixed into the sandbox's random pool")               \
    F(STR, machine_id, 32, 0, "", "32 hexadecimal digits for /etc/machine-id")          \
    F(STR, hostname, 64, 0, "", "the sandbox's host name")                              \
    F(U32, pids_max, 4194304, 0, "", "limit of processes in the sandbox")               \
    F(U64, memory_budget_bytes, MAX_ANY, 0, "", "limit of memory, for PRESSURE")        \
    F(BOOL, is_continued, 1, 0, "", "this daemon read all up to QUIESCED: calls go on where they were")

#define FIELDS_adopted_call(F)                    \
    F(U64, call_id, MAX_ANY, REQ, "", "the call") \
    F(U32, verb, 65535, REQ, "", "its verb")      \
    F(STR, state, 16, REQ, "running|finished|lost", "lost: the reply was dropped to make room")

#define FIELDS_adopt(F)                                                                             \
    F(STR, agent_release, 64, REQ, "", "the agent's software release")                              \
    F(U32, version, 65535, REQ, "", "protocol version of the agent")                                \
    F(STR, kill_tree, 16, REQ, "cgroup|best_effort", "how surely a command's whole tree is killed") \
    F(LIST, programs, 64, 0, "", "programs found: bash, sh, git, python3, node")                    \
    F(MSGS, calls, 4096, 0, "adopted_call", "calls the agent knows")                                \
    F(U64, boot_epoch, MAX_ANY, REQ, "", "differs after every start of the agent")

#define FIELDS_pressure(F)                               \
    F(STR, resource, 16, REQ, "memory", "what is short") \
    F(U64, used_bytes, MAX_ANY, 0, "", "as the host counts")

#define FIELDS_notice(F)                                             \
    F(STR, type, 32, REQ, "oom_kill|process_end", "what happened")   \
    F(U32, process_id, MAX_ANY, 0, "", "the process it happened to") \
    F(STR, detail, 512, 0, "", "for a person")

#define FIELDS_empty(F) F(BOOL, unused, 1, PROTO_HIDE, "", "nothing: a message without content")

/* ------------------------------------------------------------------ tools */

#define FIELDS_bash_request(F)                                                                                \
    F(STR, command, MAX_COMMAND, REQ | PROTO_NONEMPTY | PROTO_SECRET, "",                                     \
      "run by /bin/bash -c, or /bin/sh -c where there is no bash")                                            \
    F(STR, workdir, MAX_PATH, 0, "", "default /workspace")                                                    \
    F(I64, timeout_ms, MAX_TIMEOUT_MS, 0, "", "0 or absent: 120000; then TERM, 5 s, KILL to the whole tree")  \
    F(MAP, env, 512, 0, "131072", "added to the sandbox's environment")                                       \
    F(STR, user, 64, 0, "", "name or uid[:gid]; default root of the sandbox")                                 \
    F(BULK, stdin, MAX_CONTENT, 0, "", "given on standard input; absent: /dev/null")                          \
    F(BOOL, run_in_background, 1, 0, "", "answer at once with a process_id")                                  \
    F(STR, output_encoding, 16, 0, "utf-8|base64", "base64: stdout_base64 and stderr_base64 instead of text") \
    F(BOOL, stream, 1, PROTO_HIDE, "", "send output as chunks as it comes")

#define FIELDS_bash_reply(F)                                                                           \
    F(BULK, stdout, 51200, 0, "", "at most 50 KB, cut on a character's edge")                          \
    F(BULK, stderr, 51200, 0, "", "at most 50 KB, cut on a character's edge")                          \
    F(I64, exit_code, MAX_INT, 0, "", "-1 after a timeout; 128+n when signal n ended it")              \
    F(U64, duration_ms, MAX_ANY, 0, "", "wall time inside the sandbox")                                \
    F(BOOL, truncated, 1, PROTO_OMIT, "", "stdout or stderr was longer than what is shown")            \
    F(U64, stdout_total_bytes, MAX_ANY, 0, "", "what the command really wrote")                        \
    F(U64, stderr_total_bytes, MAX_ANY, 0, "", "what the command really wrote")                        \
    F(BOOL, timed_out, 1, PROTO_OMIT, "", "the deadline passed and the whole process tree was killed") \
    F(STR, signal, 16, PROTO_OMIT, "", "name of the signal that ended it, such as SIGKILL")            \
    F(U32, process_id, UINT32_MAX, PROTO_OMIT, "",                                                     \
      "run_in_background, or what the command left running: names it in /processes")                   \
    F(LIST, warnings, 16, PROTO_OMIT, "", "such as: a process was ended because memory ran out")

#define FIELDS_read_request(F)                                                                   \
    F(STR, file_path, MAX_PATH, REQ | PROTO_NONEMPTY, "", "absolute, or relative to /workspace") \
    F(I64, offset, MAX_INT, 0, "", "first line, from 1; 0 or less = from the start")             \
    F(I64, limit, MAX_INT, 0, "", "number of lines; 0 or less = all that fits")                  \
    F(STR, output_encoding, 16, 0, "utf-8|base64",                                               \
      "base64: content_base64, the exact bytes of the lines without numbers")

#define READ_CONTENT_MAX (256 * 1024)
#define FIELDS_read_reply(F)                                                                                  \
    F(BULK, content, READ_CONTENT_MAX, 0, "", "lines as `<number>: <text>`; a directory: one entry per line") \
    F(BOOL, is_dir, 1, PROTO_OMIT, "", "the path is a directory")                                             \
    F(U64, total_lines, MAX_ANY, PROTO_OMIT, "", "lines in the file, a last one without newline counts")      \
    F(U64, file_size, MAX_ANY, PROTO_OMIT, "", "bytes")                                                       \
    F(BOOL, is_binary, 1, PROTO_OMIT, "", "has a NUL in its first 8000 bytes: only size and type are told")   \
    F(BOOL, truncated, 1, PROTO_OMIT, "", "cut at 256 KiB: go on from next_offset")                           \
    F(U64, next_offset, MAX_ANY, PROTO_OMIT, "", "first line that is not in content")

#define FIELDS_write_request(F)                                                                                    \
    F(STR, file_path, MAX_PATH, REQ | PROTO_NONEMPTY, "", "absolute, or relative to /workspace; parents are made") \
    F(BULK, content, MAX_CONTENT, 0, "", "the whole new content; also as content_base64")                          \
    F(U32, mode, 4095, 0, "", "permission bits of a new file, default 0644 (decimal 420)")                         \
    F(BOOL, sync, 1, 0, "", "fsync before it takes its name")

#define FIELDS_write_reply(F)                                        \
    F(BOOL, success, 1, 0, "", "always true")                        \
    F(STR, file_path, MAX_PATH, 0, "", "as it was asked")            \
    F(U64, bytes_written, MAX_ANY, 0, "", "size of the new content") \
    F(BOOL, in_place, 1, PROTO_OMIT, "",                             \
      "the file could not be replaced by rename and was written in place (not atomic)")

#define FIELDS_edit_request(F)                                                                                   \
    F(STR, file_path, MAX_PATH, REQ | PROTO_NONEMPTY, "", "absolute, or relative to /workspace")                 \
    F(BULK, old_string, MAX_CONTENT, REQ | PROTO_NONEMPTY, "", "exact bytes to find; also as old_string_base64") \
    F(BULK, new_string, MAX_CONTENT, 0, "", "what takes its place; also as new_string_base64")                   \
    F(BOOL, replace_all, 1, 0, "", "replace every match; else exactly one must match")                           \
    F(STR, expected_sha256, 64, 0, "", "refuse with 412 unless the file's content has this hash")

#define FIELDS_edit_reply(F)                                                                                 \
    F(BOOL, success, 1, 0, "", "always true")                                                                \
    F(U64, lines_changed, MAX_ANY, 0, "", "the larger line count of old and new string, times replacements") \
    F(U64, replacements, MAX_ANY, 0, "", "how many matches were replaced")                                   \
    F(STR, sha256, 64, 0, "", "hash of the new content")                                                     \
    F(BOOL, in_place, 1, PROTO_OMIT, "", "written in place, not atomic")

#define FIELDS_glob_request(F)                                                                                        \
    F(STR, pattern, MAX_PATH, REQ | PROTO_NONEMPTY, "",                                                               \
      "** crosses directories; * ? [class] {a,b}; matched against the path below `path`, or the name when it has no " \
      "slash")                                                                                                        \
    F(STR, path, MAX_PATH, 0, "", "where to search, default /workspace")                                              \
    F(U32, limit, 100000, 0, "", "most matches, default 1000")                                                        \
    F(BOOL, include_git, 1, 0, "", "search .git too")

#define FIELDS_glob_reply(F)                                                 \
    F(LIST, matches, 100000, 0, "", "absolute paths of files, newest first") \
    F(U64, count, MAX_ANY, 0, "", "number of matches shown")                 \
    F(BOOL, truncated, 1, PROTO_OMIT, "", "there were more than the limit")  \
    F(U64, total, MAX_ANY, PROTO_OMIT, "", "matches found, when cut")

#define FIELDS_grep_request(F)                                                                                   \
    F(STR, pattern, 8192, REQ | PROTO_NONEMPTY | PROTO_SECRET, "", "PCRE2 regular expression, matched per line") \
    F(STR, path, MAX_PATH, 0, "", "a file or a tree, default /workspace")                                        \
    F(STR, include, 1024, 0, "", "only files whose name matches this glob, as *.ts or *.{c,h}")                  \
    F(U32, limit, 100000, 0, "", "most matching lines, default 1000")                                            \
    F(BOOL, ignore_case, 1, 0, "", "match without regard to case")                                               \
    F(BOOL, include_git, 1, 0, "", "search .git too")

#define FIELDS_grep_match(F)                              \
    F(STR, file_path, MAX_PATH, REQ, "", "absolute path") \
    F(U64, line_number, MAX_ANY, REQ, "", "from 1")       \
    F(STR, line, 4096, REQ, "", "the line, cut at 2000 bytes on a character's edge")

#define FIELDS_grep_reply(F)                                                                  \
    F(MSGS, matches, 100000, 0, "grep_match", "in path order; [] when none")                  \
    F(U64, count, MAX_ANY, 0, "", "number of matches shown")                                  \
    F(BOOL, truncated, 1, PROTO_OMIT, "", "the limit was reached and the search ended there") \
    F(U64, files_searched, MAX_ANY, 0, "", "text files that were read")                       \
    F(U64, binary_files_skipped, MAX_ANY, PROTO_OMIT, "", "files with a NUL byte")

#define FIELDS_git_request(F)                                                                                  \
    F(STR, action, 32, REQ | PROTO_NONEMPTY, "", "status, diff, log, add, reset, commit, checkout, branch")    \
    F(STR, message, MAX_TEXT, PROTO_SECRET, "", "commit: the message")                                         \
    F(LIST, files, 4096, 0, "", "add, commit, reset, diff: the paths; commit without files stages everything") \
    F(STR, branch, 255, 0, "", "checkout: create it, or switch to it")                                         \
    F(STR, workdir, MAX_PATH, 0, "", "default /workspace")                                                     \
    F(U32, limit, 10000, 0, "", "log: number of commits, default 20")                                          \
    F(STR, author_name, 255, 0, "", "commit: overrides the identity")                                          \
    F(STR, author_email, 255, 0, "", "commit: overrides the identity")                                         \
    F(STR, user, 64, 0, "", "name or uid[:gid] to run git as")

#define FIELDS_git_file(F)                                          \
    F(STR, path, MAX_PATH, REQ, "", "below the work tree")          \
    F(STR, status, 2, REQ, "", "git's letter: M, A, D, R, C, T, U") \
    F(STR, old_path, MAX_PATH, PROTO_OMIT, "", "R and C: where it came from")

#define FIELDS_git_status(F)                                                \
    F(STR, branch, 255, 0, "", "empty when detached")                       \
    F(STR, head, 64, PROTO_OMIT, "", "commit; absent before the first one") \
    F(STR, upstream, 255, PROTO_OMIT, "", "what the branch follows")        \
    F(U64, ahead, MAX_ANY, 0, "", "commits that the upstream lacks")        \
    F(U64, behind, MAX_ANY, 0, "", "commits that the branch lacks")         \
    F(MSGS, staged, 100000, 0, "git_file", "changes in the index")          \
    F(MSGS, unstaged, 100000, 0, "git_file", "changes in the work tree")    \
    F(LIST, untracked, 100000, 0, "", "files git does not know")            \
    F(LIST, conflicted, 100000, PROTO_OMIT, "", "files with unresolved conflicts")

#define FIELDS_git_reply(F)                                                                          \
    F(BULK, output, 4 * 1024 * 1024, 0, "", "git's standard output, for status the porcelain text")  \
    F(I64, exit_code, MAX_INT, 0, "", "git's exit code; 0 = done")                                   \
    F(BULK, stderr, 65536, PROTO_OMIT, "", "git's standard error")                                   \
    F(MSG, status, 4 * 1024 * 1024, PROTO_OMIT, "git_status", "action status: the same, structured") \
    F(BOOL, truncated, 1, PROTO_OMIT, "", "output was cut")                                          \
    F(STR, commit, 64, PROTO_OMIT, "", "action commit: the new commit's id")                         \
    F(LIST, warnings, 16, PROTO_OMIT, "", "such as: the default identity was used")

/* ------------------------------------------------------------------ processes */

#define FIELDS_process_start_request(F)                                                           \
    F(LIST, argv, 1024, REQ, "131072", "program and arguments; the program is looked up in PATH") \
    F(STR, workdir, MAX_PATH, 0, "", "default /workspace")                                        \
    F(MAP, env, 512, 0, "131072", "added to the sandbox's environment")                           \
    F(STR, user, 64, 0, "", "name or uid[:gid]")                                                  \
    F(BOOL, stdin, 1, 0, "", "keep standard input open for /input")                               \
    F(I64, timeout_ms, MAX_TIMEOUT_MS, 0, "", "0 = no limit")                                     \
    F(STR, tag, 128, 0, "", "free text to find it again")

#define FIELDS_process_start_reply(F)                                                                        \
    F(U32, process_id, UINT32_MAX, 0, "", "names it in the other calls; not reused within a sandbox's life") \
    F(U32, pid, UINT32_MAX, 0, "", "pid inside the sandbox")

#define FIELDS_process(F)                                            \
    F(U32, process_id, UINT32_MAX, 0, "", "names it")                \
    F(U32, pid, UINT32_MAX, 0, "", "pid inside the sandbox")         \
    F(STR, state, 16, 0, "running|exited", "what it is now")         \
    F(STR, command, 4096, 0, "", "the command, cut at 4096 bytes")   \
    F(STR, tag, 128, PROTO_OMIT, "", "as given")                     \
    F(U64, started_at_ms, MAX_ANY, 0, "", "milliseconds since 1970") \
    F(I64, exit_code, MAX_INT, 0, "", "once exited")                 \
    F(STR, signal, 16, PROTO_OMIT, "", "signal that ended it")       \
    F(BOOL, timed_out, 1, PROTO_OMIT, "", "ended by its deadline")   \
    F(U64, stdout_total_bytes, MAX_ANY, 0, "", "written so far")     \
    F(U64, stderr_total_bytes, MAX_ANY, 0, "", "written so far")     \
    F(U32, process_count, UINT32_MAX, 0, "", "live processes of its tree")

#define FIELDS_process_list_reply(F) F(MSGS, processes, 4096, 0, "process", "oldest first")

#define FIELDS_process_ref(F) F(U32, process_id, UINT32_MAX, REQ, "", "the process")

#define FIELDS_process_output_request(F)                                                      \
    F(U32, process_id, UINT32_MAX, REQ, "", "the process")                                    \
    F(U64, stdout_offset, MAX_ANY, 0, "", "first byte wanted")                                \
    F(U64, stderr_offset, MAX_ANY, 0, "", "first byte wanted")                                \
    F(U32, limit, 1048576, 0, "", "most bytes of each, default 51200")                        \
    F(U32, wait_ms, 60000, 0, "", "wait this long for something new")                         \
    F(STR, output_encoding, 16, 0, "utf-8|base64", "base64: stdout_base64 and stderr_base64") \
    F(BOOL, stream, 1, PROTO_HIDE, "", "follow: chunks as they come, reply at the end")

#define FIELDS_process_output_reply(F)                                                                                \
    F(BULK, stdout, 1048576, 0, "", "from stdout_offset on")                                                          \
    F(BULK, stderr, 1048576, 0, "", "from stderr_offset on")                                                          \
    F(U64, stdout_offset, MAX_ANY, 0, "", "of the first byte shown; larger than asked when older output was dropped") \
    F(U64, stderr_offset, MAX_ANY, 0, "", "of the first byte shown")                                                  \
    F(U64, stdout_next, MAX_ANY, 0, "", "offset to go on from")                                                       \
    F(U64, stderr_next, MAX_ANY, 0, "", "offset to go on from")                                                       \
    F(BOOL, running, 1, 0, "", "the process or its tree is alive")                                                    \
    F(I64, exit_code, MAX_INT, 0, "", "once exited")                                                                  \
    F(STR, signal, 16, PROTO_OMIT, "", "signal that ended it")                                                        \
    F(BOOL, timed_out, 1, PROTO_OMIT, "", "ended by its deadline")                                                    \
    F(U64, duration_ms, MAX_ANY, 0, "", "so far, or until it ended")

#define FIELDS_process_input_request(F)                                                 \
    F(U32, process_id, UINT32_MAX, REQ, "", "the process")                              \
    F(BULK, data, 1048576, 0, "", "written to its standard input; also as data_base64") \
    F(BOOL, eof, 1, 0, "", "close standard input after the data")

#define FIELDS_process_input_reply(F) F(U64, bytes_written, MAX_ANY, 0, "", "all of data, once the pipe took it")

#define FIELDS_process_signal_request(F)                             \
    F(U32, process_id, UINT32_MAX, REQ, "", "the process")           \
    F(STR, signal, 16, REQ, "", "name or number: SIGTERM, TERM, 15") \
    F(BOOL, tree, 1, 0, "", "to the whole tree instead of the first process")

#define FIELDS_process_wait_request(F)                     \
    F(U32, process_id, UINT32_MAX, REQ, "", "the process") \
    F(I64, timeout_ms, MAX_TIMEOUT_MS, 0, "", "0 = 120000; when it passes, running is still true")

/* ------------------------------------------------------------------ files */

#define FIELDS_file_ref(F) F(STR, path, MAX_PATH, REQ | PROTO_NONEMPTY, "", "absolute, or relative to /workspace")

#define FIELDS_file_entry(F)                                                               \
    F(STR, path, MAX_PATH, 0, "", "absolute")                                              \
    F(STR, name, 255, 0, "", "last part")                                                  \
    F(STR, type, 16, 0, "file|directory|symlink|fifo|socket|device", "of the path itself") \
    F(U64, size, MAX_ANY, 0, "", "bytes")                                                  \
    F(U32, mode, 65535, 0, "", "permission bits, decimal")                                 \
    F(U32, uid, UINT32_MAX, 0, "", "owner")                                                \
    F(U32, gid, UINT32_MAX, 0, "", "group")                                                \
    F(STR, owner, 64, PROTO_OMIT, "", "owner's name, if it has one")                       \
    F(STR, group, 64, PROTO_OMIT, "", "group's name, if it has one")                       \
    F(U64, modified_at_ms, MAX_ANY, 0, "", "milliseconds since 1970")                      \
    F(STR, symlink_target, MAX_PATH, PROTO_OMIT, "", "as written in the link")

#define FIELDS_file_list_request(F)                                  \
    F(STR, path, MAX_PATH, 0, "", "a directory, default /workspace") \
    F(U32, depth, 64, 0, "", "1 = its entries only (default)")       \
    F(U32, limit, 100000, 0, "", "most entries, default 10000")

#define FIELDS_file_list_reply(F)                                                           \
    F(MSGS, entries, 100000, 0, "file_entry", "depth first, each directory sorted by name") \
    F(BOOL, truncated, 1, PROTO_OMIT, "", "there were more")

#define FIELDS_file_mkdir_request(F)                                         \
    F(STR, path, MAX_PATH, REQ | PROTO_NONEMPTY, "", "parents are made too") \
    F(U32, mode, 4095, 0, "", "default 0755 (decimal 493)")

#define FIELDS_file_move_request(F)                                                           \
    F(STR, source, MAX_PATH, REQ | PROTO_NONEMPTY, "", "what to move")                        \
    F(STR, destination, MAX_PATH, REQ | PROTO_NONEMPTY, "", "its new path; parents are made") \
    F(BOOL, overwrite, 1, 0, "", "replace an existing destination; else 409")

#define FIELDS_file_remove_request(F)                                                               \
    F(STR, path, MAX_PATH, REQ | PROTO_NONEMPTY, "", "what to remove; a missing path is a success") \
    F(BOOL, recursive, 1, 0, "", "needed for a directory that is not empty")

#define FIELDS_file_remove_reply(F) F(U64, removed, MAX_ANY, 0, "", "number of entries removed")

#define FIELDS_file_get_request(F)                                     \
    F(STR, path, MAX_PATH, REQ | PROTO_NONEMPTY, "", "a regular file") \
    F(U64, offset, MAX_ANY, 0, "", "first byte")                       \
    F(I64, length, MAX_INT, 0, "", "bytes wanted; 0 = to the end, -n = the last n bytes (offset must be 0)")

#define FIELDS_file_get_head(F)                                       \
    F(U64, size, MAX_ANY, 0, "", "of the whole file")                 \
    F(U64, offset, MAX_ANY, 0, "", "of the first byte sent")          \
    F(U64, length, MAX_ANY, 0, "", "bytes that follow")               \
    F(U64, modified_at_ms, MAX_ANY, 0, "", "milliseconds since 1970") \
    F(U32, mode, 65535, 0, "", "permission bits")                     \
    F(U64, inode, MAX_ANY, 0, "", "for an entity tag")

#define FIELDS_file_put_request(F)                                                                      \
    F(STR, path, MAX_PATH, REQ | PROTO_NONEMPTY, "", "takes this name whole, when all bytes are there") \
    F(U32, mode, 4095, 0, "", "permission bits of a new file, default 0644")                            \
    F(I64, size, MAX_INT, 0, "", "bytes that will come, -1 or absent = until END; fewer is an error")   \
    F(BOOL, sync, 1, 0, "", "fsync before it takes its name")

#define FIELDS_file_put_reply(F)                     \
    F(STR, path, MAX_PATH, 0, "", "as it was asked") \
    F(U64, size, MAX_ANY, 0, "", "bytes written")    \
    F(STR, sha256, 64, 0, "", "of the content")      \
    F(BOOL, in_place, 1, PROTO_OMIT, "", "written in place, not atomic")

#define FIELDS_file_watch_request(F)                                        \
    F(STR, path, MAX_PATH, REQ | PROTO_NONEMPTY, "", "a directory or file") \
    F(BOOL, recursive, 1, 0, "", "everything below it, new directories too")

#define FIELDS_file_event(F)                                                            \
    F(STR, type, 16, REQ, "create|write|remove|rename|chmod|overflow", "what happened") \
    F(STR, path, MAX_PATH, REQ, "", "relative to the watched directory")

/* ------------------------------------------------------------------ tunnels and the agent itself */

#define FIELDS_tunnel_connect_request(F)                      \
    F(U32, port, 65535, REQ, "", "on the sandbox's loopback") \
    F(STR, host, 64, 0, "", "address inside, default 127.0.0.1; no names")

#define FIELDS_tunnel_listen_request(F)                                           \
    F(U32, port, 65535, REQ, "", "the agent listens there on 127.0.0.1; 0 = any") \
    F(U32, backlog, 1024, 0, "", "most connections waiting, default 64")

#define FIELDS_tunnel_listen_event(F)                                   \
    F(STR, type, 16, REQ, "listening|connection|gone", "what happened") \
    F(U32, port, 65535, 0, "", "listening: the port")                   \
    F(U32, connection_id, UINT32_MAX, 0, "", "connection, gone: which one")

#define FIELDS_tunnel_accept_request(F)                               \
    F(U64, listen_call_id, MAX_ANY, REQ, "", "call of tunnel_listen") \
    F(U32, connection_id, UINT32_MAX, REQ, "", "from its event")

#define FIELDS_agent_stats_reply(F)                                              \
    F(U64, uptime_ms, MAX_ANY, 0, "", "of the agent")                            \
    F(U32, processes, UINT32_MAX, 0, "", "alive in the sandbox")                 \
    F(U64, memory_used_bytes, MAX_ANY, 0, "", "as the sandbox counts")           \
    F(U64, disk_total_bytes, MAX_ANY, 0, "", "of the file system of /workspace") \
    F(U64, disk_free_bytes, MAX_ANY, 0, "", "of the file system of /workspace")  \
    F(U64, fork_exec_us, MAX_ANY, 0, "",                                         \
      "median time of a bare vfork+exec+wait of bash's shell with `-c true`, measured on request")

#define FIELDS_agent_configure_request(F)                                                                      \
    F(MAP, env, 512, PROTO_SECRET, "131072", "environment of every command from now on, over the image's own") \
    F(BOOL, is_new, 1, 0, "", "what ran and what was kept belongs to another sandbox: calls are forgotten")

#define FIELDS_agent_stats_request(F) F(BOOL, measure_fork, 1, 0, "", "measure fork_exec_us")

/* ------------------------------------------------------------------ providers and sandboxes */

#define FIELDS_resource_limits(F)                                                                           \
    F(STR, cpu, 16, PROTO_OMIT, "", "CPUs as a decimal number, as \"2\" or \"0.5\"")                        \
    F(STR, memory, 16, PROTO_OMIT, "", "bytes with an optional suffix K, M, G (powers of 1024), as \"4G\"") \
    F(STR, disk, 16, PROTO_OMIT, "", "bytes with an optional suffix, as \"10G\"")

#define FIELDS_capabilities(F)                                                                        \
    F(STR, name, 64, 0, "", "for people, as \"gVisor (runsc)\"")                                      \
    F(BOOL, supports_persistence, 1, 0, "", "files survive a stop")                                   \
    F(BOOL, supports_snapshots, 1, 0, "", "snapshots can be taken")                                   \
    F(BOOL, supports_warm_pool, 1, 0, "", "sandboxes can be made ahead")                              \
    F(BOOL, requires_kvm, 1, 0, "", "needs /dev/kvm")                                                 \
    F(U32, estimated_startup_ms, UINT32_MAX, 0, "", "measured by the last probe; an estimate before") \
    F(STR, provider_type, 32, 0, "", "firecracker, gvisor, e2b")                                      \
    F(LIST, network_modes, 8, 0, "", "none, full")                                                    \
    F(STR, isolation, 64, PROTO_OMIT, "", "what isolates, as runsc/systrap")                          \
    F(BOOL, keeps_processes, 1, 0, "", "processes survive stop and resume")                           \
    F(BOOL, has_reflink, 1, 0, "", "snapshots and forks share blocks instead of copying")

#define FIELDS_provider_status(F)                                                                             \
    F(STR, name, 32, 0, "", "firecracker, gvisor, e2b")                                                       \
    F(STR, type, 32, 0, "", "the same")                                                                       \
    F(BOOL, healthy, 1, 0, "", "new sandboxes can be made")                                                   \
    F(STR, state, 16, 0, "healthy|degraded|unhealthy", "degraded: works, with the limits that message tells") \
    F(STR, message, 1000, PROTO_OMIT, "", "the reason, in one sentence")                                      \
    F(MSG, capabilities, 4096, 0, "capabilities", "what it can do")                                           \
    F(U32, active_count, UINT32_MAX, 0, "", "sandboxes that exist")                                           \
    F(U64, last_checked_at_ms, MAX_ANY, 0, "", "when the last probe ended")                                   \
    F(STR, node, 255, 0, "", "host it runs on")                                                               \
    F(U64, free_memory_bytes, MAX_ANY, 0, "", "on that host")                                                 \
    F(U64, free_disk_bytes, MAX_ANY, 0, "", "in the state directory")                                         \
    F(U32, cpu_count, UINT32_MAX, 0, "", "of that host")                                                      \
    F(U32, max_sandboxes, UINT32_MAX, 0, "", "most it will make, 0 = no limit of its own")                    \
    F(BOOL, has_kvm, 1, 0, "", "an ordinary guest can run")                                                   \
    F(LIST, images, 256, PROTO_OMIT, "", "images ready to use")                                               \
    F(LIST, warnings, 16, PROTO_OMIT, "", "security or setup warnings")                                       \
    F(MSGS, pools, 64, PROTO_OMIT, "pool_status", "warm pools")                                               \
    F(U64, pool_misses_other, MAX_ANY, PROTO_OMIT, "", "creates that wanted a warm one of a shape that no pool has")

#define FIELDS_sandbox_create_request(F)                                            \
    F(STR, image, 255, 0, "", "image name, empty = default")                        \
    F(U32, cpu_milli, 1024000, REQ, "", "thousandths of a CPU")                     \
    F(U64, memory_bytes, MAX_ANY, REQ, "", "memory limit")                          \
    F(U64, disk_bytes, MAX_ANY, REQ, "", "disk limit")                              \
    F(U32, pids_max, 4194304, REQ, "", "limit of processes inside")                 \
    F(STR, network, 16, REQ, "none|full", "network mode")                           \
    F(MAP, env, 512, 0, "131072", "environment of every command in the sandbox")    \
    F(MAP, labels, 64, 0, "", "kept with the sandbox, as owner and container_type") \
    F(BOOL, use_warm, 1, 0, "", "take one from the pool if there is one")           \
    F(STR, snapshot_id, 36, 0, "", "made from this snapshot: its files and, where they were kept, its processes")

#define FIELDS_sandbox_create_reply(F)                                     \
    F(STR, provider_workspace_id, 64, 0, "", "what the provider calls it") \
    F(BOOL, was_warm, 1, PROTO_OMIT, "", "came from the pool")             \
    F(U32, total_ms, UINT32_MAX, 0, "", "from request to agent ready")     \
    F(JSON, phases, 2048, 0, "", "milliseconds of each phase")             \
    F(LIST, warnings, 16, PROTO_OMIT, "", "what the caller should know")   \
    F(STR, isolation, 64, PROTO_OMIT, "", "what isolates it")              \
    F(LIST, programs, 64, PROTO_OMIT, "", "programs the agent found")      \
    F(BOOL, has_processes, 1, PROTO_OMIT, "", "the snapshot's processes go on in it")

#define FIELDS_sandbox_destroy_request(F) \
    F(U32, grace_ms, 60000, 0, "", "time for running commands after TERM, default 10000")

#define FIELDS_sandbox_info(F)                                                                           \
    F(STR, id, 36, REQ, "", "the sandbox's UUID")                                                        \
    F(STR, state, 16, REQ, "creating|ready|stopping|stopped|resuming|dead|destroying", "what it is now") \
    F(STR, image, 255, 0, "", "its image")                                                               \
    F(MAP, labels, 64, 0, "", "as given at create")                                                      \
    F(U64, created_at_ms, MAX_ANY, 0, "", "milliseconds since 1970")                                     \
    F(STR, reason, 1000, 0, "", "dead: why")

#define FIELDS_sandbox_list_reply(F) F(MSGS, sandboxes, 65536, 0, "sandbox_info", "every sandbox the daemon knows")

#define FIELDS_sandbox_event(F)                                                       \
    F(STR, type, 16, REQ, "dead|oom|ready|notice|restarted|stopped", "what happened") \
    F(STR, reason, 1000, 0, "", "for a person")

#define FIELDS_sandbox_stop_request(F) F(BOOL, without_processes, 1, 0, "", "end the processes instead of keeping them")

#define FIELDS_sandbox_stop_reply(F)                                                           \
    F(BOOL, has_processes, 1, 0, "", "its processes are kept and go on after resume")          \
    F(U32, total_ms, UINT32_MAX, 0, "", "from request to memory freed and everything on disk") \
    F(U64, kept_bytes, MAX_ANY, 0, "", "of memory, on disk")                                   \
    F(JSON, phases, 2048, 0, "", "milliseconds of each phase")                                 \
    F(LIST, warnings, 16, PROTO_OMIT, "", "such as: processes were ended, and why")

#define FIELDS_sandbox_resume_reply(F)                                                     \
    F(BOOL, has_processes, 1, 0, "", "the processes it had when it stopped go on")         \
    F(U32, total_ms, UINT32_MAX, 0, "", "from request to agent ready")                     \
    F(JSON, phases, 2048, 0, "", "milliseconds of each phase")                             \
    F(LIST, warnings, 16, PROTO_OMIT, "", "such as: started anew from its files, and why") \
    F(LIST, programs, 64, PROTO_OMIT, "", "programs the agent found")

#define FIELDS_snapshot_create_request(F)                                                          \
    F(STR, snapshot_id, 36, REQ, "", "UUID, chosen by the caller; a known one answers what it is") \
    F(BOOL, without_processes, 1, 0, "", "files only")                                             \
    F(MAP, labels, 64, 0, "", "kept with the snapshot")

#define FIELDS_snapshot_ref(F) F(STR, snapshot_id, 36, REQ, "", "the snapshot")

#define FIELDS_snapshot_info(F)                                                        \
    F(STR, snapshot_id, 36, REQ, "", "its UUID")                                       \
    F(STR, state, 16, REQ, "creating|ready|destroying", "ready: complete and durable") \
    F(STR, sandbox_id, 36, 0, "", "where it was taken; may be gone")                   \
    F(BOOL, has_processes, 1, 0, "", "holds memory and processes, not only files")     \
    F(U64, size_bytes, MAX_ANY, 0, "", "room it takes on disk")                        \
    F(U64, created_at_ms, MAX_ANY, 0, "", "milliseconds since 1970")                   \
    F(U32, stall_ms, UINT32_MAX, 0, "", "how long the sandbox stood still")            \
    F(U32, total_ms, UINT32_MAX, 0, "", "from request to durable")                     \
    F(STR, image, 255, 0, "", "its image")                                             \
    F(U32, cpu_milli, 1024000, 0, "", "of its sandbox")                                \
    F(U64, memory_bytes, MAX_ANY, 0, "", "of its sandbox")                             \
    F(U64, disk_bytes, MAX_ANY, 0, "", "of its sandbox")                               \
    F(U32, pids_max, 4194304, 0, "", "of its sandbox")                                 \
    F(STR, network, 16, 0, "", "of its sandbox")                                       \
    F(MAP, labels, 64, 0, "", "as given")                                              \
    F(LIST, warnings, 16, PROTO_OMIT, "", "such as: copied, the file system has no reflink")

#define FIELDS_snapshot_list_reply(F) F(MSGS, snapshots, 65536, 0, "snapshot_info", "every snapshot the daemon has")

#define FIELDS_pool_target(F)                                                                      \
    F(STR, image, 255, 0, "", "image name, empty = default")                                       \
    F(U64, disk_bytes, MAX_ANY, REQ, "", "disk limit")                                             \
    F(STR, network, 16, REQ, "none|full", "network mode")                                          \
    F(U32, size, 10000, 0, "", "sandboxes to keep ready; 0 = give the pool up")                    \
    F(U64, memory_bytes, MAX_ANY, REQ, "", "memory limit while they wait; the claim sets its own") \
    F(U32, cpu_milli, 1024000, REQ, "", "CPU limit while they wait")                               \
    F(U32, pids_max, 4194304, REQ, "", "limit of processes while they wait")

#define FIELDS_pool_set_request(F) \
    F(MSGS, pools, 64, 0, "pool_target", "all pools there are to be; others are given up")

#define FIELDS_pool_status(F)                                                  \
    F(STR, image, 255, 0, "", "image name")                                    \
    F(U64, disk_bytes, MAX_ANY, 0, "", "disk limit")                           \
    F(STR, network, 16, 0, "", "network mode")                                 \
    F(BOOL, has_user_namespace, 1, 0, "", "isolation of what waits there")     \
    F(U32, size, 10000, 0, "", "how many there should be")                     \
    F(U32, ready, 10000, 0, "", "how many wait")                               \
    F(U32, making, 10000, 0, "", "how many are being made")                    \
    F(U64, hits, MAX_ANY, 0, "", "creates it served since the daemon started") \
    F(U64, misses, MAX_ANY, 0, "", "creates of its shape that found it empty") \
    F(STR, message, 300, PROTO_OMIT, "", "why it cannot be filled")

#define FIELDS_pool_list_reply(F) F(MSGS, pools, 64, 0, "pool_status", "every pool of the daemon")

#define FIELDS_image_info(F)                                         \
    F(STR, name, 255, 0, "", "what create takes as image")           \
    F(STR, digest, 80, 0, "", "sha256:… of its content")             \
    F(U64, size_bytes, MAX_ANY, 0, "", "unpacked")                   \
    F(U64, created_at_ms, MAX_ANY, 0, "", "milliseconds since 1970") \
    F(STR, source, 512, 0, "", "where it came from")

#define FIELDS_image_list_reply(F) F(MSGS, images, 256, 0, "image_info", "by name")

/* ------------------------------------------------------------------ REST bodies */

#define FIELDS_workspace_create(F)                                                                            \
    F(STR, container_type, 32, 0, "", "agent_workspace or mcp_server, required")                              \
    F(STR, provider, 32, 0, "", "firecracker, e2b, gvisor (no fallback), or auto (default)")                  \
    F(STR, repository_url, 2048, 0, "", "cloned before the workspace is ready")                               \
    F(STR, branch, 255, 0, "", "branch, tag or commit")                                                       \
    F(STR, deployment_mode, 16, 0, "managed|self-hosted", "order of providers for auto, default self-hosted") \
    F(MSG, resource_limits, 256, 0, "resource_limits", "missing fields get the defaults")                     \
    F(BOOL, warm_start, 1, 0, "", "false: never take a warm sandbox")                                         \
    F(JSON, mcp_config, 65536, PROTO_SECRET, "", "mcp_server only: name, image, environment, volumes")        \
    F(STR, image, 255, 0, "", "image name, default WORKSPACE_DEFAULT_IMAGE")                                  \
    F(STR, network, 16, 0, "none|full", "default WORKSPACE_DEFAULT_NETWORK")                                  \
    F(MAP, env, 512, PROTO_SECRET, "131072", "environment of every command")                                  \
    F(JSON, metadata, 16384, 0, "", "kept with the workspace")                                                \
    F(STR, agent_session_id, 36, 0, "", "session to attach at once")

#define FIELDS_workspace(F)                                                                         \
    F(STR, id, 36, 0, "", "UUID")                                                                   \
    F(STR, agent_session_id, 36, PROTO_OMIT, "", "attached session")                                \
    F(STR, container_type, 32, 0, "", "agent_workspace or mcp_server")                              \
    F(STR, provider, 32, 0, "", "the one really used")                                              \
    F(STR, provider_workspace_id, 64, 0, "", "what the provider calls it")                          \
    F(STR, repository_url, 2048, PROTO_OMIT, "", "as given")                                        \
    F(STR, branch, 255, PROTO_OMIT, "", "as given")                                                 \
    F(STR, deployment_mode, 16, 0, "", "managed or self-hosted")                                    \
    F(STR, lifecycle, 16, 0, "", "ephemeral or persistent")                                         \
    F(STR, status, 16, 0, "creating|ready|stopping|stopped|error", "what it is now")                \
    F(STR, created_at, 40, 0, "", "RFC 3339")                                                       \
    F(STR, last_used_at, 40, 0, "", "RFC 3339")                                                     \
    F(STR, expires_at, 40, PROTO_OMIT, "", "RFC 3339; absent = never")                              \
    F(MSG, resource_limits, 256, 0, "resource_limits", "the limits in force")                       \
    F(STR, snapshot_id, 64, PROTO_OMIT, "", "last snapshot")                                        \
    F(JSON, mcp_config, 65536, PROTO_OMIT, "", "without values of environment")                     \
    F(JSON, metadata, 65536, PROTO_OMIT, "", "attempts, isolation, warm, and what the caller gave") \
    F(STR, failure_reason, 2048, PROTO_OMIT, "", "status error: why")                               \
    F(LIST, warnings, 64, PROTO_OMIT, "", "what the user should know")                              \
    F(STR, image, 255, PROTO_OMIT, "", "image name")                                                \
    F(STR, network, 16, PROTO_OMIT, "", "network mode")

#define FIELDS_workspace_stop(F) F(BOOL, without_processes, 1, 0, "", "end the processes instead of keeping them")

#define FIELDS_workspace_attach(F)                                       \
    F(STR, agent_session_id, 36, 0, "", "UUID of the session, required") \
    F(STR, reason, 512, 0, "", "kept in the history")

#define FIELDS_workspace_detach(F)                                                                     \
    F(STR, agent_session_id, 36, 0, "", "only when this session holds it; absent: whichever holds it") \
    F(STR, reason, 512, 0, "", "kept in the history")

#define FIELDS_workspace_patch(F)                                                                           \
    F(U64, ttl_seconds, 3153600000, 0, "", "life after its last use, from now on; 0 = back to the default") \
    F(JSON, metadata, 16384, 0, "", "merged into the metadata; null removes a key")

#define FIELDS_assignment(F)                                                        \
    F(STR, agent_session_id, 36, 0, "", "the session")                              \
    F(STR, attached_at, 40, 0, "", "RFC 3339")                                      \
    F(STR, detached_at, 40, PROTO_OMIT, "", "RFC 3339; absent = it still holds it") \
    F(STR, reason, 512, PROTO_OMIT, "", "given at attach")                          \
    F(STR, detach_reason, 512, PROTO_OMIT, "", "given at detach, or what ended it")

#define FIELDS_workspace_snapshot(F)                           \
    F(STR, name, 128, 0, "", "for people; need not be unique") \
    F(STR, description, 1024, 0, "", "for people")             \
    F(BOOL, without_processes, 1, 0, "", "files only")         \
    F(U64, ttl_seconds, 3153600000, 0, "", "removed after this; absent = the configured age, if any")

#define FIELDS_snapshot(F)                                                                                   \
    F(STR, snapshot_id, 36, 0, "", "UUID")                                                                   \
    F(STR, workspace_id, 36, 0, "", "where it was taken; may be gone")                                       \
    F(STR, provider, 32, 0, "", "whose it is")                                                               \
    F(STR, created_at, 40, 0, "", "RFC 3339")                                                                \
    F(STR, name, 128, PROTO_OMIT, "", "as given")                                                            \
    F(STR, description, 1024, PROTO_OMIT, "", "as given")                                                    \
    F(STR, status, 16, 0, "creating|ready|error|deleting", "ready: complete, restorable without its source") \
    F(BOOL, has_processes, 1, 0, "", "processes go on in what is made from it")                              \
    F(U64, size_bytes, MAX_ANY, 0, "", "room it takes on disk")                                              \
    F(U32, stall_ms, UINT32_MAX, PROTO_OMIT, "", "how long the workspace stood still")                       \
    F(MSG, resource_limits, 256, 0, "resource_limits", "of its workspace")                                   \
    F(STR, image, 255, PROTO_OMIT, "", "image name")                                                         \
    F(STR, network, 16, PROTO_OMIT, "", "network mode")                                                      \
    F(STR, expires_at, 40, PROTO_OMIT, "", "RFC 3339; absent = never")                                       \
    F(STR, failure_reason, 2048, PROTO_OMIT, "", "status error: why")                                        \
    F(LIST, warnings, 16, PROTO_OMIT, "", "what the user should know")

#define FIELDS_workspace_from_snapshot(F)                                                                           \
    F(STR, snapshot_id, 36, 0, "", "required")                                                                      \
    F(STR, provider, 32, 0, "", "must be the snapshot's own when given; default that")                              \
    F(STR, deployment_mode, 16, 0, "managed|self-hosted", "default self-hosted")                                    \
    F(MSG, resource_limits, 256, 0, "resource_limits", "missing fields are the snapshot's; its disk cannot shrink") \
    F(MAP, env, 512, PROTO_SECRET, "131072", "environment of every command started from now on")                    \
    F(JSON, metadata, 16384, 0, "", "kept with the workspace")                                                      \
    F(STR, agent_session_id, 36, 0, "", "session to attach at once")

#define FIELDS_workspace_fork(F)                                                                 \
    F(U32, count, 100, 0, "", "how many, default 1")                                             \
    F(BOOL, without_processes, 1, 0, "", "files only")                                           \
    F(MAP, env, 512, PROTO_SECRET, "131072", "environment of every command started from now on") \
    F(JSON, metadata, 16384, 0, "", "kept with each")

#define FIELDS_workspace_fork_reply(F) F(MSGS, workspaces, 100, 0, "workspace", "the new ones")

#define FIELDS_warm_pool(F)                                                         \
    F(STR, provider, 32, 0, "", "gvisor, firecracker; default: every one that can") \
    F(STR, image, 255, 0, "", "default WORKSPACE_DEFAULT_IMAGE")                    \
    F(STR, disk, 16, 0, "", "disk limit, default WORKSPACE_DEFAULT_DISK")           \
    F(STR, network, 16, 0, "none|full", "default WORKSPACE_DEFAULT_NETWORK")        \
    F(U32, size, 10000, 0, "", "sandboxes to keep ready on each node")

#define FIELDS_warm_pools(F) F(MSGS, pools, 64, 0, "warm_pool", "all pools there are to be; replaces what was set")

#define FIELDS_audit_entry(F)                                                                        \
    F(U64, sequence, MAX_ANY, 0, "", "grows; gaps never occur within one chain")                     \
    F(STR, chain, 36, 0, "", "one per gateway")                                                      \
    F(STR, at, 40, 0, "", "RFC 3339")                                                                \
    F(STR, workspace_id, 36, PROTO_OMIT, "", "the workspace")                                        \
    F(STR, operation, 64, 0, "", "bash, read, …, create, stop, resume, attach, delete, expire, …")   \
    F(STR, method, 8, PROTO_OMIT, "", "HTTP method")                                                 \
    F(U32, status, 999, PROTO_OMIT, "", "HTTP status; absent for what the suite did by itself")      \
    F(U64, duration_ms, MAX_ANY, 0, "", "wall time")                                                 \
    F(STR, caller, 64, PROTO_OMIT, "", "name of the API key")                                        \
    F(STR, agent_session_id, 36, PROTO_OMIT, "", "session that held the workspace")                  \
    F(STR, request_id, 64, PROTO_OMIT, "", "X-Request-Id")                                           \
    F(STR, summary, 1024, PROTO_OMIT, "", "what was asked, without contents and secrets")            \
    F(STR, error_code, 32, PROTO_OMIT, "", "of a failed one")                                        \
    F(STR, error, 160, PROTO_OMIT, "", "of a failed one")                                            \
    F(STR, hash, 64, 0, "", "SHA-256 over the entry before and this one")                            \
    F(STR, owner, 64, PROTO_OMIT, "", "whose rows the caller sees; absent for what belongs to none") \
    F(STR, previous_hash, 64, PROTO_OMIT, "", "of the entry before; absent when there is none, or no longer")

/* X(id, name, "doc"): ids never change, only grow. */
#define PROTO_MESSAGES(X)                                                                   \
    X(1, hello, "first message on a fabric link")                                           \
    X(2, error, "why a call failed")                                                        \
    X(3, resync, "opens a sandbox's stream")                                                \
    X(4, adopted_call, "one call the agent knows")                                          \
    X(5, adopt, "what the agent is and which calls it knows")                               \
    X(6, pressure, "a resource is short")                                                   \
    X(7, notice, "something happened in the sandbox")                                       \
    X(8, empty, "no content")                                                               \
    X(20, bash_request, "run a shell command")                                              \
    X(21, bash_reply, "how the command ended")                                              \
    X(22, read_request, "read a file or directory")                                         \
    X(23, read_reply, "what it holds")                                                      \
    X(24, write_request, "write a whole file")                                              \
    X(25, write_reply, "the file is in place")                                              \
    X(26, edit_request, "replace an exact string")                                          \
    X(27, edit_reply, "what was replaced")                                                  \
    X(28, glob_request, "find files by pattern")                                            \
    X(29, glob_reply, "files found")                                                        \
    X(30, grep_request, "find lines by regular expression")                                 \
    X(31, grep_match, "one line")                                                           \
    X(32, grep_reply, "lines found")                                                        \
    X(33, git_request, "run one git action")                                                \
    X(34, git_file, "one changed file")                                                     \
    X(35, git_status, "state of the work tree")                                             \
    X(36, git_reply, "what git answered")                                                   \
    X(40, process_start_request, "start a process")                                         \
    X(41, process_start_reply, "it runs")                                                   \
    X(42, process, "one process")                                                           \
    X(43, process_list_reply, "all background processes")                                   \
    X(44, process_ref, "names a process")                                                   \
    X(45, process_output_request, "read a process's output")                                \
    X(46, process_output_reply, "output from an offset")                                    \
    X(47, process_input_request, "write to a process")                                      \
    X(48, process_input_reply, "written")                                                   \
    X(49, process_signal_request, "signal a process")                                       \
    X(50, process_wait_request, "wait for a process")                                       \
    X(60, file_ref, "names a file")                                                         \
    X(61, file_entry, "one file or directory")                                              \
    X(62, file_list_request, "list a directory")                                            \
    X(63, file_list_reply, "its entries")                                                   \
    X(64, file_mkdir_request, "make a directory")                                           \
    X(65, file_move_request, "move a file or directory")                                    \
    X(66, file_remove_request, "remove a file or directory")                                \
    X(67, file_remove_reply, "removed")                                                     \
    X(68, file_get_request, "download")                                                     \
    X(69, file_get_head, "what will come")                                                  \
    X(70, file_put_request, "upload")                                                       \
    X(71, file_put_reply, "the file is in place")                                           \
    X(72, file_watch_request, "watch for changes")                                          \
    X(73, file_event, "one change")                                                         \
    X(80, tunnel_connect_request, "open a TCP stream to a port inside")                     \
    X(81, tunnel_listen_request, "offer a port inside that leads to the host side")         \
    X(82, tunnel_listen_event, "something happened at that port")                           \
    X(83, tunnel_accept_request, "take one connection of that port")                        \
    X(84, agent_stats_request, "ask the agent about the sandbox")                           \
    X(85, agent_stats_reply, "what the agent sees")                                         \
    X(100, resource_limits, "CPU, memory and disk")                                         \
    X(101, capabilities, "what a provider can do")                                          \
    X(102, provider_status, "a provider's health and room")                                 \
    X(103, sandbox_create_request, "make a sandbox; the envelope carries its id")           \
    X(104, sandbox_create_reply, "the agent inside answers")                                \
    X(105, sandbox_destroy_request, "leave nothing of a sandbox")                           \
    X(106, sandbox_info, "one sandbox")                                                     \
    X(107, sandbox_list_reply, "all sandboxes of a daemon")                                 \
    X(108, sandbox_event, "something happened to a sandbox")                                \
    X(109, image_info, "one image")                                                         \
    X(110, image_list_reply, "all images of a daemon")                                      \
    X(86, agent_configure_request, "what a sandbox made ahead or from a snapshot is to be") \
    X(111, sandbox_stop_request, "keep it on disk and free its memory")                     \
    X(112, sandbox_stop_reply, "it is on disk")                                             \
    X(113, sandbox_resume_reply, "it runs again")                                           \
    X(114, snapshot_create_request, "keep a copy of a sandbox")                             \
    X(115, snapshot_ref, "names a snapshot")                                                \
    X(116, snapshot_info, "one snapshot of a daemon")                                       \
    X(117, snapshot_list_reply, "all snapshots of a daemon")                                \
    X(118, pool_target, "one warm pool as it should be")                                    \
    X(119, pool_set_request, "all warm pools as they should be")                            \
    X(120, pool_status, "one warm pool as it is")                                           \
    X(121, pool_list_reply, "all warm pools of a daemon")                                   \
    X(140, workspace_create, "REST: create a workspace")                                    \
    X(141, workspace, "REST: a workspace")                                                  \
    X(142, workspace_stop, "REST: stop a workspace")                                        \
    X(143, workspace_attach, "REST: give a workspace to a session")                         \
    X(144, workspace_detach, "REST: take it back")                                          \
    X(145, workspace_patch, "REST: change a workspace")                                     \
    X(146, assignment, "REST: one entry of a workspace's history of sessions")              \
    X(147, workspace_snapshot, "REST: take a snapshot")                                     \
    X(148, snapshot, "REST: a snapshot")                                                    \
    X(149, workspace_from_snapshot, "REST: make a workspace from a snapshot")               \
    X(150, workspace_fork, "REST: copies of a running workspace")                           \
    X(151, workspace_fork_reply, "REST: the copies")                                        \
    X(152, warm_pool, "REST: one warm pool")                                                \
    X(153, warm_pools, "REST: all warm pools")                                              \
    X(154, audit_entry, "REST: one line of the audit")

/* ---- what the tables become ---- */
#define PROTO_TYPE_STR const char *
#define PROTO_TYPE_JSON const char *
#define PROTO_TYPE_BULK proto_bytes_t
#define PROTO_TYPE_U32 uint32_t
#define PROTO_TYPE_U64 uint64_t
#define PROTO_TYPE_I64 int64_t
#define PROTO_TYPE_BOOL bool
#define PROTO_TYPE_LIST proto_list_t
#define PROTO_TYPE_MAP proto_list_t
#define PROTO_TYPE_MSG proto_nested_t
#define PROTO_TYPE_MSGS proto_list_t

#define PROTO_MEMBER(kind, name, max, flags, extra, doc) PROTO_TYPE_##kind name;
#define PROTO_MESSAGE_ID(id, name, doc) MSG_##name = (id),
#define REQ PROTO_REQ

enum proto_message_id { PROTO_MESSAGES(PROTO_MESSAGE_ID) };

/* `struct <name>`: `has.<field>` tells whether the field was present, then the fields. */
#define PROTO_HAS_MEMBER(kind, name, max, flags, extra, doc) bool name;
#define PROTO_STRUCT(id, message, doc)         \
    struct message {                           \
        struct {                               \
            FIELDS_##message(PROTO_HAS_MEMBER) \
        } has;                                 \
        FIELDS_##message(PROTO_MEMBER)         \
    };
PROTO_MESSAGES(PROTO_STRUCT)

#undef REQ
#endif
