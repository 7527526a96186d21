/* SPDX-License-Identifier: Apache-2.0
 *
 * A process tree that can be signalled and counted whole: everything that a command started, double forks included.
 *
 * With a pids cgroup (mounted inside the sandbox by PID 1, or AGENT_CGROUP) a tree is a cgroup of its own, which
 * nothing inside can leave. Without one it is found by parent, session and a tag in the environment, which a process
 * that wants to can escape: `best_effort`.
 */
#ifndef EW_AGENT_TREE_H
#define EW_AGENT_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define TREE_GRACE_MS 5000 /* between TERM and KILL */
#define TREE_TAG_NAME "EW_TREE"
#define TREE_TAG_SIZE 48 /* "EW_TREE=" + 32 hexadecimal digits + NUL */

typedef struct tree tree_t;
typedef void (*tree_gone_fn)(void *arg);

/* base_fd: directory of the cgroup to make trees in, taken; -1 = best effort. */
void trees_init(int base_fd);
bool trees_are_sure(void); /* cgroup, not best effort */
/* Limit of processes in the sandbox; nothing without a cgroup. */
void trees_set_pids_max(uint32_t pids_max);

tree_t *tree_new(void); /* NULL with errno: EAGAIN when the sandbox is full, else its cgroup cannot be made */
/* Ends a running tree_kill silently; processes still alive go on, in a cgroup that is removed when it is empty. */
void tree_free(tree_t **tree);
/* What a child needs before exec: writes itself to this descriptor (-1 = none) and carries this variable. */
int tree_join_fd(const tree_t *tree);
const char *tree_tag(const tree_t *tree);
/* The first process, once started: best effort finds the others by it. */
void tree_set_leader(tree_t *tree, pid_t pid);

/* Calls fn for every live process of the tree; returns their number. */
size_t tree_each(tree_t *tree, void (*fn)(void *arg, pid_t pid), void *arg);
size_t tree_count(tree_t *tree);
size_t tree_signal(tree_t *tree, int sig); /* how many it went to */
/* TERM to all (unless grace_ms is 0), KILL to what is left after grace_ms, again until nobody is left; then `gone`,
 * from the loop. A second call may only shorten the grace. */
void tree_kill(tree_t *tree, uint32_t grace_ms, tree_gone_fn gone, void *arg);

#endif
