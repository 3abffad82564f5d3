# shellcheck shell=sh
# ./dev fuzz

fuzz() {
    need_cargo
    seconds="${1:-60}"
    case "$seconds" in "" | *[!0-9]*) die "invalid number of seconds: '$seconds'" ;; esac
    # Coverage instrumentation needs a nightly compiler.
    if ! have rustup || ! cargo +nightly --version >/dev/null 2>&1; then
        die "fuzzing needs the nightly compiler; install it: rustup toolchain install nightly --profile minimal"
    fi
    # libFuzzer itself is C++.
    have c++ || have g++ || have clang++ || die "fuzzing needs a C++ compiler: install g++ or clang"
    if ! cargo fuzz --version >/dev/null 2>&1; then
        say "dev: installing cargo-fuzz"
        cargo install cargo-fuzz --locked
    fi
    targets="$(cargo +nightly fuzz list)"
    [ -n "$targets" ] || die "cargo-fuzz found no targets in fuzz/"
    for target in $targets; do
        say "dev: fuzzing $target for $seconds s"
        # Short runs: let inputs grow faster than by default. A finding ends all of it.
        cargo +nightly fuzz run "$target" -- -max_total_time="$seconds" -len_control=10 ||
            die "$target did not build, or found a fault: its input is in the last lines"
    done
}
