/* sqlite_peer.c: another process with a database open, by SQLite alone.
 *
 *     sqlite_peer run PATH SQL     prints the rows
 *     sqlite_peer hold PATH SQL    runs it, prints a line, and keeps what it has begun until its input ends */
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int print(void *user, int count, char **values, char **names)
{
    (void)user;
    (void)names;
    for (int i = 0; i < count; i++) printf("%s%s", i ? "|" : "", values[i] ? values[i] : "NULL");
    printf("\n");
    return 0;
}

int main(int argc, char **argv)
{
    sqlite3 *db;
    char     byte;
    if (argc != 4 || sqlite3_open_v2(argv[2], &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL) != SQLITE_OK) return 2;
    sqlite3_busy_timeout(db, 20000);
    if (sqlite3_exec(db, argv[3], print, NULL, NULL) != SQLITE_OK) printf("!%s\n", sqlite3_errmsg(db));
    if (strcmp(argv[1], "hold") == 0) {
        printf("held\n");
        fflush(stdout);
        while (read(0, &byte, 1) > 0) {}
    }
    sqlite3_close(db);
    return 0;
}
