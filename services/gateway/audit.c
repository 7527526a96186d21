// SPDX-License-Identifier: Apache-2.0
/* Lines wait in a list; the first `in_flight` of them are numbered and with the store. */
#include "services/gateway/audit.h"
#include "services/gateway/store.h"
#include "services/gateway/workspace_time.h"

#include "common/audit_chain.h"
#include "common/clock.h"
#include "common/crypto.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/text.h"

#include <inttypes.h>
#include <stdio.h>

#define RETRY_MIN_MS 500
#define RETRY_MAX_MS 10000

typedef struct line {
    struct line *next;
    audit_fields_t fields; /* into text */
    size_t bytes;
    int64_t at_ms;
    uint64_t sequence;
    char hash[AUDIT_HASH_SIZE];
    char text[];
} line_t;

typedef struct reader {
    struct reader *next;
    uint64_t target;
    audit_then_fn then;
    void *arg;
} reader_t;

struct audit {
    gateway_t *gw;
    char chain[UUID_TEXT_SIZE];
    uint64_t sequence; /* of the last row that is known to be stored */
    char hash[AUDIT_HASH_SIZE];
    line_t *first, **last;
    size_t count, bytes, in_flight;
    uint64_t noted, stored; /* lines since the start */
    uint64_t lost, lost_untold;
    bool is_failing; /* the store refused; the head is read before anything is sent again */
    bool is_asking;  /* that read is under way */
    unsigned delay_ms;
    struct event *timer;
    reader_t *readers;
    int64_t at_second;
    char at[RFC3339_SIZE]; /* of the line numbered last */
    audit_keep_t *keep;
};

static void flush(audit_t *a);
static void note_lost(audit_t *a);

/* ---- lines ---- */

typedef struct text_field {
    size_t offset; /* in audit_fields_t */
    size_t max;    /* as MSG_audit_entry has it */
} text_field_t;

#define FIELD(name, most)                      \
    {                                          \
        offsetof(audit_fields_t, name), (most) \
    }
static const text_field_t TEXTS[] = {
    FIELD(owner, 64),   FIELD(workspace_id, 36), FIELD(operation, 64), FIELD(method, 8),      FIELD(caller, 64),
    FIELD(session, 36), FIELD(request_id, 64),   FIELD(summary, 1024), FIELD(error_code, 32), FIELD(error, 160),
};

static const char **text_of(audit_fields_t *fields, const text_field_t *field)
{
    return (const char **)(void *)((char *)fields + field->offset); /* @UNSAFE: offsets of the table above */
}

/* A text that the database or JSON would change must not be hashed: only whole characters are taken. */
static size_t usable(const char *text, size_t max)
{
    if (text == NULL)
        return 0;
    size_t len = strnlen(text, max + 4); /* a character that begins before the limit may end behind it */
    return utf8_valid_prefix(text, utf8_cut(text, len, max));
}

static line_t *line_new(const audit_fields_t *fields)
{
    audit_fields_t from = *fields;
    size_t lens[COUNT_OF(TEXTS)], total = 0;
    for (size_t i = 0; i < COUNT_OF(TEXTS); i++) {
        lens[i] = usable(*text_of(&from, &TEXTS[i]), TEXTS[i].max);
        total += lens[i] + 1;
    }
    line_t *line = mem_alloc(sizeof(*line) + total);
    line->fields = from;
    line->bytes = sizeof(*line) + total;
    char *at = line->text;
    for (size_t i = 0; i < COUNT_OF(TEXTS); i++) {
        const char **text = text_of(&line->fields, &TEXTS[i]);
        if (lens[i] > 0)
            memcpy(at, *text, lens[i]);
        *text = lens[i] > 0 ? at : NULL;
        at += lens[i] + 1; /* @UNSAFE: summed up above */
    }
    line->at_ms = (int64_t)clock_realtime_ms();
    return line;
}

static void append(audit_t *a, line_t *line)
{
    *a->last = line;
    a->last = &line->next;
    a->count++;
    a->bytes += line->bytes;
    a->noted++;
}

static void drop_first(audit_t *a)
{
    line_t *line = a->first;
    a->first = line->next;
    if (a->first == NULL)
        a->last = &a->first;
    a->count--;
    a->bytes -= line->bytes;
    a->stored++;
    free(line);
}

static void arm(audit_t *a, unsigned ms)
{
    struct timeval delay = {.tv_sec = ms / 1000, .tv_usec = (suseconds_t)(ms % 1000) * 1000};
    evtimer_add(a->timer, &delay);
}

