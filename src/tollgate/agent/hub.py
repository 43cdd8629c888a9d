"""Asks the Hugging Face hub, or what imitates it, for lists and bytes of files."""

import contextlib
import json
import re
from collections.abc import AsyncIterator, Mapping
from pathlib import PurePosixPath
from typing import Any, Final, Literal, NamedTuple, Self
from urllib.parse import quote

import httpx

from tollgate.engines import headers, model_files
from tollgate.engines.facts import Facts, join

ADDRESS: Final = "https://huggingface.co"
STALL_SECONDS: Final = 30.0
MOST_REDIRECTS: Final = 5
MOST_LIST_BYTES: Final = 32 * 2**20
MOST_PAGES: Final = 200
_REDIRECTS: Final = {301, 302, 303, 307, 308}
_GIT_ID: Final = re.compile(r"[0-9a-f]{40}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
"""Digests are part of file names here."""
_LATER: Final = {408, 425, 429, 500, 502, 503, 504}

Reason = Literal["gated", "absent", "no_space", "digest", "network", "offline", "read_only"]


class DownloadFailed(Exception):
    """With a reason that programs read, and a sentence that says what to do."""

    def __init__(self, reason: Reason, message: str, retryable: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.retryable = retryable


class HubFile(NamedTuple):
    """A file of a repository, as the hub lists it."""

    path: str
    size: int
    sha256: str | None
    """Of large files. Small ones have the id that Git gives them."""
    git_id: str


class Hub:
    """The token goes to the hub itself, never to the servers that it redirects to."""

    def __init__(self, address: str, token: str | None = None, stall_seconds: float = STALL_SECONDS) -> None:
        self._address = httpx.URL(address.rstrip("/"))
        self._token = token
        self._client = httpx.AsyncClient(
            timeout=httpx.Timeout(stall_seconds, connect=min(10.0, stall_seconds)),
            headers={"accept-encoding": "identity"},  # the bytes of the file, so that ranges count
            follow_redirects=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def model(self, repo_id: str, revision: str) -> dict[str, Any]:
        """What the hub says of a repository. `sha` is the commit that the revision means now."""
        url = self._url(f"/api/models/{quote(repo_id)}/revision/{quote(revision, safe='')}")
        async with self._get(url, repo_id) as response:
            found = json.loads(await _bounded(response))
        if not isinstance(found, dict) or not isinstance(found.get("sha"), str) or not found["sha"].isalnum():
            raise DownloadFailed("network", "The hub's answer names no commit.", retryable=True)
        return found

    async def tree(self, repo_id: str, commit: str) -> list[HubFile]:
        url = self._url(f"/api/models/{quote(repo_id)}/tree/{commit}?recursive=true")
        listed: list[Any] = []
        for _ in range(MOST_PAGES):
            async with self._get(url, repo_id) as response:
                page = json.loads(await _bounded(response))
                listed += page if isinstance(page, list) else []
                following = response.links.get("next", {}).get("url")
            if not following:
                return [file for one in listed if (file := _file(one))]
            url = url.join(following)
        raise DownloadFailed("network", f"{repo_id} has more files than can be listed.")

    @contextlib.asynccontextmanager
    async def open(self, repo_id: str, commit: str, path: str, start: int) -> AsyncIterator[httpx.Response]:
        """From byte `start` on: 206 from there, or 200 from the first byte where the server does not do ranges."""
        ranged = {"range": f"bytes={start}-"} if start else {}
        url = self._url(f"/{quote(repo_id)}/resolve/{commit}/{quote(path)}")
        async with self._get(url, repo_id, ranged) as response:
            yield response

    def _url(self, path: str) -> httpx.URL:
        return httpx.URL(f"{self._address}{path}")

    def _is_hub(self, url: httpx.URL) -> bool:
        ours = self._address
        return (url.scheme, url.host, url.port) == (ours.scheme, ours.host, ours.port)

    @contextlib.asynccontextmanager
    async def _get(
        self, url: httpx.URL, repo_id: str, extra: Mapping[str, str] | None = None
    ) -> AsyncIterator[httpx.Response]:
        for _ in range(MOST_REDIRECTS + 1):
            authorization = {"authorization": f"Bearer {self._token}"} if self._token and self._is_hub(url) else {}
            async with self._client.stream("GET", url, headers={**(extra or {}), **authorization}) as response:
                if response.status_code not in _REDIRECTS:
                    _refuse(response, repo_id, self._is_hub(url))
                    yield response
                    return
                url = url.join(response.headers.get("location", ""))
            if url.scheme not in {"https", self._address.scheme}:
                raise DownloadFailed("network", "The hub redirected to an address without TLS.")
        raise DownloadFailed("network", f"The hub redirected more than {MOST_REDIRECTS} times.", retryable=True)


def _refuse(response: httpx.Response, repo_id: str, is_hub: bool) -> None:
    status, code = response.status_code, response.headers.get("x-error-code", "")
    if response.is_success or status == 416:
        return
    if not is_hub:  # the address that the hub gave has ended, or does not work: the hub gives another
        raise DownloadFailed("network", f"The server that the hub redirects to answered {status}.", retryable=True)
    if code == "GatedRepo" or (status in {401, 403} and code != "RepoNotFound"):
        raise DownloadFailed("gated", f"{repo_id} is gated: accept its terms on the hub, and store a token.")
    if status in {401, 404}:
        what = {"EntryNotFound": "that file of ", "RevisionNotFound": "that revision of "}.get(code, "")
        advice = "check the name, or store a token if it is private."
        raise DownloadFailed("absent", f"The hub does not have {what}{repo_id}: {advice}")
    raise DownloadFailed("network", f"The hub answered {status}.", retryable=status in _LATER)


async def _bounded(response: httpx.Response) -> bytes:
    read = bytearray()
    async for chunk in response.aiter_bytes():
        read += chunk
        if len(read) > MOST_LIST_BYTES:
            raise DownloadFailed("network", f"The hub's answer is longer than {MOST_LIST_BYTES} bytes.")
    return bytes(read)


def _file(listed: Any) -> HubFile | None:
    """None for folders, for hidden files, and for paths that would leave the folder of the repository."""
    match listed:
        case {"type": "file", "path": str(path), "size": int(size), "oid": str(git_id)} if size >= 0:
            parts = PurePosixPath(path).parts
            hidden = any(part.startswith(".") for part in parts)
            if not parts or hidden or path.startswith("/") or "\\" in path or not path.isprintable():
                return None
            large = listed.get("lfs")
            sha256 = large.get("oid") if isinstance(large, dict) else None
            if _GIT_ID.fullmatch(git_id) and (sha256 is None or _SHA256.fullmatch(str(sha256))):
                return HubFile(path, size, sha256, git_id)
    return None


async def config(hub: str, repo_id: str, revision: str, token: str | None = None) -> dict[str, Any]:
    """What config.json says of a model, in the names of that file; and its facts, for an estimate before a download.
    Repositories of GGUF files have none: their facts are the sizes of the files."""
    try:
        async with Hub(hub, token) as asked:
            about = await asked.model(repo_id, revision)
            files = {file.path: file for file in await asked.tree(repo_id, about["sha"])}
            facts = Facts()
            if "config.json" in files:
                async with asked.open(repo_id, about["sha"], "config.json", 0) as response:
                    facts = headers.config_json(await _bounded(response))
            elif not model_files.gguf_groups(files):
                raise DownloadFailed("absent", f"{repo_id} has neither a config.json nor GGUF files.")
    except (httpx.TransportError, httpx.InvalidURL, ValueError) as error:
        raise DownloadFailed(
            "network", f"The hub could not be asked ({type(error).__name__}).", retryable=True
        ) from None
    weights = [name for name in model_files.needed(files) if name.endswith((*model_files.WEIGHTS, ".gguf"))]
    counted = about.get("safetensors")
    total = counted.get("total") if isinstance(counted, dict) else None
    changes = {"parameters": total} if isinstance(total, int) and total > 0 else {}
    whole = join([facts.model_copy(update={"weight_bytes": sum(files[name].size for name in weights), **changes})])
    return {
        "repo_id": repo_id,
        "commit": about["sha"],
        "hidden_size": whole.hidden or None,
        "num_hidden_layers": whole.layers or None,
        "num_attention_heads": whole.heads or None,
        "num_key_value_heads": whole.kv_heads or None,
        "max_position_embeddings": whole.context_length or None,
        "vocab_size": whole.vocab or None,
        "params_b": whole.billions,
        "architecture": whole.architecture,
        "quantization": whole.quantization,
        "files": sorted(files),
        "gguf_groups": [
            {
                "quant_type": group.quantization,
                "files": list(group.files),
                "is_complete": group.complete,
                "bytes": sum(files[name].size for name in group.files),
            }
            for group in model_files.gguf_groups(files)
        ],
        "facts": whole.model_dump(mode="json"),
    }
