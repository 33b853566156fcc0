# The service with the bundled model, on a CPU, without torch.
#   docker build -t dinle .  &&  docker run --rm -p 8000:8000 dinle

FROM python:3.11.14-slim-bookworm AS builder
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY src ./src
COPY models ./models
COPY samples ./samples
# The environment gets no pip of its own: the image's pip fills it from outside.
RUN python -m venv --without-pip /opt/dinle \
    && pip --python /opt/dinle/bin/python install --constraint constraints.txt '.[serve]'

FROM python:3.11.14-slim-bookworm
LABEL org.opencontainers.image.title="dinle" \
      org.opencontainers.image.description="Turkish speech recognition over HTTP, on ordinary CPUs" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --system --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin dinle
COPY --from=builder /opt/dinle /opt/dinle
WORKDIR /srv/dinle
COPY app ./app
ENV PATH="/opt/dinle/bin:${PATH}" \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    OPENBLAS_NUM_THREADS=1 \
    ASR_BACKEND=onnx_int8
# A number, so that Kubernetes can see that it is not root.
USER 10001
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/healthz', timeout=2)"]
CMD ["uvicorn", "app.main:app", "--host", "0.0.0.0", "--port", "8000", "--timeout-graceful-shutdown", "30"]
