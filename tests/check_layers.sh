#!/bin/sh
# The layer rules of core/DESIGN.md, as greps. Prints every line that breaks one, and fails.
set -u
cd "$(dirname "$0")/.." || exit 2
broken=0
checked=0

# rule SENTENCE PATTERN FILES...: no line of these files may match.
rule() {
    sentence=$1
    pattern=$2
    shift 2
    files=
    for file in "$@"; do
        if [ -e "$file" ]; then files="$files $file"; fi
    done
    if [ -z "$files" ]; then return; fi
    checked=$((checked + 1))
    # shellcheck disable=SC2086 # our own file names have no spaces
    if found=$(grep -rnE --include='*.[ch]' --include='*.cc' --include='*.cpp' --include='*.hpp' --include='*.def' --include='*.py' \
        --include='*.pyi' --include='*.cjs' --include='*.mjs' --include='*.cts' --include='*.mts' -e "$pattern" $files); then
        broken=1
        printf 'BROKEN: %s\n' "$sentence"
        printf '%s\n' "$found" | sed 's/^/    /'
    fi
}

# The same, for every file of a folder but those that are named after it.
others() {
    folder=$1
    shift
    for file in "$folder"/*.[ch]; do
        keep=yes
        for name in "$@"; do
            if [ "$file" = "$folder/$name" ]; then keep=no; fi
        done
        if [ $keep = yes ]; then printf '%s ' "$file"; fi
    done
}


src=core/src
for file in $src/backends/*.c $src/backends/*/*.c; do
    if [ ! -e "$file" ]; then continue; fi
    # A backend of several files has a header of its own in its own folder.
    checked=$((checked + 1))
    if found=$(grep -nE '^[[:space:]]*#[[:space:]]*include[[:space:]]+"' "$file" | grep -vE '"(counterfoil/backend\.h|counterfoil/schema\.def|util\.h)"'); then
        case $file in
        $src/backends/*/*) found=$(printf '%s\n' "$found" | grep -E '"[^"]*/') ;;
        esac
        if [ -n "$found" ]; then
            broken=1
            printf 'BROKEN: a backend includes counterfoil/backend.h and util.h only\n    %s: %s\n' "$file" "$found"
        fi
    fi
done

rule 'only loop.c and platform.c name epoll' 'epoll' $(others $src loop.c platform.c) $src/backends
rule 'only platform.c makes system calls' \
    '#[[:space:]]*include[[:space:]]*<(unistd|fcntl|time|poll|signal|sys/[a-z]+|netinet/[a-z]+|arpa/[a-z]+|netdb)\.h>' \
    $(others $src platform.c worker.c) $src/backends
rule 'only worker.c names pthread' 'pthread|<threads\.h>' $(others $src worker.c) $src/backends
rule 'only reply.c knows hiredis' 'hiredis/|redis(Reader|Context|Command)[A-Z(]' $(others $src/backends/redis reply.c) $(others $src)
rule 'only the SQLite backend knows SQLite' 'sqlite3' $(others $src) $src/backends/redis $src/backends/memory.c
rule 'only tls.c and seal.c know OpenSSL' 'openssl/|SSL_[a-zA-Z]+\(|X509_[a-zA-Z]+\(|EVP_[a-zA-Z]' $(others $src/backends/redis tls.c) $(others $src seal.c)
rule 'only email.c knows libidn2' 'idn2[._]' $(others $src email.c) $src/backends
rule 'memory comes through the platform' '(^|[^A-Za-z_>.])(malloc|calloc|realloc|strdup|free)[[:space:]]*\(' \
    $(others $src platform.c stage.c) $src/backends
rule 'clock and randomness come through the platform' \
    '(^|[^A-Za-z_>.])(clock_gettime|gettimeofday|time|rand|random|srand|getrandom|getentropy)[[:space:]]*\(' \
    $(others $src platform.c stage.c worker.c) $src/backends
rule 'nothing in core/ names Python.h, napi or uv' \
    '#[[:space:]]*include.*(Python\.h|napi|node_api|uv\.h)|napi_[a-z]|PyObject|Py_[A-Z]|uv_[a-z_]+[[:space:]]*\(' core
rule 'util and status include nothing of ours but util.h and the public types' \
    '^[[:space:]]*#[[:space:]]*include[[:space:]]+"(core|loop|op|store|url|derive|backends)' $src/util.h $src/util.c $src/status.c $src/platform.c $src/worker.c $src/stage.c
rule 'util.h includes no header of ours but the public ones' '^[[:space:]]*#[[:space:]]*include[[:space:]]+"[^c]' $src/util.h
rule 'the interfaces only submit operations' '->(table|self|loop|depth|prefix)([^A-Za-z_]|$)|cf_op_(set|end|finish|fail)' $src/storage.c $src/secondary.c
rule 'public headers include public headers only' '^[[:space:]]*#[[:space:]]*include[[:space:]]+"(\.|util|core|\.\./)' core/include
rule 'the core prints nothing' '(^|[^A-Za-z_])(printf|puts|perror|fprintf|syslog)[[:space:]]*\(' core
rule 'a binding knows the public headers only' \
    '#[[:space:]]*include.*("core\.h"|core/src|src/backends|"(\.\./)+core/)' bindings
rule 'the C++ binding and the C binding do not know each other' '#[[:space:]]*include.*(node_api|napi)' bindings/python
rule 'the C++ binding and the C binding do not know each other' '#[[:space:]]*include.*Python\.h' bindings/node
rule 'adapters never load the native module' '_native' python/counterfoil/adapters
rule 'adapters never load the native module' "require\\(.*(native|\\.node)|from ['\"].*(native|\\.node)|process\\.dlopen" node/adapters

if [ $broken -ne 0 ]; then exit 1; fi
if [ $checked -lt 12 ]; then
    printf 'only %s rules found files to look at: the tree is not where this script looks for it\n' "$checked"
    exit 1
fi
printf '%s layer rules hold\n' "$checked"
