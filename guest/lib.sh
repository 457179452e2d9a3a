# shellcheck shell=bash disable=SC2154
# Shared by the guest recipes: the cache folder, progress, stamps, and a private apt that sees only
# Debian 13 riscv64.
#
# Stays true: nothing outside the cache folder is written, the machine's own apt state is only read,
# and a finished file appears under its final name in one rename, so an interrupted run leaves either
# the old image or none.

set -euo pipefail
# Files that become the guest's must be readable there, whatever the user's own mask.
umask 022

guest_suite=trixie
# What the archive calls it while it is the newest release.
guest_alias=stable
guest_arch=riscv64
guest_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache_dir=${DOPPEL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/doppel}
apt_dir=$cache_dir/apt
stamp_dir=$cache_dir/stamps
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

say() { printf 'guest: %s\n' "$*" >&2; }

die() {
    printf 'guest: %s\n' "$*" >&2
    exit 1
}

# progress DONE TOTAL WHAT : one line that counts on a terminal, a line now and then elsewhere
progress() {
    if [[ -t 2 ]]; then
        printf '\rguest: %s, %d of %d' "$3" "$1" "$2" >&2
        (($1 < $2)) || printf '\n' >&2
    elif (($1 % 40 == 0 || $1 == $2)); then
        say "$3, $1 of $2"
    fi
}

# Makes a scratch folder inside the cache (the same file system, so that a rename is atomic) that goes
# away with the script. Sets $work.
make_work_dir() {
    mkdir -p "$cache_dir" "$stamp_dir"
    work=$(mktemp -d "$cache_dir/tmp.XXXXXXXX")
    trap 'rm -rf "$work"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
}

# Two builds at once would race for the apt folder; the second waits for the first.
take_lock() {
    mkdir -p "$cache_dir"
    exec 9>"$cache_dir/lock"
    if ! flock -n 9; then
        say "another build of the guest is running; waiting for it"
        flock 9
    fi
}

# --- staleness -------------------------------------------------------------------------------------
# An image is stale when the hash of its inputs is not the one in its stamp: the recipe's files and the
# package lists, which decide the version of every package. Times are not compared: a fresh clone has
# new times and the same recipe.

