# The dashboard on a host with docker. On a Hugging Face Space this file is not used: its SDK is Gradio.
#   docker build -t safemerge .
#   docker run --rm -p 127.0.0.1:7860:7860 -v safemerge:/home/user/.cache [--gpus all] safemerge
# The dashboard has no login: publish the port to this machine only (127.0.0.1, as above), or put a proxy with a login
# before it and name its host in SAFEMERGE_HOSTS. docs/how-to/space.md has more.
FROM python:3.11-slim

RUN useradd --create-home --uid 1000 user
USER user
ENV PATH=/home/user/.local/bin:$PATH \
    PIP_NO_CACHE_DIR=1 \
    PYTHONUNBUFFERED=1 \
    SAFEMERGE_LISTEN=0.0.0.0 \
    SAFEMERGE_HOME=/home/user/.cache/safemerge \
    SAFEMERGE_RUNS=/home/user/.cache/safemerge/runs
WORKDIR /home/user/app

COPY --chown=user requirements.txt requirements.lock ./
RUN pip install --user -r requirements.txt -c requirements.lock
COPY --chown=user . .

# So that a volume mounted here belongs to the user.
RUN mkdir -p /home/user/.cache/safemerge
EXPOSE 7860
CMD ["python", "app.py"]
