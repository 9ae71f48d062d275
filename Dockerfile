# One image for all roles: migrate, worker, flower, and the commands of the client. docker-compose.yml defines the roles
# with their health checks.
# To update the base: docker buildx imagetools inspect python:3.12.14-slim-trixie --format '{{.Manifest.Digest}}'
FROM python:3.12.14-slim-trixie@sha256:78387bc3881b8273120a12ebe6c1ab22b018ccc2c9adf565ae1ac9b536e184ea

ENV PYTHONUNBUFFERED=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore

RUN useradd --system --uid 10001 --create-home callgate

WORKDIR /app

# The locked requirements change less often than the code, so they have a layer of their own.
COPY requirements requirements
RUN pip install --require-hashes --no-deps -r requirements/production.txt

# The checkout is installed in editable mode, so that it needs no wheels of itself. The build backend comes from the
# same lock, and is uninstalled after the build.
COPY pyproject.toml README.md ./
COPY callgate callgate
COPY worker worker
COPY tasks tasks
COPY config config
COPY migrations migrations
RUN awk '/^[a-z]/ {take = /^(hatchling|pathspec|pluggy|tomlkit|trove-classifiers)==/} take' requirements/dev.txt > /tmp/build.txt \
    && pip install --require-hashes --no-deps -r /tmp/build.txt \
    && pip install --no-deps --no-build-isolation --editable . \
    && pip uninstall --yes hatchling pathspec pluggy tomlkit trove-classifiers \
    && rm /tmp/build.txt \
    && python -m compileall -q callgate worker tasks config migrations

USER callgate
ENTRYPOINT ["callgate"]
CMD ["worker"]
