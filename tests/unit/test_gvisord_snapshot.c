/* SPDX-License-Identifier: Apache-2.0
 *
 * Snapshots of real sandboxes, and sandboxes made from them.
 */
// LINK: tests/unit/gvisord_hub.c tests/unit/gvisord_life.c
#include "common/clock.h"
#include "common/file.h"
#include "common/mem.h"
#include "tests/unit/gvisord_life.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <jansson.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* Two files that are written one after the other: at any one moment they differ by one at most. Nothing is synced. */
static void start_writer(hub_t *h, const uuid16_t *id)
{
    static const char command[] =
        "cat > writer.py <<'END'\n"
        "import os, time\n"
        "a = os.open('a', os.O_WRONLY | os.O_CREAT); b = os.open('b', os.O_WRONLY | os.O_CREAT)\n"
        "n = 0\n"
        "while True:\n"
        "    n += 1\n"
        "    os.pwrite(a, b'%012d' % n * 2000, 0); os.pwrite(b, b'%012d' % n * 2000, 0)\n"
        "    open('new-%d' % (n % 50), 'w').write('x' * 5000)\n"
        "    if n % 20 == 0: time.sleep(0.01)\n"
        "END\n"
        "setsid python3 writer.py > /dev/null 2>&1 < /dev/null & echo $! > writer.pid; while [ ! -s b ]; do sleep 0.1; "
        "done";
    cr_assert_eq(hub_bash(h, id, command, NULL, 0), 0);
}

static const char CHECK_WRITER[] =
    "python3 - <<'END'\n"
    "a, b = open('a').read(), open('b').read()\n"
    "def values(s): return {int(s[i:i + 12]) for i in range(0, len(s), 12)}\n"
    "both = values(a) | values(b)\n"
    "print('fine' if len(a) == len(b) == 24000 and max(both) - min(both) <= 1 else sorted(both))\n"
    "END";

static void assert_clean(const hub_t *h, const uuid16_t *snapshot)
{
    auto_free char *dir = life_dir(h, "snapshots", snapshot);
    auto_free char *image = mem_printf("%s/disk.img", dir);
    const char *argv[] = {"e2fsck", "-f", "-n", image, NULL};
    cr_assert_eq(life_run(argv), 0, "the file system of the snapshot is not clean");
}

Test(gvisord_snapshot, processes_go_on_in_the_source_and_in_every_copy, .timeout = 120)
{
    SKIP_IF_IMPOSSIBLE();
    hub_t h;
    uuid16_t id, snapshot, one, two;
    life_t l;
    char pid[64], out[256];
    life_open(&h);
    life_create(&h, &id, "none");
    life_start_counter(&h, &id);
    cr_assert_eq(hub_bash(&h, &id, "cat counter.pid", pid, sizeof pid), 0);
    life_snapshot(&h, &id, false, &snapshot, &l);
    cr_assert(l.has_processes, "%s", l.warnings);
    cr_assert_gt(l.bytes, 0);
    fprintf(stderr, "snapshot: %u ms, stall %u ms, %llu KiB, %s\n", l.total_ms, l.stall_ms,
            (unsigned long long)l.bytes >> 10, l.warnings);
    life_assert_counting(&h, &id);
    assert_clean(&h, &snapshot);
    cr_assert_eq(life_count_readable(&h), 0);
    life_from_snapshot(&h, &snapshot, 0, &one, &l);
    cr_assert(l.has_processes, "%s", l.warnings);
    fprintf(stderr, "create from it: %u ms %s\n", l.total_ms, l.phases);
    life_from_snapshot(&h, &snapshot, 0, &two, &l);
    cr_assert(l.has_processes, "%s", l.warnings);
    life_assert_counting(&h, &one);
    life_assert_counting(&h, &two);
    life_assert_counting(&h, &id);
    cr_assert_eq(hub_bash(&h, &one, "cat counter.pid; kill $(cat counter.pid); echo mine > own", out, sizeof out), 0);
    cr_assert_str_eq(out, pid);
    cr_assert_eq(hub_bash(&h, &two, "ls own 2> /dev/null || kill -0 $(cat counter.pid) && echo alone", out, sizeof out),
                 0);
    cr_assert_str_eq(out, "alone\n");
    life_assert_counting(&h, &two);
    hub_destroy(&h, &one);
    hub_destroy(&h, &two);
    life_assert_counting(&h, &id);
    hub_destroy(&h, &id);
    life_snapshot_delete(&h, &snapshot);
    hub_close(&h);
}

