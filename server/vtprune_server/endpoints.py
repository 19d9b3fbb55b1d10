"""The `vllm.endpoint_plugins` entry point: routes on a server that prunes, nothing on any other."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from fastapi.routing import APIRoute, request_response

from vllm_pruner import envs, methods
from vllm_pruner.settings.keys import settings_in
from vllm_pruner.settings.server import ServerConfig
from vtprune_server.access import Access
from vtprune_server.canary import check_vllm
from vtprune_server.nodes import check_engines
from vtprune_server.not_json import saying_not_json
from vtprune_server.ready import sentence, tell_when_ready
from vtprune_server.report_header import ReportHeader
from vtprune_server.router import router
from vtprune_server.surface import Surface
from vtprune_server.unread import refusing

if TYPE_CHECKING:
    from argparse import Namespace

    from fastapi import FastAPI
    from starlette.datastructures import State
    from vllm.engine.protocol import EngineClient
    from vllm.tasks import SupportedTask

__all__ = ["Endpoints"]


class Endpoints:
    """vtprune's routes, as `vllm.plugins.endpoint_plugins.interface.EndpointPlugin`."""

    name = "vtprune"
    required_tasks: tuple[SupportedTask, ...] | None = ("generate",)

    def attach_router(self, app: FastAPI) -> None:
        """Add the routes; only `init_state`, called later, knows whether this server prunes."""
        app.add_middleware(ReportHeader)
        app.include_router(router)
        for route in app.routes:
            if isinstance(route, APIRoute) and route.body_field:
                handle = refusing(route.path, route.get_route_handler())
                route.app = request_response(saying_not_json(route.path, handle))

    async def init_state(
        self, engine_client: EngineClient | None, state: State, args: Namespace
    ) -> None:
        """Set up the state of the routes, if this server prunes.

        Raises:
            RuntimeError: an engine does not prune, see `nodes`; or the canary failed. It runs on an
                unknown vLLM, and if another package provides the server's own method; see `canary`.
        """
        state.vtprune_access = Access.of(args)
        state.vtprune = None
        if engine_client is None:
            return
        settings = settings_in(engine_client.model_config.multimodal_config)
        # Without a processor prompts may have no image and no video.
        if settings is not None and engine_client.renderer.mm_processor is not None:
            await check_engines(engine_client)
            config = ServerConfig.parse(settings)
            state.vtprune = Surface(engine_client, state, config)
            said = sentence(config, state.vtprune.image_info.get_max_image_tokens(), args)
            state.vtprune_ready = asyncio.create_task(tell_when_ready(state, said))
            if envs.canary() or methods.package_of(config.method) is not None:
                await check_vllm(state.vtprune)
