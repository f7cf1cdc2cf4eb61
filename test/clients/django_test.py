"""Django: migrations, the ORM, and a migration of a table that is protected."""

import datetime
import decimal
import os
import sys

import tap
from tap import equal, ok, raises

PROTECTED = ["email", "ssn", "born", "balance", "profile", "labels", "active", "seen"]


def set_up():
    import django
    from django.conf import settings
    settings.configure(
        INSTALLED_APPS=["shop"], USE_TZ=True, DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        DATABASES={"default": {
            "ENGINE": "django.db.backends.postgresql", "NAME": os.environ["PGDATABASE"], "HOST": os.environ["PGHOST"],
            "PORT": os.environ["PGPORT"], "USER": "app", "DISABLE_SERVER_SIDE_CURSORS": "pooled" in sys.argv}})
    django.setup()


def migrate():
    """As a developer does: by migrations that Django writes."""
    from django.core.management import call_command
    call_command("makemigrations", "shop", verbosity=0)
    call_command("migrate", verbosity=0)


def create_and_read(Customer, tenant):
    anna = Customer.objects.create(
        tenant=tenant, email="anna@mail.example", ssn="078-05-1120", born=datetime.date(1984, 2, 29),
        balance=decimal.Decimal("12.50"), profile={"tier": "gold", "tags": [1, None]}, labels=["a", "ü"],
        seen=datetime.datetime(2024, 3, 31, 1, 30, tzinfo=datetime.timezone.utc))
    anna.refresh_from_db()
    equal((anna.email, anna.ssn, anna.born, anna.balance, anna.profile, anna.labels, anna.active, anna.seen.year),
          ("anna@mail.example", "078-05-1120", datetime.date(1984, 2, 29), decimal.Decimal("12.50"),
           {"tier": "gold", "tags": [1, None]}, ["a", "ü"], True, 2024), "what was saved is read")
    equal(Customer.objects.get(pk=anna.pk).ssn, "078-05-1120", "by primary key")
    return anna


def filter_by_protected(Customer, tenant):
    from django.db.models import Count, F, Max, Q
    from django.db.models.functions import Upper
    mine = Customer.objects.filter(tenant=tenant)
    equal(mine.get(email="anna@mail.example").ssn, "078-05-1120", "filter by a searchable column")
    equal(Customer.objects.filter(email="anna@mail.example").count(), 1, "without the tenant too")
    equal(mine.filter(email__in=["anna@mail.example", "x"]).count(), 1, "IN")
    equal(mine.filter(Q(email="x") | Q(ssn="078-05-1120")).count(), 1, "OR with one that is not searchable")
    equal(mine.filter(ssn__startswith="078").count(), 1, "LIKE")
    equal(mine.filter(email__iexact="ANNA@mail.example").count(), 1, "iexact")
    equal(mine.filter(born__year=1984).count(), 1, "part of a date")
    equal(mine.filter(profile__tier="gold").count(), 1, "key of a document")
    equal(mine.filter(labels__contains=["ü"]).count(), 1, "member of an array")
    equal(mine.filter(ssn__isnull=False).count(), 1, "IS NOT NULL")
    equal(mine.exclude(email="anna@mail.example").count(), 0, "exclude")
    equal(mine.annotate(loud=Upper("email")).values_list("loud", flat=True)[0], "ANNA@MAIL.EXAMPLE", "annotate")
    equal(mine.aggregate(n=Count("email", distinct=True), last=Max("born"))["n"], 1, "aggregate")
    equal(list(mine.annotate(n=Count("orders")).values_list("email", "n")), [("anna@mail.example", 0)],
          "grouped by the key with a protected column")
    equal(mine.filter(balance__gt=F("visits")).count(), 1, "compared with another column")


def update(Customer, tenant, anna):
    from django.db import transaction
    from django.db.models import F, Value
    from django.db.models.functions import Concat
    anna.ssn, anna.profile["tier"] = "219-09-9999", "silver"
    anna.save()
    equal(Customer.objects.get(pk=anna.pk).profile["tier"], "silver", "a whole row saved")
    anna.visits = 3
    anna.save(update_fields=["visits"])
    Customer.objects.filter(pk=anna.pk).update(balance=F("balance") + 1, email=Concat(Value("new."), F("email")))
    anna.refresh_from_db()
    equal((anna.balance, anna.email, anna.visits), (decimal.Decimal("13.50"), "new.anna@mail.example", 3),
          "updated from old values")
    with transaction.atomic():
        equal(Customer.objects.select_for_update(skip_locked=True).get(pk=anna.pk).ssn, "219-09-9999", "locked")


