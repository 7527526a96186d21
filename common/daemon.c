// SPDX-License-Identifier: Apache-2.0
#include "common/daemon.h"

#include "common/clock.h"
#include "common/file.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/text.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define EXIT_CONFIG 2

/* ---- arguments ---- */

static int print_buf(const buf_t *text)
{
    size_t written = fwrite(text->data, 1, text->len, stdout);
    return written == text->len && fflush(stdout) == 0 ? 0 : 1;
}

static int option_check(const char *name, unsigned scope)
{
    config_t config;
    auto_err err_t *e = NULL;
    if (config_load(&config, scope, &e) != 0) {
        fprintf(stderr, "%s: %s\n", name, err_message(e));
        return EXIT_CONFIG;
    }
    config_free(&config);
    printf("%s: the configuration is valid\n", name);
    return 0;
}

static int option_print_config(const char *name, unsigned scope)
{
    config_t config;
    auto_err err_t *e = NULL;
    auto_buf buf_t text;
    buf_init(&text, 0);
    if (config_load(&config, scope, &e) != 0) {
        fprintf(stderr, "%s: %s\n", name, err_message(e));
        return EXIT_CONFIG;
    }
    config_print(&config, scope, &text);
    config_free(&config);
    return print_buf(&text);
}

static int option_config_reference(const char *name, unsigned scope)
{
    (void)name;
    (void)scope;
    auto_buf buf_t text;
    buf_init(&text, 0);
    config_reference(&text);
    return print_buf(&text);
}

static int option_version(const char *name, unsigned scope)
{
    (void)scope;
    printf("%s %s\n", name, EW_VERSION);
    return 0;
}

static int option_help(const char *name, unsigned scope);

static const struct option_row {
    const char *name;
    int (*run)(const char *daemon, unsigned scope);
    const char *doc;
} options[] = {
    {"--check", option_check, "check the configuration and exit: 0 valid, 2 not"},
    {"--print-config", option_print_config, "print the configuration in force (no secrets) and exit"},
    {"--config-reference", option_config_reference, "print every configuration key as Markdown and exit"},
    {"--version", option_version, "print the version and exit"},
    {"--help", option_help, "print this and exit"},
};

static int option_help(const char *name, unsigned scope)
{
    (void)scope;
    printf("usage: %s [option]\n\nWithout an option it runs in the foreground until SIGTERM or SIGINT. It is "
           "configured by\n"
           "environment variables and the file that EW_CONFIG names.\n\n",
           name);
    for (size_t i = 0; i < COUNT_OF(options); i++)
        printf("  %-20s %s\n", options[i].name, options[i].doc);
    return 0;
}

static int run_option(const char *name, unsigned scope, int argc, char **argv)
{
    for (size_t i = 0; argc == 2 && i < COUNT_OF(options); i++)
        if (strcmp(options[i].name, argv[1]) == 0)
            return options[i].run(name, scope);
    fprintf(stderr, "%s: unexpected argument \"%s\"; try %s --help\n", name, argv[argc == 2 ? 1 : 2], name);
    return EXIT_CONFIG;
}

/* ---- set-up ---- */

/* A list such as "0-3,5". */
static bool parse_cpu_set(const char *text, cpu_set_t *set)
{
    CPU_ZERO(set);
    while (*text != '\0') {
        char part[32];
        uint64_t first, last;
        size_t n = strcspn(text, ",");
        if (n == 0 || n >= sizeof part)
            return false;
        memcpy(part, text, n);
        part[n] = '\0';
        char *dash = strchr(part, '-');
        if (dash != NULL)
            *dash++ = '\0';
        if (!text_to_u64(part, &first) || !text_to_u64(dash ? dash : part, &last) || first > last ||
            last >= CPU_SETSIZE)
            return false;
        for (uint64_t cpu = first; cpu <= last; cpu++)
            CPU_SET((int)cpu, set);
        text += n;
        if (*text == ',' && *++text == '\0')
            return false;
    }
    return CPU_COUNT(set) > 0;
}

static int set_cpus(const char *text, err_t **e)
{
    cpu_set_t set;
    if (*text == '\0')
        return 0;
    if (!parse_cpu_set(text, &set))
        return err_set(e, ERR_BAD_REQUEST, "EW_CPU_SET is \"%.100s\": must be a list of CPUs such as 0 or 0-3,5", text);
    if (sched_setaffinity(0, sizeof set, &set) != 0)
        return err_set_errno(e, ERR_BAD_REQUEST, errno, "cannot run on the CPUs of EW_CPU_SET=%s", text);
    return 0;
}

/* Whoever may write where the sockets are can take a daemon's place. */
static int make_private_dir(const char *path, const char *key, err_t **e)
{
    struct stat st;
    if (dir_make(path, 0700, e) != 0)
        return err_wrap(e, "%s", key);
    if (stat(path, &st) != 0)
        return err_set_errno(e, ERR_NONE, errno, "%s: cannot look at %s", key, path);
    if (st.st_uid != geteuid() || (st.st_mode & 077) != 0)
        return err_set(e, ERR_BAD_REQUEST,
                       "%s: %s must belong to the daemon's user and have mode 0700 (chown and chmod it, or name "
                       "another directory)",
                       key, path);
    return 0;
}

