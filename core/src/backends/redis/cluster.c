/* cluster.c: the servers of a cluster (redis.io/docs: "Redis cluster specification").
 *
 * Each primary is a backend of its own, a node, with its connection and its queue. What a store of a cluster asks goes to the node that has the slot of the key, and
 * waits in the store's own queue as long as nobody knows which that is. A server that has a slot no more says who does (MOVED): the call goes there, and the whole
 * map is asked for. The map is asked for as well when a node has lost its connection, and when it owes an answer for REDIS_QUIET_MS; then every REDIS_POLL_MS until
 * calls get on again, of one server after the other. What was not sent to a node that has lost its slots goes to the new one. */
#include <stdio.h>

#include "redis.h"

enum {
    ANSWER_MOST_MS = 8000, /* twice as long for each one as for the last, which was too slow */
    LATER_MS = 10,   /* a slot that is just moving, or a cluster that is down, is asked again after this, and some jitter */
    LATER_JITTER_MS = 40,
    HOPS = 5,
    PASSES = 2,       /* of a CLEAR, and one that finds nothing */
    PASSES_MOST = 10, /* where others go on writing */
    HASH = 16 /* digits of a node's in a cursor */
};

static int64_t now_ms(const cf_backend *self) { return cf_monotonic(self->platform); }

/* -------------------------------------------------------------------------------------------------------------- nodes -- */

