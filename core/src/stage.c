/* stage.c: a platform whose clock and failures a test chooses (counterfoil/testing.h). */
#include "counterfoil/testing.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "util.h"

typedef struct stage_timer {
    struct stage_timer *next;
    int     fd;
    int64_t due;
} stage_timer;

struct cf_stage {
    cf_platform   platform;
    cf_mutex     *lock;
    int64_t       monotonic, wall;
    stage_timer  *timers;
    uint64_t      alloc_in, syscall_in; /* how many until one fails; 0: none */
    bool          alloc_for_good, failed;
    int           syscall_error;
    atomic_llong  blocks;
};

static const cf_platform *real(void) { return cf_platform_real(); }

/* ------------------------------------------------------------------------------------------------------------ memory -- */

static bool alloc_fails(cf_stage *stage)
{
    bool fails = false;
    cf_mutex_lock(stage->lock);
    if (stage->alloc_in && --stage->alloc_in == 0) {
        fails = stage->failed = true;
        if (stage->alloc_for_good) stage->alloc_in = 1;
    }
    cf_mutex_unlock(stage->lock);
    return fails;
}

static void *stage_alloc(void *self, size_t size)
{
    cf_stage *stage = self;
    if (alloc_fails(stage)) return NULL;
    void *block = malloc(size);
    if (block) atomic_fetch_add(&stage->blocks, 1);
    return block;
}

static void *stage_resize(void *self, void *block, size_t size)
{
    cf_stage *stage = self;
    if (alloc_fails(stage)) return NULL;
    void *moved = realloc(block, size);
    if (moved && !block) atomic_fetch_add(&stage->blocks, 1);
    return moved;
}

static void stage_release(void *self, void *block)
{
    cf_stage *stage = self;
    if (block) atomic_fetch_sub(&stage->blocks, 1);
    free(block);
}

/* ------------------------------------------------------------------------------------------------------------- clock -- */

static int64_t stage_monotonic(void *self)
{
    cf_stage *stage = self;
    cf_mutex_lock(stage->lock);
    int64_t now = stage->monotonic;
    cf_mutex_unlock(stage->lock);
    return now;
}

static int64_t stage_monotonic_us(void *self) { return stage_monotonic(self) * 1000; }

static int64_t stage_wall(void *self)
{
    cf_stage *stage = self;
    cf_mutex_lock(stage->lock);
    int64_t now = stage->wall;
    cf_mutex_unlock(stage->lock);
    return now;
}

/* A timer of the stage is a waker that the stage writes to when the clock passes. */
static void ring(int fd)
{
    uint64_t one = 1;
    (void)real()->write(real()->self, fd, &one, sizeof one);
}

/* Clocks stop here: a ttl more would still be far from the end of the type. */
static int64_t moved(int64_t clock, int64_t ms)
{
    const int64_t end = INT64_MAX / 4;
    int64_t       to;
    if (__builtin_add_overflow(clock, ms, &to)) return ms < 0 ? -end : end;
    return to > end ? end : to < -end ? -end : to;
}

void cf_stage_advance(cf_stage *stage, int64_t ms)
{
    if (ms < 0) return;
    cf_mutex_lock(stage->lock);
    stage->monotonic = moved(stage->monotonic, ms);
    stage->wall = moved(stage->wall, ms);
    for (stage_timer *timer = stage->timers; timer; timer = timer->next)
        if (timer->due <= stage->monotonic) {
            timer->due = INT64_MAX;
            ring(timer->fd);
        }
    cf_mutex_unlock(stage->lock);
}

int64_t cf_stage_wall_ms(cf_stage *stage) { return stage_wall(stage); }

void cf_stage_step_wall(cf_stage *stage, int64_t ms)
{
    cf_mutex_lock(stage->lock);
    stage->wall = moved(stage->wall, ms);
    cf_mutex_unlock(stage->lock);
}

/* ------------------------------------------------------------------------------------------------------ system calls -- */

static bool syscall_fails(cf_stage *stage)
{
    bool fails = false;
    int error = 0;
    cf_mutex_lock(stage->lock);
    if (stage->syscall_in && --stage->syscall_in == 0) {
        fails = stage->failed = true;
        error = stage->syscall_error;
    }
    cf_mutex_unlock(stage->lock);
    if (fails) errno = error;
    return fails;
}

static int stage_random(void *self, void *bytes, size_t count)
{
    return syscall_fails(self) ? -1 : real()->random(real()->self, bytes, count);
}

static int stage_poller(void *self) { return syscall_fails(self) ? -1 : real()->poller(real()->self); }

static int stage_poller_set(void *self, int poller, int fd, unsigned events, void *data)
{
    return syscall_fails(self) ? -1 : real()->poller_set(real()->self, poller, fd, events, data);
}

static int stage_poller_wait(void *self, int poller, cf_poll_event *events, int max, int timeout_ms)
{
    return syscall_fails(self) ? -1 : real()->poller_wait(real()->self, poller, events, max, timeout_ms);
}

static int stage_timer_new(void *self)
{
    cf_stage *stage = self;
    if (syscall_fails(stage)) return -1;
    stage_timer *timer = malloc(sizeof *timer);
    int fd = timer ? real()->waker(real()->self) : -1;
    if (fd < 0) {
        free(timer);
        return -1;
    }
    timer->fd = fd;
    timer->due = INT64_MAX;
    cf_mutex_lock(stage->lock);
    timer->next = stage->timers;
    stage->timers = timer;
    cf_mutex_unlock(stage->lock);
    return fd;
}

