/* faultproxy: a byte-exact proxy for tests. One thread, nothing random but what a seed says. The language is in README.md.
 *
 *     faultproxy --listen 127.0.0.1:0 --to 127.0.0.1:6379 [--control 127.0.0.1:0] [--tether]
 *
 * It prints "ready LISTEN-PORT CONTROL-PORT" and obeys lines on the control port. --tether: it dies with the thread that has
 * started it.
 *
 * A link is a client and a server with a stream in each direction. A stream passes bytes from `in` to `out`, and each byte's
 * place is known: a rule fires between two bytes, when exactly those before it have been passed on. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { REQUEST, REPLY };       /* a stream's direction; REQUEST comes from the CLIENT */
enum { CLIENT, SERVER };       /* a link's sides                                      */
enum { ROOM = 65536, MARKS = 256, LONGEST_LINE = 4 << 20 };

typedef enum how { FIN, RST, STALL, BLACKHOLE } how;
typedef enum kind { CUT, INSERT, REPLACE, FLOOD } kind;

typedef struct bytes {
    char  *ptr;
    size_t len, room;
} bytes;

typedef struct rule {
    struct rule *next;
    kind         what;
    int          direction;
    bool         by_message;    /* `at` counts messages, and `offset` bytes from there             */
    bool         every_message; /* fires at each of them                                           */
    bool         waits;         /* fires when the byte at its place has arrived, not before        */
    uint64_t     at, offset;
    uint64_t     count;         /* REPLACE: bytes to leave out; FLOOD: how often                   */
    bool         whole;         /* REPLACE: to the end of the message                              */
    how          end;
    bytes        data;
} rule;

/* Where messages of the Redis protocol end. A stream that does not speak it has no more ends. */
typedef struct parser {
    enum { START, LINE, PAYLOAD, BROKEN } state;
    char     type;
    char     line[24];
    size_t   line_len;
    uint64_t payload;
    unsigned depth;
    uint64_t left[32];
} parser;

typedef struct mark { /* with a delay: bytes up to here may pass from then on */
    uint64_t upto;
    int64_t  due;
} mark;

typedef struct stream {
    char     in[ROOM];
    size_t   start, end; /* of what is in `in` */
    bytes    out;
    size_t   written;
    uint64_t arrived, passed, messages, allowed;
    mark     marks[MARKS];
    unsigned first_mark, mark_count;
    int64_t  last_due, not_before;
    parser   parser;
    uint64_t drop;
    bool     drop_message;
    bytes    flood;
    uint64_t flood_left;
    bool     cut, eof, reset, shut, deaf; /* deaf: its destination takes nothing any more */
    how      end_how;
    uint64_t judged; /* messages that the chance of a loss has been asked about */
} stream;

typedef struct link {
    struct link *next, **back;
    uint64_t     id;
    int          fd[2];
    uint32_t     interest[2];
    bool         watched[2], connecting, stalled, hole, over, draining, dead;
    stream       dir[2];
    rule        *rules;
    struct handle {
        struct link *link;
        int          side;
    } handle[2];
} link_t;

typedef struct batch { /* rules for connections to come */
    struct batch *next;
    uint64_t      left;
    rule         *rules;
} batch;

typedef struct control {
    struct control *next;
    int             fd;
    bytes           line;
    bool            waiting, gone;
    char            field[16], op;
    uint64_t        wanted;
    int64_t         deadline;
} control;

static int      poller, listener = -1, control_listener;
static char     target[512], listen_address[512];
static link_t  *links, *graveyard;
static control *controls;
static batch   *upcoming;
static rule    *for_every, *for_total;
static int64_t  now_ms;
static bool     soon; /* a slice waits for the next turn */
static struct {
    int64_t  delay, jitter, gap;
    uint64_t slice;
} settings[2];
static uint64_t dice = 1;
static double   chance;
static uint64_t chance_skip;
static struct {
    uint64_t accepted, open, draining, cut, fired, failed, passed[2], messages[2];
} figures;
static uint64_t cut_base, fired_base;

/* ---------------------------------------------------------------------------------------------------------- small things -- */

