/* SPDX-License-Identifier: Apache-2.0 */
// LINK: services/gvisord/jobs_snapshot.c
/* Who lets a paused sandbox go on, when a snapshot's job and the one that heals meet: resumed twice, it would end. What
 * the jobs use is played here. */
#include "common/file.h"
#include "common/mem.h"
#include "services/gvisord/checkpoint.h"
#include "services/gvisord/disk.h"
#include "services/gvisord/file_copy.h"
#include "services/gvisord/jobs_private.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static char dir[64], target[96], marker[96];
static unsigned pauses, resumes;
static bool heals_in_copy, is_found_paused;
static char marker_in_pause;

static json_t *arguments(void)
{
    return json_pack("{s:s,s:s,s:s,s:b,s:{s:s}}", "id", "box", "dir", dir, "target", target, "is_running", 1, "runtime",
                     "root", "/");
}

/* Whether it said that the sandbox may be paused. */
static bool heal_with(bool force)
{
    auto_err err_t *e = NULL;
    json_t *args = arguments(), *result = json_object();
    json_object_set_new(args, "force", json_boolean(force));
    cr_assert_eq(job_heal(args, result, &e), 0, "%s", err_message(e));
    bool may_be = json_is_true(json_object_get(result, "may_be_paused"));
    json_decref(args);
    json_decref(result);
    return may_be;
}

static void heal(void)
{
    cr_expect_not(heal_with(false));
}

static char marker_read(void)
{
    auto_buf buf_t text = {0};
    auto_err err_t *e = NULL;
    return file_read(marker, 1, &text, &e) == 0 && text.len == 1 ? buf_cstr(&text)[0] : '\0';
}

/* ---- what is played ---- */

const gvisord_t *jobs_context = &(const gvisord_t){0};

unsigned jobs_timeout_ms(uint64_t bytes)
{
    return (unsigned)bytes;
}

uint64_t cgroup_memory_used(const cgroups_t *c, const char *name)
{
    (void)c;
    (void)name;
    return 0;
}

void runtime_from_json(runtime_t *r, const json_t *object)
{
    *r = (runtime_t){.root = json_string_value(json_object_get(object, "root"))};
}

int checkpoint_pause(const runtime_t *r, const char *id, bool *by_command, err_t **e)
{
    (void)r;
    (void)id;
    (void)e;
    *by_command = true;
    marker_in_pause = marker_read();
    pauses++;
    return 0;
}

int checkpoint_unpause(const runtime_t *r, const char *id, bool by_command, err_t **e)
{
    (void)r;
    (void)id;
    (void)by_command;
    (void)e;
    resumes++;
    return 0;
}

int checkpoint_take(const runtime_t *r, const char *id, const char *at, const json_t *key, bool leave_running,
                    unsigned timeout_ms, err_t **why)
{
    (void)r;
    (void)id;
    (void)at;
    (void)key;
    (void)leave_running;
    (void)timeout_ms;
    return err_set(why, ERR_INTERNAL, "not asked for");
}

bool checkpoint_exists(const char *at)
{
    (void)at;
    return false;
}

int disk_freeze(const char *at, err_t **e)
{
    (void)at;
    (void)e;
    return 0;
}

void disk_thaw(const char *at)
{
    (void)at;
}

int disk_sync(const char *at, err_t **e)
{
    (void)at;
    (void)e;
    return 0;
}

uint64_t disk_used_bytes(const char *at)
{
    (void)at;
    return 0;
}

/* A disk that is so slow that the daemon gives the job up. */
int disk_copy(const char *from, const char *to, bool *is_shared, err_t **e)
{
    (void)from;
    (void)to;
    (void)e;
    *is_shared = true;
    is_found_paused = pauses == 1 && resumes == 0;
    if (heals_in_copy)
        heal();
    return 0;
}

int dir_require_space(const char *at, uint64_t bytes, const char *what, err_t **e)
{
    (void)at;
    (void)bytes;
    (void)what;
    (void)e;
    return 0;
}

uint64_t dir_used_bytes(const char *at)
{
    (void)at;
    return 0;
}

int dir_sync(const char *at, err_t **e)
{
    (void)at;
    (void)e;
    return 0;
}

int file_link_or_copy(const char *from, const char *to, err_t **e)
{
    (void)from;
    (void)to;
    return err_set(e, ERR_INTERNAL, "not asked for");
}

/* ---- tests ---- */

static void set_up(void)
{
    snprintf(dir, sizeof dir, "/tmp/ew-jobs-XXXXXX");
    cr_assert_not_null(mkdtemp(dir));
    snprintf(target, sizeof target, "%s/target", dir);
    snprintf(marker, sizeof marker, "%s/" JOBS_PAUSED_FILE, dir);
}

static void tear_down(void)
{
    auto_err err_t *e = NULL;
    cr_assert_eq(dir_remove(dir, &e), 0, "%s", err_message(e));
}

TestSuite(jobs_snapshot, .init = set_up, .fini = tear_down, .timeout = 30);

static void snapshot(void)
{
    auto_err err_t *e = NULL;
    json_t *args = arguments(), *result = json_object();
    cr_assert_eq(job_snapshot(args, result, &e), 0, "%s", err_message(e));
    json_decref(args);
    json_decref(result);
}

Test(jobs_snapshot, it_pauses_once_and_lets_go_on_once)
{
    snapshot();
    cr_expect(is_found_paused);
    cr_expect_eq(resumes, 1);
    cr_expect_neq(access(marker, F_OK), 0);
    heal();
    cr_expect_eq(resumes, 1);
}

Test(jobs_snapshot, one_that_was_healed_meanwhile_is_not_resumed_again)
{
    heals_in_copy = true;
    snapshot();
    cr_expect(is_found_paused);
    cr_expect_eq(resumes, 1);
    cr_expect_neq(access(marker, F_OK), 0);
}

Test(jobs_snapshot, healing_looks_at_how_it_was_paused)
{
    static const struct {
        const char *content;
        unsigned resumes;
    } cases[] = {{"c", 1}, {"r", 0}, {"", 0}};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        auto_err err_t *e = NULL;
        resumes = 0;
        cr_assert_eq(file_write_atomic(marker, cases[i].content, strlen(cases[i].content), 0600, &e), 0);
        heal();
        cr_expect_eq(resumes, cases[i].resumes, "%s", cases[i].content);
        cr_expect_neq(access(marker, F_OK), 0);
    }
}

/* Killed while gVisor paused it: resumed only when it is seen to stand still. */
Test(jobs_snapshot, one_that_may_be_paused_is_not_touched_at_once)
{
    auto_err err_t *e = NULL;
    snapshot();
    resumes = 0;
    cr_expect_eq(marker_in_pause, 'w');
    cr_assert_eq(file_write_atomic(marker, &marker_in_pause, 1, 0600, &e), 0);
    cr_expect(heal_with(false));
    cr_expect_eq(resumes, 0);
    cr_expect(heal_with(false), "a daemon that is killed meanwhile finds it again");
    cr_expect_not(heal_with(true));
    cr_expect_eq(resumes, 1);
    cr_expect_neq(access(marker, F_OK), 0);
}
