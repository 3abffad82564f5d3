# shellcheck shell=sh
# Installs the clients of the matrix in docs/clients.md, for the end-to-end tests.

# Debian's folder for Go libraries.
go_packages=/usr/share/gocode

# Installs below the target folder and from the system's packages, and sets PGIAM_CLIENTS. Clients
# that cannot be installed are named here and skipped by the tests.
need_clients() {
    [ -n "${PGIAM_CLIENTS:-}" ] && return 0
    sources=protocol-tests/judges/clients
    mkdir -p "$(target_dir)/clients"
    clients="$(cd "$(target_dir)/clients" && pwd)"
    client_packages || lacking "packages of the clients"
    # Compiling takes longest, so it runs beside the downloads.
    cargo build --quiet --locked --target-dir "$clients/rust" --manifest-path "$sources/rust/Cargo.toml" &
    drivers=$!
    client_python python venv || lacking "the clients in Python"
    client_python dbt dbt || lacking dbt
    client_node || lacking "the clients in Node.js"
    client_prisma || lacking Prisma
    client_jdbc || lacking "JDBC"
    client_pgbouncer || lacking PgBouncer
    client_go || lacking "the clients in Go"
    wait "$drivers" || lacking "the clients in Rust"
    PGIAM_CLIENTS="$clients"
    export PGIAM_CLIENTS
}

# Programs and libraries from the system's packages. Only apt can install them; on other systems they
# have to be there already.
client_packages() {
    missing=''
    have python3 && python3 -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3-venv"
    have npm || missing="$missing nodejs npm"
    have javac || missing="$missing default-jdk-headless"
    have tmux || missing="$missing tmux"
    have ruby && ruby -e 'require "pg"; require "active_record"' 2>/dev/null || missing="$missing ruby-pg ruby-activerecord"
    have go && [ -d "$go_packages/src/github.com/lib/pq" ] && [ -d "$go_packages/src/github.com/jackc/pgx/v4" ] ||
        missing="$missing golang-go golang-github-lib-pq-dev golang-github-jackc-pgx-v4-dev"
    have isql && grep -qs '^\[PostgreSQL Unicode\]' /etc/odbcinst.ini || missing="$missing unixodbc odbc-postgresql"
    # For completions, beside bash.
    have zsh || missing="$missing zsh"
    have fish || missing="$missing fish"
    have php && php -r 'exit(extension_loaded("pdo_pgsql") ? 0 : 1);' || missing="$missing php-cli php-pgsql"
    perl -MDBD::Pg -e 1 2>/dev/null || missing="$missing libdbd-pg-perl"
    have pg_config && [ -e "$(pg_config --includedir)/libpq-fe.h" ] || missing="$missing libpq-dev"
    [ -n "$missing" ] || return 0
    have apt-get || { say "dev: apt-get is missing; install:$missing"; return 1; }
    say "dev: installing clients for the tests:$missing"
    # shellcheck disable=SC2086 # One word for each package.
    as_root apt-get update -qq &&
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
}

client_go() {
    cat "$sources"/go/*.go | cmp -s - "$clients/go.installed" && return 0
    have go || { say "dev: go is missing"; return 1; }
    say "dev: building clients in Go (below $clients)"
    mkdir -p "$clients/go" || return 1
    for program in use_generated use_pq use_pgx; do
        # Without modules: the libraries are Debian's.
        GO111MODULE=off GOPATH="$go_packages" GOCACHE="$clients/go/cache" \
            go build -o "$clients/go/$program" "$sources/go/$program.go" "$sources/go/judge.go" || return 1
    done
    cat "$sources"/go/*.go >"$clients/go.installed"
}

# installed WHAT LIST: true if WHAT was installed from the present version of LIST.
installed() { cmp -s "$sources/$2" "$clients/$1.installed"; }

# client_python NAME ENVIRONMENT: installs the packages of NAME/requirements.txt into a virtual
# environment, and nothing beside them: a dependency that the list lacks is an error.
client_python() {
    list="$1/requirements.txt"
    installed "$1" "$list" && return 0
    environment="$clients/$2"
    say "dev: installing clients in Python ($1, below $environment)"
    rm -rf "$environment"
    python3 -m venv "$environment" &&
        "$environment/bin/python" -m pip install --quiet --no-deps --only-binary :all: -r "$sources/$list" &&
        "$environment/bin/python" -m pip check --quiet &&
        cp "$sources/$list" "$clients/$1.installed"
}

client_node() {
    installed node node/package-lock.json && return 0
    have npm || { say "dev: npm is missing"; return 1; }
    say "dev: installing clients in Node.js (below $clients)"
    rm -f "$clients/prisma.installed"
    mkdir -p "$clients/node" &&
        cp "$sources/node/package.json" "$sources/node/package-lock.json" "$clients/node" &&
        (cd "$clients/node" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null) &&
        cp "$sources/node/package-lock.json" "$clients/node.installed"
}

# Generates the client of Prisma, which needs Node.js 20.19. Its command would download a schema
# engine, which has no part in that, so any program does in its place.
client_prisma() {
    installed prisma node/prisma/schema.prisma && return 0
    mkdir -p "$clients/node/prisma" &&
        cp "$sources/node/prisma/schema.prisma" "$clients/node/prisma" &&
        (cd "$clients/node" &&
            PRISMA_SCHEMA_ENGINE_BINARY=/bin/sh PRISMA_HIDE_UPDATE_MESSAGE=1 CHECKPOINT_DISABLE=1 \
                node_modules/.bin/prisma generate --schema prisma/schema.prisma >/dev/null) &&
        cp "$sources/node/prisma/schema.prisma" "$clients/prisma.installed"
}

client_jdbc() {
    [ ! -e "$clients/jdbc/usr/share/java/postgresql.jar" ] || return 0
    have apt-get || { say "dev: apt-get is missing, which downloads the driver"; return 1; }
    say "dev: unpacking the JDBC driver (below $clients)"
    mkdir -p "$clients/jdbc" && (
        cd "$clients/jdbc" &&
            { apt-get download -qq libpostgresql-jdbc-java 2>/dev/null ||
                { as_root apt-get update -qq && apt-get download -qq libpostgresql-jdbc-java; }; } &&
            dpkg -x libpostgresql-jdbc-java_*.deb .
    )
}

# Unpacks PgBouncer and its libraries. The installed package would start a pooler.
client_pgbouncer() {
    [ ! -e "$clients/pgbouncer/libraries" ] || return 0
    have apt-get || { say "dev: apt-get is missing, which downloads PgBouncer"; return 1; }
    say "dev: unpacking PgBouncer (below $clients)"
    mkdir -p "$clients/pgbouncer" && (
        cd "$clients/pgbouncer" &&
            { download_pgbouncer || { as_root apt-get update -qq && download_pgbouncer; }; } &&
            for package in *.deb; do dpkg -x "$package" . || exit 1; done &&
            ln -sfn usr/lib/*-linux-* libraries
    )
}

download_pgbouncer() {
    libraries="$(apt-cache depends pgbouncer | sed -n 's/^ *Depends: \(libevent[^ ]*\|libc-*ares[^ ]*\)$/\1/p')"
    # shellcheck disable=SC2086 # One word for each package.
    [ -n "$libraries" ] && apt-get download -qq pgbouncer $libraries 2>/dev/null
}
