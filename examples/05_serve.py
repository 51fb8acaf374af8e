"""A web server whose threads share one model, with the standard library alone.

    python examples/05_serve.py book.safetensors
    curl 'http://127.0.0.1:8000/generate?prompt=It+was&n=100&seed=1'
    curl --data-binary @more.txt http://127.0.0.1:8000/train

Without a file it trains a small model on the source code of Python's standard library first.  Requests for
texts run at once, each on a thread of its own.  While the model learns more, it is refused to the others:
they get status 503, and may ask again.  ``--self-test`` asks 40 times and compares the answers.
"""

import argparse
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlencode, urlsplit
from urllib.request import urlopen

from fastrnn import CharRNN
from fastrnn.text import standard_library_source

LONGEST_ANSWER = 10_000  # characters
LONGEST_TEXT = 1_000_000  # bytes that one request may teach


class Handler(BaseHTTPRequestHandler):
    """Answers ``GET /generate`` and ``POST /train`` in JSON."""

    model: CharRNN
    timeout = 30  # seconds for which a client may say nothing

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        if address.path != "/generate":
            return self.answer(HTTPStatus.NOT_FOUND, {"error": "ask for /generate"})
        given = {name: values[-1] for name, values in parse_qs(address.query, keep_blank_values=True).items()}
        return self.answer_with(lambda: {"text": generate(self.model, **given)})

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        size = int(length) if length.isdecimal() and len(length) < 10 else 0
        if self.path != "/train" or not 0 < size <= LONGEST_TEXT:
            self.close_connection = True  # what it sends is not read
            return self.answer(HTTPStatus.BAD_REQUEST, {"error": f"send /train up to {LONGEST_TEXT} bytes"})
        text = self.rfile.read(size)
        return self.answer_with(lambda: {"steps": self.model.partial_fit(text).step_})

    def answer_with(self, work) -> None:
        try:
            content = work()
        except RuntimeError as error:  # another thread changes the model, or reads what is to be changed
            return self.answer(HTTPStatus.SERVICE_UNAVAILABLE, {"error": str(error)})
        except (TypeError, ValueError) as error:
            return self.answer(HTTPStatus.BAD_REQUEST, {"error": str(error)})
        return self.answer(HTTPStatus.OK, content)

    def answer(self, status: HTTPStatus, content: dict) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments) -> None:
        """Say nothing about each request."""


def generate(model: CharRNN, prompt: str = "", n: str = "100", seed: str = "", temperature: str = "1") -> str:
    """What the model writes; the arguments are as a query gives them."""
    length = int(n)
    if length > LONGEST_ANSWER:
        raise ValueError(f"n must be at most {LONGEST_ANSWER}, got {length}")
    return model.generate(
        length, prompt, temperature=float(temperature), random_state=int(seed) if seed else None
    )


def self_test(address: str, model: CharRNN) -> None:
    """Let 8 clients ask 5 times each, and compare with what one thread writes."""

    def ask(seed: int) -> str:
        with urlopen(f"{address}/generate?{urlencode({'seed': seed, 'n': 200})}") as answer:
            return json.load(answer)["text"]

    expected = [generate(model, n="200", seed=str(seed)) for seed in range(40)]
    with ThreadPoolExecutor(8) as clients:  # each asks in turn; an answer that is an error ends the test
        found = list(
            clients.map(lambda first: [ask(seed) for seed in range(first, first + 5)], range(0, 40, 5))
        )
    wrong = sum(a != b for a, b in zip(expected, [text for texts in found for text in texts], strict=True))
    if wrong:
        raise SystemExit(f"{wrong} of 40 answers are wrong")
    print("8 clients asked 40 times, and every answer is what one thread writes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", nargs="?", help="a model that was saved; one is trained if there is none")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--self-test", action="store_true", help="ask and compare, and end")
    options = parser.parse_args()
    if options.file:
        model = CharRNN.load(options.file)
    else:
        text = standard_library_source(50_000)
        model = CharRNN(64, max_seconds=2, diagnostics_every=None, unknown="skip", random_state=0, verbose=0)
        model.fit(text)
    model.set_params(verbose=0)
    Handler.model = model
    with ThreadingHTTPServer(("127.0.0.1", 0 if options.self_test else options.port), Handler) as server:
        address = f"http://127.0.0.1:{server.server_port}"
        if options.self_test:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            self_test(address, model)
            server.shutdown()
            return
        print(f"{address}/generate?prompt=def&n=200   (Ctrl-C ends it)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()


if __name__ == "__main__":
    main()
