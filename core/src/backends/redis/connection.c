/* connection.c: dialling, greeting, reading and writing, losing and coming back. */
#include "redis.h"

enum {
    INPUT = 64 * 1024,
    READS = 4,            /* of one wake-up: the others on the loop have their turn */
    NEXT_ADDRESS_MS = 250, /* RFC 8305, "Connection Attempt Delay" */
    BACKOFF_MS = 10,
    BACKOFF_YOUNG_MS = 200, /* at most, while an outage is young */
    BACKOFF_MAX_MS = 500,
    STEADY_MS = 1000, /* a connection that lasted so long had ended the outage before */
    HOLD_MS = 200,
    IDLE_MS = 500 /* a connection that was silent for so long is looked at before it is written to */
};

static void dial_next(cf_backend *self);
static void on_ready(void *user, unsigned ready);
static bool read_input(cf_backend *self);
static void came_down(cf_backend *self, const cf_error *why);

static int64_t now_ms(const cf_backend *self) { return cf_monotonic(self->platform); }

void redis_works(cf_backend *self)
{
    self->attempts = self->holds = 0;
    self->outage_ms = -1;
    self->why.status = CF_OK;
}

/* ---------------------------------------------------------------------------------------------------------- randomness -- */

uint64_t redis_jitter(cf_backend *self, uint64_t below)
{
    uint64_t x = self->random[2]; /* xorshift64* (Marsaglia; Vigna): nothing is secret about a pause */
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    self->random[2] = x ? x : 1;
    return below ? x * UINT64_C(2685821657736338717) % below : 0;
}

/* ------------------------------------------------------------------------------------------------------------ hanging up -- */

static void close_fd(cf_backend *self, int *fd)
{
    if (*fd >= 0) self->platform->close(self->platform->self, *fd);
    *fd = -1;
}

static void end_dials(cf_backend *self)
{
    for (int i = 0; i < REDIS_ADDRESSES; i++) {
        cf_watch_free(self->dials[i].watch);
        self->dials[i].watch = NULL;
        close_fd(self, &self->dials[i].fd);
    }
    cf_timer_set(self->dial_timer, -1);
}

/* Secrets have been said, or never will be; their bytes need not stay. */
static void forget_hello(cf_backend *self)
{
    if (self->hello_out.ptr) memset(self->hello_out.ptr, 0, self->hello_out.len);
    cf_buffer_free(self->platform, &self->hello_out);
    self->hello_written = 0;
}

void redis_hang_up(cf_backend *self, bool politely)
{
    cf_job_abandon(self->job);
    self->job = NULL;
    end_dials(self);
    if (self->tls && politely && self->link >= LINK_GREETING) redis_tls_goodbye(self->tls);
    redis_tls_free(self->tls);
    self->tls = NULL;
    cf_watch_free(self->watch);
    self->watch = NULL;
    close_fd(self, &self->fd);
    cf_timer_set(self->timer, -1);
    redis_reader_free(self);
    forget_hello(self);
    self->hello_at = self->hello_count = 0;
    self->holding = self->leaving = self->poisoned = false;
    self->link = LINK_DOWN;
}

/* The next attempt comes after a pause between nothing and twice the last bound (full jitter), so that a thousand clients of a server that was restarted do not
 * come at once. */
static int64_t backoff(cf_backend *self)
{
    int64_t young = self->outage_ms < 0 ? 0 : now_ms(self) - self->outage_ms;
    int64_t most = young < REDIS_YOUNG_MS ? BACKOFF_YOUNG_MS : BACKOFF_MAX_MS;
    int64_t bound = self->attempts < 10 ? (int64_t)BACKOFF_MS << self->attempts : most;
    return (int64_t)redis_jitter(self, (uint64_t)(bound < most ? bound : most) + 1);
}

static void wait_before_next(cf_backend *self, int64_t ms)
{
    self->waits = true;
    self->attempts++;
    cf_timer_set(self->timer, ms);
}

