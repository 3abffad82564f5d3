# shellcheck shell=sh
# ./dev test

. scripts/windows.sh
. scripts/arm.sh

run_tests() {
    case "${1:-}" in
        --windows)
            shift
            test_windows "$@"
            return
            ;;
        --arm)
            shift
            test_arm "$@"
            return
            ;;
    esac
    full=''
    if [ "${1:-}" = --full ]; then
        full=--full
        shift
    fi
    need_all
    need_postgres_18
    build_judges
    need_clients
    need_setup_judges
    need_moto
    need_aws_cli
    need_chromium
    if cargo nextest --version >/dev/null 2>&1; then
        # nextest does not run the examples in the documentation. With arguments, only the named tests
        # run.
        [ $# -gt 0 ] || cargo test --locked --workspace --doc
        cargo nextest run --locked --workspace --no-fail-fast "$@"
    else
        say "dev: cargo-nextest is not installed; using cargo test (cargo install cargo-nextest --locked)"
        cargo test --locked --workspace --no-fail-fast "$@"
    fi
    if [ $# -eq 0 ] || [ -n "$full" ]; then suites ${full:+"$full"}; fi
}
