"""The one reader of recipes: a preset, files, flags and ``--set``, laid over each other.

``finetune``, ``run`` and ``eval`` read their settings here. Layers are deep-merged: a later one
wins, key by key. An error names the layer that a value comes from. A recipe may build on another
one with ``extends:``; manifests hold the resolved settings.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel

from response_tuning import plugins, yaml_text
from response_tuning.configs import Config, DataConfig, FinetuneConfig
from response_tuning.errors import ConfigError
from response_tuning.redaction import redacted
from response_tuning.registry import suggestion, unknown
from response_tuning.validation import build, settings_at

Settings = dict[str, Any]
"""Settings that are not validated yet."""


IN_FILES = ("extends", "imports")
"""Keys that only a file can have: ``read_layers`` takes them out."""


class Recipe(Config):
    """The recipe of one tuned model."""

    keywords: ClassVar[tuple[str, ...]] = (*IN_FILES, "preset")
    """Keys of a recipe that are taken out before the others are validated."""
    data: DataConfig
    finetune: FinetuneConfig


# The paper's section 4.1 and its released settings (QLoRA on one GPU); r, alpha, dropout and the
# constant schedule without warm-up are as published. Two things of the released code are settings
# beside it: ``examples_per_mean: 8`` (decision 0018) and ``train_on_final_newline``.
PAPER: Settings = {
    "method": "qlora",
    "lora_r": 64,
    "lora_alpha": 16,
    "lora_dropout": 0.1,
    "learning_rate": 1e-4,
    "scheduler": "constant",
    "optimizer": "paged_adamw_32bit",
    "max_grad_norm": 0.3,
    "epochs": 10,
    "examples_per_step": 64,
    "window": 2048,
    "tokens_per_micro_batch": 16384,
    "gradient_checkpointing": True,
    "precision": "bfloat16",
    "train_on_final_newline": False,
    "merge": True,
}

PRESETS: dict[str, Settings] = {"paper": PAPER, "small": {}}

_PACKAGE = Path(__file__).parent
PACKAGED = {"demo": _PACKAGE / "miniature" / "demo.yaml"}
"""Recipes inside the package, which ``extends`` takes by name."""

OURS = "recipes"
"""The repository's folder of recipes, which a wheel holds inside the package."""

Built = TypeVar("Built", bound=BaseModel)

_REMOVABLE = (["variants"], ["report"], ["report", "axis"], ["report", "equivalence"])
"""Sections whose entries a layer removes by setting them to null."""


class Layers:
    """Settings laid over each other, and where each of them comes from."""

    def __init__(self, where: str) -> None:
        self.where = where
        """What an error names if no layer holds the key, such as the file of the recipe."""
        self.content: Settings = {}
        self._layers: list[Settings] = []
        self._origins: dict[str, str] = {}

    def add(self, origin: str, values: Settings) -> None:
        """Lay ``values`` over the layers so far; errors about them begin with ``origin``.

        Raises:
            ConfigError: a lower layer has a value where ``values`` has a section.
        """
        if (key := _hidden(self.content, values)) is not None:
            raise ConfigError(f"{self.origin_of(key)}: {key}: expected settings, found a value")
        self._layers.append(values)
        self._origins |= dict.fromkeys(_keys(values), origin)
        self._replace(merged(self.content, values))

    def add_setting(self, text: str, expected: str) -> None:
        """Set one ``KEY.KEY=VALUE`` of the command line; a section as a value replaces the section.

        Raises:
            ConfigError: it has another form, or a value on its way is not a section.
        """
        key, equals, value = text.partition("=")
        name = f"--set {redacted(key)}"  # never the value: it may be a secret
        if key in IN_FILES:
            raise ConfigError(
                f"{name}: it belongs in the recipe file, as a line that begins with '{key}:'"
            )
        *sections, last = key.split(".")
        if not (equals and last and all(sections)):
            raise ConfigError(f"{name}: expected {expected}")
        inner: object = self.content
        for section in sections:
            inner = inner.get(section, {}) if isinstance(inner, Mapping) else inner
            if not isinstance(inner, Mapping):
                raise ConfigError(f"{name}: '{section}' is a value and holds no settings")
        parsed = yaml_text.parse(value, name)
        layer = _replaced({}, [*sections, last], parsed)
        self._layers.append(layer)
        self._origins |= dict.fromkeys(_keys(layer), "--set")
        self._replace(_replaced(self.content, [*sections, last], parsed))

    def _replace(self, content: Settings) -> None:
        known = settings_at(self.content, ["variants"])
        self.content = _without_removed(self.content, content)
        for name, value in settings_at(self.content, ["variants"]).items():
            if value is None:
                key = f"variants.{name}"
                hint = suggestion(str(name), map(str, known))
                raise ConfigError(
                    f"{self.origin_of(key)}: {key}: null removes a variant, and there is none of "
                    f"this name; {hint + ' ' if hint else ''}known are {', '.join(known) or 'none'}"
                )

    def build(self, kind: type[Built], section: Sequence[str] = ()) -> Built:
        """Validate the settings, or one section of them, as a ``kind``.

        Raises:
            ConfigError: one line with the layer, the key, the value and what is wrong.
        """
        values = settings_at(self.content, section)
        return build(kind, values, self.where, self._origins, section=section)

    def origin_of(self, key: str) -> str:
        """Return the layer that a dotted key comes from, as errors name it."""
        return self._origins.get(key, self.where)

    def given_with(self, section: Sequence[str], key: str) -> Settings:
        """Return what the topmost layer with ``key``, and all layers above, set in a section.

        Whoever switches something off with ``key`` may leave the settings beneath as they are.
        """
        parts = [settings_at(layer, section) for layer in self._layers]
        first = max((number for number, part in enumerate(parts) if key in part), default=0)
        return reduce(merged, parts[first:], {})


