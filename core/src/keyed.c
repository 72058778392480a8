/* keyed.c: records of a backend that has only keys, and one process that uses them.
 *
 * A record operation here is straight-line logic over what has been read so far (`seen`). Where it wants a key that has not been read it says so and gives up
 * (AGAIN); the key is read by a child, and the logic runs again from its start. When it comes to its end it has said what is to be changed; that is then done,
 * one child after the other. Writes hold the lock of their store's prefix all the while. Reads hold nothing: they believe only what says the same twice.
 *
 * Keys, behind the store's prefix and a line break, which is in no caller's key:
 *
 *     KIND:ID                      a record
 *     KIND.FIELD:VALUE             of a unique field: the id of the record that has it
 *     KIND.FIELD:LENGTH:VALUE1VALUE2   of two fields together
 *     KIND.FIELD:VALUE             of the listing field: a group, the ids of its records
 *     KIND.FIELD.epoch:VALUE       its epoch, where it is not 0
 *
 * Only records count. A name or an id in a group that leads to no record, or to one that says otherwise, is what an unfinished write has left: it is passed over,
 * and the next write of that name replaces it. So what leads to a record is written before it, and removed after it. Of two records that are made together the
 * first names the second, and is not there until that one is.
 *
 * Values are text, for backends that keep only that: numbers are 16 hexadecimal digits, lengths 8. A record: version, expiry, how long its group lives (at
 * least), the key that it needs or nothing, and its fields in the order of the schema. A number that is null takes as much room as one: where it is set
 * later, as when a session is revoked, the value keeps its size, and the memory backend needs no memory. */
#include "core.h"

#include <stdlib.h>

enum { AGAIN = 16, GONE = 17 }; /* beside CF_OK and errors: what is wanted is not read yet; it is not there */

/* A key that has been read, or is to be. */
typedef struct seen seen;
struct seen {
    seen    *next, *in_bucket;
    uint64_t hash;
    cf_slice key, value;
    enum { WANTED, ABSENT, THERE } state;
};

/* What a change is to who reads: nothing yet; what the operation does; nothing any more, so that it does not matter whether it succeeds. */
typedef enum { HIDDEN, COUNTS, LOOSE } weight;
typedef struct change change;
struct change {
    change  *next;
    cf_slice key, value; /* value.ptr NULL: the key is deleted */
    int64_t  ttl_ms;
    weight   weight;
    bool     fresh; /* nothing was there */
};

typedef struct chunk chunk;
struct chunk {
    chunk *next;
    size_t used, size;
    _Alignas(max_align_t) char bytes[];
};

enum { FIRST_CHUNK = 2048, FEW = 16 };

struct cf_keyed {
    cf_plan  plan; /* in op->in.value */
    int64_t  now_ms;
    bool     again, full, secret; /* wants something; found no memory; is wiped */
    bool     looked_twice;
    bool     started, changing, failed;
    seen    *first, *last, *want;
    size_t   count, bucket_count;
    seen   **buckets, *few[FEW];
    change  *changes, *last_change, *at;
    unsigned counted; /* changes that count and have been made */
    cf_buffer name;   /* the prefix and a line break, and a name behind it */
    size_t    base;
    chunk    *chunks;
};

/* ------------------------------------------------------------------------------------------------------------ memory -- */

static void *room(cf_op *op, size_t size)
{
    cf_keyed *k = op->keyed;
    size = (size + 15) & ~(size_t)15;
    if (!k->chunks || k->chunks->size - k->chunks->used < size) {
        size_t want = k->chunks ? k->chunks->size * 2 : FIRST_CHUNK;
        if (want < size) want = size;
        chunk *more = cf_alloc(op->loop->platform, sizeof *more + want);
        if (!more) {
            k->full = true;
            return NULL;
        }
        *more = (chunk){.next = k->chunks, .size = want};
        k->chunks = more;
    }
    void *at = k->chunks->bytes + k->chunks->used;
    k->chunks->used += size;
    return at;
}

static cf_slice copy(cf_op *op, cf_slice bytes)
{
    char *to = room(op, bytes.len + 1);
    if (!to) return cf_bytes(NULL, 0);
    if (bytes.len) memcpy(to, bytes.ptr, bytes.len);
    return cf_bytes(to, bytes.len);
}

void cf_keyed_free(cf_op *op)
{
    cf_keyed *k = op->keyed;
    if (!k) return;
    const cf_platform *platform = op->loop->platform;
    while (k->chunks) {
        chunk *next = k->chunks->next;
        if (k->secret) cf_wipe(k->chunks->bytes, k->chunks->used);
        cf_release(platform, k->chunks);
        k->chunks = next;
    }
    cf_buffer_free(platform, &k->name);
    cf_release(platform, k);
    op->keyed = NULL;
}

/* ------------------------------------------------------------------------------------------------------------- names -- */

static const cf_hash_key plain_hash = {0, 0}; /* in-process and of one operation: flooding it only makes the flooder's own call wait */

static void add_name(cf_op *op, cf_slice bytes)
{
    cf_keyed *k = op->keyed;
    if (cf_buffer_append(op->loop->platform, &k->name, bytes) != CF_OK) k->full = true;
}

static void add_hex(cf_op *op, uint64_t number)
{
    char text[16];
    for (int i = 16; i-- > 0; number >>= 4) text[i] = "0123456789abcdef"[number & 15];
    add_name(op, cf_bytes(text, sizeof text));
}

/* Backends count on keys of at most CF_PREFIX_MAX + CF_KEY_MAX bytes. A name that is longer keeps its beginning. */
static void shorten(cf_op *op)
{
    static const cf_hash_key other_hash = {1, 0};
    cf_keyed *k = op->keyed;
    cf_slice  whole = cf_bytes(k->name.ptr + k->base, k->name.len - k->base);
    if (whole.len < CF_KEY_MAX) return;
    uint64_t one = cf_hash(&plain_hash, whole), two = cf_hash(&other_hash, whole);
    size_t   end = CF_KEY_MAX - 40;
    while (end && ((unsigned char)whole.ptr[end] & 0xC0) == 0x80) end--; /* not within a letter */
    k->name.len = k->base + end;
    add_name(op, cf_text("\n"));
    add_hex(op, one);
    add_hex(op, two);
}

