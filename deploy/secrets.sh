#!/bin/sh
# Chooses every secret of the stack, once: deploy/.env, deploy/.env.admin-key and deploy/.env.metrics-token, which git
# ignores. What is there stays.
set -eu
cd "${1:-$(dirname "$0")}"

secret() { head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n'; }

if [ ! -e .env.admin-key ]; then
  # Others may read the file, since the API does so as a user of its own.
  echo "admin-$(secret)" > .env.admin-key
  chmod 644 .env.admin-key
fi

umask 077
touch .env
for name in POSTGRES_PASSWORD REDIS_PASSWORD KEY_PEPPER AGENT_KEY CRON_SECRET METRICS_TOKEN GRAFANA_PASSWORD PGADMIN_PASSWORD; do
  grep -q "^$name=" .env || echo "$name=$(secret)" >> .env
done
sed -n 's/^METRICS_TOKEN=//p' .env > .env.metrics-token
chmod 644 .env.metrics-token # Prometheus reads it as a user of its own
