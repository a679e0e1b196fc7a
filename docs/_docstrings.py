"""Converts the project's docstrings to the reStructuredText that Sphinx reads.

In these docstrings single backticks are code, and formulas and small tables are paragraphs that
keep their spaces. A field is documented by the string below it, or by a comment after it.
"""

import ast
import importlib
import inspect
import re
import textwrap
import tokenize
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any

from sphinx.application import Sphinx
from sphinx.ext.napoleon.docstring import GoogleDocstring
from sphinx.pycode import ModuleAnalyzer

import metarl

SECTION = re.compile(r"[A-Z]\w+:$")
"""section heading of a Google-style docstring: a line such as `Args:`"""
COLUMNS = re.compile(r"\S {2,}\S")
"""spaces that align columns, which a paragraph would lose"""


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers the hooks."""
    app.connect("builder-inited", _show_comments)
    app.connect("autodoc-process-docstring", _process_docstring)
    app.connect("autodoc-process-signature", _process_signature)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def public_names() -> dict[str, str]:
    """Public names of the library and the modules that define them, from the stub file."""
    stub = Path(metarl.__file__).with_suffix(".pyi").read_text(encoding="utf-8")
    return {
        alias.name: f"metarl.{node.module}"
        for node in ast.parse(stub).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def field_texts(cls: type) -> dict[str, str]:
    """The documentation of each field: the string below it, else the comment after it.

    Fields of base classes are included; a text in a derived class overrides that of its base.
    """
    texts: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        texts |= _texts_in(base)
    if is_dataclass(cls):  # families of ordinary environments keep it in the metadata
        texts |= {f.name: f.metadata["help"] for f in fields(cls) if "help" in f.metadata}
    return texts


def alias_text(module: ModuleType, name: str) -> str:
    """The string below an annotated name at the top level of a module."""
    return _texts_in(module).get(name, "")


def _texts_in(thing: type | ModuleType) -> dict[str, str]:
    try:
        source = textwrap.dedent(inspect.getsource(thing))
    except (OSError, TypeError):  # built-in or interactive
        return {}
    body = ast.parse(source).body
    if isinstance(body[0], ast.ClassDef):
        body = body[0].body
    comments = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    texts = {}
    for node, below in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            text = _string(below) or comments.get(node.end_lineno or 0)
            if text:
                texts[node.target.id] = " ".join(text.split())
    return texts


def _string(node: ast.stmt | None) -> str | None:
    """The text of a statement that is only a string."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return node.value.value if isinstance(node.value.value, str) else None
    return None


def first_line(thing: Any) -> str:
    """The first line of a docstring."""
    return (inspect.getdoc(thing) or "").partition("\n")[0]


def linked(text: str) -> str:
    """The text with links for arXiv numbers and DOIs."""
    text = re.sub(r"(?:arXiv:)?\b(\d{4}\.\d{5})\b", r"[arXiv:\1](https://arxiv.org/abs/\1)", text)
    return re.sub(r"\bdoi:(\S+\w)", r"[doi:\1](https://doi.org/\1)", text)


def as_rest(lines: Sequence[str]) -> list[str]:
    """A docstring's lines with code and literal blocks marked up in reStructuredText.

    Sections such as `Args:` keep their form, which napoleon reads.
    """
    rest: list[str] = []
    section = literal = False
    for paragraph in _paragraphs(lines):
        indented = paragraph[0].startswith(" ")
        section = bool(SECTION.match(paragraph[0])) or (section and indented)
        was_literal = literal
        literal = not section and (indented or any(map(COLUMNS.search, paragraph)))
        if not literal:
            paragraph = [_double_backticks(line) for line in paragraph]
        else:
            rest += [] if was_literal else ["::", ""]
            paragraph = [f"    {line}" for line in paragraph]
        rest += [*paragraph, ""]
    return rest


def _paragraphs(lines: Sequence[str]) -> list[list[str]]:
    """Groups of consecutive lines that are not empty."""
    text = "\n".join(line.rstrip() for line in lines).strip("\n")
    return [part.split("\n") for part in re.split(r"\n{2,}", text) if part]


def _double_backticks(line: str) -> str:
    return re.sub(r"(?<![`:])`([^`]+)`(?!`)", r"``\1``", line)


def _show_comments(app: Sphinx) -> None:
    """Adds comments of fields to Sphinx, which only reads the strings below them."""
    for home in {*public_names().values()}:
        module = importlib.import_module(home)
        analyzer = ModuleAnalyzer.for_module(module.__name__)
        analyzer.analyze()
        for name, cls in inspect.getmembers(module, inspect.isclass):
            for field, text in _texts_in(cls).items() if cls.__module__ == module.__name__ else ():
                analyzer.attr_docs.setdefault((name, field), [text, ""])


def _process_docstring(
    app: Sphinx, what: Any, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Rewrites one docstring in place."""
    # For an attribute, napoleon would read the text before a colon as the type.
    kind: Any = "method" if what in ("attribute", "property") else what
    lines[:] = GoogleDocstring(as_rest(lines), what=kind, name=name, obj=obj).lines()


def _process_signature(
    app: Sphinx, what: str, name: str, obj: object, options: object, signature: str, result: str
) -> tuple[str, str] | None:
    """Removes generated parts: the signature of a protocol, and `<factory>` defaults."""
    if getattr(obj, "_is_protocol", False):
        return "", result
    return (signature.replace("<factory>", "..."), result) if signature else None
