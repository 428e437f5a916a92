"""OWSLib, as it comes from PyPI, against an orchestrator with `gdal:Contour`, `demo:Sleep` and `test:Fail`.

Usage: owslib_wps1.py URL FOLDER

Walks through what a Python user does: capabilities, describe, synchronous raw and document, asynchronous with polling to
100 %, results by reference, a failing process, an unknown process, dismissal. Prints one line for each step; the contours
of the steps are left in FOLDER. Ends with 1 and a traceback if anything is not as it should be.
"""

import sys
import time
import urllib.request

from owslib.wps import (
    ComplexDataInput,
    WebProcessingService,
    WPSExecution,
    monitorExecution,
)

url, folder = sys.argv[1:3]
INPUTS = [("interval", "100"), ("attribute", "height")]


def step(text):
    print("ok:", text, flush=True)


def expect(condition, text):
    if not condition:
        raise AssertionError(text)


def finished(execution, limit=60):
    """Polls as OWSLib does, with short pauses, and gives the percentages on the way."""
    seen = []
    deadline = time.monotonic() + limit
    while not execution.isComplete():
        expect(time.monotonic() < deadline, f"still {execution.status} after {limit} s")
        execution.checkStatus(sleepSecs=0.1)
        seen.append(execution.percentCompleted)
    return seen


wps = WebProcessingService(url, skip_caps=True)
wps.getcapabilities()
expect(wps.identification.type == "WPS", wps.identification.type)
expect(wps.version == "1.0.0", wps.version)
identifiers = [process.identifier for process in wps.processes]
expect({"gdal:Contour", "demo:Sleep", "test:Fail"} <= set(identifiers), identifiers)
step(f"capabilities: {', '.join(identifiers)}")

process = wps.describeprocess("gdal:Contour")
inputs = {i.identifier: i for i in process.dataInputs}
expect(inputs["interval"].dataType.endswith("double"), inputs["interval"].dataType)
expect(inputs["interval"].minOccurs == 0 and inputs["interval"].maxOccurs == 1, vars(inputs["interval"]))
expect(inputs["interval"].defaultValue == "50", inputs["interval"].defaultValue)
expect(sorted(inputs["format"].allowedValues) == ["geojson", "gml", "shz"], inputs["format"].allowedValues)
outputs = {o.identifier: o for o in process.processOutputs}
expect(outputs["result_geojson"].defaultValue.mimeType == "application/geo+json", "the format of result_geojson")
expect(process.storeSupported in (True, "true"), process.storeSupported)
expect(process.statusSupported in (True, "true"), process.statusSupported)
expect(len(wps.describeprocess("all")) == len(identifiers), "describe all")
step("describe")

# Synchronous, raw: the bytes of the contours.
execution = WPSExecution(version="1.0.0", url=url)
request = execution.buildRequest(
    "gdal:Contour",
    INPUTS,
    output=[("result_geojson", False, "application/geo+json")],
    mode="sync",
    lineage=False,
)
import owslib.etree

for document in request.iter("{http://www.opengis.net/wps/1.0.0}ResponseDocument"):
    parent = next(e for e in request.iter() if document in list(e))
    raw = owslib.etree.etree.SubElement(parent, "{http://www.opengis.net/wps/1.0.0}RawDataOutput")
    raw.set("mimeType", "application/geo+json")
    raw.append(next(document.iter("{http://www.opengis.net/ows/1.1}Identifier")))
    parent.remove(document)
    break
body = owslib.etree.etree.tostring(request)
post = urllib.request.Request(url, data=body, headers={"Content-Type": "text/xml"})
with urllib.request.urlopen(post) as answer:
    expect(answer.headers["Content-Type"] == "application/geo+json", answer.headers["Content-Type"])
    raw_contours = answer.read()
expect(raw_contours.lstrip().startswith(b"{"), raw_contours[:80])
with open(f"{folder}/raw.geojson", "wb") as file:
    file.write(raw_contours)
step(f"synchronous raw: {len(raw_contours)} bytes")

