"""What all tables share: the names of constraints, types, and CHECKs of the size of a column."""

import re

from sqlalchemy import CheckConstraint, DateTime, MetaData, text

from callgate.domain import bounds

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

PARTITION_NAME = re.compile(r"ai_call_log_(\d{4}_\d{2}|default)")
"""Partitions come and go without a migration. Comparisons of the schema leave them out."""

TIME = DateTime(timezone=True)
NOW = text("now()")

NAME = f"char_length({{}}) <= {bounds.NAME_CHARS_MAX}"
PROCESS = f"char_length({{}}) <= {bounds.PROCESS_CHARS_MAX}"
ERROR = f"octet_length({{}}) <= {bounds.ERROR_MAX_BYTES}"
WORDS = f"char_length({{}}) <= {bounds.OPERATOR_TEXT_CHARS_MAX}"
HASH = f"octet_length({{}}) = {bounds.HASH_BYTES}"


def bounded(**columns: str) -> list[CheckConstraint]:
    """Make a CHECK for each column: a condition in which `{}` stands for the column's name."""
    return [
        CheckConstraint(condition.format(name), name=f"{name}_is_bounded")
        for name, condition in columns.items()
    ]