Test(gvisord_snapshot, it_outlives_its_source, .timeout = 120)
{
    SKIP_IF_IMPOSSIBLE();
    hub_t h;
    uuid16_t id, snapshot, copy;
    life_t l;
    life_open(&h);
    life_create(&h, &id, "none");
    life_start_counter(&h, &id);
    life_snapshot(&h, &id, false, &snapshot, &l);
    hub_destroy(&h, &id);
    life_from_snapshot(&h, &snapshot, 0, &copy, &l);
    cr_assert(l.has_processes, "%s", l.warnings);
    life_assert_counting(&h, &copy);
    hub_destroy(&h, &copy);
    life_snapshot_delete(&h, &snapshot);
    hub_close(&h);
}

Test(gvisord_snapshot, what_a_writer_writes_is_as_of_one_moment, .timeout = 180)
{
    SKIP_IF_IMPOSSIBLE();
    for (int with = 0; with <= 1; with++) {
        hub_t h;
        uuid16_t id, snapshot, copy;
        life_t l;
        char out[256];
        life_open(&h);
        life_create(&h, &id, "none");
        start_writer(&h, &id);
        life_snapshot(&h, &id, !with, &snapshot, &l);
        cr_assert_eq(l.has_processes, with, "%s", l.warnings);
        assert_clean(&h, &snapshot);
        life_from_snapshot(&h, &snapshot, 0, &copy, &l);
        cr_assert_eq(hub_bash(&h, &copy, "kill -STOP $(cat writer.pid)", NULL, 0), with ? 0 : 1);
        cr_assert_eq(hub_bash(&h, &copy, CHECK_WRITER, out, sizeof out), 0, "%s", out);
        cr_assert_str_eq(out, "fine\n");
        cr_assert_eq(hub_bash(&h, &id, "kill -STOP $(cat writer.pid)", NULL, 0), 0);
        cr_assert_eq(hub_bash(&h, &id, CHECK_WRITER, out, sizeof out), 0, "%s", out);
        cr_assert_str_eq(out, "fine\n");
        hub_destroy(&h, &copy);
        hub_destroy(&h, &id);
        life_snapshot_delete(&h, &snapshot);
        hub_close(&h);
    }
}

Test(gvisord_snapshot, what_nobody_has_synced_is_in_it, .timeout = 120)
{
    SKIP_IF_IMPOSSIBLE();
    hub_t h;
    uuid16_t id, snapshot, copy;
    life_t l;
    char out[256];
    life_open(&h);
    life_create(&h, &id, "none");
    cr_assert_eq(hub_bash(&h, &id,
                          "setsid python3 -c \"\n"
                          "import mmap, os, time\n"
                          "f = os.open('opened', os.O_WRONLY | os.O_CREAT); os.write(f, b'written')\n"
                          "g = os.open('mapped', os.O_RDWR | os.O_CREAT); os.ftruncate(g, 4096)\n"
                          "m = mmap.mmap(g, 4096); m[0:6] = b'stored'\n"
                          "open('ready', 'w')\n"
                          "time.sleep(1000)\" > /dev/null 2>&1 < /dev/null &\n"
                          "while [ ! -e ready ]; do sleep 0.05; done; echo last > closed",
                          NULL, 0),
                 0);
    life_snapshot(&h, &id, true, &snapshot, &l);
    life_from_snapshot(&h, &snapshot, 0, &copy, &l);
    cr_assert_not(l.has_processes);
    cr_assert_str_eq(l.warnings, "");
    cr_assert_eq(hub_bash(&h, &copy, "cat opened; head -c 6 mapped; cat closed; hostname", out, sizeof out), 0);
    char name[UUID_TEXT_SIZE];
    uuid16_format(&copy, name);
    auto_free char *wanted = mem_printf("writtenstoredlast\n%s\n", name);
    cr_assert_str_eq(out, wanted);
    hub_destroy(&h, &copy);
    hub_destroy(&h, &id);
    life_snapshot_delete(&h, &snapshot);
    hub_close(&h);
}

