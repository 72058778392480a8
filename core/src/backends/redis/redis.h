/* redis.h: what the files of the Redis backend know of each other.
 *
 *   redis.c       the table: opening, closing, figures
 *   options.c     the URL
 *   commands.c    one slot per operation: what is asked of the server, and what its answers mean
 *   records.c     the same for records
 *   replicas.c    waits for replicas where the URL asks for them
 *   queue.c       the commands that wait: for the socket, or for their answers
 *   connection.c  dialling, greeting, reading and writing, losing and coming back
 *   sentinel.c    asks Sentinels where the primary is
 *   cluster.c     the servers of a cluster: each is a backend of its own; who has which slot, and what goes where
 *   slots.c       which slot a key is in
 *   tls.c         TLS over a socket
 *   reply.c       answers, read by hiredis
 *   errors.c      what the server's error words mean
 *   warnings.c    what of the server's settings breaks a promise of ours
 *   scripts/      what must happen in one step on the server */
#ifndef CF_REDIS_H
#define CF_REDIS_H

#include <errno.h>

#include "options.h"
#include "tls.h"

/* -------------------------------------------------------------------------------------------------------------- slots -- */

enum { REDIS_SLOTS = 16384, REDIS_TAIL = 3 };
uint16_t redis_slot(cf_slice key);
bool     redis_slot_by_tag(cf_slice key); /* whatever follows the key does not change its slot */
/* `name` begins with `key`. The bytes (REDIS_TAIL, or none) that bring it into the slot of the key. */
size_t   redis_slot_tail(cf_slice key, cf_slice name, char tail[REDIS_TAIL]);

/* ------------------------------------------------------------------------------------------------------------ replies -- */

/* How the answer of a command is read. */
typedef enum {
    EXPECT_VALUE, /* a string or nil                           */
    EXPECT_OK,    /* OK: stored, or nil: not                   */
    EXPECT_HIT,   /* a number: above 0 is a hit                */
    EXPECT_NUMBER,
    EXPECT_PAGE,  /* [cursor, [key ...]]                       */
    EXPECT_CLEAR_PAGE,
    EXPECT_CLEAR_DELETED,
    EXPECT_CLEAR_ONE, /* on a cluster: one key of a page, of which the last one is EXPECT_CLEAR_DELETED */
    EXPECT_MARK,     /* OK: this connection has written, so that it can wait for replicas */
    EXPECT_RECORDS, /* [how it went, a number (, kind, [field, value ...] ...)] */
    EXPECT_REPLICAS, /* a number: so many have what came before; the connection's own, from here on */
    EXPECT_ASKING,   /* OK, of the connection's own */
    EXPECT_SLOTS,    /* CLUSTER SLOTS, of the connection's own */
    EXPECT_INFO_REPLICATION,
    EXPECT_INFO_PERSISTENCE,
    EXPECT_INFO_MEMORY,
    EXPECT_SAVE,
    EXPECT_FSYNC
} redis_expect;

typedef enum { REPLY_NONE, REPLY_NIL, REPLY_STATUS, REPLY_ERROR, REPLY_INTEGER, REPLY_STRING, REPLY_ARRAY } redis_reply_type;

/* How the answer to a record operation begins: what a script returns. */
typedef enum { RECORDS_NO, RECORDS_YES, RECORDS_EXISTS, RECORDS_MISSING, RECORDS_CHANGED, RECORDS_LIMIT, RECORDS_TOO_LARGE } redis_records_code;

/* The records that are being read; each goes to its operation when it is complete. */
typedef struct redis_records {
    int64_t code, number; /* -1: not yet */
    int     kind;         /* -1: not yet */
    int     field;        /* whose value comes next; -1: one that we do not know */
    size_t  count, size;  /* records that have come, their bytes */
    struct {
        size_t at, len; /* in `bytes`; of a null len is SIZE_MAX */
    } fields[CF_FIELDS_MAX];
    cf_buffer bytes; /* of the record that is being read */
} redis_records;

