/* redis_support.h: a redis-server of a test's own, a connection that looks at it, and stores of Redis on a loop. */
#ifndef REDIS_SUPPORT_H
#define REDIS_SUPPORT_H

#include <sys/types.h>

#include "support.h"

/* Started on a free port of loopback; it dies with the thread that has started it. Keeps nothing on disk. */
typedef struct server {
    pid_t pid;
    int   port;
    char  folder[32];
    char  options[8][64]; /* further words of its command line, up to an empty one */
    int   eyes;           /* a socket to look with; -1: none yet */
} server;
void server_start(server *s, const char *const options[]); /* up to NULL; `options` may be NULL */
void server_kill(server *s);                               /* SIGKILL */
void server_again(server *s);                              /* on the same port; returns at once */
void server_await(server *s);                              /* until it answers PING */
void server_pause(server *s);
void server_resume(server *s);
void server_stop(server *s); /* with its folder */

/* One command, its words divided by spaces, and the answer as text: +OK, -ERR ..., :1, the bytes of a string, (nil). Static, until the next. */
const char *server_says(server *s, const char *command);
long long   server_number(server *s, const char *command); /* of an answer that is one, or a text of digits */
/* A line of INFO as a number. */
long long server_info(server *s, const char *section, const char *name);
/* How many times the server has executed a command; 0: never. */
long long server_calls(server *s, const char *command);

int64_t now_ms(void); /* a clock that never jumps */
void    nap(int ms);

/* What a store has told. */
typedef struct told {
    int      count[CF_EVENTS];
    cf_error last[CF_EVENTS];
} told;
void on_told(void *user, int event, const cf_error *what);

/* Opens redis://127.0.0.1:PORT with options (?a=b or NULL) and insists. `timeout_ms` 0: the usual. */
cf_store *open_redis(cf_loop *loop, int port, const char *options, int64_t timeout_ms);

/* Runs the loop until the condition holds; false: it has not within so many ms. */
#define RUN_UNTIL(loop_, condition_, within_)                                                      \
    do {                                                                                           \
        int64_t run_until_ = now_ms() + (within_);                                                 \
        while (!(condition_) && now_ms() < run_until_) assert_true(cf_loop_run((loop_), 20) >= 0); \
        assert_true(condition_);                                                                   \
    } while (0)

#endif
