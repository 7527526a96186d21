/* SPDX-License-Identifier: Apache-2.0
 *
 * find the runtime → its version → what the host has → trials of variants until one passes → a trial with network full
 * → the cache. What is found is kept in `probe.json` under a fingerprint of everything it depends on, so that a
 * restarted daemon is ready at once and verifies beside its work.
 */
#include "common/clock.h"
#include "common/file.h"
#include "common/log.h"
#include "common/mem.h"
#include "services/gvisord/trial.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#define VERSION_TIMEOUT_MS 10000
#define VERSION_OUTPUT_MAX 4096
#define CACHE_MAX 65536
#define VARIANTS_MAX 8
#define DRAIN_MS 5000

struct probe {
    gvisord_t *gv;
    probe_result_t result;
    char *path;
    char *fingerprint; /* of `result`; NULL: not verified by this process */
    char *next_fingerprint;
    probe_result_t next;
    runtime_variant_t variants[VARIANTS_MAX];
    size_t variant_count, variant_at;
    bool is_verifying;
    bool is_verified; /* by this process, with whatever result */
    bool is_stopping;
    bool is_checkpoint_tried; /* with what `fingerprint` says */
    process_t *process;
    worker_job_t *job;
    trial_t *trial;
    provider_done_fn done;
    void *done_arg;
};

static bool find_runtime(probe_t *p);
static int prepare_fingerprint(probe_t *p, err_t **e);
static bool cache_read(probe_t *p);
static void try_variant(probe_t *p);
static void try_full(probe_t *p);

probe_t *probe_new(gvisord_t *gv)
{
    probe_t *p = mem_alloc(sizeof *p);
    p->gv = gv;
    p->result.is_running_first = true;
    snprintf(p->result.message, sizeof p->result.message, "starting: probing what runsc can do here");
    auto_err err_t *ignored = NULL;
    if (find_runtime(p) && prepare_fingerprint(p, &ignored) == 0)
        (void)cache_read(p); /* what was half done when the daemon ended is finished before the first probe */
    return p;
}

void probe_free(probe_t **pp)
{
    probe_t *p = *pp;
    *pp = NULL;
    if (!p)
        return;
    process_cancel(&p->process);
    worker_forget(&p->job);
    trial_abandon(&p->trial);
    free(p->path);
    free(p->fingerprint);
    free(p->next_fingerprint);
    free(p);
}

void probe_drain(probe_t *p)
{
    uint64_t until = clock_monotonic_ms() + DRAIN_MS;
    struct event_base *base = p->gv->daemon.base;
    p->is_stopping = true;
    if (p->trial)
        trial_stop(p->trial);
    /* The trial's own timers and the provider's tick wake the loop. */
    while ((p->trial || p->process || p->job) && clock_monotonic_ms() < until &&
           event_base_loop(base, EVLOOP_ONCE) == 0)
        ;
}

const probe_result_t *probe_result(const probe_t *p)
{
    return &p->result;
}

const char *probe_runtime_path(const probe_t *p)
{
    return p->path;
}

static void tell(probe_t *p)
{
    status_refresh(p->gv);
    provider_done_fn done = p->done;
    p->done = NULL;
    if (done)
        done(p->done_arg, NULL);
}

/* ---- the cache ---- */

static char *cache_path(const probe_t *p)
{
    return mem_printf("%s/probe.json", p->gv->daemon.state_dir);
}

static void cache_write(const probe_t *p)
{
    const probe_result_t *r = &p->result;
    json_t *root =
        json_pack("{s:s,s:s,s:s,s:b,s:b,s:b,s:b,s:b,s:b,s:b,s:b,s:i,s:s,s:s,s:s}", "fingerprint", p->fingerprint,
                  "version", r->version, "platform", r->variant.platform, "user_namespace",
                  r->variant.has_user_namespace, "crun", r->variant.is_crun, "degraded", r->is_degraded, "full_network",
                  r->has_full_network, "loop", r->variant.has_loop, "checkpoint_tried", p->is_checkpoint_tried,
                  "keeps_processes", r->keeps_processes, "reflink", r->has_reflink, "startup_ms", (int)r->startup_ms,
                  "message", r->message, "network_message", r->network_message, "disk_message", r->disk_message);
    auto_free char *text = root ? json_dumps(root, JSON_INDENT(1)) : NULL;
    auto_free char *path = cache_path(p);
    auto_err err_t *e = NULL;
    json_decref(root);
    if (text && file_write_atomic(path, text, strlen(text), 0600, &e) < 0)
        log_warn("the probe's result is not kept: %s", err_message(e));
}

static void copy_text(char *out, size_t size, const json_t *root, const char *key)
{
    const char *s = json_string_value(json_object_get(root, key));
    snprintf(out, size, "%s", s ? s : "");
}

