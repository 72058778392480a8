/* cluster.c: the servers of a cluster (redis.io/docs: "Redis cluster specification").
 *
 * Each primary is a backend of its own, a node, with its connection and its queue. What a store of a cluster asks goes to the node that has the slot of the key, and
 * waits in the store's own queue as long as nobody knows which that is. A server that has a slot no more says who does (MOVED): the call goes there, and the whole
 * map is asked for. The map is asked for as well when a node has lost its connection, and when it owes an answer for QUIET_MS; then every POLL_MS until calls get
 * on again, of one server after the other. What was not sent to a node that has lost its slots goes to the new one. */
#include <stdio.h>

#include "redis.h"

enum {
    QUIET_MS = 250,
    POLL_MS = 100,
    SLOW_POLL_MS = 1000, /* when the outage is an old one */
    YOUNG_MS = 10 * 1000,
    ANSWER_MS = 500, /* for one server */
    LATER_MS = 10,   /* a slot that is just moving, or a cluster that is down, is asked again after this, and some jitter */
    LATER_JITTER_MS = 40,
    REFUSED_MS = 1000,
    HOPS = 5,
    HASH = 16 /* digits of a node's in a cursor */
};

static int64_t now_ms(const cf_backend *self) { return cf_monotonic(self->platform); }

/* -------------------------------------------------------------------------------------------------------------- nodes -- */

static bool is_place(const redis_options *options, cf_slice host, cf_slice port)
{
    return options->host && cf_slice_equal(host, cf_text(options->host)) && cf_slice_equal(port, cf_text(options->port));
}

static size_t find_node(const redis_cluster *cluster, cf_slice host, cf_slice port)
{
    for (size_t i = 0; i < cluster->count; i++)
        if (cluster->nodes[i] && is_place(&cluster->nodes[i]->options, host, port)) return i;
    return REDIS_NOBODY;
}

static bool room_for_node(cf_backend *self, size_t *at)
{
    redis_cluster *cluster = self->cluster;
    for (*at = 0; *at < cluster->count; ++*at)
        if (!cluster->nodes[*at]) return true;
    if (cluster->count == REDIS_NODES) return false;
    if (cluster->count % 16 == 0) {
        cf_backend **nodes = cf_zalloc(self->platform, (cluster->count + 16) * sizeof *nodes);
        if (!nodes) return false;
        if (cluster->count) memcpy(nodes, cluster->nodes, cluster->count * sizeof *nodes);
        cf_release(self->platform, cluster->nodes);
        cluster->nodes = nodes;
    }
    cluster->count++;
    return true;
}

/* The node at that place, which may be new; REDIS_NOBODY where there is no memory for it, or that is no place. */
static size_t node_at(cf_backend *self, cf_slice host, cf_slice port)
{
    redis_options options;
    cf_error      error;
    size_t        at = find_node(self->cluster, host, port);
    if (at != REDIS_NOBODY) return at;
    if (redis_options_copy(self->platform, &self->options, host, port, &options) != CF_OK) return REDIS_NOBODY;
    cf_backend *node;
    if (redis_new(self->loop, &options, &node, &error) != CF_OK) return REDIS_NOBODY;
    if (!room_for_node(self, &at)) {
        redis_close(node, &error);
        return REDIS_NOBODY;
    }
    node->store = self;
    node->queue.place = (uint64_t)(at + 1) << REDIS_PLACE_SHIFT;
    self->cluster->nodes[at] = node;
    return at;
}

static void add_figures(cf_backend *to, const cf_backend *from)
{
    uint64_t       *sums = (uint64_t *)&to->figures;
    const uint64_t *some = (const uint64_t *)&from->figures;
    for (size_t i = 0; i < sizeof to->figures / sizeof *sums; i++) sums[i] += some[i];
}

/* Servers that have no slot, and nothing to answer: never from inside a node's own call. */
static void prune(cf_backend *self)
{
    redis_cluster *cluster = self->cluster;
    cf_error       error;
    for (size_t i = 0; i < cluster->count && cluster->complete; i++) {
        cf_backend *node = cluster->nodes[i];
        if (!node || node->owned || node->queue.count || (cluster->asking && cluster->asked == node)) continue;
        if (cluster->asked == node) cluster->asked = NULL;
        if (cluster->told == node) cluster->told = NULL;
        cluster->nodes[i] = NULL;
        add_figures(self, node);
        redis_close(node, &error);
    }
}

