/* sqlite_support.h: a folder for database files, and another process that looks into them with SQLite itself (sqlite_peer.c): no second
 * connection of this process may stand beside the library's. */
#ifndef SQLITE_SUPPORT_H
#define SQLITE_SUPPORT_H

#include <sys/types.h>

#include "support.h"

enum { PATH_ROOM = 512 };

int64_t now_ms(void); /* a clock that never jumps */
int64_t wall_ms(void);
void    nap(int ms);

/* A folder of this run; static text. It is removed when the process that has made it ends. */
const char *folder(void);
void        folder_empty(void);
/* A path in it. Static, of the last eight. */
const char *in_folder(const char *name);

/* Opens sqlite:PATH with options ("?a=b" or ""). Percent-escapes nothing. */
int       try_open(cf_loop *loop, const char *path, const char *options, cf_store **store, cf_error *error);
cf_store *open_file(cf_loop *loop, const char *path, const char *options); /* and insists */
cf_loop  *new_loop(bool blocking);

/* What another process gets for this SQL: columns divided by |, a line for each row, without the last line's end. Static. "!" and a sentence: an error. */
const char *peer(const char *path, const char *sql);
/* Another process that has run this SQL and keeps its connection, until it is let go. */
typedef struct holder {
    pid_t pid;
    int   say, hear;
} holder;
holder peer_hold(const char *path, const char *sql);
void   peer_let_go(holder *h); /* waits until it has ended, what it had begun undone */
bool   peer_sound(const char *path); /* integrity_check is ok */

/* Waits for a child, and insists that it ended with 0. */
void join_child(pid_t child);

bool exists(const char *path);

#endif
