# shellcheck shell=sh
# Shared by all commands of ./dev, which sources this file from the root of the repository.

# Incremental files cost more disk and time than they save when everything is built once.
export CARGO_INCREMENTAL="${CARGO_INCREMENTAL:-0}"

say() { printf '%s\n' "$*" >&2; }
die() { say "dev: $*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; elif have sudo; then sudo "$@"; else die "this needs root: $*"; fi
}

target_dir() { printf '%s' "${CARGO_TARGET_DIR:-target}"; }

# lacking WHAT: reports an optional part that could not be installed; an error in CI, which must not
# lose a test unnoticed.
lacking() {
    [ "${CI:-}" != true ] || die "missing in CI: $1"
    say "dev: SKIPPED $1 (reason above)"
}
