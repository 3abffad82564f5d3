# shellcheck shell=sh
# ./dev test --windows: end-to-end tests of the Windows program under Wine, on Linux x86_64.

. scripts/cross.sh

windows_triple=x86_64-pc-windows-gnu
windows_sources=protocol-tests/judges/windows

# in_wine COMMAND: runs a command of Wine with the drives of the tests, without a display and without
# the offer to install .NET and a browser engine.
in_wine() {
    env WINEPREFIX="$PGIAM_WINDOWS/prefix" WINEDEBUG=-all \
        WINEDLLOVERRIDES='mscoree=;mshtml=;winemenubuilder.exe=' "$@"
}

need_wine() {
    [ "$(uname -sm)" = "Linux x86_64" ] || die "blocked: these tests need Linux x86_64"
    if have wine && have wineserver && have tmux; then return; fi
    have apt-get || die "blocked: install tmux and a 64-bit Wine, version 8 or later"
    say "dev: installing Wine for the tests (900 MB)"
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends wine wine64 tmux >/dev/null ||
        die "blocked: Wine and tmux cannot be installed"
}

# windows_c FILE SOURCE OPTION…: compiles a C program or library for the tests.
windows_c() {
    file="$PGIAM_WINDOWS/$1" source="$windows_sources/$2"
    shift 2
    "$zig_python" -m ziglang cc -target x86_64-windows-gnu -Os -s -Wall -Werror -o "$file" "$source" "$@"
}

# Builds the Windows program, the programs that its tests need, and Wine's drives, in $PGIAM_WINDOWS.
build_windows() {
    say "dev: building the Windows program (many minutes the first time)"
    # The assembled objects that aws-lc brings along, instead of an assembler of this machine.
    AWS_LC_SYS_PREBUILT_NASM=1 cargo-zigbuild zigbuild --quiet --locked --package pgiam --bin pgiam \
        --target "$windows_triple"
    # A run that was killed may have left programs behind, whose files must not change under them.
    in_wine wineserver -k || true
    cp "$(target_dir)/$windows_triple/debug/pgiam.exe" "$windows_sources/pgiam" "$PGIAM_WINDOWS"
    windows_c event.exe event.c -municode
    windows_c heard.exe heard.c
    windows_c http.exe http.c -lws2_32
    windows_c bcryptprimitives.dll bcryptprimitives.c -shared -ladvapi32
    # One server for all tests: its start takes longer than most of them.
    in_wine wineserver --persistent
    in_wine wineboot --init
    cp "$PGIAM_WINDOWS/bcryptprimitives.dll" "$PGIAM_WINDOWS/prefix/drive_c/windows/system32"
}

# Runs the tests of the profile `windows` in .config/nextest.toml, or of them those that NEXTEST
# ARGUMENTS select. Ends all programs of these drives, also after a failure and after Ctrl-C.
test_windows() {
    need_all
    cargo nextest --version >/dev/null 2>&1 ||
        die "blocked: cargo-nextest is missing; run: cargo install cargo-nextest --locked"
    need_wine
    need_zig "$windows_triple"
    # wineserver does not create the directory of its drives.
    mkdir -p "$(target_dir)/windows/prefix"
    PGIAM_WINDOWS="$(cd "$(target_dir)/windows" && pwd)"
    export PGIAM_WINDOWS
    trap 'in_wine wineserver -k || true' EXIT
    trap 'exit 130' INT
    trap 'exit 143' HUP TERM
    build_windows
    cargo nextest run --locked --workspace --test e2e --profile windows --run-ignored all "$@"
}
