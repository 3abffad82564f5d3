# pgiam in a container, with BuildKit:
#
#   docker build -t pgiam .
#   docker run -d -p 127.0.0.1:5433:5433 -v ./pgiam.toml:/etc/pgiam/pgiam.toml:ro \
#       -e PGIAM_ADDRESS=0.0.0.0 -e PGIAM_LOCAL_PASSWORD=... pgiam
#
# The image holds the program, the libraries it is linked with, and the authorities for AWS's APIs; no
# shell and no package manager. So a profile with a credential_process does not work in it.

# The version that CI tests with.
ARG RUST=1.95.0

FROM rust:${RUST}-slim-bookworm AS source
WORKDIR /src
COPY . .
# A folder for each architecture, because they share one cache.
RUN printf 'export CARGO_TARGET_DIR=/cache/%s CARGO_INCREMENTAL=0\n' "$(uname -m)" > /build-env

FROM source AS build-pgiam
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/cache,sharing=locked \
    . /build-env && cargo build --locked --release --package pgiam --bin pgiam && \
    cp "$CARGO_TARGET_DIR/release/pgiam" /program && \
    deploy/container/image-root /program /image

FROM source AS build-sandbox
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/cache,sharing=locked \
    . /build-env && cargo build --locked --release --package protocol-tests --bin sandbox && \
    cp "$CARGO_TARGET_DIR/release/sandbox" /program && \
    deploy/container/image-root /program /image

# The stand-in for AWS of docker-compose.yml. Not for use on a network.
FROM scratch AS sandbox
COPY --from=build-sandbox /image /
COPY --from=build-sandbox /program /usr/bin/sandbox
ENV PATH=/usr/bin HOME=/var/lib/pgiam
USER 65532:65532
ENTRYPOINT ["sandbox"]

FROM scratch AS pgiam
COPY --from=build-pgiam /image /
COPY --from=build-pgiam /program /usr/bin/pgiam
ENV PATH=/usr/bin HOME=/var/lib/pgiam PGIAM_STATE_DIR=/var/lib/pgiam
# Where ./pgiam.toml is looked for.
WORKDIR /etc/pgiam
# The one folder that is written to; as a volume it stays writable with a read-only root, and for any
# user id.
VOLUME /var/lib/pgiam
USER 65532:65532
EXPOSE 5433
ENTRYPOINT ["pgiam"]
CMD ["serve"]
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["pgiam", "wait", "--timeout", "1"]
