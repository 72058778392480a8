/* loop.c: deadlines, wake-ups and watches behind one descriptor. */
#include "core.h"

#include <errno.h>

/* --------------------------------------------------------------------------------------------- the heap of deadlines -- */

static void heap_put(cf_loop *loop, size_t at, cf_op *op)
{
    loop->heap[at] = op;
    op->heap_at = at;
}

static void heap_settle(cf_loop *loop, size_t at)
{
    cf_op *op = loop->heap[at];
    while (at > 0 && loop->heap[(at - 1) / 2]->deadline > op->deadline) {
        heap_put(loop, at, loop->heap[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    for (;;) {
        size_t least = at * 2 + 1;
        if (least >= loop->heap_len) break;
        if (least + 1 < loop->heap_len && loop->heap[least + 1]->deadline < loop->heap[least]->deadline) least++;
        if (loop->heap[least]->deadline >= op->deadline) break;
        heap_put(loop, at, loop->heap[least]);
        at = least;
    }
    heap_put(loop, at, op);
}

void cf_heap_add(cf_loop *loop, cf_op *op)
{
    heap_put(loop, loop->heap_len++, op);
    heap_settle(loop, op->heap_at);
}

void cf_heap_remove(cf_loop *loop, cf_op *op)
{
    size_t at = op->heap_at;
    cf_op *last = loop->heap[--loop->heap_len];
    op->heap_at = SIZE_MAX;
    if (last == op) return;
    heap_put(loop, at, last);
    heap_settle(loop, at);
}

/* ---------------------------------------------------------------------------------------------------------- its life -- */

static void close_fd(const cf_platform *platform, int *fd)
{
    if (*fd >= 0) platform->close(platform->self, *fd);
    *fd = -1;
}

static int open_fds(const cf_platform *platform, int fds[3], void *timer_data, void *waker_data)
{
    void *self = platform->self;
    fds[0] = fds[1] = fds[2] = -1;
    if ((fds[0] = platform->poller(self)) >= 0 && (fds[1] = platform->timer(self)) >= 0 &&
        (fds[2] = platform->waker(self)) >= 0 && platform->poller_set(self, fds[0], fds[1], CF_READABLE, timer_data) == 0 &&
        platform->poller_set(self, fds[0], fds[2], CF_READABLE, waker_data) == 0)
        return CF_OK;
    for (int i = 0; i < 3; i++) close_fd(platform, &fds[i]);
    return CF_EUNAVAILABLE;
}

int cf_loop_new(const cf_platform *platform, cf_loop **out)
{
    *out = NULL;
    if (!platform) platform = cf_platform_real();
    if (platform->size != sizeof *platform) return CF_EINVAL;
    cf_loop *loop = cf_zalloc(platform, sizeof *loop);
    if (!loop) return CF_ENOMEM;
    int fds[3];
    int rc = open_fds(platform, fds, &loop->timer, &loop->waker);
    if (rc != CF_OK) {
        cf_release(platform, loop);
        return rc;
    }
    loop->platform = platform;
    loop->poller = fds[0];
    loop->timer = fds[1];
    loop->waker = fds[2];
    cf_fork_watch();
    loop->generation = cf_fork_generation();
    loop->armed_at = INT64_MAX;
    loop->tickets = UINT64_C(1) << 32; /* a binding that squeezes tickets into doubles fails on the first, not after 2^29 */
    cf_link_init(&loop->stores);
    cf_link_init(&loop->watches);
    cf_link_init(&loop->dead_watches);
    cf_link_init(&loop->timers);
    cf_link_init(&loop->dead_timers);
    cf_link_init(&loop->jobs);
    cf_link_init(&loop->notices);
    cf_link_init(&loop->ready);
    loop->batch = SIZE_MAX;
    cf_link_init(&loop->yielded);
    cf_link_init(&loop->granted);
    *out = loop;
    return CF_OK;
}

static void call_ready(cf_loop *loop, size_t most)
{
    /* Only those that are there now: a `done` that submits must not keep the loop here. */
    cf_link list;
    cf_link_init(&list);
    cf_link_splice(&list, &loop->ready);
    for (; most && !cf_link_alone(&list); most--) {
        cf_op *op = CF_OF_LINK(list.next, cf_op, ready);
        cf_link_remove(&op->ready);
        if (op->in.done) op->in.done(op, op->in.user);
    }
    cf_link_splice(loop->ready.next, &list); /* before what has finished meanwhile */
}

static void free_dead(cf_loop *loop)
{
    while (!cf_link_alone(&loop->dead_watches)) {
        cf_watch *watch = CF_OF_LINK(loop->dead_watches.next, cf_watch, link);
        cf_link_remove(&watch->link);
        cf_release(loop->platform, watch);
    }
    while (!cf_link_alone(&loop->dead_timers)) {
        cf_timer *timer = CF_OF_LINK(loop->dead_timers.next, cf_timer, link);
        cf_link_remove(&timer->link);
        cf_release(loop->platform, timer);
    }
}

void cf_loop_free(cf_loop *loop)
{
    if (!loop) return;
    const cf_platform *platform = loop->platform;
    while (!cf_link_alone(&loop->stores)) {
        cf_store *store = CF_OF_LINK(loop->stores.next, cf_store, link);
        if (store->closing) cf_store_leave(store); /* it waited for the loop */
        else cf_store_close(store, NULL);
    }
    call_ready(loop, SIZE_MAX);
    cf_jobs_abandon(loop);
    free_dead(loop);
    for (size_t i = 0; i < loop->op_count; i++) {
        cf_op *op = loop->ops[i];
        if (op->state != OP_FREE) cf_op_recycle(op);
        cf_buffer_free(platform, &op->key);
        cf_buffer_free(platform, &op->value);
        cf_buffer_free(platform, &op->keep);
        cf_buffer_free(platform, &op->cursor);
        cf_buffer_free(platform, &op->sealed);
        cf_buffer_free(platform, &op->plan);
    }
    for (size_t i = 0; i < loop->op_count; i++) cf_release(platform, loop->ops[i]);
    cf_release(platform, loop->ops);
    cf_release(platform, loop->heap);
    close_fd(platform, &loop->waker);
    close_fd(platform, &loop->timer);
    close_fd(platform, &loop->poller);
    cf_release(platform, loop);
}

int cf_loop_fd(const cf_loop *loop) { return loop->poller; }
size_t cf_loop_pending(const cf_loop *loop) { return loop->pending; }
const cf_platform *cf_loop_platform(const cf_loop *loop) { return loop->platform; }
bool cf_loop_forked(const cf_loop *loop) { return loop->generation != cf_fork_generation(); }

static void flush(cf_store *store)
{
    if (store->table->flush && !store->closing) store->table->flush(store->self);
}

static void forked(cf_store *store)
{
    if (store->table->forked) store->table->forked(store->self);
}

/* Each of the stores that are open now, also when one of them is closed from inside. */
static void each_store(cf_loop *loop, void (*visit)(cf_store *store))
{
    cf_link list;
    cf_link_init(&list);
    cf_link_splice(&list, &loop->stores);
    while (!cf_link_alone(&list)) {
        cf_store *store = CF_OF_LINK(list.next, cf_store, link);
        cf_link_remove(&store->link);
        cf_link_append(&loop->stores, &store->link);
        cf_store_enter(store);
        visit(store);
        cf_store_exit(store);
        cf_store_leave(store);
    }
}

int cf_loop_flush(cf_loop *loop)
{
    if (cf_loop_forked(loop)) return CF_EFORKED;
    each_store(loop, flush);
    return CF_OK;
}

static int wake(cf_loop *loop)
{
    if (cf_loop_forked(loop)) return CF_EFORKED; /* the descriptor is the parent's */
    if (atomic_exchange(&loop->woken, true)) return CF_OK;
    uint64_t one = 1;
    /* It cannot fail for want of room: one write stands between two reads. */
    if (loop->platform->write(loop->platform->self, loop->waker, &one, sizeof one) == sizeof one) return CF_OK;
    atomic_store(&loop->woken, false); /* or no later wake would try again */
    return CF_EUNAVAILABLE;
}

int cf_loop_wake(cf_loop *loop)
{
    atomic_store(&loop->asked, true);
    return wake(loop);
}

void cf_loop_nudge(cf_loop *loop) { wake(loop); }

void cf_loop_set_blocking(cf_loop *loop, bool blocking) { loop->blocking = blocking; }
void cf_loop_set_batch(cf_loop *loop, size_t most) { loop->batch = most ? most : SIZE_MAX; }
bool cf_loop_blocking(const cf_loop *loop) { return loop->blocking; }

void cf_loop_arm(cf_loop *loop)
{
    int64_t due = loop->heap_len ? loop->heap[0]->deadline : INT64_MAX;
    for (cf_link *link = loop->timers.next; link != &loop->timers; link = link->next) {
        int64_t fires = CF_OF_LINK(link, cf_timer, link)->due;
        if (fires < due) due = fires;
    }
    /* A timer that goes off too early only costs a look; one that is moved with every operation costs a system call each. */
    if (due >= loop->armed_at) return;
    int64_t in = due - cf_monotonic(loop->platform);
    if (loop->platform->timer_set(loop->platform->self, loop->timer, in > 0 ? in : 0) == 0) loop->armed_at = due;
}

static void drain(cf_loop *loop, int fd)
{
    uint64_t count;
    (void)!loop->platform->read(loop->platform->self, fd, &count, sizeof count);
}

static void resume_yielded(cf_loop *loop)
{
    cf_link list;
    cf_link_init(&list);
    cf_link_splice(&list, &loop->yielded);
    while (!cf_link_alone(&list)) {
        cf_op *op = CF_OF_LINK(list.next, cf_op, ready);
        cf_link_remove(&op->ready);
        cf_resume(op);
    }
}

static void fire_timers(cf_loop *loop, int64_t now)
{
    bool again = true;
    while (again) { /* what one does may change the list */
        again = false;
        for (cf_link *link = loop->timers.next; link != &loop->timers; link = link->next) {
            cf_timer *timer = CF_OF_LINK(link, cf_timer, link);
            if (timer->due > now) continue;
            timer->due = INT64_MAX;
            loop->watching = true;
            timer->fire(timer->user);
            loop->watching = false;
            again = true;
            break;
        }
    }
}

static void judge_deadlines(cf_loop *loop)
{
    if (!loop->heap_len && cf_link_alone(&loop->timers)) return;
    int64_t now = cf_monotonic(loop->platform);
    while (loop->heap_len && loop->heap[0]->deadline <= now) {
        cf_op    *op = loop->heap[0];
        cf_store *store = op->store;
        cf_op_abort(op, CF_ETIMEOUT, END_QUEUE, "the operation's deadline passed");
        cf_store_leave(store); /* its `cancel` may have closed it */
    }
    fire_timers(loop, now); /* after a standstill of the process a backend's patience is over too: whose time was up is told that, and not that a connection was lost */
    cf_loop_arm(loop);
}

enum { BATCH = 64 };

static void take_events(cf_loop *loop, const cf_poll_event *events, int count)
{
    for (int i = 0; i < count; i++) {
        if (events[i].data == &loop->timer) {
            drain(loop, loop->timer);
            loop->armed_at = INT64_MAX;
        } else if (events[i].data == &loop->waker) {
            drain(loop, loop->waker);
            atomic_store(&loop->woken, false);
            if (atomic_exchange(&loop->asked, false)) loop->interrupted = true;
        } else {
            cf_watch *watch = events[i].data;
            unsigned  wanted = events[i].events & watch->events;
            loop->watching = true;
            if (!watch->dead && wanted) watch->ready(watch->user, wanted); /* another's function may have changed what it waits for */
            loop->watching = false;
        }
    }
}

/* Whoever reads takes turns with the others, and may have left something. Before a deadline is judged to have passed, what arrived is read on,
 * as long as that ends operations; a long value may need a few looks. */
static void look_before_judging(cf_loop *loop, cf_poll_event *events)
{
    enum { LOOKS = 8 };
    for (int looks = 0; looks < LOOKS && loop->heap_len && loop->heap[0]->deadline <= cf_monotonic(loop->platform); looks++) {
        size_t finished = loop->finished;
        int    count = loop->platform->poller_wait(loop->platform->self, loop->poller, events, BATCH, 0);
        if (count <= 0) return;
        take_events(loop, events, count);
        if (loop->finished != finished) looks = 0;
    }
}

int cf_loop_run(cf_loop *loop, int timeout_ms)
{
    if (cf_loop_forked(loop)) return CF_EFORKED;
    if (loop->running || loop->depth) return CF_EINVAL;
    const cf_platform *platform = loop->platform;
    size_t finished = loop->finished;
    loop->running = true;
    loop->interrupted = false;
    cf_loop_flush(loop);
    if (!cf_link_alone(&loop->ready) || !cf_link_alone(&loop->yielded) || atomic_load(&loop->has_granted)) timeout_ms = 0;
    cf_loop_arm(loop);

    cf_poll_event events[BATCH];
    int count = platform->poller_wait(platform->self, loop->poller, events, BATCH, timeout_ms);
    loop->idle = count == 0;
    if (count < 0) {
        loop->interrupted = errno == EINTR;
        if (!loop->interrupted) {
            loop->running = false;
            return CF_EUNAVAILABLE;
        }
    }
    take_events(loop, events, count);
    /* A full batch may not be all that has arrived; what stays ready for ever must not keep the loop here. */
    for (size_t batches = (loop->watch_count + 2) / BATCH; count == BATCH && batches; batches--) {
        count = platform->poller_wait(platform->self, loop->poller, events, BATCH, 0);
        take_events(loop, events, count);
    }
    look_before_judging(loop, events);
    if (atomic_exchange(&loop->has_granted, false)) cf_derive_granted(loop);
    if (atomic_exchange(&loop->has_jobs, false)) {
        loop->watching = true;
        cf_jobs_finish(loop);
        loop->watching = false;
    }
    resume_yielded(loop);
    judge_deadlines(loop); /* after what arrived: a process that was stopped reports no false time-outs */
    call_ready(loop, loop->batch);
    if (atomic_exchange(&loop->has_events, false)) each_store(loop, cf_store_tell);
    free_dead(loop);
    cf_loop_flush(loop);
    loop->running = false;
    if (!cf_link_alone(&loop->ready) || !cf_link_alone(&loop->yielded)) cf_loop_nudge(loop);
    return (int)(loop->finished - finished);
}

int cf_loop_reopen(cf_loop *loop)
{
    if (!cf_loop_forked(loop)) return CF_OK;
    if (loop->running || loop->depth) return CF_EINVAL;
    int fds[3], old[3] = {loop->poller, loop->timer, loop->waker};
    int rc = open_fds(loop->platform, fds, &loop->timer, &loop->waker);
    if (rc != CF_OK) return rc;
    /* Closed, never spoken to: taking a watch out of the inherited poller would take it from the parent. */
    for (int i = 0; i < 3; i++) close_fd(loop->platform, &old[i]);
    loop->poller = fds[0];
    loop->timer = fds[1];
    loop->waker = fds[2];
    loop->armed_at = INT64_MAX;
    cf_jobs_abandon(loop);
    loop->generation = cf_fork_generation();
    atomic_store(&loop->woken, false);
    uint64_t inherited = loop->tickets; /* what a `done` submits from here on was not */
    for (cf_link *link = loop->watches.next; link != &loop->watches; link = link->next)
        CF_OF_LINK(link, cf_watch, link)->registered = false;
    each_store(loop, forked);
    for (size_t i = 0; i < loop->op_count; i++) {
        cf_op *op = loop->ops[i];
        if (op->state != OP_PENDING || op->parent || op->ticket >> 24 > inherited) continue;
        cf_store *store = op->store;
        cf_op_abort(op, CF_EFORKED, END_QUIETLY, "the process forked while the operation was under way");
        cf_store_leave(store);
        if (op->in.done) op->in.done(op, op->in.user);
    }
    if (!cf_link_alone(&loop->ready)) cf_loop_nudge(loop);
    return CF_OK;
}

/* ----------------------------------------------------------------------------------------------------------- watches -- */

int cf_watch_new(cf_loop *loop, int fd, unsigned events, cf_watch_fn ready, void *user, cf_watch **out)
{
    *out = NULL;
    cf_watch *watch = cf_zalloc(loop->platform, sizeof *watch);
    if (!watch) return CF_ENOMEM;
    watch->loop = loop;
    watch->fd = fd;
    watch->ready = ready;
    watch->user = user;
    cf_link_append(&loop->watches, &watch->link);
    int rc = cf_watch_set(watch, events);
    if (rc != CF_OK) {
        cf_link_remove(&watch->link);
        cf_release(loop->platform, watch);
        return rc;
    }
    loop->watch_count++;
    *out = watch;
    return CF_OK;
}

int cf_watch_set(cf_watch *watch, unsigned events)
{
    cf_loop *loop = watch->loop;
    if (cf_loop_forked(loop)) return CF_EFORKED;
    if (watch->registered != (events != 0) || watch->events != events) {
        if (loop->platform->poller_set(loop->platform->self, loop->poller, watch->fd, events, watch) != 0) return CF_EUNAVAILABLE;
        watch->registered = events != 0;
    }
    watch->events = events;
    return CF_OK;
}

void cf_watch_free(cf_watch *watch)
{
    if (!watch) return;
    cf_loop *loop = watch->loop;
    if (watch->registered && !cf_loop_forked(loop)) loop->platform->poller_set(loop->platform->self, loop->poller, watch->fd, 0, watch);
    cf_link_remove(&watch->link);
    loop->watch_count--;
    if (loop->running) {
        /* The poller may have reported it already. */
        watch->dead = true;
        cf_link_append(&loop->dead_watches, &watch->link);
    } else {
        cf_release(loop->platform, watch);
    }
}

/* ------------------------------------------------------------------------------------------------------------ timers -- */

int cf_timer_new(cf_loop *loop, cf_timer_fn fire, void *user, cf_timer **out)
{
    cf_timer *timer = *out = cf_zalloc(loop->platform, sizeof *timer);
    if (!timer) return CF_ENOMEM;
    *timer = (cf_timer){.loop = loop, .due = INT64_MAX, .fire = fire, .user = user};
    cf_link_append(&loop->timers, &timer->link);
    return CF_OK;
}

void cf_timer_set(cf_timer *timer, int64_t in_ms)
{
    cf_loop *loop = timer->loop;
    timer->due = in_ms < 0 ? INT64_MAX : cf_monotonic(loop->platform) + in_ms;
    if (in_ms >= 0 && !cf_loop_forked(loop)) cf_loop_arm(loop);
}

void cf_timer_free(cf_timer *timer)
{
    if (!timer) return;
    cf_link_remove(&timer->link);
    if (timer->loop->running) cf_link_append(&timer->loop->dead_timers, &timer->link);
    else cf_release(timer->loop->platform, timer);
}
