// SPDX-License-Identifier: Apache-2.0
// LINK: agent/tool_read.c agent/fs_path.c agent/lines.c agent/walk.c agent/workspace.c tests/unit/fake_call.c
/* The read tool: scenarios S-044 to S-048, gaps G-30 to G-33. */
#include "agent/fs_tools.h"
#include "agent/lines.h"
#include "common/mem.h"
#include "tests/unit/fake_call.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

TestSuite(read, .timeout = 60, .fini = fake_workspace_end);

static fake_t f;

static const struct read_reply *read_file(const char *path, int64_t offset, int64_t limit)
{
    struct read_request req = {.file_path = path, .offset = offset, .limit = limit};
    fake_run(&f, &tool_read, &req);
    return f.reply;
}

static void expect_content(const struct read_reply *r, const char *content)
{
    cr_assert_not_null(r);
    cr_assert_eq(r->content.len, strlen(content), "content is '%.*s'", (int)r->content.len,
                 (const char *)r->content.data);
    cr_assert(memcmp(r->content.data, content, r->content.len) == 0, "content is '%.*s'", (int)r->content.len,
              (const char *)r->content.data);
}

Test(read, a_small_file_comes_with_line_numbers_S044)
{
    fake_put_str("a.txt", "one\ntwo\n\n  four\n");
    const struct read_reply *r = read_file("a.txt", 0, 0);
    expect_content(r, "1: one\n2: two\n3: \n4:   four");
    cr_assert_eq(r->total_lines, 4);
    cr_assert_eq(r->file_size, 16);
    cr_assert(!r->is_binary && !r->is_dir && !r->truncated);
    cr_assert_eq(f.steps, 0, "the hot path answers at once");
    fake_free(&f);
}

Test(read, windows_are_what_they_say_S045)
{
    static const struct {
        const char *text;
        int64_t offset, limit;
        const char *content;
        uint64_t total;
        uint64_t next;
    } rows[] = {
        {"a\nb\nc\n", 2, 1, "2: b\n", 3, 3},
        {"a\nb\nc\n", 2, 2, "2: b\n3: c", 3, 0},
        {"a\nb\nc", 3, 0, "3: c", 3, 0},
        {"a\nb\nc", 4, 0, "", 3, 0},
        {"a\nb\nc", 0, 2, "1: a\n2: b\n", 3, 3},
        {"a\nb\nc", -5, -1, "1: a\n2: b\n3: c", 3, 0},
        {"", 0, 0, "", 0, 0},
        {"\n", 0, 0, "1: ", 1, 0},
        {"\n\n", 0, 0, "1: \n2: ", 2, 0},
        {"x", 1, 1, "1: x", 1, 0},
        {"a\r\nb\r\n", 0, 0, "1: a\r\n2: b\r", 2, 0},
        {"a\nb", 1000000, 1000000, "", 2, 0},
        {"\tx\n", 0, 0, "1: \tx", 1, 0},
        {"\xff\xfe\n", 0, 0, "1: \xff\xfe", 1, 0},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        fake_put_str("w.txt", rows[i].text);
        const struct read_reply *r = read_file("w.txt", rows[i].offset, rows[i].limit);
        expect_content(r, rows[i].content);
        cr_assert_eq(r->total_lines, rows[i].total, "row %zu", i);
        cr_assert_eq(r->next_offset, rows[i].next, "row %zu", i);
        cr_assert_eq(r->file_size, strlen(rows[i].text), "row %zu", i);
        fake_free(&f);
    }
}

Test(read, offset_100_limit_50_gives_lines_100_to_149_S045)
{
    auto_buf buf_t text;
    buf_init(&text, 0);
    for (int i = 1; i <= 300; i++)
        buf_printf(&text, "line %d\n", i);
    fake_put("n.txt", text.data, text.len);
    const struct read_reply *r = read_file(fake_path("n.txt"), 100, 50);
    cr_assert(strncmp(r->content.data, "100: line 100\n", 14) == 0);
    cr_assert_eq(lines_count_newlines(r->content.data, r->content.len), 50);
    cr_assert_eq(r->total_lines, 300);
    cr_assert_eq(r->next_offset, 150);
    fake_free(&f);
}

