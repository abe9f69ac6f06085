# The first stage builds a virtual environment from the locked versions and the wheel. The image is this environment on
# a slim Python, without sources and caches.
FROM python:3.13-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv --without-pip /opt/coupons
WORKDIR /source

# The dependencies come first: they change rarely, so a changed program builds in seconds. The lock file is only a
# constraint, because it also pins the private PostgreSQL of `coupons demo`, which a container does not need.
COPY pyproject.toml requirements.lock ./
RUN python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' \
      >dependencies.txt \
 && python -m pip --python /opt/coupons install --requirement dependencies.txt --constraint requirements.lock

COPY . .
RUN python -m pip wheel --no-deps --wheel-dir /wheels . \
 && python -m pip --python /opt/coupons install --no-deps /wheels/*.whl \
 && python -m pip --python /opt/coupons check

FROM python:3.13-slim
RUN useradd --uid 10001 --create-home --no-log-init coupons
COPY --from=build /opt/coupons /opt/coupons
ENV PATH=/opt/coupons/bin:$PATH
WORKDIR /home/coupons
# By number: an orchestrator that requires a non-root user cannot look up a name.
USER 10001
EXPOSE 8080
ENTRYPOINT ["coupons"]
CMD ["--help"]
