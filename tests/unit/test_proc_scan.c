/* SPDX-License-Identifier: Apache-2.0 */
// LINK: agent/proc_scan.c
/* Trees where no cgroup can tell. */
#include "agent/proc_scan.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#define TAG "EW_TEST_TREE=none-has-this"

static void count_one(void *arg, pid_t pid)
{
    (void)pid;
    ++*(size_t *)arg;
}

Test(proc_scan, a_leaders_number_that_another_process_has_by_now_is_not_followed, .timeout = 20)
{
    int ready[2];
    char byte;
    cr_assert_eq(pipe(ready), 0);
    pid_t leader = fork();
    if (leader == 0) {
        setsid();
        if (fork() == 0) {
            (void)!write(ready[1], "x", 1);
            pause();
        }
        pause();
    }
    cr_assert_eq(read(ready[0], &byte, 1), 1);
    uint64_t start = proc_start_time(leader);
    size_t seen = 0;
    cr_expect_gt(start, 0);
    cr_expect_eq(proc_scan_tree(leader, start, TAG, count_one, &seen), 2, "the leader and its child");
    cr_expect_eq(seen, 2);
    cr_expect_eq(proc_scan_tree(leader, start - 1, TAG, count_one, &seen), 0, "it is another one");
    cr_expect_eq(seen, 2);
    kill(-leader, SIGKILL);
    waitpid(leader, NULL, 0);
    cr_expect_eq(proc_start_time(leader), 0);
}