Test(read, a_missing_file_is_not_found_S046)
{
    cr_assert_null(read_file("no/such.txt", 0, 0));
    cr_assert_eq(fake_code(&f), ERR_NOT_FOUND);
    cr_assert_str_eq(err_message(f.error) + strlen("file not found: ") + strlen(fake_workspace()), "/no/such.txt");
    fake_free(&f);
}

Test(read, a_directory_lists_its_entries_S047)
{
    fake_put_str("d/b.txt", "x");
    fake_put_str("d/.hidden", "x");
    fake_put_str("d/sub/file", "x");
    cr_assert_eq(symlink("sub", fake_path("d/link")), 0);
    const struct read_reply *r = read_file("d", 0, 0);
    expect_content(r, ".hidden\nb.txt\nlink\nsub/");
    cr_assert(r->is_dir);
    cr_assert_eq(r->total_lines, 4);
    fake_free(&f);
    expect_content(read_file("d", 2, 2), "b.txt\nlink\n");
    fake_free(&f);
}

Test(read, a_binary_file_tells_only_its_size_S048)
{
    char bytes[10000];
    memset(bytes, 'x', sizeof bytes);
    bytes[7999] = '\0';
    fake_put("b.bin", bytes, sizeof bytes);
    const struct read_reply *r = read_file("b.bin", 0, 0);
    expect_content(r, "Binary file (10000 bytes)");
    cr_assert(r->is_binary);
    cr_assert_eq(r->file_size, 10000);
    fake_free(&f);
    bytes[7999] = 'x';
    bytes[8000] = '\0'; /* too late to notice */
    fake_put("b.bin", bytes, sizeof bytes);
    cr_assert(!read_file("b.bin", 0, 0)->is_binary);
    fake_free(&f);
}

Test(read, base64_means_the_exact_bytes)
{
    struct read_request req = {.file_path = "raw", .offset = 2, .limit = 2, .output_encoding = "base64"};
    fake_put("raw", "a\n\xff\0b\r\nc\nd", 10);
    fake_run(&f, &tool_read, &req);
    const struct read_reply *r = f.reply;
    cr_assert(r->is_binary);
    cr_assert_eq(r->content.len, 7);
    cr_assert(memcmp(r->content.data, "\xff\0b\r\nc\n", 7) == 0);
    cr_assert_eq(r->next_offset, 4);
    cr_assert_eq(r->total_lines, 4);
    fake_free(&f);
}

