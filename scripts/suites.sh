# shellcheck shell=sh
# ./dev suites

# Runs PostgreSQL's own tests. Without a source package of the server they are skipped with a message;
# in CI that is an error.
suites() {
    case "${1:-}" in "" | --full) ;; *) die "suites: unknown argument '$1'; expected --full" ;; esac
    need_all
    judges_dir=protocol-tests/judges/postgres-suites
    kept="$(target_dir)/postgres-suites"
    status=0
    ready="$("$judges_dir/prepare" "$kept")" || status=$?
    case "$status" in
        0) ;;
        3)
            [ "${CI:-}" != true ] || die "PostgreSQL's own tests are missing in CI"
            say "dev: SKIPPED PostgreSQL's own tests (reason above)"
            return 0
            ;;
        *) die "cannot prepare PostgreSQL's own tests" ;;
    esac
    if [ "${1:-}" = --full ]; then
        newer="$("$judges_dir/newer-libpq" "$kept")" || newer=''
        if [ -n "$newer" ]; then
            set -- "$@" --libpq "$newer"
        else
            say "dev: SKIPPED the pipeline tests with a newer libpq (reason above)"
        fi
    fi
    cargo build --quiet --locked --workspace --bins
    # At a lower priority than the machine's other work.
    nice -n 5 "$(target_dir)/debug/sandbox" suites --pgiam "$(target_dir)/debug/pgiam" \
        --suites "$ready" --reports "$kept/reports" "$@"
}