# Synchronous, document: everything inline.
execution = wps.execute("gdal:Contour", INPUTS, output=[("result_geojson", False)], mode="sync")
expect(execution.isSucceded(), (execution.status, [vars(e) for e in execution.errors]))
inline = execution.processOutputs[0]
expect(inline.identifier == "result_geojson" and inline.data, vars(inline))
with open(f"{folder}/inline.geojson", "w", encoding="utf-8") as file:
    file.write(inline.data[0])
step("synchronous document")

# Without any form of response: a synchronous document with all outputs.
execution = wps.execute("gdal:Contour", INPUTS)
expect(execution.isSucceded() and not execution.statusLocation, (execution.status, execution.statusLocation))
expect([o.identifier for o in execution.processOutputs] == ["result_geojson"], "the output of the chosen format only")
step("no form of response")

# The default of OWSLib: asynchronous; an empty list of outputs means all. Polling until the end.
execution = wps.execute("gdal:Contour", INPUTS, output=[])
expect(execution.statusLocation, "no statusLocation")
monitorExecution(execution, sleepSecs=0.1)
expect(execution.isSucceded(), (execution.status, [vars(e) for e in execution.errors]))
expect(execution.percentCompleted == 100, execution.percentCompleted)
step("asynchronous, to 100 %")

execution = wps.execute("demo:Sleep", [("seconds", "2")], output=[])
seen = finished(execution)
expect(execution.isSucceded(), execution.status)
expect(any(0 < percent < 100 for percent in seen) and seen[-1] == 100 and seen == sorted(seen), seen)
step(f"asynchronous, on the way: {sorted(set(seen))}")

# By reference: OWSLib downloads it.
execution = wps.execute("gdal:Contour", INPUTS, output=[("result_geojson", True)])
finished(execution)
expect(execution.isSucceded(), (execution.status, [vars(e) for e in execution.errors]))
reference = execution.processOutputs[0].reference
expect(reference and reference.startswith("http"), reference)
execution.getOutput(f"{folder}/reference.geojson")
step(f"by reference: {reference}")

# All formats.
for form, output, ending in (("gml", "result_gml", "gml"), ("shz", "result_shapefile", "shz")):
    execution = wps.execute("gdal:Contour", INPUTS + [("format", form)], output=[(output, True)])
    finished(execution)
    expect(execution.isSucceded(), (execution.status, [vars(e) for e in execution.errors]))
    execution.getOutput(f"{folder}/format.{ending}")
step("GML and shapefile")

# Failure: a state with the program's own words, no exception in Python.
execution = wps.execute("test:Fail", [], output=[])
finished(execution)
expect(not execution.isSucceded() and execution.errors, execution.status)
expect("the disk is on fire" in execution.errors[0].text, execution.errors[0].text)
step(f"failure: {execution.errors[0].code}")

# An unknown process: OWSLib raises what we say.
try:
    wps.describeprocess("gdal:Nothing")
except Exception as error:
    expect("gdal:Nothing" in str(error), str(error))
    step("unknown process")
else:
    raise AssertionError("describing an unknown process worked")
execution = None
try:
    execution = wps.execute("gdal:Nothing", [])
    expect(execution.errors, "executing an unknown process worked")
except Exception as error:
    expect("gdal:Nothing" in str(error), str(error))
step("executing an unknown process")

# A complex input, and a value with everything in it.
execution = wps.execute(
    "demo:Echo",
    [("text", "a <b> & \"c\" é"), ("data", ComplexDataInput("<x>1</x>", mimeType="application/xml"))],
    output=[("result_text", False)],
    mode="sync",
)
expect(execution.isSucceded(), (execution.status, [vars(e) for e in execution.errors]))
expect(execution.processOutputs[0].data == ["a <b> & \"c\" é"], execution.processOutputs[0].data)
step("echo of a difficult text")

# Dismissal by GeoServer's operation; polling goes on and ends.
execution = wps.execute("demo:Sleep", [("seconds", "600")], output=[("result", False)])
job = execution.statusLocation.split("executionId=")[1].split("&")[0]
with urllib.request.urlopen(f"{url}?service=WPS&version=1.0.0&request=Dismiss&executionId={job}") as answer:
    expect(answer.status == 200, answer.status)
finished(execution)
expect(not execution.isSucceded(), execution.status)
expect("dismiss" in execution.errors[0].text.lower(), execution.errors[0].text)
step("dismissal")
