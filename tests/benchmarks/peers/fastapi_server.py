"""FastAPI with Uvicorn: a plain function as endpoint, which FastAPI runs in its threads; no batches.

See https://fastapi.tiangolo.com/tutorial/request-files/. This was the design before this project.
"""

# mypy: disable-error-code="import-not-found, untyped-decorator, misc"
# The packages are in the peer's own environment.

from __future__ import annotations

import sys
from typing import Annotated, Any

import uvicorn
from fastapi import FastAPI, File

from tests.benchmarks.peers.model import PeerModel

PATH, FIELD = "/detect", "photo"

app = FastAPI()
model = PeerModel()


@app.post(PATH)
def detect(photo: Annotated[bytes, File()]) -> dict[str, Any]:
    """The faces of one photo."""
    return model.detect([model.decode(photo)])[0]


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