static void set_owner(redis_cluster *cluster, size_t slot, size_t owner)
{
    if (cluster->owner[slot] == owner) return;
    if (cluster->owner[slot] != REDIS_NOBODY) cluster->nodes[cluster->owner[slot]]->owned--;
    if (owner != REDIS_NOBODY) cluster->nodes[owner]->owned++;
    cluster->owner[slot] = (uint16_t)owner;
    cluster->version++;
}

cf_backend *redis_cluster_route(cf_backend *self, uint16_t slot)
{
    uint16_t    owner = self->cluster->owner[slot];
    cf_backend *to = owner == REDIS_NOBODY ? self : self->cluster->nodes[owner];
    to->slot = slot;
    return to;
}

/* ------------------------------------------------------------------------------------------------------------- asking -- */

static void wake_in(cf_backend *self, int64_t ms)
{
    int64_t due = now_ms(self) + ms;
    if (due >= self->cluster->due_ms) return;
    self->cluster->due_ms = due;
    cf_timer_set(self->timer, ms);
}

static void want(cf_backend *self)
{
    self->cluster->wanted = true;
    wake_in(self, 0);
}

static bool resting(const cf_backend *node) { return node->link == LINK_DOWN && node->waits; }

/* Whom the last MOVED has named, who knows it first; or a server that works; else any that is known, the last one that was asked after all others. */
static cf_backend *whom(cf_backend *self)
{
    redis_cluster *cluster = self->cluster;
    size_t         turn = cluster->turn++, total = cluster->known_count + self->options.place_count;
    cf_backend    *told = cluster->told;
    cluster->told = NULL;
    if (told && !redis_in_doubt(told, QUIET_MS)) return told;
    for (size_t i = 0; i < cluster->count; i++) {
        cf_backend *node = cluster->nodes[(turn + i) % cluster->count];
        if (node && node != cluster->asked && !redis_in_doubt(node, QUIET_MS)) return node;
    }
    for (size_t i = 0; i < 2 * total; i++) {
        size_t             at = (turn + i) % total;
        const redis_place *place = at < cluster->known_count ? &cluster->known[at] : &self->options.places[at - cluster->known_count];
        size_t             node = node_at(self, cf_text(place->host), cf_text(place->port));
        if (node != REDIS_NOBODY && (i >= total || !resting(cluster->nodes[node]))) return cluster->nodes[node];
    }
    return NULL;
}

static void ask(cf_backend *self)
{
    redis_cluster *cluster = self->cluster;
    cf_backend    *node = whom(self);
    cluster->asked_ms = now_ms(self);
    if (!node) return;
    redis_call call = {.ticket = ++cluster->question, .expect = EXPECT_SLOTS, .flags = CALL_OWN};
    if (redis_queue_push(node, NULL, call, (cf_slice[]){cf_text("CLUSTER"), cf_text("SLOTS")}, 2) != CF_OK) return;
    cluster->asking = true;
    cluster->asked = node;
    redis_flush(node);
}

/* To whom something has come, to send it; what comes back meanwhile may go to others again. */
static void send_on(cf_backend *self)
{
    redis_cluster *cluster = self->cluster;
    for (int again = 0; again < 3; again++) {
        bool waits = false;
        cluster->unsorted = false;
        for (size_t i = 0; i < cluster->count; i++) {
            cf_backend *node = cluster->nodes[i];
            if (!node || !node->queue.count) continue;
            waits = true;
            if (redis_queue_unsent(&node->queue)) redis_flush(node);
        }
        if (waits) wake_in(self, QUIET_MS); /* to see whether it gets on */
        if (!cluster->unsorted) break;
    }
}

static void reroute(cf_backend *self)
{
    redis_cluster *cluster = self->cluster;
    redis_queue_reroute(self);
    for (size_t i = 0; i < cluster->count; i++)
        if (cluster->nodes[i]) redis_queue_reroute(cluster->nodes[i]);
    cluster->unsorted = true;
}

