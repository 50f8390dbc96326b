"""Options: every one declared whole, saved configs of any age read or refused, identities of what decides the numbers."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from conftest import small_table
from omegaconf import OmegaConf

from zfrepro.errors import UserError
from zfrepro.options import commands, shared
from zfrepro.options.commands import DepthConfig, EvaluateConfig, LocalizeConfig, TrainConfig, TransferConfig
from zfrepro.options.compose import conf_folder, load_model, load_saved
from zfrepro.options.declare import at_least, check_options, each, one_of, option, positive, within
from zfrepro.options.identity import config_hash, decisive, differing, write_config
from zfrepro.options.shared import DataConfig, LearnedBoxes
from zfrepro.trainer.folder import Folder
from zfrepro.trainer.recipe import recipe_hash

DATACLASSES = {
    value
    for module in (commands, shared)
    for value in vars(module).values()
    if isinstance(value, type) and dataclasses.is_dataclass(value)
}


@pytest.mark.parametrize("cls", sorted(DATACLASSES, key=lambda cls: cls.__name__))
def test_every_option_has_a_meaning_and_a_check(cls: type) -> None:
    for field in dataclasses.fields(cls):
        name = f"{cls.__name__}.{field.name}"
        assert field.metadata.get("meaning"), f"{name}: declare it with option(default, meaning, check)"
        assert callable(field.metadata["check"])
        assert ("Optional" in str(field.type)) == ("null:" in field.metadata["meaning"]), (
            f"{name}: what does null mean?"
        )


def test_defaults_stand_in_one_place() -> None:
    """A command's file says nothing that its dataclass says already."""
    for path in conf_folder().glob("*.yaml"):
        cls = getattr(commands, f"{path.stem.capitalize()}Config", None)
        given = OmegaConf.to_container(OmegaConf.load(path))
        assert isinstance(given, dict)
        given = {key: value for key, value in given.items() if key not in ("defaults", "hydra")}
        assert not given or cls is not None
        own = {field.name: field.default for field in dataclasses.fields(cls)} if cls else {}
        assert [key for key, value in given.items() if own[key] == value] == []


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (within("[0, 1)"), [0, 0.5, 0.999], [-1e-9, 1, float("nan"), float("inf")]),
        (within("(0, 1]"), [1e-9, 1], [0, 1.1, float("nan")]),
        (within("[2, inf)"), [2, 1e30], [1.9, float("inf"), float("nan")]),
        (positive, [1e-30, 3], [0, -1, float("inf"), float("nan")]),
        (at_least(3), [3, 2**31 - 1], [2, 2**31, -5]),
        (one_of("a", "b"), ["a", "b"], ["A", "", "c"]),
        (each(at_least(1)), [[], [1], [2, 1]], [[0], [1, 0], [1, 1]]),
        (each(at_least(1), some=True, repeated=True), [[1, 1]], [[], [0]]),
    ],
)
def test_checks(check, good, bad) -> None:  # type: ignore[no-untyped-def]
    assert [value for value in good if check(value) is not None] == []
    assert [value for value in bad if check(value) is None] == []


def test_a_check_of_several_options_is_told_with_its_place() -> None:
    @dataclasses.dataclass
    class Inner:
        low: int = option(1, "low", at_least(1))
        sizes: dict[str, int] = option({}, "sizes; null: never", at_least(1))

        def check(self) -> None:
            if self.low > 5:
                raise UserError("low=9: must be below 5")

    @dataclasses.dataclass
    class Outer:
        inner: Inner = dataclasses.field(default_factory=Inner, metadata={"meaning": "", "check": lambda value: None})

    check_options(Outer())
    for inner, line in (
        (Inner(low=9), "inner.low=9: must be below 5"),
        (Inner(low=0), "inner.low=0: must be 1 or more"),
        (Inner(sizes={"a": 0}), "inner.sizes.a=0: must be 1 or more, or null for never"),
    ):
        with pytest.raises(UserError) as caught:
            check_options(Outer(inner))
        assert str(caught.value) == line


