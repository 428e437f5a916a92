"""Contour lines by asynchronous WPS with OWSLib: contour_owslib.py WPS INTERVAL FILE"""

import sys

from owslib.wps import WebProcessingService

url, interval, file = sys.argv[1:4]
wps = WebProcessingService(url)
execution = wps.execute("gdal:Contour", [("interval", interval)], output=[("result_geojson", True)])
while not execution.isComplete():
    execution.checkStatus(sleepSecs=0.2)
    print(execution.percentCompleted, "%")
if not execution.isSucceded():
    sys.exit("\n".join(f"{error.code}: {error.text}" for error in execution.errors))
execution.getOutput(file)
print("written:", file)
