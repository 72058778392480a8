/* sentinel.c: asks Sentinels where the primary is (redis.io/docs: "Guidelines for Redis clients with support for Redis Sentinel").
 *
 * They are asked while the primary is in doubt: when there is no connection to it, and when it owes an answer for REDIS_QUIET_MS. For an attempt to connect one of them
 * is asked, and the next one when it fails or takes its time. While the doubt lasts they are asked in turn, each every REDIS_POLL_MS, on connections of their own that
 * live as long: who led a failover knows of it first, the others up to some hundred ms later, and one that is dead, slow or behind holds up nobody.
 *
 * What one of them says now, and did not say before, takes effect at once (redis_found): no attempt at a dead server, and no silent connection to a frozen one, is
 * waited for. Those who still say what they said before are behind, and lead nobody back, unless nobody names any more where the link is. */
#include "redis.h"

enum {
    POLL_LEAST_MS = 10,        /* between two questions, however many Sentinels there are */
    PATIENT_MS = 60 * 1000,    /* of an outage that is older they are asked more slowly. They wait for half a minute themselves, where nobody has told them otherwise */
    INPUT = sizeof((redis_talk *)NULL)->in
};

static void ask_one(redis_talk *talk);

static int64_t now_ms(const cf_backend *self) { return cf_monotonic(self->platform); }

static size_t index_of(const redis_talk *talk) { return (size_t)(talk - talk->self->seek.talks); }

static const redis_place *place_of(const redis_talk *talk) { return &talk->self->options.places[index_of(talk)]; }

/* ---------------------------------------------------------------------------------------------------------- coming down -- */

/* The connection, and what was to become one. */
static void drop(redis_talk *talk)
{
    const cf_platform *platform = talk->self->platform;
    cf_job_abandon(talk->job);
    talk->job = NULL;
    redis_tls_free(talk->tls);
    talk->tls = NULL;
    cf_watch_free(talk->watch);
    talk->watch = NULL;
    if (talk->fd >= 0) platform->close(platform->self, talk->fd);
    talk->fd = -1;
    if (talk->out.ptr) memset(talk->out.ptr, 0, talk->out.cap); /* a password */
    cf_buffer_free(platform, &talk->out);
    talk->written = talk->len = 0;
    talk->owes_login = false;
}

static void rest(redis_talk *talk)
{
    talk->state = TALK_RESTS;
    cf_timer_set(talk->timer, -1);
}

static void hang_up(redis_talk *talk)
{
    drop(talk);
    rest(talk);
}

/* The next one behind that place who is not being asked, nor has failed this attempt. */
static redis_talk *next_behind(cf_backend *self, size_t at, bool rested)
{
    size_t  count = self->options.place_count;
    int64_t now = now_ms(self);
    for (size_t i = 1; i <= count; i++) {
        redis_talk *talk = &self->seek.talks[(at + i) % count];
        if (talk->state == TALK_RESTS && !(self->link == LINK_SEEKING && talk->failed) && (!rested || talk->rests_until_ms <= now)) return talk;
    }
    return NULL;
}

/* This one is of no use: the next, or, after all of them, nobody. */
static void pass_over(redis_talk *talk, const cf_error *error)
{
    cf_backend *self = talk->self;
    redis_seek *seek = &self->seek;
    bool        refused = error->status != CF_EUNAVAILABLE;
    hang_up(talk);
    talk->heard = HEARD_NO_ANSWER;
    talk->failed = true;
    talk->rests_until_ms = refused ? INT64_MAX : now_ms(self) + REDIS_QUIET_MS;
    if (seek->why.status == CF_OK || refused) seek->why = *error;
    if (self->link != LINK_SEEKING) return;
    redis_talk *next = next_behind(self, seek->at, false);
    if (next) {
        seek->at = index_of(next);
        ask_one(next);
        return;
    }
    bool strangers = true;
    for (size_t i = 0; i < self->options.place_count; i++) {
        if (!seek->talks[i].failed) return; /* it is being asked */
        strangers = strangers && seek->talks[i].stranger;
    }
    cf_error why = seek->why;
    /* All know their way, but not that name: a mistake in the URL, of which no waiting will mend anything. */
    if (strangers) why.status = CF_EINVAL;
    redis_not_found(self, &why);
}

