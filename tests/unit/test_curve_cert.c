// SPDX-License-Identifier: Apache-2.0
#include "common/curve_cert.h"

#include "common/file.h"
#include "common/mem.h"

#include <criterion/criterion.h>
#include <czmq.h>

static char dir[] = "/tmp/test_curve_cert.XXXXXX";
static char *path;

static void set_up(void)
{
    zsys_handler_set(NULL);
    cr_assert_not_null(mkdtemp(dir));
    path = mem_printf("%s/cert.txt", dir);
}

static void tear_down(void)
{
    auto_err err_t *e = NULL;
    free(path);
    cr_assert_eq(dir_remove(dir, &e), 0);
}

TestSuite(curve_cert, .init = set_up, .fini = tear_down, .timeout = 20);

Test(curve_cert, what_czmq_writes_is_read)
{
    auto_err err_t *e = NULL;
    curve_cert_t cert;
    for (int i = 0; i < 50; i++) { /* keys with every character of Z85 */
        zcert_t *made = zcert_new();
        zcert_set_meta(made, "name", "%s", "a \"node\" = # curve");
        cr_assert_eq(zcert_save_public(made, path), 0);
        cr_assert_eq(curve_cert_read(path, &cert, &e), 0, "%s", err_message(e));
        cr_assert_arr_eq(cert.public_key, zcert_public_key(made), CURVE_KEY_SIZE);
        cr_assert_not(cert.has_secret);
        cr_assert_eq(zcert_save(made, path), 0); /* the secret goes beside it */
        cr_assert_eq(curve_cert_read(path, &cert, &e), 0, "%s", err_message(e));
        cr_assert(cert.has_secret);
        cr_assert_arr_eq(cert.public_key, zcert_public_key(made), CURVE_KEY_SIZE);
        cr_assert_arr_eq(cert.secret_key, zcert_secret_key(made), CURVE_KEY_SIZE);
        auto_free char *beside = mem_printf("%s_secret", path);
        cr_assert_eq(unlink(beside), 0);
        zcert_destroy(&made);
    }
}

Test(curve_cert, anything_else_is_refused)
{
#define KEY40 "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID"
    static const char *const texts[] = {
        "",
        "curve\n",
        "    public-key = \"" KEY40 "\"\n",
        "metadata\n    public-key = \"" KEY40 "\"\n",
        "curve\n    public-key = \"short\"\n",
        "curve\n    public-key = \"" KEY40 "xxxxx\"\n",
        "curve\n    public-key = \"" KEY40,
        "curve\n    public-key = \"Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hI \"\n",
        "curve\n    public-key\n",
        "curve\n    secret-key = \"" KEY40 "\"\n",
        "curve\npublic-key = \"" KEY40 "\"\n",
        "# curve\n    public-key = \"" KEY40 "\"\n",
    };
    auto_err err_t *e = NULL;
    curve_cert_t cert;
    cr_assert_eq(curve_cert_read(path, &cert, &e), -1);
    err_free(&e);
    for (size_t i = 0; i < COUNT_OF(texts); i++) {
        cr_assert_eq(file_write_atomic(path, texts[i], strlen(texts[i]), 0600, &e), 0);
        cr_expect_eq(curve_cert_read(path, &cert, &e), -1, "%s", texts[i]);
        cr_expect_eq(err_code(e), ERR_BAD_REQUEST);
        err_free(&e);
    }
    static const char good[] = "curve\r\n    public-key = '" KEY40 "'\r\n";
    cr_assert_eq(file_write_atomic(path, good, strlen(good), 0600, &e), 0);
    cr_assert_eq(curve_cert_read(path, &cert, &e), 0, "%s", err_message(e));
}
