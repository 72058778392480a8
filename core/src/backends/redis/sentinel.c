/* sentinel.c: asks Sentinels where the primary is (redis.io/docs: "Guidelines for Redis clients with support for Redis Sentinel").
 *
 * One is asked at a time, over a connection that lives only while the primary is in doubt: when there is no connection to it, and when it owes an answer
 * for QUIET_MS. Then the Sentinel is asked again every POLL_MS, and as soon as it names another address than the last one the link goes there
 * (redis_found): no attempt at a dead server, and no silent connection to a frozen one, is waited for. Who does not answer, or has named a server
 * that turns out to be no primary, is passed over for the next one. */
#include "redis.h"

enum {
    QUIET_MS = 250,
    POLL_MS = 100,
    SLOW_POLL_MS = 1000, /* when the outage is an old one */
    YOUNG_MS = 10 * 1000,
    ANSWER_MS = 500, /* for one Sentinel, all of it; less where there are so many that an attempt at the primary would end before */
    INPUT = sizeof((redis_seek *)NULL)->in
};

static void on_ready(void *user, unsigned events);
static void ask_one(cf_backend *self);

/* ---------------------------------------------------------------------------------------------------------- coming down -- */

static void hang_up(cf_backend *self)
{
    redis_seek *seek = &self->seek;
    cf_job_abandon(seek->job);
    seek->job = NULL;
    redis_tls_free(seek->tls);
    seek->tls = NULL;
    cf_watch_free(seek->watch);
    seek->watch = NULL;
    if (seek->fd >= 0) self->platform->close(self->platform->self, seek->fd);
    seek->fd = -1;
    if (seek->out.ptr) memset(seek->out.ptr, 0, seek->out.len); /* a password */
    cf_buffer_free(self->platform, &seek->out);
    seek->written = seek->len = 0;
    seek->owes_login = false;
}

static void rest(cf_backend *self)
{
    bool young = (self->outage_ms < 0 || cf_monotonic(self->platform) - self->outage_ms < YOUNG_MS) && self->seek.why.status != CF_EAUTH;
    self->seek.state = SEEK_RESTING;
    cf_timer_set(self->seek.timer, young ? POLL_MS : SLOW_POLL_MS);
}

static void next_one(cf_backend *self) { self->seek.at = (self->seek.at + 1) % self->options.place_count; }

/* This one is of no use: the next, or, after all of them, nobody. */
static void pass_over(cf_backend *self, const cf_error *error)
{
    redis_seek *seek = &self->seek;
    hang_up(self);
    if (seek->why.status == CF_OK || error->status != CF_EUNAVAILABLE) seek->why = *error;
    next_one(self);
    if (++seek->failed < self->options.place_count) {
        ask_one(self);
        return;
    }
    cf_error why = seek->why;
    /* All know their way, but not that name: a mistake in the URL, of which no waiting will mend anything. */
    if (seek->strangers == seek->failed) why.status = CF_EINVAL;
    rest(self);
    redis_not_found(self, &why);
}

static void give_up(cf_backend *self, int status, const char *what, const char *detail)
{
    const redis_place *place = &self->options.places[self->seek.at];
    cf_error error;
    cf_error_set(&error, status, CF_NOT_APPLIED, strchr(place->host, ':') ? "the Sentinel at [%s]:%s %s%s" : "the Sentinel at %s:%s %s%s", place->host, place->port, what, detail);
    pass_over(self, &error);
}

/* -------------------------------------------------------------------------------------------------------- what it says -- */

/* The line at `*at`, without its end. False: it has not come whole. */
static bool take_line(const redis_seek *seek, size_t *at, cf_slice *line)
{
    const char *start = seek->in + *at, *end = *at < seek->len ? memchr(start, '\n', seek->len - *at) : NULL;
    if (!end || end == start || end[-1] != '\r') return false;
    *line = cf_bytes(start, (size_t)(end - start) - 1);
    *at += line->len + 2;
    return true;
}

typedef enum { PARSED, INCOMPLETE, ODD } parsed;

static parsed take_string(const redis_seek *seek, size_t *at, cf_slice *text)
{
    cf_slice line;
    int64_t  len;
    if (!take_line(seek, at, &line)) return INCOMPLETE;
    if (line.len < 2 || line.ptr[0] != '$' || !cf_parse_int(cf_bytes(line.ptr + 1, line.len - 1), &len) || len < 1 || len > INPUT) return ODD;
    if (seek->len - *at < (size_t)len + 2) return INCOMPLETE;
    *text = cf_bytes(seek->in + *at, (size_t)len);
    *at += (size_t)len + 2;
    return text->ptr[len] == '\r' && text->ptr[len + 1] == '\n' ? PARSED : ODD;
}

