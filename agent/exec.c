// SPDX-License-Identifier: Apache-2.0
#include "agent/exec.h"

#include "agent/proc.h"
#include "common/mem.h"

struct exec {
    proc_t *proc;
    proc_observer_t observer;
    exec_done_fn done;
    void *arg;
};

static void exec_finish(exec_t *x)
{
    const proc_t *p = x->proc;
    exec_result_t result = {
        .exit_code = (int)proc_exit_code(p),
        .signal = proc_signal_name(p),
        .is_timed_out = p->is_timed_out,
        .is_oom_hit = p->is_oom_hit,
        .out = p->out[0].head,
        .out_len = p->out[0].head_len,
        .out_total = p->out[0].total,
        .err = p->out[1].head,
        .err_len = p->out[1].head_len,
        .err_total = p->out[1].total,
        .duration_us = proc_duration_us(p),
    };
    proc_unobserve(&x->observer);
    x->done(x->arg, &result);
    proc_release(x->proc);
    free(x);
}

static void on_event(void *arg, proc_t *proc, enum proc_event event)
{
    /* After a timeout the answer waits until nothing of the tree is alive. */
    if (event == PROC_ENDED || (event == PROC_EXITED && !proc->is_timed_out))
        exec_finish(arg);
}

exec_t *exec_run(const exec_options_t *o, exec_done_fn done, void *arg, err_t **e)
{
    proc_options_t options = {
        .argv = (char *const *)o->argv,
        .command = o->argv[0],
        .workdir = o->workdir,
        .user = o->user,
        .env_vars = o->env,
        .input = o->stdin_bytes,
        .input_len = o->stdin_len,
        .head_max = {o->stdout_max, o->stderr_max},
        .timeout_ms = o->timeout_ms,
    };
    proc_t *proc = proc_start(&options, e);
    if (proc == NULL)
        return NULL;
    exec_t *x = mem_alloc(sizeof *x);
    *x = (exec_t){.proc = proc, .done = done, .arg = arg};
    proc_observe(proc, &x->observer, on_event, x);
    return x;
}

void exec_cancel(exec_t **x)
{
    if (*x == NULL)
        return;
    proc_unobserve(&(*x)->observer);
    proc_release((*x)->proc);
    free(*x);
    *x = NULL;
}