static bool cache_read(probe_t *p)
{
    auto_free char *path = cache_path(p);
    auto_buf buf_t text = {0};
    auto_err err_t *e = NULL;
    if (file_read(path, CACHE_MAX, &text, &e) < 0)
        return false;
    json_t *root = json_loadb((const char *)text.data, text.len, 0, NULL);
    const char *fingerprint = json_string_value(json_object_get(root, "fingerprint"));
    bool is_same = fingerprint && strcmp(fingerprint, p->next_fingerprint) == 0;
    if (is_same) {
        probe_result_t *r = &p->result;
        *r = (probe_result_t){.is_usable = true,
                              .is_degraded = json_is_true(json_object_get(root, "degraded")),
                              .has_full_network = json_is_true(json_object_get(root, "full_network")),
                              .startup_ms = (uint32_t)json_integer_value(json_object_get(root, "startup_ms"))};
        r->keeps_processes = json_is_true(json_object_get(root, "keeps_processes"));
        r->has_reflink = json_is_true(json_object_get(root, "reflink"));
        p->is_checkpoint_tried = json_is_true(json_object_get(root, "checkpoint_tried"));
        r->variant.has_user_namespace = json_is_true(json_object_get(root, "user_namespace"));
        r->variant.has_loop = json_is_true(json_object_get(root, "loop"));
        r->variant.is_crun = json_is_true(json_object_get(root, "crun"));
        copy_text(r->variant.platform, sizeof r->variant.platform, root, "platform");
        copy_text(r->version, sizeof r->version, root, "version");
        copy_text(r->message, sizeof r->message, root, "message");
        copy_text(r->network_message, sizeof r->network_message, root, "network_message");
        copy_text(r->disk_message, sizeof r->disk_message, root, "disk_message");
    }
    json_decref(root);
    return is_same;
}

/* ---- can processes be kept? ---- */

/* Beside the work: nobody waits for it, and a stop tries anyway. */
static void on_checkpoint_trial(void *arg, const trial_outcome_t *outcome)
{
    probe_t *p = arg;
    p->trial = NULL;
    if (p->is_stopping)
        return;
    p->is_checkpoint_tried = true;
    p->result.keeps_processes = outcome->has_resumed;
    if (outcome->has_resumed)
        log_info("probe: processes can be kept on disk and go on");
    else
        log_warn("probe: processes will not survive a stop: %s", outcome->message);
    cache_write(p);
    status_refresh(p->gv);
}

static void try_checkpoint(probe_t *p)
{
    auto_err err_t *e = NULL;
    if (p->is_checkpoint_tried || p->result.variant.is_crun || p->is_stopping)
        return;
    p->trial = trial_start(p->gv, &p->result.variant, "none", TRIAL_CHECKPOINT, on_checkpoint_trial, p, &e);
    if (!p->trial)
        log_warn("probe: whether processes survive a stop is not known: %s", err_message(e));
}

/* ---- the end of a verification ---- */

static void end_verification(probe_t *p)
{
    p->is_verifying = false;
    p->is_verified = true;
    p->next.is_running_first = false;
    p->next.keeps_processes = p->is_checkpoint_tried && p->result.keeps_processes;
    p->result = p->next;
    free(p->fingerprint);
    p->fingerprint = NULL;
    if (p->result.is_usable) {
        p->fingerprint = STEAL_PTR(p->next_fingerprint);
        cache_write(p);
        char isolation[64];
        variant_isolation(&p->result.variant, isolation, sizeof isolation);
        log_info("probe: %s works (%s), agent ready after %u ms, network full %s%s", isolation, p->result.version,
                 p->result.startup_ms, p->result.has_full_network ? "works" : "does not: ",
                 p->result.has_full_network ? "" : p->result.network_message);
        try_checkpoint(p);
    } else {
        log_warn("probe: %s", p->result.message);
    }
    tell(p);
}

static void __attribute__((format(printf, 2, 3))) unusable(probe_t *p, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(p->next.message, sizeof p->next.message, fmt, ap);
    va_end(ap);
    p->next.is_usable = false;
    end_verification(p);
}

/* ---- network full ---- */

static void on_full_trial(void *arg, const trial_outcome_t *outcome)
{
    probe_t *p = arg;
    p->trial = NULL;
    if (p->is_stopping)
        return;
    p->next.has_full_network = outcome->has_answered;
    if (!outcome->has_answered)
        snprintf(p->next.network_message, sizeof p->next.network_message, "network full is not available: %.250s",
                 outcome->message);
    end_verification(p);
}

