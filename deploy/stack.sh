#!/bin/sh
# What `make stack` does: secrets on the first run, then everything, and where it is.
set -eu
cd "$(dirname "$0")"

docker compose version > /dev/null 2>&1 || {
  echo "tollgate: this needs Docker with its compose plugin (docs.docker.com/get-docker); make up needs neither" >&2
  exit 1
}
sh secrets.sh
docker compose up --build --detach

cat << END

  API         http://127.0.0.1:${TOLLGATE_PORT:-8080}    admin key in deploy/.env.admin-key
  Grafana     http://127.0.0.1:${TOLLGATE_PORT:-8080}/grafana/    admin, GRAFANA_PASSWORD in deploy/.env
  Prometheus  http://127.0.0.1:${PROMETHEUS_PORT:-9090}
  pgAdmin     http://127.0.0.1:${TOLLGATE_PORT:-8080}/pgadmin/    operator@example.com, PGADMIN_PASSWORD; the server wants POSTGRES_PASSWORD

Put OPENROUTER_API_KEY=... into deploy/.env and run this again for real completions.
End it with: docker compose -f deploy/docker-compose.yml down    (the data stays; --volumes removes it)
END
