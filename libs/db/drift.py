"""Compares the schema that migrations made with the one in the code; for a test in each service."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Inspector, MetaData, Table

from libs.db.migrations import SCHEMA_VERSION
from libs.db.tx import Tx


def schema_drift(tx: Tx, metadata: MetaData) -> list[str]:
    """Every difference in tables, columns (name, type, nullability, primary key), indexes, unique
    constraints and foreign keys, as a sentence; empty when there is none."""
    inspector = tx.inspector()
    present = set(inspector.get_table_names()) - {SCHEMA_VERSION.name}
    found = list(_sides("table {}", present, metadata.tables))
    for name in sorted(present & set(metadata.tables)):
        found += _table(inspector, metadata.tables[name])
    return sorted(found)


def _table(inspector: Inspector, table: Table) -> Iterable[str]:
    name = table.name
    columns = {column["name"]: column for column in inspector.get_columns(name)}
    yield from _sides(f"{name}.{{}}", columns, table.c.keys())
    for column in table.columns:
        other = columns.get(column.name)
        if other is None:
            continue
        want = column.type.dialect_impl(inspector.dialect)
        if str(other["type"]) != str(want.compile(inspector.dialect)):
            yield f"{name}.{column.name} is {other['type']} in the database"
        if other["nullable"] != column.nullable:
            yield f"{name}.{column.name} differs in NOT NULL"
    keys = inspector.get_pk_constraint(name)["constrained_columns"]
    if keys != [column.name for column in table.primary_key]:
        yield f"{name}: the primary key is {keys} in the database"
    yield from _indexes(inspector, table)


def _indexes(inspector: Inspector, table: Table) -> Iterable[str]:
    present = {str(index["name"]) for index in inspector.get_indexes(table.name)}
    present |= {str(unique["name"]) for unique in inspector.get_unique_constraints(table.name)}
    wanted = {str(index.name) for index in table.indexes}
    wanted |= {
        str(constraint.name)
        for constraint in table.constraints
        if type(constraint).__name__ == "UniqueConstraint"
    }
    yield from _sides(f"{table.name}: index {{}}", present - {"None"}, wanted - {"None"})
    foreign = {
        (tuple(key["constrained_columns"]), key["referred_table"])
        for key in inspector.get_foreign_keys(table.name)
    }
    wanted_foreign = {
        (tuple(c.name for c in key.columns), key.referred_table.name)
        for key in table.foreign_key_constraints
    }
    if foreign != wanted_foreign:
        yield f"{table.name}: foreign keys differ: {sorted(foreign ^ wanted_foreign)}"


def _sides(sentence: str, present: Iterable[str], wanted: Iterable[str]) -> Iterable[str]:
    present, wanted = set(present), set(wanted)
    yield from (f"{sentence.format(name)} is not in the code" for name in present - wanted)
    yield from (f"{sentence.format(name)} is not in the database" for name in wanted - present)
