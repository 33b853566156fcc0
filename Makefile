# demo: every step on a small data set    test: the whole suite    check: ruff, mypy, hadolint
# serve: the service, kept running        bench: the committed reports, anew    loadtest: locust against a running service
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.installed
HOST   ?= http://127.0.0.1:8000

.PHONY: demo test check serve bench loadtest clean

demo: $(READY)
	$(BIN)/dinle demo

test: $(READY)
	$(BIN)/pytest

check: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/hadolint Dockerfile

serve: $(READY)
	$(BIN)/dinle serve

# The fp32 graph is too large to be kept in the repository; it is exported from the bundled checkpoint first.
bench: $(READY)
	$(BIN)/dinle export --checkpoint_dir models/dinle-ctc-v0/checkpoint --onnx_dir build-out/dinle-ctc-v0
	$(BIN)/dinle evaluate --manifest data/mini/manifest.jsonl --model build-out/dinle-ctc-v0 --backend onnx \
		--output_dir artifacts/evaluation_fp32
	$(BIN)/dinle evaluate --manifest data/mini/manifest.jsonl --model models/dinle-ctc-v0 \
		--output_dir artifacts/evaluation_int8
	$(BIN)/dinle compare artifacts/evaluation_fp32 artifacts/evaluation_int8 --output_dir artifacts/int8_against_fp32
	$(BIN)/dinle benchmark --checkpoint_dir models/dinle-ctc-v0/checkpoint \
		--onnx_path build-out/dinle-ctc-v0/model.onnx --onnx_int8_path build-out/dinle-ctc-v0/model_int8.onnx \
		--audio_path samples/sample.wav --runs 30

loadtest: $(READY)
	$(BIN)/locust -f locust/locustfile.py --host $(HOST)

clean:
	rm -rf $(VENV) build-out demo-out dist

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@