Test(gvisord_snapshot, a_stopped_one_can_be_copied_and_then_go_on, .timeout = 120)
{
    SKIP_IF_IMPOSSIBLE();
    hub_t h;
    uuid16_t id, snapshot, copy;
    life_t l;
    life_open(&h);
    life_create(&h, &id, "none");
    life_start_counter(&h, &id);
    life_stop(&h, &id, false, &l);
    life_snapshot(&h, &id, false, &snapshot, &l);
    cr_assert(l.has_processes, "%s", l.warnings);
    life_resume(&h, &id, &l);
    cr_assert(l.has_processes, "%s", l.warnings);
    life_assert_counting(&h, &id);
    hub_destroy(&h, &id);
    life_from_snapshot(&h, &snapshot, 0, &copy, &l);
    cr_assert(l.has_processes, "%s", l.warnings);
    life_assert_counting(&h, &copy);
    hub_destroy(&h, &copy);
    life_snapshot_delete(&h, &snapshot);
    hub_close(&h);
}

Test(gvisord_snapshot, a_copy_can_have_a_larger_disk_but_no_smaller_one, .timeout = 120)
{
    SKIP_IF_IMPOSSIBLE();
    hub_t h;
    uuid16_t id, snapshot, copy;
    life_t l;
    char before[64], after[64];
    life_open(&h);
    life_create(&h, &id, "none");
    life_start_counter(&h, &id);
    cr_assert_eq(hub_bash(&h, &id, "stat -f -c %b .", before, sizeof before), 0);
    life_snapshot(&h, &id, false, &snapshot, &l);
    hub_destroy(&h, &id);
    cr_assert_eq(life_from_snapshot_fails(&h, &snapshot, (uint64_t)128 << 20), ERR_VALIDATION);
    life_from_snapshot(&h, &snapshot, (uint64_t)1 << 30, &copy, &l);
    cr_assert(l.has_processes, "%s", l.warnings);
    life_assert_counting(&h, &copy);
    cr_assert_eq(hub_bash(&h, &copy, "stat -f -c %b .", after, sizeof after), 0);
    cr_assert_gt(strtol(after, NULL, 10), 3 * strtol(before, NULL, 10));
    cr_assert_eq(hub_bash(&h, &copy, "head -c 400M /dev/zero > big && ls -l big > /dev/null", NULL, 0), 0);
    hub_destroy(&h, &copy);
    life_snapshot_delete(&h, &snapshot);
    hub_close(&h);
}

Test(gvisord_snapshot, files_can_be_taken_to_another_network, .timeout = 120)
{
    SKIP_IF_IMPOSSIBLE();
    hub_t h;
    uuid16_t id, snapshot, copy;
    life_t l;
    char out[64];
    life_open(&h);
    life_create(&h, &id, "full");
    cr_assert_eq(hub_bash(&h, &id, "echo kept > note", NULL, 0), 0);
    life_snapshot(&h, &id, true, &snapshot, &l);
    life_from_snapshot(&h, &snapshot, 0, &copy, &l);
    cr_assert_not(l.has_processes);
    cr_assert_eq(hub_bash(&h, &copy, "cat note; wc -c < /etc/resolv.conf", out, sizeof out), 0);
    cr_assert_str_eq(out, "kept\n0\n");
    hub_destroy(&h, &copy);
    hub_destroy(&h, &id);
    life_snapshot_delete(&h, &snapshot);
    hub_close(&h);
}