static void give_up(redis_talk *talk, int status, const char *what, const char *detail)
{
    const redis_place *place = place_of(talk);
    cf_error error;
    const char *form = strchr(place->host, ':') ? "the Sentinel at [%s]:%s %s%s" : "the Sentinel at %s:%s %s%s";
    cf_error_set(&error, status, CF_NOT_APPLIED, form, place->host, place->port, what, detail);
    pass_over(talk, &error);
}

/* --------------------------------------------------------------------------------------------------------- whom to believe -- */

static uint64_t print_of(cf_slice host, cf_slice port)
{
    static const cf_hash_key key = {UINT64_C(0x636f756e74657266), UINT64_C(0x6f696c2073656e74)};
    uint64_t print = cf_hash(&key, host) * UINT64_C(0x100000001b3) ^ cf_hash(&key, port);
    return print ? print : 1;
}

/* Where the link is, or goes; 0: nobody has named anything yet. */
static uint64_t print_of_link(const cf_backend *self)
{
    const redis_options *options = &self->options;
    return options->host ? print_of(cf_text(options->host), cf_text(options->port)) : 0;
}

/* Nobody names where the link is any more, of all or of more than half of them. */
static bool abandoned(const cf_backend *self, uint64_t link)
{
    size_t count = self->options.place_count, against = 0, unheard = 0;
    for (size_t i = 0; i < count; i++) {
        const redis_talk *talk = &self->seek.talks[i];
        if (talk->heard == HEARD_A_NAME && talk->named == link) return false;
        against += talk->heard == HEARD_A_NAME;
        unheard += talk->heard == HEARD_NOT_YET;
    }
    return unheard == 0 || 2 * against > count;
}

/* It names that server. False: that is no server. */
static bool named(redis_talk *talk, cf_slice host, cf_slice port)
{
    cf_backend *self = talk->self;
    redis_seek *seek = &self->seek;
    uint64_t    link = print_of_link(self), before = talk->named, now = print_of(host, port);
    talk->named = now;
    talk->heard = HEARD_A_NAME;
    talk->failed = talk->stranger = false;
    talk->rests_until_ms = 0;
    seek->why.status = CF_OK;
    /* A connection that only owes an answer is not given up by the first word of one who may have been behind all the time. */
    bool news = before ? now != before : self->link != LINK_READY;
    if (self->link != LINK_SEEKING && (now == link || !(news || abandoned(self, link)))) return true;
    seek->at = index_of(talk);
    for (size_t i = 0; i < self->options.place_count && now != link; i++)
        if (!seek->talks[i].named) seek->talks[i].named = link; /* who says so from now on is behind */
    if (redis_found(self, host, port) == CF_OK) return true;
    talk->named = before;
    return false;
}

/* -------------------------------------------------------------------------------------------------------- what it says -- */

/* The line at `*at`, without its end. False: it has not come whole. */
static bool take_line(const redis_talk *talk, size_t *at, cf_slice *line)
{
    const char *start = talk->in + *at, *end = *at < talk->len ? memchr(start, '\n', talk->len - *at) : NULL;
    if (!end || end == start || end[-1] != '\r') return false;
    *line = cf_bytes(start, (size_t)(end - start) - 1);
    *at += line->len + 2;
    return true;
}

typedef enum { PARSED, INCOMPLETE, ODD } parsed;

static parsed take_string(const redis_talk *talk, size_t *at, cf_slice *text)
{
    cf_slice line;
    int64_t  len;
    if (!take_line(talk, at, &line)) return INCOMPLETE;
    if (line.len < 2 || line.ptr[0] != '$' || !cf_parse_int(cf_bytes(line.ptr + 1, line.len - 1), &len) || len < 1 || len > INPUT) return ODD;
    if (talk->len - *at < (size_t)len + 2) return INCOMPLETE;
    *text = cf_bytes(talk->in + *at, (size_t)len);
    *at += (size_t)len + 2;
    return text->ptr[len] == '\r' && text->ptr[len + 1] == '\n' ? PARSED : ODD;
}