# hash_inputs FILE... : one hash over the contents of the package lists and of these files (folders:
# all files in them)
hash_inputs() {
    find "$apt_dir/sources.list" "$apt_dir"/lists/*InRelease "$@" -type f -print0 | LC_ALL=C sort -z |
        xargs -0 cat | sha256sum | cut -d' ' -f1
}

# is_fresh NAME HASH OUTPUT... : true when every output exists and the stamp holds HASH
is_fresh() {
    local name=$1 hash=$2 output
    shift 2
    for output in "$@"; do
        [[ -e $cache_dir/$output ]] || return 1
    done
    [[ -e $stamp_dir/$name && $(<"$stamp_dir/$name") == "$hash" ]]
}

set_stamp() { printf '%s\n' "$2" >"$stamp_dir/$1.new" && mv "$stamp_dir/$1.new" "$stamp_dir/$1"; }

# publish FILE... : moves finished files from the scratch folder into the cache
publish() {
    local file
    for file in "$@"; do
        mv -f "$work/$file" "$cache_dir/$file"
    done
}

# --- the private apt -------------------------------------------------------------------------------

# The address this machine gets its own Debian packages from. Only the main archive carries every
# suite, so a security or third-party source does not do.
find_mirror() {
    local uri
    # shellcheck disable=SC2016
    uri=$(apt-get indextargets --format '$(REPO_URI) $(ORIGIN) $(CODENAME) $(COMPONENT) $(CREATED_BY)' |
        awk '$2 == "Debian" && $4 == "main" && $5 == "Packages" && $3 !~ /-/ { print $1; exit }')
    [[ -n $uri ]] || die "apt knows no Debian archive on this machine; check /etc/apt and run apt-get update"
    printf '%s\n' "$uri"
}

# apt-get, apt-cache, ... with every folder of state replaced by our own. Proxies and certificates of
# the machine's configuration keep working.
private_apt() {
    local tool=$1
    shift
    "$tool" \
        -o Dir::Etc::sourcelist="$apt_dir/sources.list" -o Dir::Etc::sourceparts=/dev/null \
        -o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null \
        -o Dir::State="$apt_dir" -o Dir::State::Lists="$apt_dir/lists" \
        -o Dir::State::status="$apt_dir/status" \
        -o Dir::Cache="$apt_dir" -o Dir::Cache::archives="$apt_dir/archives" \
        -o APT::Architecture="$guest_arch" -o APT::Architectures="$guest_arch" \
        -o APT::Install-Recommends=false -o APT::Sandbox::User= \
        -o Acquire::Languages=none -o Acquire::Retries=3 -o Debug::NoLocking=true \
        "$@"
}

# Fetches the package lists unless they are there: with a filled cache everything works offline.
# $1 = refresh asks for new ones all the same.
#
# A mirror in the middle of an update serves an index that its own signed Release file contradicts, and
# apt rightly refuses it. The release is also there under its alias ("stable"), whose files such a mirror
# may have from one state; else it may be done soon.
prepare_apt() {
    local suite pause
    mkdir -p "$apt_dir"/{lists,archives}/partial
    [[ -e $apt_dir/status ]] || : >"$apt_dir/status"
    if [[ ${1:-} != refresh && -e $apt_dir/updated ]]; then
        return
    fi
    [[ -e $keyring ]] || die "$keyring is missing; install the package debian-archive-keyring"
    say "fetching the package lists of Debian $guest_suite $guest_arch"
    for pause in 0 20 60; do
        if ((pause)); then
            say "no consistent package lists; trying again in $pause seconds"
            sleep "$pause"
        fi
        for suite in "$guest_suite" "$guest_alias"; do
            [[ $suite == "$guest_suite" ]] || say "trying $guest_suite by its other name, $suite"
            if fetch_lists "$suite"; then
                touch "$apt_dir/updated"
                return
            fi
        done
    done
    die "this machine's Debian mirror gives no lists of $guest_suite that match their signature (see above); try later or name another in /etc/apt"
}

# fetch_lists SUITE : true when the lists are there, verified, and those of our release, whatever name
# SUITE gives it. Otherwise the earlier ones, if any, stay.
fetch_lists() {
    local sources=$apt_dir/sources.list.new codename
    printf 'deb [signed-by=%s] %s %s main\n' "$keyring" "$(find_mirror)" "$1" >"$sources"
    # "any" turns a source that cannot be fetched or verified from a warning into an error. Lists of another
    # name are kept until it is known which are used.
    private_apt apt-get update -o Dir::Etc::sourcelist="$sources" -o APT::Get::List-Cleanup=false \
        -o APT::Update::Error-Mode=any >&2 || return 1
    # shellcheck disable=SC2016
    codename=$(private_apt apt-get indextargets -o Dir::Etc::sourcelist="$sources" --format '$(CODENAME)' 'Created-By: Packages')
    if [[ $codename != "$guest_suite" ]]; then
        say "the mirror's $1 is ${codename:-unknown}, not $guest_suite"
        rm -f "$apt_dir"/lists/*_dists_"$1"_*
        return 1
    fi
    mv "$sources" "$apt_dir/sources.list"
    find "$apt_dir/lists" -maxdepth 1 -type f ! -name "*_dists_$1_*" ! -name lock -delete
}

# download PACKAGE... : fetches and verifies these packages (without what they depend on) and prints
# the paths of the .deb files, one a line.
download() {
    local package version file missing=()
    for package in "$@"; do
        file=$(deb_path "$package")
        [[ -e $file ]] || missing+=("$package")
    done
    if ((${#missing[@]})); then
        say "downloading ${missing[*]}"
        (cd "$apt_dir/archives" && private_apt apt-get download "${missing[@]}" >&2) ||
            die "cannot download ${missing[*]}; newer package lists may help: guest/build --refresh"
    fi
    for package in "$@"; do
        file=$(deb_path "$package")
        [[ -e $file ]] || die "apt did not leave $file"
        printf '%s\n' "$file"
    done
}

# The path at which apt stores the newest version of a package.
deb_path() {
    local version architecture
    read -r version architecture < <(private_apt apt-cache show --no-all-versions "$1" |
        awk '$1 == "Version:" { v = $2 } $1 == "Architecture:" { a = $2 } END { print v, a }')
    [[ -n ${architecture:-} ]] || die "Debian $guest_suite has no package $1"
    printf '%s/archives/%s_%s_%s.deb\n' "$apt_dir" "$1" "${version//:/%3a}" "$architecture"
}

# resolve PATTERN... : the paths at which apt stores the packages that installing these on an empty
# system takes, in an order in which they can be installed
resolve() {
    private_apt apt-get -s install "$@" | awk -v folder="$apt_dir/archives" '
        $1 == "Inst" {
            # Inst NAME (VERSION ORIGIN [ARCHITECTURE]) ...
            version = substr($3, 2)
            gsub(/:/, "%3a", version)
            match($0, /\[[^]]*\]\)/)
            architecture = substr($0, RSTART + 1, RLENGTH - 3)
            print folder "/" $2 "_" version "_" architecture ".deb"
        }'
}

# download_all PATTERN... : fetches and verifies what resolve names
download_all() {
    private_apt apt-get -y -q --download-only install "$@" | awk '/^(Get:|Fetched|Err)/' >&2 ||
        die "cannot download the packages; newer package lists may help: guest/build --refresh"
}
