// SPDX-License-Identifier: Apache-2.0
#include "agent/fs_entry.h"

#include "common/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

/* The last part of a path, without slashes at its end; "/" for the root. */
static void last_part(const char *path, char *out, size_t size)
{
    size_t len = strlen(path);
    while (len > 1 && path[len - 1] == '/')
        len--;
    size_t start = len;
    while (start > 0 && path[start - 1] != '/')
        start--;
    if (start == len)
        start = 0; /* the root itself */
    snprintf(out, size, "%.*s", (int)(len - start), path + start);
}

int fs_entry_read(fs_entry_t *entry, int dir_fd, const char *name, const char *path, err_t **e)
{
    struct stat st;
    if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
        return errno == ENOENT ? err_set(e, ERR_NOT_FOUND, "file not found: %s", path)
                               : err_set_errno(e, ERR_NONE, errno, "cannot examine %s", path);
    last_part(path, entry->name, sizeof entry->name);
    entry->msg = (struct file_entry){
        .path = path,
        .name = entry->name,
        .type = fs_type_name(st.st_mode),
        .size = (uint64_t)st.st_size,
        .mode = st.st_mode & 07777,
        .uid = st.st_uid,
        .gid = st.st_gid,
        .modified_at_ms =
            st.st_mtim.tv_sec < 0 ? 0 : (uint64_t)st.st_mtim.tv_sec * 1000 + (uint64_t)st.st_mtim.tv_nsec / 1000000,
    };
    entry->msg.has.size = entry->msg.has.mode = entry->msg.has.uid = entry->msg.has.gid = true;
    entry->msg.has.modified_at_ms = true;
    if (user_name_of(st.st_uid, entry->owner, sizeof entry->owner))
        entry->msg.owner = entry->owner;
    if (group_name_of(st.st_gid, entry->group, sizeof entry->group))
        entry->msg.group = entry->group;
    if (S_ISLNK(st.st_mode)) {
        ssize_t n = readlinkat(dir_fd, name, entry->link, sizeof entry->link - 1);
        entry->link[n > 0 ? n : 0] = '\0';
        entry->msg.symlink_target = entry->link;
    }
    return 0;
}
