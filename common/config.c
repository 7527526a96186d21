// SPDX-License-Identifier: Apache-2.0
#include "common/config.h"

#include "common/config_rows.h"
#include "common/file.h"
#include "common/mem.h"
#include "common/text.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <strings.h>
#include <unistd.h>

#define NAME_MAX_SHOWN 64
#define VALUE_MAX_SHOWN 100

static const config_row_t rows[] = {
#define X(kind, field, env, def, min, max, scope, flags, doc) \
    {CONFIG_KIND_##kind, (env), (def), (min), (max), (scope), (flags), offsetof(config_t, field), (doc)},
#include "common/config.def"
#undef X
};

const config_row_t *config_row_at(size_t i)
{
    return i < COUNT_OF(rows) ? &rows[i] : NULL;
}

/* What the file said; index = row. */
typedef struct file_values {
    char *value[COUNT_OF(rows)];
    unsigned line[COUNT_OF(rows)];
    const char *source;
} file_values_t;

static void file_values_free(file_values_t *v)
{
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        if (v->value[i] != NULL && (rows[i].flags & CONFIG_SECRET))
            mem_wipe(v->value[i], strlen(v->value[i]));
        free(v->value[i]);
    }
}

/* ---- the file ---- */

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

static void trim(const char **start, size_t *len)
{
    while (*len > 0 && is_blank(**start)) {
        (*start)++;
        (*len)--;
    }
    while (*len > 0 && is_blank((*start)[*len - 1]))
        (*len)--;
}

/* Edits (Levenshtein) between two names; names longer than NAME_MAX_SHOWN are far from everything. */
static size_t distance(const char *a, const char *b)
{
    size_t row[NAME_MAX_SHOWN + 1];
    size_t a_len = strlen(a), b_len = strlen(b);
    if (a_len > NAME_MAX_SHOWN || b_len > NAME_MAX_SHOWN)
        return SIZE_MAX;
    for (size_t j = 0; j <= b_len; j++)
        row[j] = j;
    for (size_t i = 1; i <= a_len; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b_len; j++) {
            size_t change = diagonal + (a[i - 1] != b[j - 1]);
            size_t least = row[j] + 1 < row[j - 1] + 1 ? row[j] + 1 : row[j - 1] + 1;
            diagonal = row[j];
            row[j] = change < least ? change : least;
        }
    }
    return row[b_len];
}

static int fail_unknown(const char *source, unsigned line, const char *name, err_t **e)
{
    const char *nearest = NULL;
    size_t best = strlen(name) / 3 + 1; /* further away is no typing error */
    for (size_t i = 0; config_dropped_at(i) != NULL; i++)
        if (strcmp(config_dropped_at(i)->name, name) == 0)
            return err_set(e, ERR_BAD_REQUEST, "%s:%u: %s has no meaning here (%s): remove the line", source, line,
                           name, config_dropped_at(i)->reason);
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        size_t d = distance(name, rows[i].name);
        if (d <= best) {
            best = d;
            nearest = rows[i].name;
        }
    }
    if (nearest != NULL)
        return err_set(e, ERR_BAD_REQUEST, "%s:%u: unknown key %s, did you mean %s?", source, line, name, nearest);
    return err_set(e, ERR_BAD_REQUEST, "%s:%u: unknown key %s (--config-reference lists all keys)", source, line, name);
}

static bool is_name(const char *name, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (!((name[i] >= 'A' && name[i] <= 'Z') || (name[i] >= '0' && name[i] <= '9' && i > 0) || name[i] == '_'))
            return false;
    return len > 0 && len <= NAME_MAX_SHOWN;
}

static int parse_line(file_values_t *v, unsigned line, const char *text, size_t len, err_t **e)
{
    trim(&text, &len);
    if (len == 0 || *text == '#')
        return 0;
    const char *equals = memchr(text, '=', len);
    const char *value = equals ? equals + 1 : NULL;
    size_t name_len = equals ? (size_t)(equals - text) : 0;
    size_t value_len = equals ? len - name_len - 1 : 0;
    trim(&text, &name_len);
    if (equals == NULL || !is_name(text, name_len)) /* the text is not shown: it may be a secret */
        return err_set(e, ERR_BAD_REQUEST, "%s:%u: expected NAME = value, or a comment after #", v->source, line);
    trim(&value, &value_len);
    if (value_len > 0 && *value == '"') {
        if (value_len < 2 || value[value_len - 1] != '"')
            return err_set(e, ERR_BAD_REQUEST, "%s:%u: the value of %.*s has no closing quote", v->source, line,
                           (int)name_len, text);
        value++;
        value_len -= 2;
    }
    auto_free char *name = mem_strndup(text, name_len);
    size_t i = 0;
    while (i < COUNT_OF(rows) && strcmp(rows[i].name, name) != 0)
        i++;
    if (i == COUNT_OF(rows))
        return fail_unknown(v->source, line, name, e);
    if (v->value[i] != NULL)
        return err_set(e, ERR_BAD_REQUEST, "%s:%u: %s is already set in line %u", v->source, line, name, v->line[i]);
    v->value[i] = mem_strndup(value, value_len);
    v->line[i] = line;
    return 0;
}

