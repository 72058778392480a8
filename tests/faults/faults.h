/* The fault kit for C tests: starts the proxy and talks to it. Static functions, so that a test includes this and links nothing.
 *
 *     faults_proxy *proxy = faults_proxy_start(getenv("CF_FAULTPROXY"), "127.0.0.1:6379");
 *     faults_say(proxy, "next cut reply %d rst", n);
 *     ... connect to 127.0.0.1:(proxy->port) ...
 *     faults_proxy_stop(proxy); */
#ifndef COUNTERFOIL_FAULTS_H
#define COUNTERFOIL_FAULTS_H

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct faults_proxy {
    pid_t pid;
    int   port;
    int   control;
    char  answer[512]; /* what the proxy said last, without the line's end */
} faults_proxy;

/* A line of the proxy's language (README.md). What it does not understand is a mistake in the test: it ends the program. Gives
 * the text after "ok ". */
__attribute__((format(printf, 2, 3), unused)) static const char *faults_say(faults_proxy *proxy, const char *format, ...)
{
    char    line[8192];
    va_list arguments;
    va_start(arguments, format);
    int len = vsnprintf(line, sizeof line - 1, format, arguments);
    va_end(arguments);
    if (len < 0 || (size_t)len >= sizeof line - 1) abort();
    line[len++] = '\n';
    if (send(proxy->control, line, (size_t)len, MSG_NOSIGNAL) != len) abort();
    size_t got = 0;
    char  *to = proxy->answer;
    while (got < sizeof proxy->answer - 1 && recv(proxy->control, to + got, 1, 0) == 1 && to[got] != '\n') got++;
    to[got] = 0;
    if (strncmp(proxy->answer, "ok", 2) != 0) {
        fprintf(stderr, "faultproxy: %s: %.*s\n", proxy->answer, len - 1, line);
        abort();
    }
    return proxy->answer[2] ? proxy->answer + 3 : proxy->answer + 2;
}

/* One of the figures that `stats` gives. */
__attribute__((unused)) static unsigned long long faults_figure(faults_proxy *proxy, const char *name)
{
    char        wanted[32];
    const char *all = faults_say(proxy, "stats");
    snprintf(wanted, sizeof wanted, "%s=", name);
    const char *at = strstr(all, wanted);
    if (!at) abort();
    return strtoull(at + strlen(wanted), NULL, 10);
}

/* `program` is the built proxy.c; NULL when it cannot be started. */
__attribute__((unused)) static faults_proxy *faults_proxy_start(const char *program, const char *to)
{
    int           out[2], control_port = 0, one = 1;
    char          line[64];
    faults_proxy *proxy = calloc(1, sizeof *proxy);
    if (!program || !proxy || pipe(out) != 0) {
        free(proxy);
        return NULL;
    }
    fcntl(out[0], F_SETFD, FD_CLOEXEC);
    proxy->pid = fork();
    if (proxy->pid == 0) {
        dup2(out[1], 1);
        close(out[1]);
        execl(program, program, "--listen", "127.0.0.1:0", "--to", to, "--tether", (char *)NULL);
        _exit(127);
    }
    close(out[1]);
    FILE *said = fdopen(out[0], "r");
    int   ready = said && fgets(line, sizeof line, said) && sscanf(line, "ready %d %d", &proxy->port, &control_port) == 2;
    if (said) fclose(said);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)control_port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    proxy->control = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (ready && connect(proxy->control, (struct sockaddr *)&address, sizeof address) == 0) {
        setsockopt(proxy->control, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        return proxy;
    }
    close(proxy->control);
    if (proxy->pid > 0) {
        kill(proxy->pid, SIGKILL);
        waitpid(proxy->pid, NULL, 0);
    }
    free(proxy);
    return NULL;
}

__attribute__((unused)) static void faults_proxy_stop(faults_proxy *proxy)
{
    if (!proxy) return;
    close(proxy->control);
    kill(proxy->pid, SIGKILL);
    waitpid(proxy->pid, NULL, 0);
    free(proxy);
}

#endif
