#!/usr/bin/env bash
# Fetches what the documentation pages are made of: Swagger UI and Redoc, at the
# versions and hashes below, and writes swagger-ui/, redoc/ and SHA256SUMS beside
# this file. Run again without a change here, it changes nothing: that is how to
# prove where the files come from. Needs npm, Python, openssl and gzip.
#
# Two things are taken out, each checked:
# - Redoc's logo, an image that every reader would fetch from its makers' host.
#   There is no option for it. The line "API docs by Redocly" stays.
# - The names of source maps, which we do not carry; a browser's developer tools
#   would ask for them.
#
# Not Redoc 3: it reports its use to its makers unless told otherwise.
set -euo pipefail
cd "$(dirname "$0")"

swagger=5.35.0
swagger_hash=sha512-U06rpMtW9V3XPGOBeamTUSr0Z09jMX4IJuANpE/EZbAhw0G8CgwrzU4YmXkn/h0wCDNsXdGarTNNHC3sU8yVUQ==
redoc=2.5.4
redoc_hash=sha512-M6jWhG1qoBnH6TFmzJnstyCZ87HmOY/UzDm78mHiYihEdlV/YcS9ogOo1NlElnJMeLsyxHFe2yFc4sNjHTrABQ==

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# fetch NAME VERSION HASH: unpacks a package into $work/NAME.
fetch() {
  (cd "$work" && npm pack --silent "$1@$2" >/dev/null)
  local got
  got=sha512-$(openssl dgst -sha512 -binary "$work/$1-$2.tgz" | base64 -w0)
  [ "$got" = "$3" ] || { echo "$1 $2 has the hash $got, expected $3" >&2; exit 1; }
  mkdir "$work/$1"
  tar -xzf "$work/$1-$2.tgz" -C "$work/$1" --strip-components=1
}

# cut_once FILE TEXT REPLACEMENT: replaces a text that must be there once.
cut_once() {
  local n
  n=$(grep -oF -- "$2" "$1" | wc -l)
  [ "$n" = 1 ] || { echo "$1 has $2 $n times, expected once" >&2; exit 1; }
  python3 - "$1" "$2" "$3" <<'PY'
import sys
path, old, new = sys.argv[1:]
text = open(path, encoding="utf-8", newline="").read()
open(path, "w", encoding="utf-8", newline="").write(text.replace(old, new))
PY
}

fetch swagger-ui-dist "$swagger" "$swagger_hash"
fetch redoc "$redoc" "$redoc_hash"
s=$work/swagger-ui-dist r=$work/redoc

cut_once "$r/bundles/redoc.standalone.js" \
  'n.createElement("img",{alt:"redocly logo",onError:()=>t(!1),src:"https://cdn.redoc.ly/redoc/logo-mini.svg"})' null
cut_once "$r/bundles/redoc.standalone.js" '//# sourceMappingURL=redoc.standalone.js.map' ''
cut_once "$s/swagger-ui.css" '/*# sourceMappingURL=swagger-ui.css.map*/' ''

rm -rf swagger-ui redoc
mkdir swagger-ui redoc
cp "$s"/{swagger-ui-bundle.js,swagger-ui.css,favicon-32x32.png,LICENSE,NOTICE,swagger-ui-bundle.js.LICENSE.txt} swagger-ui/
cp "$r"/LICENSE "$r"/bundles/redoc.standalone.js{,.LICENSE.txt} redoc/
sha256sum swagger-ui/* redoc/* >SHA256SUMS
gzip -9n swagger-ui/*.js swagger-ui/*.css redoc/*.js