static int parse_file(file_values_t *v, const char *text, size_t len, err_t **e)
{
    const char *nul = len > 0 ? memchr(text, '\0', len) : NULL;
    if (nul != NULL)
        return err_set(e, ERR_BAD_REQUEST, "%s: not a text file: NUL byte at offset %td", v->source, nul - text);
    for (unsigned line = 1; len > 0; line++) {
        const char *end = memchr(text, '\n', len);
        size_t n = end ? (size_t)(end - text) : len;
        if (parse_line(v, line, text, n, e) != 0)
            return -1;
        n += end != NULL;
        text += n;
        len -= n;
    }
    return 0;
}

/* ---- values ---- */

static void *field_of(const config_t *c, const config_row_t *row)
{
    return (char *)(uintptr_t)c + row->offset; /* @UNSAFE: offset comes from offsetof */
}

static bool is_choice(const char *choices, const char *value)
{
    size_t len = strlen(value);
    for (const char *p = choices; *p != '\0';) {
        size_t n = strcspn(p, "|");
        if (n == len && memcmp(p, value, n) == 0)
            return true;
        p += n + (p[n] == '|');
    }
    return false;
}

/* "must be …", for the error. */
static char *expectation(const config_row_t *row)
{
    switch (row->kind) {
    case CONFIG_KIND_INT:
        return mem_printf("a whole number from %" PRId64 " to %" PRId64, row->min, row->max);
    case CONFIG_KIND_BOOL:
        return mem_strdup("true or false");
    case CONFIG_KIND_CHOICE:
        return mem_printf("one of %s", row->def);
    case CONFIG_KIND_SIZE:
        return mem_strdup("a size such as 512M or 4G, and not zero");
    case CONFIG_KIND_CPU:
        return mem_strdup("a number of CPUs such as 2 or 0.5, at most 1024");
    case CONFIG_KIND_STR:
        break;
    }
    return mem_strdup("text");
}

static bool parse_bool(const char *value, bool *out)
{
    *out = strcmp(value, "1") == 0 || strcasecmp(value, "true") == 0;
    return *out || strcmp(value, "0") == 0 || strcasecmp(value, "false") == 0;
}

static bool set_value(config_t *c, const config_row_t *row, const char *value)
{
    void *field = field_of(c, row);
    int64_t number;
    uint64_t bytes;
    uint32_t milli;
    switch (row->kind) {
    case CONFIG_KIND_INT:
        if (!text_to_i64(value, &number) || number < row->min || number > row->max)
            return false;
        *(int64_t *)field = number;
        return true;
    case CONFIG_KIND_BOOL:
        return parse_bool(value, field);
    case CONFIG_KIND_CHOICE:
        if (!is_choice(row->def, value))
            return false;
        break;
    case CONFIG_KIND_SIZE:
        if (!text_to_size(value, &bytes) || bytes == 0)
            return false;
        break;
    case CONFIG_KIND_CPU:
        if (!text_to_milli(value, &milli))
            return false;
        break;
    case CONFIG_KIND_STR:
        break;
    }
    free(*(char **)field);
    *(char **)field = mem_strdup(value);
    return true;
}

static void set_default(config_t *c, const config_row_t *row)
{
    auto_free char *first =
        row->kind == CONFIG_KIND_CHOICE ? mem_strndup(row->def, strcspn(row->def, "|")) : mem_strdup(row->def);
    if (!set_value(c, row, first))
        abort(); /* a row whose own default is refused: the unit test loads them all */
}

static int load_row(config_t *c, const config_row_t *row, const file_values_t *v, size_t i, err_t **e)
{
    const char *value = getenv(row->name);
    auto_free char *where = NULL;
    if (value != NULL && *value != '\0') {
        where = mem_strdup("environment");
    } else if (v->value[i] != NULL && *v->value[i] != '\0') {
        value = v->value[i];
        where = mem_printf("%s:%u", v->source, v->line[i]);
    } else {
        return 0;
    }
    if (set_value(c, row, value))
        return 0;
    auto_free char *expected = expectation(row);
    if (row->flags & CONFIG_SECRET)
        return err_set(e, ERR_BAD_REQUEST, "%s (%s): must be %s", row->name, where, expected);
    return err_set(e, ERR_BAD_REQUEST, "%s is \"%.*s\" (%s): must be %s", row->name, VALUE_MAX_SHOWN, value, where,
                   expected);
}

