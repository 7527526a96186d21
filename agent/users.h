/* SPDX-License-Identifier: Apache-2.0
 *
 * Users and groups from /etc/passwd and /etc/group, parsed by hand: a static libc has no NSS. Both files belong to the
 * sandbox's user, so they are read as hostile text: at most USERS_FILE_MAX bytes, malformed lines are skipped.
 */
#ifndef EW_AGENT_USERS_H
#define EW_AGENT_USERS_H

#include "common/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define USERS_FILE_MAX (1024 * 1024)
#define USER_NAME_SIZE 65
#define USER_HOME_SIZE 1024
#define USER_GROUPS_MAX 64

typedef struct user {
    uid_t uid;
    gid_t gid;
    gid_t groups[USER_GROUPS_MAX]; /* supplementary ones, gid not repeated */
    size_t group_count;
    char name[USER_NAME_SIZE]; /* the uid as text when it has no name */
    char home[USER_HOME_SIZE]; /* "/" when it has no entry */
} user_t;

/* NULL or "" = the agent's own user (root in a sandbox); a name; uid; uid:gid. bad_request when a name is unknown or a
 * number too large. */
int user_lookup(const char *spec, user_t *user, err_t **e);

/* Names of ids, for listings: false when there is none. The files are parsed anew only when they changed. */
bool user_name_of(uid_t uid, char *out, size_t size);
bool group_name_of(gid_t gid, char *out, size_t size);

/* The parsers, on text in memory (fuzzed). */
bool users_find_name(const char *text, size_t len, const char *name, user_t *user);
bool users_find_uid(const char *text, size_t len, uid_t uid, user_t *user);
bool users_find_gid(const char *text, size_t len, gid_t gid, char *out, size_t size);
void users_add_groups(const char *text, size_t len, user_t *user);

#endif
