# shellcheck shell=sh
# ./dev package

. scripts/judges.sh
. scripts/cross.sh

# Builds the packages for users.
package() {
    static='' triple='' profile=release
    while [ $# -gt 0 ]; do
        case "$1" in
            --static) static=yes ;;
            --target | --profile)
                [ $# -gt 1 ] || die "package: $1 needs a value"
                if [ "$1" = --target ]; then triple="$2"; else profile="$2"; fi
                shift
                ;;
            *) die "package: unknown argument '$1'; expected --static, --target TRIPLE or --profile NAME" ;;
        esac
        shift
    done
    need_cargo
    need_cc
    have python3 || die "python3 is missing; install it (it collects the licences of dependencies)"
    host="$(rustc -vV | sed -n 's/^host: //p')"
    [ -z "$static" ] || triple="${triple:-${host%%-*}-unknown-linux-musl}"
    case "$static$triple" in
        '' | *-linux-musl) ;;
        yes*) die "package: --static is for targets such as x86_64-unknown-linux-musl" ;;
    esac
    builder="$(builder_for "${triple:-$host}")"
    if [ "$builder" = zigbuild ]; then need_zig "$triple"; else need_target "${triple:-$host}"; fi
    # The assembled objects that aws-lc brings along for Windows, instead of an assembler.
    export AWS_LC_SYS_PREBUILT_NASM="${AWS_LC_SYS_PREBUILT_NASM:-1}"
    say "dev: building (many minutes)"
    cargo "$builder" --locked --package pgiam --bin pgiam --profile "$profile" ${triple:+--target "$triple"}
    built="$(target_dir)/${triple:+$triple/}$profile"
    [ "$profile" != dev ] || built="${built%dev}debug"
    program="$built/pgiam"
    [ -e "$program" ] || program="$program.exe"
    own="$(runs_here "$program" "${triple:-$host}")"
    add_words "$own" "$built/package" "${triple:-$host}"
    archive "$program" "$built/package" "$("$own" --version | tr ' ' -)-${triple:-$host}"
    if [ "${triple:-$host}" != "$host" ] || ! have dpkg; then return 0; fi
    if ! have cargo-deb; then
        say "dev: SKIPPED the Debian package; run: cargo install cargo-deb --locked"
        return 0
    fi
    # Debian's policy: documents are compressed.
    rm -rf "$built/debian"
    mkdir -p "$built/debian"
    cp -R "$built/package/man" "$built/package/THIRD-PARTY" "$built/debian"
    cp CHANGELOG.md "$built/debian/changelog"
    gzip -9n "$built/debian/man"/* "$built/debian/THIRD-PARTY" "$built/debian/changelog"
    # The profile in Cargo.toml has stripped the program already.
    say "dev: $(cargo deb --quiet --locked --no-build --no-strip --package pgiam --profile "$profile" ${triple:+--target "$triple"})"
}

# builder_for TRIPLE: prints the command of cargo that links for a system. Linux without libraries and
# programs for other systems need zig; Apple and Microsoft give their libraries to their own tools only.
builder_for() {
    if [ -z "$static" ] && [ "$1" = "$host" ]; then
        echo build
        return 0
    fi
    case "$(uname -s) $1" in
        Darwin*-apple-darwin | MINGW*-windows-msvc | MSYS*-windows-msvc) echo build ;;
        *-apple-darwin) die "a program for macOS can be linked on a Mac only" ;;
        *-windows-msvc) die "package: this target needs Windows with Visual Studio; use ${1%msvc}gnu" ;;
        *) echo zigbuild ;;
    esac
}

# runs_here PROGRAM TRIPLE: prints the path of a program that can print the manual and the completions:
# PROGRAM, or one that this builds for this machine.
runs_here() {
    case "$2" in
        "$host" | "${host%%-*}"-*-linux-* | *-apple-darwin)
            if "$1" --version >/dev/null 2>&1; then
                echo "$1"
                return 0
            fi
            ;;
    esac
    say "dev: building pgiam for this machine, to print the manual and the completions"
    cargo build --locked --package pgiam --bin pgiam
    own="$(target_dir)/debug/pgiam"
    [ -e "$own" ] || own="$own.exe"
    echo "$own"
}

# add_words PROGRAM DIR TRIPLE: writes the manual, the completions and the licences into DIR.
add_words() {
    rm -rf "$2"
    mkdir -p "$2/completions"
    case "$3" in
        *-windows-*) "$1" completions powershell >"$2/completions/pgiam.ps1" ;;
        *)
            mkdir -p "$2/man"
            "$1" man "$2/man"
            "$1" completions bash >"$2/completions/pgiam.bash"
            "$1" completions zsh >"$2/completions/_pgiam"
            "$1" completions fish >"$2/completions/pgiam.fish"
            ;;
    esac
    python3 deploy/third-party.py "$3" >"$2/THIRD-PARTY"
}

# archive PROGRAM WORDS NAME: packs the program and the folder of add_words; for Windows, whose tools
# open zip, as such.
archive() {
    out="$(target_dir)/package"
    rm -rf "${out:?}/$3"
    mkdir -p "$out/$3"
    cp "$1" "$out/$3"
    cp -R "$2/." LICENSE-MIT LICENSE-APACHE README.md CHANGELOG.md SECURITY.md docs deploy "$out/$3"
    case "$3" in
        *-windows-*)
            file="$3.zip"
            rm -f "${out:?}/$file"
            (cd "$out" && python3 -m zipfile -c "$file" "$3")
            ;;
        *)
            file="$3.tar.gz"
            # Without files of macOS's attributes, which other systems would unpack as files.
            COPYFILE_DISABLE=1 tar -C "$out" -czf "$out/$file" "$3"
            ;;
    esac
    rm -r "${out:?}/$3"
    say "dev: $out/$file"
}
