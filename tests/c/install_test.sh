#!/bin/sh
# Installs the built tree into a folder of its own and uses it as a stranger would: the C example through the CMake package and
# through pkg-config, shared and static; what the shared library exports; the headers in C++ and in pedantic C11.
#     install_test.sh BUILD_TREE SOURCE_TREE [address | thread]
set -eu
build=$1
source=$2
sanitize=${3:-}
cc=${CC:-cc}
cxx=${CXX:-c++}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
prefix=$work/prefix

say() { printf '%s\n' "$*"; }
die() {
    say "FAILED: $*" >&2
    exit 1
}

cmake --install "$build" --prefix "$prefix" --component library > "$work/install.log" || { cat "$work/install.log"; exit 1; }
libdir=$(dirname "$(find "$prefix" -name libcounterfoil.a)")
pc=$(find "$prefix" -name counterfoil.pc)
[ -n "$pc" ] || die 'no counterfoil.pc was installed'
PKG_CONFIG_PATH=$(dirname "$pc")
export PKG_CONFIG_PATH
for header in counterfoil.h counterfoil/backend.h counterfoil/testing.h counterfoil/ops.def; do
    [ -f "$prefix/include/$header" ] || die "$header was not installed"
done

flags=
case $sanitize in
address) flags='-fsanitize=address,undefined' ;;
thread) flags='-fsanitize=thread' ;;
esac

# What the example prints.
expect='1: 42
2: absent'
run() {
    got=$(LD_LIBRARY_PATH=$libdir "$1") || die "$1 ended with an error"
    [ "$got" = "$expect" ] || die "$1 printed: $got"
    say "ran $2"
}

cmake -S "$source/examples/c" -B "$work/cmake" -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_C_FLAGS="$flags -Wall -Wextra -Werror" > "$work/cmake.log" 2>&1 &&
    cmake --build "$work/cmake" >> "$work/cmake.log" 2>&1 || { cat "$work/cmake.log"; die 'the example does not build with the CMake package'; }
run "$work/cmake/hello" 'the example, shared, CMake package'
run "$work/cmake/hello_static" 'the example, static, CMake package'
ldd "$work/cmake/hello" | grep -q "$prefix.*libcounterfoil" || die 'the shared example does not use the shared library'
if ldd "$work/cmake/hello_static" | grep -q libcounterfoil; then die 'the static example uses the shared library'; fi

mkdir "$work/make"
cp "$source/examples/c/hello.c" "$source/examples/c/Makefile" "$work/make/"
make -C "$work/make" CC="$cc" CFLAGS="$flags -std=c11 -Wall -Wextra -Werror $(pkg-config --cflags counterfoil)" \
    LDLIBS="$(pkg-config --libs counterfoil)" > "$work/make.log" 2>&1 || { cat "$work/make.log"; die 'the example does not build with pkg-config'; }
run "$work/make/hello" 'the example, shared, pkg-config and make'
# shellcheck disable=SC2046,SC2086
"$cc" $flags -std=c11 -o "$work/static" "$source/examples/c/hello.c" $(pkg-config --cflags counterfoil) \
    $(pkg-config --static --libs counterfoil | sed 's/-lcounterfoil/-l:libcounterfoil.a/')
run "$work/static" 'the example, static, pkg-config'
[ "$(pkg-config --modversion counterfoil)" = "$(cat "$source/VERSION")" ] || die 'pkg-config tells another version'

library=$(find "$libdir" -name 'libcounterfoil.so' | head -n 1)
nm -D --defined-only "$library" | awk '{ print $3 }' | sort > "$work/exported"
if grep -vE '^cf_' "$work/exported"; then die 'the shared library exports more than cf_ names'; fi
# What the headers promise is there, and nothing that they do not name.
cat "$prefix/include/counterfoil.h" "$prefix/include/counterfoil/backend.h" "$prefix/include/counterfoil/testing.h" |
    grep -E '^CF_API' | grep -oE '(^|[^a-zA-Z_])cf_[a-z_]+\(' | grep -oE 'cf_[a-z_]+' | sort -u > "$work/declared"
diff "$work/declared" "$work/exported" > "$work/difference" || { cat "$work/difference"; die 'declared (<) and exported (>) differ'; }
say "$(wc -l < "$work/exported" | tr -d ' ') functions are declared and exported, and nothing else"

cat > "$work/use.cpp" << 'EOF'
#include <counterfoil/testing.h>
#include <counterfoil/backend.h>
#include <counterfoil.h>
int main()
{
    cf_stage *stage = cf_stage_new();
    cf_loop *loop = nullptr;
    cf_store *store = nullptr;
    cf_op *op = nullptr;
    if (cf_loop_new(cf_stage_platform(stage), &loop) != CF_OK || cf_open(loop, cf_text("memory:"), nullptr, &store, nullptr) != CF_OK) return 1;
    cf_request request = {};
    request.size = sizeof request;
    request.kind = CF_OP_SET;
    request.key = cf_text("a");
    request.value = cf_bytes("1", 1);
    if (cf_submit(store, &request, &op) != CF_OK || !cf_op_hit(op)) return 2;
    cf_loop_free(loop);
    bool clean = cf_stage_blocks(stage) == 0;
    cf_stage_free(stage);
    return clean ? 0 : 3;
}
EOF
for standard in c++11 c++17; do
    # shellcheck disable=SC2046,SC2086
    "$cxx" $flags -std=$standard -Wall -Wextra -Wpedantic -Wno-missing-field-initializers -Werror -o "$work/use" "$work/use.cpp" \
        $(pkg-config --cflags --libs counterfoil)
    LD_LIBRARY_PATH=$libdir "$work/use" || die "the $standard program ended with an error"
    say "ran a $standard program"
done
# Each header alone, and without extensions.
for header in counterfoil.h counterfoil/backend.h counterfoil/testing.h; do
    printf '#include <%s>\nint main(void) { return 0; }\n' "$header" > "$work/one.c"
    # shellcheck disable=SC2046
    "$cc" -std=c11 -Wall -Wextra -Wpedantic -Wshadow -Werror -fsyntax-only $(pkg-config --cflags counterfoil) "$work/one.c"
done
say 'passed'