/* In k->name. False: no memory. */
static bool name_it(cf_op *op, int kind, int field, const char *more, cf_slice first, cf_slice second)
{
    cf_keyed *k = op->keyed;
    k->name.len = k->base;
    add_name(op, cf_text(cf_kind_name(kind)));
    if (field >= 0) add_name(op, cf_text("."));
    if (field >= 0) add_name(op, cf_text(cf_field_name(kind, field)));
    add_name(op, cf_text(more));
    if (second.ptr) {
        char text[CF_INT_TEXT];
        add_name(op, cf_bytes(text, cf_format_int((int64_t)first.len, text)));
        add_name(op, cf_text(":"));
    }
    add_name(op, first);
    add_name(op, second);
    if (!k->full) shorten(op);
    return !k->full;
}

static bool name_record(cf_op *op, int kind, cf_slice id) { return name_it(op, kind, -1, ":", id, cf_bytes(NULL, 0)); }
static bool name_group(cf_op *op, int kind, cf_slice value) { return name_it(op, kind, cf_kind_of(kind)->listing, ":", value, cf_bytes(NULL, 0)); }
static bool name_epoch(cf_op *op, int kind, cf_slice value) { return name_it(op, kind, cf_kind_of(kind)->listing, ".epoch:", value, cf_bytes(NULL, 0)); }
static bool name_unique(cf_op *op, int kind, cf_slice first, cf_slice second)
{
    const cf_kind *of = cf_kind_of(kind);
    return name_it(op, kind, of->unique[0], ":", first, of->unique[1] >= 0 ? second : cf_bytes(NULL, 0));
}
static bool name_unique_of(cf_op *op, const cf_record *record)
{
    const cf_kind *of = cf_kind_of(record->kind);
    return name_unique(op, record->kind, record->fields[of->unique[0]].text, of->unique[1] >= 0 ? record->fields[of->unique[1]].text : cf_bytes(NULL, 0));
}

/* -------------------------------------------------------------------------------------------------------------- view -- */

static void more_buckets(cf_op *op)
{
    cf_keyed *k = op->keyed;
    size_t    count = k->bucket_count * 8;
    seen    **buckets = room(op, count * sizeof *buckets);
    if (!buckets) return;
    memset(buckets, 0, count * sizeof *buckets);
    for (seen *s = k->first; s; s = s->next) {
        s->in_bucket = buckets[s->hash % count];
        buckets[s->hash % count] = s;
    }
    k->buckets = buckets;
    k->bucket_count = count;
}

static cf_slice bare(cf_op *op, const seen *s) { return cf_bytes(s->key.ptr + op->keyed->base, s->key.len - op->keyed->base); }

/* The key in k->name. NULL: no memory. One that is wanted is read before the logic runs again. */
static seen *look(cf_op *op, bool named)
{
    cf_keyed *k = op->keyed;
    if (!named) return NULL;
    cf_slice key = cf_bytes(k->name.ptr, k->name.len);
    uint64_t hash = cf_hash(&plain_hash, key);
    seen    *s = k->buckets[hash % k->bucket_count];
    while (s && !(s->hash == hash && cf_slice_equal(s->key, key))) s = s->in_bucket;
    if (!s) {
        s = room(op, sizeof *s);
        if (!s) return NULL;
        *s = (seen){.hash = hash, .key = copy(op, key)};
        if (!s->key.ptr) return NULL;
        s->in_bucket = k->buckets[hash % k->bucket_count];
        k->buckets[hash % k->bucket_count] = s;
        if (k->last) k->last->next = s;
        else k->first = s;
        k->last = s;
        if (!k->want) k->want = s;
        if (++k->count > k->bucket_count) more_buckets(op);
    }
    if (s->state == WANTED) k->again = true;
    return s;
}

/* What was seen is to be read once more. */
static int again(cf_op *op, seen *s)
{
    s->state = WANTED;
    op->keyed->want = op->keyed->first;
    return AGAIN;
}

static int state_of(const seen *s) { return !s ? CF_ENOMEM : s->state == WANTED ? AGAIN : s->state == THERE ? CF_OK : GONE; }

static int corrupt(cf_op *op) { return cf_op_fail(op, CF_ECORRUPT, CF_NOT_APPLIED, "what the %s backend holds for a record cannot be right", op->store->table->name); }

/* ------------------------------------------------------------------------------------------------------------ values -- */

typedef struct input {
    const char *at, *end;
    bool        good;
} input;

static const char *take(input *in, size_t len)
{
    if (!in->good || (size_t)(in->end - in->at) < len) {
        in->good = false;
        return NULL;
    }
    const char *at = in->at;
    in->at += len;
    return at;
}

static uint64_t take_hex(input *in, size_t digits)
{
    static const signed char values[256] = {['0'] = 1, ['1'] = 2, ['2'] = 3, ['3'] = 4, ['4'] = 5, ['5'] = 6, ['6'] = 7, ['7'] = 8, ['8'] = 9, ['9'] = 10,
                                            ['a'] = 11, ['b'] = 12, ['c'] = 13, ['d'] = 14, ['e'] = 15, ['f'] = 16};
    const char *at = take(in, digits);
    uint64_t    number = 0;
    for (size_t i = 0; at && i < digits; i++) {
        int value = values[(unsigned char)at[i]] - 1;
        if (value < 0) in->good = false;
        number = number << 4 | (uint64_t)(value & 15);
    }
    return number;
}

static cf_slice take_slice(input *in)
{
    size_t      len = (size_t)take_hex(in, 8);
    const char *at = take(in, len);
    return cf_bytes(at, at ? len : 0);
}

