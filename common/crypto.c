// SPDX-License-Identifier: Apache-2.0
#include "common/crypto.h"

#include "common/clock.h"
#include "common/file.h"
#include "common/mem.h"
#include "common/text.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/sha.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define KEY_SIZE 32
#define KEY_ID_SIZE 4
#define NONCE_SIZE 12
#define TAG_SIZE 16
#define HEAD_SIZE (1 + KEY_ID_SIZE + NONCE_SIZE)
#define BLOB_VERSION 1
#define KEY_FILE_MAX 16384
#define KEY_FILE_TITLE \
    "# emergent-workspaces seal keys, oldest first; keep this file, without it sealed secrets are lost\n"

_Static_assert(SEAL_OVERHEAD == HEAD_SIZE + TAG_SIZE, "SEAL_OVERHEAD tells the size of head and tag");

typedef struct seal_key {
    uint8_t bytes[KEY_SIZE];
    uint8_t id[KEY_ID_SIZE];
} seal_key_t;

typedef struct key_ring {
    seal_key_t key[SEAL_KEYS_MAX];
    size_t count;
} key_ring_t;

struct sealer {
    char *path;
    key_ring_t ring;
};

/* ---- hashes ---- */

void sha256(uint8_t out[SHA256_SIZE], const void *bytes, size_t len)
{
    SHA256(bytes, len, out);
}

void hmac_sha256(uint8_t out[SHA256_SIZE], const void *key, size_t key_len, const void *bytes, size_t len)
{
    unsigned out_len = SHA256_SIZE;
    if (key_len > INT_MAX || HMAC(EVP_sha256(), key, (int)key_len, bytes, len, out, &out_len) == NULL)
        abort(); /* only without memory, or with a key of 2 GiB */
}

bool crypto_equal(const void *a, const void *b, size_t len)
{
    return CRYPTO_memcmp(a, b, len) == 0;
}

bool crypto_equal_text(const char *given, const char *secret)
{
    uint8_t a[SHA256_SIZE], b[SHA256_SIZE];
    sha256(a, given, strlen(given));
    sha256(b, secret, strlen(secret));
    bool is_equal = crypto_equal(a, b, sizeof a);
    mem_wipe(b, sizeof b);
    return is_equal;
}

void buf_wipe(buf_t *b)
{
    if (b->data != NULL)
        mem_wipe(b->data, b->cap);
    buf_free(b);
}

/* ---- the key file ---- */

/* The id follows from the key, so that hosts which import the same key agree on it. */
static void key_set(seal_key_t *key, const uint8_t bytes[KEY_SIZE])
{
    static const char label[] = "emergent-workspaces seal key id";
    uint8_t mac[SHA256_SIZE];
    hmac_sha256(mac, bytes, KEY_SIZE, label, sizeof label - 1);
    memcpy(key->bytes, bytes, KEY_SIZE);
    memcpy(key->id, mac, KEY_ID_SIZE);
}

static const seal_key_t *find_key(const key_ring_t *ring, const uint8_t *id)
{
    for (size_t i = ring->count; i-- > 0;)
        if (memcmp(ring->key[i].id, id, KEY_ID_SIZE) == 0)
            return &ring->key[i];
    return NULL;
}

/* Makes `bytes` the newest key. */
static int ring_add(key_ring_t *ring, const uint8_t bytes[KEY_SIZE], err_t **e)
{
    seal_key_t key;
    size_t kept = 0;
    key_set(&key, bytes);
    for (size_t i = 0; i < ring->count; i++) /* a key that is known moves to the end */
        if (memcmp(ring->key[i].id, key.id, KEY_ID_SIZE) != 0)
            ring->key[kept++] = ring->key[i];
        else if (!crypto_equal(ring->key[i].bytes, key.bytes, KEY_SIZE))
            return err_set(e, ERR_INTERNAL, "two seal keys have the same id: make another key");
    if (kept == SEAL_KEYS_MAX)
        return err_set(e, ERR_LIMIT_REACHED,
                       "there are %d seal keys already: remove the oldest when nothing is under it", SEAL_KEYS_MAX);
    ring->key[kept++] = key;
    ring->count = kept;
    mem_wipe(&key, sizeof key);
    return 0;
}

