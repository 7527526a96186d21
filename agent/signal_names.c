// SPDX-License-Identifier: Apache-2.0
#include "agent/signal_names.h"

#include "common/mem.h"
#include "common/text.h"

#include <signal.h>
#include <stdint.h>
#include <strings.h>

static const struct row {
    int number;
    const char *name;
} rows[] = {
    {SIGHUP, "SIGHUP"},   {SIGINT, "SIGINT"},     {SIGQUIT, "SIGQUIT"}, {SIGILL, "SIGILL"},   {SIGTRAP, "SIGTRAP"},
    {SIGABRT, "SIGABRT"}, {SIGBUS, "SIGBUS"},     {SIGFPE, "SIGFPE"},   {SIGKILL, "SIGKILL"}, {SIGUSR1, "SIGUSR1"},
    {SIGSEGV, "SIGSEGV"}, {SIGUSR2, "SIGUSR2"},   {SIGPIPE, "SIGPIPE"}, {SIGALRM, "SIGALRM"}, {SIGTERM, "SIGTERM"},
    {SIGCHLD, "SIGCHLD"}, {SIGCONT, "SIGCONT"},   {SIGSTOP, "SIGSTOP"}, {SIGTSTP, "SIGTSTP"}, {SIGTTIN, "SIGTTIN"},
    {SIGTTOU, "SIGTTOU"}, {SIGURG, "SIGURG"},     {SIGXCPU, "SIGXCPU"}, {SIGXFSZ, "SIGXFSZ"}, {SIGVTALRM, "SIGVTALRM"},
    {SIGPROF, "SIGPROF"}, {SIGWINCH, "SIGWINCH"}, {SIGIO, "SIGIO"},     {SIGPWR, "SIGPWR"},   {SIGSYS, "SIGSYS"},
};

const char *signal_name(int sig)
{
    for (size_t i = 0; i < COUNT_OF(rows); i++)
        if (rows[i].number == sig)
            return rows[i].name;
    return "SIG?";
}

int signal_from_name(const char *name)
{
    uint64_t number;
    if (text_to_u64(name, &number))
        return number > 0 && number < NSIG ? (int)number : -1;
    for (size_t i = 0; i < COUNT_OF(rows); i++)
        if (strcasecmp(rows[i].name, name) == 0 || strcasecmp(rows[i].name + 3, name) == 0)
            return rows[i].number;
    return -1;
}
