#!/bin/sh
# Chooses every secret of the stack, once: deploy/.env and deploy/.env.admin-key, which git ignores. What is there stays.
set -eu
cd "${1:-$(dirname "$0")}"

secret() { head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n'; }

if [ ! -e .env.admin-key ]; then
  # Others may read the file, since Prometheus and the API do so as users of their own; nobody gets into the container.
  echo "admin-$(secret)" > .env.admin-key
  chmod 644 .env.admin-key
fi

umask 077
touch .env
for name in POSTGRES_PASSWORD REDIS_PASSWORD KEY_PEPPER CRON_SECRET GRAFANA_PASSWORD PGADMIN_PASSWORD; do
  grep -q "^$name=" .env || echo "$name=$(secret)" >> .env
done