void audit_add(gateway_t *gw, const audit_fields_t *fields)
{
    audit_t *a = gw->audit;
    if (a == NULL)
        return;
    line_t *line = a->lost_untold > 0 || a->count >= AUDIT_LINES_MAX ? NULL : line_new(fields);
    if (line == NULL || a->bytes + line->bytes > AUDIT_BYTES_MAX) {
        free(line);
        if (a->lost_untold++ == 0)
            log_error("audit: %zu lines wait for the database; new ones are counted, not kept, until there is room",
                      a->count);
        a->lost++;
        return;
    }
    append(a, line);
    if (a->count - a->in_flight >= AUDIT_BATCH)
        flush(a);
    else if (!evtimer_pending(a->timer, NULL))
        arm(a, AUDIT_FLUSH_MS);
}

/* With half of the room free again, so that it is told once and not line by line. */
static void note_lost(audit_t *a)
{
    if (a->lost_untold == 0 || a->count > AUDIT_LINES_MAX / 2 || a->bytes > AUDIT_BYTES_MAX / 2)
        return;
    char summary[64];
    snprintf(summary, sizeof(summary), "lines=%" PRIu64, a->lost_untold);
    append(a, line_new(&(audit_fields_t){.operation = "audit_lost", .summary = summary}));
    log_error("audit: %" PRIu64 " lines were lost while the database did not take them", a->lost_untold);
    a->lost_untold = 0;
}

/* ---- readers ---- */

static void wake_readers(audit_t *a)
{
    for (reader_t **at = &a->readers; *at != NULL;) {
        reader_t *reader = *at;
        if (!a->is_failing && reader->target > a->stored) {
            at = &reader->next;
            continue;
        }
        *at = reader->next;
        reader->then(reader->arg); /* adds no reader: it asks the store */
        free(reader);
    }
}

void audit_when_stored(gateway_t *gw, audit_then_fn then, void *arg)
{
    audit_t *a = gw->audit;
    if (a == NULL || a->count == 0 || a->is_failing) {
        then(arg);
        return;
    }
    reader_t *reader = mem_alloc(sizeof(*reader));
    *reader = (reader_t){.next = a->readers, .target = a->noted, .then = then, .arg = arg};
    a->readers = reader;
    flush(a);
}

/* ---- the store ---- */

/* Most lines share their second with the one before. */
static const char *time_text(audit_t *a, int64_t at_ms)
{
    if (a->at[0] == '\0' || a->at_second != at_ms / 1000) {
        a->at_second = at_ms / 1000;
        return rfc3339_format(at_ms, a->at);
    }
    char *digits = strrchr(a->at, '.');
    for (int i = 3, ms = (int)(at_ms % 1000); i > 0; i--, ms /= 10)
        digits[i] = (char)('0' + ms % 10);
    return a->at;
}

static void number(audit_t *a, line_t *line, uint64_t sequence, const char *previous)
{
    const audit_fields_t *f = &line->fields;
    line->sequence = sequence;
    struct audit_entry entry = {
        .previous_hash = previous,
        .chain = a->chain,
        .sequence = sequence,
        .at = time_text(a, line->at_ms),
        .owner = f->owner,
        .workspace_id = f->workspace_id,
        .operation = f->operation,
        .method = f->method,
        .status = (uint32_t)f->status,
        .duration_ms = f->duration_ms,
        .caller = f->caller,
        .agent_session_id = f->session,
        .request_id = f->request_id,
        .summary = f->summary,
        .error_code = f->error_code,
        .error = f->error,
    };
    audit_chain_hash(&entry, line->hash);
}

static void line_values(const audit_t *a, const line_t *line, store_value_t *values)
{
    const audit_fields_t *f = &line->fields;
    store_value_t all[AUDIT_COLUMNS] = {
        store_text(a->chain),
        store_int((int64_t)line->sequence),
        store_int(line->at_ms),
        store_text(f->owner == NULL ? "" : f->owner),
        store_text(f->workspace_id),
        store_text(f->operation),
        store_text(f->method),
        f->status == 0 ? store_text(NULL) : store_int(f->status),
        store_int((int64_t)f->duration_ms),
        store_text(f->caller),
        store_text(f->session),
        store_text(f->request_id),
        store_text(f->summary),
        store_text(f->error_code),
        store_text(f->error),
        store_text(line->hash),
    };
    memcpy(values, all, sizeof(all));
}

/* Numbers the next lines behind the last stored one. NULL without any; caller frees. */
static store_value_t *make_batch(audit_t *a, size_t *rows)
{
    *rows = a->count < AUDIT_BATCH ? a->count : AUDIT_BATCH;
    if (*rows == 0)
        return NULL;
    store_value_t *values = mem_alloc_array(*rows * AUDIT_COLUMNS, sizeof(*values));
    const char *previous = a->hash;
    line_t *line = a->first;
    for (size_t i = 0; i < *rows; i++, line = line->next) {
        number(a, line, a->sequence + i + 1, previous);
        line_values(a, line, values + i * AUDIT_COLUMNS);
        previous = line->hash;
    }
    return values;
}

