# demo: every step on a small data set    test: the whole suite    check: ruff, mypy, hadolint, bandit    audit: pip-audit
# serve: the service, kept running        bench: the committed reports, anew    loadtest: locust against a running service
# bench-service: the service under load    capacity: users and live streams per core
# bench-wav2vec2: every precision and other engines on the architecture of wav2vec2-base
# embedded-model: the bundled models, from public weights and texts
# chart-js: the page's copy of Chart.js, from npm
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.installed
HOST   ?= http://127.0.0.1:8000
# The figures on the web page, from the committed reports.
NUMBERS = $(BIN)/python -m dinle.measure.published artifacts src/dinle/serve/static/numbers.json

.PHONY: demo test chromium container-tools check audit serve bench bench-wav2vec2 bench-service capacity loadtest embedded-model chart-js clean

demo: $(READY)
	$(BIN)/dinle demo

# Two at a time where nothing is timed; the service, the page, Ray and the load test have the machine for themselves.
PARALLEL := tests/build tests/measure tests/recognize $(wildcard tests/test_*.py)
test: $(READY) chromium container-tools
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile $(PARALLEL)
	$(BIN)/pytest $(PARALLEL:%=--ignore=%)

# The page is tested in a real browser; where it cannot be installed those tests are skipped and say so.
chromium:
	@command -v chromium > /dev/null || command -v chromium-browser > /dev/null || command -v google-chrome > /dev/null \
		|| (apt-get update -qq && apt-get install -y -qq chromium > /dev/null) \
		|| echo "Chromium could not be installed: the tests of the page will be skipped"

# The image is built and the alerts are run by Debian's own tools; where they cannot be installed those tests are skipped and say so.
container-tools:
	@(command -v buildah && command -v debootstrap && command -v promtool) > /dev/null \
		|| (apt-get update -qq && RUNLEVEL=1 apt-get install -y -qq --no-install-recommends buildah debootstrap prometheus > /dev/null) \
		|| echo "buildah, debootstrap and prometheus could not be installed: the tests of the image and of the alerts will be skipped"

check: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/hadolint Dockerfile
	$(BIN)/bandit --quiet --configfile pyproject.toml --severity-level medium --recursive src app scripts locust

# Asks PyPI for known vulnerabilities of the tested versions.
audit: $(READY)
	$(BIN)/pip install --quiet pip-audit
	$(BIN)/pip-audit --requirement constraints.txt --no-deps --disable-pip

serve: $(READY)
	$(BIN)/dinle serve

# The fp32 graph is too large to be kept in the repository; it is exported from the bundled checkpoint first.
bench: $(READY)
	$(BIN)/dinle export --checkpoint_dir models/dinle-ctc-tr/checkpoint --onnx_dir build-out/dinle-ctc-tr
	$(BIN)/dinle evaluate --manifest data/mini/manifest.jsonl --model build-out/dinle-ctc-tr --backend onnx \
		--no-language_model --output_dir artifacts/evaluation_fp32
	$(BIN)/dinle evaluate --manifest data/mini/manifest.jsonl --model models/dinle-ctc-tr \
		--no-language_model --output_dir artifacts/evaluation_int8
	$(BIN)/dinle compare artifacts/evaluation_fp32 artifacts/evaluation_int8 --output_dir artifacts/int8_against_fp32
	$(BIN)/dinle quantize --bundle_dir build-out/dinle-ctc-tr --preset qdq
	$(BIN)/dinle quantize --bundle_dir build-out/dinle-ctc-tr --preset int4
	$(BIN)/dinle benchmark --checkpoint_dir models/dinle-ctc-tr/checkpoint --model build-out/dinle-ctc-tr --precisions all \
		--manifest data/mini/manifest.jsonl --peers openvino-nncf ort-dynamic --audio_path samples/sample.wav --runs 30
	$(NUMBERS)

# Random weights: speed, size and memory do not hang on what a model has learnt; its text means nothing.
WAV2VEC2 := build-out/wav2vec2-base
bench-wav2vec2: $(READY)
	$(BIN)/python scripts/random_wav2vec2.py $(WAV2VEC2)/checkpoint
	$(BIN)/dinle export --checkpoint_dir $(WAV2VEC2)/checkpoint --onnx_dir $(WAV2VEC2)/bundle
	$(BIN)/dinle quantize --bundle_dir $(WAV2VEC2)/bundle --preset qdq
	$(BIN)/dinle quantize --bundle_dir $(WAV2VEC2)/bundle --preset int4
	$(BIN)/dinle benchmark --checkpoint_dir $(WAV2VEC2)/checkpoint --model $(WAV2VEC2)/bundle --precisions all \
		--peers openvino-nncf ort-dynamic --audio_path samples/sample.wav --repeat_to_s 10 --runs 15 \
		--report_path artifacts/wav2vec2_base_report.md
	$(NUMBERS)

# Both bundled models under load, twenty minutes; alone on the machine, please. After make bench-wav2vec2 that model too.
bench-service: $(READY)
	$(BIN)/dinle benchmark-service --report_path artifacts/service_report.md
	$(BIN)/dinle benchmark-service --model models/dinle-ctc-tr --soak_seconds 0 --report_path artifacts/service_ctc_report.md
	test ! -d $(WAV2VEC2)/bundle || $(BIN)/dinle benchmark-service --model $(WAV2VEC2)/bundle --soak_seconds 0 \
		--report_path artifacts/service_wav2vec2_report.md
	$(NUMBERS)
	$(BIN)/python -m dinle.measure.deployment_report

# Users and live streams per core of both bundled models, the CTC model in fp32 too: 17 minutes; alone on the machine, please.
FP32 := build-out/fp32/dinle-ctc-tr
capacity: $(READY)
	$(BIN)/python scripts/fp32_bundle.py $(FP32)
	$(BIN)/dinle loadtest --models models/dinle-base-tr models/dinle-ctc-tr $(FP32) --report_path artifacts/capacity.md
	$(BIN)/python -m dinle.measure.deployment_report

loadtest: $(READY)
	$(BIN)/locust -f locust/locustfile.py --host $(HOST)

# WHISPER and CTC: hub ids or folders to start from. KOKORO: the model.onnx of Kokoro-82M; KOKORO_VOICES: its folder of *.bin.
# It takes long on a CPU; called again after an interruption, it goes on.
WHISPER ?= openai/whisper-base
embedded-model: $(READY)
	$(BIN)/python scripts/embedded_model.py --whisper "$(WHISPER)" $(if $(CTC),--ctc "$(CTC)") \
		$(if $(KOKORO),--kokoro "$(KOKORO)") $(if $(KOKORO_VOICES),--kokoro_voices "$(KOKORO_VOICES)")

# The line that names a map is left out: the map is not kept, and browsers would ask for it in vain.
CHART_JS := 4.6.1
VENDOR   := src/dinle/serve/static/vendor
chart-js:
	rm -rf build-out/chart-js && mkdir -p build-out/chart-js $(VENDOR)
	cd build-out/chart-js && npm pack --silent chart.js@$(CHART_JS) && tar xzf chart.js-$(CHART_JS).tgz
	sed '/^\/\/# sourceMappingURL=/d' build-out/chart-js/package/dist/chart.umd.js > $(VENDOR)/chart.umd.js
	cp build-out/chart-js/package/LICENSE.md $(VENDOR)/chart.LICENSE.md

clean:
	rm -rf $(VENV) build-out demo-out dist

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@