/* The answer that is being read. What belongs to an operation goes straight there; the rest is here. */
typedef struct redis_reply {
    redis_reply_type type;
    int64_t          integer;
    cf_buffer        text;   /* status, error, or a string for ourselves                    */
    cf_buffer        keys;   /* CLEAR: the keys of a page, as the arguments of a command    */
    size_t           key_count;
    bool             last_page;
    int              failed; /* a status: there was no memory for it, or it is damaged      */
    redis_records    records;
} redis_reply;

/* --------------------------------------------------------------------------------------------------------------- queue -- */

enum {
    CALL_REPEATABLE = 1 << 0, /* asking again does no harm: it reads, or it has a receipt                  */
    CALL_MAYBE      = 1 << 1, /* it may have taken effect already: on a connection that was lost, or partly */
    CALL_DEAD       = 1 << 2, /* nobody waits for it, and it was not sent: never send it                    */
    CALL_OWN        = 1 << 3, /* the connection's own                                                       */
    CALL_SCRIPT     = 1 << 4, /* EVALSHA, see `script`                                                      */
    CALL_ANEW       = 1 << 5, /* CLEAR on a cluster: a key was not where it had been seen, so begin anew    */
    CALL_ASKED      = 1 << 7, /* behind ASKING: its slot is just coming to the server                        */
    CALL_LOST       = 1 << 6  /* sent on the connection that has just been lost: to ask it again has its price */
};
typedef enum {
    SCRIPT_POP,
    SCRIPT_INCR,
    SCRIPT_SET,
    SCRIPT_INSERT,
    SCRIPT_UPDATE,
    SCRIPT_UPDATE_GROUP,
    SCRIPT_FIND,
    SCRIPT_LIST,
    SCRIPT_REMOVE,
    SCRIPTS
} redis_script;

typedef struct redis_call {
    uint64_t ticket;  /* of its operation; stale once nobody waits */
    uint32_t bytes;   /* of its command in `out`                    */
    uint32_t sent_us; /* when, modulo 2^32                          */
    uint8_t  expect, flags, script;
    uint8_t  kind; /* of the records that it is about */
    uint16_t slot; /* on a cluster: of its key */
    uint8_t  hops; /* how often it was sent on to another server */
} redis_call;

/* The commands in the order of their answers: first `sent` of them wholly sent, then those that are not. Their bytes stand one behind the other in `out`, and
 * stay until the answer has come: what may be repeated after a lost connection is still there then. */
typedef struct redis_queue {
    redis_call *calls; /* a ring; cap is a power of two */
    size_t      cap, head, count, sent, dead;
    size_t      own;   /* of them the connection's own, which take no caller's place */
    uint64_t    first; /* the number of the call at head: an operation's note is the number of its call, and in front of it */
    uint64_t    place; /* that of the server, of a cluster */
    cf_buffer   out;
    size_t      at;      /* where the bytes of the call at head start */
    size_t      edge;    /* where those of the first call that is not wholly sent start */
    size_t      written; /* how far the socket has taken them         */
} redis_queue;

/* ------------------------------------------------------------------------------------------------------------ replicas -- */

typedef struct redis_waiter {
    uint64_t ticket; /* of an operation that has its answer, and waits for the replicas */
    uint64_t wait;   /* the WAIT it waits for, counted from 1 */
} redis_waiter;

typedef struct redis_replicas {
    redis_waiter *list; /* in the order of the WAITs */
    size_t        head, count, cap; /* those before head have been ended */
    uint64_t      asked, answered; /* WAITs; on a connection that was lost all count as answered */
    uint64_t      last_at;         /* the number of the last one's call */
    int64_t       last_ms, have;
    int64_t       patient_ms; /* when they were last waited for as long as it takes */
    bool          behind;     /* when they were last asked for */
    int           online;     /* so many has the server, by its own word */
    int64_t       counted_ms; /* when it last said so, or was asked */
} redis_replicas;

/* ---------------------------------------------------------------------------------------------------------- connection -- */