static void fail(audit_t *a, const err_t *err)
{
    if (!a->is_failing)
        log_error("audit: the database does not take its lines, they are kept: %s", err_message(err));
    a->is_failing = true;
    arm(a, a->delay_ms);
    a->delay_ms = a->delay_ms * 2 > RETRY_MAX_MS ? RETRY_MAX_MS : a->delay_ms * 2;
    wake_readers(a);
}

static void take_stored(audit_t *a, size_t lines)
{
    for (size_t i = 0; i < lines; i++) {
        a->sequence = a->first->sequence;
        memcpy(a->hash, a->first->hash, sizeof(a->hash));
        drop_first(a);
    }
    a->in_flight = 0;
}

static void go_on(audit_t *a)
{
    if (a->delay_ms != RETRY_MIN_MS)
        log_info("audit: the database takes lines again");
    a->delay_ms = RETRY_MIN_MS;
    note_lost(a);
    wake_readers(a);
    if (a->count >= AUDIT_BATCH || a->readers != NULL)
        flush(a);
    else if (a->count > 0 && !evtimer_pending(a->timer, NULL))
        arm(a, AUDIT_FLUSH_MS);
}

static void on_stored(void *arg, const store_result_t *result, const err_t *err)
{
    (void)result;
    audit_t *a = arg;
    if (err != NULL) {
        fail(a, err);
        return;
    }
    take_stored(a, a->in_flight);
    go_on(a);
}

/* The chain as it is in the database: lines in flight up to its last row are stored. */
static void take_head(audit_t *a, const store_result_t *result)
{
    uint64_t sequence = (uint64_t)store_int_at(result, 0, 0);
    const char *hash = store_text_at(result, 0, 1);
    line_t *line = a->first;
    for (size_t i = 0; i < a->in_flight; i++, line = line->next)
        if (hash != NULL && line->sequence == sequence && strcmp(line->hash, hash) == 0) {
            take_stored(a, i + 1);
            break;
        }
    a->in_flight = 0;
    if (sequence < a->sequence)
        log_error("audit: chain %s has %" PRIu64 " rows in the database, but %" PRIu64 " were stored: rows are missing",
                  a->chain, sequence, a->sequence);
    a->sequence = sequence;
    snprintf(a->hash, sizeof(a->hash), "%s", hash == NULL ? "" : hash);
}

static void on_head(void *arg, const store_result_t *result, const err_t *err)
{
    audit_t *a = arg;
    a->is_asking = false;
    if (err != NULL) {
        fail(a, err);
        return;
    }
    take_head(a, result);
    a->is_failing = false;
    note_lost(a);
    flush(a);
}

static void ask_head(audit_t *a)
{
    auto_err err_t *e = NULL;
    store_value_t chain = store_text(a->chain);
    if (a->is_asking)
        return;
    a->is_asking = store_exec(a->gw->store, STORE_AUDIT_HEAD, &chain, 1, on_head, a, &e) == 0;
    if (!a->is_asking)
        fail(a, e);
}

static void flush(audit_t *a)
{
    size_t rows;
    if (a->is_failing || a->in_flight > 0)
        return;
    store_value_t *values = make_batch(a, &rows);
    if (values == NULL)
        return;
    evtimer_del(a->timer);
    auto_err err_t *e = NULL;
    a->in_flight = rows;
    if (store_exec_batch(a->gw->store, STORE_AUDIT_INSERT, values, AUDIT_COLUMNS, rows, on_stored, a, &e) != 0)
        fail(a, e);
    free(values);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    audit_t *a = arg;
    if (a->is_failing)
        ask_head(a);
    else
        flush(a);
}

/* ---- what the suite does by itself ---- */

void audit_note(gateway_t *gw, const char *operation, const workspace_row_t *ws, const char *summary, const err_t *err)
{
    log_ctx_t ctx = {.sandbox = ws == NULL ? NULL : ws->id_text};
    log_write(err == NULL ? LOG_LEVEL_INFO : LOG_LEVEL_WARN, &ctx,
              "audit: the suite's own operation %s operation=%s workspace=%s request={%s}%s%s%s%s",
              err == NULL ? "completed" : "failed", operation, ws == NULL ? "-" : ws->id_text,
              summary == NULL ? "" : summary,
              err == NULL ? "" : " error=", err == NULL ? "" : err_code_name(err_code(err)), err == NULL ? "" : ": ",
              err == NULL ? "" : err_message(err));
    audit_add(gw, &(audit_fields_t){
                      .owner = ws == NULL ? NULL : ws->owner,
                      .workspace_id = ws == NULL ? NULL : ws->id_text,
                      .session = ws == NULL ? NULL : ws->agent_session_id,
                      .operation = operation,
                      .summary = summary,
                      .error_code = err == NULL ? NULL : err_code_name(err_code(err)),
                      .error = err == NULL ? NULL : err_message(err),
                  });
}

