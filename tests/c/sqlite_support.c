#define _GNU_SOURCE
#include "sqlite_support.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static int64_t clock_of(clockid_t which)
{
    struct timespec now;
    clock_gettime(which, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int64_t now_ms(void) { return clock_of(CLOCK_MONOTONIC); }
int64_t wall_ms(void) { return clock_of(CLOCK_REALTIME); }

void nap(int ms)
{
    struct timespec time = {ms / 1000, (long)(ms % 1000) * 1000000};
    while (nanosleep(&time, &time) != 0 && errno == EINTR) {}
}

/* ------------------------------------------------------------------------------------------------------------- files -- */

static char  root[256];
static pid_t maker;

static void remove_folder(void)
{
    if (getpid() != maker) return;
    folder_empty();
    rmdir(root);
}

const char *folder(void)
{
    if (*root) return root;
    const char *in = getenv("TMPDIR");
    snprintf(root, sizeof root, "%s/cf-sqlite.XXXXXX", in && *in ? in : "/tmp");
    if (!mkdtemp(root)) exit(2);
    maker = getpid();
    atexit(remove_folder);
    return root;
}

void folder_empty(void)
{
    DIR *dir = opendir(folder());
    if (!dir) return;
    for (struct dirent *at; (at = readdir(dir));) {
        char path[PATH_ROOM];
        if (!strcmp(at->d_name, ".") || !strcmp(at->d_name, "..")) continue;
        snprintf(path, sizeof path, "%s/%s", root, at->d_name);
        if (unlink(path) != 0) rmdir(path);
    }
    closedir(dir);
}

const char *in_folder(const char *name)
{
    static char paths[8][PATH_ROOM];
    static int  next;
    char       *path = paths[next++ % 8];
    snprintf(path, PATH_ROOM, "%s/%s", folder(), name);
    return path;
}

bool exists(const char *path)
{
    struct stat is;
    return lstat(path, &is) == 0;
}

int try_open(cf_loop *loop, const char *path, const char *options, cf_store **store, cf_error *error)
{
    char url[2 * PATH_ROOM];
    snprintf(url, sizeof url, "sqlite:%s%s", path, options);
    return cf_open(loop, cf_text(url), NULL, store, error);
}

cf_store *open_file(cf_loop *loop, const char *path, const char *options)
{
    cf_store *store = NULL;
    cf_error  error;
    if (try_open(loop, path, options, &store, &error) == CF_OK) return store;
    fprintf(stderr, "sqlite_support: open: %s\n", error.text);
    abort();
}

cf_loop *new_loop(bool blocking)
{
    cf_loop *loop;
    if (cf_loop_new(NULL, &loop) != CF_OK) abort();
    cf_loop_set_blocking(loop, blocking);
    return loop;
}

/* -------------------------------------------------------------------------------------------------------------- peer -- */

static holder start(const char *how, const char *path, const char *sql)
{
    holder      h = {0};
    int         to[2], from[2];
    const char *program = getenv("CF_SQLITE_PEER");
    const char *words[] = {program, how, path, sql, NULL};
    posix_spawn_file_actions_t actions;
    if (!program || pipe2(to, O_CLOEXEC) != 0 || pipe2(from, O_CLOEXEC) != 0) {
        fprintf(stderr, "sqlite_support: CF_SQLITE_PEER names no program, or there is no pipe\n");
        exit(2);
    }
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, to[0], 0);
    posix_spawn_file_actions_adddup2(&actions, from[1], 1);
    if (posix_spawn(&h.pid, program, &actions, NULL, (char *const *)words, environ) != 0) exit(2);
    posix_spawn_file_actions_destroy(&actions);
    close(to[0]);
    close(from[1]);
    h.say = to[1];
    h.hear = from[0];
    return h;
}

static void end(holder *h)
{
    int status;
    close(h->say);
    close(h->hear);
    while (waitpid(h->pid, &status, 0) < 0 && errno == EINTR) {}
}

const char *peer(const char *path, const char *sql)
{
    static char text[1 << 20];
    size_t      len = 0;
    ssize_t     got;
    holder      h = start("run", path, sql);
    while ((got = read(h.hear, text + len, sizeof text - 1 - len)) > 0) len += (size_t)got;
    end(&h);
    if (len && text[len - 1] == '\n') len--;
    text[len] = 0;
    return text;
}

holder peer_hold(const char *path, const char *sql)
{
    holder h = start("hold", path, sql);
    char   text[256] = {0};
    size_t len = 0;
    while (!strstr(text, "held\n")) {
        ssize_t got = read(h.hear, text + len, sizeof text - 1 - len);
        if (got <= 0) exit(2);
        len += (size_t)got;
    }
    if (text[0] == '!') {
        fprintf(stderr, "sqlite_peer: %s", text);
        exit(2);
    }
    return h;
}

void peer_let_go(holder *h) { end(h); }

bool peer_sound(const char *path)
{
    const char *says = peer(path, "PRAGMA integrity_check");
    if (strcmp(says, "ok") == 0) return true;
    fprintf(stderr, "integrity_check: %s\n", says);
    return false;
}

void join_child(pid_t child)
{
    int status = -1;
    assert_true(child > 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    if (WIFSIGNALED(status)) fail_msg("the child was killed by signal %d", WTERMSIG(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}
