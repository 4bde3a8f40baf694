"""The hub: upload a folder, and nothing else."""

from pathlib import Path

from response_tuning.errors import ConfigError
from response_tuning.readers import one_line


def check_repository(name: str) -> None:
    """Refuse a name that is no repository's.

    Raises:
        ConfigError: it is none.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ConfigError(f"--repo {name}: {one_line(error)}; give OWNER/NAME") from error
    if "/" not in name:
        raise ConfigError(f"--repo {name}: no owner; give OWNER/NAME")


def upload(folder: Path, repository: str, *, private: bool) -> str:
    """Upload every file of ``folder`` in one commit, and return its address.

    Raises:
        ConfigError: the hub refuses; the message is one line.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi()
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            commit_message="Exported by rtune",
            ignore_patterns=[".rtune.json"],
        )
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise ConfigError(
            f"{repository}: cannot be uploaded: {one_line(error)}; log in with 'hf auth login'. "
            f"The folder {folder} is whole: the same command uploads it"
        ) from error
    return str(commit.commit_url)
