# The server, answering from the bundles in /data/bundles. It runs with a read-only root file system, given /data and
# /tmp to write to, as a user without rights:
#
#   docker build --tag tastemaker:local .
#   docker run --rm --volume tastemaker-data:/data tastemaker:local tastemaker keys add me --keys /data/keys.json
#   docker run --read-only --tmpfs /tmp --volume tastemaker-data:/data --publish 127.0.0.1:8000:8000 tastemaker:local
#
# compose.yaml adds PostgreSQL with pgvector, and Redis.

FROM python:3.11.14-slim-bookworm AS build

# PyTorch for processors alone; the package index's own build brings gigabytes of libraries for accelerators.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore

WORKDIR /build
COPY constraints.txt ./
RUN python -m venv --without-pip /opt/tastemaker \
 && pip --python /opt/tastemaker/bin/python install --no-deps --constraint constraints.txt \
    --index-url "$TORCH_INDEX" torch

COPY pyproject.toml README.md LICENSE ./
COPY recipes recipes
COPY src src
RUN pip --python /opt/tastemaker/bin/python install --constraint constraints.txt '.[serve,stores,ann,images]'


FROM python:3.11.14-slim-bookworm

LABEL org.opencontainers.image.title="tastemaker" \
      org.opencontainers.image.description="A recommender workbench and server" \
      org.opencontainers.image.licenses="Apache-2.0"

# Compiled kernels are kept in /tmp: from a folder that strangers' bundles share, nothing may ever be run.
ENV PATH=/opt/tastemaker/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    NUMBA_CACHE_DIR=/tmp/numba \
    TASTEMAKER_CACHE=/tmp/tastemaker \
    TASTEMAKER_LOG_URL=sqlite:////data/log.db \
    TASTEMAKER_KEYS_FILE=/data/keys.json

RUN pip uninstall --yes --quiet --root-user-action ignore pip setuptools wheel \
 && groupadd --gid 10001 tastemaker \
 && useradd --uid 10001 --gid tastemaker --no-create-home --home-dir /data --shell /usr/sbin/nologin tastemaker \
 && install --directory --owner tastemaker --group tastemaker --mode 0750 /data /data/bundles

COPY --from=build /opt/tastemaker /opt/tastemaker

USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8000

# The first start compiles kernels and reads all bundles.
HEALTHCHECK --interval=15s --timeout=5s --start-period=120s --retries=4 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/health/ready', timeout=4)"]

# A shell finds the bundles, and is replaced by the server, which thus receives the signals.
CMD ["sh", "-c", "exec tastemaker serve /data/bundles/* --host 0.0.0.0 --port 8000"]
