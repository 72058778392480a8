/* What one connection can do: limit PORT (get|set|mix) DEPTH SECONDS (sleep|spin)
 *
 * Keeps DEPTH commands in flight: every read is followed by one write of as many new commands as it brought replies. Replies
 * are counted, not kept. `spin` never sleeps while it waits. Keys and values are as long as those of the other parties, but
 * others, because nobody checks what is written here.
 *
 * One JSON object goes to standard output: operations per second, microseconds of CPU per operation, latencies in microseconds. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum { KEYS = 10000, VALUE = 500, COMMAND = 640, SAMPLES = 1 << 20 };

static char     commands[2][KEYS][COMMAND]; /* get and set of every key, formatted before the clock starts */
static size_t   lengths[2];
static unsigned order[KEYS];
static int64_t  samples[SAMPLES];

static void die(const char *why)
{
    fprintf(stderr, "limit: %s\n", why);
    exit(1);
}

static int64_t now_ns(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static int64_t cpu_ns(void) { return now_ns(CLOCK_PROCESS_CPUTIME_ID); }

static void prepare(void)
{
    char     value[VALUE + 1];
    uint32_t seed = 12345; /* the same order in every host */
    for (unsigned i = 0; i < KEYS; i++) {
        snprintf(value, sizeof value, "%0*u", VALUE, i);
        char *get = commands[0][i], *set = commands[1][i];
        lengths[0] = (size_t)snprintf(get, COMMAND, "*2\r\n$3\r\nGET\r\n$37\r\nlims:%032u\r\n", i);
        lengths[1] = (size_t)snprintf(set, COMMAND, "*3\r\n$3\r\nSET\r\n$37\r\nlims:%032u\r\n$%d\r\n%s\r\n", i, VALUE, value);
        seed = seed * 1664525U + 1013904223U;
        unsigned j = (unsigned)(((uint64_t)seed * (i + 1)) >> 32);
        order[i] = order[j];
        order[j] = i;
    }
}

/* How many whole replies are at the beginning of `bytes`; `used` is how long they are. A set answers +OK, a get its 500 bytes. */
static size_t replies(const char *bytes, size_t len, size_t *used)
{
    static const char   ok[] = "+OK\r\n", head[] = "$500\r\n";
    static const size_t short_one = sizeof ok - 1, long_one = sizeof head - 1 + VALUE + 2;
    size_t              count = 0;
    for (*used = 0; *used < len; count++) {
        const char *at = bytes + *used;
        size_t      left = len - *used, whole = *at == '+' ? short_one : long_one;
        if (left < whole) break;
        if (memcmp(at, *at == '+' ? ok : head, *at == '+' ? short_one : sizeof head - 1) != 0) die("an unexpected reply");
        *used += whole;
    }
    return count;
}

static int by_size(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    if (argc != 6) die("usage: limit PORT (get|set|mix) DEPTH SECONDS (sleep|spin)");
    int                share = strcmp(argv[2], "get") == 0 ? 0 : strcmp(argv[2], "set") == 0 ? 100 : 20; /* of sets, per cent */
    size_t             depth = strtoul(argv[3], NULL, 10), next = 0, in_flight = 0, have = 0, used, timed = 0, sampled = 0;
    double             seconds = strtod(argv[4], NULL);
    int                wait = strcmp(argv[5], "spin") == 0 ? MSG_DONTWAIT : 0, yes = 1;
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int                fd = socket(AF_INET, SOCK_STREAM, 0);
    to.sin_port = htons((uint16_t)atoi(argv[1]));
    size_t room = depth * COMMAND + 65536;
    char  *out = malloc(room), *in = malloc(room);
    if (depth == 0 || !out || !in || fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to) != 0) die("cannot start");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    prepare();

    /* The first third is the warm-up. Of all that is in flight one command is timed: the last of a write, then the last of the
     * write that follows its reply. */
    int64_t begin = now_ns(CLOCK_MONOTONIC), from = begin + (int64_t)(seconds / 2 * 1e9), end = from + (int64_t)(seconds * 1e9);
    int64_t now = begin, sent = begin, start = 0, cpu = 0;
    double  count = 0;
    while (now < end) {
        size_t to_send = 0;
        for (; in_flight < depth; in_flight++, next = (next + 1) % KEYS) {
            int set = (int)(next * 37 % 100) < share;
            memcpy(out + to_send, commands[set][order[next]], lengths[set]);
            to_send += lengths[set];
        }
        for (size_t at = 0; at < to_send;) {
            ssize_t n = send(fd, out + at, to_send - at, MSG_NOSIGNAL);
            if (n < 0) die("cannot send");
            at += (size_t)n;
        }
        ssize_t n;
        do
            n = recv(fd, in + have, room - have, wait);
        while (n < 0 && errno == EAGAIN);
        if (n <= 0) die("the server has gone");
        size_t got = replies(in, have + (size_t)n, &used);
        have += (size_t)n - used;
        memmove(in, in + used, have);
        in_flight -= got;
        now = now_ns(CLOCK_MONOTONIC);
        if (!start) {
            if (now < from) continue;
            start = sent = now;
            cpu = cpu_ns();
            timed = depth;
            continue;
        }
        count += (double)got;
        if (timed > got) {
            timed -= got;
        } else {
            if (sampled < SAMPLES) samples[sampled++] = now - sent;
            sent = now;
            timed = depth;
        }
    }
    qsort(samples, sampled, sizeof *samples, by_size);
    if (sampled == 0) die("too short to measure");
    printf("{\"ops\": %.1f, \"cpu\": %.4f, \"p50\": %.2f, \"p99\": %.2f}\n", count * 1e9 / (double)(now - start),
           (double)(cpu_ns() - cpu) / 1e3 / count, (double)samples[sampled / 2] / 1e3, (double)samples[sampled * 99 / 100] / 1e3);
    return 0;
}