/* An attempt, or a connection that worked, has ended. */
static void came_down(cf_backend *self, const cf_error *why)
{
    cf_error reason = *why; /* it may be self->why */
    bool     was_ready = self->link == LINK_READY, refused = reason.status != CF_EUNAVAILABLE;
    if (was_ready && !self->leaving && now_ms(self) - self->ready_ms > STEADY_MS) redis_works(self);
    self->seek.fresh = false;
    if (self->options.primary && !was_ready && self->link > LINK_SEEKING) redis_seek_elsewhere(self);
    redis_hang_up(self, false);
    if (self->outage_ms < 0) self->outage_ms = now_ms(self);
    self->why = reason;
    redis_queue_lost(self, &reason);
    if (was_ready) self->figures.disconnects++;
    cf_backend_event(self->loop, redis_whole(self), was_ready ? CF_EVENT_DISCONNECT : CF_EVENT_ERROR, reason.status, "%s", reason.text);
    if (refused) {
        self->refusal = reason;
        self->shy = true;
        self->refused_until_ms = now_ms(self) + REDIS_REFUSED_MS;
        redis_queue_refuse(self, &reason);
        if (self->options.primary) redis_seek_end(self);
    }
    /* Sentinels have passwords too, and are asked before each attempt. */
    bool storm = refused || self->seek.why.status == CF_EAUTH;
    wait_before_next(self, storm ? REDIS_REFUSED_MS : was_ready && self->attempts == 0 ? 0 : backoff(self));
    if (self->store) redis_cluster_down(self, &reason, refused);
}

void redis_give_up(cf_backend *self, const cf_error *why) { came_down(self, why); }

static void failed(cf_backend *self, int status, const char *format, const char *detail)
{
    cf_error why;
    cf_error_set(&why, status, CF_NOT_APPLIED, format, self->options.endpoint, detail);
    came_down(self, &why);
}

static void lost(cf_backend *self, const char *detail)
{
    failed(self, CF_EUNAVAILABLE, "the connection to Redis at %s was lost: %s", detail);
}

/* ------------------------------------------------------------------------------------------------------------ greeting -- */

enum { HELLO_AUTH, HELLO_SELECT, HELLO_ROLE, HELLO_PING, HELLO_NAME };

static int say(cf_backend *self, uint8_t step, const cf_slice *args, size_t count)
{
    self->hello[self->hello_count++] = step;
    return redis_format(self->platform, &self->hello_out, args, count);
}

static bool write_hello(cf_backend *self);

static void greet(cf_backend *self)
{
    const redis_options *options = &self->options;
    char number[CF_INT_TEXT];
    int  rc = CF_OK;
    self->link = LINK_GREETING;
    self->hello_out.len = self->hello_written = 0;
    self->hello_at = self->hello_count = 0;
    if (options->password) {
        self->hello[self->hello_count++] = HELLO_AUTH;
        rc = redis_format_auth(self->platform, &self->hello_out, options->user, options->password);
    }
    if (rc == CF_OK && options->db) {
        cf_slice args[2] = {cf_text("SELECT"), cf_bytes(number, cf_format_int(options->db, number))};
        rc = say(self, HELLO_SELECT, args, 2);
    }
    if (rc == CF_OK && (options->primary || options->durable_default)) rc = say(self, HELLO_ROLE, (cf_slice[]){cf_text("INFO"), cf_text("replication")}, 2);
    if (rc == CF_OK) rc = say(self, HELLO_PING, (cf_slice[]){cf_text("PING")}, 1);
    if (rc == CF_OK) rc = say(self, HELLO_NAME, (cf_slice[]){cf_text("CLIENT"), cf_text("SETNAME"), cf_text(options->name)}, 3);
    if (rc != CF_OK) {
        failed(self, CF_EUNAVAILABLE, "no memory to connect to Redis at %s%s", "");
        return;
    }
    cf_watch_set(self->watch, CF_READABLE);
    write_hello(self);
}

