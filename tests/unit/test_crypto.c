// SPDX-License-Identifier: Apache-2.0
#include "common/crypto.h"

#include "common/file.h"
#include "common/mem.h"
#include "common/text.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define KEY_A "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
#define KEY_B "ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100"

static char dir[64];
static char path[96];
static err_t *e;

static void start(void)
{
    snprintf(dir, sizeof dir, "/tmp/ew-crypto-XXXXXX");
    cr_assert_not_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/seal.key", dir);
    e = NULL;
}

static void stop(void)
{
    err_free(&e);
    dir_remove(dir, &e);
}

TestSuite(crypto, .init = start, .fini = stop, .timeout = 20);

static sealer_t *open_sealer(const char *import)
{
    sealer_t *s = sealer_open(path, import, &e);
    cr_assert_not_null(s, "%s", err_message(e));
    return s;
}

static void seal(sealer_t *s, const char *text, buf_t *blob)
{
    buf_init(blob, 0);
    cr_assert_eq(sealer_seal(s, "token", "row-1", text, strlen(text), blob, &e), 0, "%s", err_message(e));
}

static bool opens(sealer_t *s, const char *purpose, const char *row, const buf_t *blob, const char *expected)
{
    auto_buf buf_t plain;
    buf_init(&plain, 0);
    int result = sealer_unseal(s, purpose, row, blob->data, blob->len, &plain, &e);
    bool is_same = result == 0 && strcmp(buf_cstr(&plain), expected) == 0;
    if (result != 0)
        cr_assert_eq(plain.len, 0);
    err_free(&e);
    return is_same;
}

Test(crypto, what_was_sealed_opens_again_after_a_restart)
{
    auto_buf buf_t blob;
    sealer_t *s = open_sealer(NULL);
    seal(s, "ghs_secret", &blob);
    cr_assert_eq(blob.len, 10 + SEAL_OVERHEAD);
    cr_assert_null(memmem(blob.data, blob.len, "ghs_secret", 10));
    cr_assert(opens(s, "token", "row-1", &blob, "ghs_secret"));
    sealer_destroy(&s);
    sealer_destroy(&s);
    s = open_sealer("");
    cr_assert(opens(s, "token", "row-1", &blob, "ghs_secret"));
    struct stat st;
    cr_assert_eq(stat(path, &st), 0);
    cr_assert_eq(st.st_mode & 07777, 0600);
    sealer_destroy(&s);
}

Test(crypto, two_seals_of_the_same_text_differ)
{
    auto_buf buf_t a, b;
    sealer_t *s = open_sealer(NULL);
    seal(s, "same", &a);
    seal(s, "same", &b);
    cr_assert_arr_neq(a.data, b.data, a.len);
    sealer_destroy(&s);
}

Test(crypto, a_blob_does_not_open_elsewhere)
{
    auto_buf buf_t blob;
    sealer_t *s = open_sealer(NULL);
    seal(s, "x", &blob);
    cr_assert_not(opens(s, "token", "row-2", &blob, "x"));
    cr_assert_not(opens(s, "other", "row-1", &blob, "x"));
    cr_assert_not(opens(s, "tokenr", "ow-1", &blob, "x"), "the border between the two counts");
    cr_assert(opens(s, "token", "row-1", &blob, "x"));
    sealer_destroy(&s);
}

Test(crypto, any_changed_byte_and_any_shorter_blob_is_noticed)
{
    auto_buf buf_t blob;
    sealer_t *s = open_sealer(NULL);
    seal(s, "content", &blob);
    size_t len = blob.len;
    for (size_t i = 0; i < len; i++) {
        blob.data[i] ^= 1;
        cr_expect_not(opens(s, "token", "row-1", &blob, "content"), "byte %zu", i);
        blob.data[i] ^= 1;
    }
    for (blob.len = 0; blob.len < len; blob.len++)
        cr_expect_not(opens(s, "token", "row-1", &blob, "content"), "length %zu", blob.len);
    cr_assert(opens(s, "token", "row-1", &blob, "content"));
    sealer_destroy(&s);
}

Test(crypto, empty_content_seals_too_and_too_much_does_not)
{
    auto_buf buf_t blob, big;
    sealer_t *s = open_sealer(NULL);
    seal(s, "", &blob);
    cr_assert(opens(s, "token", "row-1", &blob, ""));
    auto_free char *bytes = mem_alloc(SEAL_PLAIN_MAX + 1);
    buf_init(&big, 0);
    cr_assert_eq(sealer_seal(s, "token", "r", bytes, SEAL_PLAIN_MAX, &big, &e), 0);
    cr_assert_eq(sealer_seal(s, "token", "r", bytes, SEAL_PLAIN_MAX + 1, &big, &e), -1);
    cr_assert_eq(err_code(e), ERR_PAYLOAD_TOO_LARGE);
    sealer_destroy(&s);
}

Test(crypto, after_a_rotation_old_blobs_open_and_new_ones_are_current)
{
    auto_buf buf_t old, new;
    sealer_t *s = open_sealer(NULL);
    seal(s, "old", &old);
    cr_assert(sealer_is_current(s, old.data, old.len));
    cr_assert_eq(sealer_rotate(s, &e), 0, "%s", err_message(e));
    cr_assert_eq(sealer_key_count(s), 2);
    cr_assert_not(sealer_is_current(s, old.data, old.len));
    seal(s, "new", &new);
    cr_assert(sealer_is_current(s, new.data, new.len));
    cr_assert(opens(s, "token", "row-1", &old, "old"));
    cr_assert(opens(s, "token", "row-1", &new, "new"));
    sealer_destroy(&s);
}

