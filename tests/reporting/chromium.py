"""A real headless Chromium, spoken to by the Chrome DevTools protocol: what the browser does, logs and asks for."""

import itertools
import json
import os
import re
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

import websocket

BINARIES = ("chromium", "chromium-browser", "google-chrome")
MOST_SECONDS = 60


def find_chromium():
    """The path of an installed Chromium, None where there is none."""
    return next((path for name in BINARIES if (path := shutil.which(name))), None)


@contextmanager
def chromium():
    """Start a Chromium and give a Page; it and its folder are gone afterwards."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        flags = ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "no-first-run")
        more = ("disable-background-networking", "remote-allow-origins=*", "remote-debugging-port=0")
        command = [find_chromium(), *(f"--{flag}" for flag in (*flags, *more)), f"--user-data-dir={folder}"]
        environment = {**os.environ, "HOME": folder}
        process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment)
        try:
            yield Page(_address(process))
        finally:
            process.kill()
            process.wait()


def _address(process):
    said = []
    for line in process.stderr:
        said.append(line.decode(errors="replace"))
        if found := re.search(r"DevTools listening on (ws://\S+)", said[-1]):
            return found.group(1)
    raise AssertionError(f"Chromium did not start: {''.join(said[-5:])}")


class Page:
    """One tab. `problems` are errors and warnings of the console; `requests` are the addresses that were asked for."""

    def __init__(self, address):
        self.socket = websocket.create_connection(address, timeout=MOST_SECONDS)
        self.numbers, self.session = itertools.count(1), None
        self.problems, self.requests, self.loads = [], [], 0
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "Accessibility"):
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        """Call a method of the protocol and return its result."""
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": parameters}
        self.socket.send(json.dumps(message | ({"sessionId": self.session} if self.session else {})))
        while (answer := json.loads(self.socket.recv())).get("id") != number:
            self._note(answer)
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def _note(self, event):
        parameters = event.get("params", {})
        if event["method"] == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        elif event["method"] == "Runtime.exceptionThrown":
            self.problems.append(str(parameters["exceptionDetails"]))
        elif event["method"] == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning", "assert"):
            self.problems.append(str(parameters["args"]))
        elif event["method"] == "Log.entryAdded":
            self.problems.append(parameters["entry"]["text"])
        elif event["method"] == "Page.loadEventFired":
            self.loads += 1

    def open(self, path, width=1280, height=900, dark=False, script=True):
        """Open a file in a window of this size and wait until it is loaded."""
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[feature])
        self.call("Emulation.setScriptExecutionDisabled", value=not script)
        phone = width < 600
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        self.loads = 0
        self.call("Page.navigate", url=Path(path).as_uri())
        while not self.loads:
            self._note(json.loads(self.socket.recv()))

    def run(self, expression):
        """Return the value of a JavaScript expression."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def press(self, key, code=0, text=""):
        """Press a key, as a person does."""
        for kind in ("keyDown", "keyUp"):
            more = {"text": text} if text and kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **more)

    def accessible(self):
        """Return role and name of everything that a screen reader is told."""
        nodes = self.call("Accessibility.getFullAXTree")["nodes"]
        told = [node for node in nodes if not node["ignored"]]
        return [(node.get("role", {}).get("value"), node.get("name", {}).get("value", "")) for node in told]