static void ready(cf_backend *self)
{
    self->link = LINK_READY;
    self->waits = self->shy = false;
    self->refusal.status = self->why.status = CF_OK;
    self->heard_ms = self->ready_ms = now_ms(self);
    self->figures.connects++;
    cf_timer_set(self->timer, -1);
    forget_hello(self);
    if (self->options.primary) redis_seek_end(self);
    cf_backend_event(self->loop, redis_whole(self), CF_EVENT_CONNECT, CF_OK, "connected to Redis at %s", self->options.endpoint);
    redis_ask_settings(self);
}

void redis_greeted(cf_backend *self)
{
    uint8_t step = self->hello[self->hello_at++];
    redis_reply *reply = &self->reply;
    /* A server that cannot save refuses a PING as it does writes, but it reads. */
    bool reads = step == HELLO_PING && cf_slice_starts(cf_bytes(reply->text.ptr, reply->text.len), cf_text("MISCONF"));
    if (reply->type == REPLY_ERROR && step != HELLO_NAME && !reads) { /* a name is for the server's operator: it may forbid it */
        cf_error error;
        redis_verdict verdict = redis_judge(self, cf_bytes(reply->text.ptr, reply->text.len), &error);
        if (verdict == ERROR_POISON) error.status = CF_EUNAVAILABLE;
        if (step == HELLO_SELECT && verdict == ERROR_FINAL && error.status == CF_EUNAVAILABLE)
            cf_error_set(&error, CF_EINVAL, CF_NOT_APPLIED, "Redis at %s has no database %lld", self->options.endpoint,
                         (long long)self->options.db);
        if (step == HELLO_AUTH && error.status == CF_EUNAVAILABLE && verdict == ERROR_FINAL) error.status = CF_EAUTH;
        if (cf_slice_starts(cf_bytes(reply->text.ptr, reply->text.len), cf_text("NOAUTH")))
            cf_error_set(&error, CF_EAUTH, CF_NOT_APPLIED, "Redis at %s asks for a password", self->options.endpoint);
        self->why = error;
        self->poisoned = true;
        return;
    }
    /* Sentinels may be behind, and what they name may have changed since: nobody is taken for the primary who does not say so. */
    if (step == HELLO_ROLE && reply->type == REPLY_STRING && !reply->failed) {
        cf_slice info = cf_bytes(reply->text.ptr, reply->text.len);
        redis_waits_count(self, info);
        if (!self->options.primary || cf_slice_equal(redis_info_line(info, "role"), cf_text("master"))) return; /* in a cluster the slots tell */
        cf_error_set(&self->why, CF_EUNAVAILABLE, CF_NOT_APPLIED, "Redis at %s is a replica, though a Sentinel has named it as the primary: a failover may be under way",
                     self->options.endpoint);
        self->poisoned = true;
        return;
    }
    if ((reply->type != REPLY_STATUS && reply->type != REPLY_ERROR) || step == HELLO_ROLE) {
        cf_error_set(&self->why, CF_EUNAVAILABLE, CF_NOT_APPLIED, "what listens at %s does not answer as Redis does", self->options.endpoint);
        self->poisoned = true;
        return;
    }
    if (self->hello_at == self->hello_count) ready(self);
}

/* ---------------------------------------------------------------------------------------------------- bytes out and in -- */

static int64_t wire_send(cf_backend *self, const void *bytes, size_t count)
{
    int64_t sent = self->tls ? redis_tls_send(self->tls, bytes, count) : self->platform->send(self->platform->self, self->fd, bytes, count);
    if (sent > 0) self->figures.bytes_sent += (uint64_t)sent;
    return sent;
}

static int64_t wire_read(cf_backend *self)
{
    return self->tls ? redis_tls_read(self->tls, self->input, INPUT) : self->platform->read(self->platform->self, self->fd, self->input, INPUT);
}

/* What to wait for now: for TLS also what it needs in order to go on with the other direction. */
static void watch_for(cf_backend *self, bool unsent)
{
    unsigned events = unsent ? CF_READABLE | CF_WRITABLE : CF_READABLE;
    if (self->tls) events |= redis_tls_wants(self->tls);
    cf_watch_set(self->watch, events);
}

