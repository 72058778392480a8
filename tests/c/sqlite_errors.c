/* sqlite_errors.c: each call of SQLite to the system, and each of its allocations, fails in turn: once, or from then on. Nothing crashes or leaks, what was reported as
 * stored is there when the file is opened again without faults, what was reported as not applied is not, and the file is sound.
 *
 * CF_LONG=1: every call; otherwise some of them, other ones in each run (CF_SEED). CF_ONLY: the name of one kind. */
#define _GNU_SOURCE
#include "sqlite_support.h"

#include <sqlite3.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* ------------------------------------------------------------------------------------------------------------ faults -- */

typedef enum { OPEN, READ, WRITE, NO_SPACE, SYNC, TRUNCATE, SIZE, ROOM, LOCK, SHARED_MAP, SHARED_LOCK, SHARED_BUSY, DELETE, ACCESS, PATH, MEMORY, KINDS } kind;
static const struct {
    const char *name;
    int         code;
    int         step; /* of an everyday run */
} kinds[KINDS + 1] = {
    [OPEN] = {"open", SQLITE_CANTOPEN, 1},
    [READ] = {"read", SQLITE_IOERR_READ, 2},
    [WRITE] = {"write", SQLITE_IOERR_WRITE, 4},
    [NO_SPACE] = {"write without space", SQLITE_FULL, 4},
    [SYNC] = {"sync", SQLITE_IOERR_FSYNC, 1},
    [TRUNCATE] = {"truncate", SQLITE_IOERR_TRUNCATE, 1},
    [SIZE] = {"file size", SQLITE_IOERR_FSTAT, 2},
    [ROOM] = {"size hint", SQLITE_IOERR_WRITE, 1},
    [LOCK] = {"lock", SQLITE_IOERR_LOCK, 2},
    [SHARED_MAP] = {"shared memory", SQLITE_IOERR_SHMSIZE, 2},
    [SHARED_LOCK] = {"lock in shared memory", SQLITE_IOERR_SHMLOCK, 8},
    [SHARED_BUSY] = {"lock that another has", SQLITE_BUSY, 8},
    [DELETE] = {"delete", SQLITE_IOERR_DELETE, 1},
    [ACCESS] = {"access", SQLITE_IOERR_ACCESS, 1},
    [PATH] = {"full path", SQLITE_CANTOPEN, 1},
    [MEMORY] = {"memory", SQLITE_NOMEM, 61},
    [KINDS] = {"no fault", SQLITE_OK, 1},
};

static struct {
    kind which;
    long left; /* calls of that kind until it fails; 0: none does */
    bool for_good, fired;
} fault;

/* The stories run on several threads, but never at once: the leader has its lock while it is inside SQLite, and a caller who reads alone too. */
static bool fails(kind which)
{
    if (__atomic_load_n(&fault.left, __ATOMIC_SEQ_CST) <= 0 || fault.which != which) return false;
    if (__atomic_load_n(&fault.left, __ATOMIC_SEQ_CST) > 1) {
        __atomic_fetch_sub(&fault.left, 1, __ATOMIC_SEQ_CST);
        return false;
    }
    __atomic_store_n(&fault.fired, true, __ATOMIC_SEQ_CST);
    if (!fault.for_good) __atomic_store_n(&fault.left, 0, __ATOMIC_SEQ_CST);
    return true;
}

typedef struct tapped {
    sqlite3_file  base;
    sqlite3_file *real; /* behind this */
} tapped;

#define REAL(file) (((tapped *)(file))->real)
#define METHOD(name, ...) REAL(file)->pMethods->name(REAL(file), __VA_ARGS__)
#define FAILING(which, call) return fails(which) ? kinds[which].code : (call)

