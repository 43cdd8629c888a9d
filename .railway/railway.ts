// What Railway is to run, for `railway config plan` and `railway config apply`: see docs/how-to/deploy-railway.md.
// The pre-deploy command (python -m tollgate migrate) has no field here yet: set it once in the service's settings.
import { defineRailway, postgres, preserve, project, service } from "railway/iac";

export default defineRailway(() => {
  const database = postgres("Postgres");

  const tollgate = service("tollgate", {
    start: "python -m tollgate serve",
    healthcheck: "/healthz",
    healthcheckTimeout: 60,
    env: {
      TOLLGATE_ENV: "production",
      DATABASE_URL: database.env.DATABASE_URL,
      KEY_PEPPER: preserve(),
      OPENROUTER_API_KEY: preserve(),
      // Railway gives a stopping container no time at all unless it is asked to.
      RAILWAY_DEPLOYMENT_DRAINING_SECONDS: "30",
    },
  });

  return project("tollgate", { resources: [database, tollgate] });
});
