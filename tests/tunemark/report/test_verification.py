"""Seals show every edit of a store, and accuse no store that nobody touched."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tunemark.errors import BadStore
from tunemark.experiment import Plan
from tunemark.report.verification import sign_folder, verify_folder
from tunemark.results import Store

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))
from campaign.made_store import two_plans, write_attempt  # a store as the runner writes it

_EDITS = 200


@pytest.fixture(scope="module")
def plans() -> tuple[Plan, Plan]:
    return two_plans()


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, plans: tuple[Plan, Plan]) -> Path:
    root = tmp_path_factory.mktemp("sealed") / "runs"
    store = Store(root)
    for number in range(3):
        for plan in plans:
            write_attempt(store, plan, f"attempt-{number}", seconds=1.0 + number / 10)
    for plan in plans:
        store.write_result(store.result(plan.run_id))
    return root


def _states(root: Path) -> set[str]:
    return {part.state for part in verify_folder(root)}


def test_a_store_that_nobody_touched_is_whole(measured: Path, plans: tuple[Plan, Plan], tmp_path: Path) -> None:
    assert len(verify_folder(measured)) == 6
    assert _states(measured) == {"whole"}
    result = Store(measured).result(plans[0].run_id)
    assert (result.seal, [f.rule for f in result.findings if f.severity == "invalid"]) == ("whole", [])
    # Copied, merged with another store, read again: still nothing was touched.
    other = Store(tmp_path / "other")
    write_attempt(other, plans[0], "attempt-9")
    shutil.copytree(measured, tmp_path / "copy")
    for path in other.root.iterdir():
        if path.is_dir():
            shutil.copytree(path, tmp_path / "copy" / path.name, dirs_exist_ok=True)
    assert len(verify_folder(tmp_path / "copy")) == 7
    assert _states(tmp_path / "copy") == {"whole"}


def test_results_of_a_touched_store_are_invalid_and_say_what_was_touched(
    measured: Path, plans: tuple[Plan, Plan], tmp_path: Path
) -> None:
    root = Path(shutil.copytree(measured, tmp_path / "runs"))
    (path,) = root.glob(f"*-{plans[0].run_id}/attempt-1/records.0.jsonl")
    path.write_text(path.read_text().replace('"steps":8', '"steps": 8'))
    result = Store(root).result(plans[0].run_id)
    assert (result.seal, result.verdict) == ("touched", "invalid")
    (touched,) = [f for f in result.findings if f.rule == "touched"]
    assert "attempt 2" in touched.message
    assert "records.0.jsonl has changed" in touched.message
    assert re.search(r"records.0.jsonl, line \d+ does not follow", touched.message)


def test_an_attempt_whose_command_was_killed_is_unsealed_and_its_chain_still_shows_edits(
    plans: tuple[Plan, Plan], tmp_path: Path
) -> None:
    store = Store(tmp_path / "runs")
    folder = write_attempt(store, plans[0], "attempt-0", is_ended=False)
    assert _states(store.root) == {"unsealed"}
    path = folder / "records.1.jsonl"
    path.write_bytes(path.read_bytes()[:-20])  # a kill may cut the last line
    assert _states(store.root) == {"unsealed"}
    path.write_text("\n".join(line for number, line in enumerate(path.read_text().split("\n")) if number != 6))
    assert _states(store.root) == {"touched"}


def test_a_kill_between_the_seal_and_the_last_facts_accuses_nobody(plans: tuple[Plan, Plan], tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    folder = write_attempt(store, plans[0], "attempt-0", is_ended=False)
    before = (folder / "attempt.json").read_bytes()
    store.finish_attempt(plans[0], folder, {"series": "s", "status": "ok"})
    assert _states(store.root) == {"whole"}
    (folder / "attempt.json").write_bytes(before)
    assert _states(store.root) == {"unsealed"}
    (folder / "seal.json").unlink()
    assert _states(store.root) == {"unsealed"}


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs OpenSSH's ssh-keygen")
def test_a_signature_names_who_signed_and_does_not_fit_what_was_sealed_anew(measured: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(measured, tmp_path / "runs"))
    for name in ("ours", "theirs"):
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(tmp_path / name)]
        subprocess.run(words, check=True)
    allowed = tmp_path / "allowed"
    allowed.write_text(f"someone@example.org {(tmp_path / 'ours.pub').read_text()}")
    assert sign_folder(root, tmp_path / "ours") == 6
    assert {(part.state, part.signer) for part in verify_folder(root, allowed)} == {("whole", "someone@example.org")}
    (unnamed,) = {part.signer for part in verify_folder(root)}
    assert unnamed is not None
    assert "SHA256:" in unnamed
    # Another key signs what it likes; it is not one of those that count.
    sign_folder(root, tmp_path / "theirs")
    assert {part.state for part in verify_folder(root, allowed)} == {"touched"}
    # A seal of another attempt under this one's signature.
    one, other = sorted(root.glob("*/attempt-0"))
    sign_folder(root, tmp_path / "ours")
    shutil.copy(other / "seal.json", one / "seal.json")
    (touched,) = [part for part in verify_folder(root, allowed) if part.state == "touched"]
    assert "the signature does not fit" in touched.problems[0]


def _put_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _put_a_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def _nest_deeply(path: Path) -> None:
    path.write_text("[" * 100_000)


@pytest.mark.parametrize("name", ["attempt.json", "plan.json", "records.1.jsonl", "seal.json", "telemetry.jsonl"])
@pytest.mark.parametrize("hurt", [_put_a_pipe, _put_a_link, _nest_deeply])
def test_a_hostile_file_costs_its_own_attempt_alone(
    plans: tuple[Plan, Plan], tmp_path: Path, name: str, hurt: Callable[[Path], None]
) -> None:
    store = Store(tmp_path / "runs")
    hurt(write_attempt(store, plans[0], "attempt-0") / name)
    write_attempt(store, plans[1], "attempt-0")
    broken: list[Exception] = []
    again = Store(store.root)
    results = again.results(broken=broken.append)
    (good,) = [result for result in results if result.run_id == plans[1].run_id]
    assert (good.status, good.seal) == ("ok", "whole")
    bad = [result for result in results if result.run_id == plans[0].run_id]
    assert broken or bad[0].verdict == "invalid"
    assert sorted(part.state for part in verify_folder(store.root)) == ["touched", "whole"]


def test_a_plan_of_billions_of_processes_is_read_at_once(plans: tuple[Plan, Plan], tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    path = write_attempt(store, plans[0], "attempt-0") / "plan.json"
    path.write_text(path.read_text().replace('"processes": 2', '"processes": 1000000000'))
    assert store.result(plans[0].run_id).verdict == "invalid"


# -- two hundred edits


def _pick(root: Path, dice: random.Random) -> Path:
    return dice.choice(sorted(path for path in root.rglob("*") if path.is_file()))


def _flip_a_bit(root: Path, dice: random.Random) -> None:
    path = _pick(root, dice)
    content = bytearray(path.read_bytes())
    content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
    path.write_bytes(content)


def _edit_lines(edit: Callable[[list[bytes], random.Random], None]) -> Callable[[Path, random.Random], None]:
    def change(root: Path, dice: random.Random) -> None:
        path = _pick(root, dice)
        lines = path.read_bytes().splitlines(keepends=True)
        before = list(lines)
        edit(lines, dice)
        if lines == before:
            lines.append(b"\n")
        path.write_bytes(b"".join(lines))

    return change


def _drop_line(lines: list[bytes], dice: random.Random) -> None:
    del lines[dice.randrange(len(lines))]


def _repeat_line(lines: list[bytes], dice: random.Random) -> None:
    lines.insert(dice.randrange(len(lines)), dice.choice(lines))


def _swap_lines(lines: list[bytes], dice: random.Random) -> None:
    a, b = dice.randrange(len(lines)), dice.randrange(len(lines))
    lines[a], lines[b] = lines[b], lines[a]


def _cut(lines: list[bytes], dice: random.Random) -> None:
    del lines[dice.randrange(len(lines)) :]


def _change_number(root: Path, dice: random.Random) -> None:
    path = dice.choice(sorted(path for path in root.rglob("*.json*") if re.search(r"\d", path.read_text())))
    text = path.read_text()
    places = list(re.finditer(r"\d+", text))
    place = dice.choice(places)
    path.write_text(text[: place.start()] + str(int(place[0]) * 3 + 1) + text[place.end() :])


def _swap_files(root: Path, dice: random.Random) -> None:
    name = dice.choice(["records.0.jsonl", "records.1.jsonl", "attempt.json", "plan.json", "seal.json"])
    a, b = dice.sample(sorted(root.glob(f"*/*/{name}")), 2)
    first, second = a.read_bytes(), b.read_bytes()
    a.write_bytes(second)
    b.write_bytes(first)


def _swap_ranks(root: Path, dice: random.Random) -> None:
    a = dice.choice(sorted(root.glob("*/*/records.0.jsonl")))
    b = a.with_name("records.1.jsonl")
    first, second = a.read_bytes(), b.read_bytes()
    a.write_bytes(second.replace(b'"rank":1', b'"rank":0'))
    b.write_bytes(first.replace(b'"rank":0', b'"rank":1'))


def _swap_folders(root: Path, dice: random.Random) -> None:
    a, b = dice.sample(sorted(root.glob("*/attempt-*")), 2)
    a.rename(root / "aside")
    b.rename(a)
    (root / "aside").rename(b)


def _delete_file(root: Path, dice: random.Random) -> None:
    _pick(root, dice).unlink()


def _delete_attempt(root: Path, dice: random.Random) -> None:
    shutil.rmtree(dice.choice(sorted(root.glob("*/attempt-*"))))


def _copy_attempt(root: Path, dice: random.Random) -> None:
    one = dice.choice(sorted(root.glob("*/attempt-*")))
    shutil.copytree(one, one.with_name("attempt-7"))


def _add_file(root: Path, dice: random.Random) -> None:
    (dice.choice(sorted(root.glob("*/attempt-*"))) / "records.2.jsonl").write_text('{"kind":"start"}\n')


def _rename_run(root: Path, dice: random.Random) -> None:
    one = dice.choice(sorted(path for path in root.iterdir() if path.is_dir()))
    one.rename(one.with_name(one.name[:-1] + ("0" if one.name[-1] != "0" else "1")))


def _rescale_clocks(root: Path, dice: random.Random) -> None:
    """Make every second of an attempt shorter, on all its clocks, in all its files."""
    factor = dice.choice([1.01, 2.0, 3.0])
    for path in dice.choice(sorted(root.glob("*/attempt-*"))).glob("records.*.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for row in rows:
            row.update(
                {k: row[k] / factor for k in ("instant_s", "second_s", "witness_s", "busy_s", "own_s") if k in row}
            )
        path.write_text("".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows))


_KINDS: list[Callable[[Path, random.Random], None]] = [
    _flip_a_bit, _edit_lines(_drop_line), _edit_lines(_repeat_line), _edit_lines(_swap_lines), _edit_lines(_cut),
    _change_number, _swap_files, _swap_ranks, _swap_folders, _delete_file, _delete_attempt, _copy_attempt, _add_file,
    _rename_run, _rescale_clocks,
]  # fmt: skip


def test_two_hundred_edits_are_all_found(measured: Path, tmp_path: Path) -> None:
    missed = []
    for number in range(_EDITS):
        dice = random.Random(number)
        edit = _KINDS[number % len(_KINDS)]
        root = Path(shutil.copytree(measured, tmp_path / "runs"))
        edit(root, dice)
        try:
            found = _states(root)
        except BadStore:
            found = {"touched"}
        if found <= {"whole"}:
            missed.append((number, edit))
        shutil.rmtree(root)
    assert missed == []
