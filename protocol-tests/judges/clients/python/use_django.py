"""Django: its ORM, transactions and server-side cursors."""

import datetime
import decimal
import uuid

import django
from django.conf import settings

from judge import *

settings.configure(
    USE_TZ=True,
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "HOST": HOST,
            "PORT": PORT,
            "NAME": DATABASE,
            # Neither USER nor PASSWORD.
            "OPTIONS": {"sslmode": os.environ["PGSSLMODE"]},
        }
    },
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
)
django.setup()

from django.db import IntegrityError, connection, models, transaction  # noqa: E402
from django.db.utils import DataError  # noqa: E402


class Item(models.Model):
    name = models.TextField(unique=True)
    price = models.DecimalField(max_digits=30, decimal_places=9)
    seen = models.DateTimeField(null=True)
    key = models.UUIDField(default=uuid.uuid4)
    data = models.BinaryField(null=True)
    more = models.JSONField(null=True)

    class Meta:
        app_label = "judge"


class Part(models.Model):
    item = models.ForeignKey(Item, on_delete=models.CASCADE, related_name="parts")
    number = models.IntegerField()

    class Meta:
        app_label = "judge"


PRICE = decimal.Decimal("12345678901234567890.123456789")
WHEN = datetime.datetime(2024, 2, 29, 12, 30, 1, 5, datetime.timezone.utc)


def login():
    with connection.cursor() as cur:
        cur.execute("select current_user, current_database(), 6 * 7")
        same(cur.fetchone(), (ROLE, DATABASE, 42))
    same(connection.connection.pgconn.ssl_in_use, TLS, "TLS")


def parameters():
    with connection.schema_editor() as editor:
        editor.create_model(Item)
        editor.create_model(Part)
    Item.objects.create(name=TEXT, price=PRICE, seen=WHEN, data=BYTES, more={"ü": [1, None]})
    item = Item.objects.get(name=TEXT)
    same((item.price, item.seen, bytes(item.data), item.more),
         (PRICE, WHEN, BYTES, {"ü": [1, None]}))
    same(Item.objects.filter(more__ü__0=1, data__isnull=False).count(), 1)
    with connection.cursor() as cur:
        cur.execute("select md5(%s), %s", [BIG, BIG])
        same(cur.fetchone(), (BIG_MD5, BIG))


def batch():
    item = Item.objects.get(name=TEXT)
    Part.objects.bulk_create(Part(item=item, number=i) for i in range(1000))
    total = item.parts.aggregate(sum=models.Sum("number"), count=models.Count("id"))
    same(total, {"sum": 499500, "count": 1000})
    same(Part.objects.filter(number__lt=10).update(number=models.F("number") + 1), 10)
    same(Part.objects.select_related("item").order_by("number").last().item.name, TEXT)


def cursor():
    # A transaction keeps the cursor; without one Django declares it WITH HOLD.
    with transaction.atomic():
        rows = Part.objects.values_list("number", flat=True).iterator(chunk_size=100)
        same(sum(rows), 499510)
    same(sum(Part.objects.values_list("number", flat=True).iterator(chunk_size=100)), 499510)


def error():
    try:
        with transaction.atomic():
            Part.objects.all().delete()
            with connection.cursor() as cur:
                cur.execute("select 1 / 0")
    except DataError as failure:
        same(failure.__cause__.sqlstate, "22012")
    same(Part.objects.count(), 1000)
    with transaction.atomic():
        try:
            with transaction.atomic():
                Item.objects.create(name=TEXT, price=1)
        except IntegrityError as failure:
            same(failure.__cause__.sqlstate, "23505")
        Item.objects.create(name="after", price=1)
    same(Item.objects.filter(name="after").exists(), True)


def close():
    with connection.schema_editor() as editor:
        editor.delete_model(Part)
        editor.delete_model(Item)
    connection.close()


run(
    ("login", login),
    ("parameters", parameters),
    ("batch", batch),
    ("server-side cursor", cursor),
    ("error", error),
    ("close", close),
)
