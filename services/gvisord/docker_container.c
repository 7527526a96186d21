/* SPDX-License-Identifier: Apache-2.0 */
#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "services/gvisord/cgroup.h"
#include "services/gvisord/docker_private.h"
#include "services/gvisord/oci_spec.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#define OPEN_FILES 65536
#define CMDLINE_MAX 8192
#define STORAGE_MIN ((uint64_t)1 << 30) /* its image has to fit, too */

/* As oci_spec.c; the last two are the agent's own, harmless under gVisor only. */
static const char *const CAPABILITIES[] = {"CHOWN",  "DAC_OVERRIDE",     "FOWNER",    "FSETID",     "KILL",
                                           "SETGID", "SETUID",           "SETFCAP",   "SYS_CHROOT", "AUDIT_WRITE",
                                           "MKNOD",  "NET_BIND_SERVICE", "SYS_ADMIN", "SETPCAP"};
#define CAPABILITIES_OF_AGENT 2

char *docker_container_name(const char *id)
{
    return mem_printf(DOCKER_NAME_PREFIX "%s", id);
}

uint64_t docker_memory_limit(const sandbox_spec_t *spec)
{
    return cgroup_memory_limit(spec->memory_bytes);
}

static json_t *labels(const docker_container_t *c)
{
    json_t *all = json_object();
    const char *key;
    json_t *value;
    json_object_foreach(c->spec->labels, key, value) json_object_set(all, key, value);
    if (!json_object_get(all, "workspace.type"))
        json_object_set_new(all, "workspace.type", json_string("workspace"));
    json_t *own = json_pack("{s:s,s:s,s:s}", "memory.workspace", "true", DOCKER_LABEL_INSTANCE, c->d->tag,
                            DOCKER_LABEL_SANDBOX, c->id);
    json_object_update_new(all, own);
    return all;
}

static json_t *host_config(const docker_container_t *c, const char *name)
{
    json_t *add = json_array(), *mounts = json_array();
    size_t count = COUNT_OF(CAPABILITIES) - (c->is_plain ? CAPABILITIES_OF_AGENT : 0);
    bool has_network = strcmp(c->spec->network, "full") == 0;
    json_int_t memory = (json_int_t)docker_memory_limit(c->spec);
    for (size_t i = 0; i < count; i++)
        json_array_append_new(add, json_string(CAPABILITIES[i]));
    if (c->has_volume)
        json_array_append_new(mounts,
                              json_pack("{s:s,s:s,s:s}", "Type", "volume", "Source", name, "Target", "/workspace"));
    json_t *host =
        json_pack("{s:s,s:I,s:I,s:I,s:I,s:[s],s:o,s:[s],s:{s:s},s:{s:s},s:o,s:I}", "NetworkMode",
                  has_network ? "bridge" : "none", "NanoCpus", (json_int_t)c->spec->cpu_milli * 1000000, "Memory",
                  memory, "MemorySwap", memory, "PidsLimit", (json_int_t)cgroup_pids_limit(c->spec->pids_max),
                  "CapDrop", "ALL", "CapAdd", add, "SecurityOpt", "no-new-privileges", "RestartPolicy", "Name", "no",
                  "LogConfig", "Type", "none", "Mounts", mounts, "ShmSize", (json_int_t)(c->spec->memory_bytes / 2));
    if (!c->is_plain) { /* its limits are its own; the kernel may refuse more than the Docker daemon has */
        json_object_set_new(host, "Runtime", json_string(c->d->daemon->config.docker_runtime));
        json_object_set_new(host, "Ulimits",
                            json_pack("[{s:s,s:i,s:i}]", "Name", "nofile", "Soft", OPEN_FILES, "Hard", OPEN_FILES));
    }
    if (c->has_storage_limit && c->spec->disk_bytes >= STORAGE_MIN) {
        auto_free char *size = mem_printf("%llu", (unsigned long long)c->spec->disk_bytes);
        json_object_set_new(host, "StorageOpt", json_pack("{s:s}", "size", size));
    }
    return host;
}

