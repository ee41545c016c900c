"""The end of an instance: its namespace with everything in it, once that may go."""

from dataclasses import dataclass
from enum import Enum, auto

from provisioner.clients.kubernetes import KINDS, KubernetesClient, NotFoundError


class Verdict(Enum):
    """What comes next.

    KEEP: it holds data of which there is no verified final backup (invariant 7). REMOVE: it may go now.
    WAIT: it is going. GONE: nothing is left.
    """

    KEEP = auto()
    REMOVE = auto()
    WAIT = auto()
    GONE = auto()


@dataclass(frozen=True, slots=True)
class Remains:
    """What a cluster still has of an instance.

    Attributes:
        uid: the namespace's; None when there is none.
        terminating: whether its deletion was asked for already.
        claims: the names of the volume claims in it, whoever made them.
    """

    uid: str | None = None
    terminating: bool = False
    claims: tuple[str, ...] = ()


async def find_remains(client: KubernetesClient, namespace: str) -> Remains:
    """Read what is left, live: the watch cache knows only what carries our labels.

    Raises:
        TemporaryError: the cluster did not answer, which says nothing of what is left.
    """
    try:
        found = await client.get(KINDS["Namespace"], None, namespace)
    except NotFoundError:
        return Remains()
    claims = await client.list(KINDS["PersistentVolumeClaim"], namespace=namespace)
    metadata = found["metadata"]
    return Remains(
        metadata["uid"],
        "deletionTimestamp" in metadata,
        tuple(sorted(claim["metadata"]["name"] for claim in claims.items)),
    )


def judge(remains: Remains, *, backed_up: bool) -> Verdict:
    """Decide what comes next for an instance whose retention is over. Pure."""
    if remains.uid is None:
        return Verdict.GONE
    if remains.terminating:
        return Verdict.WAIT
    return Verdict.KEEP if remains.claims and not backed_up else Verdict.REMOVE
