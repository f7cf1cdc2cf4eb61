"""A database with both twins in it."""

import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))


def psql(database, *args, ignore=None):
    done = subprocess.run(
        ["psql", "-X", "-q", "-o", os.devnull, "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", database, *args],
        capture_output=True, text=True)
    if done.returncode != 0 and not (ignore and ignore in done.stderr):
        sys.exit(f"psql {' '.join(args)}: {done.stderr}")


def make_database(name, protect=True):
    """The schemas "plain" and "sealed" with the same tables, whose owner is no
    superuser; those of "sealed" protected."""
    psql("postgres", "-c", f"DROP DATABASE IF EXISTS {name}", "-c", f"CREATE DATABASE {name}")
    for role in ("app", "owner"):
        psql("postgres", "-c", f"CREATE ROLE {role} LOGIN", ignore="already exists")
    psql(name, "-f", f"{HERE}/types.sql", "-c", "CREATE EXTENSION envelope",
         "-c", "SELECT envelope_create_kek('platform', 'local://platform', is_default => true)")
    for schema in ("plain", "sealed"):
        psql(name, "-c", f"CREATE SCHEMA {schema} AUTHORIZATION owner", "-v", f"schema={schema}",
             "-c", f"SET search_path = {schema}, public", "-c", "SET ROLE owner", "-f", f"{HERE}/schema.sql")
    if protect:
        psql(name, "-c", "SET search_path = sealed, public", "-f", f"{HERE}/protect.sql")
