"""Serves a pickled configuration from a process that made none, as Ray's replicas do, and answers
requests in it: python unpickled_server.py CONFIG REQUESTS.json

Each request is a path and a body; without a body it is a GET. Prints statuses and answers as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import cloudpickle
import httpx
from vllm.entrypoints.cli.serve import make_arg_parser
from vllm.entrypoints.launchers.api_server.app_state import init_app_state
from vllm.entrypoints.launchers.app import build_app
from vllm.utils.argparse_utils import FlexibleArgumentParser
from vllm.v1.engine.async_llm import AsyncLLM


async def serve(config: Any, requests: list[list[Any]]) -> list[list[Any]]:
    engine = AsyncLLM.from_vllm_config(config)
    try:
        tasks = await engine.get_supported_tasks()
        args = make_arg_parser(FlexibleArgumentParser()).parse_args([])
        args.served_model_name = ["demo"]
        app = build_app(args, tasks, engine.model_config)
        await init_app_state(engine, app.state, args, tasks)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            return [await ask(client, *request) for request in requests]
    finally:
        engine.shutdown()


async def ask(client: httpx.AsyncClient, path: str, body: Any = None) -> list[Any]:
    if body is None:
        response = await client.get(path)
        return [response.status_code, response.text]
    response = await client.post(path, json=body)
    return [response.status_code, response.json()]


if __name__ == "__main__":
    config, requests = (Path(file) for file in sys.argv[1:])
    unpickled = cloudpickle.loads(config.read_bytes())
    answers = asyncio.run(serve(unpickled, json.loads(requests.read_text())))
    print("answers", json.dumps(answers))  # noqa: T201