static char *give(char *to, cf_slice bytes)
{
    if (bytes.len) memcpy(to, bytes.ptr, bytes.len);
    return to + bytes.len;
}

static char *give_hex(char *to, uint64_t number, int digits)
{
    for (int i = digits; i-- > 0; number >>= 4) to[i] = "0123456789abcdef"[number & 15];
    return to + digits;
}

static char *give_slice(char *to, cf_slice bytes) { return give(give_hex(to, bytes.len, 8), bytes); }

/* A record and what is kept with it. */
typedef struct kept {
    cf_record record;
    int64_t   expiry; /* 0: never */
    int64_t   until;  /* its group lives so long, at least; 0: for ever */
    cf_slice  needs;  /* a key without its prefix, or empty */
    seen     *from;
} kept;

enum { VERSION = '1' };

static cf_slice write_record(cf_op *op, const kept *it)
{
    const cf_record *record = &it->record;
    size_t size = 1 + 16 + 16 + 8 + it->needs.len;
    for (int i = 0; cf_field_name(record->kind, i); i++) {
        const cf_field *field = &record->fields[i];
        size += 1 + (!cf_field_is_text(record->kind, i) ? 16 : field->is == CF_GIVEN ? 8 + field->text.len : 0);
    }
    char *start = room(op, size), *to = start;
    if (!start) return cf_bytes(NULL, 0);
    *to++ = VERSION;
    to = give_slice(give_hex(give_hex(to, (uint64_t)it->expiry, 16), (uint64_t)it->until, 16), it->needs);
    for (int i = 0; cf_field_name(record->kind, i); i++) {
        const cf_field *field = &record->fields[i];
        bool given = field->is == CF_GIVEN;
        *to++ = given ? '=' : '-';
        if (!cf_field_is_text(record->kind, i)) to = give_hex(to, given ? (uint64_t)field->number : 0, 16);
        else if (given) to = give_slice(to, field->text);
    }
    return cf_bytes(start, size);
}

static bool read_value(cf_slice value, int kind, kept *out)
{
    input       in = {value.ptr, value.ptr + value.len, true};
    const char *version = take(&in, 1);
    if (!version || *version != VERSION) return false;
    memset(&out->record, 0, sizeof out->record);
    out->record.kind = kind;
    out->expiry = (int64_t)take_hex(&in, 16);
    out->until = (int64_t)take_hex(&in, 16);
    out->needs = take_slice(&in);
    for (int i = 0; cf_field_name(kind, i); i++) {
        if (in.good && in.at == in.end) break; /* of an earlier version, that had no such field: as if it was not said */
        const char *is = take(&in, 1);
        if (!is || (*is != '=' && *is != '-')) return false;
        cf_field *field = &out->record.fields[i];
        field->is = *is == '=' ? CF_GIVEN : CF_NULL;
        if (!cf_field_is_text(kind, i)) field->number = (int64_t)take_hex(&in, 16);
        else if (field->is == CF_GIVEN) field->text = take_slice(&in);
    }
    return in.good && in.at == in.end;
}

static int64_t life(cf_op *op, int64_t expiry)
{
    if (!expiry) return 0;
    int64_t left = expiry - op->keyed->now_ms;
    return left < 1 ? 1 : left > CF_TTL_MAX ? CF_TTL_MAX : left;
}

static int64_t later(int64_t a, int64_t b) { return !a || !b ? 0 : a > b ? a : b; }

/* ----------------------------------------------------------------------------------------------------------- reading -- */

/* CF_OK: it is there; GONE, AGAIN or an error. */
static int read_record(cf_op *op, seen *s, int kind, kept *out)
{
    cf_keyed *k = op->keyed;
    int       rc = state_of(s);
    if (rc != CF_OK) return rc;
    if (!read_value(s->value, kind, out)) return corrupt(op);
    out->from = s;
    if (out->expiry && k->now_ms >= out->expiry) return GONE;
    if (!out->needs.len) return CF_OK;
    k->name.len = k->base;
    add_name(op, out->needs);
    seen *needed = look(op, !k->full);
    rc = state_of(needed);
    if (rc != GONE || cf_op_writes(op) || k->looked_twice) return rc;
    /* Nobody keeps others from writing meanwhile: both may have been made, and the second removed, since the first was read. Then that one needs nothing now. */
    k->looked_twice = true;
    return again(op, s);
}

static int fetch(cf_op *op, int kind, cf_slice id, kept *out)
{
    int rc = read_record(op, look(op, name_record(op, kind, id)), kind, out);
    return rc == CF_OK && !cf_slice_equal(out->record.fields[0].text, id) ? GONE : rc;
}

static bool has(const cf_record *record, int field, cf_slice text)
{
    return field < 0 || (record->fields[field].is == CF_GIVEN && cf_slice_equal(record->fields[field].text, text));
}

/* The record that has these. `index`: the key that leads to it. */
static int fetch_unique(cf_op *op, int kind, cf_slice first, cf_slice second, kept *out, seen **index)
{
    const cf_kind *of = cf_kind_of(kind);
    *index = look(op, name_unique(op, kind, first, second));
    int rc = state_of(*index);
    if (rc == CF_OK) rc = fetch(op, kind, (*index)->value, out);
    return rc == CF_OK && !(has(&out->record, of->unique[0], first) && has(&out->record, of->unique[1], second)) ? GONE : rc;
}

static bool says_unique(const cf_record *record)
{
    const cf_kind *of = cf_kind_of(record->kind);
    return of->unique[0] >= 0 && record->fields[of->unique[0]].is == CF_GIVEN && (of->unique[1] < 0 || record->fields[of->unique[1]].is == CF_GIVEN);
}

