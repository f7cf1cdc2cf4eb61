"""SQLAlchemy's ORM and Core, over psycopg and over asyncpg: the same work on
both.  sqlalchemy_test.py [pooled]"""

import asyncio
import datetime
import decimal
import enum
import os
import sys
import uuid

from sqlalchemy import (ForeignKey, MetaData, Numeric, String, Table, UniqueConstraint, case, create_engine, delete, exc,
                        func, insert, inspect, select, text, tuple_, update)
from sqlalchemy.dialects.postgresql import ARRAY, INET, JSONB, TSTZRANGE, Range
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, joinedload, mapped_column, relationship

import tap
from tap import equal, ok, raises

PROTECTED = ["email", "ssn", "born", "balance", "profile", "labels", "mood", "token", "stay", "address", "active", "scan"]
ONE = uuid.UUID("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11")
UTC = datetime.timezone.utc


class Mood(enum.Enum):
    sad = 1
    happy = 2


class Base(DeclarativeBase):
    pass


class Customer(Base):
    __tablename__ = "customers"
    __table_args__ = (UniqueConstraint("tenant_id", "email", name="one_address"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[uuid.UUID]
    email: Mapped[str] = mapped_column(String(80))
    ssn: Mapped[str | None] = mapped_column(String(11))
    born: Mapped[datetime.date | None]
    balance: Mapped[decimal.Decimal | None] = mapped_column(Numeric(12, 2))
    profile: Mapped[dict | None] = mapped_column(JSONB)
    labels: Mapped[list[str] | None] = mapped_column(ARRAY(String))
    mood: Mapped[Mood | None]
    token: Mapped[uuid.UUID | None]
    stay: Mapped[Range | None] = mapped_column(TSTZRANGE)
    address: Mapped[str | None] = mapped_column(INET)
    active: Mapped[bool] = mapped_column(server_default="true")
    scan: Mapped[bytes | None]
    visits: Mapped[int] = mapped_column(default=0)
    orders: Mapped[list["Order"]] = relationship(back_populates="customer", cascade="all, delete-orphan")


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    customer_id: Mapped[int] = mapped_column(ForeignKey("customers.id", ondelete="CASCADE"))
    what: Mapped[str]
    customer: Mapped[Customer] = relationship(back_populates="orders")


def anna(tenant):
    return Customer(
        tenant_id=tenant, email="anna@mail.example", ssn="078-05-1120", born=datetime.date(1984, 2, 29),
        balance=decimal.Decimal("12.50"), profile={"tier": "gold", "n": [1, None]}, labels=["a", "ü"], mood=Mood.happy,
        token=ONE, scan=b"\x00\xff", address="10.0.0.1",
        stay=Range(datetime.datetime(2024, 1, 1, tzinfo=UTC), datetime.datetime(2024, 2, 1, tzinfo=UTC)))


def create_and_read(session, tenant):
    session.add(anna(tenant))
    session.commit()
    read = session.scalars(select(Customer)).one()
    equal((read.email, read.ssn, read.born, read.balance, read.profile, read.labels, read.mood, read.token, read.active,
           read.scan, str(read.address), read.stay.lower.year),
          ("anna@mail.example", "078-05-1120", datetime.date(1984, 2, 29), decimal.Decimal("12.50"),
           {"tier": "gold", "n": [1, None]}, ["a", "ü"], Mood.happy, ONE, True, b"\x00\xff", "10.0.0.1", 2024),
          "what was saved is read, in its types")
    return read.id


def filter_by_protected(session, tenant):
    def count(*conditions):
        return session.scalar(select(func.count()).select_from(Customer).where(*conditions))
    mine = Customer.tenant_id == tenant
    equal(count(mine, Customer.email == "anna@mail.example"), 1, "filter by a searchable column")
    equal(count(mine, Customer.email.in_(["anna@mail.example", "x"])), 1, "IN")
    equal(count(tuple_(Customer.tenant_id, Customer.email).in_([(tenant, "anna@mail.example")])), 1, "row IN")
    equal(count(mine, (Customer.email == "x") | (Customer.ssn == "078-05-1120")), 1, "OR")
    equal(count(mine, Customer.ssn.like("078%")), 1, "LIKE")
    equal(count(mine, Customer.profile["tier"].astext == "gold"), 1, "key of a document")
    equal(count(mine, Customer.labels.contains(["ü"])), 1, "member of an array")
    equal(count(mine, Customer.mood == Mood.happy), 1, "an enum")
    equal(count(mine, Customer.token == ONE), 1, "a uuid")
    equal(count(mine, Customer.born.between(datetime.date(1980, 1, 1), datetime.date(1990, 1, 1))), 1, "BETWEEN")
    equal(count(mine, Customer.ssn.is_(None)), 0, "IS NULL")
    equal(session.scalar(select(func.upper(Customer.email))), "ANNA@MAIL.EXAMPLE", "a function")
    equal(session.execute(select(Customer.email, func.row_number().over(order_by=Customer.email))).one()[1], 1, "a window")
    equal(session.execute(select(Customer, func.count(Order.id)).outerjoin(Order).group_by(Customer.id)).one()[1], 0,
          "grouped by the key, the entity selected")


def change(session, key):
    customer = session.get(Customer, key)
    customer.ssn, customer.visits = "219-09-9999", 3
    session.commit()
    session.execute(update(Customer).where(Customer.id == key).values(
        balance=Customer.balance + 1, email=case((Customer.visits > 2, "new." + Customer.email), else_="-")))
    session.commit()
    session.expire_all()
    equal((customer.ssn, customer.balance, customer.email), ("219-09-9999", decimal.Decimal("13.50"), "new.anna@mail.example"),
          "updated from old values")
    equal(session.scalars(select(Customer).where(Customer.id == key).with_for_update(skip_locked=True)).one().ssn,
          "219-09-9999", "locked")
    session.commit()
    equal(session.execute(update(Customer).values(visits=Customer.visits + 1).returning(Customer.ssn)).scalar(), "219-09-9999", "RETURNING")
    session.commit()


def bulk(session, tenant):
    session.execute(insert(Customer), [
        {"tenant_id": tenant, "email": f"user{n}@mail.example", "ssn": f"{n:04}-00-000"} for n in range(2500)])
    session.commit()
    equal(session.scalar(select(func.count(Customer.ssn))), 2501, "bulk insert")
    made = session.scalars(insert(Customer).returning(Customer.email), [
        {"tenant_id": tenant, "email": f"made{n}@mail.example"} for n in range(3)]).all()
    equal(made, [f"made{n}@mail.example" for n in range(3)], "bulk insert with RETURNING, in order")
    statement = upsert(Customer).values([
        {"tenant_id": tenant, "email": f"user{n}@mail.example", "ssn": "111-11-1111"} for n in range(2495, 2505)])
    statement = statement.on_conflict_do_update(
        index_elements=["tenant_id", "email"], set_={"ssn": statement.excluded.ssn, "visits": Customer.visits + 1})
    rows = session.execute(statement.returning(Customer.email, Customer.visits)).all()
    equal((len(rows), sum(visits for _, visits in rows)), (10, 5), "upsert on a protected unique column")
    statement = upsert(Customer).values(tenant_id=tenant, email="user1@mail.example").on_conflict_do_nothing(
        constraint="one_address")
    equal(session.scalars(statement.returning(Customer.id)).all(), [], "conflict by the constraint's name, ignored")
    session.commit()
    equal(session.execute(delete(Customer).where(Customer.email.like("made%"))).rowcount, 3, "bulk delete")
    session.commit()


def constraints(session, tenant):
    def add(**values):
        try:
            session.add(Customer(tenant_id=tenant, **values))
            session.flush()
        finally:
            session.rollback()
    error = raises(exc.IntegrityError, "a second row with the same address", add, email="user1@mail.example")
    ok("one_address" in str(error.orig), "by its old name")
    raises(exc.IntegrityError, "NOT NULL", add, email=None)
    raises(exc.DBAPIError, "too long", add, email="x", ssn="1" * 12)
    with session.begin_nested():
        session.add(Customer(tenant_id=tenant, email="nested@mail.example"))
    session.rollback()
    equal(session.scalar(select(func.count()).where(Customer.email == "nested@mail.example")), 0, "a savepoint, rolled back")
    session.rollback()


def related(session, key):
    session.add(Order(customer_id=key, what="book"))
    session.commit()
    order = session.scalars(select(Order).options(joinedload(Order.customer)).join(Customer).where(
        Customer.email == "new.anna@mail.example")).one()
    equal(order.customer.ssn, "219-09-9999", "joined")
    session.delete(order.customer)
    session.commit()
    equal(session.scalar(select(func.count()).select_from(Order)), 0, "deleted with what hangs on it")


def named_statements(connection, tenant):
    """Past the sixth execution the plan is a generic one."""
    found = [connection.scalar(select(func.count()).select_from(Customer).where(
        Customer.tenant_id == tenant, Customer.email == f"user{n}@mail.example")) for n in range(12)]
    equal(found, [1] * 12, "one statement, many times")


def look(connection):
    """What reflection sees: the table as it was, and sidecars behind it."""
    columns = {c["name"]: str(c["type"]) for c in inspect(connection).get_columns("customers")}
    own = {c: t for c, t in columns.items() if not c.endswith(("__sealed", "__term"))}
    equal([c.name for c in Customer.__table__.columns], list(own), "reflection sees the columns as they were")
    equal(own["ssn"], "VARCHAR(11)", "with their types")
    constraint, = inspect(connection).get_unique_constraints("customers")
    equal(constraint["name"], "one_address", "and the unique constraint's name")
    reflected = Table("customers", MetaData(), autoload_with=connection, include_columns=list(own))
    equal(connection.execute(select(reflected).where(reflected.c.email == "user7@mail.example")).one().ssn, "0007-00-000",
          "a reflected table is read")
    connection.execute(insert(reflected).values(tenant_id=TENANTS[0], email="reflected@mail.example", visits=0))
    equal(connection.execute(text("SELECT * FROM customers WHERE email = 'reflected@mail.example'")).keys()._keys,
          list(own), "SELECT * shows the application's columns")


def work(session, tenant):
    key = create_and_read(session, tenant)
    filter_by_protected(session, tenant)
    change(session, key)
    bulk(session, tenant)
    constraints(session, tenant)
    related(session, key)
    named_statements(session.connection(), tenant)
    session.rollback()


TENANTS = [uuid.UUID(int=1), uuid.UUID(int=2)]


def by_psycopg(url, pooled):
    engine = create_engine(f"postgresql+psycopg{url}", connect_args={"prepare_threshold": None} if pooled else {})
    with Session(engine) as session:
        work(session, TENANTS[0])
    with engine.connect() as connection:
        look(connection)
    engine.dispose()


async def asyncpg_alone(driver):
    """asyncpg's own ways, below SQLAlchemy."""
    await driver.copy_records_to_table(
        "customers", columns=["tenant_id", "email", "ssn", "born", "visits"],
        records=[(TENANTS[1], f"copied{n}@mail.example", "333-33-3333", datetime.date(2000, 1, 1), 0) for n in range(10)])
    rows = await driver.fetch("SELECT * FROM customers WHERE tenant_id = $1 AND email = $2", TENANTS[1],
                              "copied3@mail.example")
    equal((rows[0]["ssn"], rows[0]["born"], len(rows[0])),
          ("333-33-3333", datetime.date(2000, 1, 1), len(Customer.__table__.columns)), "binary COPY, and a record")


async def by_asyncpg(url, pooled):
    engine = create_async_engine(
        f"postgresql+asyncpg{url}", connect_args={"statement_cache_size": 0} if pooled else {})
    async with AsyncSession(engine) as session:
        await session.run_sync(work, TENANTS[1])
    async with engine.connect() as connection:
        await connection.run_sync(look)
        if not pooled:
            await asyncpg_alone((await connection.get_raw_connection()).driver_connection)
    await engine.dispose()


def main():
    pooled = "pooled" in sys.argv
    host, port, name = os.environ["PGHOST"], os.environ["PGPORT"], os.environ["PGDATABASE"]
    url = f"://app@/{name}?host={host}&port={port}"
    owner = create_engine(f"postgresql+psycopg{url}")
    Base.metadata.drop_all(owner)
    Base.metadata.create_all(owner)
    owner.dispose()
    if tap.protecting():
        tap.sql(f"SELECT envelope_create_tenants(array{[str(t) for t in TENANTS]!r})")
    tap.protect("customers", "tenant_id", PROTECTED, ["email", "token"])
    by_psycopg(url, pooled)
    tap.sql("DELETE FROM customers")
    asyncio.run(by_asyncpg(url, pooled))
    tap.nothing_stored("customers", ["email", "ssn", "born"], "no plaintext is stored")


tap.finish(main)
