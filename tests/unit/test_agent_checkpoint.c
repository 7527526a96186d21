// SPDX-License-Identifier: Apache-2.0
// LINK: tests/unit/agent_client.c services/gvisord/oci_spec.c
/* The static agent as PID 1 of a real gVisor sandbox, over `runsc checkpoint` and `runsc restore` with new FIFOs: once
 * as the same sandbox, once as a clone with another id. No daemon takes part. */
#include "common/clock.h"
#include "common/mem.h"
#include "services/gvisord/oci_spec.h"
#include "tests/unit/agent_client.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define SOURCE ((uuid16_t){{1}})
#define CLONE ((uuid16_t){{2}})
#define SOURCE_ID "11111111111111111111111111111111"
#define CLONE_ID "22222222222222222222222222222222"
#define STOPPED_MS 6000

/* One sandbox on the host: <dir>/{upper,work,rootfs,in,out,config.json}. */
typedef struct box {
    char dir[128];
    char id[64];
    const char *hostname;
    bool has_user_namespace;
    agent_client_t *agent;
} box_t;

typedef struct lab {
    char dir[64];
    char image[PATH_MAX];
    char agent[PATH_MAX];
} lab_t;

static const char *image_dir(void)
{
    const char *dir = getenv("EW_IMAGE_DIR");
    return dir != NULL ? dir : "/var/cache/emergent-workspaces/images";
}

static const char *why_not(lab_t *lab)
{
    glob_t found = {0};
    char exe[PATH_MAX] = "", pattern[PATH_MAX];
    const char *agent = getenv("EW_AGENT_STATIC");
    snprintf(lab->dir, sizeof lab->dir, "/var/tmp/ew-checkpoint-XXXXXX");
    if (geteuid() != 0)
        return "sandboxes need root";
    if (access("/usr/bin/runsc", X_OK) != 0)
        return "runsc is not installed";
    snprintf(pattern, sizeof pattern, "%s/base/rootfs-*", image_dir());
    if (glob(pattern, 0, NULL, &found) == 0)
        snprintf(lab->image, sizeof lab->image, "%s", found.gl_pathv[0]);
    globfree(&found);
    if (readlink("/proc/self/exe", exe, sizeof exe - 1) > 0 && agent == NULL)
        snprintf(lab->agent, sizeof lab->agent, "%.4000s/../bin/ew-agent", dirname(exe));
    else
        snprintf(lab->agent, sizeof lab->agent, "%s", agent);
    return lab->image[0] == '\0'      ? "there is no image base"
           : access(lab->agent, X_OK) ? "the agent is not built"
                                      : NULL;
}

/* ---- programs ---- */

static int run_with(int fd_in, int fd_out, const char *const argv[])
{
    int status = 0;
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(fd_in, 0);
        dup2(fd_out, 1);
        dup2(null, 2); /* a sandbox that is left over must not hold the pipe of who waits for this program */
        execvp(argv[0], (char *const *)argv);
        _exit(127);
    }
    close(null);
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void run(const char *const argv[])
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    cr_assert_eq(run_with(null, null, argv), 0, "%s %s failed", argv[0], argv[1]);
    close(null);
}

/* runsc with the arguments that gvisord uses. */
static int runsc(const lab_t *lab, int fd_in, int fd_out, const char *const *more)
{
    char root[128], log[128];
    const char *argv[32] = {"runsc",
                            "--root",
                            root,
                            "--log",
                            log,
                            "--log-format",
                            "json",
                            "--platform",
                            "systrap",
                            "--network",
                            "none",
                            "--overlay2=none",
                            "--ignore-cgroups"};
    size_t n = 13;
    snprintf(root, sizeof root, "%s/runsc", lab->dir);
    snprintf(log, sizeof log, "%s/runtime.log", lab->dir);
    while (*more != NULL && n < COUNT_OF(argv) - 1)
        argv[n++] = *more++;
    return run_with(fd_in, fd_out, argv);
}