Test(gvisord_snapshot, what_cannot_be_kept_is_told_and_the_source_goes_on, .timeout = 120)
{
    SKIP_IF_IMPOSSIBLE();
    hub_t h;
    uuid16_t id, snapshot, copy;
    life_t l;
    char out[64];
    life_open(&h);
    life_create(&h, &id, "none");
    life_start_counter(&h, &id);
    cr_assert_eq(hub_bash(&h, &id, "exec 3> gone; rm gone; sleep 1000 > /dev/null 2>&1 &", NULL, 0), 0);
    life_snapshot(&h, &id, false, &snapshot, &l);
    cr_assert_not(l.has_processes);
    cr_assert_not_null(strstr(l.warnings, "a process has a file open that has been removed"), "%s", l.warnings);
    life_assert_counting(&h, &id);
    cr_assert_eq(h.dead_events, 0);
    life_from_snapshot(&h, &snapshot, 0, &copy, &l);
    cr_assert_eq(hub_bash(&h, &copy, "[ -s counter ] && echo there", out, sizeof out), 0);
    cr_assert_str_eq(out, "there\n");
    hub_destroy(&h, &copy);
    hub_destroy(&h, &id);
    life_snapshot_delete(&h, &snapshot);
    hub_close(&h);
}

/* ---- the daemon is killed ---- */

Test(gvisord_snapshot, a_daemon_killed_during_a_snapshot_leaves_the_source_running, .timeout = 400)
{
    SKIP_IF_IMPOSSIBLE();
    static const unsigned moments_ms[] = {5, 30, 60, 90, 120, 160, 220};
    for (size_t i = 0; i < COUNT_OF(moments_ms); i++) {
        hub_t h;
        uuid16_t id, snapshot;
        hub_reply_t r;
        life_t l;
        char text[UUID_TEXT_SIZE];
        life_open(&h);
        life_create(&h, &id, "none");
        life_start_counter(&h, &id);
        random_bytes(&snapshot, sizeof snapshot);
        uuid16_format(&snapshot, text);
        struct snapshot_create_request request = {.snapshot_id = text};
        hub_call_start(&h, VERB_snapshot_create, &id, MSG_snapshot_create_request, &request, &r);
        hub_run_for(&h, moments_ms[i]);
        hub_kill_daemon(&h, SIGKILL);
        buf_free(&r.body);
        hub_start_daemon(&h, NULL);
        life_assert_counting(&h, &id);
        cr_assert_eq(h.dead_events, 0, "after %u ms: %s", moments_ms[i], h.dead_reason);
        hub_call(&h, VERB_snapshot_create, &id, MSG_snapshot_create_request, &request, &r);
        cr_assert_eq(r.code, ERR_NONE, "after %u ms: %s", moments_ms[i], r.message);
        buf_free(&r.body);
        assert_clean(&h, &snapshot);
        hub_destroy(&h, &id);
        life_from_snapshot(&h, &snapshot, 0, &id, &l);
        cr_assert(l.has_processes, "after %u ms: %s", moments_ms[i], l.warnings);
        life_assert_counting(&h, &id);
        hub_destroy(&h, &id);
        life_snapshot_delete(&h, &snapshot);
        hub_close(&h);
    }
}

static void control(const hub_t *h, const uuid16_t *id, const char *method)
{
    char text[UUID_TEXT_SIZE], reply[512];
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    uuid16_format(id, text);
    cr_assert_lt(snprintf(address.sun_path, sizeof address.sun_path, "%s/gvisord/runtime/runsc-%s.sock", h->dir, text),
                 (int)sizeof address.sun_path);
    auto_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    auto_free char *request = mem_printf("{\"method\":\"containerManager.%s\",\"arg\":null}", method);
    cr_assert_eq(write(fd, request, strlen(request)), (ssize_t)strlen(request));
    cr_assert_gt(read(fd, reply, sizeof reply), 0);
}