static void on_timer(void *user)
{
    cf_backend    *self = user;
    redis_cluster *cluster = self->cluster;
    int64_t        now = now_ms(self), poll = cluster->outage_ms < 0 || now - cluster->outage_ms < YOUNG_MS ? POLL_MS : SLOW_POLL_MS;
    bool           owed = false, stuck = !cluster->complete || self->queue.count;
    cluster->due_ms = INT64_MAX;
    if (self->queue.count && now >= cluster->later_ms && cluster->complete) reroute(self);
    for (size_t i = 0; i < cluster->count; i++) {
        cf_backend *node = cluster->nodes[i];
        if (!node || !node->queue.count) continue;
        owed = true;
        stuck = stuck || (node->queue.count > node->queue.own && redis_in_doubt(node, QUIET_MS));
    }
    if (cluster->asking && now - cluster->asked_ms >= ANSWER_MS) cluster->asking = false;
    if (stuck) cluster->wanted = true;
    if (cluster->refused && !self->queue.count) cluster->wanted = false; /* only when somebody asks: nobody's account gets locked by an idle process */
    if (cluster->wanted && !cluster->asking && now - cluster->asked_ms >= (cluster->refused ? REFUSED_MS : poll)) ask(self);
    send_on(self);
    prune(self);
    if (cluster->asking) wake_in(self, ANSWER_MS);
    else if (cluster->wanted) wake_in(self, cluster->refused ? REFUSED_MS : poll);
    if (self->queue.count && cluster->complete) wake_in(self, now < cluster->later_ms ? cluster->later_ms - now : poll);
    if (owed) wake_in(self, QUIET_MS);
}

/* Nobody will take what waits here: a password that is wrong, or what is there is no cluster. */
static void refuse(cf_backend *self, const cf_error *why)
{
    self->cluster->refused = true;
    self->refusal = *why;
    self->refused_until_ms = now_ms(self) + REFUSED_MS;
    redis_queue_refuse(self, why);
}

static bool anybody(const redis_cluster *cluster)
{
    for (size_t i = 0; i < cluster->count; i++)
        if (cluster->nodes[i] && cluster->nodes[i]->link == LINK_READY) return true;
    return false;
}

void redis_cluster_down(cf_backend *node, const cf_error *why, bool refused)
{
    cf_backend    *self = node->store;
    redis_cluster *cluster = self->cluster;
    self->why = *why;
    if (cluster->asking && cluster->asked == node) cluster->asking = false;
    if (refused && !anybody(cluster)) refuse(self, why);
    if (cluster->complete && !node->owned && !node->queue.count) return;
    if (cluster->outage_ms < 0) cluster->outage_ms = now_ms(self);
    want(self);
}

void redis_cluster_owes(cf_backend *node) { wake_in(node->store, QUIET_MS); }

void redis_cluster_sort(cf_backend *node)
{
    if (node->store->cluster->unsorted) send_on(node->store);
}

/* ------------------------------------------------------------------------------------------------------- CLUSTER SLOTS -- */

static void free_places(cf_backend *self, redis_place *places, size_t *count)
{
    for (size_t i = 0; i < *count; i++) {
        cf_release(self->platform, places[i].host);
        cf_release(self->platform, places[i].port);
    }
    *count = 0;
}

static char *copied(cf_backend *self, cf_slice text)
{
    char *copy = cf_alloc(self->platform, text.len + 1);
    if (!copy) return NULL;
    if (text.len) memcpy(copy, text.ptr, text.len);
    copy[text.len] = 0;
    return copy;
}

static void hear_of(cf_backend *self, cf_slice host, cf_slice port)
{
    redis_cluster *cluster = self->cluster;
    for (size_t i = 0; i < cluster->heard_count; i++)
        if (cf_slice_equal(host, cf_text(cluster->heard[i].host)) && cf_slice_equal(port, cf_text(cluster->heard[i].port))) return;
    if (cluster->heard_count == REDIS_KNOWN) return;
    redis_place place = {copied(self, host), copied(self, port)};
    if (place.host && place.port) {
        cluster->heard[cluster->heard_count++] = place;
    } else {
        cf_release(self->platform, place.host);
        cf_release(self->platform, place.port);
    }
}

void redis_cluster_begin(cf_backend *node)
{
    cf_backend    *self = node->store;
    redis_cluster *cluster = self->cluster;
    for (size_t i = 0; i < REDIS_SLOTS; i++) cluster->said[i] = REDIS_NOBODY;
    cluster->odd = false;
    free_places(self, cluster->heard, &cluster->heard_count);
}