static int parse_ring(const char *path, const char *text, key_ring_t *ring, err_t **e)
{
    char hex[2 * KEY_SIZE + 1];
    uint8_t bytes[KEY_SIZE];
    int result = 0;
    ring->count = 0;
    for (unsigned line = 1; *text != '\0' && result == 0; line++) {
        size_t n = strcspn(text, "\n");
        if (n > 0 && *text != '#') {
            bool is_key = n == sizeof hex - 1;
            if (is_key) {
                memcpy(hex, text, n);
                hex[n] = '\0';
                is_key = hex_decode(bytes, sizeof bytes, hex);
            }
            /* The line is not shown: it may be most of a key. */
            result = is_key ? ring_add(ring, bytes, e)
                            : err_set(e, ERR_INTERNAL, "%s:%u is not a key of %d hexadecimal digits", path, line,
                                      2 * KEY_SIZE);
        }
        text += n + (text[n] == '\n');
    }
    mem_wipe(hex, sizeof hex);
    mem_wipe(bytes, sizeof bytes);
    if (result == 0 && ring->count == 0)
        return err_set(e, ERR_INTERNAL,
                       "%s holds no key: put the right file back, or remove it if nothing was ever sealed", path);
    return result;
}

static int read_ring(const char *path, key_ring_t *ring, err_t **e)
{
    struct stat st;
    buf_t text;
    buf_init(&text, 2 * KEY_FILE_MAX);
    if (stat(path, &st) != 0)
        return err_set_errno(e, ERR_INTERNAL, errno, "cannot look at %s", path);
    if (st.st_uid != geteuid() || (st.st_mode & 077) != 0)
        return err_set(e, ERR_INTERNAL, "%s can be read by others: make it mode 0600 and the daemon's own", path);
    /* Room for all at once: a buffer that grew would leave copies of keys behind. */
    buf_reserve(&text, KEY_FILE_MAX + 1);
    int result = file_read(path, KEY_FILE_MAX, &text, e);
    if (result == 0)
        result = parse_ring(path, buf_cstr(&text), ring, e);
    buf_wipe(&text);
    return result;
}

static void format_ring(const key_ring_t *ring, buf_t *out)
{
    char hex[2 * KEY_SIZE + 1];
    buf_init(out, KEY_FILE_MAX);
    buf_reserve(out, KEY_FILE_MAX);
    buf_append_str(out, KEY_FILE_TITLE);
    for (size_t i = 0; i < ring->count; i++) {
        hex_encode(hex, ring->key[i].bytes, KEY_SIZE);
        buf_append_str(out, hex);
        buf_append_byte(out, '\n');
    }
    mem_wipe(hex, sizeof hex);
}

static int write_ring(const char *path, const key_ring_t *ring, err_t **e)
{
    buf_t text;
    format_ring(ring, &text);
    int result = buf_failed(&text) ? err_set(e, ERR_INTERNAL, "%s would be too long", path)
                                   : file_write_atomic(path, text.data, text.len, 0600, e);
    buf_wipe(&text);
    return result;
}

static int fresh_key(key_ring_t *ring, err_t **e)
{
    uint8_t bytes[KEY_SIZE];
    random_bytes(bytes, sizeof bytes);
    int result = ring_add(ring, bytes, e);
    mem_wipe(bytes, sizeof bytes);
    return result;
}

/* One process at a time makes or changes the key file. Returns the lock's descriptor. */
static int lock_ring(const char *path, err_t **e)
{
    auto_free char *name = mem_printf("%s.lock", path);
    auto_close int fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return err_set_errno(e, ERR_INTERNAL, errno, "cannot open %s", name);
    while (flock(fd, LOCK_EX) != 0)
        if (errno != EINTR)
            return err_set_errno(e, ERR_INTERNAL, errno, "cannot lock %s", name);
    return STEAL_FD(fd);
}

/* Under the lock: what the file says (nothing, if it is not there). */
static int reread_ring(const char *path, key_ring_t *ring, err_t **e)
{
    ring->count = 0;
    return access(path, F_OK) != 0 && errno == ENOENT ? 0 : read_ring(path, ring, e);
}

static bool is_newest(const key_ring_t *ring, const uint8_t *bytes)
{
    return ring->count > 0 && crypto_equal(ring->key[ring->count - 1].bytes, bytes, KEY_SIZE);
}