json_t *docker_container_json(const docker_container_t *c)
{
    auto_free char *name = docker_container_name(c->id);
    json_t *all = labels(c);
    if (c->has_volume)
        json_object_set_new(all, "workspace.volume", json_string(name));
    return json_pack("{s:s,s:s,s:[s],s:[],s:s,s:s,s:[s],s:o,s:b,s:b,s:b,s:b,s:b,s:b,s:o}", "Image", c->image_ref,
                     "Hostname", c->id, "Entrypoint", OCI_AGENT_PATH, "Cmd", "WorkingDir", "/", "User", "0:0", "Env",
                     "AGENT_LINK=blocks", "Labels", all, "OpenStdin", 1, "StdinOnce", 0, "AttachStdin", 1,
                     "AttachStdout", 1, "AttachStderr", 0, "Tty", 0, "HostConfig", host_config(c, name));
}

/* ---- steps ---- */

static int call_of(const docker_container_t *c, docker_call_t *call, const char *method, const char *format)
{
    auto_free char *name = docker_container_name(c->id);
    call->method = method;
    call->path = mem_printf("/containers/%s%s", name, format);
    return 0;
}

static int make_volume(void *arg, docker_call_t *call)
{
    const docker_container_t *c = arg;
    auto_free char *name = docker_container_name(c->id);
    if (!c->has_volume)
        return 1;
    call->method = "POST";
    call->path = mem_strdup("/volumes/create");
    call->json = json_pack("{s:s,s:o}", "Name", name, "Labels", labels(c));
    return 0;
}

static int make_container(void *arg, docker_call_t *call)
{
    const docker_container_t *c = arg;
    auto_free char *name = docker_container_name(c->id);
    call->method = "POST";
    call->path = mem_printf("/containers/create?name=%s", name);
    call->json = docker_container_json(c);
    return 0;
}

static int take_container(void *arg, const docker_reply_t *reply, err_t **e)
{
    docker_container_t *c = arg;
    const char *id = json_string_value(json_object_get(reply->json, "Id"));
    if (reply->status != 201)
        return docker_reply_error(reply, "cannot make its container", e);
    if (!id || strlen(id) != 64 || id[strspn(id, "0123456789abcdef")])
        return err_set(e, ERR_PROTOCOL, "the Docker daemon gave the container no usable id");
    memcpy(c->docker_id, id, sizeof c->docker_id);
    return DOCKER_NEXT;
}

static int make_agent(void *arg, docker_call_t *call)
{
    const docker_container_t *c = arg;
    call_of(c, call, "PUT", "/archive?path=/");
    call->bytes = c->d->agent_tar.data;
    call->len = c->d->agent_tar.len;
    return 0;
}

static int make_start(void *arg, docker_call_t *call)
{
    const docker_container_t *c = arg;
    return c->is_missing ? 1 : call_of(c, call, "POST", "/start");
}

/* What runsc says when it shall set up a network and may not. */
static const char *const NETWORK_ERRORS[] = {"setting up network", "network namespace", "/proc/sys/net"};

static int take_start(void *arg, const docker_reply_t *reply, err_t **e)
{
    const docker_container_t *c = arg;
    if (reply->status == 204 || reply->status == 304)
        return DOCKER_NEXT;
    /* A Docker daemon that ended during the last start left the runtime behind, which stands in the way for ever. */
    if (reply->text && strstr(reply->text, "already exists") && c->docker_id[0]) {
        docker_kill_leaked(c->d, c->docker_id);
        return DOCKER_AGAIN;
    }
    docker_reply_error(reply, "cannot start its container", e);
    for (size_t i = 0; i < COUNT_OF(NETWORK_ERRORS); i++)
        if (strstr(err_message(*e), NETWORK_ERRORS[i]))
            return err_wrap(e, "gVisor cannot have a network of its own in this Docker daemon: give it runtimeArgs "
                               "[\"--network=none\", \"--overlay2=none\"] in daemon.json (make docker-runtime) and "
                               "restart it");
    return -1;
}

static int make_ping(void *arg, docker_call_t *call)
{
    (void)arg;
    call->method = "GET";
    call->path = mem_strdup("/_ping");
    return 0;
}

/* A Docker daemon that is going down ends containers first: a start that it is in the middle of then leaves mounts and
 * processes that stand in the way of the next one. */
static int take_ping(void *arg, const docker_reply_t *reply, err_t **e)
{
    const docker_container_t *c = arg;
    (void)e;
    return reply->status == 200 && clock_monotonic_ms() >= c->settle_ms ? DOCKER_NEXT : DOCKER_AGAIN;
}

static int make_halt(void *arg, docker_call_t *call)
{
    return call_of(arg, call, "POST", "/stop?t=0");
}