def bulk(Customer, tenant):
    made = Customer.objects.bulk_create([
        Customer(tenant=tenant, email=f"user{n}@mail.example", ssn=f"{n:03}-00-0000", labels=[str(n)]) for n in range(200)])
    ok(all(c.pk for c in made), "bulk insert gives keys")
    for customer in made[:50]:
        customer.ssn = "000-00-0000"
    equal(Customer.objects.bulk_update(made[:50], ["ssn"]), 50, "bulk update")
    equal(Customer.objects.filter(ssn="000-00-0000").count(), 50, "is stored")
    again = [Customer(tenant=tenant, email=f"user{n}@mail.example", ssn="111-11-1111") for n in range(190, 210)]
    Customer.objects.bulk_create(again, update_conflicts=True, unique_fields=["tenant", "email"], update_fields=["ssn"])
    equal(Customer.objects.filter(ssn="111-11-1111").count(), 20, "upsert on a protected unique column")
    Customer.objects.bulk_create(again, ignore_conflicts=True)
    equal(Customer.objects.filter(tenant=tenant, email__startswith="user").count(), 210, "conflicts ignored")
    equal(sum(1 for _ in Customer.objects.order_by("email").iterator(chunk_size=50)), 211, "a cursor over all of them")
    ordered = list(Customer.objects.order_by("email").values_list("email", flat=True)[:3])
    equal(ordered, sorted(c.email for c in Customer.objects.all())[:3], "ordered by a protected column")


def constraints(Customer, tenant):
    from django.core.exceptions import ValidationError
    from django.db import DataError, IntegrityError, transaction

    def twice():
        with transaction.atomic():
            Customer.objects.create(tenant=tenant, email="user1@mail.example")
    ok("one_address" in str(raises(IntegrityError, "a second row with the same address", twice)), "by its old name")
    raises(ValidationError, "which a form sees before",
           Customer(tenant=tenant, email="user1@mail.example", profile={"a": 1}, labels=["x"], ssn="1",
                    born="2001-01-01", seen=datetime.datetime.now(datetime.timezone.utc)).full_clean)

    def missing():
        with transaction.atomic():
            Customer.objects.create(tenant=tenant, email=None)
    raises(IntegrityError, "NOT NULL", missing)

    def long():
        with transaction.atomic():
            Customer.objects.create(tenant=tenant, email="long@mail.example", ssn="1" * 12)
    raises(DataError, "too long", long)
    customer, made = Customer.objects.get_or_create(tenant=tenant, email="user1@mail.example")
    ok(not made, "get_or_create finds")
    customer, made = Customer.objects.update_or_create(
        tenant=tenant, email="user1@mail.example", defaults={"ssn": "222-22-2222"})
    equal((made, Customer.objects.get(pk=customer.pk).ssn), (False, "222-22-2222"), "update_or_create updates")


def related(Customer, Order, anna):
    order = Order.objects.create(customer=anna, what="book")
    equal(Order.objects.select_related("customer").get(pk=order.pk).customer.ssn, "219-09-9999", "joined")
    equal(Order.objects.filter(customer__email=anna.email).count(), 1, "filtered through a relation")
    equal(Customer.objects.prefetch_related("orders").get(pk=anna.pk).orders.count(), 1, "prefetched")
    equal(list(Customer.objects.filter(pk=anna.pk).values("email").union(Customer.objects.filter(pk=0).values("email"))),
          [{"email": anna.email}], "a union")
    anna.delete()
    equal(Order.objects.count(), 0, "deleted with what hangs on it")


def migrate_protected():
    """The next release adds a column and an index, and renames a column."""
    from django.db import connection, migrations, models
    from django.db.migrations.loader import MigrationLoader
    state = MigrationLoader(connection).project_state()
    with connection.schema_editor() as editor:
        for operation in (migrations.AddField("customer", "phone", models.TextField(default="-")),
                          migrations.AddIndex("customer", models.Index(fields=["visits"], name="by_visits")),
                          migrations.RenameField("customer", "ssn", "tax_number")):
            after = state.clone()
            operation.state_forwards("shop", after)
            operation.database_forwards("shop", editor, state, after)
            state = after
    Customer = state.apps.get_model("shop", "Customer")
    equal(Customer.objects.filter(tax_number="222-22-2222").count(), 1, "renamed by a migration, it is read")
    Customer.objects.create(tenant_id=1, email="late@mail.example", tax_number="333-33-3333", phone="1")
    equal(Customer.objects.get(email="late@mail.example").tax_number, "333-33-3333", "and written")
    Customer.objects.create(tenant_id=1, email="later@mail.example")
    equal(Customer.objects.get(email="later@mail.example").phone, "-", "the new column has its default")


def main():
    set_up()
    migrate()
    from shop.models import Customer, Order, Tenant
    tap.protect("shop_customer", "tenant_id", PROTECTED, ["email"])
    tap.provision("shop_tenant", "id")
    tenant = Tenant.objects.create(name="acme")
    anna = create_and_read(Customer, tenant)
    filter_by_protected(Customer, tenant)
    update(Customer, tenant, anna)
    bulk(Customer, tenant)
    constraints(Customer, tenant)
    related(Customer, Order, anna)
    migrate_protected()
    tap.nothing_stored("shop_customer", ["email", "born", "balance", "profile"], "no plaintext is stored")


tap.finish(main)