enum {
    REDIS_QUIET_MS = 250,       /* who owes an answer for so long may be dead: others are asked who has taken over, */
    REDIS_POLL_MS = 100,        /* so often, */
    REDIS_SLOW_POLL_MS = 1000,  /* or so, when the outage is an old one */
    REDIS_YOUNG_MS = 10 * 1000,
    REDIS_ANSWER_MS = 500,      /* for an answer about that */
    REDIS_REFUSED_MS = 1000     /* after a refusal of our name or password: no storm of attempts that lock an account */
};

typedef enum {
    LINK_DOWN,       /* no socket: waits for its timer, or for somebody to ask. The store itself of a cluster is always that */
    LINK_SEEKING,    /* the Sentinels are asked */
    LINK_RESOLVING,
    LINK_DIALLING,
    LINK_HANDSHAKE,  /* TLS */
    LINK_GREETING,   /* AUTH, SELECT, PING, CLIENT SETNAME */
    LINK_READY
} redis_link;

enum { REDIS_ADDRESSES = 8, REDIS_BUCKETS = 17, REDIS_KNOWN = 64, REDIS_NODES = 4096, REDIS_NOBODY = 0xffff, REDIS_PLACE_SHIFT = 48 };

typedef struct redis_dial {
    cf_backend *self;
    int         fd; /* -1: not (or no longer) tried */
    cf_watch   *watch;
} redis_dial;

typedef enum {
    TALK_RESTS, /* nothing is owed; there may be a connection */
    TALK_RESOLVING,
    TALK_DIALLING,
    TALK_HANDSHAKE,
    TALK_ASKING
} redis_talk_state;

typedef enum { HEARD_NOT_YET, HEARD_NO_ANSWER, HEARD_A_NAME } redis_heard;

/* The conversation with one Sentinel. */
typedef struct redis_talk {
    cf_backend      *self;
    redis_talk_state state;
    int              fd; /* -1: none */
    cf_watch        *watch;
    cf_timer        *timer; /* the end of patience */
    cf_job          *job;
    redis_tls       *tls;
    cf_address       addresses[REDIS_ADDRESSES];
    int              address_count, dialled;
    redis_heard      heard;          /* last, since the primary came in doubt */
    uint64_t         named;          /* a print of whom it named last, or would if it was behind; 0: nobody knows */
    bool             failed;         /* since the link began to seek */
    bool             stranger;       /* it knows no such primary */
    int64_t          rests_until_ms; /* after a failure; INT64_MAX: it refuses us */
    bool             owes_login;     /* the answer to AUTH comes first */
    cf_buffer        out;
    size_t           written, len;
    char             in[512];
} redis_talk;

/* Those with all of them. */
typedef struct redis_seek {
    redis_talk *talks; /* as many as there are places */
    cf_timer   *timer; /* the next turn; or, while it is not open, to see whether the link has fallen silent */
    bool        open;  /* they are asked */
    bool        fresh; /* one of them has just said where to go */
    size_t      at;    /* whose word was taken last, or is waited for */
    size_t      turn;  /* who was asked last */
    cf_error    why;
} redis_seek;

/* Who has which slot. */
typedef struct redis_cluster {
    cf_backend **nodes; /* servers that are spoken to; NULL: a place that is free */
    size_t       count; /* of places */
    uint16_t     owner[REDIS_SLOTS]; /* places, or REDIS_NOBODY */
    redis_place  known[REDIS_KNOWN]; /* who else can be asked: all that the last answer has named */
    size_t       known_count;
    uint64_t     print; /* of `owner`, and of whom it names; 0: to be made */
    bool         complete; /* an answer has come */
    bool         wanted, asking;
    bool         refused;  /* whoever was asked last wants none of us */
    bool         unsorted; /* nodes have got what they do not know of */
    cf_backend  *asked;    /* whom, last */
    cf_backend  *told;     /* whom the last MOVED has named */
    uint64_t     question; /* which */
    size_t       turn;     /* who is asked next */
    int64_t      asked_ms, outage_ms, later_ms, due_ms; /* due_ms: of the timer; INT64_MAX: it rests */
    int64_t      patience_ms; /* for one answer */
    bool         rests;       /* nobody may ask: only as often as after a refusal */
    uint64_t     redirects;
} redis_cluster;

