# shellcheck shell=sh
# Builds and installs the judges: programs by others that the tests and the bench use.

. scripts/clients.sh

# Builds the independent Session Manager client and sets PGIAM_BRIDGE_FORWARD.
build_judges() {
    need_cargo
    need_cc
    need_openssl
    say "dev: building the judges (a few minutes the first time)"
    cargo build --quiet --locked --release --target-dir "$(target_dir)/judges" \
        --manifest-path protocol-tests/judges/ssm-bridge/Cargo.toml
    PGIAM_BRIDGE_FORWARD="$(cd "$(target_dir)/judges/release" && pwd)/bridge-forward"
    export PGIAM_BRIDGE_FORWARD
}

# Builds all of them and prints the variables that name them.
judges() {
    build_judges
    need_clients
    need_setup_judges
    need_moto
    need_aws_cli
    need_chromium
    printf 'export PGIAM_BRIDGE_FORWARD="%s"\n' "$PGIAM_BRIDGE_FORWARD"
    printf 'export PGIAM_CLIENTS="%s"\n' "$PGIAM_CLIENTS"
    [ -z "${PGIAM_CFN_LINT:-}" ] || printf 'export PGIAM_CFN_LINT="%s"\n' "$PGIAM_CFN_LINT"
    [ -z "${PGIAM_MOTO:-}" ] || printf 'export PGIAM_MOTO="%s"\n' "$PGIAM_MOTO"
    [ -z "${PGIAM_AWSCLI:-}" ] || printf 'export PGIAM_AWSCLI="%s"\n' "$PGIAM_AWSCLI"
    [ -z "${PGIAM_CHROMIUM:-}" ] || printf 'export PGIAM_CHROMIUM="%s"\n' "$PGIAM_CHROMIUM"
}

# Installs the packages of judges/$1/requirements.txt, and nothing beside them, into the virtual
# environment $venv, unless they are there. $2: name for messages, $3: remark. Fails, and says so,
# where they cannot be had.
need_python_judges() {
    list="protocol-tests/judges/$1/requirements.txt"
    mkdir -p "$(target_dir)/judges"
    venv="$(cd "$(target_dir)/judges" && pwd)/$1"
    cmp -s "$list" "$venv/installed" && return 0
    say "dev: installing $2 ($3 below $venv)"
    rm -rf "$venv"
    python3 -m venv "$venv" &&
        "$venv/bin/python" -m pip install --quiet --no-deps --only-binary :all: -r "$list" &&
        "$venv/bin/python" -m pip check --quiet &&
        cp "$list" "$venv/installed" &&
        return 0
    lacking "$2"
    return 1
}

# Installs the judges of `pgiam setup` (cfn-lint and others) and sets PGIAM_CFN_LINT. They need Python,
# which need_clients installs.
need_setup_judges() {
    [ -n "${PGIAM_CFN_LINT:-}" ] && return 0
    need_python_judges setup "the judges of pgiam setup" "200 MB" || return 0
    PGIAM_CFN_LINT="$venv/bin/cfn-lint"
    export PGIAM_CFN_LINT
}

# Installs moto, an independent simulation of AWS's APIs, and sets PGIAM_MOTO.
need_moto() {
    [ -n "${PGIAM_MOTO:-}" ] && return 0
    need_python_judges moto moto "an AWS emulator, 140 MB" || return 0
    PGIAM_MOTO="$venv/bin/python"
    export PGIAM_MOTO
}

# Installs the AWS CLI and botocore, which judge logins, and sets PGIAM_AWSCLI.
need_aws_cli() {
    [ -n "${PGIAM_AWSCLI:-}" ] && return 0
    need_python_judges identity "the AWS CLI" "240 MB" || return 0
    PGIAM_AWSCLI="$venv/bin/aws"
    export PGIAM_AWSCLI
}

# Finds or installs Chromium, which follows the sign-in pages, and sets PGIAM_CHROMIUM.
need_chromium() {
    [ -n "${PGIAM_CHROMIUM:-}" ] && return 0
    if ! find_chromium && have apt-get; then
        say "dev: installing Chromium for the tests (400 MB)"
        as_root apt-get update -qq &&
            as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null
    fi
    find_chromium || { lacking Chromium; return 0; }
    export PGIAM_CHROMIUM
}

find_chromium() {
    for name in chromium google-chrome google-chrome-stable chromium-browser \
        '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome'; do
        PGIAM_CHROMIUM="$(command -v "$name")" && return 0
    done
    PGIAM_CHROMIUM=''
    return 1
}
