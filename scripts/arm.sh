# shellcheck shell=sh
# ./dev test --arm: end-to-end tests of the static program for Linux on ARM, under qemu.

. scripts/cross.sh

arm_triple=aarch64-unknown-linux-musl

# Runs the tests of the profile `arm` in .config/nextest.toml, or of them those that NEXTEST ARGUMENTS
# select.
test_arm() {
    need_all
    cargo nextest --version >/dev/null 2>&1 ||
        die "blocked: cargo-nextest is missing; run: cargo install cargo-nextest --locked"
    need_qemu
    need_zig "$arm_triple"
    say "dev: building the program for ARM (many minutes the first time)"
    cargo-zigbuild zigbuild --quiet --locked --package pgiam --bin pgiam --target "$arm_triple"
    mkdir -p "$(target_dir)/arm"
    arm="$(cd "$(target_dir)/arm" && pwd)"
    cp "$(target_dir)/$arm_triple/debug/pgiam" "$arm/pgiam-aarch64"
    # Ends with an error instead of running another program, whatever else the machine has.
    cat >"$arm/pgiam" <<EOS
#!/bin/sh
exec qemu-aarch64 -0 pgiam "$arm/pgiam-aarch64" "\$@"
EOS
    chmod +x "$arm/pgiam"
    PGIAM_ARM="$arm/pgiam"
    export PGIAM_ARM
    cargo build --quiet --locked --workspace --bins
    "$(target_dir)/debug/sandbox" demo --check --port 0 --pgiam "$PGIAM_ARM"
    cargo nextest run --locked --workspace --test e2e --profile arm "$@"
}