/* [[from, to, [host, port, ...], [host of a replica, port, ...] ...] ...] */
void redis_cluster_number(cf_backend *node, int depth, size_t index, size_t outer, int64_t number)
{
    cf_backend    *self = node->store;
    redis_cluster *cluster = self->cluster;
    if (depth == 2 && index < 2) {
        if (number < 0 || number >= REDIS_SLOTS) cluster->odd = true;
        else *(index ? &cluster->to : &cluster->from) = (uint16_t)number;
        cluster->host_len = 0;
    }
    if (depth != 3 || index != 1 || cluster->odd) return;
    char     digits[CF_INT_TEXT];
    cf_slice port = cf_bytes(digits, cf_format_int(number, digits)), host = cf_bytes(cluster->host, cluster->host_len);
    if (host.len == 0) host = cf_text(node->options.host); /* where it was asked */
    if (number < 1 || number > 65535) cluster->odd = true;
    else if (cf_slice_equal(host, cf_text("?"))) return; /* it does not know its own name yet */
    else if (outer > 2) hear_of(self, host, port);
    cluster->host_len = 0;
    if (outer != 2 || cluster->odd) return;
    size_t at = node_at(self, host, port);
    hear_of(self, host, port);
    if (at == REDIS_NOBODY || cluster->from > cluster->to) cluster->odd = true;
    for (size_t slot = cluster->from; slot <= cluster->to && !cluster->odd; slot++) cluster->said[slot] = (uint16_t)at;
}

void redis_cluster_text(cf_backend *node, int depth, size_t index, cf_slice text)
{
    redis_cluster *cluster = node->store->cluster;
    if (depth != 3 || index != 0) return;
    if (text.len > sizeof cluster->host) {
        cluster->odd = true;
        return;
    }
    if (text.len) memcpy(cluster->host, text.ptr, text.len);
    cluster->host_len = text.len;
}

/* Whom the map has left without a slot: what they owe is not waited for once they have fallen silent. */
static void leave_the_dead(cf_backend *self)
{
    redis_cluster *cluster = self->cluster;
    for (size_t i = 0; i < cluster->count; i++) {
        cf_backend *node = cluster->nodes[i];
        if (!node || node->owned || node->link == LINK_DOWN || !node->queue.count || !redis_in_doubt(node, QUIET_MS)) continue;
        cf_error why;
        cf_error_set(&why, CF_EUNAVAILABLE, CF_NOT_APPLIED, "the connection to Redis at %s was given up: the cluster has given its slots to another server", node->options.endpoint);
        redis_give_up(node, &why);
    }
}

static void learn(cf_backend *self)
{
    redis_cluster *cluster = self->cluster;
    for (size_t slot = 0; slot < REDIS_SLOTS; slot++) set_owner(cluster, slot, cluster->said[slot]);
    free_places(self, cluster->known, &cluster->known_count);
    memcpy(cluster->known, cluster->heard, cluster->heard_count * sizeof *cluster->known);
    cluster->known_count = cluster->heard_count;
    cluster->heard_count = 0;
    cluster->complete = true;
    cluster->wanted = cluster->refused = false;
    cluster->outage_ms = -1;
    self->refusal.status = self->why.status = CF_OK;
    leave_the_dead(self);
    reroute(self);
    if (self->queue.count)
        cf_error_set(&self->why, CF_EUNAVAILABLE, CF_NOT_APPLIED, "no server has the slot of this key at the moment, in %s", self->options.endpoint);
    wake_in(self, 0); /* for those who are needed no more */
}

static void not_told(cf_backend *self, cf_backend *node)
{
    cf_slice text = cf_bytes(node->reply.text.ptr, node->reply.text.len);
    cf_error error;
    redis_judge(node, text, &error);
    if (cf_slice_starts(text, cf_text("ERR This instance has cluster support disabled")))
        cf_error_set(&error, CF_EINVAL, CF_NOT_APPLIED, "Redis at %s is not part of a cluster: the URL then begins with redis:", node->options.endpoint);
    if (cf_slice_starts(text, cf_text("NOPERM")))
        cf_error_set(&error, CF_EAUTH, CF_NOT_APPLIED, "Redis at %s does not allow our user to ask who has which slot (+cluster|slots)", node->options.endpoint);
    if (error.status == CF_ENOTSUP) error.status = CF_EINVAL;
    self->why = error;
    if (!self->cluster->complete && error.status != CF_EUNAVAILABLE) refuse(self, &error);
}

void redis_cluster_answer(cf_backend *node, const redis_call *call)
{
    cf_backend    *self = node->store;
    redis_cluster *cluster = self->cluster;
    /* One that comes when another server was asked already may be an old story: a server that was stopped tells what it knew. */
    if (!cluster->asking || call->ticket != cluster->question) return;
    cluster->asking = false;
    if (node->reply.type == REPLY_ERROR) {
        not_told(self, node);
    } else if (node->reply.type == REPLY_ARRAY && !node->reply.failed && !cluster->odd && cluster->heard_count) {
        learn(self);
        return;
    } else {
        cf_error_set(&self->why, CF_EUNAVAILABLE, CF_NOT_APPLIED, "Redis at %s does not say who has which slot", node->options.endpoint);
    }
    wake_in(self, POLL_MS);
}

