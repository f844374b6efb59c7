"""The base of all tables, and the owners by which a row is recognized."""

from datetime import date, datetime
from typing import Any

from sqlalchemy import BigInteger, Boolean, Date, Double, ForeignKey, MetaData, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from memoair_cloud.database.columns import Json, UtcDateTime


class Base(DeclarativeBase):
    """The base of all tables. Constraints are named by convention, so that migrations can refer to them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {
        datetime: UtcDateTime(),
        date: Date(),
        bool: Boolean(),
        float: Double(),
        dict[str, Any]: Json(),
        list[str]: Json(),
        int: BigInteger(),
        str: Text(),
    }


class AccountOwned:
    """A row that belongs to an account."""

    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"), sort_order=-1)


class ProjectOwned:
    """A row that belongs to a project."""

    project_id: Mapped[str] = mapped_column(
        ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True, sort_order=-1
    )
