"""A table of claims: its columns, its locales, and cells that are no numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from tunemark.errors import BadData
from tunemark.physics.parameters import count_parameters
from tunemark.plugin.claims import Claim, ClaimedLayout
from tunemark_importers import claims_csv

Printed = Callable[[str], str]
ClaimsOf = Callable[[str, str], Sequence[Claim]]
HEADER = "id,model,device,n_devices,tokens_per_s_total"


def test_a_full_row_fills_a_claim(printed: Printed, claims_of: ClaimsOf) -> None:
    claim = claims_of("claims", printed("claims.csv"))[0]
    assert (claim.id, claim.source) == ("e1", "example/bench:README.md")
    assert (claim.tokens_per_s, claim.tokens_per_s_per_device) == (99200.0, 6200.0)
    assert (claim.step_time_s, claim.memory_bytes, claim.tflops_per_device) == (2.6426, 61.2e9, 352.0)
    assert (claim.mfu, claim.parameters, claim.count, claim.sequence) == (0.356, 8.03e9, 16, 8192)
    assert claim.layout == ClaimedLayout(
        dp=16, tp=1, pp=1, cp=1, global_batch=32, micro_batch=2, gradient_accumulation=1, checkpointing="selective"
    )
    # Llama 3.1 8B by its dimensions: 8,030,261,248 parameters.
    assert claim.architecture is not None
    assert count_parameters(claim.architecture).total == 8030261248
    assert claim.origin["tokens_per_s"] == "'99200.0' in column tokens_per_s_total, line 2"
    assert claim.origin["version"] == "v1 2025-01"
    # The stage of sharding is no degree of parallelism.
    assert claim.notes == ("fsdp: 3", "compile: Y", "made up, with a comma")


def test_what_the_tokens_are_is_left_open(printed: Printed, claims_of: ClaimsOf) -> None:
    for claim in claims_of("claims", printed("claims.csv")):
        assert (claim.counts, claim.scope) == (None, "job")
        assert "leaves open" in claim.meaning


def test_tasks_are_methods(printed: Printed, claims_of: ClaimsOf) -> None:
    assert [claim.method for claim in claims_of("claims", printed("claims.csv"))] == ["full", "lora", "full", None]


def test_all_but_a_rate_and_what_it_is_of_may_be_blank(printed: Printed, claims_of: ClaimsOf) -> None:
    claim = claims_of("claims", printed("claims.csv"))[3]
    assert (claim.id, claim.source) == ("here#4", "a file, line 5")
    assert (claim.tokens_per_s, claim.tokens_per_s_per_device) == (None, 10250.0)
    assert claim.architecture is None
    assert claim.layout == ClaimedLayout()


def test_units_in_cells_are_understood(printed: Printed, claims_of: ClaimsOf) -> None:
    claim = claims_of("claims", printed("claims.csv"))[2]
    assert (claim.tokens_per_s_per_device, claim.step_time_s, claim.mfu) == (5100.0, 0.82, 0.315)


def test_a_rate_that_cannot_be_read_is_a_note_and_never_a_zero(printed: Printed, claims_of: ClaimsOf) -> None:
    claim = claims_of("claims", printed("claims.csv"))[2]
    assert claim.tokens_per_s is None
    assert claim.notes == ("tokens_per_s_total is 'about 20k' in line 4, which cannot be read as one number",)


@pytest.mark.parametrize("cell", ["0", "-5", "inf", "nan", "12 apples", "1e999", "40 %"])
def test_a_rate_is_a_positive_number(claims_of: ClaimsOf, cell: str) -> None:
    (claim,) = claims_of("claims", f"{HEADER}\na,m,d,8,{cell}\n")
    assert claim.tokens_per_s is None
    assert len(claim.notes) == 1


@pytest.mark.parametrize(
    ("cell", "value"),
    [("5500", 5500.0), ('"99,200 tok/s"', 99200.0), ("1.2M", 1.2e6), ("48.9k tokens/s", 48900.0), ("1e5", 1e5)],
)
def test_a_rate_may_have_its_unit(claims_of: ClaimsOf, cell: str, value: float) -> None:
    (claim,) = claims_of("claims", f"{HEADER}\na,m,d,8,{cell}\n")
    assert (claim.tokens_per_s, claim.notes) == (value, ())


def test_semicolons_a_byte_order_mark_and_decimal_commas(printed: Printed, claims_of: ClaimsOf) -> None:
    first, second = claims_of("claims", "\ufeff" + printed("claims-semicolon.csv"))
    assert (first.tokens_per_s, first.step_time_s, first.mfu, first.parameters) == (28412.5, 2.31, 0.41, 7.24e9)
    # 55.120 is no 55 tokens/s in a table that writes decimal commas.
    assert (second.tokens_per_s, second.mfu) == (55120.0, 0.395)
    assert first.notes == ("reviewer: A. Example",)


def test_a_lone_comma_that_could_be_either_is_not_read(claims_of: ClaimsOf) -> None:
    (claim,) = claims_of("claims", "model;device;tokens_per_s_total\nm;d;28,412\n")
    assert claim.tokens_per_s is None
    (claim,) = claims_of("claims", 'model,device,tokens_per_s_total\nm,d,"28,412"\n')
    assert claim.tokens_per_s == 28412.0


def test_tabulators_divide_too(printed: Printed, claims_of: ClaimsOf) -> None:
    (claim,) = claims_of("claims", printed("claims-tabs.tsv"))
    assert (claim.model, claim.count, claim.tokens_per_s_per_device) == ("Llama-2-7B", 64, 8101.5)


def test_an_mfu_above_ten_peaks_is_no_fraction(claims_of: ClaimsOf) -> None:
    table = "model,device,mfu_reported\nm,d,{}\nm,d,0.4\nm,d,0.5\n"
    assert [claims_of("claims", table.format(value))[0].mfu for value in ("41.5", "1.64", "41.5%")] == [
        None,
        1.64,
        0.415,
    ]


def test_a_row_that_is_shifted_says_so(claims_of: ClaimsOf) -> None:
    (claim,) = claims_of("claims", f"{HEADER}\na,m,d\n")
    assert claim.notes == ("line 2 has 3 cells under 5 columns; it may be cut off or shifted",)


def test_the_last_cell_of_a_row_that_is_cut_off_is_not_read(claims_of: ClaimsOf) -> None:
    table = f"{HEADER},notes\na,m,d,8,5500"
    assert claims_of("claims", table)[0].tokens_per_s is None
    assert claims_of("claims", f"{table},whole")[0].tokens_per_s == 5500


def test_dimensions_that_contradict_each_other_make_no_model(claims_of: ClaimsOf) -> None:
    header = "model,device,tokens_per_s_total,n_layers,hidden,intermediate,mlp_gated,n_heads,n_kv_heads,vocab"
    (claim,) = claims_of("claims", f"{header}\nm,d,5,2,100,200,1,7,7,1000\n")
    assert claim.architecture is None
    assert "the dimensions make no valid model" in claim.notes[0]


def test_a_quote_that_is_never_closed_is_refused_with_its_place() -> None:
    with pytest.raises(BadData, match="broken or truncated") as caught:
        claims_csv.document("here", "a file", f'{HEADER}\na,m,d,8,5\nb,"m,d,8,5\n')
    assert "line 3" in caught.value.why


def test_a_column_that_comes_twice_is_refused() -> None:
    with pytest.raises(BadData, match="two columns 'model'"):
        claims_csv.document("here", "a file", "model,model,device,tokens_per_s_total\na,b,c,5\n")


@pytest.mark.parametrize("head", ["", "a,b,c\n1,2,3\n", "model,device\nm,d\n", "tokens_per_s_total\n5\n", "{}"])
def test_another_table_is_not_taken_for_one_of_claims(head: str) -> None:
    assert not claims_csv.is_document(head)
