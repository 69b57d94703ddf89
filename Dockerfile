# docker build -t lemlight .                               for the CPU
# docker build -t lemlight:cuda --build-arg TORCH=cuda .   for NVIDIA GPUs: PyPI's PyTorch brings CUDA's libraries
# docker run --rm --shm-size=2g --user "$(id -u):$(id -g)" -v "$PWD:/work" lemlight lemlight.train recipe=demo
# /dev/shm has 64 MB in a container: --shm-size lets processes hand over batches; see docs/install.md
ARG PYTHON=3.11
FROM python:${PYTHON}-slim AS build
ARG TORCH=cpu
ARG EXTRAS=onnx,timm,download
WORKDIR /src
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/lemlight
ENV PATH=/opt/lemlight/bin:$PATH
# the versions of the lock; its hashes are those of PyPI's builds, which the CPU's are not
COPY requirements.lock pyproject.toml README.md LICENSE ./
RUN sed -n 's/^\([a-z0-9].*==.*[^ ]\) *\\$/\1/p' requirements.lock > versions.txt && \
    if [ "$TORCH" = cpu ]; then \
      grep -E '^(torch|torchvision)==' versions.txt > torch.txt && \
      pip install --index-url https://download.pytorch.org/whl/cpu -r torch.txt; \
    fi
COPY src src
COPY conf conf
RUN pip install --constraint versions.txt ".[${EXTRAS}]"

FROM python:${PYTHON}-slim
COPY --from=build /opt/lemlight /opt/lemlight
ENV PATH=/opt/lemlight/bin:$PATH PYTHONUNBUFFERED=1 HOME=/tmp LOGNAME=lemlight
RUN useradd --create-home lemlight
USER lemlight
WORKDIR /work
ENTRYPOINT ["python", "-m"]
CMD ["lemlight"]
