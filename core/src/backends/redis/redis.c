/* redis.c: the table: opening, closing, figures. */
#include "redis.h"

enum { INPUT = 64 * 1024 };

int redis_close(cf_backend *self, cf_error *error)
{
    const cf_platform *platform = self->platform;
    (void)error;
    if (self->timer && self->dial_timer) redis_hang_up(self, true);
    redis_cluster_free(self);
    redis_seek_free(self);
    cf_timer_free(self->timer);
    cf_timer_free(self->dial_timer);
    redis_queue_free(self);
    redis_reader_free(self);
    cf_buffer_free(platform, &self->hello_out);
    cf_buffer_free(platform, &self->reply.text);
    cf_buffer_free(platform, &self->reply.keys);
    cf_buffer_free(platform, &self->reply.records.bytes);
    redis_tls_context_free(self->tls_context);
    redis_options_free(platform, &self->options);
    cf_release(platform, self->input);
    cf_release(platform, self);
    return CF_OK;
}

static int make_connection(cf_backend *self)
{
    int rc = cf_timer_new(self->loop, redis_on_timer, self, &self->timer);
    if (rc == CF_OK) rc = cf_timer_new(self->loop, redis_on_dial_timer, self, &self->dial_timer);
    if (rc == CF_OK && self->options.primary) rc = redis_seek_new(self);
    if (rc == CF_OK && !(self->input = cf_alloc(self->platform, INPUT))) rc = CF_ENOMEM;
    return rc;
}

int redis_new(cf_loop *loop, const redis_options *options, cf_backend **out, cf_error *error)
{
    const cf_platform *platform = cf_loop_platform(loop);
    cf_backend *self = cf_zalloc(platform, sizeof *self);
    if (!self) {
        redis_options given = *options;
        redis_options_free(platform, &given);
        return cf_error_set(error, CF_ENOMEM, CF_NOT_APPLIED, "no memory for a store");
    }
    self->loop = loop;
    self->platform = platform;
    self->options = *options;
    self->fd = -1;
    self->outage_ms = -1;
    self->credit = 10000;
    for (int i = 0; i < REDIS_ADDRESSES; i++) self->dials[i] = (redis_dial){.self = self, .fd = -1};
    int rc = options->cluster && !options->host ? redis_cluster_new(self) : make_connection(self);
    if (rc != CF_OK) rc = cf_error_set(error, CF_ENOMEM, CF_NOT_APPLIED, "no memory for a store");
    if (rc == CF_OK && options->tls) rc = redis_tls_context_new(platform, &self->options, &self->tls_context, error);
    if (rc != CF_OK) {
        cf_error kept;
        redis_close(self, &kept);
        return rc;
    }
    *out = self;
    return CF_OK;
}

int redis_open(cf_loop *loop, const cf_url *url, cf_backend **out, cf_error *error)
{
    redis_options options;
    int rc = redis_options_read(cf_loop_platform(loop), url, &options, error);
    return rc == CF_OK ? redis_new(loop, &options, out, error) : rc;
}

void redis_stats(cf_backend *self, cf_stat_fn each, void *user)
{
    static const char *const bounds[REDIS_BUCKETS] = {"us_64",    "us_128",    "us_256",    "us_512",    "us_1024",   "us_2048",
                                                      "us_4096",  "us_8192",   "us_16384",  "us_32768",  "us_65536",  "us_131072",
                                                      "us_262144", "us_524288", "us_1048576", "us_2097152", "us_more"};
    const redis_queue *queue = &self->queue;
    const struct {
        const char *name;
        uint64_t    value;
    } figures[] = {
        {"connected", self->link == LINK_READY},
        {"connects", self->figures.connects},
        {"disconnects", self->figures.disconnects},
        {"queued", queue->count - queue->sent - queue->dead},
        {"in_flight", queue->sent},
        {"round_trips", self->figures.round_trips},
        {"bytes_sent", self->figures.bytes_sent},
        {"bytes_received", self->figures.bytes_received},
        {"commands", self->figures.commands},
        {"retries", self->figures.retries},
        {"late", self->figures.late},
        {"busy", self->figures.busy},
    };
    for (size_t i = 0; i < sizeof figures / sizeof *figures; i++) each(user, figures[i].name, (int64_t)figures[i].value);
    for (int i = 0; i < REDIS_BUCKETS; i++) each(user, bounds[i], (int64_t)self->figures.us[i]);
}

#define REDIS_TABLE(scheme)                                                                                                   \
    {                                                                                                                         \
        .size = sizeof(cf_backend_table), .name = scheme, .flags = CF_BACKEND_CONDITIONS | CF_BACKEND_KEEP_TTL | CF_BACKEND_RECEIPTS, \
        .open = redis_open, .close = redis_close, .flush = redis_flush, .cancel = redis_cancel, .forked = redis_forked,      \
        .stats = redis_stats, .get = redis_get, .set = redis_set, .del = redis_del, .pop = redis_pop, .touch = redis_touch,  \
        .incr = redis_incr, .scan = redis_scan, .clear = redis_clear, .insert = redis_insert, .update = redis_update,         \
        .find = redis_find, .list = redis_list, .remove = redis_remove                                                        \
    }

const cf_backend_table cf_redis_table = REDIS_TABLE("redis");
const cf_backend_table cf_rediss_table = REDIS_TABLE("rediss");
const cf_backend_table cf_redis_unix_table = REDIS_TABLE("redis+unix");
const cf_backend_table cf_redis_sentinel_table = REDIS_TABLE("redis+sentinel");
const cf_backend_table cf_rediss_sentinel_table = REDIS_TABLE("rediss+sentinel");