static void die(const char *what)
{
    fprintf(stderr, "faultproxy: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int64_t monotonic_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static uint64_t roll(void)
{
    uint64_t x = dice += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static void *need(void *block)
{
    if (!block) die("no memory");
    return block;
}

static void append(bytes *to, const char *ptr, size_t len)
{
    if (to->len + len > to->room) {
        to->room = (to->len + len) * 2;
        to->ptr = need(realloc(to->ptr, to->room));
    }
    if (len) memcpy(to->ptr + to->len, ptr, len);
    to->len += len;
}

static void rules_free(rule *list)
{
    while (list) {
        rule *next = list->next;
        free(list->data.ptr);
        free(list);
        list = next;
    }
}

/* At the end of the list: rules for one place fire in the order in which they were given. */
static void rule_add(rule **list, rule *one)
{
    while (*list) list = &(*list)->next;
    one->next = NULL;
    *list = one;
}

static rule *rule_copy(const rule *from)
{
    rule *made = need(malloc(sizeof *made));
    *made = *from;
    memset(&made->data, 0, sizeof made->data);
    append(&made->data, from->data.ptr, from->data.len);
    return made;
}

/* --------------------------------------------------------------------------------------------------------------- messages -- */

static void element_done(parser *p, bool *ended)
{
    while (p->depth && --p->left[p->depth - 1] == 0) p->depth--;
    p->state = START;
    *ended = p->depth == 0;
}

static void line_done(parser *p, bool *ended)
{
    p->line[p->line_len] = 0;
    int64_t n = strtoll(p->line, NULL, 10);
    bool    map = p->type == '%';
    if (strchr("*~>%", p->type) && n > 0) {
        if (p->depth == 32) {
            p->state = BROKEN;
            return;
        }
        p->left[p->depth++] = (uint64_t)n * (map ? 2 : 1);
        p->state = START;
    } else if (strchr("$=!", p->type) && n >= 0) {
        p->payload = (uint64_t)n + 2;
        p->state = PAYLOAD;
    } else {
        element_done(p, ended);
    }
}

/* Reads on, at most to the end of a message; gives how many bytes that were. */
static size_t parse(parser *p, const char *ptr, size_t len, bool *ended)
{
    size_t at = 0;
    *ended = false;
    while (at < len && !*ended) {
        if (p->state == BROKEN) return len;
        if (p->state == PAYLOAD) {
            size_t step = len - at < p->payload ? len - at : (size_t)p->payload;
            at += step;
            p->payload -= step;
            if (p->payload == 0) element_done(p, ended);
            continue;
        }
        char c = ptr[at++];
        if (p->state == START) {
            p->type = c;
            p->line_len = 0;
            p->state = strchr("+-:$*_,#(!=%~>", c) && c ? LINE : BROKEN;
        } else if (c == '\n') {
            line_done(p, ended);
        } else if (p->line_len < sizeof p->line - 1) {
            p->line[p->line_len++] = c;
        }
    }
    return at;
}

static bool between_messages(const stream *s) { return s->parser.state == START && s->parser.depth == 0; }

/* ------------------------------------------------------------------------------------------------------------------ links -- */

static bool has_room(const stream *s) { return s->end - s->start < ROOM && s->mark_count < MARKS; }

static void watch(link_t *l, int side)
{
    int      fd = l->fd[side];
    uint32_t want = 0;
    if (fd < 0) return;
    if (l->over) {
        want = EPOLLIN;
    } else if (l->stalled) {
        want = side == CLIENT ? EPOLLRDHUP : 0;
    } else {
        const stream *from = &l->dir[side == CLIENT ? REQUEST : REPLY], *to = &l->dir[side == CLIENT ? REPLY : REQUEST];
        bool          connecting = side == SERVER && l->connecting;
        if (!connecting && !from->eof && has_room(from)) want |= EPOLLIN;
        if (connecting || to->written < to->out.len) want |= EPOLLOUT;
    }
    if (want == l->interest[side] && (want != 0) == l->watched[side]) return;
    struct epoll_event event = {.events = want, .data.ptr = &l->handle[side]};
    /* Without any interest it must go: a hang-up is reported all the same, again and again. */
    int change = !l->watched[side] ? EPOLL_CTL_ADD : want ? EPOLL_CTL_MOD : EPOLL_CTL_DEL;
    if ((want || l->watched[side]) && epoll_ctl(poller, change, fd, &event) != 0) die("epoll_ctl");
    l->watched[side] = want != 0;
    l->interest[side] = want;
}

static void side_close(link_t *l, int side, bool reset)
{
    if (l->fd[side] < 0) return;
    struct linger hard = {1, 0};
    if (reset) setsockopt(l->fd[side], SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    close(l->fd[side]);
    l->fd[side] = -1;
    if (side == SERVER && l->draining) figures.draining--;
    if (side == SERVER) l->draining = false;
}

static void link_over(link_t *l)
{
    if (!l->over) figures.open--;
    l->over = true;
}

static void link_bury(link_t *l)
{
    if (l->dead) return;
    link_over(l);
    side_close(l, CLIENT, false);
    side_close(l, SERVER, false);
    l->dead = true;
    *l->back = l->next;
    if (l->next) l->next->back = l->back;
    l->next = graveyard;
    graveyard = l;
}

static void bury_all(void)
{
    while (graveyard) {
        link_t *l = graveyard;
        graveyard = l->next;
        for (int d = 0; d < 2; d++) {
            free(l->dir[d].out.ptr);
            free(l->dir[d].flood.ptr);
        }
        rules_free(l->rules);
        free(l);
    }
}

/* What a cut does. The server always gets the end in an orderly way, after exactly the bytes that were passed on: what it has
 * been sent it executes. Both sides are then read to their end, since a close with unread bytes would be a reset. */
static void link_end(link_t *l, how end)
{
    figures.cut++;
    if (end == STALL) {
        l->stalled = true;
    } else if (end == BLACKHOLE) {
        l->hole = true;
        for (int d = 0; d < 2; d++) l->dir[d].start = l->dir[d].end = 0;
    } else {
        link_over(l);
        if (end == RST) side_close(l, CLIENT, true);
        else shutdown(l->fd[CLIENT], SHUT_WR);
        if (l->connecting || shutdown(l->fd[SERVER], SHUT_WR) != 0) {
            side_close(l, SERVER, false);
        } else {
            l->draining = true;
            figures.draining++;
        }
        if (l->fd[CLIENT] < 0 && l->fd[SERVER] < 0) {
            link_bury(l);
            return;
        }
    }
    watch(l, CLIENT);
    watch(l, SERVER);
}

/* Whether all of `out` is written. */
static bool flush(link_t *l, int d)
{
    stream *s = &l->dir[d];
    int     to = d == REQUEST ? SERVER : CLIENT;
    if (to == SERVER && l->connecting) return s->out.len == 0;
    while (s->written < s->out.len && !s->deaf) {
        ssize_t n = send(l->fd[to], s->out.ptr + s->written, s->out.len - s->written, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return false;
        if (n < 0 && to == CLIENT) {
            link_bury(l);
            return false;
        }
        if (n < 0) s->deaf = true; /* what the server has still answered is to be delivered */
        else s->written += (size_t)n;
    }
    s->out.len = s->written = 0;
    return true;
}

/* How many bytes of `in` may pass now. */
static size_t ready_bytes(stream *s)
{
    if (!s->mark_count) return s->end - s->start;
    while (s->mark_count && s->marks[s->first_mark].due <= now_ms) {
        s->allowed = s->marks[s->first_mark].upto;
        s->first_mark = (s->first_mark + 1) % MARKS;
        s->mark_count--;
    }
    return s->allowed > s->passed ? (size_t)(s->allowed - s->passed) : 0;
}

static void rule_fire(link_t *l, rule **place)
{
    rule   *r = *place;
    stream *s = &l->dir[r->direction];
    figures.fired++;
    switch (r->what) {
    case CUT:
        s->cut = true;
        s->end_how = r->end;
        break;
    case INSERT: append(&s->out, r->data.ptr, r->data.len); break;
    case REPLACE:
        append(&s->out, r->data.ptr, r->data.len);
        s->drop = r->count;
        s->drop_message = r->whole;
        break;
    case FLOOD:
        s->flood.len = 0;
        append(&s->flood, r->data.ptr, r->data.len);
        s->flood_left = r->count;
        break;
    }
    if (r->every_message) return;
    *place = r->next;
    r->next = NULL;
    rules_free(r);
}

/* Fires the first rule that is due, and says so; otherwise `distance` is how many bytes may pass until one could be. */
static bool rules_look(link_t *l, int d, size_t ready, size_t *distance)
{
    stream *s = &l->dir[d];
    *distance = SIZE_MAX;
    if (s->drop || s->drop_message) return false;
    if (chance > 0 && d == REPLY && ready && between_messages(s) && s->messages >= chance_skip && s->judged <= s->messages) {
        s->judged = s->messages + 1;
        if ((double)(roll() >> 11) / 9007199254740992.0 < chance) {
            figures.fired++;
            s->cut = true;
            s->end_how = FIN;
            return true;
        }
    }
    for (int total = 0; total < 2; total++) {
        for (rule **place = total ? &for_total : &l->rules; *place;) {
            rule    *r = *place;
            uint64_t passed = total ? figures.passed[d] : s->passed, messages = total ? figures.messages[d] : s->messages;
            if (r->direction == d && r->by_message && between_messages(s) && (r->every_message || messages == r->at)) {
                if (total && !ready) return false; /* it belongs to the link whose message it is */
                if (r->every_message) {
                    if (ready) {
                        rule_fire(l, place);
                        return true;
                    }
                } else if (total) {
                    *place = r->next;
                    r->by_message = false;
                    r->at = s->passed + r->offset;
                    rule_add(&l->rules, r);
                    return true;
                } else {
                    r->by_message = false;
                    r->at = passed + r->offset;
                }
            }
            if (r->direction == d && !r->by_message) {
                if (r->at <= passed && (ready || !r->waits)) {
                    rule_fire(l, place);
                    return true;
                }
                if (r->at > passed && r->at - passed < *distance) *distance = (size_t)(r->at - passed);
            }
            place = &(*place)->next;
        }
    }
    return false;
}

static void pump(link_t *l, int d)
{
    stream *s = &l->dir[d];
    for (;;) {
        if (l->over || l->stalled || l->hole) return;
        if ((s->out.len > ROOM || s->cut || s->flood_left) && !flush(l, d)) return;
        if (s->cut) {
            s->cut = false;
            link_end(l, s->end_how);
            return;
        }
        if (s->flood_left) {
            while (s->flood_left && s->out.len < ROOM) {
                append(&s->out, s->flood.ptr, s->flood.len);
                s->flood_left--;
            }
            continue;
        }
        if (s->not_before > now_ms) {
            soon = true; /* woken too early, by another link or a command */
            break;
        }
        size_t ready = ready_bytes(s), distance;
        if (rules_look(l, d, ready, &distance)) continue;
        if (!ready) break;
        size_t take = ready < distance ? ready : distance;
        if (settings[d].slice && take > settings[d].slice) take = (size_t)settings[d].slice;
        bool dropping = s->drop || s->drop_message, ended;
        if (s->drop && take > s->drop) take = (size_t)s->drop;
        take = parse(&s->parser, s->in + s->start, take, &ended);
        if (dropping) {
            if (s->drop) s->drop -= take;
            if (ended) s->drop_message = false;
        } else {
            append(&s->out, s->in + s->start, take);
        }
        s->start += take;
        s->passed += take;
        figures.passed[d] += take;
        if (ended) s->messages++;
        if (ended) figures.messages[d]++;
        if (s->start == s->end) s->start = s->end = 0;
        if (settings[d].slice && !dropping) {
            s->not_before = now_ms + settings[d].gap;
            if (!flush(l, d)) return;
            soon = true;
            return;
        }
    }
    if (!flush(l, d)) return;
    if (s->eof && !s->shut && s->start == s->end && !s->flood_left) {
        s->shut = true;
        int to = d == REQUEST ? SERVER : CLIENT;
        if (s->reset && to == CLIENT) {
            side_close(l, CLIENT, true);
            link_bury(l);
            return;
        }
        shutdown(l->fd[to], SHUT_WR);
        if (l->dir[!d].shut) link_bury(l);
    }
}

static void pump_both(link_t *l)
{
    for (int d = 0; d < 2 && !l->dead; d++) pump(l, d);
    for (int side = 0; side < 2 && !l->dead; side++) watch(l, side);
}

static void side_read(link_t *l, int side)
{
    stream *s = &l->dir[side == CLIENT ? REQUEST : REPLY];
    char    nowhere[ROOM];
    if (l->over || l->hole) {
        ssize_t n = recv(l->fd[side], nowhere, sizeof nowhere, 0);
        if (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR))) return;
        if (l->hole && side == SERVER) { /* the client must not notice */
            s->eof = true;
            return;
        }
        side_close(l, side, false);
        l->watched[side] = false;
        if (l->hole || l->fd[!side] < 0) link_bury(l);
        return;
    }
    if (s->end == ROOM) {
        memmove(s->in, s->in + s->start, s->end - s->start);
        s->end -= s->start;
        s->start = 0;
    }
    if (s->end == ROOM || s->eof) return;
    ssize_t n = recv(l->fd[side], s->in + s->end, ROOM - s->end, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0) {
        s->eof = true;
        s->reset = n < 0;
        return;
    }
    s->end += (size_t)n;
    s->arrived += (uint64_t)n;
    int64_t delay = settings[side].delay; /* the client's side is the request's direction: both are 0 */
    if (settings[side].jitter) delay += (int64_t)(roll() % (uint64_t)settings[side].jitter);
    if (delay || s->mark_count) {
        if (s->last_due < now_ms + delay) s->last_due = now_ms + delay;
        if (!s->mark_count) s->allowed = s->passed + (s->end - s->start) - (uint64_t)n;
        s->marks[(s->first_mark + s->mark_count++) % MARKS] = (mark){s->arrived, s->last_due};
    }
}

static void link_event(link_t *l, int side, uint32_t events)
{
    if (l->dead || l->fd[side] < 0) return;
    if (l->stalled) {
        /* The client has given up. */
        if (side == CLIENT) link_bury(l);
        return;
    }
    if (side == SERVER && l->connecting && !l->over) {
        int       error = 0;
        socklen_t size = sizeof error;
        getsockopt(l->fd[SERVER], SOL_SOCKET, SO_ERROR, &error, &size);
        if (error) {
            figures.failed++;
            side_close(l, CLIENT, true);
            link_bury(l);
            return;
        }
        l->connecting = false;
    } else if (events & (EPOLLIN | EPOLLHUP | EPOLLERR | EPOLLRDHUP)) {
        side_read(l, side);
    }
    if (!l->dead) pump_both(l);
}

/* -------------------------------------------------------------------------------------------------------------- addresses -- */

static int open_address(const char *text, bool listening, bool *connecting)
{
    union {
        struct sockaddr         any;
        struct sockaddr_un      un;
        struct sockaddr_storage room;
    } address;
    socklen_t size;
    memset(&address, 0, sizeof address);
    if (strncmp(text, "unix:", 5) == 0) {
        address.un.sun_family = AF_UNIX;
        if (strlen(text + 5) >= sizeof address.un.sun_path) return errno = ENAMETOOLONG, -1;
        strcpy(address.un.sun_path, text + 5);
        size = sizeof address.un;
        if (listening) unlink(text + 5);
    } else {
        char             host[256];
        const char      *colon = strrchr(text, ':');
        struct addrinfo *found, hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
        size_t           len = colon ? (size_t)(colon - text) : 0;
        if (!colon || len >= sizeof host) return errno = EINVAL, -1;
        if (text[0] == '[' && text[len - 1] == ']') text++, len -= 2;
        memcpy(host, text, len);
        host[len] = 0;
        if (getaddrinfo(host, colon + 1, &hints, &found) != 0) return errno = EINVAL, -1;
        memcpy(&address, found->ai_addr, found->ai_addrlen);
        size = found->ai_addrlen;
        freeaddrinfo(found);
    }
    int fd = socket(address.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
    if (fd < 0) return -1;
    if (listening) {
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
        if (bind(fd, &address.any, size) == 0 && listen(fd, 1024) == 0) return fd;
    } else {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        *connecting = connect(fd, &address.any, size) != 0;
        if (!*connecting || errno == EINPROGRESS) return fd;
    }
    int why = errno;
    close(fd);
    errno = why;
    return -1;
}

static int port_of(int fd)
{
    struct sockaddr_storage address;
    socklen_t               size = sizeof address;
    if (getsockname(fd, (struct sockaddr *)&address, &size) != 0) die("getsockname");
    if (address.ss_family == AF_INET) return ntohs(((struct sockaddr_in *)&address)->sin_port);
    return address.ss_family == AF_INET6 ? ntohs(((struct sockaddr_in6 *)&address)->sin6_port) : 0;
}

static void watch_listener(int *which)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = which};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, *which, &event) != 0) die("epoll_ctl");
}

