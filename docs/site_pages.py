"""Hooks of MkDocs (mkdocs.yml): pages and reports from outside docs/, and links as the repository has them.

A link to a file that is part of the site leads there. One to any other file of the repository becomes the file's path.
One to nothing is left as it is, and ends a strict build.
"""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

_ROOT = Path(__file__).parents[1]
# Pages of the site by the file that they are made of.
_PAGES = {
    "README.md": "index.md",
    "README.ko.md": "ko/index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "benchmarks/README.md": "benchmarks.md",
}
_SOURCES = {page: source for source, page in _PAGES.items()}
# What stands for a folder of reports, or for a report's Markdown.
_REPORTS = {
    "reports/example": "gallery.md",
    "reports/example/report.md": "reports/example/report.html",
    "reports/example/ko/report.md": "reports/example/ko/report.html",
}
_CODE = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(!?)\[([^\]]+)\]\(([^)\s#]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: Any, **_: Any) -> Files:
    for source, page in _PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(_ROOT / source)))
    for path in sorted((_ROOT / "reports").rglob("*")):
        # MkDocs would make a page of Markdown, in the place of the report's own.
        if path.is_file() and path.suffix != ".md":
            files.append(File.generated(config, path.relative_to(_ROOT).as_posix(), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, files: Files, **_: Any) -> str:
    own = page.file.src_uri
    folder = os.path.dirname(_SOURCES.get(own, f"docs/{own}"))

    def rewrite(match: re.Match[str]) -> str:
        image, words, target, fragment = match[1], match[2], match[3], match[4] or ""
        if "://" in target:
            return match[0]
        path = os.path.normpath(os.path.join(folder, target))
        uri = {**_PAGES, **_REPORTS}.get(path, path.removeprefix("docs/"))
        if files.get_file_from_path(uri):
            return f"{image}[{words}]({os.path.relpath(uri, os.path.dirname(own) or '.')}{fragment})"
        if not path.startswith("docs/") and (_ROOT / path).exists():
            return f"`{path}`" if words.strip("`") in (path, target) else f"{words} (`{path}`)"
        return match[0]

    if own == "api/plugin.md":
        markdown += _plugin_interface()
    parts = _CODE.split(markdown)
    for n, part in enumerate(parts):
        if not part.startswith("```"):
            # Python-Markdown takes "[a] [b]" for a link, and wants an empty line before a list or a table.
            part = _LINK.sub(rewrite, part).replace("] [", "] \\[")
            parts[n] = re.sub(r"^([^\s|>#-].*)\n(?=- |\| )", r"\1\n\n", part, flags=re.MULTILINE)
    return "".join(parts)


def _plugin_interface() -> str:
    """Everything that `tunemark.plugin` exports, by the module that defines it."""
    lines = []
    for node in ast.parse((_ROOT / "harness/tunemark/plugin/__init__.py").read_text()).body:
        if isinstance(node, ast.ImportFrom):
            heading = f"\n## {str(node.module).rpartition('.')[2].capitalize()}\n"
            lines += [heading] if heading not in lines else []
            lines += [
                f"\n::: {node.module}.{alias.name}\n    options:\n      heading_level: 3\n" for alias in node.names
            ]
    return "".join(lines)


def on_post_page(output: str, page: Any, **_: Any) -> str:
    is_korean = page.file.src_uri.startswith("ko/")
    return output.replace('<html lang="en"', '<html lang="ko"', 1) if is_korean else output
