-- A database for one service, and two roles that can touch nothing else: SERVICE, which reads and writes its rows,
-- and SERVICE_owner, which owns the tables and migrates them. Run it once for each service, as a superuser:
--
--   psql -v service=orders -v password_file=/run/secrets/orders -v owner_password_file=/run/secrets/orders-owner \
--     -f deploy/postgres/roles/service.sql
--
-- Then migrate as the owner before each update, and run the service as its role:
--
--   TODOKU_ORDERS_DATABASE_URL=postgresql://orders_owner@db/orders todoku migrate orders
--   TODOKU_ORDERS_DATABASE_URL=postgresql://orders@db/orders todoku run orders
\set ON_ERROR_STOP on
\set password `cat :'password_file'`
\set owner_password `cat :'owner_password_file'`
\set owner :service _owner
SET password_encryption = 'scram-sha-256';

CREATE ROLE :"owner" LOGIN PASSWORD :'owner_password' NOSUPERUSER NOCREATEDB NOCREATEROLE;
CREATE ROLE :"service" LOGIN PASSWORD :'password' NOSUPERUSER NOCREATEDB NOCREATEROLE;

CREATE DATABASE :"service" OWNER :"owner" ENCODING 'UTF8' TEMPLATE template0;
REVOKE ALL ON DATABASE :"service" FROM PUBLIC;
GRANT CONNECT ON DATABASE :"service" TO :"service";

\connect :service
REVOKE ALL ON SCHEMA public FROM PUBLIC;
ALTER SCHEMA public OWNER TO :"owner";
GRANT USAGE ON SCHEMA public TO :"service";
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" IN SCHEMA public
  GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO :"service";
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" IN SCHEMA public
  GRANT USAGE, SELECT ON SEQUENCES TO :"service";