/* Gives rules to a link. Their places count from here. */
static void arm(link_t *l, const rule *list)
{
    for (; list; list = list->next) {
        rule         *made = rule_copy(list);
        const stream *s = &l->dir[made->direction];
        if (!made->by_message) made->at += s->passed;
        else if (!made->every_message) made->at += s->messages + !between_messages(s);
        rule_add(&l->rules, made);
    }
}

static void accept_links(void)
{
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC), one = 1;
        if (fd < 0) return;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        link_t *l = need(malloc(sizeof *l));
        /* All but the two big buffers. */
        for (int d = 0; d < 2; d++)
            memset((char *)&l->dir[d] + ROOM, 0, sizeof(stream) - ROOM);
        memset(l, 0, offsetof(link_t, dir));
        l->rules = NULL;
        l->id = ++figures.accepted;
        figures.open++;
        l->fd[CLIENT] = fd;
        for (int side = 0; side < 2; side++) l->handle[side] = (struct handle){l, side};
        l->next = links;
        l->back = &links;
        if (links) links->back = &l->next;
        links = l;
        l->fd[SERVER] = open_address(target, false, &l->connecting);
        if (l->fd[SERVER] < 0) {
            figures.failed++;
            side_close(l, CLIENT, true);
            link_bury(l);
            continue;
        }
        arm(l, for_every);
        if (upcoming) {
            arm(l, upcoming->rules);
            if (--upcoming->left == 0) {
                batch *done = upcoming;
                upcoming = done->next;
                rules_free(done->rules);
                free(done);
            }
        }
        pump_both(l);
    }
}