static void runsc_quiet(const lab_t *lab, const char *const *more)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    cr_assert_eq(runsc(lab, null, null, more), 0, "runsc %s failed: see %s/runtime.log", more[0], lab->dir);
    close(null);
}

static char *path_in(const box_t *box, const char *name)
{
    return mem_printf("%s/%s", box->dir, name);
}

static void make_dir(const box_t *box, const char *name)
{
    auto_free char *path = path_in(box, name);
    cr_assert(mkdir(path, 0755) == 0 || errno == EEXIST, "%s", path);
}

static int fifo_open(const box_t *box, const char *name)
{
    auto_free char *path = path_in(box, name);
    cr_assert(mkfifo(path, 0600) == 0 || errno == EEXIST);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    cr_assert_geq(fd, 0);
    return fd;
}

/* from NULL: new files; else those of a stopped box, as they were. */
static void box_make(box_t *box, const lab_t *lab, const char *name, const box_t *from)
{
    auto_err err_t *e = NULL;
    snprintf(box->dir, sizeof box->dir, "%s/%s", lab->dir, name);
    snprintf(box->id, sizeof box->id, "ew-checkpoint-%d-%s", (int)getpid(), name);
    make_dir(box, "");
    if (from != NULL) {
        auto_free char *upper = path_in(from, "upper");
        run((const char *const[]){"cp", "-a", upper, box->dir, NULL});
    }
    make_dir(box, "upper");
    make_dir(box, "upper/.emergent");
    make_dir(box, "upper/workspace");
    make_dir(box, "work");
    make_dir(box, "rootfs");
    auto_free char *agent = path_in(box, "upper" OCI_AGENT_PATH);
    if (from == NULL) {
        auto_free char *hosts =
            mem_printf("printf '127.0.0.1 localhost\n127.0.1.1\t%s other\n' > %s/upper/etc/hosts; echo %s > "
                       "%s/upper/etc/hostname",
                       box->hostname, box->dir, box->hostname, box->dir);
        make_dir(box, "upper/etc");
        run((const char *const[]){"sh", "-c", hosts, NULL});
        run((const char *const[]){"cp", lab->agent, agent, NULL});
    }
    auto_free char *rootfs = path_in(box, "rootfs");
    auto_free char *options =
        mem_printf("lowerdir=%s,upperdir=%s/upper,workdir=%s/work", lab->image, box->dir, box->dir);
    cr_assert_eq(mount("overlay", rootfs, "overlay", 0, options), 0, "mount: %s", strerror(errno));
    oci_spec_t spec = {.rootfs = rootfs,
                       .hostname = box->hostname,
                       .memory_bytes = (uint64_t)512 << 20,
                       .has_user_namespace = box->has_user_namespace};
    auto_free char *config = path_in(box, "config.json");
    cr_assert_eq(oci_spec_write(&spec, config, &e), 0, "%s", err_message(e));
}

static void box_start(box_t *box, const lab_t *lab, const char *image)
{
    int in = fifo_open(box, "in"), out = fifo_open(box, "out");
    const char *fresh[] = {"run", "--detach", "--bundle", box->dir, box->id, NULL};
    const char *restored[] = {"restore", "--detach", "--bundle", box->dir, "--image-path", image, box->id, NULL};
    uint64_t begin = clock_monotonic_ms();
    cr_assert_eq(runsc(lab, in, out, image ? restored : fresh), 0, "see %s/runtime.log", lab->dir);
    fprintf(stderr, "checkpoint: %s took %llu ms\n", image ? "restore" : "run",
            (unsigned long long)(clock_monotonic_ms() - begin));
    /* Nobody but the sandbox has to hold them. */
    close(in);
    close(out);
    box->agent = agent_client_attach(fifo_open(box, "in"), fifo_open(box, "out"));
    box->agent->hostname = box->hostname;
}

static void box_remove(box_t *box, const lab_t *lab)
{
    auto_free char *rootfs = path_in(box, "rootfs");
    runsc_quiet(lab, (const char *const[]){"delete", "--force", box->id, NULL});
    if (box->agent != NULL)
        agent_client_detach(&box->agent);
    for (int i = 0; i < 100 && umount2(rootfs, 0) != 0 && errno == EBUSY; i++)
        usleep(50000);
}

