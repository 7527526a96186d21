// SPDX-License-Identifier: Apache-2.0
/* The actor: a thread that alone touches the database, a queue in, a queue out, an eventfd that wakes it and one that
 * wakes the loop. */
#include "services/gateway/store_internal.h"

#include "common/log.h"
#include "common/mem.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

typedef store_job_t job_t;

typedef struct queue {
    job_t *first;
    job_t **last;
} queue_t;

struct store {
    store_db_t *db;
    pthread_t thread;
    job_t *held; /* the actor's: jobs whose COMMIT broke off, until it is known what became of them */
    int work_fd; /* wakes the actor */
    int wake_fd; /* wakes the loop */
    struct event *wake;
    pthread_mutex_t lock;    /* guards everything below */
    pthread_cond_t finished; /* for store_exec_wait */
    queue_t in, out;
    size_t waiting, waiting_bytes; /* accepted and not yet handed back: what is bounded */
    bool is_idle;                  /* the actor sleeps, or is about to */
    bool is_stopping;
    bool is_unavailable;
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
        job->bytes += params[i].bytes == NULL ? 0 : params[i].len + 1;
    job->params = mem_alloc(job->bytes);
    uint8_t *at = (uint8_t *)(job->params + count);
    for (size_t i = 0; i < count; i++) {
        job->params[i] = params[i];
        if (params[i].bytes == NULL)
            continue;
        if (params[i].len > 0)
            memcpy(at, params[i].bytes, params[i].len);
        job->params[i].bytes = at;
        at += params[i].len + 1; /* @UNSAFE: summed up above */
    }
    return job;
}

/* ---- the actor's side ---- */

static void wake(int fd)
{
    uint64_t one = 1;
    if (write(fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
        log_error("store: write to an eventfd: errno %d", errno);
}

static void drain(int fd)
{
    uint64_t count;
    if (read(fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
        log_error("store: read from an eventfd: errno %d", errno);
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
    pthread_mutex_lock(&s->lock);
    s->is_unavailable = !store_db_is_connected(s->db);
    while (group != NULL) {
        job_t *job = group;
        group = job->next;
        job->is_done = true;
        if (!job->is_waited)
            queue_add(&s->out, job);
    }
    pthread_cond_broadcast(&s->finished);
    pthread_mutex_unlock(&s->lock);
    wake(s->wake_fd);
}

static void run_or_hold(store_t *s, job_t *group)
{
    if (store_group_run(s->db, group) == STORE_UNKNOWN)
        s->held = group;
    else
        hand_back(s, group);
}

/* Whether nothing is held any more. */
static bool settle_held(store_t *s)
{
    if (s->held == NULL)
        return true;
    enum store_outcome outcome = s->db->backend->resolve(s->db);
    if (outcome == STORE_UNKNOWN)
        return false;
    job_t *group = s->held;
    s->held = NULL;
    if (outcome == STORE_COMMITTED)
        hand_back(s, group);
    else
        run_or_hold(s, group);
    return s->held == NULL;
}

static void run_next(store_t *s, job_t *group)
{
    bool is_settled = settle_held(s);
    if (is_settled && group != NULL) {
        run_or_hold(s, group);
    } else if (group != NULL) {
        auto_err err_t *e = NULL;
        err_set(&e, ERR_DATABASE_UNAVAILABLE, STORE_UNAVAILABLE);
        store_group_fail(group, e);
        hand_back(s, group);
    }
}

/* Until there is work, or something to do for the connection. */
static void sleep_until_needed(store_t *s)
{
    const store_backend_t *backend = s->db->backend;
    struct pollfd fds[] = {{.fd = s->work_fd, .events = POLLIN},
                           {.fd = backend->fd == NULL ? -1 : backend->fd(s->db), .events = POLLIN}};
    int ready = poll(fds, COUNT_OF(fds), backend->due_ms == NULL ? -1 : backend->due_ms(s->db));
    if (fds[0].revents != 0)
        drain(s->work_fd);
    if (backend->tick == NULL || (ready > 0 && fds[1].revents == 0))
        return;
    backend->tick(s->db);
    (void)settle_held(s);
    pthread_mutex_lock(&s->lock);
    s->is_unavailable = !store_db_is_connected(s->db);
    pthread_mutex_unlock(&s->lock);
}

static void *actor(void *arg)
{
    store_t *s = arg;
    for (;;) {
        pthread_mutex_lock(&s->lock);
        job_t *group = take_group(s);
        bool is_over = group == NULL && s->is_stopping;
        s->is_idle = group == NULL;
        pthread_mutex_unlock(&s->lock);
        if (is_over)
            break;
        if (group != NULL)
            run_next(s, group);
        else
            sleep_until_needed(s);
    }
    if (!settle_held(s))
        log_warn("store: closed before it was known what became of a transaction; the database knows");
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
    drain(fd);
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
    bool is_wake_due = !is_full && s->is_idle;
    if (!is_full) {
        queue_add(&s->in, job);
        s->waiting++;
        s->waiting_bytes += job->bytes;
        s->is_idle = false;
    }
    pthread_mutex_unlock(&s->lock);
    if (is_wake_due)
        wake(s->work_fd);
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

int store_check(store_t *s, err_t **e)
{
    pthread_mutex_lock(&s->lock);
    bool is_unavailable = s->is_unavailable;
    pthread_mutex_unlock(&s->lock);
    return is_unavailable ? err_set(e, ERR_DATABASE_UNAVAILABLE, STORE_UNAVAILABLE) : 0;
}

void store_client_error(const err_t *err, err_t **e)
{
    bool is_ours = err_code(err) == ERR_DATABASE_UNAVAILABLE || err_code(err) == ERR_OVERLOADED;
    err_set(e, is_ours ? err_code(err) : ERR_DATABASE, "%s", is_ours ? err_message(err) : "Database operation failed");
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
    fd_close_p(&s->work_fd);
    for (job_t *job = queue_take(&s->out); job != NULL; job = queue_take(&s->out))
        job_free(job);
    while (s->held != NULL) {
        job_t *job = s->held;
        s->held = job->next;
        job_free(job);
    }
    if (s->db != NULL)
        s->db->backend->close(s->db);
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->finished);
    free(s);
}

static int open_descriptors(store_t *s, struct event_base *base, err_t **e)
{
    s->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    s->work_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (s->wake_fd < 0 || s->work_fd < 0)
        return err_set_errno(e, ERR_INTERNAL, errno, "make an eventfd");
    s->wake = event_new(base, s->wake_fd, EV_READ | EV_PERSIST, on_wake, s);
    event_add(s->wake, NULL);
    return 0;
}

store_t *store_open_on(struct event_base *base, const store_backend_t *backend, const char *where, err_t **e)
{
    store_t *s = mem_alloc(sizeof(*s));
    queue_init(&s->in);
    queue_init(&s->out);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->finished, NULL);
    int result = open_descriptors(s, base, e);
    /* The connection is made here and handed to the thread; from then on only the thread uses it. */
    if (result == 0) {
        s->db = backend->open(where, e);
        result = s->db == NULL ? -1 : store_migrate(s->db, e);
    }
    if (result != 0 || start_actor(s, e) != 0) {
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
    pthread_mutex_unlock(&(*s)->lock);
    wake((*s)->work_fd);
    pthread_join((*s)->thread, NULL);
    store_free(*s);
    *s = NULL;
}
