"""Stored responses: the ids of all that a store has, whatever chain they are of."""

from __future__ import annotations

from typing import cast

from antiphon.core.turns import DEFAULT_TENANT
from antiphon.turn.service import TurnService
from antiphon.turn.store_protocols import Store, Stores
from support.store_turns import StoreWithStores


async def response_ids(store: Store, tenant: str = DEFAULT_TENANT) -> list[str]:
    """The ids of a tenant's responses, the newest first."""
    return await _response_ids(cast(StoreWithStores, store).stores, tenant)


async def response_ids_of_service(service: TurnService) -> list[str]:
    """The same, of the store that a service was built with."""
    assert service.stores is not None
    return await _response_ids(service.stores, DEFAULT_TENANT)


async def _response_ids(stores: Stores, tenant: str) -> list[str]:
    turns = await stores.response_index.list_responses(tenant, 1_000_000)
    return [turn.response_id for turn in turns]