/* ---- talking ---- */

static agent_client_t *resync(box_t *box, uuid16_t sandbox, const char *machine_id)
{
    box->agent->sandbox = sandbox;
    box->agent->machine_id = machine_id;
    agent_client_resync(box->agent);
    return box->agent;
}

static void bash(agent_client_t *c, const char *command, char *out, size_t size)
{
    struct bash_reply reply;
    agent_result_reply(agent_client_call(c, VERB_bash, &(struct bash_request){.command = command}), &reply);
    snprintf(out, size, "%.*s", (int)reply.stdout.len, (const char *)reply.stdout.data);
}

static void check_bash(agent_client_t *c, const char *command, const char *expected)
{
    char out[1024];
    bash(c, command, out, sizeof out);
    cr_assert_str_eq(out, expected, "%s gave: %s", command, out);
}

static uint32_t background(agent_client_t *c, const char *command)
{
    struct bash_reply reply;
    struct bash_request request = {.command = command, .run_in_background = true};
    agent_result_reply(agent_client_call(c, VERB_bash, &request), &reply);
    return reply.process_id;
}

static bool is_quiesced(agent_client_t *c, void *arg)
{
    (void)arg;
    return c->quiesced_count > 0;
}

static bool has_event(agent_client_t *c, void *arg)
{
    (void)c;
    return ((agent_result_t *)arg)->event_count > 0;
}

/* ---- what is left running ---- */

struct scene {
    uint32_t reader; /* process id of a `cat` that waits for input */
    uint64_t kept, timed, watch;
    uint64_t boot_epoch;
    char pid[32];
};

static const struct bash_request kept_request = {
    .command = "echo x >> /tmp/runs; sleep 3; echo kept; wc -l < /tmp/runs", .timeout_ms = 60000};
static const struct bash_request timed_request = {.command = "sleep 600", .timeout_ms = 5000};
static const struct file_watch_request watch_request = {.path = "/workspace"};

static struct scene scene_make(agent_client_t *c)
{
    struct scene scene = {.boot_epoch = c->adopt.boot_epoch};
    background(c, "echo $$ > /tmp/pid; i=0; while :; do i=$((i+1)); echo $i > /tmp/count.new; "
                  "mv /tmp/count.new /tmp/count; sleep 0.05; done");
    background(c, "while :; do echo noise; sleep 0.001; done");
    struct process_start_reply started;
    struct process_start_request reader = {.stdin = true};
    const char *argv[] = {"cat"};
    auto_buf buf_t list = {0};
    proto_list_add_str(&list, argv[0]);
    reader.argv = proto_list_of(1, &list);
    agent_result_reply(agent_client_call(c, VERB_process_start, &reader), &started);
    scene.reader = started.process_id;
    c->flags = ENVELOPE_KEEP;
    scene.kept = agent_client_send(c, 0, VERB_bash, &kept_request)->call_id;
    c->flags = 0;
    scene.timed = agent_client_send(c, 0, VERB_bash, &timed_request)->call_id;
    agent_result_t *watch = agent_client_send(c, 0, VERB_file_watch, &watch_request);
    scene.watch = watch->call_id;
    agent_client_idle(c, 1000);
    cr_assert(watch->has_head);
    bash(c, "cat /tmp/pid", scene.pid, sizeof scene.pid);
    return scene;
}

static void check_memory(agent_client_t *c, const char *when)
{
    char out[64];
    bash(c, "awk '/VmRSS/ {print $2}' /proc/1/status", out, sizeof out);
    fprintf(stderr, "checkpoint: the agent has %.8s KiB resident %s\n", out, when);
    cr_assert_lt(strtol(out, NULL, 10), 5 * 1024, "%s", out);
}

static void check_counter_goes_on(agent_client_t *c, const struct scene *scene)
{
    check_bash(c, "cat /tmp/pid", scene->pid);
    check_bash(c,
               "kill -0 $(cat /tmp/pid) || echo dead; a=$(cat /tmp/count); sleep 1; b=$(cat /tmp/count); "
               "[ $b -gt $a ] && echo yes || echo $a $b",
               "yes\n");
}