/* --------------------------------------------------------------------------------------------------------- redirections -- */

/* "MOVED 3999 127.0.0.1:6381"; without a host it is that of the server which says so. */
static bool read_redirection(cf_backend *node, cf_slice text, size_t *slot, size_t *to)
{
    const char *first = memchr(text.ptr, ' ', text.len), *end = text.ptr + text.len;
    const char *second = first ? memchr(first + 1, ' ', (size_t)(end - first) - 1) : NULL;
    int64_t     number;
    if (!second || !cf_parse_int(cf_bytes(first + 1, (size_t)(second - first) - 1), &number) || number < 0 || number >= REDIS_SLOTS) return false;
    const char *colon = end;
    while (colon > second && *colon != ':') colon--;
    if (colon == second) return false;
    cf_slice host = cf_bytes(second + 1, (size_t)(colon - second) - 1), port = cf_bytes(colon + 1, (size_t)(end - colon) - 1);
    if (host.len == 0) host = cf_text(node->options.host);
    *slot = (size_t)number;
    *to = node_at(node->store, host, port);
    return *to != REDIS_NOBODY;
}

/* A key of a page was not there any more: the page's last call tells when all of it is answered. */
static void begin_anew(cf_backend *node, cf_op *op, redis_call call)
{
    redis_queue *queue = &node->queue;
    for (size_t i = 0; i < queue->count; i++) {
        redis_call *last = redis_queue_at(queue, i);
        if (last->ticket == call.ticket && last->expect == EXPECT_CLEAR_DELETED && !(last->flags & CALL_OWN)) last->flags |= CALL_ANEW;
    }
    redis_queue_shift(queue);
    if (call.expect == EXPECT_CLEAR_ONE) return;
    call.flags |= CALL_ANEW;
    int rc = redis_cluster_clear_on(node, op, call);
    if (rc != CF_PENDING) redis_finish(node, op, rc);
}

bool redis_cluster_redirect(cf_backend *node, cf_op *op, redis_call call, cf_slice text, bool only_this)
{
    cf_backend    *self = node->store;
    redis_cluster *cluster = self->cluster;
    size_t slot, to;
    if (!read_redirection(node, text, &slot, &to)) {
        cf_error_set(&node->why, CF_EUNAVAILABLE, CF_NOT_APPLIED, "Redis at %s sent us on to what is no server: the connection was given up", node->options.endpoint);
        node->poisoned = true;
        return true;
    }
    cluster->redirects++;
    if (!only_this) {
        set_owner(cluster, slot, to);
        cluster->told = cluster->nodes[to];
        want(self);
    }
    if (call.expect == EXPECT_CLEAR_ONE || call.expect == EXPECT_CLEAR_DELETED) {
        begin_anew(node, op, call);
        return true;
    }
    if (call.expect == EXPECT_MARK) {
        redis_queue_shift(&node->queue);
        redis_finish(node, op, cf_op_fail(op, CF_EUNAVAILABLE, CF_UNKNOWN, "the slot of this key has just moved away from Redis at %s, whose replicas were to be waited for", node->options.endpoint));
        return true;
    }
    if (++call.hops > HOPS) return redis_cluster_later(node, op, call);
    cf_backend *there = cluster->nodes[to];
    int rc = CF_OK;
    if (only_this) rc = redis_queue_push(there, NULL, (redis_call){.expect = EXPECT_ASKING, .flags = CALL_OWN}, (cf_slice[]){cf_text("ASKING")}, 1);
    if (rc == CF_OK) rc = redis_queue_hand_over(node, op, call, there);
    if (rc != CF_OK) {
        redis_queue_shift(&node->queue);
        cf_op_finish(op, cf_op_fail(op, CF_ENOMEM, redis_outcome(op, &call, CF_NOT_APPLIED), "no memory to send a command on"));
    }
    cluster->unsorted = true;
    return true;
}

bool redis_cluster_later(cf_backend *node, cf_op *op, redis_call call)
{
    cf_backend    *self = node->store;
    redis_cluster *cluster = self->cluster;
    bool           page = call.expect == EXPECT_PAGE || call.expect == EXPECT_CLEAR_PAGE || call.expect == EXPECT_CLEAR_ONE || call.expect == EXPECT_CLEAR_DELETED;
    if (page || call.expect == EXPECT_MARK) return false;
    call.hops = 0;
    if (redis_queue_hand_over(node, op, call, self) != CF_OK) return false;
    int64_t now = now_ms(self);
    if (cluster->later_ms <= now) cluster->later_ms = now + LATER_MS + (int64_t)redis_jitter(self, LATER_JITTER_MS);
    cluster->wanted = true;
    wake_in(self, cluster->later_ms - now);
    return true;
}

