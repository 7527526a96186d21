/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/cli.h"

#include "common/mem.h"
#include "common/text.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define CELL_MAX 512 /* bytes shown of one cell */

/* Looks "a.b" up. */
static const json_t *find(const json_t *row, const char *key)
{
    const char *dot = strchr(key, '.');
    if (dot == NULL) {
        return json_object_get(row, key);
    }
    auto_free char *head = mem_strndup(key, (size_t)(dot - key));
    return find(json_object_get(row, head), dot + 1);
}

static void append_bytes(buf_t *out, double value)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    size_t unit = 0;
    while (value >= 1024 && unit + 1 < COUNT_OF(units)) {
        value /= 1024;
        unit++;
    }
    buf_printf(out, unit == 0 ? "%.0f %s" : "%.1f %s", value, units[unit]);
}

static void append_time(buf_t *out, int64_t ms)
{
    time_t seconds = (time_t)(ms / 1000);
    struct tm parts;
    char text[32];
    if (ms > 0 && localtime_r(&seconds, &parts) != NULL &&
        strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S", &parts) > 0) {
        buf_append_str(out, text);
    }
}

void cli_append_safe(buf_t *out, const char *text, size_t len, size_t max)
{
    size_t cut = utf8_cut(text, len, max);
    for (size_t i = 0; i < cut; i++) {
        unsigned char byte = (unsigned char)text[i];
        bool is_c1 = byte == 0xc2 && i + 1 < cut && (unsigned char)text[i + 1] < 0xa0;
        if (is_c1) {
            i++;
        }
        buf_append_byte(out, byte < 0x20 || byte == 0x7f || is_c1 ? '?' : byte);
    }
    if (cut < len) {
        buf_append_str(out, "…");
    }
}

static void append_list(buf_t *out, const json_t *list)
{
    size_t i;
    const json_t *item;
    json_array_foreach(list, i, item)
    {
        buf_append_str(out, i > 0 ? ", " : "");
        if (json_is_string(item)) {
            cli_append_safe(out, json_string_value(item), json_string_length(item), CELL_MAX);
        } else {
            auto_free char *text = json_dumps(item, JSON_COMPACT | JSON_ENCODE_ANY);
            cli_append_safe(out, text != NULL ? text : "", text != NULL ? strlen(text) : 0, CELL_MAX);
        }
    }
}

static char *make_cell(const json_t *row, const char *key)
{
    buf_t out;
    buf_init(&out, 0);
    bool is_bytes = strncmp(key, "*bytes:", 7) == 0;
    bool is_time = strncmp(key, "*time:", 6) == 0;
    const json_t *value = find(row, is_bytes ? key + 7 : is_time ? key + 6 : key);
    if (is_bytes && json_is_integer(value)) {
        append_bytes(&out, (double)json_integer_value(value));
    } else if (is_time && json_is_integer(value)) {
        append_time(&out, json_integer_value(value));
    } else if (json_is_string(value)) {
        cli_append_safe(&out, json_string_value(value), json_string_length(value), CELL_MAX);
    } else if (json_is_integer(value)) {
        buf_printf(&out, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
    } else if (json_is_boolean(value)) {
        buf_append_str(&out, json_is_true(value) ? "yes" : "no");
    } else if (json_is_array(value)) {
        append_list(&out, value);
    } else if (value != NULL && !json_is_null(value)) {
        auto_free char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
        cli_append_safe(&out, text != NULL ? text : "", text != NULL ? strlen(text) : 0, CELL_MAX);
    }
    return buf_steal(&out);
}

/* Characters, near enough for aligning. */
static size_t width_of(const char *text)
{
    size_t width = 0;
    for (; *text != '\0'; text++) {
        width += ((unsigned char)*text & 0xc0) != 0x80;
    }
    return width;
}

static void print_cell(const char *text, size_t width, bool is_last)
{
    fputs(text, stdout);
    for (size_t i = width_of(text); !is_last && i < width + 2; i++) {
        putchar(' ');
    }
    if (is_last) {
        putchar('\n');
    }
}

void cli_print_table(const json_t *rows, const cli_column_t *columns, size_t count)
{
    size_t row_count = json_array_size(rows);
    char **cells = mem_alloc_array(row_count * count + 1, sizeof(*cells));
    size_t *widths = mem_alloc_array(count, sizeof(*widths));
    for (size_t c = 0; c < count; c++) {
        widths[c] = width_of(columns[c].title);
        for (size_t r = 0; r < row_count; r++) {
            char *cell = make_cell(json_array_get(rows, r), columns[c].key);
            cells[r * count + c] = cell;
            size_t width = width_of(cell);
            widths[c] = width > widths[c] ? width : widths[c];
        }
    }
    for (size_t c = 0; c < count; c++) {
        print_cell(columns[c].title, widths[c], c + 1 == count);
    }
    for (size_t i = 0; i < row_count * count; i++) {
        print_cell(cells[i], widths[i % count], i % count + 1 == count);
        free(cells[i]);
    }
    free(cells);
    free(widths);
}

void cli_print_fields(const json_t *object, const cli_column_t *fields, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        auto_free char *cell = make_cell(object, fields[i].key);
        if (cell[0] != '\0') {
            printf("%-16s %s\n", fields[i].title, cell);
        }
    }
}
