-- Postgres lets everyone execute a new function; only owners may execute the inner ones.

revoke execute on all functions in schema tollgate from public;