/* What broke, in the words of TLS where it is there. */
static void broke(cf_backend *self)
{
    cf_error why;
    if (self->tls && redis_tls_fault(self->tls, &why) != CF_OK) came_down(self, &why);
    else if (!self->tls && self->link != LINK_READY && errno == ECONNRESET)
        lost(self, "it was reset before the first answer (does it speak TLS on this port? then the URL begins with rediss:)");
    else lost(self, strerror(errno));
}

/* TLS has taken bytes that the socket has not. False: the connection is gone. */
static bool push_on(cf_backend *self)
{
    if (!self->tls || !(redis_tls_wants(self->tls) & CF_WRITABLE)) return true;
    if (redis_tls_send(self->tls, NULL, 0) < 0 && !redis_would_block()) {
        broke(self);
        return false;
    }
    watch_for(self, self->link == LINK_GREETING ? self->hello_written < self->hello_out.len : redis_queue_unsent(&self->queue) != 0);
    return true;
}

static bool write_hello(cf_backend *self)
{
    while (self->hello_written < self->hello_out.len) {
        int64_t sent = wire_send(self, self->hello_out.ptr + self->hello_written, self->hello_out.len - self->hello_written);
        if (sent < 0 && redis_would_block()) break;
        if (sent <= 0) {
            broke(self);
            return false;
        }
        self->hello_written += (size_t)sent;
    }
    watch_for(self, self->hello_written < self->hello_out.len);
    return true;
}

static void write_queue(cf_backend *self)
{
    redis_queue *queue = &self->queue;
    bool paused = self->holding || self->leaving;
    if (!paused) redis_queue_bury(self);
    if (paused || redis_queue_unsent(queue) == 0) {
        watch_for(self, false); /* it may be writable all the time */
        return;
    }
    int64_t us = cf_monotonic_us(self->platform);
    if (!redis_queue_owed(queue)) {
        /* A server that closed the connection while nobody looked would get a write whose fate nobody knows. */
        if (us / 1000 - self->heard_ms > IDLE_MS && !read_input(self)) return;
        self->heard_ms = us / 1000; /* silence counts from now on */
        cf_timer_set(self->timer, self->options.silence_ms);
        if (self->options.primary) redis_seek_if_silent(self);
        if (self->store) redis_cluster_owes(self);
    }
    while (redis_queue_unsent(queue)) {
        int64_t sent = wire_send(self, queue->out.ptr + queue->written, redis_queue_unsent(queue));
        if (sent < 0 && redis_would_block()) break;
        if (sent <= 0) {
            broke(self);
            return;
        }
        redis_queue_sent(self, (size_t)sent, us);
        if (queue->sent == 0) self->heard_ms = us / 1000; /* a long command gets on */
    }
    watch_for(self, redis_queue_unsent(queue) != 0);
}

/* False: the connection is gone. */
static bool read_input(cf_backend *self)
{
    for (int i = 0; i < READS || (self->tls && redis_tls_has_more(self->tls)); i++) {
        int64_t got = wire_read(self);
        if (got < 0 && redis_would_block()) return true;
        if (got <= 0) {
            bool early = self->link == LINK_GREETING;
            if (early && got == 0) failed(self, CF_EUNAVAILABLE, "Redis at %s closed the connection %s", "before it had said anything useful");
            else if (got == 0) lost(self, "the server closed it");
            else broke(self);
            return false;
        }
        self->figures.bytes_received += (uint64_t)got;
        self->figures.round_trips++;
        int64_t us = cf_monotonic_us(self->platform);
        self->now_us = (uint32_t)us;
        self->heard_ms = us / 1000;
        if (!redis_reader_feed(self, self->input, (size_t)got)) {
            came_down(self, &self->why);
            return false;
        }
        if ((size_t)got < INPUT && !(self->tls && redis_tls_has_more(self->tls))) return true;
    }
    return true;
}

