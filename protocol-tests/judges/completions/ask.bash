# What bash offers at the end of command lines: bash --norc ask.bash SCRIPT < LINES
# Prints each line behind "> ", and what is offered below it, as bash-completion would ask for it.
set -eu
: "${COMP_WORDBREAKS:= }"
# The function sets options of its own (nosort), which only a completion may do.
compopt() { :; }
# shellcheck disable=SC1090
. "$1"
while IFS= read -r line; do
    read -ra COMP_WORDS <<<"$line"
    [[ $line != *' ' ]] || COMP_WORDS+=('')
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    COMP_LINE="$line" COMP_POINT=${#line} COMPREPLY=()
    printf '> %s\n' "$line"
    _pgiam pgiam "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}" || true
    printf '%s\n' "${COMPREPLY[@]}"
done
