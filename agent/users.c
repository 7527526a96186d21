// SPDX-License-Identifier: Apache-2.0
#include "agent/users.h"

#include "common/mem.h"
#include "common/text.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define FIELDS_MAX 7

struct field {
    const char *text;
    size_t len;
};

/* One file, kept in memory until its inode, size or time of change differ. */
struct table {
    const char *path;
    char *text;
    size_t len;
    struct stat st;
};

static struct table passwd_table = {.path = "/etc/passwd"};
static struct table group_table = {.path = "/etc/group"};

/* Splits the line at *at on colons and moves *at behind it. Returns the number of fields, 0 for an empty line. */
static size_t line_next(const char **at, const char *end, struct field fields[FIELDS_MAX])
{
    const char *line = *at;
    const char *stop = memchr(line, '\n', (size_t)(end - line));
    size_t count = 0;
    if (stop == NULL)
        stop = end;
    *at = stop < end ? stop + 1 : end;
    while (line < stop && count < FIELDS_MAX) {
        const char *colon = memchr(line, ':', (size_t)(stop - line));
        /* The last field takes what is left, so that a line with too many colons does not shift the others. */
        size_t len = (size_t)((colon != NULL && count < FIELDS_MAX - 1 ? colon : stop) - line);
        fields[count++] = (struct field){line, len};
        if (line + len == stop)
            break;
        line += len + 1;
        if (line == stop)
            fields[count < FIELDS_MAX ? count++ : count - 1] = (struct field){line, 0};
    }
    return count;
}

static bool field_is(const struct field *f, const char *text)
{
    return strlen(text) == f->len && memcmp(f->text, text, f->len) == 0;
}

static bool field_copy(const struct field *f, char *out, size_t size)
{
    if (f->len == 0 || f->len >= size || memchr(f->text, '\0', f->len) != NULL)
        return false;
    memcpy(out, f->text, f->len);
    out[f->len] = '\0';
    return true;
}

static bool field_number(const struct field *f, uint32_t *number)
{
    char text[16];
    uint64_t value;
    if (!field_copy(f, text, sizeof text) || !text_to_u64(text, &value) || value >= UINT32_MAX)
        return false;
    *number = (uint32_t)value;
    return true;
}

/* name:password:uid:gid:gecos:home:shell */
static bool passwd_fields(const struct field *f, size_t count, user_t *user)
{
    uint32_t uid, gid;
    if (count < 6 || !field_number(&f[2], &uid) || !field_number(&f[3], &gid))
        return false;
    user_t found = {.uid = uid, .gid = gid};
    if (!field_copy(&f[0], found.name, sizeof found.name))
        return false;
    if (!field_copy(&f[5], found.home, sizeof found.home))
        found.home[0] = '/';
    *user = found;
    return true;
}

bool users_find_name(const char *text, size_t len, const char *name, user_t *user)
{
    struct field f[FIELDS_MAX];
    for (const char *at = text, *end = text + len; at < end;) {
        size_t count = line_next(&at, end, f);
        if (count > 0 && field_is(&f[0], name) && passwd_fields(f, count, user))
            return true;
    }
    return false;
}

bool users_find_uid(const char *text, size_t len, uid_t uid, user_t *user)
{
    struct field f[FIELDS_MAX];
    user_t found;
    for (const char *at = text, *end = text + len; at < end;) {
        size_t count = line_next(&at, end, f);
        if (passwd_fields(f, count, &found) && found.uid == uid) {
            *user = found;
            return true;
        }
    }
    return false;
}

bool users_find_gid(const char *text, size_t len, gid_t gid, char *out, size_t size)
{
    struct field f[FIELDS_MAX];
    uint32_t number;
    for (const char *at = text, *end = text + len; at < end;) {
        size_t count = line_next(&at, end, f);
        if (count >= 3 && field_number(&f[2], &number) && number == gid && field_copy(&f[0], out, size))
            return true;
    }
    return false;
}

static bool members_have(const struct field *members, const char *name)
{
    struct field rest = *members;
    while (rest.len > 0) {
        const char *comma = memchr(rest.text, ',', rest.len);
        struct field one = {rest.text, comma != NULL ? (size_t)(comma - rest.text) : rest.len};
        if (field_is(&one, name))
            return true;
        size_t used = comma != NULL ? one.len + 1 : one.len;
        rest = (struct field){rest.text + used, rest.len - used};
    }
    return false;
}

