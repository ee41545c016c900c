"""The reference for writing: Postgres's own pgbench, one row per transaction."""

import asyncio
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psycopg

from sandbox import postgres

_TABLE = """
    CREATE TABLE bench_row (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        received_at timestamptz NOT NULL DEFAULT now(),
        payload jsonb NOT NULL
    )
"""
_INSERT = "INSERT INTO bench_row (payload) VALUES (:payload);\n"


@dataclass(frozen=True, slots=True)
class PgBench:
    """pgbench, inserting `payload` (JSON) into a table of its own in the database at `url`."""

    url: str
    payload: str
    connections: int

    async def prepare(self) -> None:
        """Make the table."""
        async with await psycopg.AsyncConnection.connect(self.url) as conn:
            await conn.execute(_TABLE)

    async def rate(self, seconds: float) -> float:
        """Return transactions per second, as many as there can be."""
        with tempfile.TemporaryDirectory(prefix="berth-pgbench-") as folder:
            output = await self._run(Path(folder), seconds)
        return float(re.findall(r"^tps = ([0-9.]+)", output, re.MULTILINE)[0])

    async def latencies(self, seconds: float, rate: float) -> list[float]:
        """Return each transaction's seconds from when it was due, at `rate` transactions per second."""
        with tempfile.TemporaryDirectory(prefix="berth-pgbench-") as folder:
            await self._run(Path(folder), seconds, f"--rate={rate}", "--log")
            return await asyncio.to_thread(_logged_latencies, Path(folder))

    async def _run(self, folder: Path, seconds: float, *options: str) -> str:
        script = folder / "insert.sql"
        script.write_text(_INSERT, encoding="utf-8")
        url = urlsplit(self.url)
        process = await asyncio.create_subprocess_exec(
            postgres.program("pgbench"),
            *("--no-vacuum", "--protocol=prepared", f"--file={script}", f"--define=payload={self.payload}"),
            *(f"--client={self.connections}", "--jobs=2", f"--time={seconds:.0f}"),
            *(f"--host={url.hostname}", f"--port={url.port}", f"--username={url.username}", *options),
            url.path.lstrip("/"),
            cwd=folder,
            env={"PGPASSWORD": url.password or ""},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        if process.returncode != 0:
            raise RuntimeError(f"pgbench failed: {output.decode()[-500:]}")
        return output.decode()


def _logged_latencies(folder: Path) -> list[float]:
    """Per-transaction log: the third column (https://www.postgresql.org/docs/18/pgbench.html), in seconds."""
    lines = [line for log in folder.glob("pgbench_log*") for line in log.read_text().splitlines()]
    return [float(line.split()[2]) / 1e6 for line in lines]