static int on_close(sqlite3_file *file) { return REAL(file)->pMethods->xClose(REAL(file)); }
static int on_read(sqlite3_file *file, void *bytes, int size, sqlite3_int64 at) { FAILING(READ, METHOD(xRead, bytes, size, at)); }
static int on_write(sqlite3_file *file, const void *bytes, int size, sqlite3_int64 at)
{
    if (fails(WRITE)) {
        METHOD(xWrite, bytes, size / 2, at); /* torn */
        return SQLITE_IOERR_WRITE;
    }
    if (fails(NO_SPACE)) {
        METHOD(xWrite, bytes, size / 3, at);
        return SQLITE_FULL;
    }
    return METHOD(xWrite, bytes, size, at);
}
static int on_truncate(sqlite3_file *file, sqlite3_int64 size) { FAILING(TRUNCATE, METHOD(xTruncate, size)); }
static int on_sync(sqlite3_file *file, int flags) { FAILING(SYNC, METHOD(xSync, flags)); }
static int on_size(sqlite3_file *file, sqlite3_int64 *size) { FAILING(SIZE, METHOD(xFileSize, size)); }
static int on_lock(sqlite3_file *file, int level) { FAILING(LOCK, METHOD(xLock, level)); }
static int on_unlock(sqlite3_file *file, int level) { return METHOD(xUnlock, level); }
static int on_check(sqlite3_file *file, int *out) { return METHOD(xCheckReservedLock, out); }
static int on_control(sqlite3_file *file, int what, void *arg)
{
    if (what == SQLITE_FCNTL_SIZE_HINT && fails(ROOM)) return kinds[ROOM].code;
    return METHOD(xFileControl, what, arg);
}
static int on_sector(sqlite3_file *file) { return REAL(file)->pMethods->xSectorSize(REAL(file)); }
static int on_device(sqlite3_file *file) { return REAL(file)->pMethods->xDeviceCharacteristics(REAL(file)); }
static int on_map(sqlite3_file *file, int page, int size, int extend, void volatile **out)
{
    if (fails(SHARED_MAP)) {
        *out = NULL;
        return kinds[SHARED_MAP].code;
    }
    return METHOD(xShmMap, page, size, extend, out);
}
static int on_shared_lock(sqlite3_file *file, int at, int count, int flags)
{
    if ((flags & SQLITE_SHM_LOCK) && fails(SHARED_LOCK)) return kinds[SHARED_LOCK].code;
    if ((flags & SQLITE_SHM_LOCK) && fails(SHARED_BUSY)) return SQLITE_BUSY;
    return METHOD(xShmLock, at, count, flags);
}
static void on_barrier(sqlite3_file *file) { REAL(file)->pMethods->xShmBarrier(REAL(file)); }
static int  on_unmap(sqlite3_file *file, int remove) { return METHOD(xShmUnmap, remove); }

static const sqlite3_io_methods methods = {
    2, on_close, on_read, on_write, on_truncate, on_sync, on_size, on_lock, on_unlock, on_check, on_control, on_sector, on_device, on_map, on_shared_lock, on_barrier,
    on_unmap, NULL, NULL,
};

static sqlite3_vfs *unix_vfs, tap;

static int tap_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *out)
{
    (void)vfs;
    tapped *t = (tapped *)file;
    t->real = (sqlite3_file *)(t + 1);
    t->base.pMethods = NULL;
    if (fails(OPEN)) return kinds[OPEN].code;
    int rc = unix_vfs->xOpen(unix_vfs, name, t->real, flags, out);
    if (t->real->pMethods) t->base.pMethods = &methods;
    return rc;
}
static int tap_delete(sqlite3_vfs *vfs, const char *name, int sync) { (void)vfs; FAILING(DELETE, unix_vfs->xDelete(unix_vfs, name, sync)); }
static int tap_access(sqlite3_vfs *vfs, const char *name, int flags, int *out) { (void)vfs; FAILING(ACCESS, unix_vfs->xAccess(unix_vfs, name, flags, out)); }
static int tap_path(sqlite3_vfs *vfs, const char *name, int size, char *out) { (void)vfs; FAILING(PATH, unix_vfs->xFullPathname(unix_vfs, name, size, out)); }

static sqlite3_mem_methods memory;
static void *tap_malloc(int size) { return fails(MEMORY) ? NULL : memory.xMalloc(size); }
static void *tap_realloc(void *block, int size) { return fails(MEMORY) ? NULL : memory.xRealloc(block, size); }

static void set_taps(void)
{
    sqlite3_mem_methods mine;
    if (sqlite3_config(SQLITE_CONFIG_GETMALLOC, &memory) != SQLITE_OK) exit(2);
    mine = memory;
    mine.xMalloc = tap_malloc;
    mine.xRealloc = tap_realloc;
    if (sqlite3_config(SQLITE_CONFIG_MALLOC, &mine) != SQLITE_OK || sqlite3_initialize() != SQLITE_OK) exit(2);
    unix_vfs = sqlite3_vfs_find(NULL);
    tap = *unix_vfs;
    tap.zName = "tap";
    tap.szOsFile = (int)sizeof(tapped) + unix_vfs->szOsFile;
    tap.xOpen = tap_open;
    tap.xDelete = tap_delete;
    tap.xAccess = tap_access;
    tap.xFullPathname = tap_path;
    if (sqlite3_vfs_register(&tap, 1) != SQLITE_OK) exit(2);
}

