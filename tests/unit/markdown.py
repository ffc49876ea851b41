"""Markdown as far as the project's pages use it: a page's text in, its prose, code blocks, links and headings out."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

FENCE = "```"
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
SPAN = re.compile(r"`([^`]+)`")
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_HEADING = re.compile(r"#{1,6} +(.*)")
_INDENTED = " " * 4


@dataclass(frozen=True)
class Block:
    """A block of code. ``language``: what its fence names, empty if nothing; ``line`` of the page, from 1."""

    language: str
    line: int
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Page:
    """One page: where it stands, and its text."""

    path: Path
    text: str

    @classmethod
    def read(cls, path: Path) -> Page:
        return cls(path, path.read_text(encoding="utf-8"))

    @cached_property
    def _parts(self) -> tuple[tuple[str, ...], tuple[Block, ...]]:
        """Lines of prose, and blocks."""
        prose: list[str] = []
        blocks: list[Block] = []
        fenced: Block | None = None
        for number, line in enumerate(self.text.splitlines(), start=1):
            if line.startswith(FENCE):
                if fenced is not None:
                    blocks.append(fenced)
                fenced = Block(line.removeprefix(FENCE), number, ()) if fenced is None else None
            elif fenced is not None:
                fenced = Block(fenced.language, fenced.line, (*fenced.lines, line))
            elif line.startswith(_INDENTED):
                blocks.append(Block("", number, (line.strip(),)))
            else:
                prose.append(line)
        assert fenced is None, f"{self.path}:{fenced.line}: this block has no end"
        return tuple(prose), tuple(blocks)

    @property
    def prose(self) -> tuple[str, ...]:
        return self._parts[0]

    @property
    def blocks(self) -> tuple[Block, ...]:
        return self._parts[1]

    @cached_property
    def links(self) -> tuple[str, ...]:
        return tuple(LINK.findall("\n".join(self.prose)))

    @cached_property
    def spans(self) -> tuple[str, ...]:
        """Code within prose."""
        return tuple(span for line in self.prose for span in SPAN.findall(line))

    @cached_property
    def anchors(self) -> frozenset[str]:
        """What a link to a heading of this page may be called, as GitHub does it: the second of a name has ``-1``."""
        seen: Counter[str] = Counter()
        found = []
        for line in self.prose:
            if match := _HEADING.fullmatch(line):
                name = re.sub(r"[^\w\- ]", "", match[1].lower()).strip().replace(" ", "-")
                found.append(f"{name}-{seen[name]}" if seen[name] else name)
                seen[name] += 1
        return frozenset(found)

    def section(self, heading: str) -> Page:
        """From one heading to the next, of whatever level; the page it is in must have it."""
        lines = self.text.splitlines()
        titles = [index for index, line in enumerate(lines) if _HEADING.fullmatch(line)]
        start = next(index for index in titles if _HEADING.fullmatch(lines[index])[1] == heading)  # type: ignore[index]
        end = next((index for index in titles if index > start), len(lines))
        return Page(self.path, "\n".join(lines[start:end]))

    @cached_property
    def first_column(self) -> list[str]:
        """Code spans in the first column of its tables."""
        return [span for line in self.prose if line.startswith("|") for span in SPAN.findall(line.split("|")[1])]

    @cached_property
    def sentences(self) -> tuple[str, ...]:
        """Of the prose, cells of tables among it, as a reader sees them; commands, which are no words, left out."""
        text = re.sub(r"`(?:uv run )?harness [^`]*`", "", COMMENT.sub("", "\n".join(self.prose)))
        text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text).replace("\\|", "/")
        pieces = re.split(r"(?<=[.!?:;])\s+|\s*\|\s*|\n", text)
        return tuple(" ".join(re.sub(r"[`*#]|^\s*(?:[-]|\d+\.)\s", "", piece).split()) for piece in pieces)
