// What the files of this binding share. The binding knows the public headers of the core and Node-API, and holds no policy:
// options, JSON and friendliness are JavaScript (node/), promises about time are the core's.
//
// Every napi_* status is checked, and "not ok" always means one thing: the environment is going away (worker.terminate(), process
// exit) and JavaScript cannot be called any more. Such a path gives up quietly: it never aborts and never throws.
#ifndef CF_NODE_BINDING_H
#define CF_NODE_BINDING_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <node_api.h>

#include "counterfoil.h"
#include "counterfoil/backend.h"
#include "counterfoil/testing.h"
#include "uv_few.h"

namespace counterfoil {

struct Loop;
struct Store;
struct Pending;

// One per environment (the main thread, or one worker).
struct Env {
    napi_env               napi;
    napi_ref               error_class; // CounterfoilError
    napi_ref               schedule;    // JavaScript: calls flush at the end of the tick
    napi_ref               later;       // the object by which a backend's dispatch function says "later"
    napi_ref               deliver;     // JavaScript: settles promises
    napi_ref               room;        // the Int32Array whose only element is `*slot`
    int32_t               *slot;        // of the promise that JavaScript is to make for what is pending
    int32_t                slots;       // given out so far
    Pending               *spare;
    napi_async_cleanup_hook_handle hook;
    Loop                  *loops;       // all that are alive
    Loop                  *main;        // for stores without a stage; NULL while there are none
    size_t                 handles;     // uv handles that are not closed yet
    bool                   leaving;     // teardown has begun: no JavaScript from here on
    bool                   scheduled;   // a flush at the end of this tick has been asked for
};

// A staged platform. Loops on it and its JavaScript object hold it.
struct Stage {
    cf_stage *stage;
    Loop     *loop; // made when the first store opens on it, freed when the last one closes
    size_t    holders;
};

// One operation in flight. Kept in a list for reuse, so a submit allocates nothing. `slot` is where JavaScript keeps the functions that settle its promise;
// the list is the environment's, because the slots are.
struct Pending {
    Pending      *next;
    Loop         *loop;
    Store        *store;
    int32_t       slot;
    int           form;
    int64_t       now;    // FORM_RECORDS: the moment that a session's status is for, in microseconds; 0: the clock's
    napi_value    result; // once it is done, until it is delivered
    bool          good;
};

struct Loop {
    Env          *env;
    Loop         *next;
    Stage        *stage;   // NULL: the real machine
    cf_loop      *loop;    // NULL once freed
    Store        *stores;  // open on it
    uv_poll_s    *poll;    // NULL until it is watched
    napi_async_context context;
    napi_ref      resource;
    Pending      *done, **done_end; // with their results, in their order: loop_deliver
    Pending      *held, **held_end; // the same, but JavaScript could not be called: their results are in `results`, and they count as in flight
    napi_ref      results;
    size_t        in_flight;
    unsigned      unsent;  // submits since the last flush
    unsigned      early;   // so many are sent before the end of the tick
    unsigned      depth;   // of our own calls into the core
};

struct Host;

// The native half of a Store: wrapped by a JavaScript object, the "handle".
struct Store {
    Env      *env;
    Loop     *loop;   // NULL once closed
    cf_store *store;  // NULL once closed
    Store    *next;
    Host     *host;   // NULL when the backend is native; belongs to the core, which closes it
    napi_ref  handle; // weak; strong while operations are in flight
    size_t    in_flight;
};

// What a backend written in JavaScript threw, as the core carries it (cf_op_attach).
struct Thrown {
    Env     *env;
    napi_ref array; // with the thrown value as its only element: a reference needs an object, and anything can be thrown
};

// What becomes of a result in JavaScript.
enum Form {
    FORM_TEXT,   // GET, POP: a string, undefined for a miss
    FORM_BYTES,  // GET, POP: a Buffer, undefined for a miss
    FORM_HIT,    // a boolean
    FORM_NUMBER, // a number
    FORM_RECORDS, // an array: hit, number, cursor (or undefined), and the records
    FORM_PAGE,   // SCAN: an array of keys, with the cursor (or undefined) as the last element
    FORM_SWEEP,  // RESEAL: an array: how many were sealed anew, how many do not open, and the cursor (or undefined)
    FORM_NOTHING // undefined
};

// ---------------------------------------------------------------------------------------------------------- convert.cc --

// Text or bytes taken out of a JavaScript value. Short ones live in the caller's own frame. The bytes are valid while the holder is.
template <size_t N> struct Holder {
    char   room[N];
    char  *heap = nullptr;
    cf_slice slice = {nullptr, 0};
    Holder() {}
    ~Holder() { free(heap); }
    Holder(const Holder &) = delete;
    Holder &operator=(const Holder &) = delete;
};
typedef Holder<CF_KEY_MAX + 16> KeyHolder;
typedef Holder<6144>            ValueHolder;

enum Take { TAKE_OK, TAKE_WRONG_TYPE, TAKE_LONE_SURROGATE, TAKE_NO_MEMORY };

// Takes a string as UTF-8. Of one that is absurdly longer than `max` bytes only a part is taken, which is too long as well: the core
// refuses it.
Take take_string(napi_env env, napi_value value, char *room, size_t size, char **heap, size_t max, cf_slice *out);
// The same, or a Uint8Array (a Buffer), whose bytes are lent.
Take take_bytes(napi_env env, napi_value value, char *room, size_t size, char **heap, size_t max, cf_slice *out);

// Throws INVALID about the argument `what` and returns false unless it was taken.
bool take_key(Env *env, napi_value value, const char *what, KeyHolder *holder);
bool take_value(Env *env, napi_value value, const char *what, ValueHolder *holder);

bool is_undefined(napi_env env, napi_value value);
napi_value undefined(napi_env env);

// NULL with *bad set when the bytes are not UTF-8; NULL alone when the environment is going away.
napi_value text_to_js(napi_env env, cf_slice bytes, bool *bad);
napi_value bytes_to_js(napi_env env, cf_slice bytes);

// A CounterfoilError, or NULL when the environment is going away.
napi_value error_to_js(Env *env, const cf_error *error, cf_slice receipt = cf_slice(), napi_value existing = nullptr);
void throw_error(Env *env, const cf_error *error);
void throw_status(Env *env, int status, const char *text);
// What a failed operation is to its caller: what the host's backend threw, unchanged, or a CounterfoilError.
napi_value failure_to_js(Env *env, cf_op *op);
// The result in its form. NULL with *failure filled in when it cannot be said in that form.
napi_value result_to_js(Env *env, cf_op *op, int form, int64_t now, cf_error *failure);

// ---------------------------------------------------------------------------------------------------------- records.cc --

// A record, and the texts in it.
struct RecordHolder {
    cf_record   record;
    Holder<128> texts[CF_FIELDS_MAX];
};
// Takes a record out of its array; `at` is the field that was wrong.
Take take_record(napi_env env, napi_value array, RecordHolder *holder, int *at);
// NULL with *bad set when a text is not UTF-8; NULL alone when the environment is going away.
napi_value record_to_js(napi_env env, const cf_record *record, bool *bad);
// The next record that an operation brought; NULL: no more, or *failure was filled in, or going away.
napi_value next_record_to_js(Env *env, cf_op *op, int64_t now, cf_error *failure);
napi_value records_to_js(Env *env, cf_op *op, int64_t now, cf_error *failure);
napi_value records_kinds(napi_env napi, napi_callback_info info);
napi_value records_accounts_methods(napi_env napi, napi_callback_info info);

// ------------------------------------------------------------------------------------------------------------- loop.cc --

Env  *env_new(napi_env napi); // and keeps it as the instance data; NULL: no memory, or going away
Env  *env_get(napi_env napi);

// The loop for stores on this stage (NULL: on the real machine). CF_OK, or the status of cf_loop_new.
int   loop_for(Env *env, Stage *stage, Loop **out);
// Has libuv watch its descriptor, if it does not yet: what connects by itself must be heard of while nothing is awaited. False: it cannot.
bool  loop_watch(Loop *loop);
// Around every call into the core that can submit, finish or close.
void  loop_enter(Loop *loop);
void  loop_leave(Loop *loop);
// An operation is in flight now (false: the descriptor cannot be watched); it is not any more.
bool  loop_began(Loop *loop);
void  loop_ended(Loop *loop);
Pending *pending_take(Loop *loop);
void     pending_give(Pending *pending);
// It is done, and its result is a handle of the scope that is open: whoever called into the core calls loop_deliver before that closes.
void     pending_done(Loop *loop, Pending *pending);
void     loop_deliver(Loop *loop);
void  stage_drop(Stage *stage);
napi_value loop_flush(napi_env napi, napi_callback_info info);

// ------------------------------------------------------------------------------------------------------------ store.cc --

napi_status store_define(napi_env napi, napi_value exports);
// The loop is being freed, or the store was closed: no more use of it.
void store_forget(Store *store);

// ------------------------------------------------------------------------------------------------------------- host.cc --

// What the JavaScript side found on the object; a number of these bits is the handle's second argument.
enum Shape {
    SHAPE_POP = 1, SHAPE_TOUCH = 2, SHAPE_INCR = 4, SHAPE_SET_IF = 8, SHAPE_SCAN = 16, SHAPE_BINARY = 32, SHAPE_KEEPS_TTL = 64,
    SHAPE_SINGLE_PROCESS = 128, SHAPE_HOOKS = 256 // the methods of an AccountsStorage, and nothing else
};

// The native half of a backend written in JavaScript; NULL: no memory, or going away. `dispatch` is held weakly: the handle holds it.
Host *host_new(Env *env, napi_value dispatch, uint32_t shape, const void *identity);
const cf_backend_table *host_table(const Host *host);
cf_backend             *host_backend(Host *host);
// No JavaScript for it any more, not even close(): nobody holds its store.
void host_mute(Host *host);
// A promise of the backend has settled: settle(ticket, call, fulfilled, value), a method of the handle.
void host_settle(Loop *loop, uint64_t ticket, int call, bool fulfilled, napi_value value);

// ------------------------------------------------------------------------------------------------------------ stage.cc --

napi_status stage_define(napi_env napi, napi_value exports);
Stage *stage_of(napi_env napi, napi_value value);

} // namespace counterfoil

#endif
