"""Relative paths become absolute, each against the directory of the project or include that it is in."""

from __future__ import annotations

import posixpath
import re

from compose.tree import Node, mapping, sequence

_REMOTE = re.compile(r"^([a-z][a-z0-9+.-]*://|git@|github\.com/|oci:)", re.IGNORECASE)
_GIT_SSH = re.compile(r"^[\w.-]+@[\w.-]+:")
_CONTEXT = re.compile(r"^service:")
_WINDOWS = re.compile(r"^(?:[a-zA-Z]:|\\\\)")


def absolute(path: str, base: str, home: str) -> str:
    """`path` from `base`; `~` is `home`. Absolute paths stay as they are, Windows' ones too."""
    if path == "~" or path.startswith("~/"):
        return posixpath.normpath(posixpath.join(home, path[2:]))
    if path.startswith("/") or _WINDOWS.match(path):
        return path
    return posixpath.normpath(posixpath.join(base, path))


def is_remote(context: str) -> bool:
    """Whether a build context is a URL or a git repository, not a directory."""
    return bool(_REMOTE.match(context) or _GIT_SSH.match(context))


class Resolver:
    """Makes one file's paths absolute; or, with a `project` directory, keeps them relative to that one: what is
    written in the project's `own` files stays as it stands."""

    def __init__(self, base: str, home: str, project: str | None = None, own: bool = False) -> None:
        self._base = base
        self._home = home
        self._project = project
        self._own = own

    def place(self, path: str) -> str:
        """One path."""
        if self._project is None:
            return absolute(path, self._base, self._home)
        if self._own:
            return path
        found = absolute(path, self._base, self._home)
        return (
            found if path.startswith(("/", "~")) or found == path else posixpath.relpath(found, self._project)
        )

    def resolve(self, root: Node) -> Node:
        """The canonical tree of a file with its paths made absolute."""
        value = dict(mapping(root))
        services = value.get("services")
        if services is not None and isinstance(services.value, dict):
            resolved = {name: self.service(node) for name, node in services.value.items()}
            value["services"] = services.replaced(resolved)
        for kind in ("configs", "secrets"):
            node = value.get(kind)
            if node is not None and isinstance(node.value, dict):
                value[kind] = node.replaced(
                    {name: self._fields(child, "file") for name, child in node.value.items()}
                )
        volumes = value.get("volumes")
        if volumes is not None and isinstance(volumes.value, dict):
            value["volumes"] = volumes.replaced(
                {name: self._volume(child) for name, child in volumes.value.items()}
            )
        return root.replaced(value)

    def service(self, node: Node) -> Node:
        """A service's paths: build, volumes, env files, watches, credential specs."""
        if not isinstance(node.value, dict):
            return node
        value = dict(node.value)
        for key, change in (
            ("build", self._build),
            ("volumes", self._mounts),
            ("env_file", self._env_files),
            ("label_file", self._list),
            ("develop", self._develop),
            ("extends", self._extends),
        ):
            child = value.get(key)
            if child is not None and child.value is not None:
                value[key] = change(child)
        return node.replaced(value)

    def _path(self, node: Node) -> Node:
        if not isinstance(node.value, str) or not node.value:
            return node
        return node.replaced(self.place(node.value))

    def _fields(self, node: Node, *names: str) -> Node:
        value = mapping(node)
        if not any(name in value for name in names):
            return node
        return node.replaced(
            {key: self._path(child) if key in names else child for key, child in value.items()}
        )

    def _list(self, node: Node) -> Node:
        return node.replaced([self._path(item) for item in sequence(node)])

    def _build(self, node: Node) -> Node:
        value = dict(mapping(node))
        context = value.get("context")
        if context is not None and isinstance(context.value, str):
            value["context"] = self._context(context)
        extra = value.get("additional_contexts")
        if extra is not None and isinstance(extra.value, dict):
            value["additional_contexts"] = extra.replaced(
                {name: self._context(child) for name, child in extra.value.items()}
            )
        return node.replaced(value)

    def _context(self, node: Node) -> Node:
        text = node.text()
        return node if is_remote(text) or _CONTEXT.match(text) else self._path(node)

    def _mounts(self, node: Node) -> Node:
        return node.replaced([self._mount(item) for item in sequence(node)])

    def _mount(self, node: Node) -> Node:
        kind = node.get("type")
        if kind is None or kind.value != "bind":
            return node
        return self._fields(node, "source")

    def _env_files(self, node: Node) -> Node:
        return node.replaced([self._fields(item, "path") for item in sequence(node)])

    def _develop(self, node: Node) -> Node:
        watch = node.get("watch")
        if watch is None:
            return node
        items = [self._fields(item, "path") for item in sequence(watch)]
        return node.replaced({**mapping(node), "watch": watch.replaced(items)})

    def _extends(self, node: Node) -> Node:
        file = node.get("file")
        return node if file is not None and is_remote(file.text()) else self._fields(node, "file")

    def _volume(self, node: Node) -> Node:
        """A local volume that is really a bind mount has a path in its options."""
        options = node.get("driver_opts")
        driver = node.get("driver")
        if options is None or driver is None or driver.value != "local":
            return node
        kind = options.get("o")
        if kind is None or "bind" not in kind.text().split(","):
            return node
        return node.replaced({**mapping(node), "driver_opts": self._fields(options, "device")})
