// SPDX-License-Identifier: Apache-2.0
/* The actor: a thread that alone touches the database, a queue in, a queue out, an eventfd that wakes the loop. */
#include "services/gateway/store.h"

#include "common/log.h"
#include "common/mem.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

typedef struct job {
    struct job *next;
    enum store_statement statement;
    bool is_durable;
    bool is_waited; /* store_exec_wait stands by */
    bool is_done;
    size_t per_row, rows;
    store_value_t *params; /* bytes behind the array, in one allocation */
    size_t bytes;
    store_rows_t result;
    err_t *err;
    store_done_fn done;
    void *arg;
} job_t;

typedef struct queue {
    job_t *first;
    job_t **last;
} queue_t;

struct store {
    store_db_t *db;
    pthread_t thread;
    pthread_mutex_t lock; /* guards everything below */
    pthread_cond_t work;
    pthread_cond_t finished; /* for store_exec_wait */
    queue_t in, out;
    size_t waiting, waiting_bytes; /* accepted and not yet handed back: what is bounded */
    bool is_stopping;
    int wake_fd;
    struct event *wake;
};

static void queue_init(queue_t *q)
{
    q->first = NULL;
    q->last = &q->first;
}

static void queue_add(queue_t *q, job_t *job)
{
    job->next = NULL;
    *q->last = job;
    q->last = &job->next;
}

static job_t *queue_take(queue_t *q)
{
    job_t *job = q->first;
    if (job == NULL)
        return NULL;
    q->first = job->next;
    if (q->first == NULL)
        q->last = &q->first;
    job->next = NULL;
    return job;
}

static void job_free(job_t *job)
{
    if (job->params != NULL)
        mem_wipe(job->params, job->bytes); /* sealed or not, keys pass here */
    free(job->params);
    store_rows_free(&job->result);
    err_free(&job->err);
    free(job);
}

static job_t *job_new(enum store_statement statement, const store_value_t *params, size_t per_row, size_t rows)
{
    job_t *job = mem_alloc(sizeof(*job));
    *job = (job_t){.statement = statement, .is_durable = true, .per_row = per_row, .rows = rows};
    size_t count = per_row * rows;
    job->bytes = count * sizeof(*params);
    for (size_t i = 0; i < count; i++)
        job->bytes += params[i].bytes == NULL ? 0 : params[i].len;
    job->params = mem_alloc(job->bytes);
    uint8_t *at = (uint8_t *)(job->params + count);
    for (size_t i = 0; i < count; i++) {
        job->params[i] = params[i];
        if (params[i].bytes == NULL)
            continue;
        if (params[i].len > 0)
            memcpy(at, params[i].bytes, params[i].len);
        job->params[i].bytes = at;
        at += params[i].len; /* @UNSAFE: summed up above */
    }
    return job;
}

/* ---- the actor's side ---- */

static void run_job(store_db_t *db, job_t *job)
{
    for (size_t i = 0; i < job->rows && job->err == NULL; i++)
        (void)store_db_run(db, job->statement, job->params + i * job->per_row, job->per_row, &job->result, &job->err);
}

static void fail_job(job_t *job, const err_t *why)
{
    if (job->err == NULL)
        err_set(&job->err, err_code(why), "%s", err_message(why));
}

/* One transaction for the whole group. A failed BEGIN or COMMIT fails every job of it. */
static void run_group(store_db_t *db, job_t *group)
{
    bool is_durable = false;
    for (job_t *job = group; job != NULL; job = job->next)
        is_durable |= job->is_durable;
    auto_err err_t *e = NULL;
    bool is_begun = store_db_begin(db, is_durable, &e) == 0;
    if (is_begun) {
        for (job_t *job = group; job != NULL && store_db_is_in_transaction(db); job = job->next)
            run_job(db, job);
        if (store_db_is_in_transaction(db))
            (void)store_db_commit(db, &e);
        else
            err_set(&e, ERR_DATABASE, "the database undid a transaction, as it does when the disk is full or failing");
    }
    if (e == NULL)
        return;
    for (job_t *job = group; job != NULL; job = job->next)
        fail_job(job, e);
}

