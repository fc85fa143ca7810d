# Makes the passwords of the administrators for compose.yaml, each once, and the line in .env that says where they are.
# The folder is its owner's alone; a file can be read by whom its container runs as, for it is mounted there.
set -eu
umask 077

folder=${1:-.secrets}
mkdir -p "$folder"
chmod 0700 "$folder"
for name in redis-password postgres-password; do
    [ ! -s "$folder/$name" ] || continue
    head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n' >"$folder/$name.new"
    chmod 0444 "$folder/$name.new"
    mv "$folder/$name.new" "$folder/$name"
    echo "made $folder/$name"
done
case $folder in
    /*) path=$folder ;;
    *) path=./$folder ;;
esac
grep -q '^AGENTMEMORY_SECRETS=' .env 2>/dev/null || echo "AGENTMEMORY_SECRETS=$path" >>.env
