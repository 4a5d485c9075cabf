# The packaged project, on the CPU and without root. docs/deployment.md says how to build and run it.
FROM python:3.13-slim AS wheel
WORKDIR /source
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.13-slim
COPY requirements.lock /
# The releases of the lock, hashes checked; uv knows where PyTorch's CPU build is, which the lock leaves out.
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install --no-cache-dir uv \
    && uv pip install --system --no-cache --torch-backend cpu --constraint requirements.lock \
        "$(echo /wheels/*.whl)[onnx,serve]"
# Any user may run it: what it writes goes below the working directory, and what libraries keep, into HOME.
ENV HOME=/tmp PYTHONUNBUFFERED=1
WORKDIR /work
RUN chown 1000:1000 .
USER 1000:1000
ENTRYPOINT ["review-sentiment"]
