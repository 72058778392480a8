// The environment (main thread or worker) and its loops: one descriptor each, watched by libuv.
//
// A loop is watched as soon as a store that has a connection of its own opens on it, else from its first pending operation on. It keeps the
// process alive while operations are in flight (each has a deadline, so that ends) and never otherwise. What is submitted in one tick, or, while
// answers are awaited, in one turn of the event loop, is flushed once.
#include "binding.h"

#include <initializer_list>
#include <new>

namespace counterfoil {

// Submits in one long tick after which the first are sent at once. What is in the air when answers come is what will be in the air again:
// then it is a quarter of that, so that both sides are busy.
static const unsigned FLUSH_EARLY = 64, FLUSH_LEAST = 4;

// Answers for one turn of the event loop. What follows from each runs in that turn too, and the application's timers and sockets wait for it.
static const size_t BATCH = 64;

// ---------------------------------------------------------------------------------------------------------- environment --

static void unhook(Env *env)
{
    napi_async_cleanup_hook_handle hook = env->hook;
    env->hook = nullptr;
    if (hook != nullptr) (void)!napi_remove_async_cleanup_hook(hook); // node frees the environment after this, not before
}

static void handle_closed(uv_handle_s *handle)
{
    Env *env = static_cast<Env *>(uv_handle_get_data(handle));
    free(handle);
    env->handles--;
    if (env->leaving && env->handles == 0) unhook(env);
}

static Pending *take_first(Pending **list)
{
    Pending *first = *list;
    *list = first->next;
    return first;
}

static void loop_dispose(Loop *loop)
{
    Env *env = loop->env;
    for (Loop **at = &env->loops; *at != nullptr; at = &(*at)->next) {
        if (*at != loop) continue;
        *at = loop->next;
        break;
    }
    if (env->main == loop) env->main = nullptr;
    if (loop->poll != nullptr) { // before the descriptor is closed
        uv_handle_s *handle = reinterpret_cast<uv_handle_s *>(loop->poll);
        uv_poll_stop(loop->poll);
        loop->poll = nullptr;
        uv_handle_set_data(handle, env);
        uv_close(handle, handle_closed);
    }
    cf_loop_free(loop->loop);
    loop->loop = nullptr;
    while (loop->stores != nullptr) store_forget(loop->stores);
    if (loop->context != nullptr) (void)!napi_async_destroy(env->napi, loop->context);
    if (loop->resource != nullptr) (void)!napi_delete_reference(env->napi, loop->resource);
    if (loop->results != nullptr) (void)!napi_delete_reference(env->napi, loop->results);
    for (Pending **list : {&loop->done, &loop->held})
        while (*list != nullptr) pending_give(take_first(list));
    if (loop->stage != nullptr) {
        loop->stage->loop = nullptr;
        stage_drop(loop->stage);
    }
    delete loop;
}

// The environment ends: the natural end of a thread, process.exit() in a worker, worker.terminate(). From here on JavaScript is not called.
static void environment_ends(napi_async_cleanup_hook_handle, void *data)
{
    Env *env = static_cast<Env *>(data);
    env->leaving = true;
    while (env->loops != nullptr) loop_dispose(env->loops);
    for (napi_ref *held : {&env->error_class, &env->schedule, &env->later, &env->deliver, &env->room}) {
        if (*held != nullptr) (void)!napi_delete_reference(env->napi, *held);
        *held = nullptr;
    }
    if (env->handles == 0) unhook(env);
}

static void env_free(napi_env, void *data, void *)
{
    Env *env = static_cast<Env *>(data);
    while (env->spare != nullptr) delete take_first(&env->spare);
    delete env;
}

Env *env_new(napi_env napi)
{
    Env *env = new (std::nothrow) Env();
    if (env == nullptr) return nullptr;
    env->napi = napi;
    if (napi_set_instance_data(napi, env, env_free, nullptr) != napi_ok) {
        delete env;
        return nullptr;
    }
    if (napi_add_async_cleanup_hook(napi, environment_ends, env, &env->hook) != napi_ok) return nullptr;
    return env;
}

Env *env_get(napi_env napi)
{
    void *data = nullptr;
    return napi_get_instance_data(napi, &data) == napi_ok ? static_cast<Env *>(data) : nullptr;
}

// ----------------------------------------------------------------------------------------------------------------- loop --

int loop_for(Env *env, Stage *stage, Loop **out)
{
    Loop *loop = stage != nullptr ? stage->loop : env->main;
    if (loop == nullptr) {
        loop = new (std::nothrow) Loop();
        if (loop == nullptr) return CF_ENOMEM;
        loop->early = FLUSH_EARLY;
        int status = cf_loop_new(stage != nullptr ? cf_stage_platform(stage->stage) : nullptr, &loop->loop);
        if (status != CF_OK) {
            delete loop;
            return status;
        }
        cf_loop_set_batch(loop->loop, BATCH);
        loop->env = env;
        loop->done_end = &loop->done;
        loop->held_end = &loop->held;
        loop->next = env->loops;
        env->loops = loop;
        if (stage != nullptr) {
            loop->stage = stage;
            stage->loop = loop;
            stage->holders++;
        } else {
            env->main = loop;
        }
    }
    *out = loop;
    return CF_OK;
}

static void flush(Loop *loop)
{
    loop->unsent = 0;
    (void)!cf_loop_flush(loop->loop);
}

// JavaScript calls flush() later (native.cjs says when); when that cannot be arranged, now is as good.
static void schedule(Loop *loop)
{
    Env       *env = loop->env;
    napi_value function = nullptr, self = nullptr, result = nullptr;
    if (env->scheduled) return;
    bool waiting = false;
    if (napi_is_exception_pending(env->napi, &waiting) == napi_ok && !waiting &&
        napi_get_reference_value(env->napi, env->schedule, &function) == napi_ok && function != nullptr &&
        (self = undefined(env->napi)) != nullptr) {
        if (napi_call_function(env->napi, self, function, 0, nullptr, &result) == napi_ok) {
            env->scheduled = true;
            return;
        }
        // No stack left, most likely: the operation itself was submitted, so its caller must not see this.
        if (napi_is_exception_pending(env->napi, &waiting) == napi_ok && waiting) (void)!napi_get_and_clear_last_exception(env->napi, &result);
    }
    flush(loop);
}

napi_value loop_flush(napi_env napi, napi_callback_info)
{
    Env *env = env_get(napi);
    if (env == nullptr || env->leaving) return nullptr;
    env->scheduled = false;
    for (Loop *loop = env->loops; loop != nullptr; loop = loop->next) {
        loop->early = FLUSH_EARLY;
        if (loop->unsent > 0) flush(loop);
    }
    return nullptr;
}

void loop_enter(Loop *loop) { loop->depth++; }

void loop_leave(Loop *loop)
{
    if (--loop->depth > 0 || loop->env->leaving) return;
    if (loop->unsent > 0) {
        if (loop->in_flight == 0) loop->unsent = 0;
        else if (loop->unsent >= loop->early) flush(loop);
        else schedule(loop);
    }
    // Once nothing uses it, its descriptors go back: a program (or a test runner) may load this package many times over. And a stage
    // counts its blocks: the loop must not be one of them.
    if (loop->stores == nullptr && loop->in_flight == 0) loop_dispose(loop);
}

// What JavaScript could not be told now it is told when the loop runs next, from an empty stack. False: it cannot be kept.
static bool hold(Loop *loop, Pending *const given[], const napi_value at[], size_t count)
{
    napi_env   napi = loop->env->napi;
    napi_value results = nullptr;
    uint32_t   len = 0;
    if (loop->results == nullptr) {
        if (napi_create_array(napi, &results) != napi_ok || napi_create_reference(napi, results, 1, &loop->results) != napi_ok) return false;
    } else if (napi_get_reference_value(napi, loop->results, &results) != napi_ok) {
        return false;
    }
    for (const Pending *one = loop->held; one != nullptr; one = one->next) len++; // not the array's length: what was not kept whole may be in it
    for (uint32_t i = 0; i < count; i++)
        if (napi_set_element(napi, results, len + i, at[2 * i + 1]) != napi_ok) return false;
    for (size_t i = 0; i < count; i++) {
        given[i]->next = nullptr;
        *loop->held_end = given[i];
        loop->held_end = &given[i]->next;
        (void)!loop_began(loop);
    }
    (void)!cf_loop_wake(loop->loop);
    return true;
}

static void take_back(Loop *loop)
{
    napi_env   napi = loop->env->napi;
    napi_value results = nullptr;
    if (loop->results == nullptr) return;
    (void)!napi_get_reference_value(napi, loop->results, &results);
    for (uint32_t i = 0; loop->held != nullptr; i++) {
        Pending *pending = take_first(&loop->held);
        if (results != nullptr && napi_get_element(napi, results, i, &pending->result) == napi_ok) pending_done(loop, pending);
        else pending_give(pending);
        loop_ended(loop);
    }
    loop->held_end = &loop->held;
    (void)!napi_delete_reference(napi, loop->results);
    loop->results = nullptr;
}

static void readable(uv_poll_s *handle, int, int)
{
    Loop *loop = static_cast<Loop *>(uv_handle_get_data(reinterpret_cast<uv_handle_s *>(handle)));
    Env  *env = loop->env;
    napi_env            napi = env->napi;
    napi_handle_scope   handles = nullptr;
    napi_callback_scope callback = nullptr;
    napi_value          resource = nullptr;
    if (env->leaving || napi_open_handle_scope(napi, &handles) != napi_ok) {
        uv_poll_stop(handle); // or libuv would call again at once, and for ever
        return;
    }
    // Inside a callback scope, so that the promises settled here run their reactions before libuv goes on.
    if (napi_get_reference_value(napi, loop->resource, &resource) == napi_ok && resource != nullptr &&
        napi_open_callback_scope(napi, resource, loop->context, &callback) == napi_ok) {
        loop_enter(loop);
        take_back(loop);
        size_t quarter = loop->in_flight / 4;
        loop->early = quarter < FLUSH_LEAST ? FLUSH_LEAST : quarter > FLUSH_EARLY ? FLUSH_EARLY : static_cast<unsigned>(quarter);
        (void)!cf_loop_run(loop->loop, 0);
        loop_deliver(loop);
        loop_leave(loop); // may free the loop
        bool waiting = false;
        if (napi_is_exception_pending(napi, &waiting) == napi_ok && waiting) {
            napi_value thrown = nullptr;
            if (napi_get_and_clear_last_exception(napi, &thrown) == napi_ok) (void)!napi_fatal_exception(napi, thrown);
        }
        (void)!napi_close_callback_scope(napi, callback);
    } else {
        uv_poll_stop(handle);
    }
    (void)!napi_close_handle_scope(napi, handles);
}

static bool watch(Loop *loop)
{
    Env          *env = loop->env;
    uv_loop_s    *uv = nullptr;
    napi_value    resource = nullptr, name = nullptr;
    if (loop->resource == nullptr) {
        if (napi_create_object(env->napi, &resource) != napi_ok || napi_create_reference(env->napi, resource, 1, &loop->resource) != napi_ok) return false;
    }
    if (loop->context == nullptr) {
        if (napi_get_reference_value(env->napi, loop->resource, &resource) != napi_ok ||
            napi_create_string_utf8(env->napi, "counterfoil", NAPI_AUTO_LENGTH, &name) != napi_ok ||
            napi_async_init(env->napi, resource, name, &loop->context) != napi_ok)
            return false;
    }
    if (napi_get_uv_event_loop(env->napi, &uv) != napi_ok) return false;
    uv_poll_s *handle = static_cast<uv_poll_s *>(calloc(1, uv_handle_size(CF_UV_POLL)));
    if (handle == nullptr) return false;
    if (uv_poll_init(uv, handle, cf_loop_fd(loop->loop)) != 0) {
        free(handle); // libuv has not taken it
        return false;
    }
    env->handles++;
    uv_unref(reinterpret_cast<uv_handle_s *>(handle));
    if (uv_poll_start(handle, CF_UV_READABLE, readable) != 0) {
        uv_handle_set_data(reinterpret_cast<uv_handle_s *>(handle), env);
        uv_close(reinterpret_cast<uv_handle_s *>(handle), handle_closed);
        return false;
    }
    uv_handle_set_data(reinterpret_cast<uv_handle_s *>(handle), loop);
    loop->poll = handle;
    return true;
}

bool loop_watch(Loop *loop) { return loop->poll != nullptr || watch(loop); }

bool loop_began(Loop *loop)
{
    if (!loop_watch(loop)) return false;
    if (loop->in_flight++ == 0) uv_ref(reinterpret_cast<uv_handle_s *>(loop->poll));
    return true;
}

void loop_ended(Loop *loop)
{
    if (--loop->in_flight == 0 && loop->poll != nullptr) uv_unref(reinterpret_cast<uv_handle_s *>(loop->poll));
}

Pending *pending_take(Loop *loop)
{
    Env     *env = loop->env;
    Pending *pending = env->spare != nullptr ? take_first(&env->spare) : new (std::nothrow) Pending();
    if (pending != nullptr && pending->loop == nullptr) pending->slot = env->slots++; // a new one
    if (pending != nullptr) pending->loop = loop;
    return pending;
}

void pending_give(Pending *pending)
{
    Env *env = pending->loop->env;
    pending->next = env->spare;
    env->spare = pending;
}

void pending_done(Loop *loop, Pending *pending)
{
    pending->next = nullptr;
    *loop->done_end = pending;
    loop->done_end = &pending->next;
}

// One call into JavaScript for up to so many promises: each call costs as much as some of them.
static const size_t TOGETHER = 64;

void loop_deliver(Loop *loop)
{
    Env       *env = loop->env;
    napi_env   napi = env->napi;
    napi_value deliver = nullptr, self = nullptr, result = nullptr;
    while (loop->done != nullptr && !env->leaving) {
        napi_value at[2 * TOGETHER];
        Pending   *given[TOGETHER];
        size_t     count = 0;
        bool       waiting = false;
        while (loop->done != nullptr && count < TOGETHER) {
            Pending *pending = given[count] = take_first(&loop->done);
            if (loop->done == nullptr) loop->done_end = &loop->done;
            (void)!napi_create_int32(napi, pending->good ? pending->slot : ~pending->slot, &at[2 * count]);
            at[2 * count + 1] = pending->result;
            count++;
        }
        if (napi_get_reference_value(napi, env->deliver, &deliver) != napi_ok || deliver == nullptr || (self = undefined(napi)) == nullptr ||
            napi_call_function(napi, self, deliver, 2 * count, at, &result) != napi_ok) {
            // close() where the stack ends, most likely. What was settled before that is settled again without effect.
            if (napi_is_exception_pending(napi, &waiting) == napi_ok && waiting && napi_get_and_clear_last_exception(napi, &result) == napi_ok &&
                hold(loop, given, at, count))
                continue;
        }
        // Not earlier: a slot that is used anew must not be settled by an old answer.
        for (size_t i = 0; i < count; i++) pending_give(given[i]);
    }
}

} // namespace counterfoil
