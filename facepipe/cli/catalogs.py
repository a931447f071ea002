"""Which catalog a command is about: `--catalog`, or the only one that lies here."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from facepipe.cli.common import PlacePath
from facepipe.errors import InputError, UsageError
from facepipe.text import printable

if TYPE_CHECKING:
    from facepipe.groups.groups import Groups

_F = TypeVar("_F", bound=Callable[..., Any])
_PATH = PlacePath()


def catalog_option(command: _F) -> _F:
    """`--catalog FILE`."""
    return click.option(
        "--catalog",
        type=_PATH,
        envvar="FACEPIPE_CATALOG",
        help="Catalog of a scan or batch, or the results beside it; default: the only one in this folder.",
    )(command)


def catalog_argument(command: Callable[..., Any]) -> Callable[..., Any]:
    """The catalog as an argument that may be left out, or given by `--catalog` as to the other commands."""

    @functools.wraps(command)
    def called(catalog: Path | None, catalog_given: Path | None, **values: Any) -> Any:
        if catalog is not None and catalog_given is not None and _named("catalog"):
            raise UsageError("give the catalog once: as an argument, or by --catalog")
        return command(catalog=catalog_given or catalog, **values)

    return click.argument("catalog_given", metavar="[CATALOG]", type=_PATH, required=False)(catalog_option(called))


def _named(option: str) -> bool:
    """Say whether an option stands on the command line itself."""
    return click.get_current_context().get_parameter_source(option) is click.core.ParameterSource.COMMANDLINE


def the_catalog(given: Path | None) -> Path:
    """Return the catalog that is meant.

    Errors: UsageError when none was named and there is not exactly one here; InputError when there is no such one.
    """
    from facepipe.catalog.store import SUFFIX, catalog_path

    found = catalogs_here()
    if given is not None and not given.name:
        raise UsageError(f"{str(given)!r} is no file: name a catalog")
    if given is not None:
        beside = catalog_path(given)
        path = beside if not given.name.endswith(SUFFIX) and beside.is_file() else given
        if found and not os.path.lexists(path):
            here = ", ".join(printable(path) for path in found[:5])
            raise InputError(
                f"{printable(path)}: no such catalog; {'here is' if len(found) == 1 else 'here are'} {here}"
            )
        return path
    if len(found) == 1:
        return found[0]
    if not found:
        raise InputError("there is no catalog in this folder: facepipe scan PHOTOS --catalog pile.catalog makes one")
    raise UsageError(f"which catalog? Name one of {', '.join(printable(path) for path in found[:5])}")


def catalogs_here() -> list[Path]:
    """Return the catalogs in this folder."""
    from facepipe.catalog.store import SUFFIX

    return sorted(path for path in Path().glob(f"*{SUFFIX}") if path.is_file())


def open_groups(given: Path | None, gallery: Path) -> Groups:
    """Open the groups of a catalog. A gallery's folder that is not there yet is no error."""
    from facepipe.groups.groups import Groups

    return Groups(the_catalog(given), gallery)


def require_grouped(groups: Groups, catalog: Path) -> None:
    """InputError when the faces were never grouped."""
    if groups.threshold is None:
        raise InputError(f"{printable(catalog)}: its faces are not grouped yet: facepipe cluster {printable(catalog)}")