static void leave_if_done(cf_backend *self)
{
    if (self->leaving && self->link == LINK_READY && self->queue.sent == 0) {
        cf_error why = self->why;
        self->attempts++; /* it may say the same again: not at once */
        came_down(self, &why);
    }
}

static void shake_hands(cf_backend *self)
{
    cf_error error = {0};
    int rc = redis_tls_handshake(self->tls, &error);
    if (rc == CF_OK) greet(self);
    else if (rc == CF_PENDING) cf_watch_set(self->watch, redis_tls_wants(self->tls));
    else came_down(self, &error);
}

static void on_ready(void *user, unsigned events)
{
    cf_backend *self = user;
    switch (self->link) {
    case LINK_HANDSHAKE: shake_hands(self); return;
    case LINK_GREETING:
        if (events & CF_WRITABLE && !write_hello(self)) return;
        if (self->link == LINK_GREETING && !read_input(self)) return;
        break;
    case LINK_READY:
        if (!read_input(self)) return;
        break;
    default: return;
    }
    if (!push_on(self)) return;
    leave_if_done(self);
    if (self->link == LINK_READY) write_queue(self);
    redis_queue_slim(self);
    if (self->store) redis_cluster_sort(self);
}

/* ------------------------------------------------------------------------------------------------------------- dialling -- */

static void connected(cf_backend *self, int fd)
{
    cf_error error = {0};
    self->fd = fd;
    cf_timer_set(self->dial_timer, -1);
    if (cf_watch_new(self->loop, fd, CF_READABLE, on_ready, self, &self->watch) != CF_OK) {
        failed(self, CF_EUNAVAILABLE, "no memory to connect to Redis at %s%s", "");
        return;
    }
    if (!self->options.tls) {
        greet(self);
        return;
    }
    if (redis_tls_new(self->tls_context, self->options.host, fd, &self->tls, &error) != CF_OK) {
        came_down(self, &error);
        return;
    }
    self->link = LINK_HANDSHAKE;
    shake_hands(self);
}

static bool any_dial(const cf_backend *self)
{
    for (int i = 0; i < REDIS_ADDRESSES; i++)
        if (self->dials[i].fd >= 0) return true;
    return false;
}

static void dial_failed(cf_backend *self, int error)
{
    if (self->dialled < self->address_count) dial_next(self);
    else if (!any_dial(self)) failed(self, CF_EUNAVAILABLE, "cannot connect to Redis at %s: %s", strerror(error));
}

static void on_dialled(void *user, unsigned events)
{
    redis_dial *dial = user;
    cf_backend *self = dial->self;
    (void)events;
    int rc = self->platform->connected(self->platform->self, dial->fd), error = errno;
    if (rc != 0 && error == EINPROGRESS) return;
    int fd = dial->fd;
    cf_watch_free(dial->watch);
    dial->watch = NULL;
    if (rc == 0) dial->fd = -1; /* ours to keep */
    else close_fd(self, &dial->fd);
    if (rc == 0) {
        end_dials(self);
        connected(self, fd);
    } else {
        dial_failed(self, error);
    }
}

static void dial_next(cf_backend *self)
{
    int error = ECONNREFUSED;
    while (self->dialled < self->address_count) {
        redis_dial *dial = &self->dials[self->dialled];
        dial->fd = self->platform->connect(self->platform->self, &self->addresses[self->dialled++]);
        error = errno;
        if (dial->fd < 0) continue;
        if (cf_watch_new(self->loop, dial->fd, CF_WRITABLE, on_dialled, dial, &dial->watch) == CF_OK) {
            if (self->dialled < self->address_count) cf_timer_set(self->dial_timer, NEXT_ADDRESS_MS);
            return;
        }
        error = ENOMEM;
        close_fd(self, &dial->fd);
    }
    if (!any_dial(self)) failed(self, CF_EUNAVAILABLE, "cannot connect to Redis at %s: %s", strerror(error));
}

