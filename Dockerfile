# brainstage with all that users need, for processors. The bundled models need no network.
#   docker build -t brainstage .
#   docker run --rm -u "$(id -u):$(id -g)" -v "$PWD:/work" brainstage predict scan.nii.gz
#   docker run --rm -u "$(id -u):$(id -g)" -v /data/bids:/bids:ro -v /data/out:/out brainstage bids /bids /out participant
FROM python:3.13-slim-bookworm

COPY pyproject.toml README.md LICENSE /opt/brainstage/
COPY src /opt/brainstage/src
# as the README installs it
RUN python -m pip install --no-cache-dir torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu \
 && python -m pip install --no-cache-dir "/opt/brainstage[all]"

# whoever runs it may have no home folder in it
ENV HOME=/tmp BRAINSTAGE_CACHE=/tmp/brainstage
WORKDIR /work
ENTRYPOINT ["brainstage"]
