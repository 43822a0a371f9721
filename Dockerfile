# stone in a container, once for the CPU and once for NVIDIA GPUs:
#
#     docker build -t stone .                         # or: docker build --target cuda -t stone:cuda .
#     docker run --rm --init -u "$(id -u):$(id -g)" -v ~/Music:/music -v stone:/data stone tag /music --write-tags
#
# For the GPU add --gpus all (the host needs only the driver). /data stores the undo journal and the cache; -u writes files
# as the owner of the music. Not everything in the image has the MIT license: docs/licenses.md.

FROM python:3.13.9-slim-trixie AS build
WORKDIR /src
RUN python -m venv /opt/stone
COPY pyproject.toml README.md LICENSE ./
COPY stonecli ./stonecli
COPY train ./train
COPY export ./export
COPY beetsplug ./beetsplug
RUN /opt/stone/bin/pip install --no-cache-dir .

# On x86-64, pip installs the GPU build, which also runs on CPUs; the CPU build is 260 MB smaller.
FROM build AS build-cpu
RUN /opt/stone/bin/pip uninstall --yes onnxruntime-gpu onnxruntime \
    && /opt/stone/bin/pip install --no-cache-dir 'onnxruntime>=1.23'

FROM build AS build-cuda
RUN /opt/stone/bin/pip install --no-cache-dir '.[cuda]'

FROM build AS build-train
RUN /opt/stone/bin/pip install --no-cache-dir '.[train]'

FROM python:3.13.9-slim-trixie AS base
LABEL org.opencontainers.image.title="stone" \
      org.opencontainers.image.description="Detects the musical key of your tracks and writes it to their tags." \
      org.opencontainers.image.licenses="MIT AND GPL-3.0-or-later AND LGPL-2.1-or-later AND Apache-2.0 AND BSD-3-Clause"
# Every user may write there, so that -u works with any user.
RUN useradd --uid 1000 --no-create-home --shell /usr/sbin/nologin stone \
    && mkdir --mode=1777 /data /music
ENV PATH=/opt/stone/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    STONE_STATE_DIR=/data/state \
    STONE_CACHE_DIR=/data/cache \
    STONE_CONFIG_DIR=/data/config \
    STONE_DATA_DIR=/data/models
VOLUME ["/data"]
WORKDIR /music
# docker stop finishes the file in progress, as Ctrl-C does.
STOPSIGNAL SIGINT
ENTRYPOINT ["stone"]
CMD ["--help"]

FROM base AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=build-cuda /opt/stone /opt/stone
USER 1000

# stone train: docker build --target train -t stone:train . && docker run --rm --gpus all --shm-size 2g -v ~/Music:/music
# -v runs:/data stone:train train --type ks --data /music --save-dir /data/runs. PyTorch brings its own CUDA libraries.
FROM base AS train
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=build-train /opt/stone /opt/stone
USER 1000

# docker build makes the last stage by default.
FROM base AS cpu
COPY --from=build-cpu /opt/stone /opt/stone
USER 1000
