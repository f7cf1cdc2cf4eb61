-- What both twins use, made once.

CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE DOMAIN us_zip AS text CHECK (VALUE ~ '^[0-9]{5}$');
