# The image of all services and of the console: `docker build -t todoku .`, then `docker run todoku run orders`.
#
# BASE is an image of Debian with Python 3.11 and its venv module; pin it by digest (docs/how-to/containers.md).
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
WORKDIR /build
RUN apt-get update && apt-get install --yes --no-install-recommends binutils
RUN python3 -m venv /build/tools && python3 -m venv --without-pip /opt/todoku
# All dependencies are wheels but nkeys, which is Python only: nothing here needs a compiler.
COPY requirements/image.lock requirements/image-build.lock requirements/
RUN tools/bin/pip install --no-cache-dir --require-hashes --requirement requirements/image-build.lock \
 && tools/bin/pip wheel --no-cache-dir --wheel-dir wheels --no-build-isolation \
      --only-binary :all: --no-binary nkeys --require-hashes --requirement requirements/image.lock \
 && tools/bin/pip --python /opt/todoku/bin/python install --no-compile --no-deps --no-index wheels/*.whl
COPY pyproject.toml LICENSE *.md ./
COPY src src
COPY docs docs
COPY examples/loyalty/README.md examples/loyalty/
RUN tools/bin/python -m hatchling build -t wheel \
 && tools/bin/pip --python /opt/todoku/bin/python install --no-compile --no-deps --no-index dist/*.whl \
 && mkdir -m 0700 /build/data
# Compile what is used, by importing it: a read-only container cannot do it later, and all would be 15 MB more.
# Tools for agents need the extra `mcp`, which is not in the image; nobody runs the laboratory in it.
RUN /opt/todoku/bin/python -c 'import importlib, pkgutil, todoku; \
[importlib.import_module(m.name) for m in pkgutil.walk_packages(todoku.__path__, "todoku.") if not {"agents", "lab"} & {*m.name.split(".")}]; \
import alembic.operations, alembic.runtime.migration, psycopg, uvloop' \
# Leave out what nothing reads at run time: symbols for debuggers, sources and types of compiled modules.
 && find /opt/todoku -name '*.so' -exec strip --strip-unneeded '{}' + \
 && find /opt/todoku \( -name '*.py[ix]' -o -name '*.pxd' -o -name '*.[ch]' \) -delete \
 && cd /opt/todoku/lib/python3*/site-packages && rm -r sqlalchemy/testing sqlalchemy/ext/asyncio alembic/testing google/[!_p]* *.dist-info/RECORD \
 && /opt/todoku/bin/python -c 'import cryptography.x509, httptools, msgspec, nacl.signing, psycopg, sqlalchemy.orm, uuid_utils, uvloop'

FROM ${BASE}
COPY --from=build /opt/todoku /opt/todoku
# Databases and backups are readable by their owner only: a volume that is mounted here starts that way.
COPY --from=build --chown=10001:10001 /build/data /data
ENV PATH=/opt/todoku/bin:${PATH} \
    PYTHONDONTWRITEBYTECODE=1 \
    TODOKU_DATA_DIR=/data \
    TODOKU_HOST=0.0.0.0 \
    TODOKU_LOG_FORMAT=json
USER 10001:10001
WORKDIR /data
EXPOSE 8080 8081 8082 8085
ENTRYPOINT ["todoku"]
CMD ["--help"]
