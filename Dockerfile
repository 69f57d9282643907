# tunemark on CPUs. `docker build -t tunemark . && docker run --rm -v "$PWD:/work" tunemark run -o report`
# Images for CUDA, ROCm and MoAI: docs/containers.md.
FROM python:3.11-slim
# C++ headers for torch.compile are left out: --compile needs an image with a compiler.
RUN useradd --create-home tunemark
COPY . /src
# torch's CPU build: the default one brings 3 GB of CUDA.
RUN pip install --no-cache-dir -c /src/constraints.txt --extra-index-url https://download.pytorch.org/whl/cpu \
        "/src[lora]" \
    && rm -rf /src
USER tunemark
WORKDIR /work
ENTRYPOINT ["tunemark"]
CMD ["--help"]