/* The same for a record that is to be written: GONE where one of its unique fields is null. */
static int fetch_same(cf_op *op, const cf_record *record, kept *out, seen **index)
{
    const cf_kind *of = cf_kind_of(record->kind);
    *index = NULL;
    if (!says_unique(record)) return GONE;
    return fetch_unique(op, record->kind, record->fields[of->unique[0]].text, of->unique[1] >= 0 ? record->fields[of->unique[1]].text : cf_bytes(NULL, 0), out,
                        index);
}

/* The epoch of a group, where its kind has any. */
static int read_epoch(cf_op *op, int kind, cf_slice value, int64_t *epoch, seen **from)
{
    *epoch = 0;
    *from = NULL;
    if (cf_field_named(kind, cf_text("epoch")) < 0) return CF_OK;
    *from = look(op, name_epoch(op, kind, value));
    int rc = state_of(*from);
    if (rc == CF_OK && (!cf_parse_int((*from)->value, epoch) || *epoch < 0)) return corrupt(op);
    return rc == GONE ? CF_OK : rc;
}

/* The records of a group, one after the other. */
typedef struct group {
    int      kind;
    cf_slice value;
    seen    *from;
    int64_t  until; /* of what is there */
    input    rest;
    size_t   count; /* of ids: some may lead to nothing */
} group;

static cf_slice next_id(input *in) { return in->at == in->end ? cf_bytes(NULL, 0) : take_slice(in); }

/* The ids alone. GONE: there is no such group; it is an empty one. */
static int open_group(cf_op *op, int kind, cf_slice value, group *out)
{
    *out = (group){.kind = kind, .value = value, .rest = {"", NULL, true}};
    out->rest.end = out->rest.at;
    out->from = look(op, name_group(op, kind, value));
    int rc = state_of(out->from);
    if (rc != CF_OK) return rc;
    out->rest = (input){out->from->value.ptr, out->from->value.ptr + out->from->value.len, true};
    out->until = (int64_t)take_hex(&out->rest, 16);
    input count = out->rest;
    while (next_id(&count).ptr) out->count++;
    return out->rest.good && count.good ? CF_OK : corrupt(op);
}

/* And its records. CF_OK, AGAIN or an error. */
static int open_members(cf_op *op, int kind, cf_slice value, group *out)
{
    int rc = open_group(op, kind, value, out);
    if (rc == GONE) return CF_OK;
    if (rc != CF_OK) return rc;
    input    ids = out->rest;
    cf_slice id;
    bool     all = true;
    while ((id = next_id(&ids)).ptr) {
        seen *s = look(op, name_record(op, kind, id));
        if (!s) return CF_ENOMEM;
        all = all && s->state != WANTED;
    }
    return all ? CF_OK : AGAIN;
}

/* GONE: there are no more. */
static int next_member(cf_op *op, group *of, kept *out)
{
    cf_slice id;
    while ((id = next_id(&of->rest)).ptr) {
        int rc = fetch(op, of->kind, id, out);
        if (rc == CF_OK && !has(&out->record, cf_kind_of(of->kind)->listing, of->value)) continue;
        if (rc != GONE) return rc;
    }
    return GONE;
}

/* ---------------------------------------------------------------------------------------------------------- changing -- */

static void add_change(cf_op *op, cf_slice key, cf_slice value, int64_t ttl_ms, weight how, bool fresh)
{
    cf_keyed *k = op->keyed;
    change   *c = key.ptr ? room(op, sizeof *c) : NULL;
    if (!c) {
        k->full = true;
        return;
    }
    *c = (change){.key = key, .value = value, .ttl_ms = ttl_ms, .weight = how, .fresh = fresh};
    if (k->last_change) k->last_change->next = c;
    else k->changes = c;
    k->last_change = c;
}

/* Failures are in k->full. */
static void put(cf_op *op, const seen *s, cf_slice value, int64_t ttl_ms, weight how)
{
    if (!value.ptr) op->keyed->full = true;
    else add_change(op, s->key, value, ttl_ms, how, s->state == ABSENT);
}

static void erase(cf_op *op, bool named, weight how)
{
    if (named) add_change(op, copy(op, cf_bytes(op->keyed->name.ptr, op->keyed->name.len)), cf_bytes(NULL, 0), 0, how, false);
}

/* A record, and the name that leads to it. */
static void erase_record(cf_op *op, const cf_record *record, weight how)
{
    erase(op, name_record(op, record->kind, record->fields[0].text), how);
    if (says_unique(record)) erase(op, name_unique_of(op, record), LOOSE);
}

/* A group that lives for as long as `expiry` asks, and a while longer, so that it need not be written again each time one of its records lives on. */
static int64_t until_of(cf_op *op, const group *there, int64_t expiry)
{
    int64_t now = op->keyed->now_ms, most = now + CF_TTL_MAX;
    if (!expiry || (there->from->state == THERE && !there->until)) return 0;
    if (there->from->state == THERE && there->until >= expiry) return there->until;
    int64_t left = expiry > now ? expiry - now : 0;
    int64_t until = expiry > most - left / 2 ? most : expiry + left / 2;
    return until;
}

/* These ids, and one more (or none). */
static void put_group(cf_op *op, const group *there, cf_slice ids, cf_slice one_more, int64_t until)
{
    size_t size = 16 + ids.len + (one_more.len ? 8 + one_more.len : 0);
    char  *start = room(op, size);
    if (!start) return;
    char *to = give(give_hex(start, (uint64_t)until, 16), ids);
    if (one_more.len) give_slice(to, one_more);
    put(op, there->from, cf_bytes(start, size), life(op, until), HIDDEN);
}

static int exists(cf_op *op, const cf_record *there)
{
    int rc = cf_op_add_record(op, there);
    return rc == CF_OK ? cf_op_fail(op, CF_EEXISTS, CF_NOT_APPLIED, "it is there already") : rc;
}