static int load_ring(const char *path, const uint8_t *import, key_ring_t *ring, err_t **e)
{
    auto_close int lock = lock_ring(path, e);
    if (lock < 0 || reread_ring(path, ring, e) != 0)
        return -1;
    if (import != NULL ? is_newest(ring, import) : ring->count > 0)
        return 0;
    if ((import != NULL ? ring_add(ring, import, e) : fresh_key(ring, e)) != 0)
        return -1;
    return write_ring(path, ring, e);
}

sealer_t *sealer_open(const char *path, const char *import_hex, err_t **e)
{
    uint8_t import[KEY_SIZE];
    bool has_import = import_hex != NULL && *import_hex != '\0';
    if (has_import && !hex_decode(import, sizeof import, import_hex)) {
        err_set(e, ERR_BAD_REQUEST, "the encryption key must be %d hexadecimal digits", 2 * KEY_SIZE);
        return NULL;
    }
    sealer_t *s = mem_alloc(sizeof *s);
    s->path = mem_strdup(path);
    int result = load_ring(path, has_import ? import : NULL, &s->ring, e);
    mem_wipe(import, sizeof import);
    if (result != 0) {
        err_wrap(e, "cannot open the seal keys");
        sealer_destroy(&s);
    }
    return s;
}

void sealer_destroy(sealer_t **s)
{
    if (*s == NULL)
        return;
    mem_wipe(&(*s)->ring, sizeof(*s)->ring);
    free((*s)->path);
    free(*s);
    *s = NULL;
}

int sealer_rotate(sealer_t *s, err_t **e)
{
    auto_close int lock = lock_ring(s->path, e);
    key_ring_t ring = {.count = 0};
    int result = lock < 0 ? -1 : reread_ring(s->path, &ring, e);
    if (result == 0)
        result = fresh_key(&ring, e);
    if (result == 0)
        result = write_ring(s->path, &ring, e);
    if (result == 0)
        s->ring = ring;
    mem_wipe(&ring, sizeof ring);
    return result == 0 ? 0 : err_wrap(e, "cannot rotate the seal keys");
}

size_t sealer_key_count(const sealer_t *s)
{
    return s->ring.count;
}

bool sealer_is_current(const sealer_t *s, const void *blob, size_t len)
{
    const uint8_t *b = blob;
    return len >= SEAL_OVERHEAD && b[0] == BLOB_VERSION &&
           memcmp(b + 1, s->ring.key[s->ring.count - 1].id, KEY_ID_SIZE) == 0;
}

/* ---- sealing ---- */

static int fail_openssl(err_t **e)
{
    return err_set(e, ERR_INTERNAL, "AES-256-GCM is not available in this OpenSSL");
}

/* What the blob is bound to: version and key id, then purpose and row id, each with its length in front. */
static void bind_to(buf_t *aad, const uint8_t *head, const char *purpose, const char *row_id)
{
    const char *parts[] = {purpose, row_id};
    buf_init(aad, 0);
    buf_append(aad, head, 1 + KEY_ID_SIZE);
    for (size_t i = 0; i < COUNT_OF(parts); i++) {
        uint64_t len = strlen(parts[i]);
        for (unsigned shift = 0; shift < 64; shift += 8)
            buf_append_byte(aad, (uint8_t)(len >> shift));
        buf_append(aad, parts[i], len);
    }
}

static EVP_CIPHER_CTX *begin(bool is_seal, const seal_key_t *key, const uint8_t *nonce, const buf_t *aad)
{
    int n;
    EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
    if (c != NULL && EVP_CipherInit_ex(c, EVP_aes_256_gcm(), NULL, key->bytes, nonce, is_seal) == 1 &&
        EVP_CipherUpdate(c, NULL, &n, aad->data, (int)aad->len) == 1)
        return c;
    EVP_CIPHER_CTX_free(c);
    return NULL;
}

