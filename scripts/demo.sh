# shellcheck shell=sh
# ./dev demo

demo() {
    need_all
    say "dev: building (a few minutes the first time)"
    # The whole workspace, with the same features as in the tests, so that nothing is built twice.
    cargo build --quiet --locked --workspace --bins
    exec "$(target_dir)/debug/sandbox" demo --pgiam "$(target_dir)/debug/pgiam" "$@"
}