size_t audit_waiting(const gateway_t *gw)
{
    return gw->audit == NULL ? 0 : gw->audit->count;
}

uint64_t audit_lost(const gateway_t *gw)
{
    return gw->audit == NULL ? 0 : gw->audit->lost;
}

/* ---- open and close ---- */

static void on_chain(void *arg, const store_result_t *result, const err_t *err)
{
    (void)err;
    audit_t *a = arg;
    const char *text = store_text_at(result, 0, 0);
    snprintf(a->chain, sizeof(a->chain), "%s", text == NULL ? "" : text);
}

static void on_first_head(void *arg, const store_result_t *result, const err_t *err)
{
    (void)err;
    take_head(arg, result);
}

static int load_chain(audit_t *a, err_t **e)
{
    const config_t *config = &a->gw->daemon.config;
    auto_free char *name =
        mem_printf(AUDIT_CHAIN_SETTING "%s:%s", config->node == NULL ? "" : config->node, config->state_dir);
    uuid16_t fresh;
    random_bytes(&fresh, sizeof(fresh));
    char text[UUID_TEXT_SIZE];
    uuid16_format(&fresh, text);
    store_value_t setting[] = {store_text(name), store_text(text)};
    store_value_t chain = store_text(a->chain);
    if (store_exec_wait(a->gw->store, STORE_SETTING_ADD, setting, 2, NULL, NULL, e) != 0 ||
        store_exec_wait(a->gw->store, STORE_SETTING_GET, setting, 1, on_chain, a, e) != 0)
        return -1;
    chain = store_text(a->chain);
    return store_exec_wait(a->gw->store, STORE_AUDIT_HEAD, &chain, 1, on_first_head, a, e);
}

int audit_open(gateway_t *gw, err_t **e)
{
    audit_t *a = mem_alloc(sizeof(*a));
    a->gw = gw;
    a->last = &a->first;
    a->delay_ms = RETRY_MIN_MS;
    if (load_chain(a, e) != 0) {
        free(a);
        return err_wrap(e, "read the chain of the audit");
    }
    a->timer = evtimer_new(gw->daemon.base, on_timer, a);
    a->keep = audit_keep_new(gw);
    gw->audit = a;
    /* In the log, elsewhere than the table: a table that was cut or rewritten does not fit it any more. */
    log_info("audit: chain %s is at line %" PRIu64 " with hash %s", a->chain, a->sequence,
             a->hash[0] == '\0' ? "-" : a->hash);
    return 0;
}

/* The loop has ended: what is in flight is answered by asking for the head behind it. */
static void store_rest(audit_t *a)
{
    auto_err err_t *e = NULL;
    store_value_t chain = store_text(a->chain);
    while (e == NULL) {
        size_t before = a->count;
        bool was_sent = a->in_flight > 0;
        if (store_exec_wait(a->gw->store, STORE_AUDIT_HEAD, &chain, 1, on_first_head, a, &e) != 0)
            break;
        if (a->count == 0 || (was_sent && a->count == before))
            break;
        note_lost(a);
        size_t rows;
        store_value_t *values = make_batch(a, &rows);
        if (store_exec_batch(a->gw->store, STORE_AUDIT_INSERT, values, AUDIT_COLUMNS, rows, NULL, NULL, &e) == 0)
            a->in_flight = rows;
        free(values);
    }
    if (a->count > 0)
        log_error("audit: %zu lines could not be stored at the end%s%s", a->count, e == NULL ? "" : ": ",
                  e == NULL ? "" : err_message(e));
}

void audit_close(gateway_t *gw)
{
    audit_t *a = gw->audit;
    if (a == NULL)
        return;
    gw->audit = NULL;
    store_rest(a);
    log_info("audit: chain %s ends at line %" PRIu64 " with hash %s", a->chain, a->sequence,
             a->hash[0] == '\0' ? "-" : a->hash);
    audit_keep_free(a->keep);
    event_free(a->timer);
    while (a->first != NULL)
        drop_first(a);
    while (a->readers != NULL) {
        reader_t *reader = a->readers;
        a->readers = reader->next;
        reader->then(reader->arg);
        free(reader);
    }
    free(a);
}
