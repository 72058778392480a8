/* errors.c: what the server's error words mean. Whether something was executed follows from the word: state errors are refused before a command
 * or the first write of a script. */
#include "redis.h"

static const struct {
    const char   *word;
    redis_verdict verdict;
    int           status, outcome;
    const char   *meaning; /* "Redis at HOST:PORT " ... */
} words[] = {
    {"LOADING", ERROR_LATER, CF_EUNAVAILABLE, CF_NOT_APPLIED, "is still loading its data (LOADING)"},
    {"MASTERDOWN", ERROR_LATER, CF_EUNAVAILABLE, CF_NOT_APPLIED, "is a replica that has lost its primary (MASTERDOWN)"},
    {"BUSY", ERROR_LATER, CF_EUNAVAILABLE, CF_NOT_APPLIED, "is busy with somebody's script (BUSY)"},
    {"TRYAGAIN", ERROR_UNSETTLED, CF_EUNAVAILABLE, CF_NOT_APPLIED, "asks for another try (TRYAGAIN)"},
    {"CLUSTERDOWN", ERROR_UNSETTLED, CF_EUNAVAILABLE, CF_NOT_APPLIED, "belongs to a cluster that is down (CLUSTERDOWN)"},
    {"MOVED", ERROR_MOVED, CF_EINVAL, CF_NOT_APPLIED, "is one server of a cluster: the URL then begins with redis+cluster: (MOVED)"},
    {"ASK", ERROR_ASK, CF_EINVAL, CF_NOT_APPLIED, "is one server of a cluster: the URL then begins with redis+cluster: (ASK)"},
    {"READONLY", ERROR_LEAVE, CF_EUNAVAILABLE, CF_NOT_APPLIED, "is a replica and takes no writes (READONLY)"},
    {"NOAUTH", ERROR_LEAVE, CF_EAUTH, CF_NOT_APPLIED, "asks for a password (NOAUTH)"},
    {"NOREPLICAS", ERROR_FINAL, CF_EUNAVAILABLE, CF_NOT_APPLIED, "has too few replicas to take writes (NOREPLICAS)"},
    {"MISCONF", ERROR_FINAL, CF_EUNAVAILABLE, CF_NOT_APPLIED, "cannot write its data to disk and takes no writes (MISCONF)"},
    {"OOM", ERROR_FINAL, CF_EUNAVAILABLE, CF_NOT_APPLIED, "has no memory left and takes no writes (OOM)"},
    {"WRONGPASS", ERROR_FINAL, CF_EAUTH, CF_NOT_APPLIED, "refused our user name or password (WRONGPASS)"},
    {"NOPERM", ERROR_FINAL, CF_EAUTH, CF_NOT_APPLIED, "does not allow this to our user (NOPERM)"},
    {"DENIED", ERROR_FINAL, CF_EAUTH, CF_NOT_APPLIED, "is in protected mode and refuses us (DENIED)"},
    {"WRONGTYPE", ERROR_FINAL, CF_ECORRUPT, CF_NOT_APPLIED, "holds something else under this key than belongs there (WRONGTYPE)"},
    {"NOSCRIPT", ERROR_NO_SCRIPT, CF_EUNAVAILABLE, CF_NOT_APPLIED, "does not know our script (NOSCRIPT)"},
    {"CROSSSLOT", ERROR_FINAL, CF_EINVAL, CF_NOT_APPLIED, "is one server of a cluster: the URL then begins with redis+cluster: (CROSSSLOT)"},
    {"UNKILLABLE", ERROR_LATER, CF_EUNAVAILABLE, CF_NOT_APPLIED, "is busy with somebody's script (UNKILLABLE)"},
};

/* Ours, from the scripts: with the sentences of every backend. */
static const struct {
    const char *word;
    int         status;
    const char *sentence;
} own[] = {
    {"CFNUMBER", CF_EINVAL, "the value is not a canonical decimal integer"},
    {"CFRANGE", CF_EINVAL, "the counter would pass 2^53 - 1"},
    {"CFRECEIPT", CF_EINVAL, "the receipt belongs to a call with other arguments"},
    {"CFDAMAGED", CF_ECORRUPT, "what Redis holds of these records is damaged"},
};

static bool is_word(char c) { return (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_'; }

redis_verdict redis_judge(const cf_backend *self, cf_slice text, cf_error *error)
{
    /* Servers put a different amount in front of what a script says. */
    cf_slice said = text;
    if (cf_slice_starts(said, cf_text("ERR CF"))) said = cf_bytes(said.ptr + 4, said.len - 4);
    cf_slice word = cf_bytes(said.ptr, 0);
    while (word.len < said.len && word.len < 24 && is_word(said.ptr[word.len])) word.len++;
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        if (cf_slice_equal(word, cf_text(own[i].word))) {
            cf_error_set(error, own[i].status, CF_NOT_APPLIED, "%s", own[i].sentence);
            return ERROR_FINAL;
        }
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (cf_slice_equal(word, cf_text(words[i].word))) {
            cf_error_set(error, words[i].status, words[i].outcome, "Redis at %s %s", self->options.endpoint, words[i].meaning);
            return self->store || words[i].verdict < ERROR_MOVED ? words[i].verdict : words[i].verdict == ERROR_UNSETTLED ? ERROR_LATER : ERROR_FINAL;
        }
    if (cf_slice_starts(text, cf_text("ERR unknown command"))) {
        cf_error_set(error, CF_ENOTSUP, CF_NOT_APPLIED, "Redis at %s is too old, or its operator took a command away that this needs",
                     self->options.endpoint);
        return ERROR_NO_GETDEL;
    }
    if (cf_slice_starts(text, cf_text("ERR The user executing the script can't")) || cf_slice_starts(text, cf_text("ERR ACL failure in script"))) { /* 7.0; 7.2 */
        cf_error_set(error, CF_EAUTH, CF_UNKNOWN, "Redis at %s does not allow our user a command or a key that a script needs (core/DESIGN.md, least rights)",
                     self->options.endpoint);
        return ERROR_FINAL;
    }
    if (cf_slice_starts(text, cf_text("ERR AUTH <password> called without")) || cf_slice_starts(text, cf_text("ERR Client sent AUTH, but no password"))) {
        cf_error_set(error, CF_EAUTH, CF_NOT_APPLIED, "Redis at %s has no password set: leave it out of the URL", self->options.endpoint);
        return ERROR_FINAL;
    }
    if (cf_slice_starts(text, cf_text("ERR max number of clients"))) {
        cf_error_set(error, CF_EUNAVAILABLE, CF_NOT_APPLIED, "Redis at %s has as many clients as it allows", self->options.endpoint);
        return ERROR_POISON;
    }
    if (cf_slice_starts(text, cf_text("ERR Protocol error"))) {
        cf_error_set(error, CF_EUNAVAILABLE, CF_UNKNOWN, "Redis at %s did not understand us", self->options.endpoint);
        return ERROR_POISON;
    }
    /* The rest of the text may hold what we sent. */
    cf_error_set(error, CF_EUNAVAILABLE, CF_UNKNOWN, "Redis at %s answered with an error: %.*s", self->options.endpoint, (int)word.len,
                 word.len ? word.ptr : "");
    return ERROR_FINAL;
}
