/* platform.c: the real machine, as one table of functions. The only file with system calls. */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/timerfd.h>
#include <sys/un.h>
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

static int64_t real_monotonic_us(void *self)
{
    (void)self;
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
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

/* ----------------------------------------------------------------------------------------------------------- sockets -- */

static void set_option(int fd, int level, int name, int value) { (void)setsockopt(fd, level, name, &value, sizeof value); }

static int real_connect(void *self, const cf_address *to)
{
    (void)self;
    const struct sockaddr *address = (const struct sockaddr *)(const void *)to->is.bytes;
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return -1;
    if (address->sa_family != AF_UNIX) {
        set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
        set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
        set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, 15);
        set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, 5);
        set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, 3);
    }
    if (connect(fd, address, to->len) == 0 || errno == EINPROGRESS || errno == EINTR) return fd;
    int why = errno; /* EAGAIN: the backlog of a unix socket is full */
    close(fd);
    errno = why;
    return -1;
}

static int real_connected(void *self, int fd)
{
    (void)self;
    int       error = 0;
    socklen_t size = sizeof error;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0) return -1;
    struct sockaddr_storage peer;
    size = sizeof peer;
    if (error == 0 && getpeername(fd, (struct sockaddr *)&peer, &size) != 0) error = errno == ENOTCONN ? EINPROGRESS : errno;
    errno = error;
    return error ? -1 : 0;
}

static int64_t real_send(void *self, int fd, const void *bytes, size_t count)
{
    (void)self;
    return send(fd, bytes, count, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static int real_thread(void *self, void (*run)(void *data), void *data)
{
    (void)self;
    return cf_thread_start(run, data);
}

/* ------------------------------------------------------------------------------------------------------------- files -- */

static int real_file_create(void *self, const char *path, int64_t size)
{
    (void)self;
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0) return -1;
    int rc = size > 0 ? posix_fallocate(fd, 0, (off_t)size) : 0;
    close(fd);
    if (rc == 0) return 0;
    unlink(path);
    errno = rc;
    return -1;
}

static bool is_remote(const char *path)
{
    struct statfs system;
    if (statfs(path, &system) != 0) return false;
    switch ((unsigned long)system.f_type & 0xffffffffUL) {
    case 0x6969:     /* NFS */
    case 0x517b:     /* SMB */
    case 0xff534d42: /* CIFS */
    case 0xfe534d42: /* SMB2 */
    case 0x01021997: /* 9P */
    case 0x00c36400: /* Ceph */
    case 0x47504653: /* GPFS */
    case 0x0bd00bd0: /* Lustre */ return true;
    default: return false;
    }
}

static int real_file_look(void *self, const char *path, cf_file *out)
{
    (void)self;
    struct stat is;
    if (lstat(path, &is) != 0) return -1;
    *out = (cf_file){.device = (uint64_t)is.st_dev, .node = (uint64_t)is.st_ino, .size = (int64_t)is.st_size, .regular = S_ISREG(is.st_mode),
                     .remote = is_remote(path)};
    return 0;
}

static int real_file_remove(void *self, const char *path)
{
    (void)self;
    return unlink(path);
}

static int real_file_held(void *self, uint64_t device, uint64_t node)
{
    (void)self;
    DIR *all = opendir("/proc/self/fd");
    if (!all) return -1;
    bool held = false;
    for (struct dirent *each; !held && (each = readdir(all));) {
        struct stat is;
        /* By its name: the number may be another thread's, which opens and closes it meanwhile. */
        held = each->d_name[0] != '.' && fstatat(dirfd(all), each->d_name, &is, 0) == 0 && (uint64_t)is.st_dev == device && (uint64_t)is.st_ino == node;
    }
    closedir(all);
    return held;
}

int cf_resolve(const char *host, const char *port, cf_address *out, int max)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV}, *found;
    int rc = getaddrinfo(host, port, &hints, &found);
    if (rc != 0) return rc < 0 ? rc : -rc;
    int count = 0;
    for (struct addrinfo *at = found; at && count < max; at = at->ai_next) {
        if (at->ai_addrlen > sizeof out->is) continue;
        memcpy(out[count].is.bytes, at->ai_addr, at->ai_addrlen);
        out[count++].len = at->ai_addrlen;
    }
    freeaddrinfo(found);
    return count ? count : EAI_NONAME;
}

const char *cf_resolve_error(int code) { return gai_strerror(code); }

int cf_address_of(const char *host, const char *port, cf_address *out)
{
    struct sockaddr_in  four = {.sin_family = AF_INET};
    struct sockaddr_in6 six = {.sin6_family = AF_INET6};
    uint16_t number = htons((uint16_t)atoi(port));
    if (inet_pton(AF_INET, host, &four.sin_addr) == 1) {
        four.sin_port = number;
        memcpy(out->is.bytes, &four, out->len = sizeof four);
    } else if (inet_pton(AF_INET6, host, &six.sin6_addr) == 1) {
        six.sin6_port = number;
        memcpy(out->is.bytes, &six, out->len = sizeof six);
    } else {
        return CF_EINVAL;
    }
    return CF_OK;
}

int cf_address_unix(cf_slice path, cf_address *out)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (path.len >= sizeof address.sun_path || sizeof address > sizeof out->is) return CF_EINVAL;
    memcpy(address.sun_path, path.ptr, path.len);
    memcpy(out->is.bytes, &address, out->len = sizeof address);
    return CF_OK;
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
        .monotonic_us = real_monotonic_us,
        .connect = real_connect,
        .connected = real_connected,
        .send = real_send,
        .thread = real_thread,
        .file_create = real_file_create,
        .file_look = real_file_look,
        .file_remove = real_file_remove,
        .file_held = real_file_held,
    };
    return &real;
}
