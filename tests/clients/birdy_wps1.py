"""birdy (PyPI: birdhouse-birdy), unmodified, against an orchestrator with `demo:Echo`, `demo:Sleep` and `test:Fail`.

Usage: birdy_wps1.py URL

Walks through what a user in a notebook does: processes as methods with documentation, synchronous calls, results fetched
and converted, progress until the end, a failing process, a wrong call. Prints one line for each step, and ends with 1 and a
traceback if anything is not as it should be.
"""

import logging
import sys
import tempfile

from birdy import WPSClient
from birdy.exceptions import ProcessFailed

url = sys.argv[1]


def step(text):
    print("ok:", text, flush=True)


def expect(condition, text):
    if not condition:
        raise AssertionError(text)


# Every process is a method, named after its identifier, with the description as its documentation.
wps = WPSClient(url)
for method in ("demo_echo", "demo_sleep", "test_fail"):
    expect(callable(getattr(wps, method, None)), f"no method {method}: {dir(wps)}")
documentation = wps.demo_echo.__doc__
expect("Any text; it reaches the program as one argument" in documentation, documentation)
expect("demo_echo" in wps.__doc__, wps.__doc__)
expect("en-US" in [str(language) for language in wps.languages.supported], vars(wps.languages))
step("processes as methods")

# Some of them only.
one = WPSClient(url, processes=["demo:Echo"])
expect(hasattr(one, "demo_echo") and not hasattr(one, "demo_sleep"), dir(one))
step("a chosen process")

# Synchronous: values, links, and the content of both.
answer = wps.demo_echo(text='a <b> & "c" é')
result = answer.get()
expect(result.result_text == 'a <b> & "c" é', result)
expect(result.result_file.startswith("http"), result)
content = answer.get(asobj=True)
expect(content.result_file in ('a <b> & "c" é', 'a <b> & "c" é'.encode()), content)
step(f"synchronous: {result.result_file}")

# A local file goes into the request.
with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
    file.write('{"a": [1, 2]}')
    file.flush()
    sent = wps.demo_echo(text="x", data=file.name).get(asobj=True)
expect(str(sent.result_file).replace("'", '"').replace(" ", "").find('"a":[1,2]') >= 0, sent)
step("a file as input")

# With progress: asynchronous, every state is printed, whatever it is.
lines = []
handler = logging.Handler()
handler.emit = lambda record: lines.append(record.getMessage())
followed = WPSClient(url, processes=["demo:Sleep"], progress=True)
followed.logger.addHandler(handler)
followed.logger.setLevel(logging.INFO)
done = followed.demo_sleep(seconds=1)
expect(done.isSucceded(), (done.status, [vars(e) for e in done.errors]))
expect(done.get() is not None and any("/100]" in line for line in lines), lines)
step(f"progress: {len(lines)} lines")

# Failure: an exception where the result is asked for, the words of the program beside it.
failed = wps.test_fail()
expect("the disk is on fire" in failed.errors[0].text, failed.errors[0].text)
try:
    failed.get()
except ProcessFailed:
    step("failure")
else:
    raise AssertionError("the failing process did not fail")

# A process that does not exist.
try:
    WPSClient(url, processes=["no:Such"])
except Exception as error:
    expect("no:Such" in str(error), error)
    step("unknown process")
else:
    raise AssertionError("describing an unknown process worked")