/* Where a record names another that it needs, that other one cannot go before this is forgotten. */
static int forget_need(cf_op *op, const kept *gone)
{
    const cf_kind *of = cf_kind_of(gone->record.kind);
    if (!of->needs_parent) return CF_OK;
    kept  parent;
    seen *s = look(op, name_record(op, of->parent, gone->record.fields[of->listing].text));
    int   rc = read_record(op, s, of->parent, &parent);
    if (rc == GONE) return CF_OK;
    if (rc != CF_OK || !cf_slice_equal(parent.needs, bare(op, gone->from))) return rc;
    parent.needs.len = 0;
    put(op, s, write_record(op, &parent), life(op, parent.expiry), HIDDEN);
    return CF_OK;
}

/* ------------------------------------------------------------------------------------------------------------ insert -- */

/* What is in the way of a new record, and what it is written over. */
typedef struct fresh {
    kept     it;
    seen    *at, *index;
    group    group;
    cf_slice ids; /* of its group, those that are there */
    int64_t  epoch;
    bool     grouped;
} fresh;

typedef struct candidate {
    bool     ended;
    int64_t  created;
    kept     it;
} candidate;

static int first_to_go(const void *first, const void *second)
{
    const candidate *a = first, *b = second;
    if (a->ended != b->ended) return a->ended ? -1 : 1;
    if (a->created != b->created) return a->created < b->created ? -1 : 1;
    cf_slice x = a->it.record.fields[0].text, y = b->it.record.fields[0].text;
    int      order = memcmp(x.ptr, y.ptr, x.len < y.len ? x.len : y.len);
    return order ? order : (x.len > y.len) - (x.len < y.len);
}

/* Those that must go so that one more may come: the first *count of *all. */
static int make_way(cf_op *op, fresh *f, candidate **all, size_t *count)
{
    const cf_plan *plan = &op->keyed->plan;
    *count = 0;
    if (plan->most <= 0 || !f->grouped || f->group.count < (uint64_t)plan->most) return CF_OK;
    int rc = open_members(op, f->it.record.kind, f->group.value, &f->group);
    if (rc != CF_OK) return rc;
    candidate *live = room(op, f->group.count * sizeof *live);
    char      *ids = room(op, f->group.from->value.len + 1), *end = ids;
    size_t     there = 0;
    if (!live || !ids) return CF_ENOMEM;
    while ((rc = next_member(op, &f->group, &live[there].it)) == CF_OK) {
        candidate       *c = &live[there++];
        const cf_record *record = &c->it.record;
        c->created = record->fields[cf_field_named(record->kind, cf_text("created_at"))].number;
        c->ended = record->kind == CF_SESSION && cf_session_status(record, plan->now) != CF_STATUS_ACTIVE;
        end = give_slice(end, record->fields[0].text);
    }
    if (rc != GONE) return rc;
    f->ids = cf_bytes(ids, (size_t)(end - ids)); /* those that go are still in it: they go last, or not at all */
    if (there < (uint64_t)plan->most) return CF_OK;
    *count = there - (size_t)plan->most + 1;
    *all = live;
    if (*count > 1) qsort(live, there, sizeof *live, first_to_go);
    for (size_t i = 1; *count == 1 && i < there; i++) {
        if (first_to_go(&live[i], &live[0]) >= 0) continue;
        candidate first = live[i];
        live[i] = live[0];
        live[0] = first;
    }
    for (size_t i = 0; i < *count; i++)
        if (!live[i].ended && !plan->oldest_out)
            return cf_op_fail(op, CF_ELIMIT, CF_NOT_APPLIED, "there are as many records of the kind %s in that group as are allowed", cf_kind_name(f->it.record.kind));
    return CF_OK;
}

/* All that may stand against one record, in the order of cf_plan. GONE: nothing does. CF_OK: it is there, this very one. */
static int may_insert(cf_op *op, const cf_record *record, const cf_record *together, fresh *f)
{
    const cf_plan *plan = &op->keyed->plan;
    const cf_kind *of = cf_kind_of(record->kind);
    kept           other;
    f->it = (kept){.record = *record, .expiry = plan->expiry_ms > 0 ? plan->expiry_ms : 0};
    f->grouped = of->listing >= 0 && record->fields[of->listing].is == CF_GIVEN;
    int rc = fetch(op, record->kind, record->fields[0].text, &other);
    if (rc == CF_OK) {
        int epoch = cf_field_named(record->kind, cf_text("epoch"));
        f->epoch = epoch >= 0 ? other.record.fields[epoch].number : 0;
    }
    if (rc != GONE) return rc;
    f->at = look(op, name_record(op, record->kind, record->fields[0].text));
    if (!f->at) return CF_ENOMEM;
    rc = fetch_same(op, record, &other, &f->index);
    if (rc != GONE) return rc == CF_OK ? exists(op, &other.record) : rc;
    if (!f->grouped) return GONE;
    cf_slice value = record->fields[of->listing].text;
    if (of->needs_parent && !(together && together->kind == of->parent && cf_slice_equal(together->fields[0].text, value))) {
        rc = fetch(op, of->parent, value, &other);
        if (rc == GONE) return cf_op_fail(op, CF_EMISSING, CF_NOT_APPLIED, "there is no such %s", cf_kind_name(of->parent));
        if (rc != CF_OK) return rc;
    }
    seen *epoch_at;
    rc = read_epoch(op, record->kind, value, &f->epoch, &epoch_at);
    if (rc != CF_OK) return rc;
    if (plan->epoch >= 0 && plan->epoch != f->epoch)
        return cf_op_fail(op, CF_ECHANGED, CF_NOT_APPLIED, "what belongs to that %s has changed meanwhile", cf_field_name(record->kind, of->listing));
    rc = open_group(op, record->kind, value, &f->group);
    if (rc != CF_OK && rc != GONE) return rc;
    f->ids = cf_bytes(f->group.rest.at, (size_t)(f->group.rest.end - f->group.rest.at));
    int epoch = cf_field_named(record->kind, cf_text("epoch"));
    if (epoch >= 0) cf_record_number(&f->it.record, epoch, f->epoch);
    return GONE;
}