static int stage_timer_set(void *self, int fd, int64_t in_ms)
{
    cf_stage *stage = self;
    if (syscall_fails(stage)) return -1;
    cf_mutex_lock(stage->lock);
    for (stage_timer *timer = stage->timers; timer; timer = timer->next)
        if (timer->fd == fd) {
            timer->due = in_ms < 0 ? INT64_MAX : stage->monotonic + in_ms;
            if (in_ms == 0) {
                timer->due = INT64_MAX;
                ring(fd);
            }
        }
    cf_mutex_unlock(stage->lock);
    return 0;
}

static int stage_waker(void *self) { return syscall_fails(self) ? -1 : real()->waker(real()->self); }

static int64_t stage_read(void *self, int fd, void *bytes, size_t count)
{
    return syscall_fails(self) ? -1 : real()->read(real()->self, fd, bytes, count);
}

static int64_t stage_write(void *self, int fd, const void *bytes, size_t count)
{
    return syscall_fails(self) ? -1 : real()->write(real()->self, fd, bytes, count);
}

static int stage_connect(void *self, const cf_address *to) { return syscall_fails(self) ? -1 : real()->connect(real()->self, to); }
static int stage_connected(void *self, int fd) { return syscall_fails(self) ? -1 : real()->connected(real()->self, fd); }

static int64_t stage_send(void *self, int fd, const void *bytes, size_t count)
{
    return syscall_fails(self) ? -1 : real()->send(real()->self, fd, bytes, count);
}

static int stage_thread(void *self, void (*run)(void *data), void *data)
{
    return syscall_fails(self) ? -1 : real()->thread(real()->self, run, data);
}

static int stage_file_create(void *self, const char *path, int64_t size)
{
    return syscall_fails(self) ? -1 : real()->file_create(real()->self, path, size);
}

static int stage_file_look(void *self, const char *path, cf_file *out)
{
    return syscall_fails(self) ? -1 : real()->file_look(real()->self, path, out);
}

static int stage_file_remove(void *self, const char *path) { return syscall_fails(self) ? -1 : real()->file_remove(real()->self, path); }

static int stage_file_held(void *self, uint64_t device, uint64_t node)
{
    return syscall_fails(self) ? -1 : real()->file_held(real()->self, device, node);
}

static int stage_close(void *self, int fd)
{
    cf_stage *stage = self;
    cf_mutex_lock(stage->lock);
    for (stage_timer **at = &stage->timers; *at; at = &(*at)->next)
        if ((*at)->fd == fd) {
            stage_timer *timer = *at;
            *at = timer->next;
            free(timer);
            break;
        }
    cf_mutex_unlock(stage->lock);
    return real()->close(real()->self, fd);
}

/* ------------------------------------------------------------------------------------------------------------- stage -- */

cf_stage *cf_stage_new(void)
{
    cf_stage *stage = calloc(1, sizeof *stage);
    if (!stage) return NULL;
    stage->lock = cf_mutex_new(real());
    if (!stage->lock) {
        free(stage);
        return NULL;
    }
    stage->monotonic = cf_monotonic(real());
    stage->wall = cf_wall(real());
    stage->platform = (cf_platform){
        .size = sizeof(cf_platform),
        .self = stage,
        .alloc = stage_alloc,
        .resize = stage_resize,
        .release = stage_release,
        .monotonic_ms = stage_monotonic,
        .wall_ms = stage_wall,
        .random = stage_random,
        .poller = stage_poller,
        .poller_set = stage_poller_set,
        .poller_wait = stage_poller_wait,
        .timer = stage_timer_new,
        .timer_set = stage_timer_set,
        .waker = stage_waker,
        .read = stage_read,
        .write = stage_write,
        .close = stage_close,
        .monotonic_us = stage_monotonic_us,
        .connect = stage_connect,
        .connected = stage_connected,
        .send = stage_send,
        .thread = stage_thread,
        .file_create = stage_file_create,
        .file_look = stage_file_look,
        .file_remove = stage_file_remove,
        .file_held = stage_file_held,
    };
    return stage;
}

void cf_stage_free(cf_stage *stage)
{
    if (!stage) return;
    cf_mutex_free(real(), stage->lock);
    free(stage);
}

const cf_platform *cf_stage_platform(cf_stage *stage) { return &stage->platform; }

void cf_stage_fail_allocation(cf_stage *stage, uint64_t nth, bool for_good)
{
    cf_mutex_lock(stage->lock);
    stage->alloc_in = nth;
    stage->alloc_for_good = for_good;
    stage->failed = false;
    cf_mutex_unlock(stage->lock);
}

void cf_stage_fail_syscall(cf_stage *stage, uint64_t nth, int error)
{
    cf_mutex_lock(stage->lock);
    stage->syscall_in = nth;
    stage->syscall_error = error;
    stage->failed = false;
    cf_mutex_unlock(stage->lock);
}

bool cf_stage_failed(cf_stage *stage)
{
    cf_mutex_lock(stage->lock);
    bool failed = stage->failed;
    cf_mutex_unlock(stage->lock);
    return failed;
}

int64_t cf_stage_blocks(cf_stage *stage) { return atomic_load(&stage->blocks); }
