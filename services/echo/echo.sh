#!/bin/sh
# Gives back what it is given: the text as result_text.txt, the file (or else the text) as result_file.txt, both in the
# current folder. Each value is one argument, whatever characters it holds; nothing here is ever evaluated.
set -eu

text= data=
while [ $# -gt 0 ]; do
    case $1 in
        --text=*) text=${1#--text=} ;;
        --data=*) data=${1#--data=} ;;
        *) echo "[ERROR] unexpected argument: $1"; exit 64 ;;
    esac
    shift
done

echo "progress: 0"
printf '%s' "$text" > result_text.txt
if [ -n "$data" ]; then
    cp -- "$data" result_file.txt
else
    printf '%s' "$text" > result_file.txt
fi
echo "progress: 100"