/* ------------------------------------------------------------------------------------------------------------- model -- */

/* What a key may hold, as far as it is known: more than one after an outcome that is unknown. */
enum { KEYS = 13, USER = 12, POSSIBLE = 40, ABSENT = -1 };
typedef struct holds {
    long values[POSSIBLE];
    int  count;
} holds;

static holds keys[KEYS];
static char  context[128];
static int   bad;

static void wrong(int key, const char *what, long got)
{
    fprintf(stderr, "%s: key %d: %s: %ld; possible:", context, key, what, got);
    for (int i = 0; i < keys[key].count; i++) fprintf(stderr, " %ld", keys[key].values[i]);
    fprintf(stderr, "\n");
    bad++;
}

static bool may(int key, long value)
{
    for (int i = 0; i < keys[key].count; i++)
        if (keys[key].values[i] == value) return true;
    return false;
}

static void is(int key, long value) { keys[key] = (holds){{value}, 1}; }

static void may_be(int key, long value)
{
    if (may(key, value)) return;
    if (keys[key].count == POSSIBLE) abort();
    keys[key].values[keys[key].count++] = value;
}

/* ------------------------------------------------------------------------------------------------------------- story -- */

typedef struct step {
    int  kind, key;
    long value;
    cf_op *op;
    int    status;
} step;

static char user_id[CF_ID_LEN + 1];

/* Key 0 is a counter; 8 to 11 are cleared together; the last is a user, whose password is the value. */
static void judge(step *s)
{
    const cf_op *op = s->op;
    int          key = s->key, rc = s->status, outcome = op ? cf_op_error(op)->outcome : CF_NOT_APPLIED;
    bool         hit = op && cf_op_hit(op);
    long         got = ABSENT;
    cf_record record = {.kind = -1};
    if (key == USER) {
        if (op && cf_op_next_record(s->op, &record)) {
            char     text[32] = {0};
            cf_slice password = record.fields[CF_USER_HASHED_PASSWORD].text;
            memcpy(text, password.ptr, password.len < 31 ? password.len : 31);
            memcpy(user_id, record.fields[CF_USER_ID].text.ptr, CF_ID_LEN);
            got = strtol(text, NULL, 10);
        }
    } else if (hit && cf_op_value(op).len) {
        char text[32] = {0};
        memcpy(text, cf_op_value(op).ptr, cf_op_value(op).len < 31 ? cf_op_value(op).len : 31);
        got = strtol(text, NULL, 10);
    }
    if (key == USER && got == ABSENT) *user_id = 0; /* an id is used only while it is certain */
    if (s->kind == CF_OP_INSERT && rc == CF_EEXISTS) { /* with what is there; as a read it settles nothing */
        if (got == ABSENT || !may(key, got)) wrong(key, "create met", got);
        cf_op_free(s->op);
        return;
    }
    bool maybe = rc != CF_OK && outcome != CF_NOT_APPLIED;
    if (rc != CF_OK && rc != CF_EUNAVAILABLE && rc != CF_ETIMEOUT && rc != CF_ENOMEM) wrong(key, cf_op_error(op)->text, rc);
    switch (s->kind) {
    case CF_OP_INSERT:
        if (rc == CF_OK && (!may(key, ABSENT) || got != s->value)) wrong(key, "create gave", got);
        /* fall through */
    case CF_OP_SET:
        if (rc == CF_OK) is(key, s->value);
        else if (maybe) may_be(key, s->value);
        break;
    case CF_OP_GET:
    case CF_OP_FIND:
        if (rc == CF_OK && !may(key, got)) wrong(key, "get gave", got);
        break;
    case CF_OP_REMOVE:
        if (!op) break; /* its id was not known */
        /* fall through */
    case CF_OP_DELETE:
        if (rc == CF_OK && hit && keys[key].count == 1 && may(key, ABSENT)) wrong(key, "delete said", hit);
        if (rc == CF_OK && !hit && !may(key, ABSENT)) wrong(key, "delete said", hit);
        if (rc == CF_OK) is(key, ABSENT);
        else if (maybe) may_be(key, ABSENT);
        break;
    case CF_OP_POP:
        if (rc == CF_OK && !may(key, got)) wrong(key, "pop gave", got);
        if (rc == CF_OK) is(key, ABSENT);
        else if (maybe) may_be(key, ABSENT);
        break;
    case CF_OP_INCR:
        if (rc == CF_OK) {
            long before = (long)cf_op_number(op) - 1;
            if (!may(key, before)) wrong(key, "incr gave", before + 1);
            is(key, before + 1);
        } else if (maybe) {
            for (int i = keys[key].count; i-- > 0;) may_be(key, keys[key].values[i] + 1);
        }
        break;
    case CF_OP_TOUCH:
        if (rc == CF_OK && hit && keys[key].count == 1 && may(key, ABSENT)) wrong(key, "touch found", hit);
        if (rc == CF_OK && !hit && !may(key, ABSENT)) wrong(key, "touch found", hit);
        break;
    case CF_OP_CLEAR:
        for (int i = 8; i < USER; i++) {
            if (rc == CF_OK) is(i, ABSENT);
            else if (maybe) may_be(i, ABSENT);
        }
        break;
    case CF_OP_SCAN: {
        unsigned found = 0;
        cf_slice one;
        if (rc != CF_OK) break;
        for (cf_op *page = s->op; cf_op_next_key(page, &one);) found |= 1u << ((one.ptr[1] - '0') * 10 + one.ptr[2] - '0');
        for (int i = 0; i < USER; i++)
            if (found >> i & 1 ? keys[i].count == 1 && may(i, ABSENT) : !may(i, ABSENT)) wrong(i, "scan saw", found >> i & 1);
        break;
    }
    default: break;
    }
    cf_op_free(s->op);
}