/* ---------------------------------------------------------------------------------------------------------------- control -- */

static void say(control *c, const char *format, ...)
{
    char    text[512];
    va_list arguments;
    va_start(arguments, format);
    int len = vsnprintf(text, sizeof text - 1, format, arguments);
    va_end(arguments);
    if (len > (int)sizeof text - 2) len = sizeof text - 2;
    text[len++] = '\n';
    if (send(c->fd, text, (size_t)len, MSG_NOSIGNAL) != len) c->gone = true;
}

/* The next word of a line, or "". */
static char *word(char **line)
{
    while (**line == ' ') ++*line;
    char *start = *line;
    while (**line && **line != ' ') ++*line;
    if (**line) *(*line)++ = 0;
    return start;
}

static bool number(const char *text, uint64_t *out)
{
    char *end;
    if (*text < '0' || *text > '9') return false;
    errno = 0;
    *out = strtoull(text, &end, 10);
    return *end == 0 && errno == 0;
}

static bool read_direction(const char *text, int *out)
{
    *out = strcmp(text, "reply") == 0 ? REPLY : REQUEST;
    return *out == REPLY || strcmp(text, "request") == 0;
}

/* N, #M, #M+N or #* */
static bool read_place(char *text, rule *r)
{
    if (*text != '#') return number(text, &r->at);
    r->by_message = true;
    r->every_message = strcmp(text, "#*") == 0;
    if (r->every_message) return true;
    char *plus = strchr(text, '+');
    if (plus) *plus++ = 0;
    return number(text + 1, &r->at) && (!plus || number(plus, &r->offset));
}

