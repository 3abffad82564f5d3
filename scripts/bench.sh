# shellcheck shell=sh
# ./dev bench

bench() {
    need_all
    what=''
    if [ "${1:-}" = tunnel ]; then
        what=tunnel
        shift
        need_postgres_18
        build_judges
    elif [ "${1:-}" = direct ]; then
        what=direct
        shift
        need_pgbouncer_and_stunnel
    fi
    cargo build --quiet --locked --release --bin pgiam
    cargo build --quiet --locked --release -p protocol-tests --bin sandbox
    set -- --pgiam "$(target_dir)/release/pgiam" --docs docs "$@"
    case "$what" in
        tunnel) set -- "$what" --bridge "$PGIAM_BRIDGE_FORWARD" "$@" ;;
        direct) set -- "$what" "$@" ;;
    esac
    exec "$(target_dir)/release/sandbox" bench "$@"
}

need_pgbouncer_and_stunnel() {
    if [ -x /usr/sbin/pgbouncer ] && have stunnel4; then return; fi
    have apt-get || die "blocked: install PgBouncer and stunnel"
    say "dev: installing PgBouncer and stunnel for the comparison"
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends pgbouncer stunnel4 >/dev/null ||
        die "blocked: PgBouncer and stunnel cannot be installed"
}