static char *name_of(int key, char *text)
{
    sprintf(text, "%c%02d", key < 8 ? 'k' : 'l', key);
    return text;
}

static void submit_record(cf_store *store, step *s)
{
    const cf_accounts of = {.store = store};
    const cf_call     call = {.timeout_ms = 3000};
    cf_record         user = {.kind = CF_USER};
    char              value[32];
    snprintf(value, sizeof value, "%ld", s->value);
    if (s->kind == CF_OP_REMOVE && !*user_id) return;
    if (s->kind == CF_OP_REMOVE) cf_record_text(&user, CF_USER_ID, cf_text(user_id));
    else cf_record_text(&user, CF_USER_EMAIL, cf_text("a@b.c"));
    if (s->kind == CF_OP_INSERT) cf_record_text(&user, CF_USER_HASHED_PASSWORD, cf_text(value));
    int method = s->kind == CF_OP_INSERT ? CF_CREATE_USER : s->kind == CF_OP_FIND ? CF_FIND_USER_BY_EMAIL : CF_DELETE_USER;
    s->status = cf_accounts_call(&of, method, &user, NULL, &call, &s->op);
}

static void submit(cf_store *store, step *s)
{
    if (s->key == USER) {
        submit_record(store, s);
        return;
    }
    static char big[20000];
    char        name[8], value[32];
    cf_request  request = {.size = sizeof request, .kind = s->kind, .key = cf_text(name_of(s->key, name)), .timeout_ms = 3000};
    if (s->kind == CF_OP_SET) {
        /* Some of them take many pages. */
        memset(big, ' ', sizeof big);
        int len = sprintf(value, "%ld", s->value);
        memcpy(big, value, (size_t)len);
        request.value = cf_bytes(big, s->value % 5 == 2 ? sizeof big : (size_t)len);
    }
    if (s->kind == CF_OP_INCR) request.by = 1;
    if (s->kind == CF_OP_TOUCH) {
        request.flags = CF_TTL;
        request.ttl_ms = 3600000;
    }
    if (s->kind == CF_OP_CLEAR) request.key = cf_text("l");
    if (s->kind == CF_OP_SCAN) request.key = cf_text("");
    s->status = cf_submit(store, &request, &s->op);
}

