/* reply.c: answers, read by hiredis. Only its reader is used, with functions of ours that make no objects: what belongs to an operation goes
 * straight there, and what no answer of ours can look like is refused before memory is spent on it. Written for 0.14 and every 1.x. */
#include <hiredis/hiredis.h>

#include "redis.h"

enum {
    REPLY_MAX = 16 * 1024 * 1024,
    ELEMENTS_MAX = 100 * 1000,
    FEED = 8 * 1024 /* the reader moves what is left of its buffer after each kilobyte of replies: little at a time is quicker */
};

#if HIREDIS_MAJOR >= 1
typedef size_t element_count;
#else
typedef int element_count;
#endif

static char token; /* "here is your object": hiredis only asks whether it is NULL */
#define TOKEN ((void *)&token)

static cf_backend *of(const redisReadTask *task) { return task->privdata; }

/* 0: the reply itself; 1: an element of it; 2: an element of an element. */
static int depth(const redisReadTask *task)
{
    int at = 0;
    for (; task->parent; task = task->parent) at++;
    return at;
}

static void *refuse(cf_backend *self, const char *what)
{
    self->poisoned = true;
    cf_error_set(&self->why, CF_EUNAVAILABLE, CF_NOT_APPLIED, "Redis at %s sent %s: the connection was given up", self->options.endpoint, what);
    return NULL;
}

/* The same call would bring the same answer, on each new connection. */
static void *refuse_for_good(cf_backend *self, const char *what)
{
    if (self->link == LINK_READY && self->queue.sent) redis_queue_at(&self->queue, 0)->flags &= (uint8_t)~CALL_REPEATABLE;
    return refuse(self, what);
}

static redis_expect expected(cf_backend *self) { return (redis_expect)redis_queue_at(&self->queue, 0)->expect; }

static cf_op *waiting(cf_backend *self)
{
    redis_call *call = redis_queue_at(&self->queue, 0);
    return call->flags & CALL_OWN ? NULL : cf_loop_op(self->loop, call->ticket);
}

/* Whether the answer is one to a record operation. */
static bool of_records(cf_backend *self) { return self->link == LINK_READY && expected(self) == EXPECT_RECORDS; }

static void keep_text(cf_backend *self, cf_slice text)
{
    enum { LONGEST = 16 * 1024 };
    if (text.len > LONGEST) text.len = LONGEST;
    self->reply.text.len = 0;
    if (cf_buffer_append(self->platform, &self->reply.text, text) != CF_OK) self->reply.failed = CF_ENOMEM;
}

static void take_element(cf_backend *self, const redisReadTask *task, cf_slice text, int at)
{
    cf_op *op = waiting(self);
    int    rc = CF_OK;
    switch (expected(self)) {
    case EXPECT_PAGE:
    case EXPECT_CLEAR_PAGE:
        if (at == 1) {
            self->reply.last_page = cf_slice_equal(text, cf_text("0"));
            cf_slice next = self->reply.last_page ? cf_text("") : text;
            if (op) rc = self->store ? redis_cluster_cursor(self, op, next) : cf_op_set_cursor(op, next);
        } else if (op && expected(self) == EXPECT_PAGE) {
            rc = cf_op_in(op)->kind == CF_OP_LIST ? redis_records_add_id(op, text) : cf_op_add_key(op, text);
        } else if (op && cf_slice_starts(text, cf_op_in(op)->key) && !cf_key_fault(text)) {
            char number[CF_INT_TEXT];
            cf_slice parts[] = {cf_text("$"), cf_bytes(number, cf_format_int((int64_t)text.len, number)), cf_text("\r\n"), text, cf_text("\r\n")};
            for (size_t i = 0; i < 5 && rc == CF_OK; i++) rc = cf_buffer_append(self->platform, &self->reply.keys, parts[i]);
            self->reply.key_count++;
        }
        if (rc != CF_OK) self->reply.failed = rc;
        break;
    case EXPECT_SLOTS: redis_cluster_text(self, at, (size_t)task->idx, text); break;
    case EXPECT_RECORDS:
        if (at == 1) redis_records_kind(self, (size_t)task->idx, text);
        else redis_records_text(self, op, (size_t)task->idx, text, (size_t)task->idx + 1 == (size_t)task->parent->elements);
        break;
    default:
        if (task->idx == 1) keep_text(self, text); /* CONFIG GET: the name, the value */
        break;
    }
}

static void *create_string(const redisReadTask *task, char *bytes, size_t len)
{
    cf_backend *self = of(task);
    cf_slice    text = cf_bytes(bytes, len);
    int         at = depth(task);
    if (at > 0) {
        if (self->link == LINK_READY) take_element(self, task, text, at); /* the greeting asks for no array, and stands in no queue */
        return TOKEN;
    }
    self->reply.type = task->type == REDIS_REPLY_ERROR ? REPLY_ERROR : task->type == REDIS_REPLY_STATUS ? REPLY_STATUS : REPLY_STRING;
    if (self->reply.type == REPLY_STRING && self->link == LINK_READY && expected(self) == EXPECT_VALUE) {
        cf_op *op = waiting(self);
        if (op && cf_op_set_value(op, text) != CF_OK) self->reply.failed = CF_ENOMEM;
    } else {
        keep_text(self, text);
    }
    return TOKEN;
}

