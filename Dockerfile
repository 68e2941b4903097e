# One image for head and backend; docker-compose.yml says which of them a container runs.
FROM python:3.11-slim-bookworm
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1

# The user has uid 1000, which the first user of most Linux machines has; so it can read that user's token file.
RUN useradd --create-home --uid 1000 rayface \
 && mkdir -p /var/lib/rayface/gcs /var/lib/rayface/models /tmp/ray \
 && chown -R rayface:rayface /var/lib/rayface /tmp/ray
WORKDIR /rayface

# First the packages, which change seldom; with the same hashes as everywhere. The pins name every package
# (see start.py).
COPY constraints.txt ./
RUN pip install --no-deps --require-hashes --requirement constraints.txt
COPY --chown=rayface . .
RUN pip install --no-deps --no-build-isolation --editable .

USER rayface
ENV RAYFACE_CACHE_DIR=/var/lib/rayface/models
# docker-compose.yml adds an init (`init: true`), because a raylet that nobody reaps keeps its actors alive.
CMD ["rayface", "--help"]
