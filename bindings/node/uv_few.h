// The few functions of libuv that this addon needs, declared here because node-api-headers does not ship uv.h and a
// distribution's libuv1-dev may be of another version than the libuv inside node. All of them are part of libuv's stable 1.x ABI,
// and node exports them. Handles stay opaque: their size is asked at run time (uv_handle_size), so no layout is assumed.
#ifndef CF_NODE_UV_FEW_H
#define CF_NODE_UV_FEW_H

#include <stddef.h>

extern "C" {

struct uv_loop_s;   // as node_api.h declares it for napi_get_uv_event_loop
struct uv_handle_s; // of whatever type: libuv's own handles all begin with one
struct uv_poll_s;

typedef void (*uv_few_close_fn)(uv_handle_s *handle);
typedef void (*uv_few_poll_fn)(uv_poll_s *handle, int status, int events);

// Values of uv_handle_type and uv_poll_event that have been fixed since libuv 1.0.
enum { CF_UV_POLL = 8, CF_UV_READABLE = 1 };

size_t uv_handle_size(int type);
void  *uv_handle_get_data(const uv_handle_s *handle);
void   uv_handle_set_data(uv_handle_s *handle, void *data);
int    uv_poll_init(uv_loop_s *loop, uv_poll_s *handle, int fd);
int    uv_poll_start(uv_poll_s *handle, int events, uv_few_poll_fn callback);
int    uv_poll_stop(uv_poll_s *handle);
void   uv_ref(uv_handle_s *handle);
void   uv_unref(uv_handle_s *handle);
void   uv_close(uv_handle_s *handle, uv_few_close_fn callback);
}

#endif