/* --------------------------------------------------------------------------------------------------------------- pages --
 * Of all servers, one behind the other: in the order of a number that each has by its name. A cursor is that number, a point, and the server's own cursor; that of a
 * CLEAR ends with another point and the version of the map that it began with. */

#define NO_SERVER "----------------"

static void name_node(const cf_backend *node, char text[HASH + 1])
{
    static const cf_hash_key key = {UINT64_C(0x636f756e74657266), UINT64_C(0x6f696c20736c6f74)};
    snprintf(text, HASH + 1, "%016llx", (unsigned long long)cf_hash(&key, cf_text(node->options.endpoint)));
}

/* The first one, of those that have slots, behind `name`. */
static cf_backend *node_behind(const redis_cluster *cluster, const char *name)
{
    cf_backend *best = NULL;
    char        bests[HASH + 1] = "", text[HASH + 1];
    for (size_t i = 0; i < cluster->count; i++) {
        cf_backend *node = cluster->nodes[i];
        if (!node || !node->owned) continue;
        name_node(node, text);
        if (strcmp(text, name) <= 0 || (best && strcmp(text, bests) >= 0)) continue;
        best = node;
        memcpy(bests, text, sizeof bests);
    }
    return best;
}

static cf_backend *node_named(const redis_cluster *cluster, cf_slice name)
{
    char text[HASH + 1];
    for (size_t i = 0; i < cluster->count; i++) {
        if (!cluster->nodes[i] || !cluster->nodes[i]->owned) continue;
        name_node(cluster->nodes[i], text);
        if (cf_slice_equal(name, cf_text(text))) return cluster->nodes[i];
    }
    return NULL;
}

/* Its three parts; the last one may be missing. False: it is none. */
static bool read_cursor(cf_slice cursor, cf_slice *name, cf_slice *own, cf_slice *version)
{
    if (cursor.len < HASH + 2 || cursor.ptr[HASH] != '.') return false;
    const char *point = memchr(cursor.ptr + HASH + 1, '.', cursor.len - HASH - 1), *end = cursor.ptr + cursor.len;
    *name = cf_bytes(cursor.ptr, HASH);
    *own = cf_bytes(cursor.ptr + HASH + 1, (size_t)((point ? point : end) - cursor.ptr) - HASH - 1);
    *version = point ? cf_bytes(point + 1, (size_t)(end - point) - 1) : cf_bytes("", 0);
    return true;
}

static int set_cursor(cf_op *op, const char *name, cf_slice own, cf_slice version)
{
    char text[HASH + 64];
    int  len = snprintf(text, sizeof text, "%s.%.*s%s%.*s", name, (int)own.len, own.ptr, version.len ? "." : "", (int)version.len, version.ptr);
    return cf_op_set_cursor(op, cf_bytes(text, (size_t)len));
}

int redis_cluster_cursor(cf_backend *node, cf_op *op, cf_slice text)
{
    char     name[HASH + 1], digits[16];
    cf_slice before, own, version = cf_bytes("", 0), at = cf_op_cursor(op);
    bool     clears = cf_op_in(op)->kind == CF_OP_CLEAR;
    if (clears && read_cursor(at, &before, &own, &version) && version.len < sizeof digits) {
        memcpy(digits, version.ptr, version.len); /* it is inside of what is written now */
        version.ptr = digits;
    }
    name_node(node, name);
    if (text.len) return set_cursor(op, name, text, version);
    const cf_backend *next = node_behind(node->store->cluster, name);
    if (!next && !clears) return cf_op_set_cursor(op, cf_text(""));
    if (next) name_node(next, name);
    return set_cursor(op, next ? name : NO_SERVER, cf_text("0"), version);
}

static int begin_clear(cf_backend *self, cf_op *op, cf_backend **node)
{
    char name[HASH + 1], digits[CF_INT_TEXT];
    *node = node_behind(self->cluster, "");
    if (!*node) return CF_OK;
    name_node(*node, name);
    return set_cursor(op, name, cf_text("0"), cf_bytes(digits, cf_format_int(self->cluster->version, digits)));
}

