#!/usr/bin/env bash
# Fails unless the log of a ComfyUI that started says that it imported the pack in custom_nodes/longlive with its nodes.
set -euo pipefail
log=$1
if grep -F "LongLive could not load its nodes" "$log"; then
    echo "The pack is there, but its nodes did not come up: the traceback is in the log." >&2
    exit 1
fi
# A pack that failed is listed too, as "0.1 seconds (IMPORT FAILED): …".
if ! grep -E "seconds: .*custom_nodes[/\\]longlive" "$log"; then
    echo "ComfyUI does not list custom_nodes/longlive among the packs that it imported." >&2
    exit 1
fi
