"""A model's published weights, from the hub into its local cache, before any device is held."""

from __future__ import annotations

from pathlib import Path

from tunemark.errors import BadData
from tunemark.experiment.weights import check_safe

# config.json and its like, and weights that are read without running code.
_SAFE = ("*.json", "*.safetensors")


def published(repository: str, *, allow_pickle: bool, trust_remote_code: bool) -> Path:
    """The folder that holds a repository's files at one commit; they are downloaded where they are not there yet.

    Pickles are fetched only where they are allowed and there is nothing else, Python code only where it is trusted.
    `BadData` where the repository cannot be had, `BadExperiment` where its weights may not be read.
    """
    import huggingface_hub  # heavy, and needed here alone

    patterns = [*_SAFE, *(["*.py"] if trust_remote_code else [])]
    try:
        folder = Path(huggingface_hub.snapshot_download(repository, allow_patterns=patterns))
        if allow_pickle and not any(folder.glob("*.safetensors")):
            huggingface_hub.snapshot_download(repository, allow_patterns=[*patterns, "*.bin"])
        elif not any(folder.glob("*.safetensors")) and not any(folder.glob("*.bin")):
            # Names alone, so that what is refused is named. Without a network there are none, and the folder says so.
            names = [name for name in huggingface_hub.list_repo_files(repository) if "/" not in name]
            if names and not any(name.endswith(".safetensors") for name in names):
                raise BadData(
                    what=f"the weights of {repository} are not published as safetensors",
                    why=f"it has {', '.join(sorted(names)[:8])}; reading a pickle can run any code that it holds",
                    next="use another repository, or add --allow-pickle if you trust it",
                )
    except BadData:
        raise
    # The network, the hub and the cache are on the other side, each with exceptions of its own.
    except Exception as error:
        raise BadData(
            what=f"the weights of {repository} are not in the local cache and cannot be had from the hub",
            why=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
            next=f"where there is a network: hf download {repository} (some repositories ask for a licence first), "
            "then copy the cache here; or give a folder: --weights pretrained:FOLDER",
        ) from error
    check_safe(folder, repository, "in the local cache of the hub", allow_pickle=allow_pickle)
    return folder
