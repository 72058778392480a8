/* sqlite_forks.c: a process forks while its threads write, read, open and close. Its children use what they have inherited and open it anew, the parent goes on;
 * nothing is lost, nobody waits for ever, and every child has locks of its own. CF_FORKS children. */
#define _GNU_SOURCE
#include "sqlite_support.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WRITERS = 4, INHERITED = 2 };

static const char   *path;
static atomic_bool   over;
static atomic_ullong writes, reopened;

static void insist(cf_store *store, const cf_request *request, const char *who)
{
    cf_op *op;
    int    rc = cf_submit(store, request, &op);
    if (rc == CF_PENDING) rc = cf_op_wait(op);
    if (rc != CF_OK || !cf_op_hit(op)) {
        fprintf(stderr, "%s: %s %s\n", who, cf_status_name(rc), cf_op_error(op)->text);
        _exit(20);
    }
    cf_op_free(op);
}

static cf_request counting_of(const char *key) { return (cf_request){.size = sizeof(cf_request), .kind = CF_OP_INCR, .key = cf_text(key), .by = 1, .timeout_ms = 60000}; }

/* Even ones wait, odd ones have an event loop. */
static void *keep_writing(void *given)
{
    long       mine = (long)(intptr_t)given;
    cf_loop   *loop = new_loop(mine % 2 == 0);
    cf_store  *store = open_file(loop, path, "");
    cf_request request = counting_of("parent");
    while (!atomic_load(&over)) {
        insist(store, &request, "a writer");
        atomic_fetch_add(&writes, 1);
        insist(store, CF_REQUEST(CF_OP_GET, .key = cf_text("parent"), .timeout_ms = 60000), "a writer, reading");
    }
    cf_loop_free(loop);
    return NULL;
}

/* The last store over a file, closed and opened again all the time: a file that is just being closed is inherited too. */
static void *keep_opening(void *given)
{
    while (!atomic_load(&over)) {
        cf_loop   *loop = new_loop(atomic_load(&reopened) % 2 == 0);
        cf_store  *store = open_file(loop, given, "");
        cf_request request = counting_of("opened");
        insist(store, &request, "an opener");
        cf_loop_free(loop);
        atomic_fetch_add(&reopened, 1);
    }
    return NULL;
}

/* SQLite keeps a shared lock on a file that is open in WAL: without it somebody else takes the -wal away. As long as an inherited connection is open, SQLite believes
 * that the process has one already, and takes none. */
static bool has_a_lock(const char *file)
{
    char    line[256], mine[32], node[32];
    cf_file is;
    FILE   *locks = fopen("/proc/locks", "r");
    bool    found = false;
    if (!locks || cf_platform_real()->file_look(NULL, file, &is) != 0) _exit(21);
    snprintf(mine, sizeof mine, " %d ", (int)getpid());
    snprintf(node, sizeof node, ":%llu ", (unsigned long long)is.node);
    while (fgets(line, sizeof line, locks)) found |= strstr(line, mine) && strstr(line, node);
    fclose(locks);
    return found;
}

static _Noreturn void child_of(cf_loop **loops, cf_store **stores, const char *other)
{
    cf_request mine = counting_of("children"), theirs = counting_of("opened by children");
    hang_guard(60);
    /* Opened anew, beside what was inherited and nobody has reopened. */
    cf_loop  *loop = new_loop(true);
    cf_store *store = open_file(loop, other, "");
    insist(store, &theirs, "a child, opening");
    if (!has_a_lock(other)) _exit(22);
    cf_loop *again = new_loop(false);
    cf_store *same = open_file(again, path, "");
    insist(same, &mine, "a child, opening what was inherited");
    if (!has_a_lock(path)) _exit(23);
    for (int i = 0; i < INHERITED; i++) {
        if (cf_loop_reopen(loops[i]) != CF_OK) _exit(24);
        insist(stores[i], &mine, "a child, with what it inherited");
        insist(stores[i], CF_REQUEST(CF_OP_GET, .key = cf_text("children"), .timeout_ms = 60000), "a child, reading");
    }
    cf_loop_free(loop);
    cf_loop_free(loops[0]);
    insist(stores[1], &mine, "a child, after it has closed others");
    _exit(0); /* with two loops open */
}

static unsigned long long counter(const char *file, const char *key)
{
    char sql[128];
    snprintf(sql, sizeof sql, "SELECT CAST(value AS TEXT) FROM entry WHERE key = '%s'", key);
    return strtoull(peer(file, sql), NULL, 10);
}

int main(void)
{
    long        forks = (long)env_number("CF_FORKS", 50);
    pthread_t   threads[WRITERS + 1];
    cf_loop    *loops[INHERITED];
    cf_store   *stores[INHERITED];
    char        other[PATH_ROOM];
    int         status, bad = 0;
    cf_request  request = counting_of("parent");
    hang_guard(200);
    path = in_folder("a.db");
    strcpy(other, in_folder("b.db"));
    for (int i = 0; i < INHERITED; i++) {
        loops[i] = new_loop(i == 0);
        stores[i] = open_file(loops[i], path, "");
    }
    for (long i = 0; i < WRITERS; i++)
        if (pthread_create(&threads[i], NULL, keep_writing, (void *)(intptr_t)i) != 0) return 2;
    if (pthread_create(&threads[WRITERS], NULL, keep_opening, other) != 0) return 2;
    for (long i = 0; i < forks; i++) {
        for (int j = 0; j < INHERITED; j++) { /* the parent's own stores live on */
            insist(stores[j], &request, "the parent");
            atomic_fetch_add(&writes, 1);
        }
        fflush(NULL);
        pid_t child = fork();
        if (child == 0) child_of(loops, stores, other);
        if (child < 0 || waitpid(child, &status, 0) != child || status != 0) {
            fprintf(stderr, "a child ended with %x\n", (unsigned)status);
            bad++;
        }
    }
    atomic_store(&over, true);
    for (int i = 0; i <= WRITERS; i++) pthread_join(threads[i], NULL);
    for (int i = 0; i < INHERITED; i++) cf_loop_free(loops[i]);
    unsigned long long parents = counter(path, "parent"), children = counter(path, "children"), opened = counter(other, "opened");
    printf("%ld forks: %llu writes of the parent (%llu there), %llu of its children (%llu there), %llu openings (%llu there)\n", forks, (unsigned long long)writes, parents,
           (unsigned long long)forks * 4, children, (unsigned long long)reopened, opened);
    bool fine = !bad && parents == writes && children == (unsigned long long)forks * 4 && opened == reopened && counter(other, "opened by children") == (unsigned long long)forks;
    return fine && peer_sound(path) && peer_sound(other) ? 0 : 1;
}