static void refused(redis_talk *talk, cf_slice line)
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
            give_up(talk, i < 3 ? CF_EAUTH : CF_EINVAL, words[i].meaning, "");
            return;
        }
    give_up(talk, CF_EUNAVAILABLE, "answered with an error", "");
}

static void understand(redis_talk *talk)
{
    size_t      at = 0;
    cf_slice    line, host, port;
    if (talk->owes_login) {
        if (!take_line(talk, &at, &line)) return;
        if (line.len && line.ptr[0] == '-') {
            refused(talk, line);
            return;
        }
        if (!cf_slice_equal(line, cf_text("+OK"))) {
            give_up(talk, CF_EUNAVAILABLE, "does not answer as Sentinels do", "");
            return;
        }
        memmove(talk->in, talk->in + at, talk->len - at);
        talk->len -= at;
        talk->owes_login = false;
        at = 0;
    }
    if (!take_line(talk, &at, &line)) return;
    if (line.len && line.ptr[0] == '-') {
        refused(talk, line);
        return;
    }
    if (cf_slice_equal(line, cf_text("*-1")) || cf_slice_equal(line, cf_text("$-1"))) {
        talk->stranger = true;
        give_up(talk, CF_EUNAVAILABLE, "knows no primary called ", talk->self->options.primary);
        return;
    }
    parsed how = cf_slice_equal(line, cf_text("*2")) ? take_string(talk, &at, &host) : ODD;
    if (how == PARSED) how = take_string(talk, &at, &port);
    if (how == INCOMPLETE && talk->len < INPUT) return;
    if (how == PARSED && at == talk->len) {
        char copy[INPUT]; /* it may be asked again meanwhile */
        memcpy(copy, talk->in, at);
        host.ptr = copy + (host.ptr - talk->in);
        port.ptr = copy + (port.ptr - talk->in);
        talk->len = 0;
        rest(talk);
        if (named(talk, host, port)) return;
    }
    give_up(talk, CF_EUNAVAILABLE, "does not answer as Sentinels do", "");
}

/* --------------------------------------------------------------------------------------------------------------- asking -- */

/* False: it is given up. */
static bool push(redis_talk *talk)
{
    const cf_platform *platform = talk->self->platform;
    while (talk->written < talk->out.len) {
        const char *bytes = talk->out.ptr + talk->written;
        size_t      count = talk->out.len - talk->written;
        int64_t     sent = talk->tls ? redis_tls_send(talk->tls, bytes, count) : platform->send(platform->self, talk->fd, bytes, count);
        if (sent < 0 && redis_would_block()) break;
        if (sent <= 0) {
            give_up(talk, CF_EUNAVAILABLE, "cannot be written to: ", strerror(errno));
            return false;
        }
        talk->written += (size_t)sent;
    }
    cf_watch_set(talk->watch, CF_READABLE | (talk->written < talk->out.len ? CF_WRITABLE : 0u) | (talk->tls ? redis_tls_wants(talk->tls) : 0u));
    return true;
}

static void ask(redis_talk *talk, bool login)
{
    const cf_platform   *platform = talk->self->platform;
    const redis_options *options = &talk->self->options;
    int                  rc = CF_OK;
    talk->state = TALK_ASKING;
    talk->out.len = talk->written = talk->len = 0;
    talk->owes_login = login && options->sentinel_password;
    if (talk->owes_login) rc = redis_format_auth(platform, &talk->out, options->sentinel_user, options->sentinel_password);
    if (rc == CF_OK)
        rc = redis_format(platform, &talk->out, (cf_slice[]){cf_text("SENTINEL"), cf_text("get-master-addr-by-name"), cf_text(options->primary)}, 3);
    if (rc != CF_OK) give_up(talk, CF_EUNAVAILABLE, "cannot be asked: no memory", "");
    else push(talk);
}

static void shake_hands(redis_talk *talk)
{
    cf_error error = {0};
    int rc = redis_tls_handshake(talk->tls, &error);
    if (rc == CF_OK) ask(talk, true);
    else if (rc == CF_PENDING) cf_watch_set(talk->watch, redis_tls_wants(talk->tls));
    else pass_over(talk, &error);
}

