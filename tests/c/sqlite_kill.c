/* sqlite_kill.c: a process that writes is killed at random moments, again and again. What it was told to be stored is there, what it was never told is
 * whole or absent, and the file is sound. CF_KILLS; CF_LONG=1 is 500 of them. */
#define _GNU_SOURCE
#include "sqlite_support.h"

#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { IN_FLIGHT = 64, SLOTS = 500 };

/* Key k-N is written again in each round of SLOTS: its value is the number of the write, and grows. */
typedef struct written {
    uint64_t number;
    int      pipe;
    int     *live;
} written;

static void on_set(cf_op *op, void *user)
{
    written *w = user;
    if (cf_op_status(op) == CF_OK && write(w->pipe, &w->number, sizeof w->number) != sizeof w->number) _exit(4);
    if (cf_op_status(op) != CF_OK) {
        fprintf(stderr, "%s\n", cf_op_error(op)->text);
        _exit(5);
    }
    --*w->live;
    w->number = 0;
    cf_op_free(op);
}

static void key_of(uint64_t number, char *key) { sprintf(key, "k-%llu", (unsigned long long)(number % SLOTS)); }

static _Noreturn void write_for_ever(const char *path, int pipe, uint64_t first, bool blocking)
{
    cf_loop        *loop = new_loop(blocking);
    cf_store       *store = open_file(loop, path, "");
    static written  slots[IN_FLIGHT];
    int             live = 0;
    for (uint64_t number = first;; number++) {
        char key[32], value[600];
        key_of(number, key);
        int len = sprintf(value, "%llu:", (unsigned long long)number);
        size_t more = number * 7919 % 500;
        memset(value + len, 'v', more);
        cf_request request = {.size = sizeof request, .kind = CF_OP_SET, .key = cf_text(key), .value = cf_bytes(value, (size_t)len + more)};
        cf_op     *op;
        if (blocking) {
            int rc = cf_submit(store, &request, &op);
            if (rc == CF_PENDING) rc = cf_op_wait(op);
            if (rc != CF_OK) _exit(5);
            cf_op_free(op);
            if (write(pipe, &number, sizeof number) != sizeof number) _exit(4);
            continue;
        }
        while (live == IN_FLIGHT) cf_loop_run(loop, -1);
        written *slot = slots;
        while (slot->number) slot++;
        *slot = (written){number, pipe, &live};
        request.done = on_set;
        request.user = slot;
        if (cf_submit(store, &request, &op) != CF_PENDING) _exit(6);
        live++;
    }
}

static uint64_t acknowledged[SLOTS], first = SLOTS;

static void read_acknowledged(int pipe, uint64_t *last, long *count)
{
    uint64_t number;
    while (read(pipe, &number, sizeof number) == sizeof number) {
        if (number > acknowledged[number % SLOTS]) acknowledged[number % SLOTS] = number;
        if (number > *last) *last = number;
        ++*count;
    }
}

/* How many of what was acknowledged is not there. */
static long missing(const char *path)
{
    cf_loop  *loop = new_loop(true);
    cf_store *store = open_file(loop, path, "");
    long      lost = 0;
    for (uint64_t i = 0; i < SLOTS; i++) {
        if (!acknowledged[i]) continue;
        char key[32];
        key_of(i, key);
        answer   a = ask_get(store, key);
        uint64_t number = strtoull(a.value, NULL, 10);
        char     begin[32];
        size_t   whole = (size_t)sprintf(begin, "%llu:", (unsigned long long)number) + number * 7919 % 500;
        if (a.status == CF_OK && a.hit && number >= acknowledged[i] && number % SLOTS == i && a.value_len == whole) continue;
        fprintf(stderr, "%s: %llu was acknowledged, %.20s is there (%zu bytes)\n", key, (unsigned long long)acknowledged[i], a.value, a.value_len);
        lost++;
    }
    cf_loop_free(loop);
    return lost;
}

int main(void)
{
    long kills = (long)env_number("CF_KILLS", env_number("CF_LONG", 0) ? 500 : 25), lost = 0, unsound = 0, count = 0, most = 0;
    rng  random = {seed_of_run()};
    hang_guard(kills > 100 ? 800 : 200);
    const char *path = in_folder("a.db");
    for (long kill_ = 0; kill_ < kills; kill_++) {
        int  ends[2], status;
        long before = count;
        if (pipe(ends) != 0) return 2;
        fflush(NULL);
        pid_t child = fork();
        if (child == 0) {
            close(ends[0]);
            write_for_ever(path, ends[1], first, kill_ % 3 == 0);
        }
        close(ends[1]);
        struct timespec pause = {0, (long)rng_below(&random, 120000000)};
        nanosleep(&pause, NULL);
        kill(child, SIGKILL);
        uint64_t last = first;
        read_acknowledged(ends[0], &last, &count);
        close(ends[0]);
        if (waitpid(child, &status, 0) != child || !WIFSIGNALED(status)) {
            printf("the writer ended by itself (%x)\n", (unsigned)status);
            return 1;
        }
        if (count - before > most) most = count - before;
        /* By turns who sees the file first: another process, which then has to recover it, or this one. */
        if (kill_ % 2) unsound += !peer_sound(path);
        lost += missing(path);
        if (kill_ % 2 == 0) unsound += !peer_sound(path);
        first = last + IN_FLIGHT + 1;
    }
    printf("%ld kills: %ld writes acknowledged (at most %ld in one life), %ld lost, %ld times unsound\n", kills, count, most, lost, unsound);
    return lost || unsound || count < kills ? 1 : 0;
}