Test(crypto, a_key_that_another_process_added_is_found)
{
    auto_buf buf_t blob;
    sealer_t *first = open_sealer(NULL);
    sealer_t *second = open_sealer(NULL);
    cr_assert_eq(sealer_rotate(second, &e), 0);
    seal(second, "x", &blob);
    cr_assert_eq(sealer_key_count(first), 1);
    cr_assert(opens(first, "token", "row-1", &blob, "x"));
    cr_assert_eq(sealer_key_count(first), 2);
    sealer_destroy(&first);
    sealer_destroy(&second);
}

Test(crypto, an_imported_key_seals_and_the_ones_before_still_open)
{
    auto_buf buf_t a, b;
    sealer_t *s = open_sealer(KEY_A);
    seal(s, "a", &a);
    sealer_destroy(&s);
    s = open_sealer(KEY_A);
    cr_assert_eq(sealer_key_count(s), 1, "the same key again adds nothing");
    sealer_destroy(&s);
    s = open_sealer(KEY_B);
    cr_assert_eq(sealer_key_count(s), 2);
    seal(s, "b", &b);
    cr_assert(opens(s, "token", "row-1", &a, "a"));
    sealer_destroy(&s);
    s = open_sealer(KEY_A);
    cr_assert_eq(sealer_key_count(s), 2, "an older key moves to the end");
    cr_assert(sealer_is_current(s, a.data, a.len));
    cr_assert(opens(s, "token", "row-1", &b, "b"));
    sealer_destroy(&s);
}

Test(crypto, two_hosts_with_the_same_imported_key_read_each_other)
{
    auto_buf buf_t blob;
    sealer_t *s = open_sealer(KEY_A);
    seal(s, "x", &blob);
    sealer_destroy(&s);
    cr_assert_eq(unlink(path), 0);
    s = open_sealer(KEY_A);
    cr_assert(opens(s, "token", "row-1", &blob, "x"));
    sealer_destroy(&s);
    cr_assert_eq(unlink(path), 0);
    s = open_sealer(NULL);
    cr_assert_not(opens(s, "token", "row-1", &blob, "x"), "another key does not");
    sealer_destroy(&s);
}

Test(crypto, many_processes_that_start_at_once_agree_on_one_key)
{
    for (int i = 0; i < 8; i++)
        if (fork() == 0) {
            err_t *error = NULL;
            sealer_t *s = sealer_open(path, NULL, &error);
            _exit(s != NULL && sealer_key_count(s) == 1 ? 0 : 1);
        }
    int status;
    while (wait(&status) > 0)
        cr_assert_eq(status, 0);
    sealer_t *s = open_sealer(NULL);
    cr_assert_eq(sealer_key_count(s), 1);
    sealer_destroy(&s);
}

Test(crypto, bad_key_files_are_refused_without_showing_them)
{
    static const char *const bad[] = {"", "# only a comment\n", KEY_A "00\n", "abc\n",
                                      KEY_A "\nnothex0405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f00\n"};
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        cr_assert_eq(file_write_atomic(path, bad[i], strlen(bad[i]), 0600, &e), 0);
        cr_expect_null(sealer_open(path, NULL, &e));
        cr_expect_null(strstr(err_message(e), "0a0b0c"));
        err_free(&e);
    }
    cr_assert_eq(file_write_atomic(path, KEY_A "\n", 65, 0644, &e), 0);
    cr_assert_null(sealer_open(path, NULL, &e));
    cr_assert_not_null(strstr(err_message(e), "0600"));
    err_free(&e);
    cr_assert_null(sealer_open(path, "abc", &e));
    cr_assert_eq(err_code(e), ERR_BAD_REQUEST);
}

Test(crypto, opens_what_another_implementation_sealed)
{
    /* Made with Python's cryptography package (AESGCM): key KEY_A, nonce 000102…0b, purpose "token", row "row-1",
     * content "hello". */
    static const char hex[] = "01441ed869000102030405060708090a0b2f67"
                              "ba77aaa1a93fcfddcb1f37aa47881fbdd3f683";
    uint8_t bytes[5 + SEAL_OVERHEAD];
    buf_t blob = {.data = bytes, .len = sizeof bytes};
    cr_assert(hex_decode(bytes, sizeof bytes, hex));
    sealer_t *s = open_sealer(KEY_A);
    cr_assert(opens(s, "token", "row-1", &blob, "hello"));
    sealer_destroy(&s);
}

Test(crypto, hashes_match_the_published_vectors)
{
    uint8_t out[SHA256_SIZE];
    char hex[2 * SHA256_SIZE + 1];
    sha256(out, "abc", 3); /* FIPS 180-4 */
    hex_encode(hex, out, sizeof out);
    cr_assert_str_eq(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    hmac_sha256(out, "Jefe", 4, "what do ya want for nothing?", 28); /* RFC 4231, case 2 */
    hex_encode(hex, out, sizeof out);
    cr_assert_str_eq(hex, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
}

Test(crypto, comparing)
{
    cr_assert(crypto_equal("abc", "abc", 3));
    cr_assert_not(crypto_equal("abc", "abd", 3));
    cr_assert(crypto_equal_text("key", "key"));
    cr_assert_not(crypto_equal_text("key", "keys"));
    cr_assert_not(crypto_equal_text("", "key"));
}