static void story(cf_store *store, bool blocking)
{
    static const struct {
        int kind, key;
    } parts[] = {
        {CF_OP_SET, 1},  {CF_OP_SET, 2},   {CF_OP_INCR, 0}, {CF_OP_GET, 1},  {CF_OP_SET, 8},  {CF_OP_SET, 9},   {CF_OP_SET, 3},   {CF_OP_POP, 2},  {CF_OP_SCAN, 0}, {CF_OP_DELETE, 1},
        {CF_OP_SET, 4},  {CF_OP_TOUCH, 4}, {CF_OP_INCR, 0}, {CF_OP_GET, 4},  {CF_OP_SET, 10}, {CF_OP_CLEAR, 8}, {CF_OP_SET, 11},  {CF_OP_SET, 5},  {CF_OP_POP, 5},  {CF_OP_GET, 5},
        {CF_OP_SET, 6},  {CF_OP_INCR, 0},  {CF_OP_SET, 1},  {CF_OP_SCAN, 0}, {CF_OP_POP, 11}, {CF_OP_SET, 7},   {CF_OP_DELETE, 7}, {CF_OP_GET, 0}, {CF_OP_SET, 2},  {CF_OP_INCR, 0},
        {CF_OP_INSERT, USER}, {CF_OP_FIND, USER}, {CF_OP_SET, 3},       {CF_OP_GET, 3},     {CF_OP_INSERT, USER}, {CF_OP_FIND, USER},
        {CF_OP_REMOVE, USER}, {CF_OP_FIND, USER}, {CF_OP_INSERT, USER}, {CF_OP_FIND, USER}, {CF_OP_GET, 0},       {CF_OP_SET, 4},
    };
    enum { PARTS = sizeof parts / sizeof *parts, TICK = 6 };
    step steps[PARTS];
    for (int first = 0; first < PARTS; first += blocking ? 1 : TICK) {
        int count = blocking ? 1 : TICK;
        for (int i = first; i < first + count; i++) {
            steps[i] = (step){.kind = parts[i].kind, .key = parts[i].key, .value = 100 + i};
            submit(store, &steps[i]);
        }
        for (int i = first; i < first + count; i++) {
            while (steps[i].status == CF_PENDING) steps[i].status = cf_op_wait(steps[i].op);
            judge(&steps[i]); /* in their order: what is possible for the next one follows */
        }
    }
}

/* Without faults: what is there is possible, and the file is sound. */
static void look_again(const char *path)
{
    cf_loop  *loop = new_loop(true);
    cf_store *store = open_file(loop, path, "");
    /* What is there of the user is one of what it may be, and found again. */
    step      find = {.kind = CF_OP_FIND, .key = USER};
    cf_record record;
    long      now = ABSENT;
    char      password[32] = {0};
    submit(store, &find);
    if (cf_op_wait(find.op) != CF_OK) wrong(USER, "cannot be looked for", find.status);
    if (cf_op_next_record(find.op, &record)) {
        memcpy(password, record.fields[CF_USER_HASHED_PASSWORD].text.ptr, record.fields[CF_USER_HASHED_PASSWORD].text.len % 31);
        memcpy(user_id, record.fields[CF_USER_ID].text.ptr, CF_ID_LEN);
        now = strtol(password, NULL, 10);
    }
    if (!may(USER, now)) wrong(USER, "afterwards there is", now);
    is(USER, now);
    cf_op_free(find.op);
    for (int i = 0; i < USER; i++) {
        char   name[8];
        answer a = ask_get(store, name_of(i, name));
        long   got = a.hit ? strtol(a.value, NULL, 10) : ABSENT;
        if (a.status != CF_OK || !may(i, got)) wrong(i, "afterwards there is", got);
        is(i, got);
    }
    if (ask_set(store, "k07", "1").status != CF_OK) wrong(7, "cannot be set", 0);
    is(7, 1);
    cf_loop_free(loop);
    sqlite3      *db;
    sqlite3_stmt *check = NULL;
    bool          sound = sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL) == SQLITE_OK &&
                 sqlite3_prepare_v2(db, "PRAGMA integrity_check", -1, &check, NULL) == SQLITE_OK && sqlite3_step(check) == SQLITE_ROW &&
                 strcmp((const char *)sqlite3_column_text(check, 0), "ok") == 0;
    sqlite3_finalize(check);
    sqlite3_close(db);
    if (!sound) wrong(0, "the file is not sound", 0);
}

/* The files of a process that has died before it could tidy up: whoever opens them has to recover them, and may meet the fault in that. */
static struct {
    char  *bytes[2];
    size_t size[2];
    holds  keys[KEYS];
} crashed;

