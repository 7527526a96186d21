// SPDX-License-Identifier: Apache-2.0
#include "agent/git_status.h"

#include "common/text.h"

#include <stdio.h>
#include <string.h>

#define TEXT_MAX ((size_t)4 << 20)

/* A cursor over NUL-terminated records; a last one without its NUL was cut and is left out. */
typedef struct records {
    const char *at;
    const char *end;
} records_t;

static const char *next_record(records_t *r)
{
    const char *nul = r->at < r->end ? memchr(r->at, 0, (size_t)(r->end - r->at)) : NULL;
    const char *record = r->at;
    if (nul == NULL)
        return NULL;
    r->at = nul + 1;
    return record;
}

/* What stands behind `fields` words, or NULL. */
static const char *after_words(const char *record, unsigned fields)
{
    for (; fields > 0; fields--) {
        record = strchr(record, ' ');
        if (record == NULL)
            return NULL;
        record++;
    }
    return *record != '\0' ? record : NULL;
}

static bool has_room(git_status_lists_t *s, uint32_t count, const char *path, const char *old_path)
{
    size_t used = s->staged.len + s->unstaged.len + s->untracked.len + s->conflicted.len;
    size_t need = strlen(path) + (old_path ? strlen(old_path) : 0) + 32;
    if (strlen(path) <= MAX_PATH && (old_path == NULL || strlen(old_path) <= MAX_PATH) && count < GIT_STATUS_ROWS_MAX &&
        used + need <= GIT_STATUS_BYTES_MAX)
        return true;
    s->is_cut = true;
    return false;
}

static void add_file(git_status_lists_t *s, buf_t *list, uint32_t *count, char letter, const char *path,
                     const char *old_path)
{
    err_t *e = NULL;
    char status[2] = {letter, '\0'};
    bool is_moved = letter == 'R' || letter == 'C';
    struct git_file file = {.path = path, .status = status, .old_path = is_moved ? old_path : NULL};
    if (!has_room(s, *count, path, old_path))
        return;
    if (proto_list_add_msg(list, MSG_git_file, &file, &e) == 0)
        (*count)++;
    else
        s->is_cut = true;
    err_free(&e);
}

static void add_path(git_status_lists_t *s, buf_t *list, uint32_t *count, const char *path)
{
    if (!has_room(s, *count, path, NULL))
        return;
    proto_list_add_str(list, path);
    (*count)++;
}

/* ---- the text, as `git status --porcelain` prints it with core.quotePath=false ---- */

static void put_quoted(buf_t *out, const char *path)
{
    static const char special[] = "\a\b\t\n\v\f\r\"\\", letters[] = "abtnvfr\"\\";
    bool needs_quotes = strchr(path, ' ') != NULL;
    for (const char *p = path; *p != '\0' && !needs_quotes; p++)
        needs_quotes = (unsigned char)*p < 0x20 || *p == 0x7f || *p == '"' || *p == '\\';
    if (!needs_quotes) {
        buf_append_str(out, path);
        return;
    }
    buf_append_byte(out, '"');
    for (const char *p = path; *p != '\0'; p++) {
        const char *at = strchr(special, *p);
        if (at != NULL)
            buf_printf(out, "\\%c", letters[at - special]);
        else if ((unsigned char)*p < 0x20 || *p == 0x7f)
            buf_printf(out, "\\%03o", (unsigned)(unsigned char)*p);
        else
            buf_append_byte(out, (uint8_t)*p);
    }
    buf_append_byte(out, '"');
}

static void put_line(git_status_lists_t *s, const char *xy, const char *path, const char *old_path)
{
    size_t before = s->text.len;
    buf_printf(&s->text, "%c%c ", xy[0] == '.' ? ' ' : xy[0], xy[1] == '.' ? ' ' : xy[1]);
    if (old_path != NULL) {
        put_quoted(&s->text, old_path);
        buf_append_str(&s->text, " -> ");
    }
    put_quoted(&s->text, path);
    buf_append_byte(&s->text, '\n');
    if (!buf_failed(&s->text))
        return;
    s->text.is_failed = false;
    buf_truncate(&s->text, before);
    s->is_cut = true;
}

/* ---- records ---- */

