# Head and backend in one image; which of them it is, docker-compose.yml says.
FROM python:3.11-slim-bookworm
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1

# A plain user with the number that a first user has on most Linux machines, so that it can read that user's
# token file.
RUN useradd --create-home --uid 1000 rayface \
 && mkdir -p /var/lib/rayface/gcs /var/lib/rayface/models /tmp/ray \
 && chown -R rayface:rayface /var/lib/rayface /tmp/ray
WORKDIR /rayface

# First what changes seldom, with the same hashes as everywhere.
COPY constraints.txt ./
RUN pip install --require-hashes --requirement constraints.txt
COPY --chown=rayface . .
RUN pip install --no-deps --no-build-isolation --editable .

USER rayface
ENV RAYFACE_CACHE_DIR=/var/lib/rayface/models
# docker-compose.yml adds an init that reaps (`init: true`); a raylet that nobody reaps keeps its actors alive.
CMD ["rayface", "--help"]
