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
    fi
    cargo build --quiet --locked --release --bin pgiam
    cargo build --quiet --locked --release -p protocol-tests --bin sandbox
    set -- --pgiam "$(target_dir)/release/pgiam" --docs docs "$@"
    [ -z "$what" ] || set -- "$what" --bridge "$PGIAM_BRIDGE_FORWARD" "$@"
    exec "$(target_dir)/release/sandbox" bench "$@"
}
