"""Draws who imports whom, as the code has it: `python docs/architecture.py` writes architecture.svg."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

_ROOT = Path(__file__).parents[1]
_HARNESS = _ROOT / "harness/tunemark"
_SVG = Path(__file__).with_suffix(".svg")
_WORKER, _FACTS, _RUNTIMES = "tunemark_worker", "plugins: plugin.py", "plugins: runtime.py"
# Run in the timed process.
_TIMED = (_WORKER, _RUNTIMES)
# Column of a station beside the middle one, where most stand.
_COLUMNS = {"scaffold": -2, "data": -1, "launch": 1, _FACTS: 1, _RUNTIMES: 2}
_WIDTH, _HEIGHT, _GAP, _ROW = 150, 34, 30, 62
_FONT = "font-family='sans-serif' font-size='14'"


def read_imports() -> dict[str, set[str]]:
    """The stations that each station imports, without those of type checking alone. A station is a folder."""
    stations = {path.parent.name for path in _HARNESS.glob("*/__init__.py")}
    files = {path: path.relative_to(_HARNESS).parts[0] for path in _HARNESS.glob("*/**/*.py")}
    files |= dict.fromkeys((_ROOT / "harness" / _WORKER).rglob("*.py"), _WORKER)
    for path in (_ROOT / "plugins").rglob("*.py"):
        files[path] = _RUNTIMES if path.name == "runtime.py" or "parallel" in path.parts else _FACTS
    found: dict[str, set[str]] = {name: set() for name in files.values()}
    for path, name in files.items():
        for module in _imported(ast.parse(path.read_text())):
            top, _, rest = module.partition(".")
            other = _WORKER if top == _WORKER else rest.partition(".")[0] if top == "tunemark" else ""
            if other != name and other in {*stations, _WORKER}:
                found[name].add(other)
    return found


def _imported(node: ast.AST) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            yield from (f"{child.module}.{alias.name}" for alias in child.names)
        elif not (isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING")):
            yield from _imported(child)


def _reached(name: str, imports: Mapping[str, set[str]]) -> set[str]:
    return imports[name].union(*(_reached(other, imports) for other in imports[name]))


def _route(here: tuple[int, int], there: tuple[int, int], *, is_outward: bool) -> str:
    """The path between two boxes: down within a column, else sideways first where it leads away from the middle."""
    (x, y), (to_x, to_y) = here, there
    if x == to_x:
        return f"M{x + _WIDTH // 2} {y + _HEIGHT}V{to_y}"
    is_right = to_x > x
    if is_outward:
        return f"M{x + _WIDTH * is_right} {y + _HEIGHT // 2}H{to_x + _WIDTH // 2}V{to_y}"
    return f"M{x + _WIDTH // 2} {y + _HEIGHT}V{to_y + _HEIGHT // 2}H{to_x + _WIDTH * (not is_right)}"


def make_svg() -> str:
    """The picture. An arrow points at what is imported; one that follows from two others is left out."""
    imports = read_imports()
    rows: dict[str, int] = {}
    while len(rows) < len(imports):
        # A circle of imports would end here, with nothing left to place.
        ready = [n for n in imports if n not in rows and imports[n] <= rows.keys()]
        assert ready, f"a circle of imports among {sorted(imports.keys() - rows.keys())}"
        rows |= {name: max((rows[n] + 1 for n in imports[name]), default=0) for name in ready}
    top, left = max(rows.values()), -min(_COLUMNS.values())
    taken: dict[tuple[int, int], str] = {}
    for name in sorted(rows):
        column = _COLUMNS.get(name, 0)
        while (column, rows[name]) in taken:
            column += 1
        taken[column, rows[name]] = name
    columns = {name: column for (column, _), name in taken.items()}
    places = {
        name: ((column + left) * (_WIDTH + _GAP) + _GAP, (top - row) * _ROW + _GAP)
        for (column, row), name in taken.items()
    }
    width = max(x for x, _ in places.values()) + _WIDTH + _GAP
    height = max(y for _, y in places.values()) + _HEIGHT + _GAP
    lines = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' width='{width}' role='img'>",
        "<title>The stations of tunemark: an arrow points at what is imported</title>",
        "<defs><marker id='arrow' viewBox='0 0 8 8' refX='8' refY='4' markerWidth='8' markerHeight='8' orient='auto'>"
        "<path d='M0 0L8 4L0 8z' fill='#555'/></marker></defs>",
        f"<rect width='{width}' height='{height}' fill='#fff'/>",
    ]
    for name in sorted(imports):
        for other in sorted(imports[name] - set().union(*(_reached(n, imports) for n in imports[name]))):
            path = _route(places[name], places[other], is_outward=abs(columns[other]) > abs(columns[name]))
            lines.append(f"<path d='{path}' fill='none' stroke='#555' marker-end='url(#arrow)'/>")
    for name, (x, y) in sorted(places.items()):
        fill = "#fde8cd" if name in _TIMED else "#e3edf9"
        lines.append(f"<rect x='{x}' y='{y}' width='{_WIDTH}' height='{_HEIGHT}' rx='4' fill='{fill}' stroke='#555'/>")
        at = f"x='{x + _WIDTH // 2}' y='{y + 22}'"
        lines.append(f"<text {at} {_FONT} text-anchor='middle' fill='#111'>{name}</text>")
    for number, (fill, words) in enumerate((("#e3edf9", "in your process"), ("#fde8cd", "in the timed process"))):
        y = _GAP + 26 * number
        lines.append(f"<rect x='{width - 200}' y='{y}' width='16' height='16' fill='{fill}' stroke='#555'/>")
        lines.append(f"<text x='{width - 176}' y='{y + 13}' {_FONT} fill='#111'>{words}</text>")
    return "\n".join([*lines, "</svg>"]) + "\n"


if __name__ == "__main__":
    _SVG.write_text(make_svg())
