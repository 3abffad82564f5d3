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

lint() {
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
        shellcheck -x dev scripts/*.sh .ci/run deploy/container/image-root
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
