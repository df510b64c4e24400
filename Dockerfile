# A Fanwire broker. docs/operations.md, "Deploy with Docker", says how to run it.
#   docker build --tag fanwire .
FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml constraints.txt MANIFEST.in README.md LICENSE ./
COPY src src
COPY broker broker
COPY client client
COPY protocol protocol
# Into an environment of its own, at the versions that were tested together.
RUN python3 -m venv /opt/fanwire
RUN /opt/fanwire/bin/python -m pip install --quiet --no-cache-dir --constraint constraints.txt '.[all]'

FROM python:3.13-slim
COPY --from=build /opt/fanwire /opt/fanwire
COPY deploy/healthcheck.py /opt/fanwire/healthcheck.py
# A container is reached from outside of it only. The broker refuses that until the settings say who may come in.
ENV PATH=/opt/fanwire/bin:$PATH \
    FANWIRE_HOST=0.0.0.0 \
    FANWIRE_PORT=9473 \
    FANWIRE_LOG_FORMAT=json
# A number, so that Kubernetes can see that it is not root (runAsNonRoot). It owns no file.
USER 65532:65532
EXPOSE 9473
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=5s --retries=3 \
    CMD ["/opt/fanwire/bin/python", "/opt/fanwire/healthcheck.py"]
ENTRYPOINT ["/opt/fanwire/bin/fanwire"]
CMD ["serve"]
