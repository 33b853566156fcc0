# The service with the default model, on a CPU, without torch: docs/containers.md.
#   docker build -t dinle .  &&  docker run --rm -p 8000:8000 dinle

# What dinle needs, in an environment without a pip of its own: the image's pip fills it from outside.
FROM python:3.11.14-slim-bookworm AS libraries
# serve,otel,itn adds numbers as people write them (written=true), and 130 MB.
ARG EXTRAS=serve,otel
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_CONSTRAINT=/src/constraints.txt
WORKDIR /src
COPY pyproject.toml constraints.txt ./
# The secret is for another package index than PyPI, and optional; it leaves no trace in the image.
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python -m venv --without-pip /opt/dinle \
    && python -c 'import sys, tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
        print(*p["dependencies"], *(r for e in sys.argv[1].split(",") for r in p["optional-dependencies"][e]), sep="\n")' \
        "${EXTRAS}" > wanted.txt \
    && pip --python /opt/dinle/bin/python install --no-compile --requirement wanted.txt
# A service never reads: tests, sources in C, type stubs, ONNX Runtime's tools and its library for programs in C (Python has its
# own), what only a debugger reads (39 MB).
# Bytecode knows its source by its time, of which layers keep whole seconds only: touch.
WORKDIR /opt/dinle/lib/python3.11/site-packages
# hadolint ignore=DL3008  # binutils does not reach the image
RUN apt-get update -qq && apt-get install -qq --no-install-recommends binutils && rm -rf /var/lib/apt/lists/* \
    && rm -r onnxruntime/datasets onnxruntime/quantization onnxruntime/tools onnxruntime/transformers \
        onnxruntime/capi/libonnxruntime.so.* \
    && find . -type d -name tests -prune -exec rm -r {} + \
    && find . -type f -regex '.*\.\(a\|c\|cpp\|h\|hpp\|pxd\|pyi\|pyx\)' -delete \
    && find av uvloop httptools -name '*.so' -exec strip --strip-debug {} + \
    && find /opt/dinle -exec touch --no-dereference --date="@$(date +%s)" {} +

# dinle itself and its model: layers of their own, so that a new version does not bring the libraries again.
FROM libraries AS code
WORKDIR /src
COPY README.md LICENSE ./
COPY src ./src
COPY models/dinle-base-tr ./models/dinle-base-tr
COPY samples/sample.wav ./samples/sample.wav
COPY app ./app
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    pip --python /opt/dinle/bin/python install --no-compile --no-deps --prefix /code . \
    && find /code -exec touch --no-dereference --date="@$(date +%s)" {} + \
    && cp -a /code/. /opt/dinle \
    && mkdir -p /model/lib/python3.11/site-packages/dinle \
    && mv /code/lib/python3.11/site-packages/dinle/models /model/lib/python3.11/site-packages/dinle
# Nothing can be written later: the bytecode of what a start and a transcription read, and of nothing else, is made now.
RUN PYTHONPYCACHEPREFIX=/opt/bytecode /opt/dinle/bin/python -c "import app.main, dinle; \
        import uvicorn.lifespan.on, uvicorn.loops.uvloop; \
        import uvicorn.protocols.http.httptools_impl, uvicorn.protocols.websockets.websockets_impl; \
        print(dinle.load().transcribe('samples/sample.wav').text)"

# The bill of materials of what was really installed.
FROM python:3.11.14-slim-bookworm AS sbom
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_CONSTRAINT=/src/constraints.txt
WORKDIR /src
COPY pyproject.toml constraints.txt ./
COPY scripts/sbom.py ./scripts/sbom.py
COPY --from=code /opt/dinle /opt/dinle
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python -m venv --without-pip /opt/sbom \
    && pip --python /opt/sbom/bin/python install cyclonedx-bom==7.5.0 \
    && /opt/sbom/bin/cyclonedx-py environment --output-reproducible --spec-version 1.6 --mc-type application \
        --pyproject pyproject.toml --output-file packages.json /opt/dinle/bin/python \
    && /opt/sbom/bin/python scripts/sbom.py packages.json --environment /opt/dinle --output dinle.cdx.json

FROM python:3.11.14-slim-bookworm
LABEL org.opencontainers.image.title="dinle" \
      org.opencontainers.image.description="Turkish speech recognition over HTTP, on ordinary CPUs" \
      org.opencontainers.image.licenses="Apache-2.0"
# Nobody installs anything here, and nobody becomes somebody else.
RUN useradd --system --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin dinle \
    && pip uninstall --quiet --yes --root-user-action=ignore pip setuptools wheel \
    && find / -xdev -type f -perm /6000 -exec chmod a-s {} +
COPY --from=libraries /opt/dinle /opt/dinle
COPY --from=code /model /opt/dinle
COPY --from=code /code /opt/dinle
COPY --from=code /opt/bytecode /opt/bytecode
COPY --from=sbom /src/dinle.cdx.json /usr/share/sbom/dinle.cdx.json
WORKDIR /srv/dinle
COPY app ./app
ENV PATH="/opt/dinle/bin:${PATH}" \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONPYCACHEPREFIX=/opt/bytecode \
    OPENBLAS_NUM_THREADS=1 \
    ASR_BACKEND=onnx_int8
# A number, so that Kubernetes can see that it is not root.
USER 10001
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/healthz', timeout=2)"]
CMD ["uvicorn", "app.main:app", "--host", "0.0.0.0", "--port", "8000", "--timeout-graceful-shutdown", "30"]
