# The program and its shared libraries in an otherwise empty root, for a user without rights.
FROM rust:1.90-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked --package pointsman \
  && scripts/rootfs target/release/pointsman /rootfs

FROM scratch
COPY --from=build /rootfs/ /
ENV PATH=/usr/bin
USER 65532:65532
EXPOSE 3306 3307 9090
ENTRYPOINT ["pointsman"]
CMD ["serve", "--config", "/etc/pointsman/config/pointsman.json"]
