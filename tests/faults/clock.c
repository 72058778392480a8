/* A staged wall clock for a real program: preloaded into it, this makes the time of day what a file says.
 *
 * COUNTERFOIL_CLOCK_FILE names the file: a decimal number and a newline. Milliseconds since 1970: there the time stands still. With a sign: so many
 * milliseconds before or after the real time, and it goes on. To move the clock write a new file and rename it over the old one; the next look at the
 * time sees it. A file that is empty or has no newline yet is one that is being written: nothing changes. Monotonic clocks are left alone, so timers
 * and timeouts go on.
 *
 * No lock and no memory of its own: the descriptor is only replaced when the file was, and each look reads the whole of it. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const long long NONE = LLONG_MIN;
static atomic_llong    last = LLONG_MIN; /* twice the number, and one more if it had a sign */
/* One for each thread: a background thread must not close what another is reading. */
static _Thread_local int file = -1;

static long long staged(void)
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
    ssize_t   count = file < 0 ? 0 : pread(file, text, sizeof text, 0);
    bool      is_signed = count > 0 && (text[0] == '+' || text[0] == '-');
    long long ms = 0;
    ssize_t   first = is_signed ? 1 : 0, at = first;
    while (at < count && at < 18 && text[at] >= '0' && text[at] <= '9') ms = ms * 10 + (text[at++] - '0');
    if (at > first && at < count && text[at] == '\n') atomic_store(&last, 2 * (is_signed && text[0] == '-' ? -ms : ms) + is_signed);
    errno = kept;
    return atomic_load(&last);
}

static int real_clock(clockid_t clock, struct timespec *out) { return (int)syscall(SYS_clock_gettime, clock, out); }

int clock_gettime(clockid_t clock, struct timespec *out)
{
    long long told = clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE ? staged() : NONE;
    if (told == NONE) return real_clock(clock, out);
    bool      from_now = told & 1;
    long long ms = (told - from_now) / 2;
    if (from_now) {
        if (real_clock(clock, out) != 0) return -1;
        ms += (long long)out->tv_sec * 1000 + out->tv_nsec / 1000000;
        out->tv_nsec %= 1000000;
    } else {
        out->tv_nsec = 0;
    }
    out->tv_sec = (time_t)(ms / 1000);
    out->tv_nsec += (long)(ms % 1000) * 1000000;
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