static void on_rules(void *arg, const json_t *result, const err_t *err)
{
    (void)result;
    probe_t *p = arg;
    p->job = NULL;
    p->gv->has_rules = p->gv->has_rules || !err;
    if (p->is_stopping)
        return;
    auto_err err_t *e = NULL;
    if (!err)
        p->trial = trial_start(p->gv, &p->next.variant, "full", TRIAL_COMMANDS, on_full_trial, p, &e);
    if (p->trial)
        return;
    snprintf(p->next.network_message, sizeof p->next.network_message, "network full is not available: %.250s",
             err_message(err ? err : e));
    end_verification(p);
}

static void try_full(probe_t *p)
{
    auto_err err_t *e = NULL;
    p->job = worker_run(p->gv->worker, job_network_rules, json_object(), on_rules, p, &e);
    if (!p->job)
        on_rules(p, NULL, e);
}

/* ---- variants ---- */

static void on_trial(void *arg, const trial_outcome_t *outcome)
{
    probe_t *p = arg;
    p->trial = NULL;
    if (p->is_stopping)
        return;
    const runtime_variant_t *v = &p->variants[p->variant_at];
    char isolation[64];
    variant_isolation(v, isolation, sizeof isolation);
    if (outcome->has_answered && !p->next.is_usable) {
        p->next.is_usable = true;
        p->next.is_degraded = !outcome->has_working_ls;
        p->next.variant = *v;
        p->next.startup_ms = outcome->startup_ms;
        if (p->next.is_degraded)
            snprintf(p->next.message, sizeof p->next.message, "%.100s (%.100s): %.300s; install a newer runsc",
                     isolation, p->next.version, outcome->message);
        else
            p->next.message[0] = '\0';
    } else if (outcome->has_answered && outcome->has_working_ls) {
        p->next.is_degraded = false;
        p->next.variant = *v;
        p->next.startup_ms = outcome->startup_ms;
        p->next.message[0] = '\0';
    } else if (!outcome->has_answered) {
        log_info("probe: %s does not work: %s", isolation, outcome->message);
        if (!p->next.is_usable)
            snprintf(p->next.message, sizeof p->next.message, "%.100s does not work here: %.400s", isolation,
                     outcome->message);
    }
    p->variant_at++;
    if (p->next.is_usable && !p->next.is_degraded)
        p->variant_at = p->variant_count;
    try_variant(p);
}

static void try_variant(probe_t *p)
{
    auto_err err_t *e = NULL;
    if (p->variant_at < p->variant_count) {
        p->next.variant = p->next.is_usable ? p->next.variant : p->variants[p->variant_at];
        p->trial = trial_start(p->gv, &p->variants[p->variant_at], "none", TRIAL_COMMANDS, on_trial, p, &e);
        if (!p->trial)
            unusable(p, "a probe sandbox cannot be made: %s", err_message(e));
    } else if (p->next.is_usable) {
        try_full(p);
    } else {
        end_verification(p);
    }
}

static void list_variants(probe_t *p)
{
    static const char *const automatic[] = {"systrap", "ptrace"};
    const config_t *c = &p->gv->daemon.config;
    bool is_auto = strcmp(c->runsc_platform, "auto") == 0, is_crun = p->next.variant.is_crun;
    const char *chosen[] = {is_crun ? "" : c->runsc_platform};
    const char *const *platforms = is_auto && !is_crun ? automatic : chosen;
    size_t count = is_auto && !is_crun ? COUNT_OF(automatic) : 1;
    p->variant_count = p->variant_at = 0;
    for (size_t i = 0; i < count; i++)
        for (int with = 1; with >= 0; with--) {
            if (strcmp(c->user_namespace, with ? "off" : "on") == 0)
                continue;
            runtime_variant_t *v = &p->variants[p->variant_count++];
            *v = (runtime_variant_t){
                .has_user_namespace = with, .is_crun = is_crun, .has_loop = p->next.variant.has_loop};
            snprintf(v->platform, sizeof v->platform, "%s", platforms[i]);
        }
}

/* ---- the host ---- */

static void on_host_facts(void *arg, const json_t *result, const err_t *err)
{
    probe_t *p = arg;
    p->job = NULL;
    if (p->is_stopping)
        return;
    if (err) {
        unusable(p, "the host cannot be looked at: %s", err_message(err));
        return;
    }
    p->next.variant.has_loop = json_is_true(json_object_get(result, "has_loop"));
    p->next.has_reflink = json_is_true(json_object_get(result, "has_reflink"));
    if (!p->next.variant.has_loop)
        snprintf(p->next.disk_message, sizeof p->next.disk_message, "disk limit watched, not enforced: %.240s",
                 json_string_value(json_object_get(result, "disk_message")));
    list_variants(p);
    try_variant(p);
}

