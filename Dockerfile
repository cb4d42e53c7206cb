# One image for both programs. The registry runs as an ordinary user; the node needs --privileged.
#   docker build -t seawall .
#   docker build -t seawall --build-arg BASE=registry.example:5000/python:3.11 .    (no internet: your own base)
ARG BASE=python:3.11-slim-bookworm
FROM ${BASE} AS build
COPY . /source
RUN python3 -m venv /opt/seawall \
 && /opt/seawall/bin/pip install --no-cache-dir -c /source/constraints.txt "/source[postgres]"

FROM ${BASE}
RUN apt-get update && apt-get install -y --no-install-recommends libnftables1 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 991 --create-home --home-dir /var/lib/seawall seawall
COPY --from=build /opt/seawall /opt/seawall
ENV PATH=/opt/seawall/bin:$PATH
VOLUME /var/lib/seawall
EXPOSE 5000
STOPSIGNAL SIGTERM
CMD ["seawall-registry", "serve", "--data", "/var/lib/seawall/registry", "--listen", "0.0.0.0:5000", "--insecure-no-auth", "--insecure-no-tls"]