static int take_lock(daemon_t *d, err_t **e)
{
    auto_free char *path = mem_printf("%s/lock", d->state_dir);
    char text[32] = "";
    d->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (d->lock_fd < 0)
        return err_set_errno(e, ERR_NONE, errno, "cannot open %s", path);
    if (flock(d->lock_fd, LOCK_EX | LOCK_NB) != 0) {
        int saved_errno = errno;
        ssize_t n = read(d->lock_fd, text, sizeof text - 1);
        text[n > 0 ? strcspn(text, "\n") : 0] = '\0';
        if (saved_errno == EWOULDBLOCK)
            return err_set(e, ERR_CONFLICT, "another %s (pid %s) already uses %s: stop it, or set another EW_STATE_DIR",
                           d->name, *text ? text : "unknown", d->state_dir);
        return err_set_errno(e, ERR_INTERNAL, saved_errno, "cannot lock %s", path);
    }
    int len = snprintf(text, sizeof text, "%ld\n", (long)getpid());
    if (ftruncate(d->lock_fd, 0) != 0 || write(d->lock_fd, text, (size_t)len) != len)
        return err_set_errno(e, ERR_NONE, errno, "cannot write %s", path);
    return 0;
}

static void on_signal(evutil_socket_t number, short events, void *arg)
{
    daemon_t *d = arg;
    (void)events;
    log_info("%s received, stopping", number == SIGINT ? "SIGINT" : "SIGTERM");
    /* Back to the default action: a second signal ends a daemon that hangs while stopping. */
    for (size_t i = 0; i < COUNT_OF(d->signals); i++)
        event_del(d->signals[i]);
    daemon_stop(d);
}

static int make_loop(daemon_t *d, err_t **e)
{
    static const int numbers[] = {SIGTERM, SIGINT};
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigset_t none;
    sigemptyset(&none);
    if (sigaction(SIGPIPE, &ignore, NULL) != 0 || sigprocmask(SIG_SETMASK, &none, NULL) != 0)
        return err_set_errno(e, ERR_INTERNAL, errno, "cannot set up signals");
    d->base = event_base_new();
    if (d->base == NULL)
        return err_set(e, ERR_INTERNAL, "cannot make an event loop");
    for (size_t i = 0; i < COUNT_OF(numbers); i++) {
        d->signals[i] = evsignal_new(d->base, numbers[i], on_signal, d);
        if (d->signals[i] == NULL || event_add(d->signals[i], NULL) != 0)
            return err_set(e, ERR_INTERNAL, "cannot watch signal %d", numbers[i]);
    }
    return 0;
}

/* Thousands of streams need descriptors; the soft limit is for programs that use select(). */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
            log_warn("the limit of open files stays low: %s", strerrordesc_np(errno));
    }
}

static int set_up(daemon_t *d, err_t **e)
{
    uint8_t instance[16];
    random_bytes(instance, sizeof instance);
    hex_encode(d->instance, instance, sizeof instance);
    d->state_dir = mem_printf("%s/%s", d->config.state_dir, d->name);
    if (set_cpus(d->config.cpu_set, e) != 0 || dir_make(d->config.state_dir, 0700, e) != 0 ||
        make_private_dir(d->state_dir, "EW_STATE_DIR", e) != 0 ||
        make_private_dir(d->config.run_dir, "EW_RUN_DIR", e) != 0 || take_lock(d, e) != 0)
        return -1;
    raise_descriptor_limit();
    return make_loop(d, e);
}

int daemon_init(daemon_t *d, const char *name, unsigned scope, int argc, char **argv, int *exit_code, err_t **e)
{
    enum log_level level = LOG_LEVEL_INFO;
    *d = (daemon_t){.name = name, .lock_fd = -1};
    if (argc > 1) {
        *exit_code = run_option(name, scope, argc, argv);
        return 1;
    }
    log_open(name, level);
    if (config_load(&d->config, scope, e) != 0)
        return -1;
    log_level_parse(d->config.log_level, &level); /* a CHOICE: always one of them */
    log_open(name, level);
    log_set_text(strcmp(d->config.log_format, "text") == 0);
    if (set_up(d, e) != 0) {
        daemon_free(d);
        return -1;
    }
    return 0;
}

void daemon_run(daemon_t *d)
{
    auto_err err_t *e = NULL;
    auto_free char *path = mem_printf("%s/%s.pid", d->config.run_dir, d->name);
    auto_free char *pid = mem_printf("%ld\n", (long)getpid());
    if (file_write_atomic(path, pid, strlen(pid), 0644, &e) != 0)
        log_error("%s: whoever stops %s by its pid file will not find it", err_message(e), d->name);
    log_info("running: version %s, instance %s, state in %s", EW_VERSION, d->instance, d->state_dir);
    event_base_dispatch(d->base);
    unlink(path);
}

void daemon_stop(daemon_t *d)
{
    /* loopexit and not loopbreak: it also works before the loop has started. */
    event_base_loopexit(d->base, NULL);
}

void daemon_free(daemon_t *d)
{
    for (size_t i = 0; i < COUNT_OF(d->signals); i++)
        if (d->signals[i] != NULL) {
            event_free(d->signals[i]);
            d->signals[i] = NULL;
        }
    if (d->base != NULL)
        event_base_free(d->base);
    d->base = NULL;
    free(d->state_dir);
    d->state_dir = NULL;
    fd_close_p(&d->lock_fd); /* the lock ends with it; the file stays, so that nobody locks a removed one */
    config_free(&d->config);
}

char *daemon_gateway_endpoints(const daemon_t *d)
{
    if (*d->config.gateway_endpoints != '\0')
        return mem_strdup(d->config.gateway_endpoints);
    return mem_printf("ipc://%s/gateway.fabric", d->config.run_dir);
}