static void on_version(void *arg, const process_result_t *result)
{
    probe_t *p = arg;
    p->process = NULL;
    if (p->is_stopping)
        return;
    if (result->exit_code != 0) {
        unusable(p, "%s does not run: %.300s", p->path, result->output);
        return;
    }
    snprintf(p->next.version, sizeof p->next.version, "%.*s", (int)strcspn(result->output, "\n"), result->output);
    auto_err err_t *e = NULL;
    p->job = worker_run(p->gv->worker, job_host_facts, json_object(), on_host_facts, p, &e);
    if (!p->job)
        unusable(p, "the host cannot be looked at: %s", err_message(e));
}

static void ask_version(probe_t *p)
{
    const char *argv[] = {p->path, "--version", NULL};
    process_options_t options = {.argv = argv,
                                 .fd_stdin = -1,
                                 .fd_stdout = -1,
                                 .fd_stderr = -1,
                                 .netns_fd = -1,
                                 .timeout_ms = VERSION_TIMEOUT_MS,
                                 .output_max = VERSION_OUTPUT_MAX};
    auto_err err_t *e = NULL;
    p->process = process_start(p->gv->daemon.base, &options, on_version, p, &e);
    if (!p->process)
        unusable(p, "%s does not run: %s", p->path, err_message(e));
}

/* Absolute path of a program, NULL when there is none. */
static char *find_program(const char *name)
{
    if (strchr(name, '/'))
        return access(name, X_OK) == 0 ? mem_strdup(name) : NULL;
    const char *path = getenv("PATH");
    for (const char *at = path ? path : "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"; *at;) {
        size_t len = strcspn(at, ":");
        auto_free char *candidate = mem_printf("%.*s/%s", (int)len, at, name);
        if (len && access(candidate, X_OK) == 0)
            return STEAL_PTR(candidate);
        at += len + (at[len] == ':');
    }
    return NULL;
}

/* False: nothing to run sandboxes with; next.message says why. */
static bool find_runtime(probe_t *p)
{
    const config_t *c = &p->gv->daemon.config;
    free(p->path);
    p->next.variant = (runtime_variant_t){0};
    p->path = find_program(c->runsc_bin);
    if (!p->path && c->allow_crun) {
        p->path = find_program("crun");
        p->next.variant.is_crun = p->path != NULL;
    }
    if (!p->path)
        snprintf(p->next.message, sizeof p->next.message,
                 "gVisor runtime not available: runsc was not found (RUNSC_BIN=%.200s); install it with make install",
                 c->runsc_bin);
    return p->path != NULL;
}

/* Everything that the result depends on. */
static char *make_fingerprint(const probe_t *p, const char *rootfs)
{
    const config_t *c = &p->gv->daemon.config;
    struct stat st = {0};
    struct utsname os = {0};
    (void)stat(p->path, &st);
    (void)uname(&os);
    return mem_printf("%s %lld %lld %s %s %s %s %s %s %s", p->path, (long long)st.st_size, (long long)st.st_mtime,
                      os.release, os.version, p->gv->agent_layer, rootfs, c->runsc_platform, c->user_namespace,
                      c->network_pool);
}

/* Or says what is missing for any sandbox. */
static int prepare_fingerprint(probe_t *p, err_t **e)
{
    auto_image image_t image = {0};
    const char *missing = !p->gv->agent_layer ? p->gv->agent_error : p->gv->cgroup_error;
    if (missing)
        return err_set(e, ERR_PROVIDER_UNAVAILABLE, "%s", missing);
    if (image_find(p->gv->image_dir, p->gv->daemon.config.default_image, &image, e) < 0)
        return -1;
    free(p->next_fingerprint);
    p->next_fingerprint = make_fingerprint(p, image.rootfs);
    return 0;
}

void probe_run(probe_t *p, provider_done_fn done, void *arg)
{
    p->done = done;
    p->done_arg = arg;
    if (p->is_verifying || p->trial) { /* in the background, after a start from the cache */
        tell(p);
        return;
    }
    p->next = (probe_result_t){0};
    p->is_verifying = true;
    auto_err err_t *e = NULL;
    if (!find_runtime(p)) {
        end_verification(p);
    } else if (prepare_fingerprint(p, &e) < 0) {
        unusable(p, "%s", err_message(e));
    } else {
        if (p->fingerprint && strcmp(p->fingerprint, p->next_fingerprint) == 0) {
            p->is_verifying = false; /* nothing has changed since it was tried */
            tell(p);
            return;
        }
        p->is_checkpoint_tried = false;
        if (!p->is_verified && cache_read(p)) {
            log_info("probe: as found by an earlier start; verifying beside the work");
            tell(p);
        }
        ask_version(p);
    }
}