def shipped(path: Path) -> Path:
    """Return ``path``, or the installed copy where ``recipes/...`` is no file in this folder."""
    installed = _PACKAGE / path
    ours = path.parts[:1] == (OURS,) and not path.exists() and installed.is_file()
    return installed if ours else path


def read_layers(
    path: Path | None,
    flags: Settings,
    settings: Sequence[str] = (),
    *,
    where: str = "",
    expected: str = "KEY=VALUE, such as finetune.epochs=2",
) -> Layers:
    """Read a recipe with the recipes that it extends, and lay flags and ``--set`` over them.

    Without a file, errors about settings that no layer holds name ``where``.

    Raises:
        ConfigError: a file cannot be used, or a setting is not ``KEY=VALUE``.
    """
    layers = Layers(str(path) if path else where)
    for file, content in _extended(shipped(path), ()) if path else ():
        plugins.import_named(content, str(file))
        layers.add(str(file), content)
    layers.add("", flags)
    for text in settings:
        layers.add_setting(text, expected)
    return layers


def make_recipe(
    path: Path | None,
    preset: str | None,
    flags: Mapping[str, Settings],
    settings: Sequence[str],
    earlier: Mapping[str, Settings] | None = None,
) -> Recipe:
    """Return the recipe of one tuned model: preset, file, flags and ``--set``, in this order.

    The recipe may name the preset under ``preset:``; the argument overrides it. Settings of an
    ``earlier`` run, which is continued, take the place of the preset.

    Raises:
        ConfigError: a name is unknown, or a value is impossible or has no effect.
    """
    # A key without a section would be a new section; the likely mistake is a missing "finetune.".
    expected = "SECTION.KEY=VALUE, such as finetune.lora_r=8"
    for text in settings:
        key = text.partition("=")[0]
        if "." not in key and key not in IN_FILES:
            raise ConfigError(f"--set {redacted(key)}: expected {expected}")
    layers = read_layers(path, {**flags}, settings, expected=expected)
    name = preset or layers.content.get("preset", "small")
    # The preset lies beneath all layers, but only they can name it, so it comes last.
    beneath = preset_called(name, "" if preset else layers.origin_of("preset"))
    layers.content.pop("preset", None)
    if earlier is not None:
        beneath = earlier["finetune"]
        # Another source is read as its own settings say, and not as those of the earlier one.
        if "source" not in settings_at(layers.content, ["data"]):
            data = merged(earlier["data"], settings_at(layers.content, ["data"]))
            layers.content["data"] = data
    tuning = settings_at(layers.content, ["finetune"])
    _check_method(layers, {**beneath, **tuning})
    _check_mixture(layers)
    if isinstance(layers.content.setdefault("finetune", {}), Mapping):  # else build refuses it
        layers.content["finetune"] = {**beneath, **tuning}
    layers.content.setdefault("data", {})
    return layers.build(Recipe)


def preset_called(name: object, where: str = "") -> Settings:
    """Return the settings of a preset.

    Raises:
        ConfigError: there is no such preset; the message begins with ``where``.
    """
    if str(name) not in PRESETS:
        error = unknown("preset", str(name), sorted(PRESETS))
        raise ConfigError(f"{where}: {error}" if where else str(error))
    return PRESETS[str(name)]


def check_method(settings: Mapping[str, Any], given: Iterable[str], where: str) -> None:
    """Refuse settings of an adapter, among those ``given``, where the whole model is tuned.

    Raises:
        ConfigError: one line that names the first of them.
    """
    if settings.get("method") == "full":
        for key in sorted(given):
            if key.startswith("lora_") and key in FinetuneConfig.model_fields:
                raise ConfigError(
                    f"{where}: {key}: has no effect with method 'full', which has no adapter; "
                    "remove it"
                )


def _check_method(layers: Layers, tuning: Mapping[str, Any]) -> None:
    # A recipe for an adapter may be tried with --method full, so only what is set together with
    # the method counts.
    given = layers.given_with(["finetune"], "method")
    check_method(tuning, given, f"{layers.where}: finetune" if layers.where else "finetune")