/* What a snapshot leaves whose job was killed in the middle, too. */
Test(gvisord_snapshot, a_paused_and_frozen_one_is_found_and_goes_on, .timeout = 120)
{
    SKIP_IF_IMPOSSIBLE();
    hub_t h;
    uuid16_t id;
    life_open(&h);
    life_create(&h, &id, "none");
    life_start_counter(&h, &id);
    hub_kill_daemon(&h, SIGKILL);
    auto_free char *dir = life_dir(&h, "sandboxes", &id);
    auto_free char *marker = mem_printf("%s/paused", dir);
    auto_free char *disk = mem_printf("%s/disk", dir);
    auto_err err_t *e = NULL;
    control(&h, &id, "Pause");
    cr_assert_eq(file_write_atomic(marker, "p", 1, 0600, &e), 0);
    int fd = open(disk, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    cr_assert_eq(ioctl(fd, FIFREEZE, 0), 0);
    close(fd);
    hub_start_daemon(&h, NULL);
    life_assert_counting(&h, &id);
    cr_assert_neq(access(marker, F_OK), 0);
    hub_destroy(&h, &id);
    hub_close(&h);
}

/* The job was killed while it had it paused: whether it is, nobody has written down. */
Test(gvisord_snapshot, one_that_may_be_paused_goes_on_with_its_processes, .timeout = 120)
{
    SKIP_IF_IMPOSSIBLE();
    for (int is_paused = 0; is_paused <= 1; is_paused++) {
        hub_t h;
        uuid16_t id;
        char pid[64], out[64];
        life_open(&h);
        life_create(&h, &id, "none");
        life_start_counter(&h, &id);
        cr_assert_eq(hub_bash(&h, &id, "cat counter.pid", pid, sizeof pid), 0);
        hub_kill_daemon(&h, SIGKILL);
        auto_free char *dir = life_dir(&h, "sandboxes", &id);
        auto_free char *marker = mem_printf("%s/paused", dir);
        auto_err err_t *e = NULL;
        if (is_paused)
            control(&h, &id, "Pause");
        cr_assert_eq(file_write_atomic(marker, "w", 1, 0600, &e), 0);
        hub_start_daemon(&h, NULL);
        life_assert_counting(&h, &id);
        hub_run_for(&h, is_paused ? 0 : 4500);
        life_assert_counting(&h, &id);
        cr_assert_neq(access(marker, F_OK), 0);
        cr_assert_eq(hub_bash(&h, &id, "kill -0 $(cat counter.pid) && cat counter.pid", out, sizeof out), 0);
        cr_assert_str_eq(out, pid);
        hub_destroy(&h, &id);
        hub_close(&h);
    }
}

Test(gvisord_snapshot, a_frozen_one_can_be_destroyed, .timeout = 120)
{
    SKIP_IF_IMPOSSIBLE();
    hub_t h;
    uuid16_t id;
    life_open(&h);
    life_create(&h, &id, "none");
    auto_free char *dir = life_dir(&h, "sandboxes", &id);
    auto_free char *disk = mem_printf("%s/disk", dir);
    int fd = open(disk, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    cr_assert_eq(ioctl(fd, FIFREEZE, 0), 0);
    close(fd);
    hub_destroy(&h, &id);
    hub_close(&h);
}

/* The daemon, its worker and the job were killed within a snapshot of one that was to be destroyed. What writes to a
 * frozen file system cannot be killed before that is thawed. */
Test(gvisord_snapshot, one_that_was_frozen_while_it_writes_can_be_destroyed_by_the_next_daemon, .timeout = 120)
{
    SKIP_IF_IMPOSSIBLE();
    hub_t h;
    uuid16_t id;
    life_open(&h);
    life_create(&h, &id, "none");
    life_start_counter(&h, &id);
    hub_kill_daemon(&h, SIGKILL);
    auto_free char *dir = life_dir(&h, "sandboxes", &id);
    auto_free char *disk = mem_printf("%s/disk", dir);
    auto_free char *path = mem_printf("%s/sandbox.json", dir);
    json_t *facts = json_load_file(path, 0, NULL);
    cr_assert_not_null(facts);
    json_object_set_new(facts, "state", json_string("destroying"));
    cr_assert_eq(json_dump_file(facts, path, 0), 0);
    json_decref(facts);
    int fd = open(disk, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    cr_assert_eq(ioctl(fd, FIFREEZE, 0), 0);
    close(fd);
    hub_run_for(&h, 500); /* it writes ten times a second */
    hub_start_daemon(&h, NULL);
    hub_destroy(&h, &id);
    cr_assert_neq(access(dir, F_OK), 0);
    hub_close(&h);
}
