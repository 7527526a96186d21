/* SPDX-License-Identifier: Apache-2.0
 *
 * What PID 1 does to the machine it is in: file systems that are missing, the loopback interface, the cgroup for trees,
 * and the identity that RESYNC brings. All of it is best effort: an image or a provider may have done it, or forbid it.
 */
#ifndef EW_AGENT_MACHINE_H
#define EW_AGENT_MACHINE_H

#include <stddef.h>
#include <stdint.h>

void machine_mount_missing(void);
void machine_loopback_up(void);
/* Mounts a pids cgroup (v1, else v2) where nothing else can reach it; returns a directory for trees, or -1. */
int machine_cgroup_open(void);
/* The same from a directory that exists (AGENT_CGROUP); -1 if it cannot be used. */
int machine_cgroup_use(const char *path);

void machine_add_entropy(const void *bytes, size_t len);
void machine_set_clock(uint64_t realtime_ns);
/* Also in /etc/hostname and in the line of 127.0.1.1 of /etc/hosts, where they hold the old one. NULL or "" = leave it.
 */
void machine_set_hostname(const char *name);
void machine_set_id(const char *id); /* 32 hexadecimal digits; NULL or "" = leave it */

typedef struct machine_rename {
    const char *old;
    const char *now;
    const char *address; /* only in lines that begin with this word; NULL = everywhere */
} machine_rename_t;
/* Copies text with one word replaced; returns the length, 0 when it does not fit. */
size_t machine_name_replace(const char *text, size_t len, const machine_rename_t *names, char *out, size_t size);

#endif