static bool read_how(const char *text, how *out)
{
    static const char *const names[] = {"fin", "rst", "stall", "blackhole"};
    for (int i = 0; i < 4; i++)
        if (strcmp(text, names[i]) == 0) {
            *out = (how)i;
            return true;
        }
    return false;
}

static int hex(char c)
{
    const char *digits = "0123456789abcdef", *at = c ? strchr(digits, c | ('A' <= c && c <= 'F' ? 32 : 0)) : NULL;
    return at ? (int)(at - digits) : -1;
}

static bool read_data(const char *text, bytes *out)
{
    for (; *text; text++) {
        char c = *text;
        if (c == '\\') {
            switch (*++text) {
            case 'r': c = '\r'; break;
            case 'n': c = '\n'; break;
            case 't': c = '\t'; break;
            case '0': c = 0; break;
            case '\\': c = '\\'; break;
            case 'x':
                if (hex(text[1]) < 0 || hex(text[2]) < 0) return false;
                c = (char)(hex(text[1]) * 16 + hex(text[2]));
                text += 2;
                break;
            default: return false;
            }
        }
        append(out, &c, 1);
    }
    return true;
}

static rule *read_action(char *text)
{
    rule *r = need(calloc(1, sizeof *r));
    char *name = word(&text);
    bool  ok = false;
    if (strcmp(name, "cut") == 0) {
        r->what = CUT;
        ok = read_direction(word(&text), &r->direction) && read_place(word(&text), r) && read_how(word(&text), &r->end);
        r->waits = r->direction == REPLY && r->offset == 0 && (r->by_message || r->at == 0);
        ok = ok && !*word(&text);
    } else if (strcmp(name, "lose") == 0) {
        char *place = word(&text), *end = word(&text);
        r->what = CUT;
        r->direction = REPLY;
        r->waits = true;
        ok = read_place(*place ? place : (char[]){'#', '0', 0}, r) && read_how(*end ? end : "fin", &r->end) && !*word(&text);
    } else if (strcmp(name, "insert") == 0) {
        r->what = INSERT;
        ok = read_direction(word(&text), &r->direction) && read_place(word(&text), r) && read_data(text, &r->data);
    } else if (strcmp(name, "flood") == 0) {
        r->what = FLOOD;
        ok = read_direction(word(&text), &r->direction) && read_place(word(&text), r) && number(word(&text), &r->count) &&
             read_data(text, &r->data);
    } else if (strcmp(name, "replace") == 0) {
        r->what = REPLACE;
        r->waits = true;
        ok = read_direction(word(&text), &r->direction) && read_place(word(&text), r);
        char *count = word(&text);
        r->whole = strcmp(count, "all") == 0;
        ok = ok && (r->whole || number(count, &r->count)) && read_data(text, &r->data);
    } else if (strcmp(name, "answer") == 0) {
        r->what = REPLACE;
        r->waits = r->whole = true;
        r->direction = REPLY;
        ok = read_place(word(&text), r) && r->by_message && r->offset == 0 && read_data(text, &r->data);
    }
    if (ok) return r;
    rules_free(r);
    return NULL;
}

