"""`completion`: what makes a shell complete the words of a command.

The scripts only carry words to `complete`, which knows the commands, and answers back. A dot
before each word keeps options from being taken for those of `complete`.
"""

from __future__ import annotations

import argparse

_BASH = r"""# Load it from ~/.bashrc: eval "$(nxs-backup completion bash)"
_nxs_backup() {
    local line
    COMPREPLY=()
    while IFS= read -r line; do
        if [[ $line == :files ]]; then
            compopt -o default
        else
            COMPREPLY+=("${line%%$'\t'*}")
        fi
    done < <("${COMP_WORDS[0]/#\~/$HOME}" complete "$COMP_CWORD" "${COMP_WORDS[@]/#/.}" 2>/dev/null)
}
complete -F _nxs_backup nxs-backup nxs-backup.pyz
"""

_ZSH = r"""#compdef nxs-backup nxs-backup.pyz
# Load it from ~/.zshrc, after compinit: eval "$(nxs-backup completion zsh)"
_nxs_backup() {
    local line program="${(Q)words[1]/#\~/$HOME}"
    local -a found
    for line in "${(@f)$("$program" complete $((CURRENT - 1)) "${words[@]/#/.}" 2>/dev/null)}"; do
        if [[ $line == :files ]]; then
            compset -P 1 '*='
            _files
            return
        fi
        [[ -n $line ]] && found+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}")
    done
    _describe -V nxs-backup found
}
if [[ ${funcstack[1]} == _nxs_backup ]]; then
    _nxs_backup "$@"
else
    compdef _nxs_backup nxs-backup nxs-backup.pyz
fi
"""

_FISH = r"""# Load it from ~/.config/fish/config.fish: nxs-backup completion fish | source
function __nxs_backup_complete
    set -l words (commandline -opc)
    set -l place (count $words)
    set -l current (commandline -ct)
    set -l all (commandline -op)
    set -l next (math $place + 1)
    test -n "$current"; and set next (math $next + 1)
    set -a words "$current"
    test $next -le (count $all); and set -a words $all[$next..-1]
    for line in ($words[1] complete $place .$words 2>/dev/null)
        if test "$line" = :files
            __fish_complete_path "$current"
        else
            echo $line
        end
    end
end
complete -c nxs-backup -f -a '(__nxs_backup_complete)'
complete -c nxs-backup.pyz -f -a '(__nxs_backup_complete)'
"""

SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def run(options: argparse.Namespace) -> int:
    """Print the script of a shell; returns the exit code."""
    print(SCRIPTS[options.shell], end="")
    return 0
