# The image of mailtrail: the binary, certificate authorities and nothing else, run by a user without rights.
#
#   docker build --tag mailtrail .
#   docker run --volume ./mailtrail.toml:/etc/mailtrail/mailtrail.toml:ro --volume mailtrail:/var/lib/mailtrail mailtrail
#
# State is in /var/lib/mailtrail, which is the user's own; files of `file` sinks may go to /var/log/mailtrail.

FROM rust:1.95-bookworm AS build

# For the C libraries that are built along: librdkafka and its OpenSSL, AWS-LC, SQLite, zstd. Debian keeps one version of
# each in a release.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends cmake perl \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /build
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    cargo build --profile dist --locked --bin mailtrail \
    && install -D --strip target/dist/mailtrail /image/mailtrail \
    && install -d /image/state /image/log

FROM gcr.io/distroless/cc-debian12:nonroot

COPY --from=build /image/mailtrail /usr/local/bin/mailtrail
COPY --from=build --chown=65532:65532 --chmod=0700 /image/state /var/lib/mailtrail
COPY --from=build --chown=65532:65532 --chmod=0755 /image/log /var/log/mailtrail

USER 65532:65532
VOLUME ["/var/lib/mailtrail"]
EXPOSE 9184
# It finishes what is under way within 10 seconds.
STOPSIGNAL SIGTERM
# Whether the process does anything at all. What fails at Microsoft or at a destination is no reason to restart it.
HEALTHCHECK --interval=30s --timeout=15s --start-period=30s --retries=3 \
    CMD ["/usr/local/bin/mailtrail", "status", "--alive"]
ENTRYPOINT ["/usr/local/bin/mailtrail"]
CMD ["run", "--log-format", "json"]
