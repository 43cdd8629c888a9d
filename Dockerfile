# Tollgate's API and its migrations; the database is somewhere else. Nothing in it needs to be written to:
#   docker build -t tollgate .
#   docker run --read-only -p 8000:8000 --env-file .env.docker tollgate

FROM python:3.13.15-slim-trixie AS build
WORKDIR /build
RUN python -m venv /opt/tollgate
COPY requirements.txt ./
RUN /opt/tollgate/bin/pip install --no-cache-dir --require-hashes --requirement requirements.txt
# Such as OpenTelemetry: docs/how-to/trace-with-opentelemetry.md.
ARG MORE_PACKAGES=""
RUN test -z "$MORE_PACKAGES" || /opt/tollgate/bin/pip install --no-cache-dir $MORE_PACKAGES
COPY pyproject.toml README.md LICENSE ./
COPY supabase/migrations supabase/migrations
COPY src src
RUN /opt/tollgate/bin/pip install --no-cache-dir --no-deps . \
  && /opt/tollgate/bin/pip uninstall --yes pip \
  && python -m compileall -q /opt/tollgate/lib

FROM python:3.13.15-slim-trixie
COPY --from=build /opt/tollgate /opt/tollgate
ENV PATH=/opt/tollgate/bin:$PATH
# The image's own standard library comes without bytecode: this leaves it for all that a start imports.
RUN python -m tollgate --version
ENV PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    TOLLGATE_ENV=production \
    PORT=8000
WORKDIR /srv
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 CMD ["python", "-c", \
  "import os, urllib.request as u; u.urlopen(f'http://127.0.0.1:{os.environ[\"PORT\"]}/healthz', timeout=2)"]
# As a list, so that SIGTERM reaches Python itself.
CMD ["python", "-m", "tollgate", "serve"]
