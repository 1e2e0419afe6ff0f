-- Each service owns its database. Run once, when PostgreSQL starts on an empty volume.
CREATE DATABASE orders;
CREATE DATABASE inventory;
CREATE DATABASE shipping;