cf_backend *redis_cluster_page(cf_backend *self, cf_op *op, uint16_t slot)
{
    const cf_request *in = cf_op_in(op);
    cf_backend *node = NULL;
    cf_slice    name, own, version;
    if (in->kind == CF_OP_LIST) node = redis_cluster_route(self, slot);
    else if (in->kind == CF_OP_CLEAR) (void)begin_clear(self, op, &node);
    else if (in->cursor.len == 0) node = node_behind(self->cluster, "");
    else if (read_cursor(in->cursor, &name, &own, &version)) node = node_named(self->cluster, name);
    return node == self ? NULL : node;
}

/* Each key by itself: those of a page are in many slots. A server to which a slot is just moving lets us at its keys only behind ASKING. */
static int delete_page(cf_backend *node, cf_op *op, redis_call call)
{
    cf_buffer *keys = &node->reply.keys;
    for (size_t at = 0, left = node->reply.key_count; left; left--) {
        const char *line = keys->ptr + at, *end = memchr(line, '\n', keys->len - at);
        int64_t     len = 0;
        (void)cf_parse_int(cf_bytes(line + 1, (size_t)(end - line) - 2), &len);
        cf_slice    parts[] = {cf_text("*2\r\n$3\r\nDEL\r\n"), cf_bytes(line, (size_t)(end - line) + 1 + (size_t)len + 2)};
        redis_call  one = {.ticket = call.ticket, .expect = left == 1 ? EXPECT_CLEAR_DELETED : EXPECT_CLEAR_ONE, .slot = redis_slot(cf_bytes(end + 1, (size_t)len))};
        if (redis_queue_push(node, NULL, (redis_call){.expect = EXPECT_ASKING, .flags = CALL_OWN}, (cf_slice[]){cf_text("ASKING")}, 1) != CF_OK) return CF_ENOMEM;
        int rc = redis_queue_push_parts(node, op, one, parts, 2);
        if (rc != CF_PENDING) return rc;
        at += parts[1].len;
    }
    return CF_PENDING;
}

int redis_cluster_clear_on(cf_backend *node, cf_op *op, redis_call call)
{
    cf_backend *self = node->store, *next = NULL;
    cf_slice    name, own, version;
    char        digits[CF_INT_TEXT], first[24];
    if (call.expect == EXPECT_CLEAR_PAGE && node->reply.key_count) return delete_page(node, op, call);
    cf_slice now = cf_bytes(digits, cf_format_int(self->cluster->version, digits));
    if (!read_cursor(cf_op_cursor(op), &name, &own, &version)) return CF_ENOMEM;
    bool ends = cf_slice_equal(name, cf_text(NO_SERVER));
    if (call.flags & CALL_ANEW || (ends && !cf_slice_equal(version, now))) { /* keys may have gone from one that was not cleared yet to one that was */
        int rc = begin_clear(self, op, &next);
        if (rc != CF_OK) return rc;
        own = cf_text("0");
    } else if (ends) {
        (void)cf_op_set_cursor(op, cf_text(""));
        return CF_OK;
    } else {
        next = node_named(self->cluster, name);
    }
    if (!next) return cf_op_fail(op, CF_EUNAVAILABLE, redis_outcome(op, &call, CF_NOT_APPLIED), "the servers of the cluster have changed meanwhile: call clear again");
    if (own.len > sizeof first) return CF_ENOMEM;
    memcpy(first, own.ptr, own.len);
    self->cluster->unsorted = true;
    return redis_clear_from(next, op, cf_bytes(first, own.len));
}

/* --------------------------------------------------------------------------------------------------------------- table -- */

#define BY_KEY(name) \
    static int cluster_##name(cf_backend *self, cf_op *op) { return redis_##name(redis_cluster_route(self, redis_slot(cf_op_in(op)->key)), op); }
#define OF_RECORDS(name)                                                                                              \
    static int cluster_##name(cf_backend *self, cf_op *op)                                                            \
    {                                                                                                                 \
        char room[CF_PREFIX_MAX + 16];                                                                                \
        return redis_##name(redis_cluster_route(self, redis_slot(redis_records_base(op, room))), op);                 \
    }
BY_KEY(get)
BY_KEY(set)
BY_KEY(del)
BY_KEY(pop)
BY_KEY(touch)
BY_KEY(incr)
OF_RECORDS(insert)
OF_RECORDS(update)
OF_RECORDS(find)
OF_RECORDS(list)
OF_RECORDS(remove)

