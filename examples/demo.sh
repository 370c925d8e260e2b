#!/bin/sh
# A real backup of files and a database to two folders, verified, restored and compared.
# Runs the archive $NXS_BACKUP (default dist/nxs-backup.pyz) under $PYTHON; everything it makes is
# below $NXS_DEMO (default build/demo).
set -eu

here=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
archive=$(cd "$(dirname "${NXS_BACKUP:-dist/nxs-backup.pyz}")" && pwd)/nxs-backup.pyz
NXS_DEMO=${NXS_DEMO:-$here/build/demo}
PYTHON=$python
export NXS_DEMO PYTHON

step() { printf '\n== %s\n' "$*"; }
nxs_backup() { "$python" "$archive" "$@"; }

rm -rf "$NXS_DEMO/data" "$NXS_DEMO/restored"
mkdir -p "$NXS_DEMO"

step "Some data of our own: files, links, an SQLite database"
"$python" - "$NXS_DEMO/data" <<'PYTHON'
import os, random, sqlite3, sys
random.seed(1)
root = sys.argv[1]
site = os.path.join(root, "site")
for number in range(200):
    folder = os.path.join(site, "posts", "%02d" % (number % 20))
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "post-%03d.txt" % number), "w") as file:
        file.write("".join(random.choice("abcdefgh \n") for _ in range(random.randrange(20000))))
os.makedirs(os.path.join(site, "empty"))
os.symlink("posts/00/post-000.txt", os.path.join(site, "latest"))
os.link(os.path.join(site, "posts/00/post-000.txt"), os.path.join(site, "same"))
os.chmod(os.path.join(site, "posts"), 0o750)
with sqlite3.connect(os.path.join(root, "notes.db")) as database:
    database.execute("create table notes (id integer primary key, body text)")
    rows = (("note %d with 'quotes'" % number,) for number in range(1000))
    database.executemany("insert into notes (body) values (?)", rows)
PYTHON

if [ ! -f "$NXS_DEMO/key.txt" ]; then
    step "A key pair: the public key encrypts, the private key restores"
    nxs_backup keygen "$NXS_DEMO/key.txt" > "$NXS_DEMO/key.pub"
    cat "$NXS_DEMO/key.pub"
fi

config=$here/examples/quickstart.yaml
chmod 600 "$config" 2>/dev/null || true
step "graph: what will happen"
nxs_backup graph "$config"
step "run: one read, two folders"
nxs_backup run "$config"
step "list: what there is now"
nxs_backup list "$config"
step "verify: read back, decrypt, decompress, compare digests"
nxs_backup verify "$config"
step "restore, and compare with the original"
nxs_backup restore "$config" --backup site --to "$NXS_DEMO/restored/site"
nxs_backup restore "$config" --backup notes --to "$NXS_DEMO/restored/notes.sql"
diff -r "$NXS_DEMO/data/site" "$NXS_DEMO/restored/site$NXS_DEMO/data/site"
"$python" - "$NXS_DEMO/data/notes.db" "$NXS_DEMO/restored/notes.sql" <<'PYTHON'
import sqlite3, sys
query = "select * from notes order by id"
original = sqlite3.connect(sys.argv[1]).execute(query).fetchall()
restored = sqlite3.connect(":memory:")
with open(sys.argv[2]) as file:
    restored.executescript(file.read())
assert restored.execute(query).fetchall() == original and len(original) == 1000
PYTHON
echo "files and database are the same"

step "Where things are"
cat <<TEXT
program        $archive
configuration  $config
backups        $NXS_DEMO/first and $NXS_DEMO/second
private key    $NXS_DEMO/key.txt
restored       $NXS_DEMO/restored
By hand        the line "restore" of any *.manifest.json, with KEY_FILE=$NXS_DEMO/key.txt
TEXT