static rule *read_actions(char *text)
{
    rule *list = NULL;
    while (text) {
        char *next = strstr(text, " ; ");
        if (next) {
            *next = 0;
            next += 3;
        }
        rule *one = read_action(text);
        if (!one) {
            rules_free(list);
            return NULL;
        }
        rule_add(&list, one);
        text = next;
    }
    return list;
}

static void pass(void)
{
    while (upcoming) {
        batch *next = upcoming->next;
        rules_free(upcoming->rules);
        free(upcoming);
        upcoming = next;
    }
    rules_free(for_every);
    rules_free(for_total);
    for_every = for_total = NULL;
    memset(settings, 0, sizeof settings);
    chance = 0;
    for (link_t *l = links; l; l = l->next) {
        rules_free(l->rules);
        l->rules = NULL;
        for (int d = 0; d < 2; d++) {
            l->dir[d].mark_count = 0;
            l->dir[d].not_before = 0;
        }
    }
}

static void pump_all(void)
{
    for (link_t *l = links, *next; l; l = next) {
        next = l->next;
        if (!l->over) pump_both(l);
    }
}

static bool figure(const char *name, uint64_t *out)
{
    const struct {
        const char *name;
        uint64_t    value;
    } all[] = {{"accepted", figures.accepted},       {"open", figures.open},     {"draining", figures.draining},
               {"cut", figures.cut - cut_base},
               {"fired", figures.fired - fired_base}, {"failed", figures.failed}, {"request", figures.passed[REQUEST]},
               {"reply", figures.passed[REPLY]}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (strcmp(all[i].name, name) == 0) {
            *out = all[i].value;
            return true;
        }
    return false;
}

static void check_wait(control *c)
{
    uint64_t is = 0;
    if (!c->waiting) return;
    figure(c->field, &is);
    bool met = c->op == '=' ? is == c->wanted : c->op == '<' ? is <= c->wanted : is >= c->wanted;
    if (!met && now_ms < c->deadline) return;
    c->waiting = false;
    say(c, met ? "ok %" PRIu64 : "late %" PRIu64, is);
}

static void start_wait(control *c, char *line)
{
    char    *field = word(&line), *op = word(&line);
    uint64_t ms, unused;
    bool     known = strcmp(op, "=") == 0 || strcmp(op, "<=") == 0 || strcmp(op, ">=") == 0;
    if (!figure(field, &unused) || !known || !number(word(&line), &c->wanted) || !number(word(&line), &ms)) {
        say(c, "error wait FIELD = | <= | >= N MS");
        return;
    }
    snprintf(c->field, sizeof c->field, "%s", field);
    c->op = *op;
    c->deadline = now_ms + (int64_t)ms;
    c->waiting = true;
    check_wait(c);
}

/* delay DIRECTION MS [JITTER [SEED]] and slice DIRECTION BYTES [GAP] */
static bool set_setting(const char *name, char *line)
{
    int      d;
    uint64_t first, second = 0;
    if (!read_direction(word(&line), &d) || !number(word(&line), &first)) return false;
    char *more = word(&line);
    if (*more && !number(more, &second)) return false;
    if (first > INT_MAX || second > INT_MAX) return false;
    if (strcmp(name, "slice") == 0) {
        settings[d].slice = first;
        settings[d].gap = (int64_t)second;
        return true;
    }
    settings[d].delay = (int64_t)first;
    settings[d].jitter = (int64_t)second;
    more = word(&line);
    return !*more || number(more, &dice);
}

/* SCOPE ACTION...; gives the number of links that it reaches, -1 for a line that cannot be understood. */
static int64_t command_rules(const char *scope, char *line)
{
    uint64_t n = 1;
    bool     to_one = strcmp(scope, "conn") == 0, next = strcmp(scope, "next") == 0;
    if (to_one && !number(word(&line), &n)) return -1;
    while (next && *line == ' ') line++;
    if (next && *line >= '0' && *line <= '9' && (!number(word(&line), &n) || n == 0)) return -1;
    rule *list = read_actions(line);
    if (!list) return -1;
    int64_t reached = 0;
    if (next) {
        batch *made = need(calloc(1, sizeof *made)), **at = &upcoming;
        made->left = n;
        made->rules = list;
        while (*at) at = &(*at)->next;
        *at = made;
        return 0;
    }
    if (strcmp(scope, "every") == 0) {
        while (list) {
            rule *one = list;
            list = list->next;
            rule_add(&for_every, one);
        }
        return 0;
    }
    if (strcmp(scope, "total") == 0) {
        while (list) {
            rule *one = list;
            list = list->next;
            if (one->by_message) one->at += figures.messages[one->direction];
            else one->at += figures.passed[one->direction];
            rule_add(&for_total, one);
        }
        pump_all();
        return 0;
    }
    for (link_t *l = links, *after; l; l = after) {
        after = l->next;
        if (l->over || (to_one && l->id != n)) continue;
        reached++;
        arm(l, list);
        pump_both(l);
    }
    rules_free(list);
    return reached;
}

static bool refuse(const char *text)
{
    bool on = strcmp(text, "on") == 0;
    if (!on && strcmp(text, "off") != 0) return false;
    if (on && listener >= 0) {
        close(listener);
        listener = -1;
    } else if (!on && listener < 0) {
        listener = open_address(listen_address, true, NULL);
        if (listener < 0) return false;
        watch_listener(&listener);
    }
    return true;
}

static void command(control *c, char *line)
{
    char   *name = word(&line);
    int64_t reached = 0;
    bool    ok = true;
    if (strcmp(name, "next") == 0 || strcmp(name, "every") == 0 || strcmp(name, "now") == 0 || strcmp(name, "conn") == 0 ||
        strcmp(name, "total") == 0) {
        reached = command_rules(name, line);
        ok = reached >= 0;
    } else if (strcmp(name, "delay") == 0 || strcmp(name, "slice") == 0) {
        ok = set_setting(name, line);
    } else if (strcmp(name, "lose-replies") == 0) {
        char *end, *share = word(&line), *skip = word(&line), *seed = word(&line);
        chance = strtod(share, &end);
        chance_skip = 0;
        ok = *share && !*end && (!*skip || number(skip, &chance_skip)) && (!*seed || number(seed, &dice));
    } else if (strcmp(name, "pass") == 0) {
        pass();
        ok = refuse("off");
        pump_all();
    } else if (strcmp(name, "resume") == 0) {
        for (link_t *l = links; l; l = l->next) reached += l->stalled, l->stalled = false;
        pump_all();
    } else if (strcmp(name, "refuse") == 0) {
        ok = refuse(word(&line));
    } else if (strcmp(name, "to") == 0) {
        snprintf(target, sizeof target, "%s", word(&line));
    } else if (strcmp(name, "reset") == 0) {
        memset(figures.passed, 0, sizeof figures.passed);
        cut_base = figures.cut;
        fired_base = figures.fired;
        figures.failed = 0;
    } else if (strcmp(name, "stats") == 0) {
        say(c,
            "ok accepted=%" PRIu64 " open=%" PRIu64 " draining=%" PRIu64 " cut=%" PRIu64 " fired=%" PRIu64 " failed=%" PRIu64 " request=%" PRIu64
            " reply=%" PRIu64,
            figures.accepted, figures.open, figures.draining, figures.cut - cut_base, figures.fired - fired_base, figures.failed,
            figures.passed[REQUEST], figures.passed[REPLY]);
        return;
    } else if (strcmp(name, "wait") == 0) {
        start_wait(c, line);
        return;
    } else if (strcmp(name, "quit") == 0) {
        say(c, "ok 0");
        exit(0);
    } else {
        ok = false;
    }
    if (ok) say(c, "ok %" PRId64, reached);
    else say(c, "error not understood: %.100s", name);
}

static void control_lines(control *c)
{
    char *end;
    while (!c->waiting && !c->gone && c->line.len && (end = memchr(c->line.ptr, '\n', c->line.len))) {
        size_t len = (size_t)(end - c->line.ptr);
        char  *line = need(strndup(c->line.ptr, len));
        c->line.len -= len + 1;
        memmove(c->line.ptr, end + 1, c->line.len);
        if (len && line[len - 1] == '\r') line[len - 1] = 0;
        command(c, line);
        free(line);
    }
}

static void control_read(control *c)
{
    char    text[ROOM];
    ssize_t n = recv(c->fd, text, sizeof text, 0);
    if (n <= 0 && !(n < 0 && errno == EAGAIN)) c->gone = true;
    if (n > 0) append(&c->line, text, (size_t)n);
    if (c->line.len > LONGEST_LINE) c->gone = true;
    control_lines(c);
}

static void controls_tidy(void)
{
    for (control **at = &controls; *at;) {
        control *c = *at;
        check_wait(c);
        control_lines(c);
        if (!c->gone) {
            at = &c->next;
            continue;
        }
        *at = c->next;
        close(c->fd);
        free(c->line.ptr);
        free(c);
    }
}

static void control_accept(void)
{
    int fd = accept4(control_listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC), one = 1;
    if (fd < 0) return;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    control *c = need(calloc(1, sizeof *c));
    c->fd = fd;
    c->next = controls;
    controls = c;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) != 0) die("epoll_ctl");
}