/* An answer about that, while it is being read. */
typedef struct redis_saying {
    uint16_t    owner[REDIS_SLOTS];
    redis_place known[REDIS_KNOWN];
    size_t      known_count;
    uint16_t    from, to;
    int         ends;         /* of the range that is being read: so many have come */
    bool        odd, starved; /* it is none; there was no memory for it */
    char        host[256];
    size_t      host_len;
} redis_saying;

struct cf_backend {
    cf_loop           *loop;
    const cf_platform *platform;
    redis_options      options;
    redis_tls_context *tls_context;

    redis_link  link;
    int         fd;
    cf_watch   *watch;
    redis_tls  *tls;
    cf_timer   *timer;      /* the next attempt, the end of this one, silence, or the end of a hold: by `link` */
    cf_timer   *dial_timer; /* the next address */
    cf_job     *job;
    cf_address  addresses[REDIS_ADDRESSES];
    int         address_count, dialled;
    redis_dial  dials[REDIS_ADDRESSES];
    uint8_t     hello[5]; /* the steps of the greeting whose answers are owed */
    unsigned    hello_count, hello_at;
    cf_buffer   hello_out;
    size_t      hello_written;

    redis_seek seek;

    redis_cluster *cluster; /* of a store whose URL names a cluster: what it asks goes to its nodes, and waits here as long as nobody knows to which */
    cf_backend    *store;   /* of a node: that store */
    uint16_t       slot;    /* of what is being asked */
    unsigned       owned;   /* slots of a node */
    redis_saying  *saying;  /* what a node is saying of all slots */
    cf_error       asking;  /* status < 0: it does not take ASKING from us */

    unsigned attempts;  /* since an operation was last answered */
    int64_t  outage_ms; /* when it stopped working; -1: it works */
    bool     waits;     /* DOWN until the timer goes off */
    bool     shy;       /* DOWN after a refusal: until somebody asks */
    bool     holding;   /* READY, but the server asked for a pause (LOADING ...) */
    bool     leaving;   /* READY, but as soon as what was sent is answered, connect anew */
    bool     poisoned;  /* what was read cannot be trusted */
    bool     was_ready;
    cf_error refusal;   /* status < 0: the server does not want us; calls fail at once until the timer goes off */
    int64_t  refused_until_ms;
    cf_error why;       /* status < 0: what went wrong last: the sentence for deadlines that pass meanwhile      */
    unsigned holds;
    int64_t  ready_ms;
    uint32_t now_us;    /* when the input that is being read came */
    int64_t  heard_ms;  /* when an answer last came, or was first owed */

    redis_queue queue;
    redis_replicas replicas;
    redis_reply reply;
    void       *reader; /* redisReader */
    char       *input;  /* INPUT bytes to read into */

    uint64_t    random[3]; /* receipts: two words of their own; then the state of the jitter */
    uint64_t    receipts;
    bool        seeded;
    bool        no_getdel; /* the server is older than 6.2 */
    int         credit;    /* of retries, in tenths: one for every ten calls */
    bool        persists_aof, persists_snapshots;
    unsigned    warned;

    struct {
        uint64_t connects, disconnects, round_trips, bytes_sent, bytes_received, commands, retries, late, busy;
        uint64_t us[REDIS_BUCKETS];
    } figures;
};

/* Whose events, and whose map, they are: of a node its store's. */
static inline cf_backend *redis_whole(cf_backend *self) { return self->store ? self->store : self; }

/* commands.c */
extern const cf_backend_table cf_redis_table, cf_rediss_table, cf_redis_unix_table, cf_redis_sentinel_table, cf_rediss_sentinel_table, cf_redis_cluster_table,
    cf_rediss_cluster_table;
