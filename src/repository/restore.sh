#!/bin/sh
# restore.sh - takes one backup out of this repository with standard tools alone:
# a POSIX shell, openssl (1.1.1 or later), zstd or gzip, tar, awk, od. Nothing of neo4j-backup-agent is needed.
#
#   sh restore.sh BACKUP-ID PASSPHRASE_FILE DESTINATION
#
# BACKUP-ID is as in the name of the manifest plus the kind: graph-20261120T020000Z-dump. DESTINATION must not exist,
# or be empty. The manifest's signature and the SHA-256 of every object are checked before anything is decrypted;
# DESTINATION appears at the end, whole, or not at all. What lay outside the data directory (configuration) goes to
# DESTINATION.config.
#
# Neither the passphrase nor a key made from it is ever an argument of a program, where every user of the machine could
# read it. `openssl kdf` takes the passphrase only as an argument, so the signing key is derived by python3 or perl,
# which read the file themselves, and where neither is installed by this shell alone, which takes one to four minutes.
# NBA_DERIVE=python3|perl|shell chooses one. NBA_ENVIRONMENT=NAME chooses among environments that share the repository.
#
# Exit status: 0 restored, 1 failed, 2 usage, 4 refused, 12 wrong passphrase, 13 the backup is damaged or forged.
set -eu
umask 077
LC_ALL=C
export LC_ALL

fail() {
  status=$1
  shift
  printf 'restore.sh: %s\n' "$*" >&2
  exit "$status"
}

# --- deriving the signing key: PBKDF2-HMAC-SHA-256(passphrase, SALT, ROUNDS, 32 bytes) ---

SALT_HEX=6e656f346a2d6261636b75702f76312f7369676e # "neo4j-backup/v1/sign"
ROUNDS=100000

derive_with_python3() {
  python3 -I -c '
import hashlib, sys
with open(sys.argv[1], "rb") as f:
    passphrase = f.readline().rstrip(b"\n")
print(hashlib.pbkdf2_hmac("sha256", passphrase, bytes.fromhex(sys.argv[2]), int(sys.argv[3])).hex())
' "$1" "$SALT_HEX" "$ROUNDS"
}

derive_with_perl() {
  perl -MDigest::SHA=hmac_sha256 -e '
open my $f, "<:raw", $ARGV[0] or die; my $p = <$f>; chomp $p;
my $u = hmac_sha256(pack("H*", $ARGV[1]) . "\0\0\0\1", $p); my $t = $u;
for (2 .. $ARGV[2]) { $u = hmac_sha256($u, $p); $t ^= $u }
print unpack("H*", $t), "\n";
' "$1" "$SALT_HEX" "$ROUNDS"
}

# Defines compress: one block of SHA-256, words w0..w15 into state a..h, as one list of arithmetic expansions. A word
# times R holds it twice in 64 bits, so that a shift rotates.
make_compress() {
  M=4294967295 R=4294967297 body= i=0
  set -- a b c d e f g h
  for k in \
    428a2f98 71374491 b5c0fbcf e9b5dba5 3956c25b 59f111f1 923f82a4 ab1c5ed5 d807aa98 12835b01 243185be 550c7dc3 72be5d74 \
    80deb1fe 9bdc06a7 c19bf174 e49b69c1 efbe4786 0fc19dc6 240ca1cc 2de92c6f 4a7484aa 5cb0a9dc 76f988da 983e5152 a831c66d \
    b00327c8 bf597fc7 c6e00bf3 d5a79147 06ca6351 14292967 27b70a85 2e1b2138 4d2c6dfc 53380d13 650a7354 766a0abb 81c2c92e \
    92722c85 a2bfe8a1 a81a664b c24b8b70 c76c51a3 d192e819 d6990624 f40e3585 106aa070 19a4c116 1e376c08 2748774c 34b0bcb5 \
    391c0cb3 4ed8aa4a 5b9cca4f 682e6ff3 748f82ee 78a5636f 84c87814 8cc70208 90befffa a4506ceb bef9a3f7 c67178f2; do
    k=$((0x$k)) j=$((i % 16))
    if [ "$i" -ge 16 ]; then
      p=$(((i - 15) % 16)) q=$(((i - 2) % 16)) r=$(((i - 7) % 16))
      body="$body \$((X=w$p*R)) \$((Y=w$q*R))"
      body="$body \$((w$j=(w$j+w$r+((X>>7^X>>18^w$p>>3)&M)+((Y>>17^Y>>19^w$q>>10)&M))&M))"
    fi
    body="$body \$((X=$5*R)) \$((Y=$1*R))"
    body="$body \$((t=$8+((X>>6^X>>11^X>>25)&M)+($7^($5&($6^$7)))+$k+w$j)) \$(($4=($4+t)&M))"
    body="$body \$(($8=(t+((Y>>2^Y>>13^Y>>22)&M)+(($1&$2)|($3&($1|$2))))&M))"
    set -- "$8" "$1" "$2" "$3" "$4" "$5" "$6" "$7"
    i=$((i + 1))
  done
  eval "compress() { : $body; }"
}

