#define _GNU_SOURCE
#include "redis_support.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static _Noreturn void give_up(const char *what)
{
    fprintf(stderr, "redis_support: %s: %s\n", what, strerror(errno));
    exit(2);
}

int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void nap(int ms)
{
    struct timespec time = {ms / 1000, (long)(ms % 1000) * 1000000};
    nanosleep(&time, NULL);
}

/* ------------------------------------------------------------------------------------------------------------- server -- */

static struct sockaddr_in address_of(int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

static int free_port(void)
{
    struct sockaddr_in address = address_of(0);
    socklen_t          size = sizeof address;
    int                fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, size) != 0 || getsockname(fd, (struct sockaddr *)&address, &size) != 0) give_up("no port");
    close(fd);
    return ntohs(address.sin_port);
}

static void launch(server *s)
{
    char        port[16];
    const char *words[40] = {"redis-server", "--bind", "127.0.0.1", "--port", port, "--save", "", "--appendonly", "no", "--dir", s->folder,
                             "--logfile", "", "--enable-debug-command", "yes"};
    int         count = 15;
    snprintf(port, sizeof port, "%d", s->port);
    for (int i = 0; i < 8 && s->options[i][0]; i++) words[count++] = strcmp(s->options[i], "''") ? s->options[i] : "";
    pid_t parent = getpid();
    fflush(NULL);
    s->pid = fork();
    if (s->pid == 0) {
        int null = open("/dev/null", O_RDWR);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) _exit(1);
        for (int fd = 0; fd < 3; fd++) dup2(null, fd);
        for (int fd = 3; fd < 256; fd++) close(fd);
        unsetenv("LD_PRELOAD"); /* what a sanitizer needs is nothing for a server; the staged clock is */
        if (getenv("CF_SERVER_PRELOAD")) setenv("LD_PRELOAD", getenv("CF_SERVER_PRELOAD"), 1);
        execvp(words[0], (char *const *)words);
        _exit(127);
    }
    if (s->pid < 0) give_up("fork");
}

static void forget_eyes(server *s)
{
    if (s->eyes >= 0) close(s->eyes);
    s->eyes = -1;
}

void server_start(server *s, const char *const options[])
{
    memset(s, 0, sizeof *s);
    s->eyes = -1;
    for (int i = 0; options && options[i]; i++) snprintf(s->options[i], sizeof s->options[i], "%s", *options[i] ? options[i] : "''");
    snprintf(s->folder, sizeof s->folder, "/tmp/cf-c.XXXXXX");
    if (!mkdtemp(s->folder)) give_up("mkdtemp");
    for (int attempt = 0; attempt < 5; attempt++) {
        s->port = free_port();
        launch(s);
        nap(20);
        if (waitpid(s->pid, NULL, WNOHANG) == 0) break; /* otherwise somebody was quicker to take the port */
    }
    server_await(s);
}

void server_again(server *s) { launch(s); }

void server_kill(server *s)
{
    if (s->pid > 0) {
        kill(s->pid, SIGKILL);
        waitpid(s->pid, NULL, 0);
    }
    s->pid = 0;
    forget_eyes(s);
}

void server_pause(server *s)
{
    siginfo_t info;
    kill(s->pid, SIGSTOP);
    waitid(P_PID, (id_t)s->pid, &info, WSTOPPED | WNOWAIT);
}
void server_resume(server *s) { kill(s->pid, SIGCONT); }

void server_stop(server *s)
{
    server_kill(s);
    rmdir(s->folder);
}

/* ------------------------------------------------------------------------------------------------- looking at the server -- */

static bool look(server *s)
{
    struct sockaddr_in address = address_of(s->port);
    struct timeval     patience = {20, 0};
    int                one = 1;
    if (s->eyes >= 0) return true;
    s->eyes = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (s->eyes < 0) give_up("socket");
    setsockopt(s->eyes, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(s->eyes, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(s->eyes, (struct sockaddr *)&address, sizeof address) == 0) return true;
    forget_eyes(s);
    return false;
}

static bool line(server *s, char *out, size_t size)
{
    size_t len = 0;
    for (;;) {
        char c;
        if (recv(s->eyes, &c, 1, 0) != 1) return false;
        if (c == '\n') break;
        if (c != '\r' && len + 1 < size) out[len++] = c;
    }
    out[len] = 0;
    return true;
}

/* NULL: the connection has gone. Of an array only the number of its parts. */
static const char *talk(server *s, const char *command)
{
    static char said[64 * 1024];
    char        all[4096];
    int         len = snprintf(all, sizeof all, "%s\r\n", command); /* an inline command, as by telnet */
    if (!look(s) || send(s->eyes, all, (size_t)len, MSG_NOSIGNAL) != len || !line(s, said, sizeof said)) return NULL;
    if (said[0] == '$') {
        long size = atol(said + 1);
        if (size < 0) return "(nil)";
        if ((size_t)size + 2 >= sizeof said) give_up("a long answer");
        for (ssize_t got = 0, more; got < size + 2; got += more)
            if ((more = recv(s->eyes, said + got, (size_t)(size + 2 - got), 0)) <= 0) return NULL;
        said[size] = 0;
    } else if (said[0] == '*') {
        char part[4096];
        for (long left = atol(said + 1) * 2; left > 0; left--)
            if (!line(s, part, sizeof part)) return NULL;
    }
    return said;
}

const char *server_says(server *s, const char *command)
{
    const char *said = talk(s, command);
    if (!said) {
        forget_eyes(s);
        said = talk(s, command);
    }
    if (!said) give_up(command);
    return said;
}

long long server_number(server *s, const char *command)
{
    const char *said = server_says(s, command);
    return strtoll(*said == ':' ? said + 1 : said, NULL, 10);
}

long long server_info(server *s, const char *section, const char *name)
{
    char command[64], wanted[64];
    snprintf(command, sizeof command, "INFO %s", section);
    snprintf(wanted, sizeof wanted, "\n%s:", name);
    const char *at = strstr(server_says(s, command), wanted);
    return at ? strtoll(at + strlen(wanted), NULL, 10) : 0;
}

long long server_calls(server *s, const char *command)
{
    char wanted[64];
    snprintf(wanted, sizeof wanted, "cmdstat_%s:calls=", command);
    const char *at = strstr(server_says(s, "INFO commandstats"), wanted);
    return at ? strtoll(at + strlen(wanted), NULL, 10) : 0;
}

void server_await(server *s)
{
    for (int64_t until = now_ms() + 20000; now_ms() < until; nap(5)) {
        const char *said = talk(s, "PING");
        if (said && strcmp(said, "+PONG") == 0) return;
        forget_eyes(s);
    }
    give_up("redis-server does not said");
}

/* ------------------------------------------------------------------------------------------------------------- stores -- */

void on_told(void *user, int event, const cf_error *what)
{
    told *t = user;
    t->count[event]++;
    t->last[event] = *what;
}

cf_store *open_redis(cf_loop *loop, int port, const char *options, int64_t timeout_ms)
{
    cf_open_options open = {.size = sizeof open, .timeout_ms = timeout_ms};
    cf_store       *store = NULL;
    cf_error        error;
    char            url[1024];
    snprintf(url, sizeof url, "redis://127.0.0.1:%d/%s", port, options ? options : "");
    if (cf_open(loop, cf_text(url), &open, &store, &error) != CF_OK) {
        fprintf(stderr, "open: %s\n", error.text);
        exit(2);
    }
    return store;
}