static void *create_array(const redisReadTask *task, element_count count)
{
    cf_backend *self = of(task);
    int         at = depth(task);
    bool slots = self->link == LINK_READY && expected(self) == EXPECT_SLOTS;
    if (at > (slots ? 3 : 1)) return refuse(self, "an answer that is nested too deeply");
    if ((size_t)count > ELEMENTS_MAX) return refuse_for_good(self, "an answer of too many parts");
    if (at == 0) {
        self->reply.type = REPLY_ARRAY;
        /* Of a page that was cut off: the keys that had come. */
        cf_op *op = self->link == LINK_READY ? waiting(self) : NULL;
        if (op && cf_op_value(op).len) (void)cf_op_value_buffer(op, 0);
        if (of_records(self)) redis_records_begin(self);
        if (slots) redis_cluster_begin(self);
    } else if (of_records(self)) {
        redis_records_next(self, (size_t)task->idx, (size_t)count);
    }
    return TOKEN;
}

static void *create_integer(const redisReadTask *task, long long value)
{
    cf_backend *self = of(task);
    if (depth(task) == 0) {
        self->reply.type = REPLY_INTEGER;
        self->reply.integer = value;
    } else if (self->link == LINK_READY && expected(self) == EXPECT_SLOTS) {
        redis_cluster_number(self, depth(task), (size_t)task->idx, (size_t)task->parent->idx, value);
    } else if (of_records(self)) {
        if (depth(task) == 1) redis_records_number(self, (size_t)task->idx, value);
        else redis_records_odd(self);
    }
    return TOKEN;
}

static void *create_nil(const redisReadTask *task)
{
    cf_backend *self = of(task);
    if (depth(task) == 0) self->reply.type = REPLY_NIL;
    else if (of_records(self)) redis_records_odd(self);
    return TOKEN;
}

static void free_object(void *object) { (void)object; }

#if HIREDIS_MAJOR >= 1
static void *create_double(const redisReadTask *task, double value, char *text, size_t len)
{
    (void)value;
    (void)text;
    (void)len;
    return refuse(of(task), "an answer of another protocol");
}

static void *create_bool(const redisReadTask *task, int value)
{
    (void)value;
    return refuse(of(task), "an answer of another protocol");
}
#endif

static redisReplyObjectFunctions functions = {
    .createString = create_string,
    .createArray = create_array,
    .createInteger = create_integer,
    .createNil = create_nil,
    .freeObject = free_object,
#if HIREDIS_MAJOR >= 1
    .createDouble = create_double,
    .createBool = create_bool,
#endif
};

void redis_reader_free(cf_backend *self)
{
    if (self->reader) redisReaderFree(self->reader);
    self->reader = NULL;
    if (self->saying) redis_cluster_unsaid(self);
}

/* Whether everything that was asked has been answered, so that more bytes have no one to go to. */
static bool unasked(const cf_backend *self)
{
    return self->link == LINK_READY ? self->queue.sent == 0 : self->hello_at == self->hello_count;
}

static bool read_replies(cf_backend *self, redisReader *reader)
{
    for (;;) {
        if (reader->pos < reader->len && unasked(self)) {
            refuse(self, "an answer that nobody had asked for");
            return false;
        }
        void *reply = NULL;
        redis_reply *out = &self->reply;
        int rc = redisReaderGetReply(reader, &reply);
        if (self->poisoned) return false;
        if (rc != REDIS_OK) {
            refuse(self, "bytes that are not the protocol");
            return false;
        }
        if (!reply) break;
        if (self->link == LINK_READY) redis_answer(self);
        else redis_greeted(self);
        out->type = REPLY_NONE;
        out->failed = CF_OK;
        out->key_count = 0;
        out->keys.len = out->text.len = 0;
        if (self->poisoned) return false;
    }
    if (reader->len - reader->pos <= REPLY_MAX) return true;
    refuse_for_good(self, "an answer that is too long");
    return false;
}

bool redis_reader_feed(cf_backend *self, const char *bytes, size_t count)
{
    if (!self->reader) {
        redisReader *made = redisReaderCreateWithFunctions(&functions);
        if (!made) {
            refuse(self, "more than there is memory for");
            return false;
        }
        made->privdata = self;
        self->reply.failed = CF_OK; /* an answer that was cut off is forgotten */
        self->reply.key_count = self->reply.keys.len = 0;
        self->reader = made;
    }
    redisReader *reader = self->reader;
    while (count) {
        size_t some = count < FEED ? count : FEED;
        if (redisReaderFeed(reader, bytes, some) != REDIS_OK) {
            refuse(self, "more than there is memory for");
            return false;
        }
        if (!read_replies(self, reader)) return false;
        bytes += some;
        count -= some;
    }
    return true;
}
