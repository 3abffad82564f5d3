"""SQLAlchemy: Core and ORM, over psycopg 3 and over psycopg2."""

import datetime
import decimal

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from judge import *


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "alchemy_item"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.Text, unique=True)
    price: Mapped[decimal.Decimal] = mapped_column(sa.Numeric(30, 9))
    seen: Mapped[datetime.datetime | None] = mapped_column(sa.DateTime(timezone=True))
    data: Mapped[bytes | None]
    more: Mapped[dict | None] = mapped_column(sa.JSON)


def steps(driver):
    # Neither user nor password in it: the driver takes the rest from the environment.
    engine = sa.create_engine(f"postgresql+{driver}://{HOST}:{PORT}/{DATABASE}", pool_size=3)
    price = decimal.Decimal("12345678901234567890.123456789")
    when = datetime.datetime(2024, 2, 29, 12, 30, 1, 5, datetime.timezone.utc)

    def login():
        with engine.connect() as con:
            row = con.execute(sa.text("select current_user, current_database(), 6 * 7")).one()
            same(tuple(row), (ROLE, DATABASE, 42))

    def parameters():
        Base.metadata.drop_all(engine)
        Base.metadata.create_all(engine)
        with Session(engine) as session:
            session.add(Item(name=TEXT, price=price, seen=when, data=BYTES, more={"ü": [1, None]}))
            session.add(Item(name=BIG[:1000], price=1, data=None))
            session.commit()
        with Session(engine) as session:
            item = session.scalars(sa.select(Item).where(Item.name == TEXT)).one()
            same((item.price, item.seen, item.data, item.more),
                 (price, when, BYTES, {"ü": [1, None]}))
            none = sa.select(sa.func.count()).where(Item.data.is_(None))
            same(session.scalar(none), 1)
            big = sa.text("select md5(cast(:big as text)), cast(:big as text)")
            same(tuple(session.execute(big, {"big": BIG}).one()), (BIG_MD5, BIG))

    def batch():
        with Session(engine) as session:
            session.add_all(Item(name=f"n{i}", price=i) for i in range(1000))
            session.commit()
            total = sa.select(sa.func.sum(Item.price)).where(Item.name.regexp_match("^n[0-9]"))
            same(session.scalar(total), 499500)

    def prepared():
        with engine.connect() as con:
            square = sa.text("select cast(:i as int) * cast(:i as int)")
            same(sum(con.scalar(square, {"i": i}) for i in range(1, 11)), 385)

    def cursor():
        with engine.connect().execution_options(stream_results=True, yield_per=100) as con:
            rows = con.execute(sa.text("select generate_series(1, 1000)"))
            same(sum(row[0] for row in rows), 500500)

    def error():
        with Session(engine) as session:
            try:
                session.execute(sa.text("select 1 / 0"))
            except sa.exc.DBAPIError as failure:
                state = getattr(failure.orig, "sqlstate", None) or failure.orig.pgcode
                same(state, "22012")
            session.rollback()
            try:
                with session.begin_nested():
                    session.add(Item(name=TEXT, price=1))
            except sa.exc.IntegrityError as failure:
                state = getattr(failure.orig, "sqlstate", None) or failure.orig.pgcode
                same(state, "23505")
            session.add(Item(name="after", price=1))
            session.commit()
            same(session.scalar(sa.select(Item.name).where(Item.name == "after")), "after")

    def close():
        Base.metadata.drop_all(engine)
        engine.dispose()

    return [
        (f"{name} with {driver}", step)
        for name, step in [
            ("login", login),
            ("parameters", parameters),
            ("batch", batch),
            ("prepared", prepared),
            ("server-side cursor", cursor),
            ("error", error),
            ("close", close),
        ]
    ]


run(*steps("psycopg"), *steps("psycopg2"))
