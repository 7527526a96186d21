// SPDX-License-Identifier: Apache-2.0
/* Which machine it is: host name and machine id. The image's owner may have put anything in place of these files: no
 * links are followed, no fifo is waited for, nothing large is read. */
#include "agent/machine.h"

#include "common/mem.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_MAX 16384 /* a longer /etc/hosts is left as it is */
#define NAME_SIZE 65

/* ---- host name ---- */

static int etc_open(const char *path, int flags)
{
    return open(path, flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0444);
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static size_t word_skip(const char *text, size_t at, size_t len)
{
    while (at < len && !is_blank(text[at]))
        at++;
    return at;
}

size_t machine_name_replace(const char *text, size_t len, const machine_rename_t *names, char *out, size_t size)
{
    size_t at = 0, to = 0, line = 0, old_len = strlen(names->old), new_len = strlen(names->now);
    bool is_ours = names->address == NULL;
    while (at < len) {
        size_t end = is_blank(text[at]) ? at + 1 : word_skip(text, at, len);
        bool is_word = !is_blank(text[at]);
        if (is_word && at == line && names->address != NULL)
            is_ours = end - at == strlen(names->address) && memcmp(text + at, names->address, end - at) == 0;
        if (!is_word && text[at] == '\n')
            line = end;
        bool is_old = is_word && is_ours && end - at == old_len && memcmp(text + at, names->old, old_len) == 0;
        size_t part = is_old ? new_len : end - at;
        if (to + part > size)
            return 0;
        memcpy(out + to, is_old ? names->now : text + at, part);
        to += part;
        at = end;
    }
    return to;
}

static void file_rename_in(const char *path, const machine_rename_t *names)
{
    static char text[FILE_MAX], fresh[FILE_MAX];
    struct stat st;
    auto_close int fd = etc_open(path, O_RDWR);
    if (fd < 0 || fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size > FILE_MAX - NAME_SIZE)
        return;
    ssize_t len = pread(fd, text, sizeof text, 0);
    size_t fresh_len = len > 0 ? machine_name_replace(text, (size_t)len, names, fresh, sizeof fresh) : 0;
    if (fresh_len == 0 || (fresh_len == (size_t)len && memcmp(text, fresh, fresh_len) == 0))
        return;
    if (pwrite(fd, fresh, fresh_len, 0) != (ssize_t)fresh_len || ftruncate(fd, (off_t)fresh_len) != 0)
        return; /* the disk is full: the name of the kernel counts */
}

void machine_set_hostname(const char *name)
{
    char current[NAME_SIZE] = "";
    if (name == NULL || name[0] == '\0' || gethostname(current, sizeof current - 1) != 0 || strcmp(current, name) == 0)
        return;
    file_rename_in("/etc/hostname", &(machine_rename_t){.old = current, .now = name});
    file_rename_in("/etc/hosts", &(machine_rename_t){.old = current, .now = name, .address = "127.0.1.1"});
    if (sethostname(name, strlen(name)) != 0)
        return; /* it keeps the name that it was made with */
}

/* ---- machine id ---- */

static bool is_hex32(const char *id)
{
    return strspn(id, "0123456789abcdef") == 32 && id[32] == '\0';
}

void machine_set_id(const char *id)
{
    char text[34], current[34] = "";
    if (id == NULL || !is_hex32(id))
        return;
    int len = snprintf(text, sizeof text, "%s\n", id);
    auto_close int fd = etc_open("/etc/machine-id", O_RDWR | O_CREAT);
    if (fd < 0)
        return;
    ssize_t n = pread(fd, current, sizeof current - 1, 0);
    if (n == len && memcmp(current, text, (size_t)len) == 0)
        return;
    if (ftruncate(fd, 0) != 0 || pwrite(fd, text, (size_t)len, 0) != len)
        return; /* the disk is full: an image's own id is no worse */
}