int sealer_seal(sealer_t *s, const char *purpose, const char *row_id, const void *plain, size_t len, buf_t *out,
                err_t **e)
{
    const seal_key_t *key = &s->ring.key[s->ring.count - 1];
    auto_buf buf_t aad = {0};
    int n = 0, rest = 0;
    if (len > SEAL_PLAIN_MAX)
        return err_set(e, ERR_PAYLOAD_TOO_LARGE, "%s: more than %d bytes cannot be sealed", purpose, SEAL_PLAIN_MAX);
    uint8_t *b = buf_reserve(out, SEAL_OVERHEAD + len);
    if (b == NULL)
        return err_set(e, ERR_INTERNAL, "no room for a sealed %s", purpose);
    b[0] = BLOB_VERSION;
    memcpy(b + 1, key->id, KEY_ID_SIZE);
    random_bytes(b + 1 + KEY_ID_SIZE, NONCE_SIZE);
    bind_to(&aad, b, purpose, row_id);
    EVP_CIPHER_CTX *c = begin(true, key, b + 1 + KEY_ID_SIZE, &aad);
    bool is_done = c != NULL && (len == 0 || EVP_CipherUpdate(c, b + HEAD_SIZE, &n, plain, (int)len) == 1) &&
                   EVP_CipherFinal_ex(c, b + HEAD_SIZE + n, &rest) == 1 && (size_t)n + (size_t)rest == len &&
                   EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_AEAD_GET_TAG, TAG_SIZE, b + HEAD_SIZE + len) == 1;
    EVP_CIPHER_CTX_free(c);
    if (!is_done)
        return fail_openssl(e);
    buf_commit(out, SEAL_OVERHEAD + len);
    return 0;
}

/* The key of a blob; when it is not known, another process may have added it. */
static const seal_key_t *key_of(sealer_t *s, const uint8_t *id, err_t **e)
{
    const seal_key_t *key = find_key(&s->ring, id);
    char hex[2 * KEY_ID_SIZE + 1];
    key_ring_t ring = {.count = 0};
    if (key != NULL)
        return key;
    if (read_ring(s->path, &ring, e) == 0) {
        s->ring = ring;
        key = find_key(&s->ring, id);
        hex_encode(hex, id, KEY_ID_SIZE);
        if (key == NULL)
            err_set(e, ERR_INTERNAL, "sealed under key %s, which is not in %s", hex, s->path);
    }
    mem_wipe(&ring, sizeof ring);
    return key;
}

int sealer_unseal(sealer_t *s, const char *purpose, const char *row_id, const void *blob, size_t len, buf_t *out,
                  err_t **e)
{
    const uint8_t *b = blob;
    auto_buf buf_t aad = {0};
    uint8_t tag[TAG_SIZE];
    int n = 0, rest = 0;
    if (len < SEAL_OVERHEAD || b[0] != BLOB_VERSION || len - SEAL_OVERHEAD > SEAL_PLAIN_MAX)
        return err_set(e, ERR_INTERNAL, "%s of %s is not a sealed blob", purpose, row_id);
    const seal_key_t *key = key_of(s, b + 1, e);
    if (key == NULL)
        return err_wrap(e, "cannot open %s of %s", purpose, row_id);
    size_t plain_len = len - SEAL_OVERHEAD;
    uint8_t *plain = buf_reserve(out, plain_len + 1); /* one more, so that an empty content has a place too */
    if (plain == NULL)
        return err_set(e, ERR_INTERNAL, "no room to open %s of %s", purpose, row_id);
    bind_to(&aad, b, purpose, row_id);
    memcpy(tag, b + len - TAG_SIZE, TAG_SIZE);
    EVP_CIPHER_CTX *c = begin(false, key, b + 1 + KEY_ID_SIZE, &aad);
    bool is_ready = c != NULL && EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_AEAD_SET_TAG, TAG_SIZE, tag) == 1;
    bool is_genuine = is_ready &&
                      (plain_len == 0 || EVP_CipherUpdate(c, plain, &n, b + HEAD_SIZE, (int)plain_len) == 1) &&
                      EVP_CipherFinal_ex(c, plain + n, &rest) == 1 && (size_t)n + (size_t)rest == plain_len;
    EVP_CIPHER_CTX_free(c);
    if (!is_genuine) {
        mem_wipe(plain, plain_len);
        return is_ready ? err_set(e, ERR_INTERNAL, "%s of %s was changed, or belongs elsewhere", purpose, row_id)
                        : fail_openssl(e);
    }
    buf_commit(out, plain_len);
    return 0;
}