int redis_get(cf_backend *self, cf_op *op);
int redis_set(cf_backend *self, cf_op *op);
int redis_del(cf_backend *self, cf_op *op);
int redis_pop(cf_backend *self, cf_op *op);
int redis_touch(cf_backend *self, cf_op *op);
int redis_incr(cf_backend *self, cf_op *op);
int redis_scan(cf_backend *self, cf_op *op);
int redis_clear(cf_backend *self, cf_op *op);
int redis_scan_from(cf_backend *self, cf_op *op, cf_slice prefix, cf_slice cursor); /* a page of the keys that begin so; the server's own cursor */
int redis_clear_from(cf_backend *self, cf_op *op, cf_slice cursor); /* the next page */
/* The answer of the call at the head of the queue is complete. */
void redis_answer(cf_backend *self);
/* Asks: CF_PENDING, or an error that is written into the operation. */
int redis_ask(cf_backend *self, cf_op *op, redis_call call, const cf_slice *args, size_t count);
/* The same for a script, call.script: args[0] and args[1] are left free for its name. */
int redis_ask_script(cf_backend *self, cf_op *op, redis_call call, cf_slice *args, size_t count);
/* What stands beside a key, in its slot: the key, a NUL, which no caller's key can have, and `rest`. So no caller's key is ever one, and no page of a scan shows one. */
enum { REDIS_BESIDE = CF_PREFIX_MAX + CF_KEY_MAX + 1 + CF_RECEIPT_LEN + REDIS_TAIL };
cf_slice redis_beside(const cf_backend *self, cf_slice key, cf_slice rest, char room[REDIS_BESIDE]);
/* A receipt that nobody else has. False: the system gives no random bytes. */
bool redis_new_receipt(cf_backend *self, char receipt[CF_RECEIPT_LEN]);

/* records.c */
int redis_insert(cf_backend *self, cf_op *op);
int redis_update(cf_backend *self, cf_op *op);
int redis_find(cf_backend *self, cf_op *op);
int redis_list(cf_backend *self, cf_op *op);
int redis_remove(cf_backend *self, cf_op *op);
cf_slice redis_records_base(const cf_op *op, char room[CF_PREFIX_MAX + 16]); /* what all keys of its store's records begin with */
int redis_records_add_id(cf_op *op, cf_slice key); /* of a page for a LIST of all records */
/* The parts of an answer, as they come; `op` NULL: nobody waits for it any more. `last`: of its record. */
void redis_records_begin(cf_backend *self);
void redis_records_number(cf_backend *self, size_t index, int64_t number);
void redis_records_kind(cf_backend *self, size_t index, cf_slice name);
void redis_records_next(cf_backend *self, size_t index, size_t count);
void redis_records_text(cf_backend *self, cf_op *op, size_t index, cf_slice text, bool last);
void redis_records_odd(cf_backend *self); /* a part that no answer has */
/* The answer is complete: the status of the operation. */
int redis_records_answer(cf_backend *self, cf_op *op, const redis_call *call);

/* An answer, or an error that says something, for its operation. */
void redis_finish(cf_backend *self, cf_op *op, int status);
/* The answer is none that its question can have. */
void redis_not_ours(cf_backend *self);

/* replicas.c */
/* It has its answer, `status`: finished here, or when the replicas have it. `call`, which was answered, is not in the queue any more. */
void redis_settle(cf_backend *self, cf_op *op, const redis_call *call, int status);
void redis_await(cf_backend *self, cf_op *op);                /* this connection has written after what must last */
void redis_waits_answer(cf_backend *self);                    /* the answer of the first WAIT is in self->reply */
void redis_waits_lost(cf_backend *self, const cf_error *why); /* the connection is gone: nobody knows */
void redis_waits_count(cf_backend *self, cf_slice info);      /* what INFO replication says */
void redis_waits_recount(cf_backend *self);                   /* the same, of an answer in self->reply */
void redis_waits_free(cf_backend *self);                      /* without a word to anybody */