static int insert(cf_op *op)
{
    const cf_plan *plan = &op->keyed->plan;
    bool       two = plan->with.kind >= 0;
    fresh      both[2];
    candidate *go = NULL;
    size_t     going = 0;
    memset(both, 0, sizeof both);
    int rc = may_insert(op, &plan->record, NULL, &both[0]);
    if (rc == GONE && two) rc = may_insert(op, &plan->with, &plan->record, &both[1]);
    fresh *last = &both[two];
    if (rc == GONE) {
        rc = make_way(op, last, &go, &going);
        if (rc != CF_OK) return rc;
        rc = GONE;
    }
    if (rc != CF_OK && rc != GONE) return rc;
    op->hit = true;
    op->number = both[0].grouped && !last->grouped ? both[0].epoch : last->epoch;
    if (rc == CF_OK) return CF_OK;
    for (fresh *f = both; f <= last; f++) {
        if (f->index) put(op, f->index, f->it.record.fields[0].text, life(op, f->it.expiry), HIDDEN);
        if (!f->grouped) continue;
        f->it.until = until_of(op, &f->group, f->it.expiry);
        if (f->ids.len + 1024 > CF_VALUE_MAX)
            return cf_op_fail(op, CF_ELIMIT, CF_NOT_APPLIED, "there are more records of the kind %s in that group than a value can hold", cf_kind_name(f->it.record.kind));
        put_group(op, &f->group, f->ids, f->it.record.fields[0].text, f->it.until);
    }
    if (two) {
        both[0].it.needs = bare(op, last->at);
        put(op, both[0].at, write_record(op, &both[0].it), life(op, both[0].it.expiry), HIDDEN);
        both[0].it.needs.len = 0;
    }
    put(op, last->at, write_record(op, &last->it), life(op, last->it.expiry), COUNTS);
    if (two) put(op, both[0].at, write_record(op, &both[0].it), life(op, both[0].it.expiry), LOOSE);
    for (size_t i = 0; i < going; i++) erase_record(op, &go[i].it.record, LOOSE);
    return CF_OK;
}

/* ------------------------------------------------------------------------------------------------------------ update -- */

/* `it` becomes `next`, which differs from it in what may be changed. */
static int rewrite(cf_op *op, const kept *it, kept *next)
{
    const cf_kind *of = cf_kind_of(it->record.kind);
    cf_keyed *k = op->keyed;
    kept  other;
    seen *index = NULL;
    bool  moved = false, lives_on = next->expiry != it->expiry;
    for (int i = 0; i < 2; i++)
        if (of->unique[i] >= 0 && !cf_field_equal(&it->record.fields[of->unique[i]], &next->record.fields[of->unique[i]])) moved = true;
    if (says_unique(&next->record) && moved) {
        int rc = fetch_same(op, &next->record, &other, &index);
        if (rc != CF_OK && rc != GONE) return rc;
        if (rc == CF_OK && !cf_slice_equal(other.record.fields[0].text, it->record.fields[0].text)) return exists(op, &other.record);
        put(op, index, it->record.fields[0].text, life(op, later(it->expiry, next->expiry)), HIDDEN);
    } else if (says_unique(&next->record) && later(it->expiry, next->expiry) != it->expiry) {
        add_change(op, name_unique_of(op, &next->record) ? copy(op, cf_bytes(k->name.ptr, k->name.len)) : cf_bytes(NULL, 0), it->record.fields[0].text,
                   life(op, next->expiry), HIDDEN, false);
    }
    next->needs.len = 0;
    if (of->listing >= 0 && lives_on && it->until && (!next->expiry || next->expiry > it->until)) {
        group there;
        int   rc = open_group(op, it->record.kind, it->record.fields[of->listing].text, &there);
        if (rc != CF_OK && rc != GONE) return rc;
        next->until = until_of(op, &there, next->expiry);
        put_group(op, &there, cf_bytes(there.rest.at, (size_t)(there.rest.end - there.rest.at)), rc == GONE ? it->record.fields[0].text : cf_bytes(NULL, 0),
                  next->until);
    }
    put(op, it->from, write_record(op, next), life(op, next->expiry), COUNTS);
    if (moved && says_unique(&it->record)) erase(op, name_unique_of(op, &it->record), LOOSE);
    return CF_OK;
}

static void changed(cf_op *op, const kept *it, kept *next)
{
    const cf_plan *plan = &op->keyed->plan;
    *next = *it;
    cf_record_apply(&next->record, &plan->record);
    next->record.fields[0] = it->record.fields[0];
    if (plan->expiry_ms >= 0) next->expiry = plan->expiry_ms;
}

static bool guard_holds(const cf_plan *plan, const cf_record *record) { return plan->guard < 0 || cf_field_equal(&record->fields[plan->guard], &plan->equals); }

static int update_group(cf_op *op)
{
    const cf_plan *plan = &op->keyed->plan;
    group   of;
    kept    it, next;
    int64_t epoch;
    seen   *epoch_at;
    int     rc = open_members(op, plan->kind, plan->at[0], &of);
    if (rc == CF_OK) rc = read_epoch(op, plan->kind, plan->at[0], &epoch, &epoch_at);
    if (rc != CF_OK) return rc;
    if (plan->bump && epoch_at) {
        char text[CF_INT_TEXT];
        put(op, epoch_at, copy(op, cf_bytes(text, cf_format_int(epoch + 1, text))), 0, COUNTS);
    }
    while ((rc = next_member(op, &of, &it)) == CF_OK) {
        if (plan->except.len && cf_slice_equal(it.record.fields[0].text, plan->except)) continue;
        if (!guard_holds(plan, &it.record)) continue;
        changed(op, &it, &next);
        rc = rewrite(op, &it, &next);
        if (rc != CF_OK) return rc;
        op->number++;
    }
    op->hit = true;
    return rc == GONE ? CF_OK : rc;
}