static void dial(cf_backend *self)
{
    self->link = LINK_DIALLING;
    self->dialled = 0;
    dial_next(self);
}

/* Families take turns, the one that the system prefers first (RFC 8305, section 4). */
static void take_turns(cf_address *addresses, int count)
{
    for (int i = 1; i < count; i++) {
        if (addresses[i].len != addresses[i - 1].len) continue;
        for (int j = i + 1; j < count; j++) {
            if (addresses[j].len == addresses[i].len) continue;
            cf_address other = addresses[j];
            memmove(addresses + i + 1, addresses + i, (size_t)(j - i) * sizeof *addresses);
            addresses[i] = other;
            break;
        }
    }
}

/* What a look-up needs and brings, on a thread that may outlive the store. */
typedef struct look_up {
    redis_looked_up found;
    void           *user;
    cf_job        **job;
    int             count;
    cf_address      addresses[REDIS_ADDRESSES];
    char            port[8];
    char            host[];
} look_up;

static void look_up_run(void *data)
{
    look_up *look = data;
    look->count = cf_resolve(look->host, look->port, look->addresses, REDIS_ADDRESSES);
}

static void look_up_done(void *data)
{
    look_up *look = data;
    *look->job = NULL;
    if (look->count > 0) take_turns(look->addresses, look->count);
    look->found(look->user, look->addresses, look->count);
}

static void look_up_drop(void *data) { cf_release(cf_platform_real(), data); }

int redis_look_up(cf_backend *self, const char *host, const char *port, redis_looked_up found, void *user, cf_job **out)
{
    size_t   len = strlen(host) + 1;
    look_up *look = cf_zalloc(cf_platform_real(), sizeof *look + len);
    if (!look) return CF_ENOMEM;
    look->found = found;
    look->user = user;
    look->job = out;
    memcpy(look->host, host, len);
    memcpy(look->port, port, strlen(port) + 1);
    int rc = cf_job_start(self->loop, look_up_run, look_up_done, look_up_drop, look, out);
    if (rc != CF_OK) look_up_drop(look);
    return rc;
}

static void looked_up(void *user, const cf_address *addresses, int count)
{
    cf_backend *self = user;
    if (count < 0) {
        failed(self, CF_EUNAVAILABLE, "the name of Redis at %s was not found: %s", cf_resolve_error(count));
        return;
    }
    memcpy(self->addresses, addresses, sizeof self->addresses);
    self->address_count = count;
    dial(self);
}

/* Connects to where options.host is. */
static void approach(cf_backend *self)
{
    const redis_options *options = &self->options;
    self->address_count = 1;
    if (options->unix_socket) {
        if (cf_address_unix(cf_text(options->host), &self->addresses[0]) == CF_OK) dial(self);
        else failed(self, CF_EINVAL, "the path of the socket %s%s is longer than the system allows", "");
    } else if (cf_address_of(options->host, options->port, &self->addresses[0]) == CF_OK) {
        dial(self);
    } else {
        self->link = LINK_RESOLVING;
        if (redis_look_up(self, options->host, options->port, looked_up, self, &self->job) != CF_OK)
            failed(self, CF_EUNAVAILABLE, "no thread to look up the name of Redis at %s%s", "");
    }
}

static void start(cf_backend *self)
{
    self->waits = false;
    self->refusal.status = CF_OK;
    if (!self->seeded) {
        if (self->platform->random(self->platform->self, self->random, sizeof self->random) != 0) {
            failed(self, CF_EUNAVAILABLE, "the system gives no random bytes for Redis at %s%s", "");
            return;
        }
        self->seeded = true;
    }
    cf_timer_set(self->timer, self->options.connect_ms);
    if (!self->options.primary || self->seek.fresh) {
        approach(self);
    } else {
        self->link = LINK_SEEKING;
        redis_seek_begin(self);
    }
}

/* ------------------------------------------------------------------------------------------------------------- Sentinel -- */

bool redis_in_doubt(const cf_backend *self, int64_t ms)
{
    return self->link != LINK_READY || (redis_queue_owed(&self->queue) && now_ms(self) - self->heard_ms >= ms);
}