# The words of a 64-byte block, given in hex and combined with a mask.
load_block() {
  rest=$1 i=0
  while [ "$i" -lt 16 ]; do
    tail_of=${rest#????????}
    eval "w$i=$((0x${rest%"$tail_of"} ^ $2))"
    rest=$tail_of i=$((i + 1))
  done
}

start_state() {
  a=1779033703 b=3144134277 c=1013904242 d=2773480762 e=1359893119 f=2600822924 g=528734635 h=1541459225
}

pad_digest() {
  w8=2147483648 w9=0 w10=0 w11=0 w12=0 w13=0 w14=0 w15=768
}

# HMAC of the words w0.. (padded), whose value replaces w0..w7; I and O are the states after the key's two blocks.
hmac_words() {
  a=$I0 b=$I1 c=$I2 d=$I3 e=$I4 f=$I5 g=$I6 h=$I7
  compress
  w0=$(((I0+a)&M)) w1=$(((I1+b)&M)) w2=$(((I2+c)&M)) w3=$(((I3+d)&M))
  w4=$(((I4+e)&M)) w5=$(((I5+f)&M)) w6=$(((I6+g)&M)) w7=$(((I7+h)&M))
  pad_digest
  a=$O0 b=$O1 c=$O2 d=$O3 e=$O4 f=$O5 g=$O6 h=$O7
  compress
  w0=$(((O0+a)&M)) w1=$(((O1+b)&M)) w2=$(((O2+c)&M)) w3=$(((O3+d)&M))
  w4=$(((O4+e)&M)) w5=$(((O5+f)&M)) w6=$(((O6+g)&M)) w7=$(((O7+h)&M))
  pad_digest
}

# The passphrase in hex is in $passphrase_hex.
derive_with_shell() {
  [ "$((1 << 40))" -gt 0 ] || fail 1 'this shell calculates with 32 bits; install python3 or perl'
  make_compress
  block=$passphrase_hex
  [ "${#block}" -le 128 ] || block=$(printf "$(octal "$block")" | sha256)
  while [ "${#block}" -lt 128 ]; do block=${block}00; done
  start_state && load_block "$block" $((0x36363636)) && compress
  I0=$(((1779033703+a)&M)) I1=$(((3144134277+b)&M)) I2=$(((1013904242+c)&M)) I3=$(((2773480762+d)&M))
  I4=$(((1359893119+e)&M)) I5=$(((2600822924+f)&M)) I6=$(((528734635+g)&M)) I7=$(((1541459225+h)&M))
  start_state && load_block "$block" $((0x5c5c5c5c)) && compress
  O0=$(((1779033703+a)&M)) O1=$(((3144134277+b)&M)) O2=$(((1013904242+c)&M)) O3=$(((2773480762+d)&M))
  O4=$(((1359893119+e)&M)) O5=$(((2600822924+f)&M)) O6=$(((528734635+g)&M)) O7=$(((1541459225+h)&M))
  # The salt (20 bytes), the block number 1, the mark of the end, and the length in bits: (64 + 24) * 8.
  block=${SALT_HEX}0000000180000000
  while [ "${#block}" -lt 120 ]; do block=${block}00; done
  load_block "${block}000002c0" 0
  hmac_words
  t0=$w0 t1=$w1 t2=$w2 t3=$w3 t4=$w4 t5=$w5 t6=$w6 t7=$w7 n=1
  while [ "$n" -lt "$ROUNDS" ]; do
    hmac_words
    : $((t0^=w0)) $((t1^=w1)) $((t2^=w2)) $((t3^=w3)) $((t4^=w4)) $((t5^=w5)) $((t6^=w6)) $((t7^=w7)) $((n+=1))
  done
  printf '%08x' "$t0" "$t1" "$t2" "$t3" "$t4" "$t5" "$t6" "$t7"
}

is_key() {
  [ "${#1}" -eq 64 ] && case $1 in *[!0-9a-f]*) false ;; esac
}