static void listen(redis_talk *talk)
{
    const cf_platform *platform = talk->self->platform;
    for (;;) {
        if (talk->len == INPUT) {
            give_up(talk, CF_EUNAVAILABLE, "does not answer as Sentinels do", "");
            return;
        }
        char   *room = talk->in + talk->len;
        size_t  size = INPUT - talk->len;
        int64_t got = talk->tls ? redis_tls_read(talk->tls, room, size) : platform->read(platform->self, talk->fd, room, size);
        if (got < 0 && redis_would_block()) {
            push(talk); /* what TLS may want to write */
            return;
        }
        if (got <= 0 || talk->state != TALK_ASKING) { /* one that says more than it was asked is not asked again */
            if (talk->state == TALK_ASKING) give_up(talk, CF_EUNAVAILABLE, "closed the connection", "");
            else hang_up(talk);
            return;
        }
        talk->len += (size_t)got;
        understand(talk);
        if (talk->state != TALK_ASKING || talk->fd < 0) return;
    }
}

static void dial_next(redis_talk *talk, int error);

static void connected(redis_talk *talk)
{
    const cf_backend *self = talk->self;
    cf_error          error = {0};
    if (!self->options.tls) {
        ask(talk, true);
        return;
    }
    if (redis_tls_new(self->tls_context, place_of(talk)->host, talk->fd, &talk->tls, &error) != CF_OK) {
        pass_over(talk, &error);
        return;
    }
    talk->state = TALK_HANDSHAKE;
    shake_hands(talk);
}

static void on_ready(void *user, unsigned events)
{
    redis_talk        *talk = user;
    const cf_platform *platform = talk->self->platform;
    switch (talk->state) {
    case TALK_DIALLING: {
        int rc = platform->connected(platform->self, talk->fd), error = errno;
        if (rc == 0) connected(talk);
        else if (error != EINPROGRESS) dial_next(talk, error);
        return;
    }
    case TALK_HANDSHAKE: shake_hands(talk); return;
    case TALK_ASKING:
        if (events & CF_WRITABLE && !push(talk)) return;
        listen(talk);
        return;
    default: listen(talk); return;
    }
}

static void dial_next(redis_talk *talk, int error)
{
    const cf_backend *self = talk->self;
    drop(talk);
    talk->state = TALK_DIALLING;
    while (talk->dialled < talk->address_count) {
        talk->fd = self->platform->connect(self->platform->self, &talk->addresses[talk->dialled++]);
        error = errno;
        if (talk->fd < 0) continue;
        if (cf_watch_new(self->loop, talk->fd, CF_WRITABLE, on_ready, talk, &talk->watch) == CF_OK) return;
        error = ENOMEM;
        drop(talk);
    }
    give_up(talk, CF_EUNAVAILABLE, "cannot be reached: ", strerror(error));
}

static void looked_up(void *user, const cf_address *addresses, int count)
{
    redis_talk *talk = user;
    if (count < 0) {
        give_up(talk, CF_EUNAVAILABLE, "was not found by its name: ", cf_resolve_error(count));
        return;
    }
    memcpy(talk->addresses, addresses, sizeof talk->addresses);
    talk->address_count = count;
    dial_next(talk, ECONNREFUSED);
}

static void ask_one(redis_talk *talk)
{
    cf_backend        *self = talk->self;
    const redis_place *place = place_of(talk);
    int64_t            fair = self->options.connect_ms / ((int64_t)self->options.place_count + 1); /* an attempt at the primary does not end before they all do */
    cf_timer_set(talk->timer, fair < 50 ? 50 : fair < REDIS_ANSWER_MS ? fair : REDIS_ANSWER_MS);
    if (talk->fd >= 0) { /* it has answered before */
        ask(talk, false);
        return;
    }
    talk->dialled = 0;
    talk->address_count = 1;
    if (cf_address_of(place->host, place->port, &talk->addresses[0]) == CF_OK) {
        dial_next(talk, ECONNREFUSED);
        return;
    }
    talk->state = TALK_RESOLVING;
    if (redis_look_up(self, place->host, place->port, looked_up, talk, &talk->job) != CF_OK) give_up(talk, CF_EUNAVAILABLE, "cannot be looked up: no thread", "");
}

