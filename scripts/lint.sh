# shellcheck shell=sh
# ./dev lint

# The fuzz targets, which are a workspace of their own. libFuzzer itself is C++.
lint_fuzz() {
    cargo fmt --check --manifest-path fuzz/Cargo.toml
    if have c++ || have g++ || have clang++; then
        cargo clippy --locked --manifest-path fuzz/Cargo.toml --target-dir "$(target_dir)/fuzz" \
            --all-targets -- -D warnings
    else
        say "dev: SKIPPED clippy for the fuzz targets; install g++ or clang"
    fi
}

# Checks the Rust code for other systems; only a Mac or Visual Studio could link some of them. Nothing
# is linked, so no C compiler for these systems is needed: the build script of AWS-LC gets a directory
# without compiled code in place of an installed library, that of mimalloc the compiler of this system.
lint_targets() {
    need_cargo
    need_cc
    others='x86_64-pc-windows-gnu x86_64-pc-windows-msvc aarch64-pc-windows-gnullvm
        x86_64-apple-darwin aarch64-unknown-linux-musl aarch64-unknown-linux-gnu'
    for triple in aarch64-apple-darwin $others; do need_target "$triple"; done
    aws_lc_without_code "$(target_dir)/targets/aws-lc"
    # With the tests, which CI runs there. On Windows it runs those of the crates.
    clippy_for aarch64-apple-darwin --workspace --all-targets
    clippy_for "$others" --workspace --exclude protocol-tests --lib --bins
    clippy_for x86_64-pc-windows-gnu -p aws-profile -p pg-handshake -p smux -p ssm-channel --all-targets
    say "dev: no warnings for macOS, Windows and Linux on ARM"
}

# clippy_for TRIPLES ARGUMENTS: runs clippy for all of them at once.
clippy_for() {
    targets=''
    for triple in $1; do targets="$targets --target $triple"; done
    shift
    # shellcheck disable=SC2086 # One flag for each target.
    AWS_LC_SYS_SYSTEM_DIR="$aws_lc" CC_aarch64_unknown_linux_musl=cc AR_aarch64_unknown_linux_musl=ar \
        cargo clippy --locked --target-dir "$(target_dir)/targets" \
        $targets "$@" -- -D warnings
}

# aws_lc_without_code DIR: makes a directory like that of an installed AWS-LC, with the headers and
# declarations of its package and an empty library, and sets $aws_lc.
aws_lc_without_code() {
    sources="$(cargo metadata --locked --format-version 1 |
        sed -n 's/.*"manifest_path":"\([^"]*aws-lc-sys-[^"]*\)Cargo.toml".*/\1/p')"
    [ -n "$sources" ] || die "the sources of aws-lc-sys were not found"
    mkdir -p "$1"
    aws_lc="$(cd "$1" && pwd)"
    # A newer file would make cargo check everything again.
    [ "$(readlink "$aws_lc/include")" != "$sources/aws-lc/include" ] || return 0
    mkdir -p "$aws_lc/lib" "$aws_lc/share/rust"
    : >"$aws_lc/lib/libcrypto.a"
    : >"$aws_lc/lib/crypto.lib"
    # Without the attribute of the whole file: this one is included in another.
    sed '/^#!\[allow(/,/^)\]/d' "$sources/src/universal_crypto.rs" >"$aws_lc/share/rust/aws_lc_bindings.rs"
    ln -sfn "$sources/aws-lc/include" "$aws_lc/include"
}

lint() {
    case "${1:-}" in
        '') ;;
        --targets)
            lint_targets
            return 0
            ;;
        *) die "lint: unknown argument '$1'; expected --targets" ;;
    esac
    need_cargo
    cargo fmt --all --check
    cargo fmt --check --manifest-path protocol-tests/judges/ssm-bridge/Cargo.toml
    cargo fmt --check --manifest-path protocol-tests/judges/clients/rust/Cargo.toml
    cargo clippy --locked --workspace --all-targets -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --quiet --locked --no-deps --workspace
    lint_fuzz
    for script in dev scripts/*.sh; do sh -n "$script"; done
    (cd protocol-tests/judges/postgres-suites && sh -n prepare && sh -n newer-libpq)
    (cd protocol-tests/judges/completions && bash -n ask.bash)
    if have shellcheck; then
        shellcheck -x dev scripts/*.sh .ci/run deploy/container/image-root protocol-tests/judges/windows/pgiam
        (cd protocol-tests/judges/postgres-suites && shellcheck prepare newer-libpq)
        (cd protocol-tests/judges/clients/shell && shellcheck -x -- *.sh)
    fi
    # Not installed by this script: compiling it takes minutes.
    if have cargo-deny; then
        cargo deny --locked --log-level error check bans licenses sources
    else
        say "dev: SKIPPED the licences and sources of dependencies; run: cargo install cargo-deny --locked"
    fi
    if have zizmor; then
        zizmor --offline --quiet .
    else
        say "dev: SKIPPED the rules for workflows; run: cargo install zizmor --locked"
    fi
    if have python3; then
        python3 scripts/words.py --self-test
        python3 scripts/words.py
        python3 protocol-tests/judges/documents/check.py
        python3 protocol-tests/judges/deploy/check.py "$(target_dir)/debug/pgiam"
    else
        say "dev: SKIPPED the language, the documents and the files of deploy/; install python3"
    fi
    # No private key and no token in the tree, whatever its purpose.
    if git grep -nE 'BEGIN [A-Z ]*PRIVATE KEY|X-Amz-Signature=[0-9a-f]{64}' -- ':!protocol-tests/vectors' ':!scripts/lint.sh'; then
        die "the lines above contain a secret"
    fi
    say "dev: lint passed"
}