static int update(cf_op *op)
{
    const cf_plan *plan = &op->keyed->plan;
    kept it, next;
    if (plan->by == CF_BY_GROUP) return update_group(op);
    int rc = fetch(op, plan->kind, plan->at[0], &it);
    if (rc == GONE) return CF_OK;
    if (rc != CF_OK) return rc;
    if (!guard_holds(plan, &it.record)) return cf_op_add_record(op, &it.record);
    changed(op, &it, &next);
    rc = rewrite(op, &it, &next);
    if (rc != CF_OK) return rc;
    op->hit = true;
    return cf_op_add_record(op, &next.record);
}

/* ------------------------------------------------------------------------------------------- find, list and remove -- */

static int find(cf_op *op)
{
    const cf_plan *plan = &op->keyed->plan;
    kept  it;
    seen *index;
    int   rc = plan->by == CF_BY_UNIQUE ? fetch_unique(op, plan->kind, plan->at[0], plan->at[1], &it, &index) : fetch(op, plan->kind, plan->at[0], &it);
    if (rc == GONE) return CF_OK;
    if (rc != CF_OK) return rc;
    op->hit = true;
    return cf_op_add_record(op, &it.record);
}

static int list(cf_op *op)
{
    const cf_plan *plan = &op->keyed->plan;
    group  of;
    kept   it;
    seen  *epoch_at;
    size_t given = 0;
    int    rc = plan->number_only ? CF_OK : open_members(op, plan->kind, plan->at[0], &of);
    if (rc == CF_OK) rc = read_epoch(op, plan->kind, plan->at[0], &op->number, &epoch_at);
    if (rc != CF_OK) return rc;
    op->hit = true;
    if (plan->number_only) return CF_OK;
    while (given++ < CF_SESSIONS_MOST && (rc = next_member(op, &of, &it)) == CF_OK) {
        rc = cf_op_add_record(op, &it.record);
        if (rc != CF_OK) return rc;
    }
    return rc == GONE ? CF_OK : rc;
}

/* What belongs to a record goes first: should it stop on the way, the rest can still be found. What needs memory comes before what does not. */
static int remove_record(cf_op *op)
{
    const cf_plan *plan = &op->keyed->plan;
    kept    it, child;
    group   of[CF_KINDS];
    int64_t epoch;
    seen   *epoch_at;
    int     rc = fetch(op, plan->kind, plan->at[0], &it);
    if (rc == GONE) return CF_OK;
    if (rc == CF_OK) rc = forget_need(op, &it);
    for (int kind = 0; kind < CF_KINDS && rc == CF_OK; kind++) {
        const cf_kind *child_of = cf_kind_of(kind);
        if (child_of->parent != plan->kind || child_of->listing < 0) continue;
        rc = open_members(op, kind, plan->at[0], &of[kind]);
        if (rc == CF_OK) rc = read_epoch(op, kind, plan->at[0], &epoch, &epoch_at);
        if (rc != CF_OK || !epoch_at) continue;
        char text[CF_INT_TEXT];
        put(op, epoch_at, copy(op, cf_bytes(text, cf_format_int(epoch + 1, text))), 0, COUNTS);
    }
    for (int kind = 0; kind < CF_KINDS && rc == CF_OK; kind++) {
        const cf_kind *child_of = cf_kind_of(kind);
        if (child_of->parent != plan->kind || child_of->listing < 0) continue;
        while ((rc = next_member(op, &of[kind], &child)) == CF_OK) erase_record(op, &child.record, COUNTS);
        if (rc != GONE) return rc;
        rc = CF_OK;
        if (of[kind].from->state == THERE) erase(op, name_group(op, kind, plan->at[0]), LOOSE);
    }
    if (rc != CF_OK) return rc;
    erase_record(op, &it.record, COUNTS);
    op->hit = true;
    return CF_OK;
}

/* ------------------------------------------------------------------------------------------------------------ engine -- */

static int nothing(cf_op *op, int status)
{
    op->hit = false;
    op->number = 0;
    op->key_at = 0;
    op->cursor.len = 0;
    if (status != CF_EEXISTS) op->value.len = 0;
    return status;
}

static int no_memory(cf_op *op) { return nothing(op, cf_op_fail(op, CF_ENOMEM, CF_NOT_APPLIED, "no memory for a record")); }

static int run_logic(cf_op *op)
{
    cf_keyed *k = op->keyed;
    k->again = false;
    k->changes = k->last_change = NULL;
    op->value.len = op->key_at = 0;
    op->hit = false;
    op->number = 0;
    switch (op->in.kind) {
    case CF_OP_INSERT: return insert(op);
    case CF_OP_UPDATE: return update(op);
    case CF_OP_FIND: return find(op);
    case CF_OP_LIST: return list(op);
    case CF_OP_REMOVE: return remove_record(op);
    default: return cf_op_fail(op, CF_ENOTSUP, CF_NOT_APPLIED, "the %s backend does not support that", op->store->table->name);
    }
}

/* The next change. Those that nobody can see any more may fail. */
static int go_on_changing(cf_op *op)
{
    cf_keyed *k = op->keyed;
    change   *c = k->at;
    if (!c) return k->failed ? op->error.status : CF_OK;
    cf_error told = op->error;
    cf_op   *child = cf_child(op, c->value.ptr ? CF_OP_SET : CF_OP_DELETE, c->key);
    if (!child) {
        if (!k->failed && c->weight != LOOSE) return k->counted ? cf_op_fail(op, CF_ENOMEM, CF_UNKNOWN, "no memory for a record") : no_memory(op);
        op->error = told;
        return k->failed ? told.status : CF_OK;
    }
    child->raw = false;
    child->secret = k->secret;
    child->in.timeout_ms = op->in.timeout_ms;
    child->in.value = c->value;
    child->in.ttl_ms = c->ttl_ms;
    return STEP_CHILD;
}

