/* A staged wall clock for a real server: preloaded into it, this makes the time of day stand still at what a file says.
 *
 * COUNTERFOIL_CLOCK_FILE names the file: one decimal number, milliseconds since 1970, and a newline. To move the clock write a
 * new file and rename it over the old one; the next look at the time sees it. A file that is empty or has no newline yet is one that is
 * being written: the time stays. Monotonic clocks are left alone, so timers and timeouts go on.
 *
 * No lock and no memory of its own: the descriptor is only replaced when the file was, and each look reads the whole of it. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static atomic_llong last_ms = -1;
/* One for each thread: a background thread must not close what another is reading. */
static _Thread_local int file = -1;

static long long staged_ms(void)
{
    int         kept = errno;
    char        text[32];
    struct stat is;
    if (file >= 0 && (fstat(file, &is) != 0 || is.st_nlink == 0)) {
        close(file);
        file = -1;
    }
    if (file < 0) {
        const char *path = getenv("COUNTERFOIL_CLOCK_FILE");
        if (path) file = open(path, O_RDONLY | O_CLOEXEC);
    }
    ssize_t   count = file < 0 ? -1 : pread(file, text, sizeof text, 0);
    long long ms = 0;
    ssize_t   at = 0;
    while (at < count && at < 18 && text[at] >= '0' && text[at] <= '9') ms = ms * 10 + (text[at++] - '0');
    if (at > 0 && at < count && text[at] == '\n') atomic_store(&last_ms, ms);
    errno = kept;
    return atomic_load(&last_ms);
}

static int real_clock(clockid_t clock, struct timespec *out) { return (int)syscall(SYS_clock_gettime, clock, out); }

int clock_gettime(clockid_t clock, struct timespec *out)
{
    long long ms = clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE ? staged_ms() : -1;
    if (ms < 0) return real_clock(clock, out);
    out->tv_sec = (time_t)(ms / 1000);
    out->tv_nsec = (long)(ms % 1000) * 1000000;
    return 0;
}

int gettimeofday(struct timeval *restrict out, void *restrict zone)
{
    struct timespec now;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &now) != 0) return -1;
    out->tv_sec = now.tv_sec;
    out->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out)
{
    struct timespec now;
    if (clock_gettime(CLOCK_REALTIME, &now) != 0) return (time_t)-1;
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