/* ---- derived defaults ---- */

static void replace(char **field, char *value)
{
    free(*field);
    *field = value;
}

/* Absolute, without trailing slashes. */
static int make_absolute(char **path, err_t **e)
{
    size_t len = strlen(*path);
    while (len > 1 && (*path)[len - 1] == '/')
        (*path)[--len] = '\0';
    if (**path == '/')
        return 0;
    auto_free char *cwd = getcwd(NULL, 0);
    if (cwd == NULL)
        return err_set_errno(e, ERR_INTERNAL, errno, "cannot make %s absolute", *path);
    const char *below = *path;
    while (below[0] == '.' && below[1] == '/')
        below += 2 + strspn(below + 2, "/");
    if (strcmp(below, ".") == 0 || *below == '\0')
        replace(path, STEAL_PTR(cwd));
    else
        replace(path, mem_printf("%s/%s", strcmp(cwd, "/") == 0 ? "" : cwd, below));
    return 0;
}

static int derive(config_t *c, err_t **e)
{
    char host[256] = "";
    if (make_absolute(&c->state_dir, e) != 0)
        return -1;
    if (*c->image_dir == '\0')
        replace(&c->image_dir, mem_printf("%s/images", c->state_dir));
    if (*c->run_dir == '\0')
        replace(&c->run_dir, mem_printf("%s/run", c->state_dir));
    if (make_absolute(&c->image_dir, e) != 0 || make_absolute(&c->run_dir, e) != 0)
        return -1;
    if (strlen(c->run_dir) > CONFIG_RUN_DIR_MAX)
        return err_set(e, ERR_BAD_REQUEST,
                       "EW_RUN_DIR is %s: longer than %d bytes, sockets in it could not be bound; set a shorter one",
                       c->run_dir, CONFIG_RUN_DIR_MAX);
    if (*c->node == '\0') {
        if (gethostname(host, sizeof host - 1) != 0)
            return err_set_errno(e, ERR_INTERNAL, errno, "cannot find this host's name; set EW_NODE");
        replace(&c->node, mem_strdup(host));
    }
    return 0;
}

/* ---- the whole ---- */

static int load(config_t *c, unsigned scope, const file_values_t *v, err_t **e)
{
    *c = (config_t){0};
    for (size_t i = 0; i < COUNT_OF(rows); i++)
        set_default(c, &rows[i]);
    for (size_t i = 0; i < COUNT_OF(rows); i++)
        if ((rows[i].scope & scope) && load_row(c, &rows[i], v, i, e) != 0)
            return -1;
    return derive(c, e);
}

int config_load_text(config_t *c, unsigned scope, const char *source, const char *text, size_t len, err_t **e)
{
    file_values_t values = {.source = source};
    *c = (config_t){0};
    int result = parse_file(&values, text, len, e);
    if (result == 0)
        result = load(c, scope, &values, e);
    file_values_free(&values);
    if (result != 0)
        config_free(c);
    return result;
}

int config_load(config_t *c, unsigned scope, err_t **e)
{
    const char *path = getenv("EW_CONFIG");
    auto_buf buf_t text;
    buf_init(&text, CONFIG_FILE_MAX + 1);
    *c = (config_t){0};
    if (path != NULL && *path != '\0' && file_read(path, CONFIG_FILE_MAX, &text, e) != 0)
        return err_wrap(e, "EW_CONFIG");
    int result = config_load_text(c, scope, path ? path : "", buf_cstr(&text), text.len, e);
    if (text.data != NULL)
        mem_wipe(text.data, text.len);
    return result;
}

void config_free(config_t *c)
{
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        if (rows[i].kind == CONFIG_KIND_INT || rows[i].kind == CONFIG_KIND_BOOL)
            continue;
        char **field = field_of(c, &rows[i]);
        if (*field != NULL && (rows[i].flags & CONFIG_SECRET))
            mem_wipe(*field, strlen(*field));
        free(*field);
        *field = NULL;
    }
}

void config_print(const config_t *c, unsigned scope, buf_t *out)
{
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        const config_row_t *row = &rows[i];
        const void *field = field_of(c, row);
        if (!(row->scope & scope))
            continue;
        buf_printf(out, "%s = ", row->name);
        if (row->kind == CONFIG_KIND_INT)
            buf_printf(out, "%" PRId64, *(const int64_t *)field);
        else if (row->kind == CONFIG_KIND_BOOL)
            buf_append_str(out, *(const bool *)field ? "true" : "false");
        else if (row->flags & CONFIG_SECRET)
            buf_append_str(out, **(char *const *)field ? "(set)" : "(not set)");
        else
            buf_append_str(out, *(char *const *)field);
        buf_append_byte(out, '\n');
    }
}