int redis_found(cf_backend *self, cf_slice host, cf_slice port)
{
    redis_options *options = &self->options;
    bool other = !redis_same_place(options->host, options->port, host, port);
    if (other) {
        char before[sizeof options->endpoint];
        memcpy(before, options->endpoint, sizeof before);
        int rc = redis_options_locate(self->platform, options, host, port);
        if (rc != CF_OK) return rc;
        if (self->link == LINK_READY) {
            cf_error why;
            cf_error_set(&why, CF_EUNAVAILABLE, CF_NOT_APPLIED, "the connection to Redis at %s was given up: a Sentinel names another primary, %s", before,
                         options->endpoint);
            came_down(self, &why);
        } else if (self->link > LINK_SEEKING) {
            redis_hang_up(self, false);
        }
    }
    self->seek.fresh = true;
    if (self->link == LINK_SEEKING) {
        approach(self);
    } else if (other) {
        self->waits = false;
        redis_flush(self);
    }
    return CF_OK;
}

void redis_not_found(cf_backend *self, const cf_error *why)
{
    if (self->link != LINK_SEEKING) return;
    if (self->options.host) approach(self); /* the last one that is known; it says itself whether it is the primary */
    else came_down(self, why);
}

/* --------------------------------------------------------------------------------------------------------------- timers -- */

void redis_hold(cf_backend *self)
{
    if (self->holding) return;
    self->holding = true;
    int64_t bound = self->holds < 5 ? (int64_t)BACKOFF_MS << self->holds : HOLD_MS;
    self->holds++;
    cf_timer_set(self->timer, BACKOFF_MS + (int64_t)redis_jitter(self, (uint64_t)(bound < HOLD_MS ? bound : HOLD_MS)));
}

void redis_on_timer(void *user)
{
    cf_backend *self = user;
    if (self->link == LINK_DOWN) {
        self->waits = false;
        self->refusal.status = CF_OK;
        redis_flush(self);
    } else if (self->link != LINK_READY) {
        failed(self, CF_EUNAVAILABLE, "Redis at %s did not answer in time: %s",
               self->link == LINK_SEEKING ? "no Sentinel has named it yet"
               : self->link == LINK_RESOLVING ? "its name was not found yet"
               : self->link == LINK_DIALLING ? "the connection was not accepted"
               : self->link == LINK_HANDSHAKE ? "the TLS handshake did not end (does it speak TLS on this port?)" : "nothing came after the greeting");
    } else if (self->holding) {
        self->holding = false;
        if (redis_queue_owed(&self->queue)) cf_timer_set(self->timer, self->options.silence_ms);
        write_queue(self);
    } else if (redis_queue_owed(&self->queue)) {
        int64_t left = self->heard_ms + self->options.silence_ms - now_ms(self);
        if (left > 0) cf_timer_set(self->timer, left);
        else lost(self, "it was silent for too long");
    }
}

void redis_on_dial_timer(void *user)
{
    cf_backend *self = user;
    if (self->link == LINK_DIALLING && self->dialled < self->address_count) dial_next(self);
}

/* ----------------------------------------------------------------------------------------------------------------- table -- */

void redis_flush(cf_backend *self)
{
    /* After a refusal only when somebody asks: nobody's account gets locked by an idle process. */
    if (self->link == LINK_READY) write_queue(self);
    else if (self->link == LINK_DOWN && !self->waits && (!self->shy || self->queue.count)) start(self);
}

void redis_forked(cf_backend *self)
{
    self->link = LINK_DOWN; /* no goodbye */
    self->job = NULL;       /* the loop drops it: its thread does not exist here */
    redis_hang_up(self, false);
    if (self->options.primary) redis_seek_forked(self);
    redis_queue_clear(self);
    self->seeded = self->waits = self->shy = false;
    self->attempts = 0;
    self->outage_ms = -1;
    self->refusal.status = self->why.status = CF_OK;
}
