/* warnings.c: what of the server's settings breaks a promise of ours. Asked for after each connect, answered behind everybody's back: a server that does not
 * tell (CONFIG is often forbidden) is judged by what INFO alone shows. */
#include "redis.h"

enum { WARNED_SNAPSHOTS = 1 << 0, WARNED_FSYNC = 1 << 1, WARNED_EVICTION = 1 << 2 };

static void ask(cf_backend *self, redis_expect expect, const cf_slice *args, size_t count)
{
    (void)redis_queue_push(self, NULL, (redis_call){.expect = (uint8_t)expect, .flags = CALL_OWN}, args, count); /* no memory: no question */
}

void redis_ask_settings(cf_backend *self)
{
    self->persists_aof = self->persists_snapshots = false;
    ask(self, EXPECT_INFO_PERSISTENCE, (cf_slice[]){cf_text("INFO"), cf_text("persistence")}, 2);
    ask(self, EXPECT_SAVE, (cf_slice[]){cf_text("CONFIG"), cf_text("GET"), cf_text("save")}, 3);
    ask(self, EXPECT_FSYNC, (cf_slice[]){cf_text("CONFIG"), cf_text("GET"), cf_text("appendfsync")}, 3);
    ask(self, EXPECT_INFO_MEMORY, (cf_slice[]){cf_text("INFO"), cf_text("memory")}, 2);
}

static void warn(cf_backend *self, unsigned which, const char *sentence)
{
    if (self->warned & which) return;
    self->warned |= which;
    cf_backend_event(self->loop, redis_whole(self), CF_EVENT_WARNING, CF_OK, "Redis at %s %s", self->options.endpoint, sentence);
}

cf_slice redis_info_line(cf_slice text, const char *name)
{
    size_t len = strlen(name);
    while (text.len > len) {
        const char *end = memchr(text.ptr, '\n', text.len);
        size_t      line = end ? (size_t)(end - text.ptr) : text.len;
        if (line > len && memcmp(text.ptr, name, len) == 0 && text.ptr[len] == ':') {
            cf_slice value = cf_bytes(text.ptr + len + 1, line - len - 1);
            if (value.len && value.ptr[value.len - 1] == '\r') value.len--;
            return value;
        }
        text = cf_bytes(text.ptr + line + (end != NULL), text.len - line - (end != NULL));
    }
    return cf_bytes("", 0);
}

static bool is(cf_slice value, const char *text) { return cf_slice_equal(value, cf_text(text)); }

static const char undone_by_snapshot[] =
    "saves snapshots without a log of writes: after a crash a value that was popped, or a session that was destroyed, can come back. "
    "Use appendonly with appendfsync always, or no persistence at all";

void redis_settings_answer(cf_backend *self, redis_expect which)
{
    const redis_reply *reply = &self->reply;
    cf_slice text = cf_bytes(reply->text.ptr, reply->text.len);
    bool told = reply->type != REPLY_ERROR && !reply->failed;
    switch (which) {
    case EXPECT_INFO_PERSISTENCE:
        if (!told) break;
        self->persists_aof = is(redis_info_line(text, "aof_enabled"), "1");
        self->persists_snapshots = redis_info_line(text, "rdb_last_bgsave_time_sec").len && !is(redis_info_line(text, "rdb_last_bgsave_time_sec"), "-1");
        break;
    case EXPECT_SAVE:
        if (told) self->persists_snapshots = text.len > 0;
        if (self->persists_snapshots && !self->persists_aof) warn(self, WARNED_SNAPSHOTS, undone_by_snapshot);
        break;
    case EXPECT_FSYNC:
        if (self->persists_aof && !(told && is(text, "always")))
            warn(self, WARNED_FSYNC, told ? "logs writes, but not at once (appendfsync): after a crash the last second is undone, and a value that was popped then is back"
                                          : "logs writes: unless appendfsync is always, a value that was popped in the last second before a crash is back after it");
        break;
    default:
        if (told && !is(redis_info_line(text, "maxmemory"), "0") && redis_info_line(text, "maxmemory").len && !is(redis_info_line(text, "maxmemory_policy"), "noeviction"))
            warn(self, WARNED_EVICTION, "evicts keys when its memory is full (maxmemory_policy): sessions and receipts may vanish before their time");
        break;
    }
}