Test(read, other_kinds_of_files_are_named_and_never_block)
{
    cr_assert_eq(mkfifo(fake_path("fifo"), 0600), 0);
    cr_assert_null(read_file("fifo", 0, 0));
    cr_assert_eq(fake_code(&f), ERR_BAD_REQUEST);
    cr_assert_not_null(strstr(err_message(f.error), "it is a fifo"));
    fake_free(&f);
    cr_assert_null(read_file("/dev/null", 0, 0));
    cr_assert_not_null(strstr(err_message(f.error), "it is a device"));
    fake_free(&f);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s/s", fake_workspace());
    cr_assert_eq(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    cr_assert_null(read_file("s", 0, 0));
    cr_assert_not_null(strstr(err_message(f.error), "it is a socket"));
    close(fd);
    fake_free(&f);
}

Test(read, content_ends_at_256_KiB_on_a_line_and_pages_add_up)
{
    auto_buf buf_t text, pages;
    buf_init(&text, 0);
    buf_init(&pages, 0);
    for (int i = 0; i < 30000; i++)
        buf_printf(&text, "%0*d\n", 20 + i % 60, i);
    fake_put("big.txt", text.data, text.len);
    uint64_t next = 1;
    int rounds = 0;
    while (next != 0) {
        const struct read_reply *r = read_file("big.txt", (int64_t)next, 0);
        cr_assert_leq(r->content.len, READ_CONTENT_MAX);
        cr_assert_eq(r->total_lines, 30000);
        cr_assert_eq(r->truncated, r->next_offset != 0);
        buf_append(&pages, r->content.data, r->content.len);
        next = r->next_offset;
        rounds++;
        fake_free(&f);
    }
    cr_assert_gt(rounds, 5);
    auto_buf buf_t want;
    buf_init(&want, 0);
    for (int i = 0; i < 30000; i++)
        buf_printf(&want, "%s%d: %0*d", i ? "\n" : "", i + 1, 20 + i % 60, i);
    cr_assert_eq(pages.len, want.len);
    cr_assert(memcmp(pages.data, want.data, want.len) == 0);
}

Test(read, one_line_that_is_too_long_is_cut_on_a_character)
{
    size_t len = READ_CONTENT_MAX + 100;
    auto_free char *text = mem_alloc(len);
    for (size_t i = 0; i + 1 < len; i += 2) {
        text[i] = (char)0xc3;
        text[i + 1] = (char)0xa4;
    }
    text[len - 1] = '\n';
    text[len - 2] = 'x';
    fake_put("long", text, len);
    const struct read_reply *r = read_file("long", 0, 0);
    cr_assert(r->truncated);
    cr_assert_eq(r->total_lines, 1);
    cr_assert_eq(r->next_offset, 0);
    cr_assert_leq(r->content.len, READ_CONTENT_MAX);
    cr_assert_geq(r->content.len, READ_CONTENT_MAX - 1);
    cr_assert_eq(((const uint8_t *)r->content.data)[r->content.len - 1], 0xa4, "ends with a whole character");
    fake_free(&f);
}

Test(read, a_file_larger_than_a_block_is_counted_in_slices)
{
    auto_free char *text = mem_alloc(64 << 20);
    memset(text, 'y', 64 << 20);
    for (size_t i = 99; i < 64 << 20; i += 100)
        text[i] = '\n';
    fake_put("huge", text, 64 << 20);
    const struct read_reply *r = read_file("huge", 671088, 10);
    cr_assert_eq(r->total_lines, 671089);
    cr_assert(strncmp(r->content.data, "671088: yyy", 11) == 0);
    cr_assert_gt(f.steps, 1);
    fake_free(&f);
}

Test(read, files_of_proc_have_no_size_and_are_read_to_their_end)
{
    const struct read_reply *r = read_file("/proc/self/status", 0, 0);
    cr_assert_not_null(r);
    cr_assert_gt(r->file_size, 100);
    cr_assert_gt(r->total_lines, 10);
    fake_free(&f);
}

Test(read, the_window_is_the_same_however_the_bytes_arrive)
{
    static const char text[] = "alpha\n\nbeta gamma\nd\n\xe2\x82\xac\nlast";
    for (uint64_t first = 1; first < 8; first++)
        for (uint64_t count = 1; count < 8; count++)
            for (size_t max = 1; max < 48; max++) {
                buf_t whole, pieces;
                lines_t a, b;
                buf_init(&whole, 0);
                buf_init(&pieces, 0);
                lines_init(&a, first, count, max, &whole);
                lines_init(&b, first, count, max, &pieces);
                a.is_numbered = b.is_numbered = max % 2;
                lines_feed(&a, text, sizeof text - 1);
                for (size_t i = 0; i < sizeof text - 1; i++)
                    lines_feed(&b, text + i, 1);
                lines_end(&a);
                lines_end(&b);
                cr_assert_eq(a.total, 6);
                cr_assert_eq(b.total, 6);
                cr_assert_leq(whole.len, max);
                cr_assert_eq(a.next_line, b.next_line);
                cr_assert_eq(a.is_truncated, b.is_truncated);
                cr_assert(whole.len == pieces.len &&
                              (whole.len == 0 || memcmp(whole.data, pieces.data, whole.len) == 0),
                          "first %d count %d max %zu: '%s' '%s'", (int)first, (int)count, max, buf_cstr(&whole),
                          buf_cstr(&pieces));
                buf_free(&whole);
                buf_free(&pieces);
            }
}