def idle_mixture(data: Mapping[str, Any]) -> str | None:
    """Return the first setting of ``data.mixture`` that has no effect because 0 are mixed in."""
    mixture = data.get("mixture")
    if not isinstance(mixture, Mapping) or mixture.get("refusals"):
        return None
    return min((str(key) for key in mixture.keys() - {"refusals"}), default=None)


def no_refusals(place: str, key: str) -> ConfigError:
    """Return the error for the setting that ``idle_mixture`` returned."""
    return ConfigError(
        f"{place}.mixture: {key}: has no effect with 0 refusals; set mixture.refusals, or remove it"
    )


def _check_mixture(layers: Layers) -> None:
    if idle_mixture(settings_at(layers.content, ["data"])) is None:
        return
    # A recipe that mixes refusals in may be tried with 0 of them.
    given = layers.given_with(["data", "mixture"], "refusals")
    key = idle_mixture({"mixture": {**given, "refusals": 0}})
    if key is not None:
        origin = layers.origin_of(f"data.mixture.{key}")
        raise no_refusals(f"{origin}: data" if origin else "data", key)


def merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> Settings:
    """Deep-merge; values in ``over`` win."""
    whole = {**under, **over}
    for key in under.keys() & over.keys():
        if isinstance(under[key], Mapping) and isinstance(over[key], Mapping):
            whole[key] = merged(under[key], over[key])
    return whole


def read_recipe(path: Path) -> Settings:
    """Read the sections of one YAML file, not yet validated.

    Raises:
        ConfigError: the file is missing, is no YAML, or is no mapping of sections.
    """
    content = yaml_text.read(path)
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected sections such as 'data:' and 'finetune:'")
    return content


def _extended(path: Path, above: tuple[Path, ...]) -> Iterator[tuple[Path, Settings]]:
    """Yield the files that make up a recipe, the one that is extended first.

    ``above`` are the recipes that lead here, for finding a circle.
    """
    content = read_recipe(path)
    if "extends" in content:
        above = (*above, path)
        yield from _extended(_beneath(path, content.pop("extends"), above), above)
    yield path, content


def _beneath(path: Path, named: object, above: Sequence[Path]) -> Path:
    """Return the recipe that ``path`` extends: a file relative to it, or one of ``PACKAGED``."""
    if not isinstance(named, str) or not named:
        raise ConfigError(
            f"{path}: extends: expected one recipe, such as 'other.yaml', found {named!r}"
        )
    other = PACKAGED.get(named, path.parent / named)
    if not other.exists() and (installed := shipped(Path(named))) != Path(named):
        other = installed
    if not other.exists():
        beside = sorted(file.name for file in path.parent.glob("*.yaml") if file.name != path.name)
        hint = suggestion(named, [*PACKAGED, *beside])
        raise ConfigError(
            f"{path}: extends: {other}: no such file; {hint + ' ' if hint else ''}give a path "
            f"relative to {path.name}, or one of {', '.join(PACKAGED)}"
        )
    if other.resolve() in {file.resolve() for file in above}:
        circle = " extends ".join(str(file) for file in (*above, other))
        raise ConfigError(f"{path}: extends: a circle: {circle}; remove one of them")
    return other


def _without_removed(before: Settings, after: Settings) -> Settings:
    """Return ``after`` without the variants and report settings that a layer sets to null.

    Null for one that is not in ``before`` stays, and is refused: it may be a misspelt name.
    """
    for path in _REMOVABLE:
        section, known = settings_at(after, path), settings_at(before, path)
        kept = {
            name: value
            for name, value in section.items()
            if value is not None or known.get(name) is None
        }
        if len(kept) < len(section):
            after = _replaced(after, path, kept)
    return after


def _replaced(
    content: Mapping[str, Any],
    path: Sequence[str],
    value: Any,  # noqa: ANN401 - whatever YAML can hold
) -> Settings:
    """Return ``content`` with another value at ``path``, in copies of the sections on the way."""
    key, *rest = path
    return {**content, key: _replaced(content.get(key, {}), rest, value) if rest else value}


def _hidden(under: Mapping[str, Any], over: Mapping[str, Any], section: str = "") -> str | None:
    """Return the first key with a value in ``under`` and a section in ``over``."""
    for key in under.keys() & over.keys():
        lower, upper = under[key], over[key]
        if isinstance(lower, Mapping) and isinstance(upper, Mapping):
            if (inner := _hidden(lower, upper, f"{section}{key}.")) is not None:
                return inner
        elif isinstance(upper, Mapping) and lower is not None:
            return f"{section}{key}"
    return None


def _keys(values: Mapping[str, Any], section: str = "") -> Iterator[str]:
    """Yield every key; a key in a section inside is ``section.key``."""
    for key, value in values.items():
        yield f"{section}{key}"
        if isinstance(value, Mapping):
            yield from _keys(value, f"{section}{key}.")
