"""A server with few file descriptors; `python -m web.limited_server PORT LIMIT`."""

import resource
import sys

import structlog
import uvicorn

from todoku.web import BoundedHttpProtocol
from web.raw import echo_app

if __name__ == "__main__":
    port, limit = map(int, sys.argv[1:])
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    structlog.configure(processors=[structlog.processors.JSONRenderer()])
    BoundedHttpProtocol.header_seconds_max = 1.0
    BoundedHttpProtocol.check_seconds = 0.1
    uvicorn.run(
        echo_app(),
        port=port,
        http=BoundedHttpProtocol,
        lifespan="off",
        log_config=None,
        timeout_keep_alive=60,
    )
