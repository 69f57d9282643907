"""A model's published weights, downloaded from the hub into its local cache before any device is used."""

from __future__ import annotations

from pathlib import Path

from tunemark.errors import BadData
from tunemark.experiment.initial_weights import check_weight_files
from tunemark.hub import explain_hub_failure, hub_or_its_cache

# config.json and similar files, and weights that can be read without running code.
_SAFE_PATTERNS = ("*.json", "*.safetensors")


def download_pretrained(repository: str, *, allow_pickle: bool, trust_remote_code: bool) -> Path:
    """The local folder of a repository's files at one commit, downloaded if missing.

    Pickles are downloaded only if they are allowed and there is no safetensors file, Python code only if it is trusted.
    `BadData` where the repository is not available, `BadExperiment` where its weights may not be read.
    """
    import huggingface_hub  # heavy, and only needed here

    patterns = [*_SAFE_PATTERNS, *(["*.py"] if trust_remote_code else [])]
    try:
        with hub_or_its_cache():
            folder = Path(huggingface_hub.snapshot_download(repository, allow_patterns=patterns))
            if allow_pickle and not any(folder.glob("*.safetensors")):
                huggingface_hub.snapshot_download(repository, allow_patterns=[*patterns, "*.bin"])
            elif not any(folder.glob("*.safetensors")) and not any(folder.glob("*.bin")):
                # File names for the error message. Without a network there are none, and check_safe refuses the folder.
                names = [name for name in huggingface_hub.list_repo_files(repository) if "/" not in name]
                if names and not any(name.endswith(".safetensors") for name in names):
                    raise BadData(
                        what=f"the weights of {repository} are not published as safetensors",
                        why=f"it has {', '.join(sorted(names)[:8])}; loading a pickle can run arbitrary code",
                        next="use another repository, or add --allow-pickle if you trust it",
                    )
    except BadData:
        raise
    # The network, the hub and the cache can raise many kinds of exceptions.
    except Exception as error:
        raise BadData(
            what=f"the weights of {repository} are not in the local cache and cannot be downloaded from the hub",
            why=explain_hub_failure(error),
            next=f"on a machine with a network: hf download {repository} (some repositories require accepting a "
            "licence), then copy the cache here; or give a folder: --weights pretrained:FOLDER",
        ) from error
    check_weight_files(folder, repository, "in the local cache of the hub", allow_pickle=allow_pickle)
    return folder