derive() {
  for way in ${NBA_DERIVE:-python3 perl shell}; do
    case $way in
      shell)
        printf 'restore.sh: deriving the key in the shell; this takes one to four minutes\n' >&2
        signing_key=$(derive_with_shell)
        ;;
      python3 | perl)
        command -v "$way" >/dev/null 2>&1 || continue
        signing_key=$("derive_with_$way" "$1" 2>/dev/null) || continue
        ;;
      *) fail 2 "NBA_DERIVE=$way is not known" ;;
    esac
    ! is_key "$signing_key" || return 0
  done
  fail 1 'the signing key could not be derived'
}

# --- digests ---

sha256() {
  openssl dgst -sha256 -r | cut -d ' ' -f 1
}

# Escapes for printf from hex digits, each byte combined with a mask.
octal() {
  rest=$1 mask=${2:-0} escapes=
  while [ -n "$rest" ]; do
    tail_of=${rest#??}
    n=$((0x${rest%"$tail_of"} ^ mask))
    escapes="$escapes\\$((n / 64))$((n / 8 % 8))$((n % 8))"
    rest=$tail_of
  done
  printf '%s' "$escapes"
}

# HMAC-SHA-256 of the standard input under $signing_key. The key goes through pipes only: printf is built in.
hmac() {
  block=$signing_key
  while [ "${#block}" -lt 128 ]; do block=${block}00; done
  inner_pad=$(octal "$block" $((0x36)))
  outer_pad=$(octal "$block" $((0x5c)))
  inner=$({ printf "$inner_pad"; cat; } | sha256)
  { printf "$outer_pad"; printf "$(octal "$inner")"; } | sha256
}

# --- the manifest ---

# Cuts the members that matter out of a manifest as it is written: pretty-printed, two spaces a level. First the
# backup's own, then a line for each object: key, role, name, content, size, SHA-256, filters, iterations, and size
# and SHA-256 of the plaintext.
members() {
  awk '
    function value(line) {
      sub(/^ *"[^"]*": /, "", line); sub(/,$/, "", line); sub(/^"/, "", line); sub(/"$/, "", line)
      return line == "" || line == "null" ? "-" : line
    }
    /^  "objects": \[$/ { inside = 1; next }
    inside && /^  \]/ { inside = 0 }
    !inside && /^  "(document|format|id|environment|engine)": / {
      name = $1; gsub(/[":]/, "", name); print name "\t" value($0)
    }
    inside && /^    \{$/ {
      key = role = name = content = size = sum = iterations = plain_size = plain_sum = "-"; filters = ""; part = ""
    }
    inside && /^      "key": / { key = value($0) }
    inside && /^      "role": / { role = value($0) }
    inside && /^      "name": / { name = value($0) }
    inside && /^      "content": / { content = value($0) }
    inside && /^      "stored": \{$/ { part = "stored" }
    inside && /^      "plain": \{$/ { part = "plain" }
    inside && /^      "filters": \[$/ { part = "filters" }
    inside && /^      "encryption": \{$/ { part = "encryption" }
    inside && /^      []}]/ { part = "" }
    part == "stored" && /^        "size": / { size = value($0) }
    part == "stored" && /^        "sha256": / { sum = value($0) }
    part == "plain" && /^        "size": / { plain_size = value($0) }
    part == "plain" && /^        "sha256": / { plain_sum = value($0) }
    part == "encryption" && /^        "iterations": / { iterations = value($0) }
    part == "filters" && /^        "/ { one = $0; gsub(/[ ",]/, "", one); filters = filters "+" one }
    inside && /^    \}/ {
      print "object\t" key "\t" role "\t" name "\t" content "\t" size "\t" sum "\t" filters "+\t" iterations \
        "\t" plain_size "\t" plain_sum
    }'
}

member() {
  printf '%s\n' "$facts" | awk -F '\t' -v name="$1" '$1 == name { print $2; exit }'
}

objects() {
  printf '%s\n' "$facts" | awk '/^object\t/' | cut -f 2-
}

read_passphrase() {
  [ -f "$passphrase_file" ] && [ -r "$passphrase_file" ] || fail 2 "the passphrase file $passphrase_file cannot be read"
  passphrase_hex=$(head -n 1 "$passphrase_file" | tr -d '\n' | od -An -v -tx1 | tr -d ' \n')
  [ "${#passphrase_hex}" -ge 40 ] && [ "${#passphrase_hex}" -le 2046 ] ||
    fail 12 "the first line of $passphrase_file has $((${#passphrase_hex} / 2)) bytes; a passphrase has 20 to 1023"
}

find_manifest() {
  target=${id%%-*}
  stamp=${id#*-}
  stamp=${stamp%-*}
  case $target in '' | *[!a-z0-9_]*) fail 2 "$id is not a backup's id" ;; esac
  case $stamp in
    [0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9]T[0-9][0-9][0-9][0-9][0-9][0-9]Z) ;;
    *) fail 2 "$id is not a backup's id; one looks like graph-20261120T020000Z-dump" ;;
  esac
  day=${stamp%%T*}
  month=${day#????}
  place=year=${day%????}/month=${month%??}/day=${month#??}
  manifest_path=
  for candidate in "$repository"/environment=*/"$place/$target-$stamp.meta.json"; do
    [ -f "$candidate" ] && [ ! -L "$candidate" ] || continue
    environment=${candidate#"$repository"/environment=}
    environment=${environment%%/*}
    [ "${NBA_ENVIRONMENT:-$environment}" = "$environment" ] || continue
    [ -z "$manifest_path" ] || fail 2 "$id is in more than one environment; choose with NBA_ENVIRONMENT=NAME"
    manifest_path=$candidate
    stem=environment=$environment/$place/$target-$stamp
  done
  [ -n "$manifest_path" ] || fail 4 "there is no manifest of $id below $repository"
}

own_key_id() {
  printf key-id | hmac | cut -c 1-16
}

# Opens what is kept as key $2 with the passphrase in $1; what it opens to must be that key.
open_kept() {
  [ -f "$repository/keys/$2.enc" ] && [ ! -L "$repository/keys/$2.enc" ] && [ ! -e "$older/$2" ] || return 1
  openssl enc -d -aes-256-cbc -pbkdf2 -iter 100000 -md sha256 -pass "file:$1" -in "$repository/keys/$2.enc" \
    -out "$older/candidate" 2>/dev/null || return 1
  passphrase_hex=$(head -n 1 "$older/candidate" | tr -d '\n' | od -An -v -tx1 | tr -d ' \n')
  [ "${#passphrase_hex}" -ge 40 ] && [ "${#passphrase_hex}" -le 2046 ] || return 1
  derive "$older/candidate"
  [ "$(own_key_id)" = "$2" ] || return 1
  mv "$older/candidate" "$older/$2"
  passphrase_file=$older/$2
}

# After a rotation that was cut short one passphrase opens another, and only that one the wanted.
find_older() {
  ! open_kept "$1" "$claimed_id" || return 0
  [ "$2" -lt 9 ] || return 1
  for between in "$repository"/keys/*.enc; do
    between=${between##*/}
    between=${between%.enc}
    case $between in *[!0-9a-f]*) continue ;; esac
    if open_kept "$1" "$between" && find_older "$older/$between" $(($2 + 1)); then return 0; fi
  done
  return 1
}

# The repository keeps older passphrases, encrypted under the newest. $own_id is the key at hand, $claimed_id the wanted.
use_older_key() {
  wrong="$id was made with key $claimed_id; this passphrase is that of key $own_id"
  case $claimed_id in '' | *[!0-9a-f]*) fail 13 "$manifest_path names no key" ;; esac
  kept=$repository/keys/$claimed_id.enc
  [ -z "$older" ] && [ -f "$kept" ] || fail 12 "$wrong"
  older=$(mktemp -d) || fail 1 'a private directory for older passphrases cannot be made'
  find_older "$passphrase_file" 0 || fail 12 "$wrong, and neither it nor what it opens leads to that of key $claimed_id"
  printf 'restore.sh: %s was made with an older passphrase, which the repository keeps\n' "$id" >&2
}

# Reads the manifest once and checks its signature over exactly what was read.
check_manifest() {
  manifest=$(cat "$manifest_path" && printf x)
  manifest=${manifest%x}
  size=$(printf '%s' "$manifest" | wc -c)
  [ "$size" -gt 77 ] || fail 13 "$manifest_path is too short to be a manifest"
  end=$(printf '%s' "$manifest" | tail -c 77)
  claimed=$(printf '%s' "$end" | cut -d '"' -f 4 | head -n 1)
  [ "$end" = "\"hmac\": \"$claimed\"
}" ] && is_key "$claimed" || fail 13 "$manifest_path does not end in a signature"
  zeros=0000000000000000000000000000000000000000000000000000000000000000
  actual=$({ printf '%s' "$manifest" | head -c $((size - 68)); printf '%s"\n}\n' "$zeros"; } | hmac)
  if [ "$actual" != "$claimed" ]; then
    own_id=$(own_key_id)
    claimed_id=$(printf '%s' "$manifest" | tail -n 4 | awk -F '"' '$2 == "key_id" { print $4 }')
    if [ "$own_id" != "$claimed_id" ]; then
      use_older_key
      check_manifest
      return
    fi
    fail 13 "the signature of $manifest_path does not match its content"
  fi
  facts=$(printf '%s' "$manifest" | members)
  [ "$(member document)" = backup ] && [ "$(member format)" = 1 ] ||
    fail 4 "$manifest_path is of a format that this script does not know; look for a newer restore.sh"
  [ "$(member environment)" = "$environment" ] || fail 13 "$manifest_path was put in another's place"
  [ "$(member id)" = "$id" ] || fail 4 "of that second there is $(member id)"
}

check_objects() {
  count=0
  while IFS='	' read -r key role name content size sum filters iterations plain_size plain_sum; do
    case $key in
      *[!A-Za-z0-9._=/-]* | */.*) fail 13 "$key is no key of this repository" ;;
      "$stem".*) ;;
      *) fail 13 "$key does not belong to $id" ;;
    esac
    object=$repository/$key
    [ -f "$object" ] && [ ! -L "$object" ] || fail 13 "$key is missing"
    [ "$(wc -c <"$object")" -eq "$size" ] || fail 13 "$key has another size than the manifest says"
    [ "$(sha256 <"$object")" = "$sum" ] || fail 13 "$key is damaged: its SHA-256 is not that of the manifest"
    count=$((count + 1))
  done <<END