def config() -> TrainConfig:
    return TrainConfig(run="r", preset="demo", model=small_table(), data=DataConfig(name="embedded", size=40))


def test_where_and_how_fast_is_no_identity() -> None:
    one, other = config(), config()
    other.run, other.outputs, other.checkpoint_every, other.resume, other.debug = "s", "/o", 7, False, True
    other.data.root, other.data.cache, other.data.workers, other.data.download = "/r", "/c", 3, True
    assert decisive(one) == decisive(other) and config_hash(one) == config_hash(other) and not differing(one, other)
    other.data.per_class, other.lr, other.model.layers[0].maps = 3, 0.5, 6
    assert differing(one, other) == ["data.per_class", "lr", "model.layers"]


@pytest.mark.parametrize("cls", [EvaluateConfig, DepthConfig])
def test_the_usual_readings_are_no_part_of_an_identity(cls: type[EvaluateConfig | DepthConfig]) -> None:
    """Results from before they could be chosen stay up to date; every other reading makes another result."""
    readings = {"places": "max", "rounding": "ceil", "grid": "square", "weights": "views"}
    assert not readings.keys() & decisive(cls()).keys()
    others = [cls(**{name: given}) for name, given in readings.items()]  # type: ignore[arg-type]
    assert len({config_hash(one) for one in (cls(), cls(places="sum"), *others)}) == 6


def test_the_place_of_every_data_set_is_neutral() -> None:
    keys = decisive(TransferConfig(data=config().data, scenes=config().data)).keys()
    assert {"scenes.size", "data.size", "per_class.table4"} <= keys
    assert not keys & {"scenes.cache", "scenes.root", "scenes.workers", "data.cache", "workers", "run"}


def test_a_saved_config_of_an_earlier_version(tmp_path: Path) -> None:
    """Written before the options that came since: they get their defaults, which are what was done then."""
    write_config(tmp_path / "config.yaml", config())
    saved = OmegaConf.load(tmp_path / "config.yaml")
    for key in ("passes", "init_from", "freeze", "train_scale", "colour_shift", "subtract", "divisions"):
        del saved[key]
    del saved.data["fit"]
    OmegaConf.save(saved, tmp_path / "config.yaml")
    assert load_saved(tmp_path / "config.yaml", TrainConfig, {}) == config()
    assert load_saved(tmp_path / "config.yaml", TrainConfig, {"device": "cpu"}).device == "cpu"


def test_a_saved_config_is_everybodys_own_and_read_anew_where_it_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    write_config(path, config())
    mine = load_saved(path, TrainConfig, {})
    mine.data.size, mine.model.layers[0].maps = 7, 77
    assert load_saved(path, TrainConfig, {}) == config() and load_saved(path, TrainConfig, {"lr": 0.3}).lr == 0.3
    write_config(path, dataclasses.replace(config(), lr=0.5))
    assert load_saved(path, TrainConfig, {}).lr == 0.5


def test_an_option_that_came_later_is_part_of_an_identity_where_it_is_given() -> None:
    """Runs from before have neither the key nor another way of learning boxes."""
    old = dataclasses.replace(config(), regression="scr")
    assert not [key for key in decisive(old) if key.startswith("boxes.")]
    for rules in (
        LearnedBoxes(inside=0),
        LearnedBoxes(clip=True),
        LearnedBoxes(several="largest"),
        LearnedBoxes(flips=False),
    ):
        new = dataclasses.replace(old, boxes=rules)
        (changed,) = [name for name, value in vars(rules).items() if value != getattr(LearnedBoxes(), name)]
        assert differing(new, old) == differing(old, new) == [f"boxes.{changed}"]
        assert config_hash(new) != config_hash(old) and recipe_hash(new) != recipe_hash(old)
        one, other = (LocalizeConfig(boxes=boxes) for boxes in (rules, LearnedBoxes()))
        assert config_hash(one) != config_hash(other)
    for cls, given in (
        (TrainConfig, {"colour_shift_by": "eigenvalue"}),
        (LocalizeConfig, {"centre_scale": 256}),
        (LocalizeConfig, {"class_scales": [64, 96]}),
        (LocalizeConfig, {"test_flips": True}),
        (LocalizeConfig, {"rated_by": "all"}),
        (TransferConfig, {"unit_scales": True}),
        (TransferConfig, {"relu": False}),
        (DepthConfig, {"start_lr": 0.1}),
        (DepthConfig, {"start_warmup_steps": 0}),
        (DepthConfig, {"tuning_lr": 0.1}),
        (DepthConfig, {"start_convolutions": None}),
        (DepthConfig, {"start_match": "name"}),
    ):
        assert not given.keys() & decisive(cls()).keys() and given.items() <= decisive(cls(**given)).items()


