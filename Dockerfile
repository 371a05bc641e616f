# The daemon and its commands; .dockerignore leaves the demo and the tests out. `docker build -t librechat-tailer .`
# Every package is pinned by hash in deploy/image/*.lock, with wheels for Python 3.11 to 3.15 on x86-64 and ARM
# (that of orjson for 3.15 needs the glibc of Debian 13).
# Pin the base by digest when you build for production:
#   docker build --build-arg BASE_IMAGE=docker.io/library/python:3.15-slim-trixie@sha256:… -t librechat-tailer .
ARG BASE_IMAGE=docker.io/library/python:3.15-slim-trixie

FROM ${BASE_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /source
COPY deploy/image/build.lock deploy/image/runtime.lock ./
RUN python3 -m venv /build \
 && /build/bin/pip install --quiet --require-hashes -r build.lock \
 && python3 -m venv --without-pip /opt/tailer \
 && /build/bin/pip --python /opt/tailer/bin/python install --quiet --require-hashes -r runtime.lock
COPY pyproject.toml README.md LICENSE ./
COPY tailer tailer
RUN /build/bin/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /wheel . \
 && /build/bin/pip --python /opt/tailer/bin/python install --quiet --no-deps --no-index /wheel/*.whl \
 && /opt/tailer/bin/python -m compileall -q /opt/tailer/lib

FROM ${BASE_IMAGE}
LABEL org.opencontainers.image.title="librechat-tailer" \
      org.opencontainers.image.description="Tails LibreChat's MongoDB and sends every turn to Langfuse as a trace" \
      org.opencontainers.image.licenses="MIT"
COPY --from=build /opt/tailer /opt/tailer
ENV PATH=/opt/tailer/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 TAILER_LOG_FORMAT=json
# Probes and Prometheus come from outside the container; `::` is every address, of IPv4 and of IPv6.
ENV TAILER_HTTP_HOST=::
WORKDIR /
USER 10001:0
EXPOSE 9464
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=4 CMD ["tailer", "healthcheck"]
ENTRYPOINT ["tailer"]
CMD ["run"]