/* A change that was needed has failed. Where nobody has seen anything of it, what was new is taken back; elsewhere it is passed over until somebody writes there. */
static void fail_change(cf_op *op, cf_op *child)
{
    cf_keyed *k = op->keyed;
    change   *end = k->at;
    cf_adopt(op, child);
    if (k->counted) op->error.outcome = CF_UNKNOWN;
    else if (end->weight == HIDDEN) op->error.outcome = CF_NOT_APPLIED;
    nothing(op, CF_OK);
    k->failed = true;
    k->at = NULL;
    if (op->error.outcome != CF_NOT_APPLIED) return;
    change *undo = NULL;
    for (change *c = k->changes, *next; c != end; c = next) {
        next = c->next;
        if (!c->fresh) continue;
        c->value = cf_bytes(NULL, 0);
        c->weight = LOOSE;
        c->next = undo;
        undo = c;
    }
    k->at = undo;
}

static int keyed_step(cf_op *op, cf_op *child)
{
    cf_keyed *k = op->keyed;
    if (k->changing) {
        bool failed = child->error.status != CF_OK;
        if (failed && !k->failed && k->at->weight != LOOSE) {
            fail_change(op, child);
        } else {
            if (!failed && k->at->weight == COUNTS) k->counted++;
            k->at = k->at->next;
        }
        return go_on_changing(op);
    }
    if (child) {
        if (child->error.status != CF_OK) {
            cf_adopt(op, child);
            op->error.outcome = CF_NOT_APPLIED;
            return nothing(op, op->error.status);
        }
        seen *s = k->want;
        s->value = child->hit ? copy(op, cf_op_value(child)) : cf_bytes(NULL, 0);
        s->state = child->hit ? THERE : ABSENT;
        k->want = s->next;
    }
    if (!k->started) k->now_ms = cf_wall(op->loop->platform); /* when it has its lock */
    k->started = true;
    int rc;
    for (;;) {
        while (k->want && k->want->state != WANTED) k->want = k->want->next;
        if (k->full) return no_memory(op);
        if (k->want) {
            child = cf_child(op, CF_OP_GET, k->want->key);
            if (!child) return no_memory(op);
            child->raw = false; /* what is to come as it is are the tokens in it */
            child->secret = k->secret;
            child->in.timeout_ms = op->in.timeout_ms;
            return STEP_CHILD;
        }
        rc = run_logic(op);
        if (k->full || rc == CF_ENOMEM) return no_memory(op);
        if (rc != AGAIN) break;
    }
    /* What it brings is opened before anything is written, so that what cannot be given changes nothing. */
    int arrived = cf_records_arrive(op, rc);
    if (arrived != rc) op->error.outcome = CF_NOT_APPLIED;
    if (arrived != CF_OK) return nothing(op, arrived);
    k->at = k->changes;
    k->changing = true;
    return go_on_changing(op);
}

bool cf_keyed_changes(const cf_op *op) { return op->keyed->changing; }

bool cf_keyed_is_name(const cf_store *store, cf_slice bare) { return store && cf_keyed_applies(store) && bare.len > 1 && bare.ptr[0] == '\n'; }

bool cf_keyed_applies(const cf_store *store) { return store->table->flags & (CF_BACKEND_RECORDS | CF_BACKEND_DERIVE) && !store->table->hook; }

static int start(cf_op *op)
{
    cf_store *store = op->store;
    cf_keyed *k = cf_zalloc(op->loop->platform, sizeof *k);
    op->keyed = k;
    if (!k) return no_memory(op);
    if (!cf_plan_read(op->in.value, &k->plan)) return cf_op_fail(op, CF_ECORRUPT, CF_NOT_APPLIED, "a plan was lost");
    bool plain = !store->seal || cf_seal_takes_plain(store->seal); /* tokens may lie there as they are */
    k->secret = store->seal_values || (plain && k->plan.kind != CF_SESSION);
    k->buckets = k->few;
    k->bucket_count = FEW;
    add_name(op, cf_bytes(store->prefix, store->prefix_len));
    add_name(op, cf_text("\n"));
    k->base = k->name.len;
    return k->full ? no_memory(op) : CF_OK;
}

/* The ids of all records of a kind, a page of them: as the backend scans. */
static int ids_step(cf_op *op, cf_op *child)
{
    cf_keyed *k = op->keyed;
    cf_slice  key;
    int       rc = CF_OK;
    if (!child) {
        if (!name_record(op, k->plan.kind, cf_bytes(NULL, 0))) return no_memory(op);
        child = cf_child(op, CF_OP_SCAN, cf_bytes(k->name.ptr, k->name.len));
        if (!child) return no_memory(op);
        child->in.cursor = op->in.cursor;
        child->in.limit = op->in.limit;
        child->in.timeout_ms = op->in.timeout_ms;
        return STEP_CHILD;
    }
    if (child->error.status != CF_OK) return cf_adopt(op, child);
    size_t ahead = k->name.len - op->store->prefix_len;
    op->value.len = 0;
    while (rc == CF_OK && cf_op_next_key(child, &key)) rc = cf_op_add_id(op, cf_bytes(key.ptr + ahead, key.len - ahead));
    cf_take_cursor(op, child);
    op->hit = rc == CF_OK;
    return rc;
}

int cf_keyed_start(cf_op *op)
{
    cf_keyed_free(op);
    int rc = start(op);
    if (rc == CF_OK && op->keyed->plan.by == CF_BY_ALL) return cf_compose(op, ids_step);
    if (rc == CF_OK && cf_op_writes(op)) {
        op->step = keyed_step;
        rc = cf_derive_take(op, cf_bytes(op->keyed->name.ptr, op->keyed->base));
        if (rc == CF_PENDING) cf_op_pend(op);
    }
    if (rc != CF_OK) return rc;
    rc = cf_compose(op, keyed_step);
    if (rc != CF_PENDING && op->lock_state != LOCK_NONE) cf_derive_unlock(op);
    return rc;
}
