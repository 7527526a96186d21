// SPDX-License-Identifier: Apache-2.0
#include "agent/call.h"
#include "agent/proc.h"
#include "agent/signal_names.h"
#include "common/mem.h"

#include <errno.h>
#include <signal.h>

static int process_get(uint32_t id, proc_t **proc, err_t **e)
{
    *proc = proc_find(id);
    return *proc != NULL
               ? 0
               : err_set(e, ERR_NOT_FOUND, "no process %u in this workspace (ended ones are forgotten after a while)",
                         (unsigned)id);
}

/* ---- process_start ---- */

static char **argv_of(const proto_list_t *list)
{
    char **argv = mem_alloc_array((size_t)list->count + 1, sizeof *argv);
    proto_iter_t it = proto_iter(list);
    const char *arg;
    for (size_t i = 0; proto_iter_str(&it, &arg); i++)
        argv[i] = (char *)arg; /* borrowed from the request */
    return argv;
}

static char *command_of(char *const *argv)
{
    auto_buf buf_t text = {0};
    for (char *const *arg = argv; *arg != NULL && text.len < PROC_COMMAND_MAX; arg++) {
        if (arg != argv)
            buf_append_byte(&text, ' ');
        buf_append(&text, *arg, strnlen(*arg, PROC_COMMAND_MAX));
    }
    return mem_strdup(buf_cstr(&text));
}

static void start_start(agent_call_t *call, const void *message)
{
    const struct process_start_request *request = message;
    auto_free char **argv = argv_of(&request->argv);
    auto_free char *command = command_of(argv);
    err_t *e = NULL;
    proc_options_t options = {
        .argv = argv,
        .command = command,
        .workdir = request->workdir,
        .user = request->user,
        .env = &request->env,
        .has_stdin = request->stdin,
        .has_ring = true,
        .timeout_ms = request->timeout_ms > 0 ? (uint64_t)request->timeout_ms : 0,
        .tag = request->tag,
    };
    proc_t *proc = NULL;
    if (argv[0] == NULL || argv[0][0] == '\0')
        err_set(&e, ERR_BAD_REQUEST, "argv is required: the program and its arguments");
    else
        proc = proc_start(&options, &e);
    if (proc != NULL && proc_list_it(proc, &e) == 0) {
        struct process_start_reply reply = {.process_id = proc->id, .pid = (uint32_t)proc->pid};
        call_reply(call, &reply);
    } else {
        call_fail(call, &e);
    }
    if (proc != NULL)
        proc_release(proc);
}

const agent_tool_t tool_process_start = {.verb = VERB_process_start, .start = start_start};

/* ---- process_list ---- */

static void list_start(agent_call_t *call, const void *message)
{
    auto_buf buf_t rows = {0};
    struct process_list_reply reply = {0};
    err_t *e = NULL;
    (void)message;
    for (proc_t *p = procs_first(); p != NULL; p = p->next) {
        struct process row = {
            .process_id = p->id,
            .pid = (uint32_t)p->pid,
            .state = proc_is_running(p) ? "running" : "exited",
            .command = p->command,
            .tag = p->tag,
            .started_at_ms = p->started_at_ms,
            .exit_code = proc_exit_code(p),
            .has.exit_code = p->is_exited,
            .signal = proc_signal_name(p),
            .timed_out = p->is_timed_out,
            .stdout_total_bytes = p->out[0].total,
            .stderr_total_bytes = p->out[1].total,
        };
        if (!p->is_listed)
            continue;
        row.process_count = p->tree != NULL ? (uint32_t)tree_count(p->tree) : 0;
        if (proto_list_add_msg(&rows, MSG_process, &row, &e) < 0) {
            call_fail(call, &e);
            return;
        }
        reply.processes.count++;
    }
    reply.processes = proto_list_of(reply.processes.count, &rows);
    call_reply(call, &reply);
}

const agent_tool_t tool_process_list = {.verb = VERB_process_list, .start = list_start};

/* ---- process_signal ---- */

static int signal_send(const struct process_signal_request *request, err_t **e)
{
    proc_t *proc;
    int sig = signal_from_name(request->signal);
    if (sig < 0)
        return err_set(e, ERR_BAD_REQUEST, "signal \"%s\" is unknown; use a name such as SIGTERM or a number",
                       request->signal);
    if (process_get(request->process_id, &proc, e) < 0)
        return -1;
    if (proc->is_ended || (proc->is_reaped && !request->tree))
        return err_set(e, ERR_CONFLICT, "process %u has exited%s", (unsigned)proc->id,
                       proc->is_ended ? "" : "; what it left running can be signalled with tree");
    if (request->tree && sig == SIGKILL)
        proc_kill_now(proc);
    else if (request->tree)
        tree_signal(proc->tree, sig);
    else if (kill(proc->pid, sig) != 0)
        return err_set_errno(e, ERR_INTERNAL, errno, "cannot signal process %u", (unsigned)proc->id);
    return 0;
}

static void signal_start(agent_call_t *call, const void *message)
{
    err_t *e = NULL;
    struct empty reply = {0};
    if (signal_send(message, &e) < 0)
        call_fail(call, &e);
    else
        call_reply(call, &reply);
}

const agent_tool_t tool_process_signal = {.verb = VERB_process_signal, .start = signal_start};

/* ---- process_input ---- */

struct input {
    proc_observer_t observer;
    uint64_t until; /* of all bytes ever given to it */
    uint64_t len;
};

static void input_check(agent_call_t *call, proc_t *proc)
{
    struct input *input = call_state(call);
    err_t *e = NULL;
    struct process_input_reply reply = {.bytes_written = input->len, .has.bytes_written = true};
    if (proc->in_written >= input->until) {
        call_reply(call, &reply);
    } else if (proc->in_fd < 0) {
        uint64_t missing = input->until - proc->in_written;
        err_set(&e, ERR_CONFLICT, "process %u closed its standard input with %llu of %llu bytes not taken",
                (unsigned)proc->id, (unsigned long long)(missing < input->len ? missing : input->len),
                (unsigned long long)input->len);
        call_fail(call, &e);
    } else {
        return;
    }
    proc_unobserve(&input->observer);
}

static void on_input_event(void *arg, proc_t *proc, enum proc_event event)
{
    (void)event;
    input_check(arg, proc);
}

static void input_start(agent_call_t *call, const void *message)
{
    const struct process_input_request *request = message;
    proc_t *proc;
    err_t *e = NULL;
    if (process_get(request->process_id, &proc, &e) < 0 ||
        proc_input(proc, request->data.data, request->data.len, request->eof, &e) < 0) {
        call_fail(call, &e);
        return;
    }
    struct input *input = mem_alloc(sizeof *input);
    input->until = proc->in_queued;
    input->len = request->data.len;
    call_set_state(call, input);
    proc_observe(proc, &input->observer, on_input_event, call);
    input_check(call, proc);
}

static void input_destroy(agent_call_t *call)
{
    struct input *input = call_state(call);
    if (input == NULL)
        return;
    proc_unobserve(&input->observer);
    free(input);
}

const agent_tool_t tool_process_input = {.verb = VERB_process_input, .start = input_start, .destroy = input_destroy};