/* queue.c */
enum { REDIS_ARGS = 12 };
/* Appends a command. CF_OK or CF_ENOMEM. `op` may be NULL (CALL_OWN). */
int         redis_queue_push(cf_backend *self, cf_op *op, redis_call call, const cf_slice *args, size_t count);
/* ASKING, for the command that is appended next. CF_OK or CF_ENOMEM. */
int         redis_queue_push_asking(cf_backend *self);
/* The same for a command that is bytes already, in parts; call.ticket is given. */
int         redis_queue_push_parts(cf_backend *self, cf_op *op, redis_call call, const cf_slice *parts, size_t count);
/* The command at head goes to the end of another server's queue; CF_ENOMEM: it stays. */
int         redis_queue_hand_over(cf_backend *self, cf_op *op, redis_call call, cf_backend *to);
/* What was not sent, and belongs elsewhere by now, goes there. */
void        redis_queue_reroute(cf_backend *self);
/* Appends the command at head once more, with `head` for its first `skip` bytes. */
int         redis_queue_again(cf_backend *self, cf_op *op, redis_call call, cf_slice head, size_t skip);
redis_call *redis_queue_at(redis_queue *queue, size_t index);
void        redis_queue_shift(redis_queue *queue);       /* the call at head is answered */
bool        redis_queue_full(cf_backend *self, size_t more);
/* Takes the dead ones out of what was not sent. */
void        redis_queue_bury(cf_backend *self);
size_t      redis_queue_unsent(const redis_queue *queue); /* bytes */
/* `bytes` more were taken by the socket. */
void        redis_queue_sent(cf_backend *self, size_t bytes, int64_t now_us);
/* Whether the server has got, at least in part, what it has not answered. */
bool        redis_queue_owed(const redis_queue *queue);
/* Gives the memory of a burst back. */
void        redis_queue_slim(cf_backend *self);
/* The outcome of a call that ends without having been executed now: unknown where an earlier try may have been. */
int         redis_outcome(const cf_op *op, const redis_call *call, int otherwise);
/* The connection is gone: ends what cannot be repeated, and makes the rest unsent. */
void        redis_queue_lost(cf_backend *self, const cf_error *why);
/* Ends everything that waits. */
void        redis_queue_refuse(cf_backend *self, const cf_error *why);
void        redis_queue_clear(cf_backend *self); /* without a word to anybody: a child after fork */
void        redis_queue_free(cf_backend *self);
int         redis_cancel(cf_backend *self, cf_op *op, int why);
/* A command as bytes at the end of a buffer. */
int         redis_format(const cf_platform *platform, cf_buffer *out, const cf_slice *args, size_t count);

int         redis_format_auth(const cf_platform *platform, cf_buffer *out, const char *user, const char *password); /* user NULL: the default one */

/* connection.c */
static inline bool redis_would_block(void) { return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR; }
void redis_flush(cf_backend *self);
void redis_give_up(cf_backend *self, const cf_error *why); /* the connection, or the attempt */
void redis_works(cf_backend *self); /* an operation was answered: whatever was wrong is over */
void redis_forked(cf_backend *self);
void redis_hang_up(cf_backend *self, bool politely); /* the socket and everything of it, without a word to the queue */
void redis_hold(cf_backend *self);    /* the server asked for patience */
void redis_greeted(cf_backend *self); /* an answer of the greeting is in self->reply */
void redis_on_timer(void *self);
void redis_on_dial_timer(void *self);
uint64_t redis_jitter(cf_backend *self, uint64_t below);
/* Whether calls wait for a server: it has no connection, or owes an answer for `ms` already. */
bool redis_in_doubt(const cf_backend *self, int64_t ms);
/* A Sentinel has named the primary: go there. CF_EINVAL: that is no address, and nothing has happened. */
int  redis_found(cf_backend *self, cf_slice host, cf_slice port);
/* None has, of all that were asked. */
void redis_not_found(cf_backend *self, const cf_error *why);
/* Looks a name up on a thread; `found` gets addresses, families by turns, or a negative count for cf_resolve_error. CF_OK or CF_ENOMEM. */
typedef void (*redis_looked_up)(void *user, const cf_address *addresses, int count);
int  redis_look_up(cf_backend *self, const char *host, const char *port, redis_looked_up found, void *user, cf_job **out);

/* sentinel.c */
int  redis_seek_new(cf_backend *self);     /* CF_OK or CF_ENOMEM */
void redis_seek_begin(cf_backend *self);   /* asks, if it does not already; the answer comes as redis_found or redis_not_found, also from inside this call */
void redis_seek_if_silent(cf_backend *self); /* an answer is owed from now on */
void redis_seek_elsewhere(cf_backend *self); /* what was named was no good: the next time another one is asked */
void redis_seek_end(cf_backend *self);     /* the primary works */
void redis_seek_forked(cf_backend *self);
void redis_seek_free(cf_backend *self);

