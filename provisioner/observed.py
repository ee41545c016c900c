"""What was last seen of an instance in its cluster."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

Object = Mapping[str, Any]


class Ref(NamedTuple):
    """An object within an instance's namespace (the namespace itself included)."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


def ref(manifest: Object) -> Ref:
    """Return what `manifest` is about."""
    return Ref(manifest["kind"], manifest["metadata"]["name"])


@dataclass(frozen=True, slots=True)
class Observed:
    """All objects of one instance that carry our labels; complete: what is not here is not there."""

    objects: Mapping[Ref, Object] = field(default_factory=dict)

    def get(self, key: Ref) -> Object | None:
        """Return the object `key` names, None when it is not there."""
        return self.objects.get(key)

    def of(self, kind: str) -> Iterable[Object]:
        """Return the objects of `kind`, by name."""
        return (self.objects[key] for key in sorted(self.objects) if key.kind == kind)