$(objects)
END
  [ "$count" -gt 0 ] || fail 13 "$id has no objects"
  printf 'restore.sh: signature and %s objects of %s are sound\n' "$count" "$id" >&2
}

# --- taking the objects out ---

# Every stage of a pipeline notes its own failure: a shell only tells that of the last one.
note() {
  printf '%s\n' "$1" >>"$staging/failed"
}

decrypt() {
  if [ "$iterations" = - ]; then
    cat "$object"
  else
    openssl enc -d -aes-256-cbc -pbkdf2 -iter "$iterations" -md sha256 -pass "file:$passphrase_file" -in "$object"
  fi || note decrypting
}

decompress() {
  case $filters in
    *+zstd+*) zstd -q -d -c ;;
    *+gzip+*) gzip -d -c ;;
    *) cat ;;
  esac || note decompressing
}

take_out() {
  place=$staging/data
  [ "$role" = data ] || place=$staging/config
  object=$repository/$key
  file=
  case $content in
    tar) ;;
    neo4j-dump)
      case $name in '' | [-.]* | *[!A-Za-z0-9._-]*) fail 13 "$name is no name of a database" ;; esac
      file=$place/$name.dump
      ;;
    neo4j-backup)
      case $name in '' | [-.]* | *[!A-Za-z0-9._-]*) fail 13 "$name is no name of a database" ;; esac
      # Called as the tool that made it would: `database load` looks for the database's name and this ending.
      file=$place/$name-$stamp.backup
      ;;
    *)
      file=${key##*/}
      file=${file%.enc}
      file=${file%.zst}
      file=$place/${file%.gz}
      ;;
  esac
  if [ -z "$file" ]; then
    decrypt | decompress | {
      tar -x -p -f - -C "$place" || note unpacking
      cat >/dev/null
    }
  else
    decrypt | decompress | { cat >"$file" || note writing; }
  fi
  [ ! -e "$staging/failed" ] || fail 1 "$(tr '\n' ' ' <"$staging/failed")of $key failed; nothing was restored"
  [ -n "$file" ] || return 0
  [ "$(wc -c <"$file")" -eq "$plain_size" ] || fail 13 "$key opens to another size than the manifest says"
  [ "$plain_sum" = - ] || [ "$(sha256 <"$file")" = "$plain_sum" ] ||
    fail 13 "$key opens to another content than the manifest says"
}

