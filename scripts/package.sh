# shellcheck shell=sh
# ./dev package

# Builds the packages for users. The program prints its manual and completions, so it must run here.
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
    builder=build
    if [ -n "$static" ]; then
        triple="${triple:-${host%%-*}-unknown-linux-musl}"
        have cargo-zigbuild || die "a static program needs cargo-zigbuild and zig; install them: pip install cargo-zigbuild ziglang, rustup target add $triple"
        builder=zigbuild
    fi
    say "dev: building (many minutes)"
    cargo "$builder" --locked --package pgiam --bin pgiam --profile "$profile" ${triple:+--target "$triple"}
    built="$(target_dir)/${triple:+$triple/}$profile"
    [ "$profile" != dev ] || built="${built%dev}debug"
    program="$built/pgiam"
    [ -e "$program" ] || program="$program.exe"
    add_words "$program" "$built/package" "${triple:-$host}"
    archive "$program" "$built/package" "${triple:-$host}"
    if [ -n "$static" ] || ! have dpkg; then return 0; fi
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

# add_words PROGRAM DIR TRIPLE: writes manual, completions and licences into DIR.
add_words() {
    rm -rf "$2"
    mkdir -p "$2/man" "$2/completions"
    "$1" man "$2/man"
    "$1" completions bash >"$2/completions/pgiam.bash"
    "$1" completions zsh >"$2/completions/_pgiam"
    "$1" completions fish >"$2/completions/pgiam.fish"
    python3 deploy/third-party.py "$3" >"$2/THIRD-PARTY"
}

# archive PROGRAM WORDS TRIPLE: packs the program and the folder of add_words.
archive() {
    name="$("$1" --version | tr ' ' -)-$3"
    out="$(target_dir)/package"
    rm -rf "${out:?}/$name"
    mkdir -p "$out/$name"
    cp "$1" "$out/$name"
    cp -R "$2/." LICENSE-MIT LICENSE-APACHE README.md CHANGELOG.md SECURITY.md docs deploy "$out/$name"
    tar -C "$out" -czf "$out/$name.tar.gz" "$name"
    rm -r "${out:?}/$name"
    say "dev: $out/$name.tar.gz"
}
