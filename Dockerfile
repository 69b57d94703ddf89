# docker build -t lemlight .                                            for CPU and NVIDIA GPUs: PyTorch with CUDA's libraries
# docker build -t lemlight:cpu --build-arg TORCH_INDEX=ADDRESS .        for the CPU alone, gigabytes less: ADDRESS is the index of
#                                                                       packages that PyTorch's own install page names for "CPU"
# docker run --rm --shm-size=2g --user "$(id -u):$(id -g)" -v "$PWD:/work" lemlight lemlight.train recipe=demo
# /dev/shm has 64 MB in a container: --shm-size lets processes hand over batches; see docs/install.md
ARG PYTHON=3.11
FROM python:${PYTHON}-slim AS build
ARG TORCH_INDEX=""
ARG EXTRAS=onnx,timm,download
WORKDIR /src
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/lemlight
ENV PATH=/opt/lemlight/bin:$PATH
# the versions of the lock; its hashes are those of PyPI's builds, which the CPU's are not
COPY requirements.lock pyproject.toml README.md LICENSE ./
RUN sed -n 's/^\([a-z0-9].*==.*[^ ]\) *\\$/\1/p' requirements.lock > versions.txt && \
    if [ -n "$TORCH_INDEX" ]; then \
      grep -E '^(torch|torchvision)==' versions.txt > torch.txt && \
      pip install --index-url "$TORCH_INDEX" -r torch.txt; \
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