static size_t find_node(const redis_cluster *cluster, cf_slice host, cf_slice port)
{
    for (size_t i = 0; i < cluster->count; i++) {
        const cf_backend *node = cluster->nodes[i];
        if (node && redis_same_place(node->options.host, node->options.port, host, port)) return i;
    }
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

/* Servers that have no slot, and nothing to answer: never from inside a node's own call, nor while an answer is being read, which may name one. */
static void prune(cf_backend *self)
{
    redis_cluster *cluster = self->cluster;
    cf_error       error;
    for (size_t i = 0; i < cluster->count; i++)
        if (cluster->nodes[i] && cluster->nodes[i]->saying) return;
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
    cluster->print = 0;
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
    if (told && !redis_in_doubt(told, REDIS_QUIET_MS)) return told;
    for (size_t i = 0; i < cluster->count; i++) {
        cf_backend *node = cluster->nodes[(turn + i) % cluster->count];
        if (node && node != cluster->asked && !redis_in_doubt(node, REDIS_QUIET_MS)) return node;
    }
    for (size_t i = 0; i < 2 * total; i++) {
        size_t             at = (turn + i) % total;
        const redis_place *place = at < cluster->known_count ? &cluster->known[at] : &self->options.places[at - cluster->known_count];
        size_t             node = node_at(self, cf_text(place->host), cf_text(place->port));
        if (node != REDIS_NOBODY && (i >= total || !resting(cluster->nodes[node]))) return cluster->nodes[node];
    }
    return NULL;
}

static int ask_for_slots(cf_backend *node, uint64_t question)
{
    redis_call call = {.ticket = question, .expect = EXPECT_SLOTS, .flags = CALL_OWN};
    return redis_queue_push(node, NULL, call, (cf_slice[]){cf_text("CLUSTER"), cf_text("SLOTS")}, 2);
}

static void ask(cf_backend *self)
{
    redis_cluster *cluster = self->cluster;
    cf_backend    *node = whom(self);
    cluster->asked_ms = now_ms(self);
    if (!node) return;
    if (ask_for_slots(node, ++cluster->question) != CF_OK) return;
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
        if (waits) wake_in(self, REDIS_QUIET_MS); /* to see whether it gets on */
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

static bool anybody(const redis_cluster *cluster)
{
    for (size_t i = 0; i < cluster->count; i++)
        if (cluster->nodes[i] && cluster->nodes[i]->link == LINK_READY) return true;
    return false;
}

static int64_t asks_every(const redis_cluster *cluster, int64_t now)
{
    if (cluster->refused || cluster->rests) return REDIS_REFUSED_MS;
    return cluster->outage_ms < 0 || now - cluster->outage_ms < REDIS_YOUNG_MS ? REDIS_POLL_MS : REDIS_SLOW_POLL_MS;
}

/* What callers wait for does not get on. A WAIT is our own, and somebody waits for it. */
static bool stuck(const cf_backend *node)
{
    return (node->queue.count > node->queue.own || node->replicas.count > node->replicas.head) && redis_in_doubt(node, REDIS_QUIET_MS);
}

static void on_timer(void *user)
{
    cf_backend    *self = user;
    redis_cluster *cluster = self->cluster;
    int64_t        now = now_ms(self);
    cluster->due_ms = INT64_MAX;
    if (!cluster->complete || self->queue.count) cluster->wanted = true;
    if (self->queue.count && now >= cluster->later_ms && cluster->complete) reroute(self);
    for (size_t i = 0; i < cluster->count && !cluster->wanted; i++) cluster->wanted = cluster->nodes[i] && stuck(cluster->nodes[i]);
    if (cluster->asking && now - cluster->asked_ms >= cluster->patience_ms) {
        cluster->asking = false;
        if (cluster->patience_ms < ANSWER_MOST_MS) cluster->patience_ms *= 2;
        if (self->why.status == CF_OK)
            cf_error_set(&self->why, CF_EUNAVAILABLE, CF_NOT_APPLIED, "Redis at %s has not told yet who has which slot",
                         (cluster->asked ? cluster->asked : self)->options.endpoint);
    }
    if (cluster->complete && anybody(cluster)) cluster->refused = false;
    if (cluster->refused && !self->queue.count) cluster->wanted = false; /* only when somebody asks: nobody's account gets locked by an idle process */
    if (cluster->wanted && !cluster->asking && now - cluster->asked_ms >= asks_every(cluster, now)) ask(self);
    send_on(self);
    prune(self);
    if (cluster->asking) wake_in(self, cluster->patience_ms);
    else if (cluster->wanted) wake_in(self, asks_every(cluster, now));
    if (self->queue.count && cluster->complete) wake_in(self, now < cluster->later_ms ? cluster->later_ms - now : asks_every(cluster, now));
}

/* Nobody will take what waits here: a password that is wrong, or what is there is no cluster. */
static void refuse(cf_backend *self, const cf_error *why)
{
    self->cluster->refused = true;
    self->refusal = *why;
    self->refused_until_ms = now_ms(self) + REDIS_REFUSED_MS;
    redis_queue_refuse(self, why);
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

void redis_cluster_owes(cf_backend *node) { wake_in(node->store, REDIS_QUIET_MS); }

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

static void hear_of(cf_backend *self, redis_saying *saying, cf_slice host, cf_slice port)
{
    for (size_t i = 0; i < saying->known_count; i++)
        if (redis_same_place(saying->known[i].host, saying->known[i].port, host, port)) return;
    if (saying->known_count == REDIS_KNOWN) return;
    redis_place place = {copied(self, host), copied(self, port)};
    if (place.host && place.port) {
        saying->known[saying->known_count++] = place;
    } else {
        cf_release(self->platform, place.host);
        cf_release(self->platform, place.port);
    }
}

void redis_cluster_unsaid(cf_backend *node)
{
    free_places(node, node->saying->known, &node->saying->known_count);
    cf_release(node->platform, node->saying);
    node->saying = NULL;
}

void redis_cluster_begin(cf_backend *node)
{
    if (node->saying) redis_cluster_unsaid(node);
    node->saying = cf_zalloc(node->platform, sizeof *node->saying);
    for (size_t i = 0; i < REDIS_SLOTS && node->saying; i++) node->saying->owner[i] = REDIS_NOBODY;
}

/* [[from, to, [host, port, ...], [host of a replica, port, ...] ...] ...] */
void redis_cluster_number(cf_backend *node, int depth, size_t index, size_t outer, int64_t number)
{
    cf_backend   *self = node->store;
    redis_saying *saying = node->saying;
    if (!saying) return;
    if (depth == 2 && index < 2) {
        if (number < 0 || number >= REDIS_SLOTS) saying->odd = true;
        else *(index ? &saying->to : &saying->from) = (uint16_t)number;
        saying->ends = index == 0 ? 1 : saying->ends + 1;
        saying->host_len = 0;
    }
    if (depth == 3 && (index == 0 || saying->ends != 2)) saying->odd = true;
    if (depth != 3 || index != 1 || saying->odd) return;
    char     digits[CF_INT_TEXT];
    cf_slice port = cf_bytes(digits, cf_format_int(number, digits)), host = cf_bytes(saying->host, saying->host_len);
    saying->host_len = 0;
    if (host.len == 0) host = cf_text(node->options.host); /* where it was asked */
    if (cf_slice_equal(host, cf_text("?"))) return; /* it does not know its own name yet */
    bool none = number < 1 || number > 65535; /* a replica that speaks TLS only has 0 */
    if (!none) hear_of(self, saying, host, port);
    if (outer != 2) return;
    saying->odd = none;
    if (none) return;
    size_t at = node_at(self, host, port);
    if (saying->from > saying->to) saying->odd = true;
    if (at == REDIS_NOBODY) saying->odd = saying->starved = true;
    for (size_t slot = saying->from; slot <= saying->to && !saying->odd; slot++) saying->owner[slot] = (uint16_t)at;
}

void redis_cluster_text(cf_backend *node, int depth, size_t index, cf_slice text)
{
    redis_saying *saying = node->saying;
    if (saying && (depth < 3 || (depth == 3 && index == 1))) saying->odd = true; /* no word belongs there */
    if (!saying || depth != 3 || index != 0) return;
    if (text.len > sizeof saying->host) {
        saying->odd = true;
        return;
    }
    if (text.len) memcpy(saying->host, text.ptr, text.len);
    saying->host_len = text.len;
}

/* Whom the map has left without a slot: what they owe is not waited for once they have fallen silent. */
static void leave_the_dead(cf_backend *self)
{
    redis_cluster *cluster = self->cluster;
    for (size_t i = 0; i < cluster->count; i++) {
        cf_backend *node = cluster->nodes[i];
        if (!node || node->owned || node->link == LINK_DOWN || !node->queue.count || !redis_in_doubt(node, REDIS_QUIET_MS)) continue;
        cf_error why;
        cf_error_set(&why, CF_EUNAVAILABLE, CF_NOT_APPLIED, "the connection to Redis at %s was given up: the cluster has given its slots to another server",
                     node->options.endpoint);
        redis_give_up(node, &why);
    }
}

/* A server that has slots, and was not reached. */
static bool any_down(const redis_cluster *cluster)
{
    for (size_t i = 0; i < cluster->count; i++)
        if (cluster->nodes[i] && cluster->nodes[i]->owned && cluster->nodes[i]->link != LINK_READY && cluster->nodes[i]->outage_ms >= 0) return true;
    return false;
}

static void learn(cf_backend *self, redis_saying *saying)
{
    redis_cluster *cluster = self->cluster;
    for (size_t slot = 0; slot < REDIS_SLOTS; slot++) set_owner(cluster, slot, saying->owner[slot]);
    free_places(self, cluster->known, &cluster->known_count);
    memcpy(cluster->known, saying->known, saying->known_count * sizeof *cluster->known);
    cluster->known_count = saying->known_count;
    saying->known_count = 0;
    cluster->complete = true;
    cluster->wanted = cluster->refused = cluster->rests = false;
    cluster->patience_ms = REDIS_ANSWER_MS;
    if (!any_down(cluster)) cluster->outage_ms = -1;
    self->refusal.status = self->why.status = CF_OK;
    leave_the_dead(self);
    reroute(self);
    if (self->queue.count)
        cf_error_set(&self->why, CF_EUNAVAILABLE, CF_NOT_APPLIED, "no server has the slot of this key at the moment, in %s", self->options.endpoint);
    wake_in(self, 0); /* for those who are needed no more */
}

/* The error in its reply, which answers a question of our own. `what` our user may not, where it is about that. */
static void judge_own(const cf_backend *node, const char *what, cf_error *error)
{
    cf_slice text = cf_bytes(node->reply.text.ptr, node->reply.text.len);
    redis_judge(node, text, error);
    if (cf_slice_starts(text, cf_text("NOPERM")))
        cf_error_set(error, CF_EAUTH, CF_NOT_APPLIED, "Redis at %s does not allow our user to ask %s", node->options.endpoint, what);
}

static void not_told(cf_backend *self, cf_backend *node)
{
    cf_slice text = cf_bytes(node->reply.text.ptr, node->reply.text.len);
    cf_error error;
    judge_own(node, "who has which slot (+cluster|slots)", &error);
    if (cf_slice_starts(text, cf_text("ERR This instance has cluster support disabled")))
        cf_error_set(&error, CF_EINVAL, CF_NOT_APPLIED, "Redis at %s is not part of a cluster: the URL then begins with redis:", node->options.endpoint);
    if (error.status == CF_ENOTSUP) error.status = CF_EINVAL;
    self->why = error;
    if (error.status == CF_EUNAVAILABLE) return;
    self->cluster->rests = true;
    if (!self->cluster->complete) refuse(self, &error);
}

static void say(cf_backend *self, cf_backend *node)
{
    redis_saying *saying = node->saying;
    if (node->reply.type == REPLY_ERROR) {
        not_told(self, node);
    } else if (node->reply.type == REPLY_ARRAY && !node->reply.failed && saying && !saying->odd && saying->known_count) {
        learn(self, saying);
        return;
    } else if (!saying || saying->starved) {
        cf_error_set(&self->why, CF_ENOMEM, CF_NOT_APPLIED, "no memory for the servers of a cluster");
    } else {
        cf_error_set(&self->why, CF_EUNAVAILABLE, CF_NOT_APPLIED, "Redis at %s does not say who has which slot", node->options.endpoint);
    }
    wake_in(self, REDIS_POLL_MS);
}

void redis_cluster_answer(cf_backend *node, const redis_call *call)
{
    redis_cluster *cluster = node->store->cluster;
    if (cluster->asking && call->ticket == cluster->question) cluster->asking = false;
    /* What comes late may be an old story: a server that was stopped tells what it knew. */
    if (node->now_us - call->sent_us <= cluster->patience_ms * 1000) say(node->store, node);
    if (node->saying) redis_cluster_unsaid(node);
}

/* --------------------------------------------------------------------------------------------------------- redirections -- */

/* "MOVED 3999 127.0.0.1:6381"; without a host it is that of the server which says so. */
static bool read_redirection(cf_backend *node, cf_slice text, size_t *slot, size_t *to)
{
    const char *first = memchr(text.ptr, ' ', text.len), *end = text.ptr + text.len;
    const char *second = first ? memchr(first + 1, ' ', (size_t)(end - first) - 1) : NULL;
    int64_t     number;
    if (!second || !cf_parse_int(cf_bytes(first + 1, (size_t)(second - first) - 1), &number) || number < 0 || number >= REDIS_SLOTS) return false;
    const char *colon = end - 1;
    while (colon > second && *colon != ':') colon--;
    if (colon == second) return false;
    cf_slice host = cf_bytes(second + 1, (size_t)(colon - second) - 1), port = cf_bytes(colon + 1, (size_t)(end - colon) - 1);
    if (host.len > 2 && host.ptr[0] == '[' && host.ptr[host.len - 1] == ']') host = cf_bytes(host.ptr + 1, host.len - 2);
    if (host.len == 0 || cf_slice_equal(host, cf_text("?"))) host = cf_text(node->options.host);
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
        cf_error_set(&self->why, CF_EUNAVAILABLE, CF_NOT_APPLIED, "Redis at %s sends us on to what is no server", node->options.endpoint);
        want(self);
        if (redis_cluster_later(node, op, call)) return true;
        redis_queue_shift(&node->queue);
        redis_finish(node, op, cf_op_fail(op, CF_EUNAVAILABLE, redis_outcome(op, &call, CF_NOT_APPLIED), "%s", self->why.text));
        return true;
    }
    if (call.flags & CALL_ASKED && node->asking.status != CF_OK) {
        redis_queue_shift(&node->queue);
        redis_finish(node, op, cf_op_fail(op, node->asking.status, redis_outcome(op, &call, CF_NOT_APPLIED), "%s", node->asking.text));
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
        int rc = cf_op_fail(op, CF_EUNAVAILABLE, CF_UNKNOWN, "the slot of this key has just moved away from Redis at %s, whose replicas were to be waited for",
                            node->options.endpoint);
        redis_finish(node, op, rc);
        return true;
    }
    if (++call.hops > HOPS) {
        cf_error_set(&self->why, CF_EUNAVAILABLE, CF_NOT_APPLIED, "the servers of the cluster do not agree who has the slot of this key; the last one was Redis at %s",
                     node->options.endpoint);
        return redis_cluster_later(node, op, call);
    }
    cf_backend *there = cluster->nodes[to];
    int rc = CF_OK;
    call.flags = (uint8_t)(only_this ? call.flags | CALL_ASKED : call.flags & ~CALL_ASKED);
    if (only_this) rc = redis_queue_push_asking(there);
    if (rc == CF_OK && there != node) rc = redis_queue_hand_over(node, op, call, there);
    else if (rc == CF_OK && (rc = redis_queue_again(node, op, call, cf_text(""), 0)) == CF_OK) redis_queue_shift(&node->queue); /* it names itself */
    if (rc != CF_OK) {
        redis_queue_shift(&node->queue);
        cf_op_finish(op, cf_op_fail(op, CF_ENOMEM, redis_outcome(op, &call, CF_NOT_APPLIED), "no memory to send a command on"));
    }
    cluster->unsorted = true;
    return true;
}

void redis_cluster_asked(cf_backend *node)
{
    node->asking.status = CF_OK;
    if (node->reply.type == REPLY_ERROR) judge_own(node, "for keys of a slot that is just moving (+asking)", &node->asking);
}

/* What waits here is sent again soon, and by then there may be another map. */
static void again_later(cf_backend *self)
{
    redis_cluster *cluster = self->cluster;
    int64_t        now = now_ms(self);
    if (cluster->later_ms <= now) cluster->later_ms = now + LATER_MS + (int64_t)redis_jitter(self, LATER_JITTER_MS);
    cluster->wanted = true;
    wake_in(self, cluster->later_ms - now);
}

bool redis_cluster_later(cf_backend *node, cf_op *op, redis_call call)
{
    bool page = call.expect == EXPECT_PAGE || call.expect == EXPECT_CLEAR_PAGE || call.expect == EXPECT_CLEAR_ONE || call.expect == EXPECT_CLEAR_DELETED;
    if (page || call.expect == EXPECT_MARK) return false;
    call.hops = 0;
    call.flags &= (uint8_t)~CALL_ASKED;
    if (redis_queue_hand_over(node, op, call, node->store) != CF_OK) return false;
    again_later(node->store);
    return true;
}

/* --------------------------------------------------------------------------------------------------------------- pages --
 * Of all servers, one behind the other: in the order of a number that each has by its name. A cursor is that number, the server's own cursor, and the print of the map
 * that the first page began with, points between them. A key may go from a server that is still to come to one that was there already: so each page is preceded by the
 * question who has which slot, to the same server, and where the map has changed, what was begun with the old one is not ended. */

#define NO_SERVER "----------------"
#define MOVED_ON "slots of the cluster have moved meanwhile: begin again with the first page"

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

/* The same in every process. */
static uint64_t print_of(redis_cluster *cluster)
{
    static const cf_hash_key key = {UINT64_C(0x636f756e74657266), UINT64_C(0x6f696c2070726e74)};
    uint64_t print = 1, of = 0;
    size_t   last = REDIS_SLOTS;
    for (size_t slot = 0; slot < REDIS_SLOTS && !cluster->print; slot++) {
        size_t owner = cluster->owner[slot];
        if (owner != last) of = owner == REDIS_NOBODY ? 0 : cf_hash(&key, cf_text(cluster->nodes[owner]->options.endpoint));
        last = owner;
        print = (print ^ of) * UINT64_C(0x100000001b3); /* FNV */
    }
    if (!cluster->print) cluster->print = print ? print : 1;
    return cluster->print;
}

static cf_slice put_print(redis_cluster *cluster, char text[HASH + 1])
{
    snprintf(text, HASH + 1, "%016llx", (unsigned long long)print_of(cluster));
    return cf_bytes(text, HASH);
}

/* Its three parts; more may follow. False: it is none. */
static bool read_cursor(cf_slice cursor, cf_slice *name, cf_slice *own, cf_slice *print)
{
    const char *point = cursor.len > HASH + 1 && cursor.ptr[HASH] == '.' ? memchr(cursor.ptr + HASH + 1, '.', cursor.len - HASH - 1) : NULL;
    size_t      left = point ? cursor.len - (size_t)(point - cursor.ptr) - 1 : 0;
    if (left < HASH || (left > HASH && point[1 + HASH] != '.')) return false;
    *name = cf_bytes(cursor.ptr, HASH);
    *own = cf_bytes(cursor.ptr + HASH + 1, (size_t)(point - cursor.ptr) - HASH - 1);
    *print = cf_bytes(point + 1, HASH);
    return own->len > 0 && own->len <= 20; /* a server's is a number of 64 bits */
}

/* That of a CLEAR goes on with how many times it has been round, and how much it had removed when this time began. */
typedef struct passes {
    int64_t count, before;
} passes;

static passes passes_of(const cf_op *op)
{
    cf_slice name, own, print, cursor = cf_op_cursor(op);
    passes   of = {0};
    if (!read_cursor(cursor, &name, &own, &print)) return of;
    const char *at = print.ptr + HASH + 1, *end = cursor.ptr + cursor.len, *point = at < end ? memchr(at, '.', (size_t)(end - at)) : NULL;
    if (point) (void)(cf_parse_int(cf_bytes(at, (size_t)(point - at)), &of.count) && cf_parse_int(cf_bytes(point + 1, (size_t)(end - point) - 1), &of.before));
    return of;
}

static int set_cursor(cf_op *op, const char *name, cf_slice own, cf_slice print, passes of)
{
    char text[2 * HASH + 96];
    if (own.len > 20) return CF_ECORRUPT;
    int len = snprintf(text, sizeof text, "%s.%.*s.%.*s", name, (int)own.len, own.ptr, (int)print.len, print.ptr);
    if (cf_op_in(op)->kind == CF_OP_CLEAR) len += snprintf(text + len, sizeof text - (size_t)len, ".%lld.%lld", (long long)of.count, (long long)of.before);
    return cf_op_set_cursor(op, cf_bytes(text, (size_t)len));
}

/* With which print it began, which stands in the cursor of the page before: a SCAN has that from its caller. */
static cf_slice print_of_op(redis_cluster *cluster, const cf_op *op, char text[HASH + 1])
{
    cf_slice name, own, print, cursor = cf_op_in(op)->kind == CF_OP_CLEAR ? cf_op_cursor(op) : cf_op_in(op)->cursor;
    if (!read_cursor(cursor, &name, &own, &print)) return put_print(cluster, text);
    memcpy(text, print.ptr, HASH);
    return cf_bytes(text, HASH);
}

int redis_cluster_cursor(cf_backend *node, cf_op *op, cf_slice text)
{
    redis_cluster *cluster = node->store->cluster;
    char     name[HASH + 1], digits[HASH + 1];
    cf_slice print = print_of_op(cluster, op, digits);
    name_node(node, name);
    if (text.len) return set_cursor(op, name, text, print, passes_of(op));
    const cf_backend *next = cf_op_in(op)->kind == CF_OP_LIST ? NULL : node_behind(cluster, name);
    if (!next && cf_op_in(op)->kind != CF_OP_CLEAR) return cf_op_set_cursor(op, cf_text(""));
    if (next) name_node(next, name);
    return set_cursor(op, next ? name : NO_SERVER, cf_text("0"), print, passes_of(op));
}

/* Without a node nobody has a slot: it waits for a map. */
static int begin_clear(cf_backend *self, cf_op *op, passes of, cf_backend **node)
{
    char name[HASH + 1] = NO_SERVER, digits[HASH + 1];
    *node = node_behind(self->cluster, "");
    if (*node) name_node(*node, name);
    return set_cursor(op, name, cf_text("0"), put_print(self->cluster, digits), of);
}

static bool same_map(redis_cluster *cluster, const cf_op *op)
{
    char began[HASH + 1], is[HASH + 1];
    return cf_slice_equal(print_of_op(cluster, op, began), put_print(cluster, is));
}

int redis_cluster_page_came(cf_backend *node, cf_op *op, uint16_t slot)
{
    const cf_request *in = cf_op_in(op);
    cf_backend       *self = node->store;
    bool fine = in->kind == CF_OP_LIST ? redis_cluster_route(self, slot) == node : in->cursor.len ? same_map(self->cluster, op) : node_behind(self->cluster, "") == node;
    return fine ? CF_OK : cf_op_fail(op, CF_EUNAVAILABLE, CF_NOT_APPLIED, MOVED_ON);
}

int redis_cluster_list_all(cf_backend *node, cf_op *op, cf_slice prefix)
{
    cf_slice name = cf_text(""), own = cf_text(""), print, cursor = cf_op_in(op)->cursor;
    char     is[HASH + 1] = "";
    if (cursor.len && !read_cursor(cursor, &name, &own, &print)) return cf_op_fail(op, CF_EINVAL, CF_NOT_APPLIED, "the cursor is none that a scan gave");
    if (!node->cluster && cursor.len) name_node(node, is);
    if (!node->cluster && !cf_slice_equal(name, cf_text(is))) return cf_op_fail(op, CF_EUNAVAILABLE, CF_NOT_APPLIED, MOVED_ON);
    if (!node->cluster && ask_for_slots(node, 0) != CF_OK) return cf_op_fail(op, CF_ENOMEM, CF_NOT_APPLIED, "no memory");
    return redis_scan_from(node, op, prefix, own);
}

cf_backend *redis_cluster_page(cf_backend *self, cf_op *op, uint16_t slot)
{
    const cf_request *in = cf_op_in(op);
    cf_backend *node = NULL;
    cf_slice    name, own, print;
    if (in->kind == CF_OP_LIST) node = redis_cluster_route(self, slot);
    else if (in->kind == CF_OP_CLEAR) (void)begin_clear(self, op, passes_of(op), &node);
    else if (in->cursor.len == 0) node = node_behind(self->cluster, "");
    else if (read_cursor(in->cursor, &name, &own, &print)) node = node_named(self->cluster, name);
    return node == self && in->kind != CF_OP_LIST ? NULL : node;
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
        redis_call  one = {.ticket = call.ticket, .flags = CALL_MAYBE, .slot = redis_slot(cf_bytes(end + 1, (size_t)len))};
        one.expect = left == 1 ? EXPECT_CLEAR_DELETED : EXPECT_CLEAR_ONE;
        if (redis_queue_push_asking(node) != CF_OK) return CF_ENOMEM;
        int rc = redis_queue_push_parts(node, op, one, parts, 2);
        if (rc != CF_PENDING) return rc;
        at += parts[1].len;
    }
    return CF_PENDING;
}

static int clear_page(cf_backend *node, cf_op *op, cf_slice cursor)
{
    node->store->cluster->unsorted = true;
    return ask_for_slots(node, 0) == CF_OK ? redis_clear_from(node, op, cursor) : CF_ENOMEM;
}

/* From the first server on, at once or when others have had some time. */
static int clear_again(cf_backend *self, cf_op *op, passes of, bool at_once)
{
    cf_backend *first = NULL;
    int rc = begin_clear(self, op, of, &first);
    if (rc != CF_OK) return rc;
    if (at_once && first) return clear_page(first, op, cf_text("0"));
    want(self);
    again_later(self);
    return redis_clear_from(self, op, cf_text("0"));
}

/* All servers have been cleared. While a slot moves its keys go one by one, perhaps from a server that was still to come to one that was there already, and no map
 * says so yet: it is over when it has found nothing once more. */
static int end_pass(cf_backend *self, cf_op *op, passes of)
{
    if (++of.count >= PASSES_MOST || (of.count >= PASSES && cf_op_number(op) == of.before)) {
        (void)cf_op_set_cursor(op, cf_text(""));
        return CF_OK;
    }
    of.before = cf_op_number(op);
    return clear_again(self, op, of, true);
}

int redis_cluster_clear_on(cf_backend *node, cf_op *op, redis_call call)
{
    cf_backend *self = node->store;
    cf_slice    name, own, print;
    if (call.expect == EXPECT_CLEAR_PAGE && node->reply.key_count) return delete_page(node, op, call);
    if (!read_cursor(cf_op_cursor(op), &name, &own, &print)) return CF_ENOMEM;
    if (call.flags & CALL_ANEW || !same_map(self->cluster, op)) return clear_again(self, op, passes_of(op), false);
    if (cf_slice_equal(name, cf_text(NO_SERVER))) return end_pass(self, op, passes_of(op));
    cf_backend *next = node_named(self->cluster, name);
    return next ? clear_page(next, op, own) : clear_again(self, op, passes_of(op), false);
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
    cf_slice          name, own = cf_text(""), print;
    if (in->cursor.len && !read_cursor(in->cursor, &name, &own, &print)) return cf_op_fail(op, CF_EINVAL, CF_NOT_APPLIED, "the cursor is none that a scan gave");
    cf_backend *node = self->cluster->complete ? redis_cluster_page(self, op, 0) : self;
    if (!node || (node != self && !same_map(self->cluster, op))) return cf_op_fail(op, CF_EUNAVAILABLE, CF_NOT_APPLIED, MOVED_ON);
    if (node != self && ask_for_slots(node, 0) != CF_OK) return cf_op_fail(op, CF_ENOMEM, CF_NOT_APPLIED, "no memory");
    return redis_scan_from(node, op, in->key, own);
}

static int cluster_clear(cf_backend *self, cf_op *op)
{
    cf_backend *node = NULL;
    int rc = begin_clear(self, op, (passes){0}, &node);
    if (rc == CF_OK && node) rc = ask_for_slots(node, 0);
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
    cluster->asking = cluster->wanted = cluster->refused = cluster->rests = false;
    cluster->patience_ms = REDIS_ANSWER_MS;
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
    cluster->patience_ms = REDIS_ANSWER_MS;
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
