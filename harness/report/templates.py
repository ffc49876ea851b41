"""The files beside this one that pages are made of. Every value that goes into a template is escaped."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Template


def resource(name: str) -> str:
    """The text of a file: a template, a style, a script."""
    return resources.files("harness.report").joinpath(name).read_text(encoding="utf-8")


def template(name: str) -> Template:
    """A template, in which a name that has no value is an error."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(resource),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)
