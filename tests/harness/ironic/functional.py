"""Runs the functional tests that ironic-python-agent ships, with another program in the agent's place.

Usage: functional.py PROGRAM FOLDER. The tests start their agent through the class IronicPythonAgent; here that class
starts PROGRAM with the same settings. A conductor that knows one node listens where the tests say it is. Their token is
shorter than any that a conductor hands out, so a longer one stands in for it.
"""

import http.server
import json
import os
import sys
import tempfile
import threading
import unittest

from ironic_python_agent import agent
from oslo_config import cfg

PROGRAM, FOLDER = sys.argv[1:3]
TOKEN = "functional-tests-" + "t" * 32
NODE = "5e5a5f7c-0000-4000-8000-000000000001"
MODULES = ["test_commands", "test_tls"]


class Conductor(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path.startswith("/v1/lookup"):
            node = {"uuid": NODE, "properties": {}, "instance_info": {}, "driver_internal_info": {}, "links": []}
            self.answer(200, {"node": node, "config": {"heartbeat_timeout": 300, "agent_token": TOKEN}})
        else:
            self.answer(200, {"default_version": {"id": "v1", "version": "1.109"}})

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.answer(202, None)

    def answer(self, status, body):
        text = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


class OtherAgent:
    def __init__(self, api_url, listen_address, **_):
        self.api_url, self.port = api_url, listen_address.port

    def run(self):
        conf = cfg.CONF
        folder = tempfile.mkdtemp(dir=FOLDER)
        settings = {"api_url": self.api_url, "listen_port": self.port, "advertise_host": "127.0.0.1"}
        if conf.listen_tls:
            for name in ("listen_tls", "tls_cert_file", "tls_key_file", "tls_min_version"):
                settings[name] = getattr(conf, name)
        else:
            settings["enable_auto_tls"] = False
        with open(os.path.join(folder, "agent.conf"), "w") as file:
            file.write("[DEFAULT]\n" + "".join(f"{name} = {value}\n" for name, value in settings.items()))
        arguments = ["run", "--config-dir", folder, "--cmdline", os.devnull, "--state-dir", folder + "/state"]
        os.execv(PROGRAM, [PROGRAM] + arguments)


def main():
    agent.IronicPythonAgent = OtherAgent
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 6835), Conductor)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    suite = unittest.TestSuite()
    for module in MODULES:
        tests = unittest.defaultTestLoader.loadTestsFromName(f"ironic_python_agent.tests.functional.{module}")
        for test in tests:
            for case in test:
                # A data descriptor of the class wins over what setUp puts into the instance.
                type(case).agent_token = property(lambda _: TOKEN, lambda *_: None)
        suite.addTests(tests)
    result = unittest.TextTestRunner(verbosity=2).run(suite)
    print(f"ran {result.testsRun}, skipped {len(result.skipped)}")
    sys.exit(not result.wasSuccessful())


main()
