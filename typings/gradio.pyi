# Gradio is an extra that needs an older Pillow than vggfeat's tests, so it is not installed where types are checked.
from typing import Any

class Image:
    async_move_resource_to_block_cache: Any
    elem_id: str
    def __init__(self, **options: Any) -> None: ...
    def __getattr__(self, name: str) -> Any: ...

class SelectData:
    index: Any

def __getattr__(name: str) -> Any: ...