/* redis.c */
int redis_open(cf_loop *loop, const cf_url *url, cf_backend **out, cf_error *error);
void redis_stats(cf_backend *self, cf_stat_fn each, void *user);
int redis_new(cf_loop *loop, const redis_options *options, cf_backend **out, cf_error *error); /* has the options, also after an error */
int redis_close(cf_backend *self, cf_error *error);

/* cluster.c */
int         redis_cluster_new(cf_backend *self); /* CF_OK or CF_ENOMEM */
void        redis_cluster_free(cf_backend *self);
cf_backend *redis_cluster_route(cf_backend *self, uint16_t slot); /* the server that has it; else the store itself, where it waits */
void        redis_cluster_down(cf_backend *node, const cf_error *why, bool refused); /* it has lost its connection, or did not get one */
void        redis_cluster_owes(cf_backend *node); /* an answer, from now on */
void        redis_cluster_sort(cf_backend *node); /* what its answers have sent elsewhere is on its way from here on */
cf_backend *redis_cluster_page(cf_backend *self, cf_op *op, uint16_t slot); /* whose page a call for one is that waits for the map; NULL: nobody's any more */
/* It says who has the slot, in the text of its error. False: that is no such text. */
bool        redis_cluster_redirect(cf_backend *node, cf_op *op, redis_call call, cf_slice text, bool only_this);
void        redis_cluster_asked(cf_backend *node); /* the answer to ASKING is in its reply */
bool        redis_cluster_later(cf_backend *node, cf_op *op, redis_call call); /* the call at its head is to be asked anew, soon. False: no memory */
int         redis_cluster_page_came(cf_backend *node, cf_op *op, uint16_t slot); /* CF_OK, or it says nothing: written into the operation */
/* The cursor behind a page: that of the server, "" for the last. CF_OK or CF_ENOMEM. */
int         redis_cluster_cursor(cf_backend *node, cf_op *op, cf_slice text);
int         redis_cluster_clear_on(cf_backend *node, cf_op *op, redis_call call); /* a page of a CLEAR has come, or is gone */
/* The answer to CLUSTER SLOTS, part by part, and all of it. */
void        redis_cluster_begin(cf_backend *node);
void        redis_cluster_unsaid(cf_backend *node); /* its end will not come */
int         redis_cluster_list_all(cf_backend *node, cf_op *op, cf_slice prefix); /* a page of the records of a store */
void        redis_cluster_number(cf_backend *node, int depth, size_t index, size_t outer, int64_t number);
void        redis_cluster_text(cf_backend *node, int depth, size_t index, cf_slice text);
void        redis_cluster_answer(cf_backend *node, const redis_call *call);

/* reply.c */
void redis_reader_free(cf_backend *self); /* with the connection; the next feed makes another */
/* Reads what arrived; calls redis_answer for each reply. False: the connection must go (self->poisoned and self->why say why). */
bool redis_reader_feed(cf_backend *self, const char *bytes, size_t count);

/* errors.c */
typedef enum { ERROR_FINAL, ERROR_LATER, ERROR_LEAVE, ERROR_NO_SCRIPT, ERROR_NO_GETDEL, ERROR_POISON, ERROR_MOVED, ERROR_ASK, ERROR_UNSETTLED } redis_verdict;
/* What the text of an error reply means. Fills in status, outcome and the sentence, in which no word of the server's but the first is repeated. */
redis_verdict redis_judge(const cf_backend *self, cf_slice text, cf_error *error);

/* warnings.c */
void redis_ask_settings(cf_backend *self);                        /* queues the questions */
void redis_settings_answer(cf_backend *self, redis_expect which); /* the answer is in self->reply */
/* The value of a line "name:value" of INFO; empty where there is none. */
cf_slice redis_info_line(cf_slice text, const char *name);

#endif
