"""`tidegate schema`: the JSON Schema of pipeline files, so that an editor completes and checks them while one types."""

from __future__ import annotations

from typing import Any

from tidegate.cli.output import print_json


def schema() -> None:
    """Print the JSON Schema of pipeline files. Editors take it as `# yaml-language-server: $schema=FILE`."""
    print_json(pipeline_schema())


def pipeline_schema() -> dict[str, Any]:
    """The schema of `Pipeline` in camelCase, shorthand forms included (a bare `count`, a bare column)."""
    from tidegate.config.pipeline import Pipeline

    described = _for_editors(Pipeline.model_json_schema(by_alias=True))
    described["properties"]["$schema"] = {"type": "string", "description": "For editors."}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **described}


def _for_editors(node: Any) -> Any:
    """Without pydantic's titles, which repeat each name, and with defaults of durations as a file writes them."""
    from tidegate.config.durations import format_duration

    if isinstance(node, list):
        return [_for_editors(item) for item in node]
    if not isinstance(node, dict):
        return node
    cleaned = {key: _for_editors(value) for key, value in node.items() if key != "title" or not isinstance(value, str)}
    if node.get("title") == "Duration" and isinstance(node.get("default"), int):
        cleaned["default"] = format_duration(node["default"])
    return cleaned
