#!/bin/sh
# Writes the `expected` folders anew: the same programs as in the descriptors, run by hand with the values of the sample
# requests, without agent or orchestrator. Rasters and vectors are described by GDAL's own tools (size, number of features,
# range of values), because the bytes of a GeoTIFF depend on the version of the library.
set -eu

services=$(cd "$(dirname "$0")" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"

"$services/echo/echo.sh" --text='Grüße, "world"  & $(id)' > /dev/null
cp result_text.txt "$services/echo/expected/"

"$services/sleep/sleep.sh" --seconds=1.5 > /dev/null
cp result.txt "$services/sleep/expected/"

"$services/dem-statistics/dem-statistics.sh" --bins=8 --grid="$services/data/jacksboro-dem.asc" > /dev/null
cp statistics.json histogram.csv min.txt max.txt mean.txt "$services/dem-statistics/expected/"

command -v gdal_contour > /dev/null || { echo "GDAL is not installed: the other three are left as they are"; exit 0; }
model=$services/data/jacksboro-dem.tif

# What of a file does not change between versions of GDAL.
describe_lines() { ogrinfo -so -al "$1" | grep -E '^(Geometry|Feature Count|Extent)'; }
describe_raster() { gdalinfo "$1" | grep -E '^(Size is|Origin|Pixel Size|Band 1)' | sed 's/ Block=[^ ]*//'; }

gdal_contour -q -i 100 -a elev "$model" contours.geojson
describe_lines contours.geojson > "$services/gdal-contour/expected/result_geojson.txt"

gdaldem hillshade -q -compute_edges -of GTiff -co COMPRESS=DEFLATE -s 111120 -az 315 -alt 45 -z 1 "$model" hillshade.tif
describe_raster hillshade.tif > "$services/gdal-hillshade/expected/result.txt"

gdalwarp -q -overwrite -of GTiff -co COMPRESS=DEFLATE -t_srs EPSG:32616 -r near -tr 90 90 "$model" warped.tif
describe_raster warped.tif > "$services/gdal-warp/expected/result.txt"
