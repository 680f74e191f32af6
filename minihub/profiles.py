"""Profiles: what a user may choose from before a start, each a handful of the spawner's options.

Rules of this file: a profile changes one spawner before one start, and only options in
:data:`KEYS`; it knows no page beyond the fields of its form, whose texts are the administrator's.

Threads: as for the spawner.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup
from traitlets import Dict, List, TraitError, Unicode

from .errors import SpawnError
from .texts import Text

#: The options of the spawner that a profile may set.
KEYS = (
    "args", "cmd", "cpu_guarantee", "cpu_limit", "default_url", "environment", "http_timeout",
    "mem_guarantee", "mem_limit", "notebook_dir", "start_timeout",
)  # fmt: skip
#: What else stands in one.
OWN_KEYS = ("name", "description", "key", "default")
#: The name of the choice among user_options and of the form's field.
FIELD = "profile"


class NoSuchProfile(SpawnError):
    """Raised when a start asks for a profile that there is not."""

    status = 400


def key_of(profile: Mapping[str, Any]) -> str:
    """Return the word by which programs name a profile: its ``key``, else made of its name."""
    made = re.sub(r"[^a-z0-9]+", "-", str(profile["name"]).lower()).strip("-")
    return str(profile.get("key") or made or "profile")


def option() -> List:
    """Return the option ``Spawner.profiles``."""
    return List(
        Dict(key_trait=Unicode()),
        help="Kinds of server that users choose from before a start. Each has a name and may have"
        " a description, and sets any of cmd, args, environment (added to), mem_limit,"
        " mem_guarantee, cpu_limit, cpu_guarantee, default_url, notebook_dir, start_timeout and"
        " http_timeout. The first is chosen, or the one with default: true. Programs choose with"
        " the user option profile, by its key or its name in small letters with dashes.",
    ).tag(
        config=True,
        example=[
            {"name": "Small", "description": "For most courses.", "mem_limit": "1G"},
            {"name": "Large", "mem_limit": "8G", "cpu_limit": 4},
        ],
    )


def checked(spawner: Any, given: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the option's value if its profiles are sound. Raises TraitError."""
    known = set()
    for number, profile in enumerate(given, 1):
        name = profile.get("name")
        if not isinstance(name, str) or not name.strip():
            raise TraitError(f"profile {number} has no name")
        unknown = sorted(set(profile) - {*KEYS, *OWN_KEYS})
        if unknown:
            raise TraitError(
                f'profile "{name}": unknown key {unknown[0]!r}; there are '
                f"{', '.join((*OWN_KEYS, *KEYS))}"
            )
        if key_of(profile) in known:
            raise TraitError(f'two profiles have the key {key_of(profile)!r}; give one a "key"')
        known.add(key_of(profile))
        for key in set(profile) & set(KEYS):
            try:
                spawner.class_traits()[key]._validate(spawner, profile[key])
            except TraitError as error:
                raise TraitError(f'profile "{name}", {key}: {error}') from error
    return given


def default(profiles: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the profile that is taken where none is chosen."""
    return next((one for one in profiles if one.get("default")), profiles[0])


def apply(spawner: Any) -> None:
    """Set what the chosen profile says. Raises NoSuchProfile for one that there is not."""
    profiles = spawner.profiles
    if not profiles:
        return
    chosen = spawner.user_options.get(FIELD)
    if isinstance(chosen, (list, tuple)):  # as a form sends it
        chosen = chosen[0] if chosen else None
    profile = default(profiles)
    if chosen is not None:
        by_key = {key_of(one): one for one in profiles}
        if chosen not in by_key:
            raise NoSuchProfile(
                Text("There is no profile %(name)s.", name=str(chosen)[:60]),
                hint=Text("There are: %(names)s.", names=", ".join(by_key)),
            )
        profile = by_key[chosen]
    for key in set(profile) & set(KEYS):
        value = profile[key]
        if key == "environment":
            value = {**spawner.environment, **value}
        setattr(spawner, key, value)


def form(profiles: Sequence[Mapping[str, Any]], chosen: Any = None) -> str:
    """Return the fields to choose a profile by; "" where there is nothing to choose."""
    if len(profiles) < 2:
        return ""
    chosen = chosen[0] if isinstance(chosen, (list, tuple)) and chosen else chosen
    keys = [key_of(one) for one in profiles]
    checked = chosen if chosen in keys else key_of(default(profiles))
    rows = [
        Markup(
            '<div class="profile"><input type="radio" id="profile-{number}" name="{field}" '
            'value="{key}"{checked}><label for="profile-{number}"><span class="profile-name">'
            '{name}</span> <span class="profile-text">{text}</span></label></div>'
        ).format(
            number=number,
            field=FIELD,
            key=key,
            checked=Markup(" checked") if key == checked else "",
            name=profile["name"],
            text=profile.get("description", ""),
        )
        for number, (key, profile) in enumerate(zip(keys, profiles, strict=True), 1)
    ]
    return Markup(
        '<div class="profiles" role="radiogroup" aria-labelledby="spawn-heading">{}</div>'
    ).format(Markup("").join(rows))