static void group_add(user_t *user, gid_t gid)
{
    if (gid == user->gid || user->group_count == USER_GROUPS_MAX)
        return;
    for (size_t i = 0; i < user->group_count; i++)
        if (user->groups[i] == gid)
            return;
    user->groups[user->group_count++] = gid;
}

/* name:password:gid:member,member */
void users_add_groups(const char *text, size_t len, user_t *user)
{
    struct field f[FIELDS_MAX];
    uint32_t gid;
    for (const char *at = text, *end = text + len; at < end;) {
        size_t count = line_next(&at, end, f);
        if (count >= 4 && field_number(&f[2], &gid) && members_have(&f[3], user->name))
            group_add(user, gid);
    }
}

static bool is_same_file(const struct stat *a, const struct stat *b)
{
    return a->st_ino == b->st_ino && a->st_dev == b->st_dev && a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec &&
           a->st_ctim.tv_sec == b->st_ctim.tv_sec && a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

static void table_read(struct table *t, int fd, size_t size)
{
    t->text = mem_alloc(size + 1);
    t->len = 0;
    while (t->len < size) {
        ssize_t n = read(fd, t->text + t->len, size - t->len);
        if (n <= 0)
            break;
        t->len += (size_t)n;
    }
}

/* An unreadable, special or oversized file counts as empty. */
static void table_refresh(struct table *t)
{
    struct stat st;
    /* stat first: opening a fifo or a device that someone put there must not block or do things. */
    if (stat(t->path, &st) == 0 && t->text != NULL && is_same_file(&st, &t->st))
        return;
    free(t->text);
    t->text = NULL;
    t->len = 0;
    auto_close int fd = open(t->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0 || fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size > USERS_FILE_MAX)
        return;
    table_read(t, fd, (size_t)st.st_size);
    t->st = st;
}

static bool lookup_name(const char *name, user_t *user)
{
    table_refresh(&passwd_table);
    return users_find_name(passwd_table.text, passwd_table.len, name, user);
}

static void lookup_uid(uid_t uid, user_t *user)
{
    table_refresh(&passwd_table);
    if (users_find_uid(passwd_table.text, passwd_table.len, uid, user))
        return;
    *user = (user_t){.uid = uid, .gid = uid == 0 ? 0 : uid, .home = "/"};
    snprintf(user->name, sizeof user->name, "%u", (unsigned)uid);
}

static bool number_parse(const char *text, uint32_t *number)
{
    struct field f = {text, strlen(text)};
    return field_number(&f, number);
}

static int lookup_numbers(const char *spec, const char *colon, user_t *user, err_t **e)
{
    char uid_text[16] = "";
    uint32_t uid, gid;
    size_t len = colon != NULL ? (size_t)(colon - spec) : strlen(spec);
    if (len < sizeof uid_text)
        memcpy(uid_text, spec, len);
    if (!number_parse(uid_text, &uid) || (colon != NULL && !number_parse(colon + 1, &gid)))
        return err_set(e, ERR_BAD_REQUEST, "user \"%.64s\" is not a name, uid or uid:gid of this workspace", spec);
    lookup_uid(uid, user);
    if (colon != NULL)
        user->gid = gid;
    return 0;
}

int user_lookup(const char *spec, user_t *user, err_t **e)
{
    if (spec == NULL || spec[0] == '\0') {
        lookup_uid(geteuid(), user);
    } else if (!lookup_name(spec, user)) {
        const char *colon = strchr(spec, ':');
        if (spec[0] < '0' || spec[0] > '9')
            return err_set(e, ERR_BAD_REQUEST, "user \"%.64s\" does not exist in the workspace (see /etc/passwd)",
                           spec);
        if (lookup_numbers(spec, colon, user, e) < 0)
            return -1;
    }
    table_refresh(&group_table);
    users_add_groups(group_table.text, group_table.len, user);
    return 0;
}

bool user_name_of(uid_t uid, char *out, size_t size)
{
    user_t user;
    table_refresh(&passwd_table);
    if (!users_find_uid(passwd_table.text, passwd_table.len, uid, &user) || strlen(user.name) >= size)
        return false;
    memcpy(out, user.name, strlen(user.name) + 1);
    return true;
}

bool group_name_of(gid_t gid, char *out, size_t size)
{
    table_refresh(&group_table);
    return users_find_gid(group_table.text, group_table.len, gid, out, size);
}
