/* platform.c: the real machine, as one table of functions. The only file with system calls. */
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "util.h"

static void *real_alloc(void *self, size_t size)
{
    (void)self;
    return malloc(size);
}

static void *real_resize(void *self, void *block, size_t size)
{
    (void)self;
    return realloc(block, size);
}

static void real_release(void *self, void *block)
{
    (void)self;
    free(block);
}

static int64_t clock_ms(clockid_t which)
{
    struct timespec now;
    clock_gettime(which, &now); /* cannot fail for these two clocks */
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int64_t real_monotonic(void *self)
{
    (void)self;
    return clock_ms(CLOCK_BOOTTIME);
}

static int64_t real_wall(void *self)
{
    (void)self;
    return clock_ms(CLOCK_REALTIME);
}

static int real_random(void *self, void *bytes, size_t count)
{
    (void)self;
    char *at = bytes;
    while (count) {
        ssize_t got = getrandom(at, count, 0);
        if (got < 0) {
            if (errno == EINTR) continue;
            return -1;
        }
        at += got;
        count -= (size_t)got;
    }
    return 0;
}

static int real_poller(void *self)
{
    (void)self;
    return epoll_create1(EPOLL_CLOEXEC);
}

static int real_poller_set(void *self, int poller, int fd, unsigned events, void *data)
{
    (void)self;
    struct epoll_event event = {.data.ptr = data};
    if (events & CF_READABLE) event.events |= EPOLLIN;
    if (events & CF_WRITABLE) event.events |= EPOLLOUT;
    if (events == 0) return epoll_ctl(poller, EPOLL_CTL_DEL, fd, &event);
    if (epoll_ctl(poller, EPOLL_CTL_MOD, fd, &event) == 0) return 0;
    return errno == ENOENT ? epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) : -1;
}

static int real_poller_wait(void *self, int poller, cf_poll_event *events, int max, int timeout_ms)
{
    (void)self;
    struct epoll_event got[64];
    int count = epoll_wait(poller, got, max < 64 ? max : 64, timeout_ms);
    for (int i = 0; i < count; i++) {
        events[i].data = got[i].data.ptr;
        events[i].events = 0;
        if (got[i].events & (EPOLLIN | EPOLLERR | EPOLLHUP)) events[i].events |= CF_READABLE;
        if (got[i].events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) events[i].events |= CF_WRITABLE;
    }
    return count;
}

static int real_timer(void *self)
{
    (void)self;
    return timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK);
}

static int real_timer_set(void *self, int fd, int64_t in_ms)
{
    (void)self;
    struct itimerspec when = {{0, 0}, {0, 0}};
    if (in_ms >= 0) {
        when.it_value.tv_sec = (time_t)(in_ms / 1000);
        when.it_value.tv_nsec = (long)(in_ms % 1000) * 1000000;
        if (in_ms == 0) when.it_value.tv_nsec = 1; /* all zero would disarm */
    }
    return timerfd_settime(fd, 0, &when, NULL);
}

static int real_waker(void *self)
{
    (void)self;
    return eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
}

static int64_t real_read(void *self, int fd, void *bytes, size_t count)
{
    (void)self;
    return read(fd, bytes, count);
}

static int64_t real_write(void *self, int fd, const void *bytes, size_t count)
{
    (void)self;
    return write(fd, bytes, count);
}

static int real_close(void *self, int fd)
{
    (void)self;
    return close(fd);
}

const cf_platform *cf_platform_real(void)
{
    static const cf_platform real = {
        .size = sizeof(cf_platform),
        .alloc = real_alloc,
        .resize = real_resize,
        .release = real_release,
        .monotonic_ms = real_monotonic,
        .wall_ms = real_wall,
        .random = real_random,
        .poller = real_poller,
        .poller_set = real_poller_set,
        .poller_wait = real_poller_wait,
        .timer = real_timer,
        .timer_set = real_timer_set,
        .waker = real_waker,
        .read = real_read,
        .write = real_write,
        .close = real_close,
    };
    return &real;
}