/* ------------------------------------------------------------------------------------------------------------------- turn -- */

static int until_next(void)
{
    int64_t next = INT64_MAX;
    for (control *c = controls; c; c = c->next)
        if (c->waiting && c->deadline < next) next = c->deadline;
    bool timed = soon || settings[0].delay || settings[1].delay || settings[0].jitter || settings[1].jitter;
    for (link_t *l = timed ? links : NULL; l; l = l->next)
        for (int d = 0; d < 2 && !l->over && !l->stalled; d++) {
            const stream *s = &l->dir[d];
            if (s->start == s->end) continue;
            if (s->mark_count && s->marks[s->first_mark].due < next) next = s->marks[s->first_mark].due;
            if (settings[d].slice && s->not_before < next) next = s->not_before;
        }
    if (next == INT64_MAX) return -1;
    return next <= now_ms ? 0 : next - now_ms > INT_MAX ? INT_MAX : (int)(next - now_ms);
}

static bool is_control(const void *pointer)
{
    for (control *c = controls; c; c = c->next)
        if (c == pointer) return true;
    return false;
}

static void turn(void)
{
    struct epoll_event events[256];
    int                count = epoll_wait(poller, events, 256, until_next());
    if (count < 0 && errno != EINTR) die("epoll_wait");
    now_ms = monotonic_ms();
    bool timed = soon || settings[0].delay || settings[1].delay || settings[0].jitter || settings[1].jitter;
    soon = false;
    for (int i = 0; i < count; i++) {
        void *pointer = events[i].data.ptr;
        if (pointer == &listener) accept_links();
        else if (pointer == &control_listener) control_accept();
        else if (is_control(pointer)) control_read(pointer);
        else link_event(((struct handle *)pointer)->link, ((struct handle *)pointer)->side, events[i].events);
    }
    if (timed) pump_all();
    controls_tidy();
    bury_all();
}

