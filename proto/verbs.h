/* SPDX-License-Identifier: Apache-2.0
 *
 * Every verb, as a row: X(NUMBER, name, target, request, reply, flags, "doc").
 * target: AGENT (relayed to the sandbox named in the envelope) or PROVIDER (the daemon itself).
 * flags: IN  the caller sends CHUNKs after the REQUEST, the last with END
 *        OUT the callee may send CHUNKs before its REPLY
 *        HEAD_x / EVENT_x are told in the doc.
 * Numbers never change.
 */
#ifndef EW_PROTO_VERBS_H
#define EW_PROTO_VERBS_H

#include "proto/messages.h"

enum verb_target { VERB_TARGET_AGENT, VERB_TARGET_PROVIDER };
enum verb_flag { VERB_IN = 1, VERB_OUT = 2, VERB_LONG = 4 /* no deadline of its own */ };

#define PROTO_VERBS(X)                                                                                               \
    X(1, bash, AGENT, bash_request, bash_reply, VERB_OUT,                                                            \
      "run a shell command; with stream: chunks on channels 1 and 2")                                                \
    X(2, read, AGENT, read_request, read_reply, 0, "read a file or list a directory")                                \
    X(3, write, AGENT, write_request, write_reply, 0, "write a whole file")                                          \
    X(4, edit, AGENT, edit_request, edit_reply, 0, "replace an exact string in a file")                              \
    X(5, glob, AGENT, glob_request, glob_reply, 0, "find files by pattern")                                          \
    X(6, grep, AGENT, grep_request, grep_reply, 0, "find lines by regular expression")                               \
    X(7, git, AGENT, git_request, git_reply, 0, "run one git action")                                                \
    X(20, process_start, AGENT, process_start_request, process_start_reply, 0, "start a background process")         \
    X(21, process_list, AGENT, empty, process_list_reply, 0, "list background processes")                            \
    X(22, process_output, AGENT, process_output_request, process_output_reply, VERB_OUT,                             \
      "read output from an offset; with stream: follow")                                                             \
    X(23, process_input, AGENT, process_input_request, process_input_reply, 0, "write to standard input")            \
    X(24, process_signal, AGENT, process_signal_request, empty, 0, "send a signal")                                  \
    X(25, process_wait, AGENT, process_wait_request, process_output_reply, VERB_LONG,                                \
      "wait for the end; output is empty")                                                                           \
    X(40, file_stat, AGENT, file_ref, file_entry, 0, "describe a path")                                              \
    X(41, file_list, AGENT, file_list_request, file_list_reply, 0, "list a directory")                               \
    X(42, file_mkdir, AGENT, file_mkdir_request, file_entry, 0, "make a directory and its parents")                  \
    X(43, file_move, AGENT, file_move_request, file_entry, 0, "move or rename")                                      \
    X(44, file_remove, AGENT, file_remove_request, file_remove_reply, 0, "remove a file or tree")                    \
    X(45, file_get, AGENT, file_get_request, empty, VERB_OUT | VERB_LONG,                                            \
      "download: HEAD file_get_head, then chunks on channel 0")                                                      \
    X(46, file_put, AGENT, file_put_request, file_put_reply, VERB_IN | VERB_LONG, "upload: chunks on channel 0")     \
    X(47, file_watch, AGENT, file_watch_request, empty, VERB_LONG,                                                   \
      "watch: one EVENT file_event per change, until cancelled")                                                     \
    X(60, tunnel_connect, AGENT, tunnel_connect_request, empty, VERB_IN | VERB_OUT | VERB_LONG,                      \
      "TCP to a port inside; HEAD empty once connected; channel 0 both ways")                                        \
    X(61, tunnel_listen, AGENT, tunnel_listen_request, empty, VERB_LONG,                                             \
      "listen inside: EVENT tunnel_listen_event, until cancelled")                                                   \
    X(62, tunnel_accept, AGENT, tunnel_accept_request, empty, VERB_IN | VERB_OUT | VERB_LONG,                        \
      "take a connection: channel 0 both ways")                                                                      \
    X(80, agent_stats, AGENT, agent_stats_request, agent_stats_reply, 0, "what the agent sees of the sandbox")       \
    X(81, agent_configure, AGENT, agent_configure_request, empty, 0,                                                 \
      "identity and environment; only from the daemon itself")                                                       \
    X(100, sandbox_create, PROVIDER, sandbox_create_request, sandbox_create_reply, 0,                                \
      "make a sandbox and wait for its agent")                                                                       \
    X(101, sandbox_destroy, PROVIDER, sandbox_destroy_request, empty, 0,                                             \
      "leave nothing of a sandbox; unknown ids succeed")                                                             \
    X(102, sandbox_list, PROVIDER, empty, sandbox_list_reply, 0, "all sandboxes of this daemon")                     \
    X(103, provider_status, PROVIDER, empty, provider_status, 0, "health and room, probed anew when older than 5 s") \
    X(104, image_list, PROVIDER, empty, image_list_reply, 0, "images ready to use")                                  \
    X(105, sandbox_stop, PROVIDER, sandbox_stop_request, sandbox_stop_reply, 0,                                      \
      "keep files and processes on disk, free the memory; a stopped one answers the same again")                     \
    X(106, sandbox_resume, PROVIDER, empty, sandbox_resume_reply, 0, "run a stopped or dead one again")              \
    X(107, snapshot_create, PROVIDER, snapshot_create_request, snapshot_info, 0,                                     \
      "a copy that stands on its own, of a ready or stopped sandbox")                                                \
    X(108, snapshot_delete, PROVIDER, snapshot_ref, empty, 0, "leave nothing of a snapshot; unknown ids succeed")    \
    X(109, snapshot_list, PROVIDER, empty, snapshot_list_reply, 0, "all snapshots of this daemon")                   \
    X(110, pool_set, PROVIDER, pool_set_request, pool_list_reply, 0, "which warm pools to keep")                     \
    X(111, pool_list, PROVIDER, empty, pool_list_reply, 0, "the warm pools")

enum verb {
#define X(number, name, target, request, reply, flags, doc) VERB_##name = (number),
    PROTO_VERBS(X)
#undef X
};

typedef struct verb_row {
    uint16_t number;
    const char *name;
    enum verb_target target;
    unsigned request; /* message ids */
    unsigned reply;
    unsigned flags;
    const char *doc;
} verb_row_t;

const verb_row_t *verb_row(unsigned number); /* NULL if unknown */
const verb_row_t *verb_row_at(size_t i);     /* NULL past the end */

#endif