static job_t *take_group(store_t *s)
{
    queue_t group;
    queue_init(&group);
    for (size_t i = 0; i < STORE_GROUP_MAX && s->in.first != NULL; i++) {
        queue_add(&group, queue_take(&s->in));
    }
    return group.first;
}

static void hand_back(store_t *s, job_t *group)
{
    while (group != NULL) {
        job_t *job = group;
        group = job->next;
        job->is_done = true;
        if (!job->is_waited)
            queue_add(&s->out, job);
    }
    pthread_cond_broadcast(&s->finished);
    uint64_t one = 1;
    if (write(s->wake_fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
        log_error("store: wake the loop: errno %d", errno);
}

static void *actor(void *arg)
{
    store_t *s = arg;
    pthread_mutex_lock(&s->lock);
    for (;;) {
        while (s->in.first == NULL && !s->is_stopping)
            pthread_cond_wait(&s->work, &s->lock);
        if (s->in.first == NULL)
            break;
        job_t *group = take_group(s);
        pthread_mutex_unlock(&s->lock);
        run_group(s->db, group);
        pthread_mutex_lock(&s->lock);
        hand_back(s, group);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

/* ---- the loop's side ---- */

static store_result_t result_of(const job_t *job)
{
    const store_rows_t *rows = &job->result;
    return (store_result_t){
        .row_count = rows->column_count == 0 ? 0 : rows->value_count / rows->column_count,
        .column_count = rows->column_count,
        .values = rows->values,
        .changed = rows->changed,
    };
}

static void finish_job(job_t *job)
{
    store_result_t result = result_of(job);
    if (job->done != NULL)
        job->done(job->arg, &result, job->err);
    else if (job->err != NULL)
        log_error("store: a write without a waiter failed: %s", err_message(job->err));
    job_free(job);
}

static void forget(store_t *s, const job_t *job)
{
    s->waiting--;
    s->waiting_bytes -= job->bytes;
}

static void on_wake(evutil_socket_t fd, short what, void *arg)
{
    (void)what;
    store_t *s = arg;
    uint64_t count;
    if (read(fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
        log_error("store: read the wake descriptor: errno %d", errno);
    pthread_mutex_lock(&s->lock);
    job_t *list = s->out.first;
    queue_init(&s->out);
    for (job_t *job = list; job != NULL; job = job->next)
        forget(s, job);
    pthread_mutex_unlock(&s->lock);
    while (list != NULL) {
        job_t *job = list;
        list = job->next;
        finish_job(job);
    }
}

static int enqueue(store_t *s, job_t *job, err_t **e)
{
    pthread_mutex_lock(&s->lock);
    bool is_full = s->waiting >= STORE_QUEUE_MAX || s->waiting_bytes + job->bytes > STORE_QUEUE_BYTES;
    if (!is_full) {
        queue_add(&s->in, job);
        s->waiting++;
        s->waiting_bytes += job->bytes;
        pthread_cond_signal(&s->work);
    }
    pthread_mutex_unlock(&s->lock);
    if (!is_full)
        return 0;
    job_free(job);
    return err_set(e, ERR_OVERLOADED, "the database cannot keep up: %d requests wait; retry in a moment",
                   STORE_QUEUE_MAX);
}

int store_exec(store_t *s, enum store_statement statement, const store_value_t *params, size_t count,
               store_done_fn done, void *arg, err_t **e)
{
    job_t *job = job_new(statement, params, count, 1);
    job->done = done;
    job->arg = arg;
    return enqueue(s, job, e);
}

int store_exec_batch(store_t *s, enum store_statement statement, const store_value_t *params, size_t per_row,
                     size_t rows, store_done_fn done, void *arg, err_t **e)
{
    job_t *job = job_new(statement, params, per_row, rows);
    job->is_durable = false;
    job->done = done;
    job->arg = arg;
    return enqueue(s, job, e);
}

int store_exec_wait(store_t *s, enum store_statement statement, const store_value_t *params, size_t count,
                    store_done_fn done, void *arg, err_t **e)
{
    job_t *job = job_new(statement, params, count, 1);
    job->is_waited = true;
    if (enqueue(s, job, e) != 0)
        return -1;
    pthread_mutex_lock(&s->lock);
    while (!job->is_done)
        pthread_cond_wait(&s->finished, &s->lock);
    forget(s, job);
    pthread_mutex_unlock(&s->lock);
    int result = 0;
    if (job->err != NULL) {
        result = err_set(e, err_code(job->err), "%s", err_message(job->err));
    } else if (done != NULL) {
        store_result_t rows = result_of(job);
        done(arg, &rows, NULL);
    }
    job_free(job);
    return result;
}

size_t store_queue_length(store_t *s)
{
    pthread_mutex_lock(&s->lock);
    size_t waiting = s->waiting;
    pthread_mutex_unlock(&s->lock);
    return waiting;
}

const store_value_t *store_at(const store_result_t *result, size_t row, size_t column)
{
    static const store_value_t NOTHING = {.kind = STORE_NULL};
    if (row >= result->row_count || column >= result->column_count)
        return &NOTHING;
    return &result->values[row * result->column_count + column];
}

const char *store_text_at(const store_result_t *result, size_t row, size_t column)
{
    const store_value_t *value = store_at(result, row, column);
    return value->kind == STORE_TEXT ? value->bytes : NULL;
}

int64_t store_int_at(const store_result_t *result, size_t row, size_t column)
{
    const store_value_t *value = store_at(result, row, column);
    return value->kind == STORE_INT ? value->integer : 0;
}

/* Signals belong to the event loop: the actor starts with all of them blocked. */
static int start_actor(store_t *s, err_t **e)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int result = pthread_create(&s->thread, NULL, actor, s);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (result != 0)
        return err_set_errno(e, ERR_INTERNAL, result, "start the store's thread");
    pthread_setname_np(s->thread, "store");
    return 0;
}

static void store_free(store_t *s)
{
    if (s->wake != NULL)
        event_free(s->wake);
    fd_close_p(&s->wake_fd);
    for (job_t *job = queue_take(&s->out); job != NULL; job = queue_take(&s->out))
        job_free(job);
    store_db_close(&s->db);
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->work);
    pthread_cond_destroy(&s->finished);
    free(s);
}

store_t *store_open_at(struct event_base *base, const char *path, err_t **e)
{
    store_t *s = mem_alloc(sizeof(*s));
    queue_init(&s->in);
    queue_init(&s->out);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->work, NULL);
    pthread_cond_init(&s->finished, NULL);
    s->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (s->wake_fd < 0) {
        err_set_errno(e, ERR_INTERNAL, errno, "make an eventfd");
        store_free(s);
        return NULL;
    }
    s->wake = event_new(base, s->wake_fd, EV_READ | EV_PERSIST, on_wake, s);
    event_add(s->wake, NULL);
    s->db = store_db_open(path, e);
    /* The connection is made here and handed to the thread; from then on only the thread uses it. */
    if (s->db == NULL || store_migrate(s->db, e) != 0 || start_actor(s, e) != 0) {
        store_free(s);
        return NULL;
    }
    return s;
}

void store_close(store_t **s)
{
    if (*s == NULL)
        return;
    pthread_mutex_lock(&(*s)->lock);
    (*s)->is_stopping = true;
    pthread_cond_signal(&(*s)->work);
    pthread_mutex_unlock(&(*s)->lock);
    pthread_join((*s)->thread, NULL);
    store_free(*s);
    *s = NULL;
}