static int cluster_scan(cf_backend *self, cf_op *op)
{
    const cf_request *in = cf_op_in(op);
    cf_slice          name, own = cf_text(""), version;
    if (in->cursor.len && !read_cursor(in->cursor, &name, &own, &version)) return cf_op_fail(op, CF_EINVAL, CF_NOT_APPLIED, "the cursor is none that a scan gave");
    cf_backend *node = self->cluster->complete ? redis_cluster_page(self, op, 0) : self;
    if (!node) return cf_op_fail(op, CF_EUNAVAILABLE, CF_NOT_APPLIED, "the servers of the cluster have changed meanwhile: begin again with the first page");
    return redis_scan_from(node, op, in->key, own);
}

static int cluster_clear(cf_backend *self, cf_op *op)
{
    cf_backend *node = NULL;
    int rc = begin_clear(self, op, &node);
    if (rc != CF_OK) return cf_op_fail(op, rc, CF_NOT_APPLIED, "no memory");
    return redis_clear(node ? node : self, op);
}

static void cluster_flush(cf_backend *self)
{
    redis_cluster *cluster = self->cluster;
    send_on(self);
    if ((self->queue.count || (!cluster->complete && !cluster->refused)) && !cluster->wanted) want(self); /* else its turn comes by the timer */
}

static void cluster_forked(cf_backend *self)
{
    redis_cluster *cluster = self->cluster;
    for (size_t i = 0; i < cluster->count; i++)
        if (cluster->nodes[i]) redis_forked(cluster->nodes[i]);
    redis_queue_clear(self);
    self->seeded = false;
    self->refusal.status = self->why.status = CF_OK;
    cluster->asking = cluster->wanted = cluster->refused = false;
    cluster->due_ms = INT64_MAX;
    cluster->asked_ms = INT64_MIN / 2;
}

int redis_cluster_new(cf_backend *self)
{
    redis_cluster *cluster = self->cluster = cf_zalloc(self->platform, sizeof *cluster);
    if (!cluster || cf_timer_new(self->loop, on_timer, self, &self->timer) != CF_OK) return CF_ENOMEM;
    for (size_t i = 0; i < REDIS_SLOTS; i++) cluster->owner[i] = REDIS_NOBODY;
    cluster->due_ms = INT64_MAX;
    cluster->asked_ms = INT64_MIN / 2;
    cluster->outage_ms = -1;
    self->store = self;
    return CF_OK;
}

void redis_cluster_free(cf_backend *self)
{
    redis_cluster *cluster = self->cluster;
    cf_error       error;
    if (!cluster) return;
    for (size_t i = 0; i < cluster->count; i++)
        if (cluster->nodes[i]) redis_close(cluster->nodes[i], &error);
    free_places(self, cluster->known, &cluster->known_count);
    free_places(self, cluster->heard, &cluster->heard_count);
    cf_release(self->platform, cluster->nodes);
    cf_release(self->platform, cluster);
    self->cluster = NULL;
}

static void cluster_stats(cf_backend *self, cf_stat_fn each, void *user)
{
    redis_cluster *cluster = self->cluster;
    cf_backend     sum = {.figures = self->figures, .link = anybody(cluster) ? LINK_READY : LINK_DOWN, .queue = self->queue};
    for (size_t i = 0; i < cluster->count; i++) {
        const cf_backend *node = cluster->nodes[i];
        if (!node) continue;
        add_figures(&sum, node);
        sum.queue.count += node->queue.count;
        sum.queue.sent += node->queue.sent;
        sum.queue.dead += node->queue.dead;
    }
    redis_stats(&sum, each, user);
    each(user, "redirects", (int64_t)cluster->redirects);
}

#define CLUSTER_TABLE(scheme)                                                                                                 \
    {                                                                                                                         \
        .size = sizeof(cf_backend_table), .name = scheme, .flags = CF_BACKEND_CONDITIONS | CF_BACKEND_KEEP_TTL | CF_BACKEND_RECEIPTS, \
        .open = redis_open, .close = redis_close, .flush = cluster_flush, .cancel = redis_cancel, .forked = cluster_forked,  \
        .stats = cluster_stats, .get = cluster_get, .set = cluster_set, .del = cluster_del, .pop = cluster_pop,              \
        .touch = cluster_touch, .incr = cluster_incr, .scan = cluster_scan, .clear = cluster_clear,                          \
        .insert = cluster_insert, .update = cluster_update, .find = cluster_find, .list = cluster_list, .remove = cluster_remove \
    }

const cf_backend_table cf_redis_cluster_table = CLUSTER_TABLE("redis+cluster");
const cf_backend_table cf_rediss_cluster_table = CLUSTER_TABLE("rediss+cluster");
