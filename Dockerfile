# An image with `rtune` as its command. For CPUs:
#   docker build -t response-tuning .
# For CUDA, name the index of a CUDA build of torch (see pytorch.org) and add QLoRA:
#   docker build -t response-tuning:cuda \
#     --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 --build-arg EXTRAS=gguf,qlora .
# Run it on files of the current folder:
#   docker run --rm -it -v "$PWD:/work" response-tuning finetune --base-model miniature --data answers.jsonl --out tea
# With a GPU, add --gpus all. Models of the hub are kept in a volume with -v rtune-cache:/cache.
FROM python:3.11-slim

ARG TORCH=torch==2.13.0
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=gguf

# torch comes first and from an index of its own: a plain one may bring gigabytes of CUDA.
RUN pip install --no-cache-dir "$TORCH" --index-url "$TORCH_INDEX"

# The pins without tests, site and checks, so that the image has the versions that are tested.
COPY requirements.txt /src/
RUN sed '/^# Site and notebooks/,$d; s/\[[^]]*\]//' /src/requirements.txt > /src/constraints.txt
COPY pyproject.toml README.md LICENSE /src/
COPY src /src/src
RUN pip install --no-cache-dir --constraint /src/constraints.txt "/src[$EXTRAS]" && rm -rf /src

# Not root: what a run writes into /work belongs to the user of `docker run --user`.
RUN useradd --create-home --uid 1000 tuner && mkdir /work /cache && chown tuner /work /cache
USER tuner
ENV HF_HOME=/cache/huggingface RESPONSE_TUNING_CACHE=/cache/response-tuning
WORKDIR /work
ENTRYPOINT ["rtune"]
CMD ["--help"]
