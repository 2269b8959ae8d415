# The same image, built from source inside a Rust image, for machines that reach an image registry:
#   docker build -f deploy/docker/Dockerfile.builder -t autocomplete:local .
FROM rust:1.95-bookworm AS build
WORKDIR /source
COPY . .
RUN deploy/docker/build --binaries-only

FROM scratch
COPY --from=build /source/deploy/docker/bin/ /bin/
COPY --from=build --chown=10001:10001 /source/deploy/docker/data/ /data/
USER 10001:10001
WORKDIR /data
VOLUME ["/data"]
ENTRYPOINT ["/bin/shard-server"]