static void crash(const char *path)
{
    int   ends[2];
    fflush(NULL);
    if (pipe(ends) != 0) exit(2);
    pid_t child = fork();
    if (child == 0) {
        cf_loop *loop = new_loop(true);
        story(open_file(loop, path, ""), true);
        _exit(write(ends[1], keys, sizeof keys) == sizeof keys ? 0 : 1);
    }
    int status;
    if (waitpid(child, &status, 0) != child || status != 0 || read(ends[0], crashed.keys, sizeof keys) != sizeof keys) exit(2);
    for (int i = 0; i < 2; i++) {
        FILE *file = fopen(in_folder(i ? "a.db-wal" : "a.db"), "rb");
        if (!file || fseek(file, 0, SEEK_END) != 0) exit(2);
        crashed.size[i] = (size_t)ftell(file);
        crashed.bytes[i] = malloc(crashed.size[i]);
        rewind(file);
        if (!crashed.bytes[i] || fread(crashed.bytes[i], 1, crashed.size[i], file) != crashed.size[i]) exit(2);
        fclose(file);
    }
}

static void crash_again(void)
{
    for (int i = 0; i < 2; i++) {
        FILE *file = fopen(in_folder(i ? "a.db-wal" : "a.db"), "wb");
        if (!file || fwrite(crashed.bytes[i], 1, crashed.size[i], file) != crashed.size[i] || fclose(file) != 0) exit(2);
    }
    unlink(in_folder("a.db-shm"));
    memcpy(keys, crashed.keys, sizeof keys);
    *user_id = 0;
}

/* True: the fault has happened. */
static bool play(const char *path, kind which, long nth, bool for_good, bool blocking, bool after_crash)
{
    if (after_crash) crash_again();
    cf_store *store;
    cf_error  error;
    cf_loop  *loop = new_loop(blocking);
    snprintf(context, sizeof context, "%s %ld%s%s%s", kinds[which].name, nth, for_good ? ", for good" : "", blocking ? ", waiting" : "", after_crash ? ", after a crash" : "");
    fault.which = which;
    fault.for_good = for_good;
    fault.fired = false;
    __atomic_store_n(&fault.left, nth, __ATOMIC_SEQ_CST);
    int rc = try_open(loop, path, "", &store, &error);
    if (rc == CF_OK) story(store, blocking);
    else if (!fault.fired || error.outcome != CF_NOT_APPLIED) wrong(0, error.text, rc);
    cf_loop_free(loop); /* also the closing meets the fault */
    bool fired = __atomic_load_n(&fault.fired, __ATOMIC_SEQ_CST);
    __atomic_store_n(&fault.left, 0, __ATOMIC_SEQ_CST);
    look_again(path);
    return fired;
}

int main(void)
{
    bool        all = env_number("CF_LONG", 0);
    const char *only = getenv("CF_ONLY");
    rng         random = {seed_of_run()};
    long        runs = 0;
    hang_guard(all ? 850 : 280);
    set_taps();
    if (exists("/dev/shm")) setenv("TMPDIR", "/dev/shm", 1); /* what fails here is staged: real syncs would only take their time */
    static char path[PATH_ROOM];
    strcpy(path, in_folder("a.db"));
    for (int i = 0; i < KEYS; i++) is(i, ABSENT);
    is(0, 0);
    cf_loop *loop = new_loop(true);
    ask_set(open_file(loop, path, ""), "k00", "0");
    cf_loop_free(loop);
    play(path, KINDS, 0, false, true, false);
    crash(path);
    play(path, KINDS, 0, false, true, true);
    sqlite3_int64 used = sqlite3_memory_used();
    for (int which = 0; which < KINDS; which++) {
        if (only && strcmp(only, kinds[which].name) != 0) continue;
        long steps = all ? 1 : kinds[which].step, most = 0;
        for (int how = 0; how < 6; how++) {
            bool for_good = how & 1, blocking = how & 2, after_crash = how & 4;
            if (which == SHARED_BUSY && for_good) continue; /* that would be a wait for the deadline, each time */
            for (long nth = 1 + (long)rng_below(&random, (uint64_t)steps); play(path, (kind)which, nth, for_good, blocking, after_crash); nth += steps) {
                runs++;
                if (nth > most) most = nth;
                if (sqlite3_memory_used() > used) {
                    fprintf(stderr, "%s: SQLite has %lld bytes more than before\n", context, (long long)(sqlite3_memory_used() - used));
                    bad++;
                    used = sqlite3_memory_used();
                }
                if (bad > 20) return 1;
            }
        }
        printf("%s: up to %ld\n", kinds[which].name, most);
        if (most == 0) bad++; /* a fault that never happens tests nothing */
    }
    printf("%ld stories with a fault, %d things wrong\n", runs, bad);
    return bad ? 1 : 0;
}