/* ---------------------------------------------------------------------------------------------------------- for the link -- */

static void await_turn(cf_backend *self)
{
    bool    young = self->outage_ms < 0 || now_ms(self) - self->outage_ms < PATIENT_MS;
    int64_t turn = (young ? REDIS_POLL_MS : REDIS_SLOW_POLL_MS) / (int64_t)self->options.place_count;
    cf_timer_set(self->seek.timer, turn > POLL_LEAST_MS ? turn : POLL_LEAST_MS);
}

void redis_seek_begin(cf_backend *self)
{
    redis_seek *seek = &self->seek;
    /* In peace one answers soon enough; others are troubled by a first connection only when it takes its time. */
    if (!seek->open && self->outage_ms < 0) cf_timer_set(seek->timer, REDIS_QUIET_MS);
    else if (!seek->open) await_turn(self);
    seek->open = true;
    seek->why.status = CF_OK;
    for (size_t i = 0; i < self->options.place_count; i++) seek->talks[i].failed = seek->talks[i].stranger = false;
    redis_talk *talk = &seek->talks[seek->at];
    if (talk->rests_until_ms > now_ms(self)) {
        redis_talk *next = next_behind(self, seek->at, true);
        if (next) talk = next;
    }
    seek->at = seek->turn = index_of(talk);
    if (talk->state == TALK_RESTS) ask_one(talk);
}

void redis_seek_if_silent(cf_backend *self)
{
    if (!self->seek.open) cf_timer_set(self->seek.timer, REDIS_QUIET_MS);
}

void redis_seek_elsewhere(cf_backend *self) { self->seek.at = (self->seek.at + 1) % self->options.place_count; }

void redis_seek_end(cf_backend *self)
{
    redis_seek *seek = &self->seek;
    for (size_t i = 0; i < self->options.place_count; i++) {
        redis_talk *talk = &seek->talks[i];
        hang_up(talk);
        talk->heard = HEARD_NOT_YET;
        talk->named = 0;
        talk->rests_until_ms = 0;
    }
    seek->open = false;
    seek->why.status = CF_OK;
    cf_timer_set(seek->timer, -1);
}

void redis_seek_forked(cf_backend *self)
{
    for (size_t i = 0; i < self->options.place_count; i++) self->seek.talks[i].job = NULL; /* the loop drops it: its thread does not exist here */
    redis_seek_end(self);
    self->seek.fresh = false;
}

static void on_timer(void *user)
{
    cf_backend *self = user;
    if (redis_in_doubt(self, REDIS_QUIET_MS)) {
        redis_seek *seek = &self->seek;
        seek->open = true;
        await_turn(self);
        redis_talk *talk = next_behind(self, seek->turn, true);
        if (!talk) return;
        seek->turn = index_of(talk);
        ask_one(talk);
    } else {
        redis_seek_end(self);
        if (redis_in_doubt(self, 0)) redis_seek_if_silent(self); /* heard, but it owes something still */
    }
}

static void out_of_patience(void *user) { give_up(user, CF_EUNAVAILABLE, "did not answer in time", ""); }

int redis_seek_new(cf_backend *self)
{
    redis_seek *seek = &self->seek;
    size_t      count = self->options.place_count;
    int         rc = cf_timer_new(self->loop, on_timer, self, &seek->timer);
    if (rc == CF_OK && !(seek->talks = cf_zalloc(self->platform, count * sizeof *seek->talks))) rc = CF_ENOMEM;
    for (size_t i = 0; i < count && rc == CF_OK; i++) {
        seek->talks[i].self = self;
        seek->talks[i].fd = -1;
        rc = cf_timer_new(self->loop, out_of_patience, &seek->talks[i], &seek->talks[i].timer);
    }
    return rc;
}

void redis_seek_free(cf_backend *self)
{
    redis_seek *seek = &self->seek;
    for (size_t i = 0; i < self->options.place_count && seek->talks; i++) {
        if (!seek->talks[i].timer) break;
        hang_up(&seek->talks[i]);
        cf_timer_free(seek->talks[i].timer);
    }
    cf_release(self->platform, seek->talks);
    cf_timer_free(seek->timer);
}
