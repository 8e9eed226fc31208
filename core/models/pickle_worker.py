"""Reads pickled weights in a process of its own, which has no network, no token and can write to one folder only.

Run as a script: `python -I pickle_worker.py list|convert OUT FILE...`. It uses torch's restricted unpickler, which
accepts tensors and plain containers only. `list` writes the tensors' shapes to OUT/tensors.json, `convert` writes one
safetensors file for each pickle to OUT. It imports nothing of this project. A file that the restricted
unpickler refuses ends the process with status 3, and the reason is the last line of its output.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import os
import re
import resource
import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

REFUSED = 3
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_PR_SET_NO_NEW_PRIVS = 38
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_RULE_PATH_BENEATH = 1
_WRITES = 0b1_1111_1111_0010
"""Landlock's rights that change files: write a file (bit 1), remove (4, 5) and make (6-12) entries."""
_WRITE_FILE = 0b10
_OPEN_FILES = 256
_HASH_BYTES = 1 << 22
_REASON_CHARACTERS = 400


def main(arguments: list[str]) -> int:
    """Read the files as the command line says, and return the exit status."""
    task, out, files = arguments[0], Path(arguments[1]), [Path(name) for name in arguments[2:]]
    isolate(out)
    import pickle

    try:
        if task == "list":
            (out / "tensors.json").write_text(json.dumps(_list(files)), encoding="utf-8")
        else:
            _convert(files, out)
    except (pickle.UnpicklingError, RuntimeError, ValueError, TypeError, EOFError, AttributeError) as error:
        sys.stdout.write(f"{_reason(error)}\n")
        return REFUSED
    return 0


def _reason(error: Exception) -> str:
    """One line; torch's own message advises to switch the restricted unpickler off."""
    text = " ".join(str(error).split())
    if found := re.search(r"(?:GLOBAL|global:?) (?!GLOBAL)(?P<name>[\w.]+)", text):
        return f"it needs {found['name']}, which is neither a tensor nor a plain container"
    return "it is not a pickle of tensors" if "weights_only" in text else text[:_REASON_CHARACTERS].rstrip(".")


def isolate(out: Path) -> None:
    """Give up what reading weights does not need: core dumps, the network, and writing outside `out`.

    The network and the write access are given up where the system permits it (Linux: user namespaces, Landlock).
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = _OPEN_FILES if most == resource.RLIM_INFINITY else min(_OPEN_FILES, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if os.geteuid() == 0:
            libc.unshare(_CLONE_NEWNET)
        else:
            libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET)
        _restrict_writes(libc, out)


def _restrict_writes(libc: Any, out: Path) -> None:
    """Allow changes of files below `out` only (Landlock, Linux 5.13); without effect on older systems."""
    ruleset = libc.syscall(_CREATE_RULESET, struct.pack("Q", _WRITES), ctypes.c_size_t(8), 0)
    if ruleset < 0:
        return
    for path, rights in ((out, _WRITES), (Path(os.devnull), _WRITE_FILE)):
        place = os.open(path, os.O_PATH)
        libc.syscall(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, struct.pack("=Qi", rights, place), 0)
        os.close(place)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.syscall(_RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)


def _load(path: Path, device: str) -> dict[str, torch.Tensor]:
    """The tensors of one file.

    Raises:
        pickle.UnpicklingError: the file holds something else than tensors and plain containers.
        ValueError: it holds no dictionary of tensors.
    """
    import torch

    if path.stat().st_size == 0:
        raise ValueError(f"{path.name} is empty")
    try:
        state = torch.load(path, map_location=device, weights_only=True, mmap=True)
    except RuntimeError as error:
        if "PytorchStreamReader" in str(error):
            raise ValueError(f"{path.name} is truncated or damaged") from error
        if "mmap" not in str(error):
            raise
        state = torch.load(path, map_location=device, weights_only=True)  # the format of torch before 1.6
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise ValueError(f"{path.name} is truncated or damaged") from error
    except EOFError as error:
        raise ValueError(f"{path.name} ends too early") from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not state:
        raise ValueError(f"{path.name} holds no dictionary of tensors")
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor) or tensor.layout != torch.strided:
            raise ValueError(f"{name} of {path.name} is not a dense tensor")
        if tensor.is_quantized:
            raise ValueError(f"{name} of {path.name} is quantized")
    return state


def _list(files: list[Path]) -> dict[str, Any]:
    from safetensors.torch import _TYPES

    codes = {dtype: code for code, dtype in _TYPES.items()}
    tensors = {}
    for path in files:
        for name, tensor in _load(path, "meta").items():
            tensors[name] = [list(tensor.shape), codes[tensor.dtype]]
    return tensors


def _convert(files: list[Path], out: Path) -> None:
    from safetensors.torch import save_file

    sources = {}
    for number, path in enumerate(files, start=1):
        state = _load(path, "cpu")
        target = out / f"model-{number:05d}-of-{len(files):05d}.safetensors"
        save_file(_separate(state), target, metadata={"format": "pt"})
        sources[path.name] = _sha256(path)
    (out / "source.json").write_text(json.dumps(sources), encoding="utf-8")


def _separate(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors contiguous and without shared memory, as safetensors requires."""
    seen, separate = set(), {}
    for name, tensor in state.items():
        storage = tensor.untyped_storage().data_ptr() if tensor.numel() else None
        whole = tensor.is_contiguous() and tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
        separate[name] = tensor if whole and storage not in seen else tensor.contiguous().clone()
        seen.add(storage)
    return separate


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_HASH_BYTES):
            digest.update(block)
    return digest.hexdigest()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
