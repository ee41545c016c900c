"""Runs the steps of a plan, stage by stage; it waits for the API server's answers and for nothing else."""

import asyncio
from collections.abc import Callable, Iterable
from itertools import groupby
from typing import Any, Final

from provisioner.clients.kubernetes import KINDS, KubernetesClient
from provisioner.contract.errors import PermanentError
from provisioner.plan import Apply, Delete, Step

_TOGETHER: Final = 4


class Executor:
    """Runs steps on one cluster.

    Args:
        client: the cluster.
        learn: is told each object as the API server has it after an apply.
    """

    def __init__(self, client: KubernetesClient, learn: Callable[[dict[str, Any]], None]) -> None:
        self._client = client
        self._learn = learn

    async def run(self, steps: Iterable[Step], namespace: str) -> None:
        """Run `steps`; a stage begins only when all of the one before succeeded.

        Raises:
            RefusedError: the API server refused one for good.
            TemporaryError: one failed otherwise; the next pass goes on from what is then there.
        """
        for _, stage in groupby(steps, key=lambda step: step.stage):
            slots = asyncio.Semaphore(_TOGETHER)
            results = await asyncio.gather(
                *(self._step(step, namespace, slots) for step in stage), return_exceptions=True
            )
            errors = [result for result in results if isinstance(result, BaseException)]
            if errors:
                raise next((error for error in errors if isinstance(error, PermanentError)), errors[0])

    async def _step(self, step: Step, namespace: str, slots: asyncio.Semaphore) -> None:
        async with slots:
            match step:
                case Apply():
                    self._learn(await self._client.apply(step.manifest))
                case Delete():
                    kind = KINDS[step.ref.kind]
                    await self._client.delete(kind, namespace, step.ref.name, uid=step.uid)