static int take_halt(void *arg, const docker_reply_t *reply, err_t **e)
{
    docker_container_t *c = arg;
    c->is_missing = reply->status == 404;
    if (reply->status == 204 || reply->status == 304 || reply->status == 404)
        return DOCKER_NEXT;
    return docker_reply_error(reply, "cannot stop its container", e);
}

static int make_kill(void *arg, docker_call_t *call)
{
    return call_of(arg, call, "POST", "/kill");
}

static int take_kill(void *arg, const docker_reply_t *reply, err_t **e)
{
    (void)arg;
    if (reply->status == 204 || reply->status == 404 || reply->status == 409) /* 409: it does not run */
        return DOCKER_NEXT;
    return docker_reply_error(reply, "cannot end its processes", e);
}

static int make_removal(void *arg, docker_call_t *call)
{
    return call_of(arg, call, "DELETE", "?force=1");
}

static int take_removal(void *arg, const docker_reply_t *reply, err_t **e)
{
    (void)arg;
    if (reply->status == 204 || reply->status == 404)
        return DOCKER_NEXT;
    if (reply->status == 409) /* is being removed, or its volume is in use still */
        return DOCKER_AGAIN;
    return docker_reply_error(reply, "cannot remove its container or volume", e);
}

static int make_volume_removal(void *arg, docker_call_t *call)
{
    const docker_container_t *c = arg;
    auto_free char *name = docker_container_name(c->id);
    call->method = "DELETE";
    call->path = mem_printf("/volumes/%s?force=1", name);
    return 0;
}

const docker_step_t DOCKER_CREATE[] = {
    {"cannot make its volume", make_volume, NULL, DOCKER_QUICK_MS, false},
    {"cannot make its container", make_container, take_container, DOCKER_START_MS, false},
    {"cannot put the agent into its container", make_agent, NULL, DOCKER_START_MS, false},
    {"cannot start its container", make_start, take_start, DOCKER_START_MS, false},
    {0},
};
const docker_step_t DOCKER_START[] = {
    {"the Docker daemon does not come back", make_ping, take_ping, DOCKER_QUICK_MS, true},
    {"cannot stop its container", make_halt, take_halt, DOCKER_START_MS, false},
    {"cannot start its container", make_start, take_start, DOCKER_START_MS, false},
    {0},
};
const docker_step_t DOCKER_STOP[] = {
    {"cannot stop its container", make_halt, take_halt, DOCKER_START_MS, false},
    {0},
};
const docker_step_t DOCKER_KILL[] = {
    {"cannot end its processes", make_kill, take_kill, DOCKER_START_MS, false},
    {0},
};
const docker_step_t DOCKER_REMOVE[] = {
    {"cannot remove its container", make_removal, take_removal, DOCKER_START_MS, false},
    {"cannot remove its volume", make_volume_removal, take_removal, DOCKER_START_MS, false},
    {0},
};

/* ---- leaked processes ---- */

static bool is_of_container(int proc_fd, const char *pid, const char *docker_id)
{
    auto_free char *path = mem_printf("%s/cmdline", pid);
    auto_close int fd = openat(proc_fd, path, O_RDONLY | O_CLOEXEC);
    char text[CMDLINE_MAX + 1];
    ssize_t n = fd < 0 ? -1 : read(fd, text, CMDLINE_MAX);
    if (n <= 0)
        return false;
    for (ssize_t i = 0; i < n; i++)
        text[i] = text[i] ? text[i] : ' ';
    text[n] = '\0';
    bool is_runtime = strstr(text, "containerd-shim") || strstr(text, "runsc");
    return is_runtime && strstr(text, docker_id);
}

void docker_kill_leaked(const docker_t *d, const char *docker_id)
{
    DIR *proc = d->host.path && strlen(docker_id) == 64 ? opendir("/proc") : NULL;
    if (!proc)
        return;
    for (struct dirent *de; (de = readdir(proc));) {
        char *end;
        long pid = strtol(de->d_name, &end, 10);
        if (*end || pid <= 1)
            continue;
        /* The descriptor before the look: the number may be another's afterwards. */
        auto_close int fd = (int)syscall(SYS_pidfd_open, (pid_t)pid, 0);
        if (fd < 0 || !is_of_container(dirfd(proc), de->d_name, docker_id))
            continue;
        log_warn("process %ld of a container that did not start was left behind; it is ended", pid);
        (void)syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0);
    }
    closedir(proc);
}