static void refused(cf_backend *self, cf_slice line)
{
    static const struct {
        const char *word, *meaning;
    } words[] = {{"-NOAUTH", "asks for a password (the option sentinel_password)"},
                 {"-WRONGPASS", "refused our user name or password (the options sentinel_user, sentinel_password)"},
                 {"-NOPERM", "does not allow our user to ask it (+sentinel|get-master-addr-by-name)"},
                 {"-ERR AUTH", "has no password set: leave sentinel_password out"},
                 {"-ERR Client sent AUTH", "has no password set: leave sentinel_password out"},
                 {"-ERR unknown command", "is none: does a Redis server listen there?"}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (cf_slice_starts(line, cf_text(words[i].word))) {
            give_up(self, i < 3 ? CF_EAUTH : CF_EINVAL, words[i].meaning, "");
            return;
        }
    give_up(self, CF_EUNAVAILABLE, "answered with an error", "");
}

static void understand(cf_backend *self)
{
    redis_seek *seek = &self->seek;
    size_t      at = 0;
    cf_slice    line, host, port;
    if (seek->owes_login) {
        if (!take_line(seek, &at, &line)) return;
        if (line.len && line.ptr[0] == '-') {
            refused(self, line);
            return;
        }
        if (!cf_slice_equal(line, cf_text("+OK"))) {
            give_up(self, CF_EUNAVAILABLE, "does not answer as Sentinels do", "");
            return;
        }
        memmove(seek->in, seek->in + at, seek->len - at);
        seek->len -= at;
        seek->owes_login = false;
        at = 0;
    }
    if (!take_line(seek, &at, &line)) return;
    if (line.len && line.ptr[0] == '-') {
        refused(self, line);
        return;
    }
    if (cf_slice_equal(line, cf_text("*-1")) || cf_slice_equal(line, cf_text("$-1"))) {
        seek->strangers++;
        give_up(self, CF_EUNAVAILABLE, "knows no primary called ", self->options.primary);
        return;
    }
    parsed how = cf_slice_equal(line, cf_text("*2")) ? take_string(seek, &at, &host) : ODD;
    if (how == PARSED) how = take_string(seek, &at, &port);
    if (how == INCOMPLETE && seek->len < INPUT) return;
    if (how == PARSED && at == seek->len) {
        char copy[INPUT]; /* what follows may ask again */
        memcpy(copy, seek->in, at);
        host.ptr = copy + (host.ptr - seek->in);
        port.ptr = copy + (port.ptr - seek->in);
        size_t before = seek->failed;
        seek->failed = seek->strangers = seek->len = 0;
        seek->why.status = CF_OK;
        rest(self);
        if (redis_found(self, host, port) == CF_OK) return;
        seek->failed = before;
    }
    give_up(self, CF_EUNAVAILABLE, "does not answer as Sentinels do", "");
}

/* --------------------------------------------------------------------------------------------------------------- asking -- */

/* False: it is given up. */
static bool push(cf_backend *self)
{
    redis_seek *seek = &self->seek;
    while (seek->written < seek->out.len) {
        const char *bytes = seek->out.ptr + seek->written;
        size_t      count = seek->out.len - seek->written;
        int64_t     sent = seek->tls ? redis_tls_send(seek->tls, bytes, count) : self->platform->send(self->platform->self, seek->fd, bytes, count);
        if (sent < 0 && redis_would_block()) break;
        if (sent <= 0) {
            give_up(self, CF_EUNAVAILABLE, "cannot be written to: ", strerror(errno));
            return false;
        }
        seek->written += (size_t)sent;
    }
    cf_watch_set(seek->watch, CF_READABLE | (seek->written < seek->out.len ? CF_WRITABLE : 0u) | (seek->tls ? redis_tls_wants(seek->tls) : 0u));
    return true;
}

static void ask(cf_backend *self, bool login)
{
    redis_seek          *seek = &self->seek;
    const redis_options *options = &self->options;
    int                  rc = CF_OK;
    seek->state = SEEK_ASKING;
    seek->out.len = seek->written = seek->len = 0;
    seek->owes_login = login && options->sentinel_password;
    if (seek->owes_login) rc = redis_format_auth(self->platform, &seek->out, options->sentinel_user, options->sentinel_password);
    if (rc == CF_OK)
        rc = redis_format(self->platform, &seek->out, (cf_slice[]){cf_text("SENTINEL"), cf_text("get-master-addr-by-name"), cf_text(options->primary)}, 3);
    if (rc != CF_OK) give_up(self, CF_EUNAVAILABLE, "cannot be asked: no memory", "");
    else push(self);
}

static void shake_hands(cf_backend *self)
{
    cf_error error = {0};
    int rc = redis_tls_handshake(self->seek.tls, &error);
    if (rc == CF_OK) ask(self, true);
    else if (rc == CF_PENDING) cf_watch_set(self->seek.watch, redis_tls_wants(self->seek.tls));
    else pass_over(self, &error);
}

static void listen(cf_backend *self)
{
    redis_seek *seek = &self->seek;
    for (;;) {
        if (seek->len == INPUT) {
            give_up(self, CF_EUNAVAILABLE, "does not answer as Sentinels do", "");
            return;
        }
        char   *room = seek->in + seek->len;
        size_t  size = INPUT - seek->len;
        int64_t got = seek->tls ? redis_tls_read(seek->tls, room, size) : self->platform->read(self->platform->self, seek->fd, room, size);
        if (got < 0 && redis_would_block()) {
            push(self); /* what TLS may want to write */
            return;
        }
        if (got <= 0 || seek->state != SEEK_ASKING) { /* one that says more than it was asked is not asked again */
            if (seek->state == SEEK_ASKING) give_up(self, CF_EUNAVAILABLE, "closed the connection", "");
            else hang_up(self);
            return;
        }
        seek->len += (size_t)got;
        understand(self);
        if (seek->state != SEEK_ASKING || seek->fd < 0) return;
    }
}

static void dial_next(cf_backend *self, int error);

static void connected(cf_backend *self)
{
    redis_seek *seek = &self->seek;
    cf_error    error = {0};
    if (!self->options.tls) {
        ask(self, true);
        return;
    }
    if (redis_tls_new(self->tls_context, self->options.places[seek->at].host, seek->fd, &seek->tls, &error) != CF_OK) {
        pass_over(self, &error);
        return;
    }
    seek->state = SEEK_HANDSHAKE;
    shake_hands(self);
}

static void on_ready(void *user, unsigned events)
{
    cf_backend *self = user;
    redis_seek *seek = &self->seek;
    switch (seek->state) {
    case SEEK_DIALLING: {
        int rc = self->platform->connected(self->platform->self, seek->fd), error = errno;
        if (rc == 0) connected(self);
        else if (error != EINPROGRESS) dial_next(self, error);
        return;
    }
    case SEEK_HANDSHAKE: shake_hands(self); return;
    case SEEK_ASKING:
        if (events & CF_WRITABLE && !push(self)) return;
        listen(self);
        return;
    default: listen(self); return;
    }
}

static void dial_next(cf_backend *self, int error)
{
    redis_seek *seek = &self->seek;
    hang_up(self);
    seek->state = SEEK_DIALLING;
    while (seek->dialled < seek->address_count) {
        seek->fd = self->platform->connect(self->platform->self, &seek->addresses[seek->dialled++]);
        error = errno;
        if (seek->fd < 0) continue;
        if (cf_watch_new(self->loop, seek->fd, CF_WRITABLE, on_ready, self, &seek->watch) == CF_OK) return;
        error = ENOMEM;
        hang_up(self);
    }
    give_up(self, CF_EUNAVAILABLE, "cannot be reached: ", strerror(error));
}

static void looked_up(cf_backend *self, const cf_address *addresses, int count)
{
    redis_seek *seek = &self->seek;
    if (count < 0) {
        give_up(self, CF_EUNAVAILABLE, "was not found by its name: ", cf_resolve_error(count));
        return;
    }
    memcpy(seek->addresses, addresses, sizeof seek->addresses);
    seek->address_count = count;
    dial_next(self, ECONNREFUSED);
}

static void ask_one(cf_backend *self)
{
    redis_seek        *seek = &self->seek;
    const redis_place *place = &self->options.places[seek->at];
    int64_t            fair = self->options.connect_ms / ((int64_t)self->options.place_count + 1);
    cf_timer_set(seek->timer, fair < 50 ? 50 : fair < ANSWER_MS ? fair : ANSWER_MS);
    if (seek->fd >= 0) { /* it has answered before */
        ask(self, false);
        return;
    }
    seek->dialled = 0;
    seek->address_count = 1;
    if (cf_address_of(place->host, place->port, &seek->addresses[0]) == CF_OK) {
        dial_next(self, ECONNREFUSED);
        return;
    }
    seek->state = SEEK_RESOLVING;
    if (redis_look_up(self, place->host, place->port, looked_up, &seek->job) != CF_OK) give_up(self, CF_EUNAVAILABLE, "cannot be looked up: no thread", "");
}

/* ---------------------------------------------------------------------------------------------------------- for the link -- */

void redis_seek_begin(cf_backend *self)
{
    redis_seek *seek = &self->seek;
    if (seek->state > SEEK_RESTING) return;
    seek->failed = seek->strangers = 0;
    seek->why.status = CF_OK;
    ask_one(self);
}

void redis_seek_if_silent(cf_backend *self)
{
    if (self->seek.state == SEEK_IDLE) cf_timer_set(self->seek.timer, QUIET_MS);
}

void redis_seek_elsewhere(cf_backend *self)
{
    hang_up(self);
    next_one(self);
    if (self->seek.state != SEEK_IDLE) rest(self);
}

void redis_seek_end(cf_backend *self)
{
    hang_up(self);
    self->seek.state = SEEK_IDLE;
    self->seek.why.status = CF_OK;
    cf_timer_set(self->seek.timer, -1);
}

void redis_seek_free(cf_backend *self)
{
    if (!self->seek.timer) return;
    hang_up(self);
    cf_timer_free(self->seek.timer);
}

void redis_on_seek_timer(void *user)
{
    cf_backend *self = user;
    redis_seek *seek = &self->seek;
    if (seek->state > SEEK_RESTING) {
        give_up(self, CF_EUNAVAILABLE, "did not answer in time", "");
    } else if (redis_in_doubt(self, QUIET_MS)) {
        redis_seek_begin(self);
    } else {
        redis_seek_end(self);
        if (redis_in_doubt(self, 0)) redis_seek_if_silent(self); /* heard, but it owes something still */
    }
}