static void check_pipes_and_groups(agent_client_t *c, const struct scene *scene)
{
    struct process_input_request input = {
        .process_id = scene->reader, .data = {(const uint8_t *)"through\n", 8}, .eof = true};
    struct process_output_request output = {.process_id = scene->reader, .wait_ms = 5000};
    struct process_output_reply reply;
    agent_client_call(c, VERB_process_input, &input);
    agent_result_reply(agent_client_call(c, VERB_process_output, &output), &reply);
    cr_assert_eq(reply.stdout.len, 8);
    /* The tree of a command is a cgroup: a double fork does not escape. */
    cr_assert_str_eq(c->adopt.kill_tree, "cgroup");
    struct bash_reply timed;
    struct bash_request request = {.command = "(setsid sleep 88.8 & setsid sleep 88.8 &); sleep 88.8",
                                   .timeout_ms = 300};
    agent_result_reply(agent_client_call(c, VERB_bash, &request), &timed);
    cr_assert(timed.timed_out);
    check_bash(c, "pgrep -fc 'sleep 8[8].8'; true", "0\n");
}

static void check_calls_of_before(agent_client_t *c, const struct scene *scene)
{
    struct bash_reply reply;
    c->flags = ENVELOPE_KEEP;
    agent_result_t *kept = agent_client_send(c, scene->kept, VERB_bash, &kept_request);
    c->flags = 0;
    agent_result_t *watch = agent_client_send(c, scene->watch, VERB_file_watch, &watch_request);
    agent_client_wait(c, kept);
    agent_result_reply(kept, &reply);
    cr_assert(!reply.timed_out);
    cr_assert_eq(memcmp(reply.stdout.data, "kept\n1\n", 7), 0);
    check_bash(c, "touch /workspace/seen", "");
    agent_client_until(c, has_event, watch, "no event of inotify");
    agent_client_simple(c, ENVELOPE_KIND_CANCEL, watch->call_id);
}

static void check_timeout(agent_client_t *c, const struct scene *scene, uint64_t restored_ms)
{
    struct bash_reply reply;
    agent_result_t *timed = agent_client_send(c, scene->timed, VERB_bash, &timed_request);
    agent_client_wait(c, timed);
    agent_result_reply(timed, &reply);
    uint64_t took = clock_monotonic_ms() - restored_ms;
    fprintf(stderr,
            "checkpoint: a timeout of 5 s, 1.x s before the stop: %llu ms after the restore, duration %llu ms\n",
            (unsigned long long)took, (unsigned long long)reply.duration_ms);
    cr_assert(reply.timed_out);
    cr_assert_gt(took, 1500, "the time on disk was counted");
    cr_assert_lt(reply.duration_ms, 8000);
}

static void check_identity(agent_client_t *c, const char *hostname, const char *machine_id)
{
    auto_free char *expected =
        mem_printf("%s\n%s\n127.0.0.1 localhost\n127.0.1.1\t%s other\n%s\n", hostname, hostname, hostname, machine_id);
    check_bash(c, "cat /proc/sys/kernel/hostname /etc/hostname /etc/hosts /etc/machine-id", expected);
}

static void stop(box_t *box, const lab_t *lab, const char *image)
{
    cr_assert_eq(mkdir(image, 0700), 0);
    agent_client_simple(box->agent, ENVELOPE_KIND_QUIESCE, 0);
    agent_client_until(box->agent, is_quiesced, NULL, "no QUIESCED");
    uint64_t begin = clock_monotonic_ms();
    runsc_quiet(lab, (const char *const[]){"checkpoint", "--image-path", image, box->id, NULL});
    fprintf(stderr, "checkpoint: took %llu ms\n", (unsigned long long)(clock_monotonic_ms() - begin));
    cr_assert_eq(box->agent->in.len, 0);
    struct stat st;
    cr_assert_eq(fstat(box->agent->fd_up, &st), 0);
    box_remove(box, lab);
}