/* "+<ahead> -<behind>" */
static void on_distance(git_status_lists_t *s, const char *value)
{
    char ahead[24];
    uint64_t numbers[2];
    const char *space = strchr(value, ' ');
    if (space == NULL || value[0] != '+' || space[1] != '-')
        return;
    snprintf(ahead, sizeof ahead, "%.*s", (int)(space - value - 1), value + 1);
    if (!text_to_u64(ahead, &numbers[0]) || !text_to_u64(space + 2, &numbers[1]))
        return;
    s->msg.ahead = numbers[0];
    s->msg.behind = numbers[1];
}

static void on_header(git_status_lists_t *s, const char *record)
{
    const char *value = after_words(record, 2);
    if (value == NULL)
        return;
    if (strncmp(record, "# branch.oid ", 13) == 0 && strcmp(value, "(initial)") != 0)
        snprintf(s->head, sizeof s->head, "%s", value);
    else if (strncmp(record, "# branch.head ", 14) == 0 && strcmp(value, "(detached)") != 0)
        snprintf(s->branch, sizeof s->branch, "%s", value);
    else if (strncmp(record, "# branch.upstream ", 18) == 0)
        snprintf(s->upstream, sizeof s->upstream, "%s", value);
    else if (strncmp(record, "# branch.ab ", 12) == 0)
        on_distance(s, value);
}

static bool is_letter(char c)
{
    return c >= 'A' && c <= 'Z';
}

/* "1 XY …" and "2 XY …": X is the index, Y the work tree. */
static void on_change(git_status_lists_t *s, const char *record, const char *path, const char *old_path)
{
    const char *xy = record + 2;
    if ((xy[0] != '.' && !is_letter(xy[0])) || (xy[1] != '.' && !is_letter(xy[1])) || xy[2] != ' ')
        return;
    put_line(s, xy, path, old_path);
    if (xy[0] != '.')
        add_file(s, &s->staged, &s->staged_count, xy[0], path, old_path);
    if (xy[1] != '.')
        add_file(s, &s->unstaged, &s->unstaged_count, xy[1], path, old_path);
}

static void on_record(git_status_lists_t *s, const char *record, records_t *rest)
{
    static const struct {
        char type;
        unsigned words; /* in front of the path */
    } rows[] = {{'1', 8}, {'2', 9}, {'u', 10}, {'?', 1}};
    const char *path = NULL, *old_path = NULL;
    if (record[0] == '\0' || record[1] != ' ')
        return;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (record[0] == rows[i].type)
            path = after_words(record, rows[i].words);
    if (record[0] == '2' && (old_path = next_record(rest)) == NULL)
        return;
    if (record[0] == '#')
        on_header(s, record);
    else if (path == NULL)
        return;
    else if (record[0] == '?') {
        put_line(s, "??", path, NULL);
        add_path(s, &s->untracked, &s->untracked_count, path);
    } else if (record[0] == 'u') {
        if (!is_letter(record[2]) || !is_letter(record[3]))
            return;
        put_line(s, record + 2, path, NULL);
        add_path(s, &s->conflicted, &s->conflicted_count, path);
    } else {
        on_change(s, record, path, old_path);
    }
}

void git_status_parse(git_status_lists_t *s, const void *bytes, size_t len)
{
    records_t rest = {bytes, (const char *)bytes + len};
    const char *record;
    memset(s, 0, sizeof *s);
    buf_init(&s->text, TEXT_MAX);
    while ((record = next_record(&rest)) != NULL)
        on_record(s, record, &rest);
    s->is_cut |= rest.at != rest.end;
    s->msg.branch = s->branch;
    s->msg.head = s->head[0] ? s->head : NULL;
    s->msg.upstream = s->upstream[0] ? s->upstream : NULL;
    s->msg.staged = proto_list_of(s->staged_count, &s->staged);
    s->msg.unstaged = proto_list_of(s->unstaged_count, &s->unstaged);
    s->msg.untracked = proto_list_of(s->untracked_count, &s->untracked);
    s->msg.conflicted = proto_list_of(s->conflicted_count, &s->conflicted);
    s->msg.has.ahead = s->msg.has.behind = true;
    s->msg.has.staged = s->msg.has.unstaged = s->msg.has.untracked = true;
}

void git_status_free(git_status_lists_t *s)
{
    buf_free(&s->staged);
    buf_free(&s->unstaged);
    buf_free(&s->untracked);
    buf_free(&s->conflicted);
    buf_free(&s->text);
}