int main(int argc, char **argv)
{
    const char *listening = "127.0.0.1:0", *controlling = "127.0.0.1:0";
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--listen") == 0 && i + 1 < argc) listening = argv[++i];
        else if (strcmp(argv[i], "--to") == 0 && i + 1 < argc) snprintf(target, sizeof target, "%s", argv[++i]);
        else if (strcmp(argv[i], "--control") == 0 && i + 1 < argc) controlling = argv[++i];
        else if (strcmp(argv[i], "--tether") == 0) prctl(PR_SET_PDEATHSIG, SIGKILL);
        else return fprintf(stderr, "usage: faultproxy --listen ADDRESS --to ADDRESS [--control ADDRESS] [--tether]\n"), 2;
    }
    poller = epoll_create1(EPOLL_CLOEXEC);
    if ((listener = open_address(listening, true, NULL)) < 0) die(listening);
    if ((control_listener = open_address(controlling, true, NULL)) < 0) die(controlling);
    snprintf(listen_address, sizeof listen_address, "%s", listening);
    /* The same port again after `refuse off`. */
    if (strncmp(listening, "unix:", 5) != 0)
        snprintf(listen_address, sizeof listen_address, "%.*s:%d", (int)(strrchr(listening, ':') - listening), listening,
                 port_of(listener));
    watch_listener(&listener);
    watch_listener(&control_listener);
    now_ms = monotonic_ms();
    printf("ready %d %d\n", port_of(listener), port_of(control_listener));
    fflush(stdout);
    for (;;) turn();
}