def test_a_training_goes_on_without_keys_that_came_later(tmp_path: Path) -> None:
    """Of its saved config; with another value it is refused, and told what it was."""
    made = dataclasses.replace(config(), regression="scr", outputs=str(tmp_path))
    folder = Folder(made)
    folder.prepare(made)
    folder.last.touch()
    path = folder.path / "config.yaml"
    saved = OmegaConf.load(path)
    del saved["boxes"]
    OmegaConf.save(saved, path)
    folder.require_same(made)
    other = dataclasses.replace(made, boxes=LearnedBoxes(inside=0.25))
    with pytest.raises(UserError, match=r"another config: boxes.inside=0.25 \(was 0.5\)"):
        folder.require_same(other)


def test_rules_for_boxes_need_a_training_on_boxes() -> None:
    made = dataclasses.replace(config(), subtract="image", boxes=LearnedBoxes(several="largest"))
    with pytest.raises(UserError, match=r"^boxes.several=largest: must be left out, or given with regression=pcr"):
        check_options(made)
    check_options(dataclasses.replace(made, regression="pcr"))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda text: text.replace("epochs: 70", "epochs: many"), "epochs=many: must be a whole number"),
        (lambda text: text.replace("lr: 0.01", "lr: -1"), "lr=-1.0: must be a positive number"),
        (lambda text: text.replace("epochs:", "epohcs:"), "epohcs: unknown key (did you mean epochs?)"),
        (lambda text: text.replace("size: 40", "sise: 40"), "data.sise: unknown key (did you mean data.size?)"),
        (lambda text: text.replace("maps: 5", "maps: 0"), "model.layers[0].maps=0: must be 1 or more"),
        (lambda text: "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n" + text, "holds YAML anchors"),
        (lambda text: "a: &a [*a]\n" + text, "holds YAML anchors"),
        (lambda text: "run: " + "[" * 1500, "not readable as YAML"),
        (lambda text: text[:40] + "\n}", "not readable as YAML"),
        (lambda text: text + "seed: 1\n", "found duplicate key seed"),
        (lambda text: text.replace("epochs: 70", "epochs: ???"), "epochs: a value is needed"),
        (lambda text: "- 3", "holds no options"),
        (lambda text: "", "preset: a value is needed"),
        (lambda text: text.replace("lr: 0.01", "lr: ${oc.env:NOTHING_SUCH}"), "lr: "),
    ],
)
def test_a_damaged_config_is_told_with_its_file(damage, said: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "config.yaml"
    write_config(path, config())
    path.write_text(damage(path.read_text()))
    with pytest.raises(UserError) as caught:
        load_saved(path, TrainConfig, {})
    assert str(caught.value).startswith(f"{path}: ") and said in str(caught.value) and "\n" not in str(caught.value)


def test_a_model_is_everybodys_own() -> None:
    load_model("zfnet").layers[0].maps = 7
    assert load_model("zfnet").layers[0].maps == 96


def test_a_message_names_the_option_that_names_the_model() -> None:
    with pytest.raises(UserError, match=r"^sibling=zfnt: must be one of .*did you mean zfnet"):
        load_model("zfnt", "sibling")
