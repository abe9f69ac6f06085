# The first stage makes an environment of the locked versions and the wheel; the image is that environment on a bare
# Python, with neither source nor caches.
FROM python:3.13-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv --without-pip /opt/coupons
WORKDIR /source

# First what changes seldom, so that a change of the program alone builds in seconds. The lock is a constraint here and
# not a list, because it also pins what `coupons demo` needs: a PostgreSQL of its own, which a container has no use for.
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
# By number: an orchestrator that demands a user other than root cannot look a name up.
USER 10001
EXPOSE 8080
ENTRYPOINT ["coupons"]
CMD ["--help"]
