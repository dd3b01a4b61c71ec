# Runs `distlstm "$@"` with the Python of the cluster.
#
# `python` on the PATH may be another one. The process that started this shell belongs to Ray, so the
# path of Ray's library in it tells which Python that is.
library=$(sed -n 's|^[^/]*\(/.*\)/lib[0-9]*/python[^/]*/[^/]*/ray/_raylet[^/]*$|\1|p' \
    "/proc/$PPID/maps" 2>/dev/null | head -n 1)
for python in "$library/bin/python3" python3 python; do
    if "$python" -c 'import importlib.util as u; raise SystemExit(not u.find_spec("ray"))' \
        2>/dev/null; then
        exec "$python" -m distlstm "$@"
    fi
done
echo "Error: no Python with Ray was found on the head of the cluster. Put it on the PATH there." >&2
exit 1
