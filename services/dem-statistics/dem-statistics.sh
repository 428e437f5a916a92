#!/bin/sh
# Statistics of an elevation grid in ESRI ASCII form, with nothing but a POSIX shell and awk. Writes to the current folder:
# statistics.json, histogram.csv, and min.txt, max.txt, mean.txt with one number each.
set -eu

grid= bins=10
while [ $# -gt 0 ]; do
    case $1 in
        --grid=*) grid=${1#--grid=} ;;
        --bins=*) bins=${1#--bins=} ;;
        *) echo "[ERROR] unexpected argument: $1"; exit 64 ;;
    esac
    shift
done

# Two passes over the grid: the first finds the range, the second counts the classes of the histogram.
LC_ALL=C awk -v bins="$bins" '
    function fail(text) { print "[CRITICAL] " text; failed = 1; exit 65 }
    function tell(done) { if (int(done) > told) { told = int(done); print "[INFO] ProgressInfo:" told "%" } }

    FNR == 1 { pass++; row = 0 }
    # The header: one word and one number a line, until the first line that begins with a number.
    row == 0 && $1 ~ /^[A-Za-z_]+$/ { if (pass == 1) header[tolower($1)] = $2; next }
    row == 0 && pass == 1 {
        if (!("ncols" in header) || !("nrows" in header)) fail("not an ESRI ASCII grid: ncols or nrows is missing")
        columns = header["ncols"] + 0; rows = header["nrows"] + 0
        has_nodata = ("nodata_value" in header); nodata = header["nodata_value"] + 0
    }
    NF == 0 { next }
    {
        row++
        if (NF != columns) fail("row " row " has " NF " cells instead of " columns)
        for (i = 1; i <= NF; i++) {
            cell = $i + 0
            if (has_nodata && cell == nodata) { if (pass == 1) void++; continue }
            if (pass == 1) {
                if (cells == 0 || cell < low) low = cell
                if (cells == 0 || cell > high) high = cell
                cells++; sum += cell; squares += cell * cell
            } else {
                class = (high > low) ? int((cell - low) / (high - low) * bins) : 0
                if (class >= bins) class = bins - 1      # the highest cell belongs to the last class
                count[class]++
            }
        }
        tell(((pass - 1) * rows + row) * 50 / rows)
    }
    END {
        if (failed) exit 65
        if (cells == 0) { print "[CRITICAL] the grid holds no elevation"; exit 65 }
        mean = sum / cells
        variance = squares / cells - mean * mean
        printf "%g\n", low > "min.txt"
        printf "%g\n", high > "max.txt"
        printf "%.3f\n", mean > "mean.txt"
        print "from,to,cells" > "histogram.csv"
        printf "{\n  \"columns\": %d,\n  \"rows\": %d,\n  \"cells\": %d,\n  \"without_data\": %d,\n", columns, rows, cells, void > "statistics.json"
        printf "  \"min\": %g,\n  \"max\": %g,\n  \"mean\": %.3f,\n", low, high, mean > "statistics.json"
        printf "  \"standard_deviation\": %.3f,\n  \"histogram\": [\n", (variance > 0) ? sqrt(variance) : 0 > "statistics.json"
        for (class = 0; class < bins; class++) {
            from = low + (high - low) * class / bins
            to = low + (high - low) * (class + 1) / bins
            printf "%.3f,%.3f,%d\n", from, to, count[class] > "histogram.csv"
            printf "    {\"from\": %.3f, \"to\": %.3f, \"cells\": %d}%s\n", from, to, count[class], (class < bins - 1) ? "," : "" > "statistics.json"
        }
        print "  ]\n}" > "statistics.json"
    }
' "$grid" "$grid"
