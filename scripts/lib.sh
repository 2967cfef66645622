# Shared by the scripts beside it; sourced, not run.
# shellcheck shell=bash

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/pointsman
TARGET=${CARGO_TARGET_DIR:-$ROOT/target}
PASSED=0
FAILED=0

say() { printf '\n== %s\n' "$*"; }

die() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo --preserve-env=DEBIAN_FRONTEND "$@"
  else
    die "need root or sudo to run: $*"
  fi
}

# need THING:PACKAGE... : installs the packages of which the program or the file is not there.
need() {
  local pair thing missing=()
  for pair in "$@"; do
    thing=${pair%%:*}
    case $thing in
      /*) [ ! -e "$thing" ] || continue ;;
      *) PATH=$PATH:/usr/sbin:/sbin command -v "$thing" >/dev/null && continue ;;
    esac
    missing+=("${pair#*:}")
  done
  [ ${#missing[@]} = 0 ] || install_packages "${missing[@]}"
}

# Where Debian's packages come from: what apt is configured for, or what the environment says.
debian_mirror() {
  local from=${POINTSMAN_DEBIAN_MIRROR:-}
  [ -n "$from" ] || from=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
    grep -E '/debian/?$' | head -n 1)
  [ -n "$from" ] || die "apt knows no mirror of Debian here: set POINTSMAN_DEBIAN_MIRROR"
  echo "$from"
}

# Installs packages without starting the services that they bring.
install_packages() {
  command -v apt-get >/dev/null || die "need the packages $* and know only apt-get to install them"
  say "installing $*"
  export DEBIAN_FRONTEND=noninteractive
  local policy=/usr/sbin/policy-rc.d ours= status=0
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod 755 "$policy"
    ours=1
  fi
  as_root apt-get -qq update || status=$?
  as_root apt-get -qq -y --no-install-recommends install "$@" </dev/null || status=$?
  [ -z "$ours" ] || as_root rm -f "$policy"
  case " $* " in
    *' mariadb-server '*) stop_at_boot mariadb ;;
    *' haproxy '*) stop_at_boot haproxy ;;
  esac
  case " $* " in *' etcd-server '*) stop_at_boot etcd ;; esac
  [ $status = 0 ] || die "could not install $*"
}

# What was installed for a test must not become a service of the machine.
stop_at_boot() {
  if command -v systemctl >/dev/null; then
    as_root systemctl disable --quiet "$1" 2>/dev/null || true
  fi
}

# need_room GIB : there must be that much space for what is built and for the files of servers, which on a full disk wait
# without an error.
need_room() {
  local place free
  mkdir -p "$TARGET"
  for place in "$TARGET" "${TMPDIR:-/tmp}"; do
    free=$(($(df --output=avail --block-size=1M "$place" | tail -n 1)))
    say "$free MiB free at $place"
    [ "$free" -ge $(($1 * 1024)) ] || die "need $1 GiB of free space at $place: make room, or set CARGO_TARGET_DIR or TMPDIR"
  done
}

need_rust() {
  command -v cargo >/dev/null || PATH=$HOME/.cargo/bin:$PATH
  command -v cargo >/dev/null || die "need Rust: cargo is not on the PATH"
  if command -v rustup >/dev/null; then
    cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt
    cargo clippy --version >/dev/null 2>&1 || rustup component add clippy
  fi
  need cc:build-essential make:build-essential
}

need_mariadb() {
  need mariadbd:mariadb-server /usr/lib/mysql/plugin/auth_ed25519.so:mariadb-server setpriv:util-linux
}

need_mysql() {
  "$ROOT/scripts/mysql"
}

# What failed, told again at the end, where it is looked for first.
RECAP=
MOST_RECALLED=40

# recall NAME : takes what is on the standard input for the words on a failure.
recall() {
  RECAP+="
-- FAILED: $1
$(cut -c -400 | tail -n "$MOST_RECALLED")
"
}

# check NAME COMMAND... : counts as one passed or failed. What the command prints is shown when it has ended: it runs in
# this shell, where it may set variables and leave processes behind, which would keep a pipe open.
check() {
  local name=$1 log status=0
  shift
  say "$name"
  log=$(logged)
  "$@" >"$log" 2>&1 || status=$?
  cat "$log"
  if [ $status = 0 ]; then
    PASSED=$((PASSED + 1))
  else
    FAILED=$((FAILED + 1))
    echo "FAILED: $name"
    recall "$name" <"$log"
  fi
  rm -f "$log"
}

# tests NAME COMMAND... : counts the tests that the command reports, in the form of cargo test or of conclude.
tests() {
  local name=$1 log status=0 counts
  shift
  say "$name"
  log=$(logged)
  "$@" 2>&1 | tee "$log" || status=$?
  counts=$(awk '/^test result: / { for (i = 1; i < NF; i++) {
      if ($(i + 1) ~ /^passed/) passed += $i
      if ($(i + 1) ~ /^failed/) failed += $i } }
    /^[0-9]+ passed, [0-9]+ failed$/ { passed += $1; failed += $3 }
    END { print passed + 0, failed + 0 }' "$log")
  # Something that is not a test failed: it did not compile, or a test ended the process.
  if [ "$status" != 0 ] && [ "${counts#* }" = 0 ]; then
    counts="${counts% *} 1"
  fi
  if [ "$status" != 0 ]; then
    echo "FAILED: $name"
    recall "$name" < <(reasons "$log")
  fi
  rm -f "$log"
  PASSED=$((PASSED + ${counts% *}))
  FAILED=$((FAILED + ${counts#* }))
}

logged() {
  mkdir -p "$TARGET"
  mktemp "$TARGET/output.XXXXXX"
}

# reasons LOG : the first lines of each failed test's own words, or the last lines where no test says anything.
reasons() {
  local found
  found=$(awk '/^---- .* ----$/ { left = 40 } /^(failures:|test result: )/ { left = 0 } left-- > 0 && NF' "$1")
  if [ -n "$found" ]; then echo "$found"; else cat "$1"; fi
}

# Prints the one line of the result and ends.
conclude() {
  [ -z "$RECAP" ] || printf '%s' "$RECAP"
  printf '\n%d passed, %d failed\n' "$PASSED" "$FAILED"
  [ "$FAILED" = 0 ] && [ "$PASSED" != 0 ]
  exit
}