prepare_destination() {
  [ -n "$destination" ] && [ "$destination" != / ] || fail 2 'the destination must be a directory of its own'
  if [ -e "$destination" ] || [ -L "$destination" ]; then
    [ -d "$destination" ] && [ ! -L "$destination" ] && [ -z "$(ls -A "$destination")" ] ||
      fail 4 "$destination is there and not an empty directory"
  fi
  [ ! -e "$destination.config" ] || fail 4 "$destination.config is there already"
  mkdir "$destination.partial" || fail 4 "$destination.partial cannot be made; if it was left by an earlier run, remove it"
  staging=$destination.partial
  mkdir "$staging/data" "$staging/config"
}

finish() {
  [ ! -d "$destination" ] || rmdir "$destination"
  [ -z "$(ls -A "$staging/config")" ] || mv "$staging/config" "$destination.config"
  mv "$staging/data" "$destination"
  sync
}

advise() {
  printf '%s is in %s\n' "$id" "$destination"
  case $(member engine) in
    neo4j)
      for file in "$destination"/*.dump; do
        [ -e "$file" ] || continue
        name=${file##*/}
        printf 'As the user of the server, while it is stopped:\n'
        printf "  neo4j-admin database load --from-path='%s' --overwrite-destination=true %s\n" "$destination" "${name%.dump}"
      done
      for file in "$destination"/*"-$stamp.backup"; do
        [ -e "$file" ] || continue
        name=${file##*/}
        printf 'As the user of the server, while it is stopped:\n'
        printf "  neo4j-admin database load --from-path='%s' --overwrite-destination=true %s\n" "$destination" "${name%"-$stamp.backup"}"
      done
      ;;
    postgresql)
      if [ -e "$destination/$target-$stamp.globals.sql" ]; then
        printf 'As a superuser of a cluster that runs, the roles first:\n'
        printf "  psql -d template1 -f '%s'\n" "$destination/$target-$stamp.globals.sql"
        for file in "$destination"/*.db*.dump; do
          [ ! -e "$file" ] || printf "  pg_restore --create -d template1 '%s'\n" "$file"
        done
        for file in "$destination"/*.db*.sql; do
          [ ! -e "$file" ] || printf "  psql -d template1 -f '%s'\n" "$file"
        done
        return
      fi
      printf 'As root, then as the user of the server:\n'
      printf "  chown -R postgres:postgres '%s' && chmod 0700 '%s'\n" "$destination" "$destination"
      printf "  pg_ctl -D '%s' start\n" "$destination"
      ;;
  esac
}

absolute() {
  case $1 in
    /*) printf '%s' "${1%/}" ;;
    *) printf '%s/%s' "$(pwd)" "${1%/}" ;;
  esac
}

main() {
  [ "$#" -eq 3 ] || fail 2 'usage: sh restore.sh BACKUP-ID PASSPHRASE_FILE DESTINATION'
  case $(command -v printf) in */*) fail 1 'this shell has no printf of its own; use dash or bash' ;; esac
  id=$1
  passphrase_file=$(absolute "$2")
  destination=$(absolute "$3")
  repository=$(cd "$(dirname "$0")" && pwd)
  staging= older=
  trap 'rm -rf ${staging:+"$staging"} ${older:+"$older"}' EXIT
  trap 'exit 1' HUP INT TERM
  find_manifest
  read_passphrase
  derive "$passphrase_file"
  check_manifest
  check_objects
  prepare_destination
  # Not a pipe: fail must end the script.
  while IFS='	' read -r key role name content size sum filters iterations plain_size plain_sum; do
    take_out </dev/null
  done <<END
$(objects)
END
  finish
  advise
}

main "$@"
