# shellcheck shell=sh
# Compilers and libraries for systems other than this one.

# need_zig TRIPLE…: installs zig and cargo-zigbuild below the target folder, and Rust's standard
# library for these systems. Puts cargo-zigbuild into PATH; $zig_python runs zig, as its module ziglang.
need_zig() {
    need_cargo
    have rustup || die "blocked: rustup is missing, which installs Rust's standard library for $*"
    rustup --quiet target add "$@" || die "blocked: rustup cannot install Rust's standard library for $*"
    if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
        have apt-get || die "blocked: python3 with venv is missing, which installs zig"
        as_root apt-get update -qq
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv >/dev/null
    fi
    venv=''
    need_python_judges cross "zig and cargo-zigbuild" "350 MB" || die "blocked: zig cannot be installed"
    zig_python="$venv/bin/python3"
    # At the end: the other programs of this folder are not for the rest of the script.
    PATH="$PATH:$venv/bin"
    CARGO_ZIGBUILD_PYTHON_PATH="$zig_python"
    export PATH CARGO_ZIGBUILD_PYTHON_PATH zig_python
}
