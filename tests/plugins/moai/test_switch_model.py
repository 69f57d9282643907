"""The menu of flavors, its question and its answers."""

import pytest

from tunemark.errors import TunemarkError
from tunemark_moai import switch_model
from tunemark_moai.switch_model import MenuEntry, SwitchConfirmation


def test_a_switch_of_22_10_with_glued_stars_and_the_bold_of_a_document(printed):
    session = switch_model.read_session(printed("switch-model-22.10"))
    assert (session.accelerator, session.flavor, session.group) == ("Some AI Device", "Medium.128GB", None)
    assert [menu.typed for menu in session.menus] == ["3", "q"]
    assert [[f.flavor for f in menu.flavors if f.is_marked] for menu in session.menus] == [
        ["Medium.128GB"],
        ["Large.256GB"],
    ]
    assert session.switched == (SwitchConfirmation(accelerator="Some AI Device", flavor="Large.256GB", group=None),)
    assert session.asks == 2


def test_heading_and_star_are_given_as_they_are_though_they_disagree(printed):
    session = switch_model.read_session(printed("switch-model-24.5"))
    assert session.flavor == "xLarge.512GB"
    first, last = session.menus
    assert first.flavors == (
        MenuEntry(index=1, flavor="Small.64GB", group=None, is_marked=True),
        MenuEntry(index=2, flavor="xLarge.512GB", group=None, is_marked=False),
        MenuEntry(index=3, flavor="4xLarge.2048GB", group=None, is_marked=False),
    )
    assert (first.is_asking, first.typed) == (True, "3")
    assert (last.is_asking, last.typed) == (True, None)
    assert [s.flavor for s in session.switched] == ["4xLarge.2048GB"]


def test_a_flavor_is_found_by_name_whatever_its_capitals(printed):
    menu = switch_model.read_session(printed("switch-model-24.5")).menus[-1]
    assert [menu.index_of(name) for name in ("XLARGE.512gb", "4xLarge.2048GB", "Large.256GB")] == [2, 3, None]


def test_flavors_of_groups_are_told_apart_and_not_chosen_between(printed):
    session = switch_model.read_session(printed("switch-model-groups"))
    assert (session.accelerator, session.flavor, session.group) == ("Some SDA", "small", "mg2")
    menu = session.menus[-1]
    assert [(f.flavor, f.group, f.is_marked) for f in menu.flavors] == [
        ("micro", "mg1", False),
        ("small", "mg1", False),
        ("small", "mg2", True),
    ]
    assert (menu.index_of("micro"), menu.index_of("small")) == (1, None)


def test_the_menus_around_a_new_device(printed):
    session = switch_model.read_session(printed("moreh-smi-device-add"))
    assert [(len(menu.flavors), menu.typed) for menu in session.menus] == [(3, "2"), (3, "q")]
    assert session.flavor is None


def test_a_busy_accelerator_cannot_be_switched():
    session = switch_model.read_session("The model cannot be switched while the Some AI Device is in use.\n")
    assert (session.in_use, session.menus) == ("Some AI Device", ())


def test_a_tool_without_a_token_is_an_error_with_a_remedy(printed):
    with pytest.raises(TunemarkError, match=r"(?s)no token.*line 2.*/etc/moreh/token"):
        switch_model.read_session(printed("switch-model-no-token"))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("1. Small.64GB\n3. Large.256GB\n", "entry 3 of the menu follows entry 1"),
        ("1. Small.64GB\n2. Large.256GB\nSelection (1-3, q, Q): ", "offers 1 to 3, the menu above it 1 to 2"),
        ("1. Small.64GB *\n2. Large.256GB *\n", "more than one flavor is marked"),
        ("1. Small.64GB\n2. Large.256GB (best of all)\n", "(?s)an entry of the menu is not understood.*line 2"),
        ("moreh-switch-model -M 2\n", "no output of moreh-switch-model"),
        ("Current loss: 0.5\n", "no output of moreh-switch-model"),
        ("", "no output of moreh-switch-model"),
    ],
)
def test_a_menu_that_cannot_be_trusted_is_refused(text, complaint):
    with pytest.raises(TunemarkError, match=complaint):
        switch_model.read_session(text)


def test_a_question_without_its_menu_is_a_session_but_no_menu():
    session = switch_model.read_session("Selection (1-13, q, Q): q")
    assert (session.asks, session.menus) == (1, ())
