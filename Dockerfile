# The server: wheels are made in the first stage, and only what runs goes into the second.
FROM python:3.11.14-slim-bookworm AS build
WORKDIR /build
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
RUN python -m venv /opt/tastemaker
ENV PATH=/opt/tastemaker/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY constraints.txt ./
RUN pip install --constraint constraints.txt --index-url https://download.pytorch.org/whl/cpu torch
COPY pyproject.toml README.md LICENSE CHANGELOG.md ./
COPY recipes ./recipes
COPY src ./src
RUN pip install --constraint constraints.txt '.[serve,stores,ann]'

FROM python:3.11.14-slim-bookworm
RUN useradd --system --uid 10001 --home-dir /data --shell /usr/sbin/nologin tastemaker \
    && mkdir -p /data/bundles /data/cache && chown -R tastemaker /data
COPY --from=build /opt/tastemaker /opt/tastemaker
# Everything that is written lies in /data, so the rest of the file system may be read-only.
ENV PATH=/opt/tastemaker/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    NUMBA_CACHE_DIR=/data/cache/numba XDG_CACHE_HOME=/data/cache TASTEMAKER_LOG_URL=sqlite:////data/log.db
WORKDIR /data
USER tastemaker
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=5s --start-period=120s --retries=4 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/health/ready', timeout=4)"]
# Bundles are what lies in /data/bundles; keys come from TASTEMAKER_KEYS_FILE, without which the server will not start.
ENTRYPOINT ["sh", "-c", "exec tastemaker serve /data/bundles/* --host 0.0.0.0 --port 8000 \"$@\"", "tastemaker"]
