"""Is this installation whole, and what can this machine do?"""

from __future__ import annotations

import typer

from tastemaker.cli.common import Json, as_json, show, table

EXTRAS = {
    "viz": ("altair", "plots in reports and descriptions"),
    "ann": ("faiss", "approximate search for catalogues of millions"),
    "ddp": ("accelerate", "training in several processes"),
    "images": ("PIL", "posters of the synthetic catalogue"),
    "language": ("transformers", "texts and generation by open-weight models"),
    "agents": ("pydantic_ai", "language models at an endpoint, for systems that talk"),
    "serve": ("fastapi", "the server: HTTP, MCP, the web app, the event log"),
    "stores": ("psycopg", "PostgreSQL and Redis; reading from databases"),
    "interop": ("pandas", "pandas frames in and out"),
    "tune": ("optuna", "searching the settings of a system"),
    "sql": ("duckdb", "filters of a conversation as a language model's SQL"),
}


def doctor(json: Json = False) -> None:
    """Check the installation: Python, core packages, extras, compiler cache, memory, a system end to end."""
    import importlib.util

    from tastemaker.contracts import SYSTEMS, TRANSFORMS
    from tastemaker.data.synthetic import synthetic
    from tastemaker.train import fit
    from tastemaker.types.meter import available_memory_mb, machine

    about = machine()
    checks: list[dict[str, str]] = []

    def add(what: str, state: str, detail: str) -> None:
        checks.append({"check": what, "state": state, "detail": detail})

    add("python", "ok", about["python"])
    add("machine", "ok", f"{about['processor']}, {about['cores']} cores, {available_memory_mb() / 1024:.1f} GB free")
    add("packages", "ok", ", ".join(f"{k} {v}" for k, v in about["versions"].items()))
    for extra, (module, use) in EXTRAS.items():
        there = importlib.util.find_spec(module) is not None
        add(
            f"extra {extra}", "ok" if there else "absent", use if there else f"{use}: pip install 'tastemaker[{extra}]'"
        )
    from tastemaker.train.neural import pick_device

    add("device", "ok", f"{pick_device('auto')} trains what learns by gradients")
    broken: list[str] = []
    for registry in (SYSTEMS, TRANSFORMS):
        for name in registry.names():
            try:
                registry.find(name)
            except Exception as error:
                broken.append(f"{name}: {error}")
    counts = f"{len(SYSTEMS.names())} systems, {len(TRANSFORMS.names())} transforms"
    add("registered", "broken" if broken else "ok", "; ".join(broken) or counts)
    data = synthetic(100, seed=0)
    bundle = fit("popularity", data)
    answer = bundle.recommend([data.user_ids.series[0]], k=3)
    add("end to end", "ok" if answer.height == 3 else "broken", "fit popularity on made-up data, recommend")
    if json:
        as_json({"machine": about, "checks": checks})
    else:
        show(table([dict(row) for row in checks]))
    if any(row["state"] == "broken" for row in checks):
        raise typer.Exit(1)