static lab_t lab;
static box_t source, same, clone;

/* Runs after a failure, too. */
static void clean_up(void)
{
    box_t *boxes[] = {&source, &same, &clone};
    for (size_t i = 0; i < COUNT_OF(boxes); i++)
        if (boxes[i]->dir[0] != '\0')
            box_remove(boxes[i], &lab);
    if (boxes[0]->dir[0] != '\0')
        run((const char *const[]){"rm", "-rf", "--one-file-system", lab.dir, NULL});
}

static void scenario(bool has_user_namespace)
{
    const char *why = why_not(&lab), *must = getenv("EW_MUST_WORK");
    if (why != NULL && must != NULL && strcmp(must, "1") == 0)
        cr_assert(false, "%s", why);
    if (why != NULL)
        cr_skip_test("%s", why);
    cr_assert_not_null(mkdtemp(lab.dir));
    auto_free char *image = mem_printf("%s/image", lab.dir);
    source = same = clone = (box_t){.hostname = "source", .has_user_namespace = has_user_namespace};
    char random_same[64], random_clone[64], uptime[3][64];
    clone.hostname = "clone";

    box_make(&source, &lab, "source", NULL);
    box_start(&source, &lab, NULL);
    agent_client_t *c = resync(&source, SOURCE, SOURCE_ID);
    check_identity(c, "source", SOURCE_ID);
    struct scene scene = scene_make(c);
    check_memory(c, "before");
    bash(c, "cat /proc/uptime", uptime[0], sizeof uptime[0]);
    stop(&source, &lab, image);
    usleep(STOPPED_MS * 1000);

    box_make(&same, &lab, "same", &source);
    box_make(&clone, &lab, "clone", &source);
    box_start(&same, &lab, image);
    uint64_t restored_ms = clock_monotonic_ms();
    c = resync(&same, SOURCE, SOURCE_ID);
    cr_assert_eq(c->adopt.boot_epoch, scene.boot_epoch);
    bash(c, "cat /proc/uptime", uptime[1], sizeof uptime[1]);
    fprintf(stderr, "checkpoint: uptime before %s after %d ms on disk %s", uptime[0], STOPPED_MS, uptime[1]);
    check_counter_goes_on(c, &scene);
    check_timeout(c, &scene, restored_ms);
    check_calls_of_before(c, &scene);
    check_pipes_and_groups(c, &scene);
    check_identity(c, "source", SOURCE_ID);
    check_memory(c, "after a restore");
    bash(c, "head -c 16 /dev/urandom | od -An -tx1", random_same, sizeof random_same);
    box_remove(&same, &lab);

    box_start(&clone, &lab, image);
    c = resync(&clone, CLONE, CLONE_ID);
    cr_assert_eq(c->adopt.calls.count, 0, "a clone knows calls of its source");
    cr_assert_neq(c->adopt.boot_epoch, scene.boot_epoch);
    check_identity(c, "clone", CLONE_ID);
    bash(c, "head -c 16 /dev/urandom | od -An -tx1", random_clone, sizeof random_clone);
    cr_assert_str_neq(random_same, random_clone);
    check_counter_goes_on(c, &scene);
    check_pipes_and_groups(c, &scene);
    c->flags = ENVELOPE_KEEP;
    agent_result_t *again =
        agent_client_send(c, scene.kept, VERB_bash, &(struct bash_request){.command = "wc -l < /tmp/runs"});
    agent_client_wait(c, again);
    struct bash_reply reply;
    agent_result_reply(again, &reply);
    cr_assert_eq(memcmp(reply.stdout.data, "1\n", 2), 0);
    check_memory(c, "in a clone");
    box_remove(&clone, &lab);
}

Test(agent_checkpoint, all_goes_on_after_a_restore_and_a_clone_is_another, .timeout = 180, .fini = clean_up)
{
    scenario(false);
}

Test(agent_checkpoint, the_same_in_a_user_namespace, .timeout = 180, .fini = clean_up)
{
    scenario(true);
}
